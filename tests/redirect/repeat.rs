//! Repeated runs: the same redirect, another one, another backend, repair and removal. The
//! result always equals that of a single run in a new network namespace.

use msm_testkit::backend::{Backend, msm_iptables};
use msm_testkit::on_every_backend;
use msm_testkit::pod::Pod;

/// Flags that use every kind of rule and every chain.
const EVERYTHING: &[&str] = &[
    "--redirect-ports",
    "554,1554",
    "--inbound-ports",
    "554",
    "--ipv6",
    "reject",
    "-d",
    "127.0.0.0/8",
    "-d",
    "10.9.0.0/16",
    "-d",
    "fd09::/16",
];

/// Commands of nft that damage the redirect.
const NFT_DAMAGE: [&str; 11] = [
    "delete table inet msm_cni",
    "flush table inet msm_cni",
    "flush chain inet msm_cni output",
    "delete rule inet msm_cni output handle {first}",
    "delete rule inet msm_cni output handle {last}",
    "add rule inet msm_cni output tcp dport 22 return",
    "insert rule inet msm_cni output tcp dport 554 return",
    "replace rule inet msm_cni output handle {last} tcp dport 554 counter redirect to :8555",
    "add chain inet msm_cni output { policy drop; }",
    "add chain inet msm_cni another",
    "flush ruleset",
];

/// Commands of iptables that damage the redirect.
const IPTABLES_DAMAGE: [&str; 8] = [
    "-F OUTPUT",
    "-F MSM_CNI_OUTPUT",
    "-D MSM_CNI_OUTPUT 1",
    "-D MSM_CNI_OUTPUT 3",
    "-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 22 -j RETURN",
    "-I MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j RETURN",
    "-R MSM_CNI_OUTPUT 1 -d 128.0.0.0/8 -j RETURN",
    "-A OUTPUT -p tcp -j MSM_CNI_OUTPUT",
];

on_every_backend! {
    second_run_changes_nothing,
    other_options_replace_the_rules,
    damage_is_reported_and_repaired,
    rules_of_an_interrupted_run_are_removed,
    check_reports_differences_and_changes_nothing,
    cleanup_is_complete_and_repeatable,
    rules_of_the_other_backend_are_replaced,
    cleanup_removes_rules_of_every_backend,
}

fn second_run_changes_nothing(backend: Backend) {
    for args in [&[][..], EVERYTHING] {
        let pod = backend.redirected_pod(args);
        let once = pod.inside.rules();
        backend.apply(&pod, args);
        assert_eq!(pod.inside.rules(), once);
    }
}

fn other_options_replace_the_rules(backend: Backend) {
    let fresh = fresh_rules(backend, &[]);
    let pod = backend.redirected_pod(&[
        "--redirect-ports",
        "1554",
        "-p",
        "9554",
        "-u",
        "7",
        "-d",
        "10.0.0.0/8",
    ]);
    assert_ne!(pod.inside.rules(), fresh);
    backend.apply(&pod, &[]);
    assert_eq!(pod.inside.rules(), fresh);

    backend.apply(&pod, EVERYTHING);
    assert_eq!(
        own_rules(&pod),
        own_rules(&backend.redirected_pod(EVERYTHING))
    );
    backend.apply(&pod, &[]);
    assert_eq!(own_rules(&pod), own_rules(&backend.redirected_pod(&[])));
}

fn damage_is_reported_and_repaired(backend: Backend) {
    match backend {
        Backend::Nftables => {
            for damage in NFT_DAMAGE {
                assert_repaired(backend, damage, |pod| {
                    pod.inside.load(&with_handles(pod, damage));
                });
            }
        }
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let [iptables, _] = backend.iptables();
            for damage in IPTABLES_DAMAGE {
                let args: Vec<_> = ["-t", "nat"].into_iter().chain(damage.split(' ')).collect();
                assert_repaired(backend, damage, |pod| {
                    pod.inside.tool(iptables, &args, "").succeeded();
                });
            }
        }
    }
}

fn assert_repaired(backend: Backend, damage: &str, apply: impl Fn(&Pod)) {
    let pod = backend.redirected_pod(EVERYTHING);
    let complete = pod.inside.rules();
    apply(&pod);
    let damaged = pod.inside.rules();
    assert_ne!(damaged, complete, "{damage} changed nothing");

    let check = backend.run(&pod, &[EVERYTHING, &["--check"]].concat());
    assert!(
        check.code == Some(1),
        "--check missed {damage}\n{check}\n{damaged}"
    );
    assert!(
        check.stderr.trim_end().len() > 30,
        "no message about {damage}\n{check}"
    );
    assert_eq!(
        pod.inside.rules(),
        damaged,
        "--check changed something after {damage}"
    );

    backend.apply(&pod, EVERYTHING);
    assert_eq!(pod.inside.rules(), complete, "not repaired after {damage}");
    backend
        .run(&pod, &[EVERYTHING, &["--check"]].concat())
        .succeeded();
}

