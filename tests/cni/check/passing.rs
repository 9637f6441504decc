//! What CHECK accepts: the rules of ADD, additional rules of other components, and pods without
//! a redirect. And the codes of failed checks.

use msm_testkit::backend::Backend;
use msm_testkit::cluster::{
    Cluster, INJECT, K8S_NAMESPACE, LABELLED, error_text, intercept_name, request,
};
use msm_testkit::command::run_with_input;
use msm_testkit::endpoints::{RTSP, STUB};
use msm_testkit::netns::Namespace;
use msm_testkit::on_every_backend;
use msm_testkit::pod::{Pod, lands};
use msm_testkit::{applet, applet_under, cannot_run};
use serde_json::{Value, json};

use super::sandbox::Sandbox;

/// Tables of other components: with the hook and priority of msm-cni's, and with names that
/// start like msm-cni's.
const OTHERS_NFT: &str = "table inet rival {
	chain output {
		type nat hook output priority -101; policy accept;
		tcp dport 554 counter redirect to :9999
	}
}
table inet msm_cni_rival {
	chain output {
		type filter hook output priority 0; policy accept;
		tcp dport 554 counter accept
	}
}
table netdev msm_cni {
}
";

/// Rules of a plugin like portmap, in built-in chains before and after the jump to msm-cni's
/// chain, and rules that contain only its name.
const OTHERS_IPTABLES: &str = "*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-DN-0f1e2d3c4b5a - [0:0]
:MSM_RIVAL - [0:0]
-I PREROUTING 1 -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -p udp -j MSM_RIVAL
-I OUTPUT 1 -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -p udp -m comment --comment \"not for MSM_CNI_OUTPUT\" -j MSM_RIVAL
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment \"dnat name: x -j MSM_CNI_OUTPUT\" -m multiport --dports 8080 -j CNI-DN-0f1e2d3c4b5a
-A CNI-DN-0f1e2d3c4b5a -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80
COMMIT
*mangle
:MSM_CNI_THEIRS - [0:0]
-A OUTPUT -j MSM_CNI_THEIRS
-A OUTPUT -j LOG --log-prefix \"x -j MSM_CNI_OUTPUT\"
COMMIT
*filter
:OUTPUT DROP [0:0]
-A OUTPUT -j LOG --log-prefix \"x -j MSM_CNI_OUTPUT\"
COMMIT
";

on_every_backend! {
    rules_of_add_pass_in_every_mode,
    rules_of_repeated_add_pass,
    counters_are_ignored,
    rules_of_other_components_are_ignored,
}

fn rules_of_add_pass_in_every_mode(backend: Backend) {
    for ipv6 in ["bypass", "redirect", "reject"] {
        for inbound in [&[][..], &[554, 8000]] {
            let sandbox = Sandbox::of(
                backend,
                json!({"redirect": {
                    "ipv6": ipv6, "inboundPorts": inbound, "ports": [1, 554, 65535],
                    "excludeCIDRs": [
                        "127.0.0.0/8", "10.1.2.3", "192.168.128.0/17", "0.0.0.0/0", "fd00::/9",
                        "::/0", "2001:db8::7", "::ffff:10.0.0.0/104", "::192.0.2.1",
                    ],
                }}),
            );
            sandbox.add();
            sandbox.passes();
            sandbox.passes_with(&json!({"redirect": sandbox.settings["redirect"]}));
        }
    }
    let sandbox = Sandbox::of(backend, json!({"redirect": {"ports": [80]}}));
    let annotation = |name: &str| format!("sidecar.mediastreamingmesh.io/{name}");
    let annotations = [
        (annotation("redirect-ports"), "554, 1554"),
        (annotation("proxy-port"), "9554"),
        (annotation("proxy-uid"), "0"),
        (annotation("exclude-outbound-cidrs"), ""),
        (annotation("ipv6"), "reject"),
        (annotation("inbound-ports"), "554"),
    ];
    let annotations = annotations
        .each_ref()
        .map(|(name, value)| (name.as_str(), *value));
    sandbox.cluster.set_pod(LABELLED, &annotations);
    sandbox.add();
    sandbox.passes();
    sandbox.cluster.set_pod(LABELLED, &annotations[1..]);
    let outcome = sandbox.check(&sandbox.settings);
    assert!(error_text(outcome, 113).contains("80"));
}

fn rules_of_repeated_add_pass(backend: Backend) {
    let mut sandbox = Sandbox::of(backend, json!({}));
    for redirect in [
        json!({}),
        json!({}),
        json!({"ipv6": "reject", "inboundPorts": [554]}),
        json!({"ipv6": "redirect"}),
    ] {
        sandbox.settings["redirect"] = redirect;
        sandbox.add();
        sandbox.passes();
    }
}

fn counters_are_ignored(backend: Backend) {
    let pod = Pod::new();
    backend.prepare(&pod.inside);
    let cluster = Cluster::new(LABELLED, &[]);
    let settings = intercept_name(backend.name());
    cluster.add_succeeds(&pod.inside, &settings);
    lands(&pod, RTSP, STUB);
    let counters = backend.counters(&pod.inside);
    let one = match backend {
        Backend::Nftables => "tcp dport 554 counter packets 1 bytes",
        Backend::IptablesNft | Backend::IptablesLegacy => "--dport 554 -c 1 ",
    };
    assert!(counters.contains(one), "{counters}");
    let outcome = cluster.run("CHECK", &pod.inside, &settings).succeeded();
    assert_eq!(outcome.stdout, "");
}

