//! End-to-end tests: a node with containerd, an API server, and the installer as a container of
//! the release image. The scenarios run in a fixed order on one node; each step is a row of the
//! report. scripts/e2e creates the namespaces that this program needs.

mod cluster;
mod cri;
mod installer;
mod node;
mod pod;
mod report;
mod scenarios;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use cluster::Cluster;
use node::Node;
use report::Report;

/// The surroundings of all scenarios.
struct Env {
    node: Node,
    cluster: Cluster,
}

/// Arguments: the cgroup of all pods, then image archives.
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let cgroup = args.next().expect("the cgroup");
    let archives: Vec<PathBuf> = args.map(PathBuf::from).collect();

    let mut report = Report::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let env = Env {
            node: Node::start(&cgroup, &archives),
            cluster: Cluster::start("token-1"),
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| scenarios::run(&env, &mut report)));
        if outcome.is_err() || report.has_failed() {
            eprintln!("\n--- the end of containerd's log\n{}", node::log());
        }
        outcome.expect("no scenario panics");
    }));
    let completed = outcome.map(|()| "yes".to_owned());
    let completed = completed.map_err(|_| "a panic, see above".to_owned());
    report.check("all scenarios completed", "yes", completed);
    report.end()
}
