//! Where connections land, rule by rule and backend by backend.

use std::time::{Duration, Instant};

use msm_testkit::backend::Backend;
use msm_testkit::on_every_backend;
use msm_testkit::pod::{FAR, FAR6, NEAR, POD, POD6, Pod, STUB_UID, lands};

/// Far below any retry of a TCP connection, far above what an answer takes.
const AT_ONCE: Duration = Duration::from_millis(900);

on_every_backend! {
    default_port_lands_in_the_stub_with_the_pods_own_address,
    connections_of_the_stub_are_left_alone,
    connections_to_loopback_are_left_alone,
    other_ports_are_left_alone,
    excluded_destinations_are_left_alone,
    the_pods_own_address_is_redirected,
    ipv4_mapped_sockets_are_redirected,
    ipv6_is_bypassed_by_default,
    ipv6_is_redirected_when_asked_for,
    ipv6_is_rejected_when_asked_for,
    several_ports_are_redirected,
    proxy_port_and_user_can_be_chosen,
    inbound_connections_are_left_alone_by_default,
    inbound_ports_are_redirected,
    inbound_ports_over_ipv6_follow_its_mode,
    cleanup_lets_traffic_through_again,
}

#[track_caller]
fn lands_of_stub(pod: &Pod, to: &str, expected: &str) {
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

fn default_port_lands_in_the_stub_with_the_pods_own_address(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
    lands(
        &pod,
        &format!("{NEAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
}

fn connections_of_the_stub_are_left_alone(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands_of_stub(
        &pod,
        &format!("{FAR}:554"),
        &format!("server@554 from {POD}"),
    );
}

fn connections_to_loopback_are_left_alone(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, "127.0.0.1:554", "app@554 from 127.0.0.1");
    lands(&pod, "127.3.2.1:554", "app@554 from 127.0.0.1");
}

fn other_ports_are_left_alone(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(&pod, &format!("{FAR}:80"), &format!("server@80 from {POD}"));
    lands(
        &pod,
        &format!("{FAR}:1554"),
        &format!("server@1554 from {POD}"),
    );
}

fn excluded_destinations_are_left_alone(backend: Backend) {
    let pod = backend.redirected_pod(&["-d", "127.0.0.0/8", "--redir-dest-addr", "10.2.0.0/16"]);
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("server@554 from {POD}"),
    );
    lands(
        &pod,
        &format!("{NEAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
    lands(&pod, "127.0.0.1:554", "app@554 from 127.0.0.1");

    backend.apply(&pod, &["-d", FAR]);
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("server@554 from {POD}"),
    );
    lands(
        &pod,
        &format!("{NEAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
}

fn the_pods_own_address_is_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(
        &pod,
        &format!("{POD}:554"),
        &format!("stub@8554 from {POD}"),
    );
}

fn ipv4_mapped_sockets_are_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&[]);
    lands(
        &pod,
        &format!("[::ffff:{FAR}]:554"),
        &format!("stub@8554 from {POD}"),
    );
    lands_of_stub(
        &pod,
        &format!("[::ffff:{FAR}]:554"),
        &format!("server@554 from {POD}"),
    );

    backend.apply(&pod, &["--ipv6", "reject"]);
    lands(
        &pod,
        &format!("[::ffff:{FAR}]:554"),
        &format!("stub@8554 from {POD}"),
    );
}

fn ipv6_is_bypassed_by_default(backend: Backend) {
    for args in [&[][..], &["--ipv6", "bypass"]] {
        let pod = backend.redirected_pod(args);
        lands(
            &pod,
            &format!("[{FAR6}]:554"),
            &format!("server@554 from {POD6}"),
        );
        lands(&pod, "[::1]:554", "app@554 from ::1");
    }
}

fn ipv6_is_redirected_when_asked_for(backend: Backend) {
    let pod = backend.redirected_pod(&["--ipv6", "redirect"]);
    lands(
        &pod,
        &format!("[{FAR6}]:554"),
        &format!("stub@8554 from {POD6}"),
    );
    lands(
        &pod,
        &format!("[{POD6}]:554"),
        &format!("stub@8554 from {POD6}"),
    );
    lands(
        &pod,
        &format!("[{FAR6}]:80"),
        &format!("server@80 from {POD6}"),
    );
    lands(&pod, "[::1]:554", "app@554 from ::1");
    lands_of_stub(
        &pod,
        &format!("[{FAR6}]:554"),
        &format!("server@554 from {POD6}"),
    );
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@8554 from {POD}"),
    );

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
    lands(
        &pod,
        &format!("[{FAR6}]:554"),
        &format!("server@554 from {POD6}"),
    );
}

