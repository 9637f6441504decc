//! msm-cni on a real container runtime: a node with containerd, an API server, and the
//! installer as a container of the image that ships. A story in chapters, each step of it
//! a line of the table. Run by scripts/e2e, which makes the namespaces that all of it is in.

mod cluster; // the API server and what it knows
mod cri; // a client of the runtime
mod installer; // the DaemonSet's pod
mod node; // containerd and its surroundings
mod pod; // sandboxes and their containers
mod report; // the table
mod story; // the chapters

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use cluster::Cluster;
use node::Node;
use report::Report;

/// Where the story plays.
struct Stage {
    node: Node,
    cluster: Cluster,
}

/// Arguments: the cgroup of all pods, and archives of images.
fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let cgroup = args.next().expect("the cgroup");
    let archives: Vec<PathBuf> = args.map(PathBuf::from).collect();

    let mut report = Report::default();
    let told = catch_unwind(AssertUnwindSafe(|| {
        let stage = Stage {
            node: Node::start(&cgroup, &archives),
            cluster: Cluster::start("token-1"),
        };
        let told = catch_unwind(AssertUnwindSafe(|| story::tell(&stage, &mut report)));
        if told.is_err() || report.has_failed() {
            eprintln!("\n--- the end of containerd's log\n{}", node::log());
        }
        told.expect("the story comes to its end");
    }));
    let ended = told.map(|()| "yes".to_owned());
    let ended = ended.map_err(|_| "a panic, described above".to_owned());
    report.is("the story comes to its end", "yes", ended);
    report.end()
}