/// Replaces `{first}` and `{last}` by the handles of these rules of the output chain.
fn with_handles(pod: &Pod, damage: &str) -> String {
    let args = ["--handle", "list", "chain", "inet", "msm_cni", "output"];
    let listing = pod.inside.tool("nft", &args, "").succeeded().stdout;
    let handles: Vec<_> = listing
        .lines()
        .filter(|line| !line.contains('{'))
        .filter_map(|line| line.rsplit_once(" # handle "))
        .map(|(_, handle)| handle)
        .collect();
    damage
        .replace("{first}", handles.first().unwrap())
        .replace("{last}", handles.last().unwrap())
}

fn rules_of_an_interrupted_run_are_removed(backend: Backend) {
    // Each tool is one transaction, so an interrupted run leaves the rules of one family.
    let [tool4, _] = backend.iptables();
    let pod = backend.redirected_pod(&["--ipv6", "redirect"]);
    if backend != Backend::Nftables {
        for args in [
            ["-F", "OUTPUT"],
            ["-F", "MSM_CNI_OUTPUT"],
            ["-X", "MSM_CNI_OUTPUT"],
        ] {
            pod.inside
                .tool(tool4, &[&["-t", "nat"][..], &args].concat(), "")
                .succeeded();
        }
    }
    backend.apply(&pod, &[]);
    backend.run(&pod, &["--check"]).succeeded();
    assert_eq!(own_rules(&pod), own_rules(&backend.redirected_pod(&[])));
}

fn check_reports_differences_and_changes_nothing(backend: Backend) {
    let pod = Pod::new();
    backend.prepare(&pod.inside);
    let none = pod.inside.rules();
    backend.run(&pod, &["--check"]).exited(1);
    assert_eq!(pod.inside.rules(), none);

    backend.apply(&pod, &[]);
    let complete = pod.inside.rules();
    backend.run(&pod, &["--check"]).succeeded();
    for other in [
        ["-p", "8555"],
        ["-u", "1338"],
        ["-d", "10.0.0.0/8"],
        ["--redirect-ports", "555"],
        ["--redirect-ports", "554,555"],
        ["--inbound-ports", "554"],
        ["--ipv6", "reject"],
        ["--ipv6", "redirect"],
    ] {
        backend
            .run(&pod, &[&other[..], &["--check"]].concat())
            .exited(1);
    }
    assert_eq!(pod.inside.rules(), complete);
}

fn cleanup_is_complete_and_repeatable(backend: Backend) {
    let pod = backend.redirected_pod(EVERYTHING);
    for _ in 0..2 {
        backend.run(&pod, &["--cleanup"]).succeeded();
        assert_eq!(own_rules(&pod), "");
    }
    let untouched = Pod::new();
    backend.prepare(&untouched.inside);
    let before = untouched.inside.rules();
    backend.run(&untouched, &["--cleanup"]).succeeded();
    assert_eq!(
        untouched.inside.rules(),
        before,
        "--cleanup changed a namespace without a redirect"
    );
}

fn rules_of_the_other_backend_are_replaced(backend: Backend) {
    for second in [
        Backend::Nftables,
        Backend::IptablesNft,
        Backend::IptablesLegacy,
    ] {
        if second.name() == backend.name() {
            continue;
        }
        for args in [&[][..], EVERYTHING] {
            let pod = backend.redirected_pod(args);
            second.prepare(&pod.inside);
            second.apply(&pod, args);
            second.run(&pod, &[args, &["--check"]].concat()).succeeded();
            let rules = pod.inside.rules();
            let (present, absent) = match second {
                Backend::Nftables => ("table inet msm_cni {", "MSM_CNI_"),
                Backend::IptablesNft | Backend::IptablesLegacy => {
                    ("MSM_CNI_", "table inet msm_cni {")
                }
            };
            assert!(
                rules.contains(present),
                "{second:?} after {backend:?} wrote nothing:\n{rules}"
            );
            assert!(
                !rules.contains(absent),
                "{second:?} left rules of {backend:?}:\n{rules}"
            );
        }
    }
}

fn cleanup_removes_rules_of_every_backend(backend: Backend) {
    for args in [&["--cleanup"][..], &["--cleanup", "--backend", "auto"]] {
        let pod = backend.redirected_pod(EVERYTHING);
        msm_iptables(&pod, args).succeeded();
        assert_eq!(own_rules(&pod), "", "{args:?}");
    }
}

fn fresh_rules(backend: Backend, args: &[&str]) -> String {
    backend.redirected_pod(args).inside.rules()
}

/// The rules of msm-cni, without the built-in chains, which the first use of a table creates
/// and nothing removes.
fn own_rules(pod: &Pod) -> String {
    let listing = pod
        .inside
        .tool("nft", &["--stateless", "list", "tables"], "")
        .succeeded()
        .stdout;
    let mut own = String::new();
    if listing.contains("inet msm_cni\n") {
        let args = ["--stateless", "list", "table", "inet", "msm_cni"];
        own += &pod.inside.tool("nft", &args, "").succeeded().stdout;
    }
    for line in pod
        .inside
        .iptables_rules()
        .lines()
        .filter(|line| line.contains("MSM_CNI"))
    {
        own.extend([line, "\n"]);
    }
    own
}
