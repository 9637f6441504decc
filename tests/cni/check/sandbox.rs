//! A sandbox on which CHECK runs, and assertions about its outcome. CHECK must never change
//! the sandbox.

use std::fs;

use msm_testkit::backend::Backend;
use msm_testkit::cluster::{Cluster, LABELLED, error_text};
use msm_testkit::command::Outcome;
use msm_testkit::netns::Namespace;
use serde_json::{Value, json};

/// The code of a redirect that differs from the expected one.
const DIFFERS: u64 = 113;

/// A sandbox on a node with a configuration.
pub struct Sandbox {
    pub cluster: Cluster,
    pub inside: Namespace,
    /// Merged into the configuration of the node.
    pub settings: Value,
}

impl Sandbox {
    /// The sandbox of a labelled pod, before ADD.
    pub fn new(settings: Value) -> Self {
        Self {
            cluster: Cluster::new(LABELLED, &[]),
            inside: Namespace::new(),
            settings,
        }
    }

    /// The same, with `interceptName` set to the backend.
    pub fn of(backend: Backend, mut settings: Value) -> Self {
        settings["kubernetes"] = json!({"interceptName": backend.name()});
        let sandbox = Self::new(settings);
        backend.prepare(&sandbox.inside);
        sandbox
    }

    /// Runs ADD.
    #[track_caller]
    pub fn add(&self) {
        self.cluster.add_succeeds(&self.inside, &self.settings);
    }

    /// Fails the test unless CHECK succeeds.
    #[track_caller]
    pub fn passes(&self) {
        self.passes_with(&self.settings);
    }

    /// Like `passes`, with other settings.
    #[track_caller]
    pub fn passes_with(&self, settings: &Value) {
        let outcome = self.check(settings).succeeded();
        assert_eq!(outcome.stdout, "", "{outcome}");
    }

    /// Fails the test unless CHECK reports this difference.
    #[track_caller]
    pub fn differs(&self, difference: &str) {
        self.differs_with(&self.settings, difference);
    }

    /// Like `differs`, with other settings.
    #[track_caller]
    pub fn differs_with(&self, settings: &Value, difference: &str) {
        let outcome = self.check(settings);
        let output = format!("{outcome}\n{}", self.inside.rules());
        let message = error_text(outcome, DIFFERS);
        let sentence = format!(
            "the redirect of pod media/camera-7d9c5b6f4-x7k2p does not match the expected rules: \
             {difference}; delete the pod to recreate it: "
        );
        assert_eq!(message, sentence, "{output}");
    }

    /// Runs CHECK; fails the test if it changes something.
    #[track_caller]
    pub fn check(&self, settings: &Value) -> Outcome {
        let before = state(&self.inside);
        let outcome = self.cluster.run("CHECK", &self.inside, settings);
        let after = state(&self.inside);
        assert_eq!(after, before, "CHECK changed something\n{outcome}");
        outcome
    }
}

/// All rules and all tables, even those without rules. The handles of nftables, which include
/// iptables-nft's, show whether an equal rule was created again.
fn state(inside: &Namespace) -> String {
    // First, because listing rules can create tables.
    let tables = legacy_tables(inside);
    let saved = if tables.is_empty() {
        String::new()
    } else {
        inside.iptables_rules()
    };
    let listed = inside.tool("nft", &["--handle", "--stateless", "list", "ruleset"], "");
    [tables, saved, listed.succeeded().stdout].concat()
}

/// The tables of legacy iptables, which their first use creates.
fn legacy_tables(inside: &Namespace) -> String {
    let files = ["ip_tables_names", "ip6_tables_names"];
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    inside.run(|| files.map(|file| read(file).unwrap_or_default()).concat())
}