fn rules_of_other_components_are_ignored(backend: Backend) {
    let restores: &[&str] = match backend {
        Backend::Nftables => &["iptables-nft-restore", "iptables-legacy-restore"],
        Backend::IptablesNft => &["iptables-nft-restore"],
        Backend::IptablesLegacy => &["iptables-legacy-restore"],
    };
    if cannot_run(restores) {
        return;
    }
    for restore in restores {
        for others_are_first in [true, false] {
            let sandbox = Sandbox::of(backend, json!({}));
            let add_others = || {
                sandbox.inside.load(OTHERS_NFT);
                let tool = sandbox
                    .inside
                    .tool(restore, &["--noflush"], OTHERS_IPTABLES);
                tool.succeeded();
            };
            if others_are_first {
                add_others();
            }
            sandbox.add();
            if !others_are_first {
                add_others();
            }
            sandbox.passes();
            sandbox.passes_with(&json!({}));
            sandbox.add();
            sandbox.passes();
            let rules = sandbox.inside.rules();
            let theirs = [
                "table netdev msm_cni",
                "-A OUTPUT -j MSM_CNI_THEIRS",
                "x -j MSM_CNI",
            ];
            for theirs in theirs {
                assert!(rules.contains(theirs), "{theirs} is missing:\n{rules}");
            }
        }
    }
}

/// The redirect may have been set manually, or the label removed later.
#[test]
fn pod_without_the_label_passes_with_any_rules() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let excluded = json!({"kubernetes": {"excludeNamespaces": [K8S_NAMESPACE]}});
    let unlabelled: &[(&str, &str)] = &[("app", "camera")];
    for (labels, settings) in [
        (unlabelled, json!({})),
        (&[], json!({})),
        (&[(INJECT, "false")], json!({})),
        (&[(INJECT, "FALSE")], json!({})),
        (LABELLED, excluded),
    ] {
        let sandbox = Sandbox::new(settings);
        sandbox.cluster.set_pod(labels, &[]);
        sandbox.add();
        sandbox.passes();
        sandbox
            .inside
            .load("table inet msm_cni { chain output { tcp dport 1 accept; }; }");
        sandbox.passes();
    }
}

#[test]
fn pod_with_a_user_namespace_is_checked() {
    if cannot_run(&["ip", "nft", "unshare", "nsenter"]) {
        return;
    }
    let sandbox = Sandbox {
        inside: Namespace::in_user_namespace(),
        ..Sandbox::new(json!({"redirect": {"ipv6": "redirect", "inboundPorts": [554]}}))
    };
    sandbox.differs("no redirect: table inet msm_cni is missing");
    sandbox.add();
    sandbox.passes();
    sandbox.inside.load("flush chain inet msm_cni prerouting");
    sandbox.differs(
        "rule 1 of chain inet msm_cni prerouting is missing: \
         `tcp dport 554 counter redirect to :8554`",
    );
    sandbox.add();
    sandbox.passes();
}

#[test]
fn nftables_starts_no_process() {
    if cannot_run(&["ip", "nft", "strace"]) {
        return;
    }
    let sandbox = Sandbox::new(json!({}));
    sandbox.add();
    let plugin = applet_under(
        &["strace", "-f", "-e", "trace=execve,fork,vfork"],
        "msm-cni",
    );
    let mut request = request(plugin, "CHECK", &sandbox.inside.path());
    let configuration = sandbox.cluster.configuration(&json!({})).to_string();
    let outcome = run_with_input(&mut request, &configuration);
    let outcome = outcome.succeeded();
    assert_eq!(outcome.stderr.matches("execve(").count(), 1, "{outcome}");
    assert!(!outcome.stderr.contains("fork("), "{outcome}");
}

#[test]
fn invalid_namespace_is_error_8() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let cluster = Cluster::new(LABELLED, &[]);
    for path in ["/run/netns/gone", "/dev/null", "/proc/self/ns/net"] {
        let mut request = request(applet("msm-cni"), "CHECK", path.as_ref());
        let configuration = cluster.configuration(&json!({})).to_string();
        let outcome = run_with_input(&mut request, &configuration);
        assert!(error_text(outcome, 8).contains(path), "{path}");
    }
    assert_eq!(cluster.server.connections(), 0);
}

#[test]
fn unreachable_api_server_is_error_100() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let sandbox = Sandbox::new(json!({}));
    sandbox.add();
    let settings = |server: &str, timeout: u64| -> Value {
        json!({"kubernetes": {"kubernetesAPIRoot": server, "podLookupTimeoutSeconds": timeout}})
    };
    let outcome = sandbox.check(&settings("https://127.0.0.1:1", 1));
    assert!(error_text(outcome, 100).contains("https://127.0.0.1:1"));
    let another = Cluster::new(LABELLED, &[]);
    // Its certificate is not trusted, which ends the lookup before the timeout.
    let outcome = sandbox.check(&settings(&another.server.url(), 600));
    error_text(outcome, 101);
}