fn ipv6_is_rejected_when_asked_for(backend: Backend) {
    let pod = backend.redirected_pod(&["--ipv6", "reject"]);
    let start = Instant::now();
    lands(&pod, &format!("[{FAR6}]:554"), "refused");
    assert!(
        start.elapsed() < AT_ONCE,
        "refused after {:?}",
        start.elapsed()
    );
    lands(
        &pod,
        &format!("[{FAR6}]:80"),
        &format!("server@80 from {POD6}"),
    );
    lands(&pod, "[::1]:554", "app@554 from ::1");
    lands_of_stub(
        &pod,
        &format!("[{FAR6}]:554"),
        &format!("server@554 from {POD6}"),
    );
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
}

fn several_ports_are_redirected(backend: Backend) {
    for args in [
        &["--redirect-ports", "554,1554"][..],
        &["--redirect-ports", "554", "--redirect-ports", "1554"],
    ] {
        let pod = backend.redirected_pod(args);
        lands(
            &pod,
            &format!("{FAR}:554"),
            &format!("stub@8554 from {POD}"),
        );
        lands(
            &pod,
            &format!("{FAR}:1554"),
            &format!("stub@8554 from {POD}"),
        );
        lands(&pod, &format!("{FAR}:80"), &format!("server@80 from {POD}"));
    }
}

fn proxy_port_and_user_can_be_chosen(backend: Backend) {
    let pod = backend.redirected_pod(&["-p", "9554", "-u", "1234"]);
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@9554 from {POD}"),
    );
    lands_of_stub(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@9554 from {POD}"),
    );
    assert_eq!(
        pod.connect_as(1234, &format!("{FAR}:554")),
        format!("server@554 from {POD}")
    );

    backend.apply(&pod, &["--msm-proxy-port", "8554", "--proxy-uid", "0"]);
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
    assert_eq!(
        pod.connect_as(0, &format!("{FAR}:554")),
        format!("server@554 from {POD}")
    );
}

fn inbound_connections_are_left_alone_by_default(backend: Backend) {
    let pod = backend.redirected_pod(&["-m", "REDIRECT"]);
    lands_from_outside(&pod, &format!("{POD}:554"), &format!("app@554 from {NEAR}"));
}

fn inbound_ports_are_redirected(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554,1554"]);
    lands_from_outside(
        &pod,
        &format!("{POD}:554"),
        &format!("stub@8554 from {NEAR}"),
    );
    lands_from_outside(
        &pod,
        &format!("{POD}:1554"),
        &format!("stub@8554 from {NEAR}"),
    );
    lands_from_outside(
        &pod,
        &format!("{POD}:9999"),
        &format!("rival@9999 from {NEAR}"),
    );
    lands_from_outside(&pod, &format!("[{POD6}]:554"), "app@554 from fd00:1::1");
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("stub@8554 from {POD}"),
    );
    lands(&pod, "127.0.0.1:554", "app@554 from 127.0.0.1");
}

fn inbound_ports_over_ipv6_follow_its_mode(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554", "--ipv6", "redirect"]);
    lands_from_outside(&pod, &format!("[{POD6}]:554"), "stub@8554 from fd00:1::1");
    lands(&pod, "[::1]:554", "app@554 from ::1");

    backend.apply(&pod, &["--inbound-ports", "554", "--ipv6", "reject"]);
    lands_from_outside(&pod, &format!("[{POD6}]:554"), "refused");
    lands_from_outside(
        &pod,
        &format!("{POD}:554"),
        &format!("stub@8554 from {NEAR}"),
    );
    lands_from_outside(&pod, &format!("[{POD6}]:9999"), "rival@9999 from fd00:1::1");
    lands(&pod, "[::1]:554", "app@554 from ::1");
}

fn cleanup_lets_traffic_through_again(backend: Backend) {
    let pod = backend.redirected_pod(&["--inbound-ports", "554", "--ipv6", "reject"]);
    backend.run(&pod, &["--cleanup"]).succeeded();
    lands(
        &pod,
        &format!("{FAR}:554"),
        &format!("server@554 from {POD}"),
    );
    lands(
        &pod,
        &format!("[{FAR6}]:554"),
        &format!("server@554 from {POD6}"),
    );
    lands_from_outside(&pod, &format!("{POD}:554"), &format!("app@554 from {NEAR}"));
}
