//! Others who translate addresses in the same namespace: ours wins for our ports, theirs
//! goes on working for the others, and their rules are never touched.

use msm_testkit::backend::Backend;
use msm_testkit::cannot_run;
use msm_testkit::endpoints::{HTTP, RIVAL, RTSP, STUB};
use msm_testkit::on_every_backend;
use msm_testkit::pod::Pod;

/// A redirect of somebody else's, for our port and for another, at the usual priority, and
/// things of theirs that a careless program might take for its own.
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
    foreign_iptables_rules_stay_and_work,
    foreign_nft_tables_stay_as_they_are,
}

fn foreign_iptables_rules_stay_and_work(backend: Backend) {
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
        works_beside_the_rival(backend, &pod);
    }
}

fn foreign_nft_tables_stay_as_they_are(backend: Backend) {
    let pod = Pod::new();
    backend.prepare(&pod.inside);
    // Two at one priority run in the order of their registration, the later one first:
    // iptables' own -100 only comes before theirs when theirs is later.
    let rules = match backend {
        Backend::Nftables => NFT.to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy => NFT.replace("-100", "-99"),
    };
    pod.inside.load(&rules);
    works_beside_the_rival(backend, &pod);
}

fn works_beside_the_rival(backend: Backend, pod: &Pod) {
    assert_eq!(pod.connect(RTSP), RIVAL, "{}", pod.inside.rules());
    let theirs = foreign_rules(pod);

    for args in [
        &[][..],
        &["--ipv6", "reject", "--inbound-ports", "554"],
        &[],
    ] {
        backend.apply(pod, args);
        let rules = pod.inside.rules();
        assert_eq!(pod.connect(RTSP), STUB, "{args:?}\n{rules}");
        assert_eq!(pod.connect(HTTP), RIVAL, "{args:?}\n{rules}");
        assert_eq!(foreign_rules(pod), theirs, "after applying {args:?}");
        backend.run(pod, &[args, &["--check"]].concat()).succeeded();
    }
    backend.run(pod, &["--cleanup"]).succeeded();
    assert_eq!(pod.connect(RTSP), RIVAL, "{}", pod.inside.rules());
    assert_eq!(foreign_rules(pod), theirs, "after cleaning up");
    backend.run(pod, &["--check"]).exited(1);
}

/// All rules in the namespace but ours and the built-in chains, which appear with the
/// first use of a table and cannot be removed.
fn foreign_rules(pod: &Pod) -> String {
    let nft = pod
        .inside
        .tool("nft", &["--stateless", "list", "tables"], "")
        .succeeded()
        .stdout;
    let tables = nft.lines().filter(|table| table.contains("rival"));
    let mut foreign = String::new();
    for table in tables {
        let args: Vec<_> = ["--stateless", "list"]
            .into_iter()
            .chain(table.split(' '))
            .collect();
        foreign += &pod.inside.tool("nft", &args, "").succeeded().stdout;
    }
    for line in pod.inside.iptables_rules().lines() {
        let ours = line.contains("MSM_CNI");
        if !ours && (line.starts_with("-A") || line.ends_with(" -")) {
            foreign.extend([line, "\n"]);
        }
    }
    foreign
}
