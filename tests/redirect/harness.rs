//! Tests of the test kit: without rules, connections reach their destination; with rules that
//! `nft` loaded, they are redirected.

use msm_testkit::cannot_run;
use msm_testkit::endpoints::{
    APP, APP_FROM_OUTSIDE, APP6, FAR, RTSP, RTSP_LOCAL, RTSP_LOCAL6, RTSP_MAPPED, RTSP_POD, RTSP6,
    SERVER, SERVER6, STUB, STUB6,
};
use msm_testkit::pod::{Pod, STUB_UID};

const RULES: &str = "table inet t {
	chain output {
		type nat hook output priority -101; policy accept;
		meta skuid 1337 return
		tcp dport 554 counter redirect to :8554
	}
}
";

#[test]
fn connections_without_rules_reach_their_destination() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    assert_eq!(pod.connect(RTSP), SERVER);
    assert_eq!(pod.connect(RTSP6), SERVER6);
    assert_eq!(pod.connect(RTSP_MAPPED), SERVER);
    assert_eq!(pod.connect(RTSP_LOCAL), APP);
    assert_eq!(pod.connect(RTSP_LOCAL6), APP6);
    assert_eq!(pod.connect(&format!("{FAR}:81")), "refused");
    assert_eq!(pod.connect_from_outside(RTSP_POD), APP_FROM_OUTSIDE);
    assert_eq!(pod.inside.nft_rules(), "");
}

#[test]
fn rules_apply_by_user() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    assert_all_but_the_stub_are_redirected(&pod);
}

#[test]
fn rules_apply_by_user_of_the_user_namespace() {
    if cannot_run(&["ip", "nft", "unshare", "nsenter"]) {
        return;
    }
    let pod = Pod::in_user_namespace();
    assert_all_but_the_stub_are_redirected(&pod);
}

fn assert_all_but_the_stub_are_redirected(pod: &Pod) {
    pod.inside.load(RULES);
    assert_eq!(pod.inside.nft_rules(), RULES);
    assert_eq!(pod.connect(RTSP), STUB);
    assert_eq!(pod.connect(RTSP6), STUB6);
    assert_eq!(pod.connect_as(STUB_UID, RTSP), SERVER);
}

#[test]
fn rules_of_both_iptables_variants_are_listed() {
    if cannot_run(&["ip", "nft", "iptables-nft", "iptables-legacy"]) {
        return;
    }
    for variant in ["iptables-nft", "iptables-legacy"] {
        let pod = Pod::new();
        assert!(!pod.inside.iptables_rules().contains("*nat"));
        let rule = "-t nat -A OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554";
        let args: Vec<_> = rule.split(' ').collect();
        pod.inside.tool(variant, &args, "").succeeded();
        let rules = pod.inside.iptables_rules();
        let expected = format!("{variant}-save:\n*nat\n:PREROUTING ACCEPT\n");
        assert!(rules.contains(&expected), "no {expected:?} in\n{rules}");
        assert!(
            rules.contains("-A OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT"),
            "{rules}"
        );
        assert_eq!(pod.connect(RTSP), STUB);
    }
}
