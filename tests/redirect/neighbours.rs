//! Other components that translate addresses in the same network namespace: the redirect
//! precedes their rules, which continue to apply to other ports and are never changed.

use msm_testkit::backend::Backend;
use msm_testkit::cannot_run;
use msm_testkit::endpoints::{HTTP, RIVAL, RTSP, STUB};
use msm_testkit::on_every_backend;
use msm_testkit::pod::Pod;

/// A redirect of another component for the same port and another one, at the usual priority,
/// and a table with a similar name.
const NFT: &str = "table ip rival {
	chain output {
		type nat hook output priority -100; policy accept;
		tcp dport { 80, 554 } counter redirect to :9999
	}
}
table inet msm_cni_rival {
	chain output {
		type filter hook output priority 0; policy accept;
		tcp dport 554 counter accept
	}
}
";

/// The same as input of `iptables-restore`.
const IPTABLES: &str = "*nat
:RIVAL - [0:0]
:MSM_RIVAL - [0:0]
-A OUTPUT -p tcp -m multiport --dports 80,554 -j RIVAL
-A OUTPUT -p udp -j MSM_RIVAL
-A RIVAL -p tcp -m comment --comment \"not MSM's\" -j REDIRECT --to-ports 9999
-A MSM_RIVAL -j RETURN
COMMIT
";

on_every_backend! {
    foreign_iptables_rules_are_unchanged,
    foreign_nft_tables_are_unchanged,
}

fn foreign_iptables_rules_are_unchanged(backend: Backend) {
    let variants: &[&str] = match backend {
        Backend::Nftables => &["iptables-nft-restore", "iptables-legacy-restore"],
        Backend::IptablesNft => &["iptables-nft-restore"],
        Backend::IptablesLegacy => &["iptables-legacy-restore"],
    };
    for variant in variants {
        if cannot_run(&[variant]) {
            return;
        }
        let pod = Pod::new();
        backend.prepare(&pod.inside);
        pod.inside
            .tool(variant, &["--noflush"], IPTABLES)
            .succeeded();
        assert_both_redirects_apply(backend, &pod);
    }
}

fn foreign_nft_tables_are_unchanged(backend: Backend) {
    let pod = Pod::new();
    backend.prepare(&pod.inside);
    // At equal priorities the chain that was registered last runs first. iptables has
    // priority -100, so the other redirect needs a later one.
    let rules = match backend {
        Backend::Nftables => NFT.to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy => NFT.replace("-100", "-99"),
    };
    pod.inside.load(&rules);
    assert_both_redirects_apply(backend, &pod);
}

fn assert_both_redirects_apply(backend: Backend, pod: &Pod) {
    assert_eq!(pod.connect(RTSP), RIVAL, "{}", pod.inside.rules());
    let foreign = foreign_rules(pod);

    for args in [
        &[][..],
        &["--ipv6", "reject", "--inbound-ports", "554"],
        &[],
    ] {
        backend.apply(pod, args);
        let rules = pod.inside.rules();
        assert_eq!(pod.connect(RTSP), STUB, "{args:?}\n{rules}");
        assert_eq!(pod.connect(HTTP), RIVAL, "{args:?}\n{rules}");
        assert_eq!(foreign_rules(pod), foreign, "after applying {args:?}");
        backend.run(pod, &[args, &["--check"]].concat()).succeeded();
    }
    backend.run(pod, &["--cleanup"]).succeeded();
    assert_eq!(pod.connect(RTSP), RIVAL, "{}", pod.inside.rules());
    assert_eq!(foreign_rules(pod), foreign, "after --cleanup");
    backend.run(pod, &["--check"]).exited(1);
}

/// All rules except msm-cni's and the built-in chains, which the first use of a table creates
/// and nothing removes.
fn foreign_rules(pod: &Pod) -> String {
    let nft = pod
        .inside
        .tool("nft", &["--stateless", "list", "tables"], "")
        .succeeded()
        .stdout;
    let tables = nft.lines().filter(|table| table.contains("rival"));
    let mut rules = String::new();
    for table in tables {
        let args: Vec<_> = ["--stateless", "list"]
            .into_iter()
            .chain(table.split(' '))
            .collect();
        rules += &pod.inside.tool("nft", &args, "").succeeded().stdout;
    }
    for line in pod.inside.iptables_rules().lines() {
        let ours = line.contains("MSM_CNI");
        if !ours && (line.starts_with("-A") || line.ends_with(" -")) {
            rules.extend([line, "\n"]);
        }
    }
    rules
}
