//! The harness itself: without any rules traffic goes straight through, with rules loaded
//! by `nft` it lands where they say. What it shows here it can be trusted to show of ours.

use msm_testkit::cannot_run;
use msm_testkit::pod::{FAR, FAR6, POD, POD6, Pod, STUB_UID};

const RULES: &str = "table inet t {
	chain output {
		type nat hook output priority -101; policy accept;
		meta skuid 1337 return
		tcp dport 554 counter redirect to :8554
	}
}
";

#[test]
fn without_rules_traffic_goes_straight_through() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    assert_eq!(
        pod.connect(&format!("{FAR}:554")),
        format!("server@554 from {POD}")
    );
    assert_eq!(
        pod.connect(&format!("[{FAR6}]:554")),
        format!("server@554 from {POD6}")
    );
    assert_eq!(
        pod.connect(&format!("[::ffff:{FAR}]:554")),
        format!("server@554 from {POD}")
    );
    assert_eq!(pod.connect("127.0.0.1:554"), "app@554 from 127.0.0.1");
    assert_eq!(pod.connect("[::1]:554"), "app@554 from ::1");
    assert_eq!(pod.connect(&format!("{FAR}:81")), "refused");
    assert_eq!(
        pod.connect_from_outside(&format!("{POD}:554")),
        "app@554 from 10.1.0.1"
    );
    assert_eq!(pod.inside.nft_rules(), "");
}

#[test]
fn rules_and_users_make_the_difference() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    rules_apply_to_all_but_the_stub(&pod);
}

#[test]
fn users_of_a_user_namespaced_pod_are_its_own() {
    if cannot_run(&["ip", "nft", "unshare", "nsenter"]) {
        return;
    }
    let pod = Pod::in_user_namespace();
    rules_apply_to_all_but_the_stub(&pod);
}

fn rules_apply_to_all_but_the_stub(pod: &Pod) {
    pod.inside.load(RULES);
    assert_eq!(pod.inside.nft_rules(), RULES);
    assert_eq!(
        pod.connect(&format!("{FAR}:554")),
        format!("stub@8554 from {POD}")
    );
    assert_eq!(
        pod.connect(&format!("[{FAR6}]:554")),
        format!("stub@8554 from {POD6}")
    );
    assert_eq!(
        pod.connect_as(STUB_UID, &format!("{FAR}:554")),
        format!("server@554 from {POD}")
    );
}

#[test]
fn both_variants_of_iptables_are_listed() {
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
        let wanted = format!("{variant}-save:\n*nat\n:PREROUTING ACCEPT\n");
        assert!(rules.contains(&wanted), "no {wanted:?} in\n{rules}");
        assert!(
            rules.contains("-A OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT"),
            "{rules}"
        );
        assert_eq!(
            pod.connect(&format!("{FAR}:554")),
            format!("stub@8554 from {POD}")
        );
    }
}
