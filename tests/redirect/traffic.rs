//! Which server connections reach, for every option and every backend.

use msm_testkit::backend::Backend;
use msm_testkit::endpoints::{
    APP, APP_FROM_OUTSIDE, APP6, APP6_FROM_OUTSIDE, FAR, HTTP, HTTP_SERVER, HTTP_SERVER6, HTTP6,
    NEAR, POD, POD6, RTSP, RTSP_ALT, RTSP_LOCAL, RTSP_LOCAL6, RTSP_MAPPED, RTSP_NEAR, RTSP_POD,
    RTSP_POD6, RTSP6, SERVER, SERVER_ALT, SERVER6, STUB, STUB_ALT, STUB_FROM_OUTSIDE, STUB6,
    STUB6_FROM_OUTSIDE,
};
use msm_testkit::on_every_backend;
use msm_testkit::pod::{Pod, STUB_UID, lands};

on_every_backend! {
    default_port_is_redirected_with_the_pods_source_address,
    connections_of_the_stub_are_not_redirected,
    connections_to_loopback_are_not_redirected,
    other_ports_are_not_redirected,
    excluded_destinations_are_not_redirected,
    pods_own_address_is_redirected,
    ipv4_mapped_sockets_are_redirected,
    ipv6_is_bypassed_by_default,
    ipv6_redirect_redirects_ipv6,
    ipv6_reject_resets_connections,
    several_ports_are_redirected,
    proxy_port_and_user_are_configurable,
    inbound_connections_are_not_redirected_by_default,
    inbound_ports_are_redirected,
    inbound_ports_follow_the_ipv6_mode,
    cleanup_ends_the_redirect,
}

#[track_caller]
fn stub_lands(pod: &Pod, to: &str, expected: &str) {
    let landed = pod.connect_as(STUB_UID, to);
    assert_eq!(
        landed,
        expected,
        "the stub's connection to {to}\n{}",
        pod.inside.rules()
    );
}

#[track_caller]
fn lands_from_outside(pod: &Pod, to: &str, expected: &str) {
    let landed = pod.connect_from_outside(to);
    assert_eq!(
        landed,
        expected,
        "connection from outside to {to}\n{}",
        pod.inside.rules()
    );
}

fn default_port_is_redirected_with_the_pods_source_address(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, RTSP, STUB);
    lands(&pod, RTSP_NEAR, STUB);
}

fn connections_of_the_stub_are_not_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    stub_lands(&pod, RTSP, SERVER);
}

fn connections_to_loopback_are_not_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, RTSP_LOCAL, APP);
    lands(&pod, "127.3.2.1:554", APP);
}

fn other_ports_are_not_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, HTTP, HTTP_SERVER);
    lands(&pod, RTSP_ALT, SERVER_ALT);
}

fn excluded_destinations_are_not_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&["-d", "127.0.0.0/8", "--redir-dest-addr", "10.2.0.0/16"]);
    lands(&pod, RTSP, SERVER);
    lands(&pod, RTSP_NEAR, STUB);
    lands(&pod, RTSP_LOCAL, APP);

    backend.apply(&pod, &["-d", FAR]);
    lands(&pod, RTSP, SERVER);
    lands(&pod, RTSP_NEAR, STUB);
}

fn pods_own_address_is_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, RTSP_POD, STUB);
}

fn ipv4_mapped_sockets_are_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, RTSP_MAPPED, STUB);
    stub_lands(&pod, RTSP_MAPPED, SERVER);

    backend.apply(&pod, &["--ipv6", "reject"]);
    lands(&pod, RTSP_MAPPED, STUB);
}

fn ipv6_is_bypassed_by_default(backend: Backend) {
    for args in [&[][..], &["--ipv6", "bypass"]] {
        let pod = backend.redirected_pod(args);
        lands(&pod, RTSP6, SERVER6);
        lands(&pod, RTSP_LOCAL6, APP6);
    }
}

