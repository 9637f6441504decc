//! The output of `--dry-run`: the kernel lists the same rules whether nft or iptables-restore
//! loads that text or msm-cni programs them.

use std::process::Command;

use msm_testkit::backend::Backend;
use msm_testkit::command::{Outcome, run};
use msm_testkit::netns::Namespace;
use msm_testkit::{applet, cannot_run, executable, find_tool, skip};

const DEFAULT: &str = "table inet msm_cni {
	chain output {
		type nat hook output priority -101; policy accept;
		meta nfproto ipv6 return
		ip daddr 127.0.0.0/8 return
		meta skuid 1337 return
		tcp dport 554 counter redirect to :8554
	}
}
";

/// Flags for every kind of rule set.
const VARIANTS: [&[&str]; 9] = [
    &[],
    &["--ipv6", "redirect"],
    &["--ipv6", "reject"],
    &["--inbound-ports", "554"],
    &["--inbound-ports", "554,1554", "--ipv6", "redirect"],
    &["--inbound-ports", "554,65535", "--ipv6", "reject"],
    &["--redirect-ports", "1,554,65535", "-p", "65535", "-u", "0"],
    &[
        "-d",
        "10.0.0.1",
        "-d",
        "10.0.0.0/9",
        "-d",
        "192.0.2.128/25",
        "-d",
        "172.16.0.0/30",
    ],
    &[
        "--ipv6",
        "redirect",
        "-d",
        "127.0.0.0/8",
        "-d",
        "fd00::/8",
        "-d",
        "2001:db8::1",
        "-d",
        "2001:db8::/45",
    ],
];

fn dry_run(args: &[&str]) -> Outcome {
    run(applet("msm-iptables").arg("--dry-run").args(args)).succeeded()
}

#[test]
fn default_rules_are_printed_as_documented() {
    assert_eq!(dry_run(&[]).stdout, DEFAULT);
    assert_eq!(dry_run(&["--backend", "nftables"]).stdout, DEFAULT);
}

#[test]
fn nft_loads_the_same_rules_from_the_text() {
    if cannot_run(&["nft"]) {
        return;
    }
    for args in VARIANTS {
        let text = dry_run(args).stdout;
        let by_nft = Namespace::new();
        by_nft.load(&text);
        let by_msm = Namespace::new();
        let mut apply = applet("msm-iptables");
        apply.args(["--backend", "nftables"]).args(args);
        by_msm.command(&mut apply).succeeded();
        assert_eq!(by_msm.nft_rules(), by_nft.nft_rules(), "{args:?}");
    }
}

#[test]
fn default_rules_are_listed_as_they_are_printed() {
    if cannot_run(&["nft"]) {
        return;
    }
    let namespace = Namespace::new();
    namespace
        .command(applet("msm-iptables").args(["--backend", "nftables"]))
        .succeeded();
    assert_eq!(namespace.nft_rules(), DEFAULT);
}

#[test]
fn iptables_backend_sets_the_rules_of_the_text() {
    for backend in [Backend::IptablesNft, Backend::IptablesLegacy] {
        backend.test(|backend| {
            for args in VARIANTS {
                let pod = backend.redirected_pod(args);
                let text = dry_run(&[&["--backend", "iptables"], args].concat()).stdout;
                assert!(text.contains("*nat\n"), "{text}");
                let applied = pod.inside.iptables_rules();
                for line in text
                    .lines()
                    .filter(|line| line.starts_with("-A MSM_CNI_OUTPUT"))
                {
                    assert!(applied.contains(line), "no {line:?} in\n{applied}");
                }
            }
        });
    }
}

#[test]
fn dry_run_needs_no_privilege() {
    let Some(setpriv) = find_tool("setpriv") else {
        return skip("setpriv is not installed");
    };
    let mut unprivileged = Command::new(setpriv);
    unprivileged
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
            "--",
        ])
        .arg(executable())
        .args(["msm-iptables", "--dry-run"])
        .env_clear();
    assert_eq!(run(&mut unprivileged).succeeded().stdout, DEFAULT);
}

#[test]
fn dry_run_changes_nothing() {
    if cannot_run(&["nft"]) {
        return;
    }
    let namespace = Namespace::new();
    for backend in ["nftables", "iptables", "auto"] {
        namespace
            .command(applet("msm-iptables").args(["--dry-run", "--backend", backend]))
            .succeeded();
        assert_eq!(namespace.nft_rules(), "");
    }
}
