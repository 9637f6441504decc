//! ADD from standard input to the destination of a pod's connections: the executable run as by
//! a runtime, an HTTPS API server, a pod in its network namespace. Failing lookups are tested
//! in `lookup`.

use std::thread;

use msm_testkit::cannot_run;
use msm_testkit::cluster::{Cluster, INJECT, K8S_NAMESPACE, LABELLED, error_text, intercept_name};
use msm_testkit::endpoints::{
    APP, APP_FROM_OUTSIDE, FAR6, HTTP, HTTP_SERVER, NEAR, POD6, RTSP, RTSP_ALT, RTSP_LOCAL,
    RTSP_NEAR, RTSP_POD, RTSP6, SERVER, SERVER_ALT, SERVER6, STUB, STUB_ALT, STUB_ALT_FROM_OUTSIDE,
};
use msm_testkit::netns::Namespace;
use msm_testkit::pod::{Pod, STUB_UID, lands};
use serde_json::{Value, json};

/// CNI's code for an invalid configuration.
const INVALID_CONFIGURATION: u64 = 7;

fn default_settings() -> Value {
    json!({})
}

#[track_caller]
fn assert_redirected(pod: &Pod) {
    lands(pod, RTSP, STUB);
    let of_stub = pod.connect_as(STUB_UID, RTSP);
    assert_eq!(of_stub, SERVER, "{}", pod.inside.rules());
    lands(pod, HTTP, HTTP_SERVER);
    lands(pod, RTSP6, SERVER6);
    lands(pod, RTSP_LOCAL, APP);
    let from_outside = pod.connect_from_outside(RTSP_POD);
    assert_eq!(from_outside, APP_FROM_OUTSIDE);
}

#[test]
fn labelled_pod_is_redirected_to_its_stub() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    for value in ["true", "yes", ""] {
        let cluster = Cluster::new(&[(INJECT, value)], &[]);
        let pod = Pod::new();
        cluster.add_succeeds(&pod.inside, &default_settings());
        assert_redirected(&pod);
        assert!(pod.inside.nft_rules().contains("table inet msm_cni {"));
    }
}

