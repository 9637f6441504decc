//! The cases that are measured: a runtime's requests, each with a new sandbox, a new API server
//! and an otherwise empty environment.

use msm_testkit::applet_under;
use msm_testkit::cluster::{Cluster, K8S_NAMESPACE, LABELLED, request};
use msm_testkit::command::{Outcome, run_with_input};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use serde_json::json;

use crate::figures::Counts;

/// A request and its preconditions.
pub struct Case {
    /// The key in figures.json.
    pub name: &'static str,
    verb: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// Namespaces that the configuration excludes.
    excluded: &'static [&'static str],
    before: Before,
    /// The expected requests to the API server, each over its own connection.
    requests: usize,
}

/// The preparation of the sandbox.
#[derive(PartialEq)]
enum Before {
    Nothing,
    Add,
}

const CASES: [Case; 6] = [
    ADD,
    Case {
        name: "ADD without the label",
        labels: &[("app", "camera")],
        ..ADD
    },
    Case {
        name: "ADD in an excluded namespace",
        excluded: &["kube-system", K8S_NAMESPACE],
        requests: 0,
        ..ADD
    },
    Case {
        name: "CHECK of a redirect",
        verb: "CHECK",
        before: Before::Add,
        ..ADD
    },
    Case {
        name: "DEL of a redirect",
        verb: "DEL",
        before: Before::Add,
        requests: 0,
        ..ADD
    },
    Case {
        name: "VERSION",
        verb: "VERSION",
        requests: 0,
        ..ADD
    },
];

/// Counts each case. `count` may write files to the directory.
pub fn counts(count: impl Fn(&Case, &Scratch) -> u64) -> Counts {
    let scratch = Scratch::new();
    let counts = CASES.iter().map(|case| {
        let number = count(case, &scratch);
        (case.name.to_owned(), number)
    });
    counts.collect()
}

/// Runs of a case until one of them has no retry.
const ATTEMPTS: usize = 10;

const ADD: Case = Case {
    name: "ADD that redirects",
    verb: "ADD",
    labels: LABELLED,
    excluded: &["kube-system"],
    before: Before::Nothing,
    requests: 1,
};

impl Case {
    /// Runs the request by the program and arguments of `wrapper`. It must succeed. A run in which
    /// the pod lookup was retried, because the machine or the wrapper is slow, is repeated: the
    /// retry would be counted too.
    pub fn run_under(&self, wrapper: &[&str]) -> Outcome {
        let mut unexpected = Vec::new();
        while unexpected.len() < ATTEMPTS {
            let (outcome, traffic) = self.run_once(wrapper);
            if traffic == [self.requests; 2] {
                return outcome;
            }
            unexpected.push(traffic);
        }
        panic!(
            "{}: [connections to, requests of] the API server should be {}, and were {unexpected:?}",
            self.name, self.requests
        );
    }

    /// Returns the connections to and the requests of the API server, too.
    fn run_once(&self, wrapper: &[&str]) -> (Outcome, [usize; 2]) {
        let cluster = Cluster::new(self.labels, &[]);
        let sandbox = Namespace::new();
        let settings = json!({"kubernetes": {
            "interceptName": "nftables", "excludeNamespaces": self.excluded,
        }});
        if self.before == Before::Add {
            cluster.add_succeeds(&sandbox, &settings);
        }
        let before = traffic(&cluster);
        let plugin = applet_under(wrapper, "msm-cni");
        let mut request = request(plugin, self.verb, &sandbox.path());
        let configuration = cluster.configuration(&settings).to_string();
        let outcome = run_with_input(&mut request, &configuration).succeeded();
        let [connections, requests] = traffic(&cluster);
        (outcome, [connections - before[0], requests - before[1]])
    }
}

/// Connections to and requests of the API server.
fn traffic(cluster: &Cluster) -> [usize; 2] {
    let server = &cluster.server;
    [server.connections(), server.requests().len()]
}