fn ipv6_redirect_redirects_ipv6(backend: Backend) {
    let pod = backend.redirected_pod(&["--ipv6", "redirect"]);
    lands(&pod, RTSP6, STUB6);
    lands(&pod, RTSP_POD6, STUB6);
    lands(&pod, HTTP6, HTTP_SERVER6);
    lands(&pod, RTSP_LOCAL6, APP6);
    stub_lands(&pod, RTSP6, SERVER6);
    lands(&pod, RTSP, STUB);

    backend.apply(
        &pod,
        &[
            "--ipv6",
            "redirect",
            "-d",
            "127.0.0.0/8",
            "-d",
            "fd00:2::/32",
        ],
    );
    lands(&pod, RTSP6, SERVER6);
}

fn ipv6_reject_resets_connections(backend: Backend) {
    let pod = backend.redirected_pod(&["--ipv6", "reject"]);
    lands(&pod, RTSP6, "refused");
    // The first packet was answered, not a retransmission.
    let counters = backend.counters(&pod.inside);
    let (rule, one) = match backend {
        Backend::Nftables => ("reject with tcp reset", "counter packets 1 bytes"),
        Backend::IptablesNft | Backend::IptablesLegacy => ("-j REJECT", "-c 1 "),
    };
    let mut rules = counters.lines().filter(|line| line.contains(rule));
    assert!(rules.any(|line| line.contains(one)), "{counters}");
    lands(&pod, HTTP6, HTTP_SERVER6);
    lands(&pod, RTSP_LOCAL6, APP6);
    stub_lands(&pod, RTSP6, SERVER6);
    lands(&pod, RTSP, STUB);
}

fn several_ports_are_redirected(backend: Backend) {
    for args in [
        &["--redirect-ports", "554,1554"][..],
        &["--redirect-ports", "554", "--redirect-ports", "1554"],
    ] {
        let pod = backend.redirected_pod(args);
        lands(&pod, RTSP, STUB);
        lands(&pod, RTSP_ALT, STUB);
        lands(&pod, HTTP, HTTP_SERVER);
    }
}

fn proxy_port_and_user_are_configurable(backend: Backend) {
    let pod = backend.redirected_pod(&["-p", "9554", "-u", "1234"]);
    lands(&pod, RTSP, STUB_ALT);
    stub_lands(&pod, RTSP, STUB_ALT);
    assert_eq!(pod.connect_as(1234, RTSP), SERVER);

    backend.apply(&pod, &["--msm-proxy-port", "8554", "--proxy-uid", "0"]);
    lands(&pod, RTSP, STUB);
    assert_eq!(pod.connect_as(0, RTSP), SERVER);
}

fn inbound_connections_are_not_redirected_by_default(backend: Backend) {
    let pod = backend.redirected_pod(&["-m", "REDIRECT"]);
    lands_from_outside(&pod, RTSP_POD, APP_FROM_OUTSIDE);
}

fn inbound_ports_are_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554,1554"]);
    lands_from_outside(&pod, RTSP_POD, STUB_FROM_OUTSIDE);
    lands_from_outside(&pod, &format!("{POD}:1554"), STUB_FROM_OUTSIDE);
    lands_from_outside(
        &pod,
        &format!("{POD}:9999"),
        &format!("rival@9999 from {NEAR}"),
    );
    lands_from_outside(&pod, RTSP_POD6, APP6_FROM_OUTSIDE);
    lands(&pod, RTSP, STUB);
    lands(&pod, RTSP_LOCAL, APP);
}

fn inbound_ports_follow_the_ipv6_mode(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554", "--ipv6", "redirect"]);
    lands_from_outside(&pod, RTSP_POD6, STUB6_FROM_OUTSIDE);
    lands(&pod, RTSP_LOCAL6, APP6);

    backend.apply(&pod, &["--inbound-ports", "554", "--ipv6", "reject"]);
    lands_from_outside(&pod, RTSP_POD6, "refused");
    lands_from_outside(&pod, RTSP_POD, STUB_FROM_OUTSIDE);
    lands_from_outside(&pod, &format!("[{POD6}]:9999"), "rival@9999 from fd00:1::1");
    lands(&pod, RTSP_LOCAL6, APP6);
}

fn cleanup_ends_the_redirect(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554", "--ipv6", "reject"]);
    backend.run(&pod, &["--cleanup"]).succeeded();
    lands(&pod, RTSP, SERVER);
    lands(&pod, RTSP6, SERVER6);
    lands_from_outside(&pod, RTSP_POD, APP_FROM_OUTSIDE);
}
