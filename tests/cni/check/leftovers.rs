//! Two redirects in one sandbox, of which one is unexpected, and a redirect by another backend
//! than the configured one.

use msm_testkit::backend::Backend;
use msm_testkit::cluster::intercept_name;
use msm_testkit::command::run;
use msm_testkit::netns::Namespace;
use msm_testkit::on_every_backend;
use msm_testkit::{applet, cannot_run};
use serde_json::json;

use super::damage::first_of;
use super::sandbox::Sandbox;

on_every_backend! {
    second_redirect_is_named,
    redirect_by_another_backend_is_missing,
}

const BACKENDS: [Backend; 3] = [
    Backend::Nftables,
    Backend::IptablesNft,
    Backend::IptablesLegacy,
];

const TOOLS: [&str; 2] = ["iptables-nft-restore", "iptables-legacy-restore"];

/// Sets the default redirect without removing others, unlike msm-cni.
fn write(backend: Backend, inside: &Namespace) {
    let text = run(applet("msm-iptables").args(["--dry-run", "--backend", backend.name()]));
    let text = text.succeeded().stdout;
    match backend {
        Backend::Nftables => inside.load(&text),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let [tool, _] = backend.iptables();
            let restore = format!("{tool}-restore");
            inside.tool(&restore, &["--noflush"], &text).succeeded();
        }
    }
}

fn second_redirect_is_named(backend: Backend) {
    if cannot_run(&TOOLS) {
        return;
    }
    for second in BACKENDS.into_iter().filter(|second| *second != backend) {
        let sandbox = Sandbox::of(backend, json!({}));
        sandbox.add();
        write(second, &sandbox.inside);
        // ADD would remove the unexpected redirect.
        let extra = match (backend, second) {
            // Legacy iptables is in use as soon as it has tables.
            (Backend::IptablesNft, Backend::IptablesLegacy) => backend,
            _ => second,
        };
        sandbox.differs(&format!("unexpected {}", first_of(extra)));
        let extra = match (backend, second) {
            (_, Backend::Nftables) => backend,
            _ => extra,
        };
        let with_auto = format!("unexpected {}", first_of(extra));
        sandbox.differs_with(&json!({}), &with_auto);
        sandbox.add();
        sandbox.passes();
        sandbox.passes_with(&json!({}));
    }
}

#[test]
fn part_of_a_second_redirect_is_named() {
    /// Command, its input, and the unexpected table or chain.
    const PARTS: [(&str, &str, &str); 6] = [
        ("nft", "table ip msm_cni {}", "table ip msm_cni"),
        (
            "nft",
            "table ip6 msm_cni { chain output { type nat hook output priority -101; }; }",
            "table ip6 msm_cni",
        ),
        (
            "iptables-nft-restore",
            "*nat\n-N MSM_CNI_PREROUTING\nCOMMIT\n",
            "chain MSM_CNI_PREROUTING in table nat of iptables-nft",
        ),
        (
            "ip6tables-nft-restore",
            "*filter\n-N MSM_CNI_REJECT_INPUT\nCOMMIT\n",
            "chain MSM_CNI_REJECT_INPUT in table filter of ip6tables-nft",
        ),
        (
            "iptables-legacy-restore",
            "*nat\n-N MSM_CNI_ANYTHING\nCOMMIT\n",
            "chain MSM_CNI_ANYTHING in table nat of iptables-legacy",
        ),
        (
            "ip6tables-legacy-restore",
            "*filter\n-N MSM_CNI_REJECT_OUTPUT\nCOMMIT\n",
            "chain MSM_CNI_REJECT_OUTPUT in table filter of ip6tables-legacy",
        ),
    ];
    if cannot_run(&["ip", "nft"]) || cannot_run(&PARTS.map(|(tool, ..)| tool)) {
        return;
    }
    for (tool, part, name) in PARTS {
        let sandbox = Sandbox::new(json!({}));
        sandbox.add();
        let args: &[&str] = if tool == "nft" {
            &["-f", "-"]
        } else {
            &["--noflush"]
        };
        sandbox.inside.tool(tool, args, part).succeeded();
        sandbox.differs(&format!("unexpected {name}"));
        sandbox.add();
        sandbox.passes();
    }
}

#[test]
fn first_add_removes_tables_of_another_layout() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    for leftover in [
        "table ip msm_cni { chain output { tcp dport 554 accept; }; }",
        "table ip6 msm_cni {}",
        "table ip msm_cni {}; table ip6 msm_cni {}",
    ] {
        let sandbox = Sandbox::new(json!({}));
        sandbox.inside.load(leftover);
        sandbox.add();
        sandbox.passes();
    }
}

fn redirect_by_another_backend_is_missing(backend: Backend) {
    if cannot_run(&TOOLS) {
        return;
    }
    let sandbox = Sandbox::of(backend, json!({}));
    sandbox.add();
    sandbox.passes_with(&json!({}));
    let (other, missing) = match backend {
        Backend::Nftables => ("iptables", Backend::IptablesNft),
        Backend::IptablesNft | Backend::IptablesLegacy => ("nftables", Backend::Nftables),
    };
    let missing = format!("{} is missing", first_of(missing));
    sandbox.differs_with(&intercept_name(other), &missing);
}
