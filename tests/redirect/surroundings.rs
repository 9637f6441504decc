//! Special hosts and pods: no tools, no `nf_tables` in the kernel, a pod with a user namespace,
//! a caller without capabilities, concurrent calls.

use msm_testkit::backend::{Backend, msm_iptables};
use msm_testkit::command::{Outcome, run};
use msm_testkit::endpoints::{APP_FROM_OUTSIDE, RTSP, RTSP_POD, RTSP6, SERVER, STUB, STUB6};
use msm_testkit::pod::{Pod, STUB_UID};
use msm_testkit::{WITHOUT_NF_TABLES, WITHOUT_TOOLS, applet_under, cannot_run};

#[test]
fn nftables_redirects_a_pod_with_a_user_namespace() {
    if cannot_run(&["ip", "nft", "unshare", "nsenter"]) {
        return;
    }
    let pod = Pod::in_user_namespace();
    for args in [
        &["--ipv6", "redirect", "--inbound-ports", "554"][..],
        &["--ipv6", "redirect"],
    ] {
        Backend::Nftables.apply(&pod, args);
        let rules = pod.inside.rules();
        assert_eq!(pod.connect(RTSP), STUB, "{rules}");
        assert_eq!(pod.connect(RTSP6), STUB6, "{rules}");
        let of_stub = pod.connect_as(STUB_UID, RTSP);
        assert_eq!(of_stub, SERVER, "{rules}");
        msm_iptables(&pod, &[args, &["--check"]].concat()).succeeded();
    }
    let from_outside = pod.connect_from_outside(RTSP_POD);
    assert_eq!(from_outside, APP_FROM_OUTSIDE);
    msm_iptables(&pod, &["--cleanup"]).succeeded();
    assert_eq!(pod.connect(RTSP), SERVER);
}

/// The kernel accepts the owner match (`owner_check` in `net/netfilter/xt_owner.c`) only from
/// the user namespace that owns the network namespace.
#[test]
fn iptables_fails_for_a_pod_with_a_user_namespace_and_changes_nothing() {
    let tools = [
        "ip",
        "nft",
        "unshare",
        "iptables-nft-restore",
        "ip6tables-nft-restore",
    ];
    if cannot_run(&tools) {
        return;
    }
    let pod = Pod::in_user_namespace();
    let refused = Backend::IptablesNft.run(&pod, &["--ipv6", "redirect"]);
    refused.exited(1).complains_about("iptables");
    assert!(
        !pod.inside.rules().contains("MSM_CNI"),
        "{}",
        pod.inside.rules()
    );
    assert_eq!(pod.connect(RTSP), SERVER);
}

#[test]
fn nftables_needs_no_tools() {
    if cannot_run(&["ip", "nft", "unshare", "mount", "sh"]) {
        return;
    }
    for backend in ["auto", "nftables"] {
        let pod = Pod::new();
        without_tools(&pod, &["--backend", backend]).succeeded();
        assert_eq!(pod.connect(RTSP), STUB);
        without_tools(&pod, &["--backend", backend]).succeeded();
        without_tools(&pod, &["--check", "--backend", backend]).succeeded();
        without_tools(&pod, &["--cleanup"]).succeeded();
        assert_eq!(pod.connect(RTSP), SERVER);
    }
}

#[test]
fn iptables_without_its_tools_fails() {
    if cannot_run(&["ip", "nft", "unshare", "mount", "sh"]) {
        return;
    }
    let pod = Pod::new();
    without_tools(&pod, &["--backend", "iptables"])
        .exited(1)
        .complains_about("iptables-restore")
        .complains_about("/usr/sbin");
    assert_eq!(pod.inside.nft_rules(), "");
}

#[test]
fn rules_of_iptables_nft_cannot_be_removed_without_its_tools() {
    let tools = [
        "ip",
        "nft",
        "unshare",
        "mount",
        "sh",
        "iptables-nft-restore",
        "ip6tables-nft-restore",
    ];
    if cannot_run(&tools) {
        return;
    }
    let pod = Pod::new();
    Backend::IptablesNft.apply(&pod, &[]);
    for args in [&["--backend", "nftables"][..], &["--cleanup"]] {
        let outcome = without_tools(&pod, args)
            .exited(1)
            .complains_about("required to change the existing rules of msm-cni")
            .complains_about("; install iptables-nft\n");
        assert!(!outcome.stderr.contains("--backend"), "{outcome}");
    }
}

