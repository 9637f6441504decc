//! Two redirects of ours in one sandbox: whichever is the right one, the other is one too
//! many, and one that was written by another backend than the configured one is none.

use msm_testkit::backend::Backend;
use msm_testkit::cluster::by;
use msm_testkit::command::run;
use msm_testkit::netns::Namespace;
use msm_testkit::on_every_backend;
use msm_testkit::{applet, cannot_run};
use serde_json::json;

use super::sandbox::Sandbox;

on_every_backend! {
    a_second_redirect_is_named,
    a_redirect_by_another_backend_than_the_configured_one_is_none,
}

const FORMS: [Backend; 3] = [
    Backend::Nftables,
    Backend::IptablesNft,
    Backend::IptablesLegacy,
];

/// What is first seen of that form.
fn first_of(form: Backend) -> &'static str {
    match form {
        Backend::Nftables => "table inet msm_cni",
        Backend::IptablesNft => "chain MSM_CNI_OUTPUT of iptables-nft's table nat",
        Backend::IptablesLegacy => "chain MSM_CNI_OUTPUT of iptables-legacy's table nat",
    }
}

const TOOLS: [&str; 2] = ["iptables-nft-restore", "iptables-legacy-restore"];

/// Writes the default redirect and takes nothing away, as the program never does.
fn write(form: Backend, inside: &Namespace) {
    let text = run(applet("msm-iptables").args(["--dry-run", "--backend", form.name()]));
    let text = text.succeeded().stdout;
    match form {
        Backend::Nftables => inside.load(&text),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            let [tool, _] = form.iptables();
            let restore = format!("{tool}-restore");
            inside.tool(&restore, &["--noflush"], &text).succeeded();
        }
    }
}

fn a_second_redirect_is_named(backend: Backend) {
    if cannot_run(&TOOLS) {
        return;
    }
    for second in FORMS.into_iter().filter(|second| *second != backend) {
        let sandbox = Sandbox::of(backend, json!({}));
        sandbox.add();
        write(second, &sandbox.inside);
        // One too many is the one that ADD would take away.
        let extra = match (backend, second) {
            // Legacy iptables is in use as soon as it has tables.
            (Backend::IptablesNft, Backend::IptablesLegacy) => backend,
            _ => second,
        };
        sandbox.differs(&format!("{} should not be there", first_of(extra)));
        let extra = match (backend, second) {
            (_, Backend::Nftables) => backend,
            _ => extra,
        };
        let by_itself = format!("{} should not be there", first_of(extra));
        sandbox.differs_by(&json!({}), &by_itself);
        sandbox.add();
        sandbox.passes();
        sandbox.passes_by(&json!({}));
    }
}

/// Remnants of a redirect of another form, and what they are.
#[test]
fn a_piece_of_a_second_redirect_is_named() {
    const PIECES: [(&str, &str, &str); 6] = [
        ("nft", "table ip msm_cni {}", "table ip msm_cni"),
        (
            "nft",
            "table ip6 msm_cni { chain output { type nat hook output priority -101; }; }",
            "table ip6 msm_cni",
        ),
        (
            "iptables-nft-restore",
            "*nat\n-N MSM_CNI_PREROUTING\nCOMMIT\n",
            "chain MSM_CNI_PREROUTING of iptables-nft's table nat",
        ),
        (
            "ip6tables-nft-restore",
            "*filter\n-N MSM_CNI_REJECT_INPUT\nCOMMIT\n",
            "chain MSM_CNI_REJECT_INPUT of ip6tables-nft's table filter",
        ),
        (
            "iptables-legacy-restore",
            "*nat\n-N MSM_CNI_ANYTHING\nCOMMIT\n",
            "chain MSM_CNI_ANYTHING of iptables-legacy's table nat",
        ),
        (
            "ip6tables-legacy-restore",
            "*filter\n-N MSM_CNI_REJECT_OUTPUT\nCOMMIT\n",
            "chain MSM_CNI_REJECT_OUTPUT of ip6tables-legacy's table filter",
        ),
    ];
    if cannot_run(&["ip", "nft"]) || cannot_run(&PIECES.map(|(tool, ..)| tool)) {
        return;
    }
    for (tool, piece, name) in PIECES {
        let sandbox = Sandbox::new(json!({}));
        sandbox.add();
        let args: &[&str] = if tool == "nft" {
            &["-f", "-"]
        } else {
            &["--noflush"]
        };
        sandbox.inside.tool(tool, args, piece).succeeded();
        sandbox.differs(&format!("{name} should not be there"));
        sandbox.add();
        sandbox.passes();
    }
}

/// By an ADD that finds nothing in the way of its own tables.
#[test]
fn tables_of_another_layout_are_taken_away_by_the_first_add() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    for left in [
        "table ip msm_cni { chain output { tcp dport 554 accept; }; }",
        "table ip6 msm_cni {}",
        "table ip msm_cni {}; table ip6 msm_cni {}",
    ] {
        let sandbox = Sandbox::new(json!({}));
        sandbox.inside.load(left);
        sandbox.add();
        sandbox.passes();
    }
}

fn a_redirect_by_another_backend_than_the_configured_one_is_none(backend: Backend) {
    if cannot_run(&TOOLS) {
        return;
    }
    let sandbox = Sandbox::of(backend, json!({}));
    sandbox.add();
    sandbox.passes_by(&json!({}));
    let (other, missing) = match backend {
        Backend::Nftables => ("iptables", Backend::IptablesNft),
        Backend::IptablesNft | Backend::IptablesLegacy => ("nftables", Backend::Nftables),
    };
    let missing = format!("{} is missing", first_of(missing));
    sandbox.differs_by(&by(other), &missing);
}
