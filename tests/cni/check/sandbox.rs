//! A sandbox that CHECK is asked about, and what it has to say. Whatever it says, it must
//! change nothing.

use std::fs;

use msm_testkit::backend::Backend;
use msm_testkit::cluster::{Cluster, LABELLED, refused};
use msm_testkit::command::Outcome;
use msm_testkit::netns::Namespace;
use serde_json::{Value, json};

/// CNI's code of a redirect that is not as it should be.
const DIFFERS: u64 = 113;

/// A sandbox on a node with a configuration.
pub struct Sandbox {
    pub cluster: Cluster,
    pub inside: Namespace,
    /// Beside what every node's configuration says.
    pub settings: Value,
}

impl Sandbox {
    /// Of a pod that asks for a redirect, in which nothing was added yet.
    pub fn new(settings: Value) -> Self {
        Self {
            cluster: Cluster::new(LABELLED, &[]),
            inside: Namespace::new(),
            settings,
        }
    }

    /// The same, in which that backend is the one that `interceptName` chooses.
    pub fn of(backend: Backend, mut settings: Value) -> Self {
        settings["kubernetes"] = json!({"interceptName": backend.name()});
        let sandbox = Self::new(settings);
        backend.prepare(&sandbox.inside);
        sandbox
    }

    /// ADD.
    #[track_caller]
    pub fn add(&self) {
        self.cluster.added(&self.inside, &self.settings);
    }

    /// CHECK that has to succeed.
    #[track_caller]
    pub fn passes(&self) {
        self.passes_by(&self.settings);
    }

    /// The same asked with another configuration.
    #[track_caller]
    pub fn passes_by(&self, settings: &Value) {
        let outcome = self.check(settings).succeeded();
        assert_eq!(outcome.stdout, "", "{outcome}");
    }

    /// CHECK that has to name this difference.
    #[track_caller]
    pub fn differs(&self, difference: &str) {
        self.differs_by(&self.settings, difference);
    }

    /// The same asked with another configuration.
    #[track_caller]
    pub fn differs_by(&self, settings: &Value, difference: &str) {
        let outcome = self.check(settings);
        let said = format!("{outcome}\n{}", self.inside.rules());
        let message = refused(outcome, DIFFERS);
        let sentence = format!(
            "the redirect of pod media/camera-7d9c5b6f4-x7k2p does not match the expected rules: \
             {difference}; delete the pod to have it recreated: "
        );
        assert_eq!(message, sentence, "{said}");
    }

    /// CHECK, which must change nothing.
    #[track_caller]
    pub fn check(&self, settings: &Value) -> Outcome {
        let before = everything_in(&self.inside);
        let outcome = self.cluster.run("CHECK", &self.inside, settings);
        let after = everything_in(&self.inside);
        assert_eq!(after, before, "CHECK changed something\n{outcome}");
        outcome
    }
}

/// Every rule and every table, even one without rules, with what tells a thing from its
/// equal: nftables' handles. iptables-nft's are among them.
fn everything_in(inside: &Namespace) -> String {
    // First, because whoever lists rules may create what he lists.
    let tables = legacy_tables(inside);
    let saved = if tables.is_empty() {
        String::new()
    } else {
        inside.iptables_rules()
    };
    let listed = inside.tool("nft", &["--handle", "--stateless", "list", "ruleset"], "");
    [tables, saved, listed.succeeded().stdout].concat()
}

/// The tables that legacy iptables has there, which appear with the first use.
fn legacy_tables(inside: &Namespace) -> String {
    let files = ["ip_tables_names", "ip6_tables_names"];
    let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
    inside.run(|| files.map(|file| read(file).unwrap_or_default()).concat())
}