fn without_tools(pod: &Pod, args: &[&str]) -> Outcome {
    run_under(&WITHOUT_TOOLS, pod, args)
}

fn run_under(wrapper: &[&str], pod: &Pod, args: &[&str]) -> Outcome {
    let mut command = applet_under(wrapper, "msm-iptables");
    run(command.arg("--netns").arg(pod.inside.path()).args(args))
}

#[test]
fn nftables_starts_no_process() {
    if cannot_run(&["ip", "nft", "strace"]) {
        return;
    }
    let pod = Pod::new();
    for args in [
        &[][..],
        &[],
        &["--ipv6", "reject"],
        &["--check", "--ipv6", "reject"],
        &["--cleanup"],
    ] {
        let trace = ["strace", "-f", "-e", "trace=execve,fork,vfork,clone,clone3"];
        let traced = run_under(&trace, &pod, args).succeeded();
        let starts = traced.stderr.matches("execve(").count();
        assert!(
            starts == 1,
            "{starts} programs were executed for {args:?}\n{traced}"
        );
        let is_fork = |line: &str| {
            FORKS.iter().any(|call| line.contains(call)) && !line.contains("CLONE_THREAD")
        };
        assert!(
            !traced.stderr.lines().any(is_fork),
            "a process was forked for {args:?}\n{traced}"
        );
    }
}

#[test]
fn auto_uses_iptables_without_nf_tables() {
    if cannot_run(&[
        "ip",
        "nft",
        "strace",
        "iptables-legacy-restore",
        "ip6tables-legacy-restore",
    ]) {
        return;
    }
    let pod = Pod::new();
    Backend::IptablesLegacy.prepare(&pod.inside);
    without_nf_tables(&pod, &["--backend", "auto"]).succeeded();
    assert_eq!(pod.connect(RTSP), STUB);
    assert!(
        pod.inside.iptables_rules().contains("-A MSM_CNI_OUTPUT"),
        "{}",
        pod.inside.rules()
    );
    assert!(
        !pod.inside.nft_rules().contains("msm_cni"),
        "{}",
        pod.inside.rules()
    );

    without_nf_tables(&pod, &[]).succeeded();
    without_nf_tables(&pod, &["--check"]).succeeded();
    without_nf_tables(&pod, &["--cleanup"]).succeeded();
    assert_eq!(pod.connect(RTSP), SERVER);
}

#[test]
fn nftables_without_nf_tables_fails() {
    if cannot_run(&["ip", "nft", "strace"]) {
        return;
    }
    let pod = Pod::new();
    without_nf_tables(&pod, &["--backend", "nftables"])
        .exited(1)
        .complains_about("nftables");
    assert_eq!(pod.connect(RTSP), SERVER);
}

const FORKS: [&str; 3] = ["fork(", "clone(", "clone3("];

fn without_nf_tables(pod: &Pod, args: &[&str]) -> Outcome {
    run_under(&WITHOUT_NF_TABLES, pod, args)
}

#[test]
fn missing_capability_is_named() {
    if cannot_run(&["ip", "nft", "setpriv"]) {
        return;
    }
    let pod = Pod::new();
    for backend in ["auto", "nftables"] {
        let wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
        let mut command = applet_under(&wrapper, "msm-iptables");
        pod.inside
            .command(command.args(["--backend", backend]))
            .exited(1)
            .complains_about("cannot set the redirect in the current network namespace")
            .complains_about("CAP_NET_ADMIN");
    }
    assert_eq!(pod.inside.rules(), Pod::new().inside.rules());
}

#[test]
fn concurrent_calls_result_in_one_redirect() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| msm_iptables(&pod, &[])))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    });
    for outcome in outcomes {
        outcome.succeeded();
    }
    msm_iptables(&pod, &["--check"]).succeeded();
    assert_eq!(
        pod.inside.rules(),
        Backend::Nftables.redirected_pod(&[]).inside.rules()
    );
}