#[test]
fn every_backend_redirects() {
    if cannot_run(&["ip", "nft", "iptables-nft", "iptables-legacy"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    for (backend, variant) in [
        ("nftables", None),
        ("iptables", None),
        ("iptables", Some("iptables-legacy")),
    ] {
        let pod = Pod::new();
        if let Some(variant) = variant {
            pod.inside
                .tool(variant, &["-t", "nat", "-n", "-L"], "")
                .succeeded();
        }
        cluster.add_succeeds(&pod.inside, &intercept_name(backend));
        assert_redirected(&pod);
    }
}

#[test]
fn second_add_changes_nothing() {
    if cannot_run(&["ip", "nft", "iptables-nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    for backend in ["nftables", "iptables"] {
        let pod = Pod::new();
        cluster.add_succeeds(&pod.inside, &intercept_name(backend));
        let once = pod.inside.rules();
        cluster.add_succeeds(&pod.inside, &intercept_name(backend));
        assert_eq!(pod.inside.rules(), once);
        assert_redirected(&pod);
    }
}

#[test]
fn add_with_another_backend_removes_the_rules_of_the_first() {
    if cannot_run(&["ip", "nft", "iptables-nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let pod = Pod::new();
    for (backend, present, absent) in [
        ("nftables", "table inet msm_cni {", "MSM_CNI"),
        ("iptables", "MSM_CNI", "table inet msm_cni {"),
        ("nftables", "table inet msm_cni {", "MSM_CNI"),
    ] {
        cluster.add_succeeds(&pod.inside, &intercept_name(backend));
        let rules = pod.inside.rules();
        assert!(
            rules.contains(present) && !rules.contains(absent),
            "after {backend}:\n{rules}"
        );
        assert_redirected(&pod);
    }
}

#[test]
fn add_repairs_damaged_rules() {
    if cannot_run(&["ip", "nft", "iptables-nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let pod = Pod::new();
    cluster.add_succeeds(&pod.inside, &intercept_name("nftables"));
    let whole = pod.inside.rules();
    for damage in [
        "flush chain inet msm_cni output",
        "insert rule inet msm_cni output tcp dport 554 return",
        "delete chain inet msm_cni output",
        "delete table inet msm_cni",
    ] {
        pod.inside.load(damage);
        assert_ne!(pod.inside.rules(), whole);
        cluster.add_succeeds(&pod.inside, &intercept_name("nftables"));
        assert_eq!(pod.inside.rules(), whole, "after {damage}");
    }

    let pod = Pod::new();
    cluster.add_succeeds(&pod.inside, &intercept_name("iptables"));
    let whole = pod.inside.rules();
    for damage in ["-F OUTPUT", "-F MSM_CNI_OUTPUT", "-D MSM_CNI_OUTPUT 2"] {
        let args: Vec<_> = ["-t", "nat"].into_iter().chain(damage.split(' ')).collect();
        pod.inside.tool("iptables-nft", &args, "").succeeded();
        assert_ne!(pod.inside.rules(), whole);
        cluster.add_succeeds(&pod.inside, &intercept_name("iptables"));
        assert_eq!(pod.inside.rules(), whole, "after {damage}");
    }
}

#[test]
fn pod_without_label_or_with_label_false_is_not_redirected() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let unlabelled: &[(&str, &str)] = &[("app", "camera")];
    for labels in [
        unlabelled,
        &[],
        &[(INJECT, "false")],
        &[(INJECT, "False")],
        &[(INJECT, "FALSE")],
    ] {
        let cluster = Cluster::new(labels, &[]);
        let pod = Pod::new();
        let before = pod.inside.rules();
        cluster.add_succeeds(&pod.inside, &default_settings());
        assert_eq!(pod.inside.rules(), before, "{labels:?}");
        lands(&pod, RTSP, SERVER);
    }
}

#[test]
fn pod_in_excluded_namespace_is_neither_redirected_nor_looked_up() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let pod = Pod::new();
    let before = pod.inside.rules();
    let excluded = json!({"kubernetes": {"excludeNamespaces": ["kube-system", K8S_NAMESPACE]}});
    cluster.add_succeeds(&pod.inside, &excluded);
    assert_eq!(pod.inside.rules(), before);
    assert_eq!(cluster.server.connections(), 0);

    cluster.add_succeeds(
        &pod.inside,
        &json!({"kubernetes": {"excludeNamespaces": ["kube-system"]}}),
    );
    assert_redirected(&pod);
}

#[test]
fn configuration_selects_what_is_redirected() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let pod = Pod::new();
    let settings = json!({"redirect": {
        "ports": [1554], "proxyPort": 9554, "proxyUID": 1234, "excludeCIDRs": ["10.1.0.0/24"],
        "ipv6": "redirect", "inboundPorts": [554],
    }});
    cluster.add_succeeds(&pod.inside, &settings);
    lands(&pod, RTSP_ALT, STUB_ALT);
    lands(
        &pod,
        &format!("[{FAR6}]:1554"),
        &format!("stub@9554 from {POD6}"),
    );
    lands(&pod, &format!("{NEAR}:1554"), SERVER_ALT);
    lands(&pod, RTSP, SERVER);
    let of_user = pod.connect_as(1234, RTSP_ALT);
    assert_eq!(of_user, SERVER_ALT);
    let from_outside = pod.connect_from_outside(RTSP_POD);
    assert_eq!(from_outside, STUB_ALT_FROM_OUTSIDE);
}

#[test]
fn annotations_override_the_configuration() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(
        LABELLED,
        &[
            ("sidecar.mediastreamingmesh.io/redirect-ports", "554,1554"),
            ("sidecar.mediastreamingmesh.io/proxy-port", "9554"),
            ("sidecar.mediastreamingmesh.io/proxy-uid", "1234"),
            (
                "sidecar.mediastreamingmesh.io/exclude-outbound-cidrs",
                "127.0.0.0/8,10.1.0.0/24",
            ),
            ("sidecar.mediastreamingmesh.io/ipv6", "reject"),
            ("sidecar.mediastreamingmesh.io/inbound-ports", "554"),
        ],
    );
    let pod = Pod::new();
    cluster.add_succeeds(
        &pod.inside,
        &json!({"redirect": {"ports": [80], "ipv6": "redirect"}}),
    );
    lands(&pod, RTSP, STUB_ALT);
    lands(&pod, RTSP_ALT, STUB_ALT);
    lands(&pod, HTTP, HTTP_SERVER);
    lands(&pod, RTSP_NEAR, SERVER);
    lands(&pod, RTSP6, "refused");
    let of_user = pod.connect_as(1234, RTSP);
    assert_eq!(of_user, SERVER);
    let from_outside = pod.connect_from_outside(RTSP_POD);
    assert_eq!(from_outside, STUB_ALT_FROM_OUTSIDE);
}

#[test]
fn invalid_annotation_is_named_and_no_rules_are_written() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let sandbox = Namespace::new();
    for (name, value) in [
        ("redirect-ports", "554;1554"),
        ("redirect-ports", ""),
        ("proxy-port", "0"),
        ("proxy-uid", "root"),
        ("exclude-outbound-cidrs", "10.0.0.0/33"),
        ("ipv6", "on"),
        ("inbound-ports", "65536"),
    ] {
        let annotation = format!("sidecar.mediastreamingmesh.io/{name}");
        cluster.set_pod(LABELLED, &[(&annotation, value)]);
        let outcome = cluster.run("ADD", &sandbox, &default_settings());
        let message = error_text(outcome, INVALID_CONFIGURATION);
        assert!(
            message.contains(&annotation),
            "{annotation} is not named in {message}"
        );
        assert_eq!(sandbox.nft_rules(), "", "after {annotation}: {value}");
    }
}

#[test]
fn pod_with_user_namespace_is_redirected() {
    if cannot_run(&["ip", "nft", "unshare", "nsenter"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let pod = Pod::in_user_namespace();
    cluster.add_succeeds(&pod.inside, &default_settings());
    assert_redirected(&pod);
}

#[test]
fn fifty_concurrent_pods_are_redirected() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    let sandboxes: Vec<Namespace> = (0..50).map(|_| Namespace::new()).collect();
    thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(|| cluster.add_succeeds(sandbox, &default_settings()));
        }
    });
    let expected = sandboxes[0].nft_rules();
    assert!(
        expected.contains("tcp dport 554 counter redirect to :8554"),
        "{expected}"
    );
    for sandbox in &sandboxes {
        assert_eq!(sandbox.nft_rules(), expected);
    }
}
