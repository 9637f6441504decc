//! The installer is killed at every call that changes the disk, whatever it is doing. Then
//! and there the node's network has to work, and the next run has to finish the work. The
//! calls are found by a run that is not disturbed.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use msm_testkit::cannot_run;
use msm_testkit::node::{BIN_DIR, CALICO, Installer, KUBECONFIG, NET_DIR, Node};
use msm_testkit::runtime::Network;
use nix::sys::signal::Signal;

use crate::strace::{Call, Traced};
use crate::tree::{Entry, Tree};

const BRIDGE: &str =
    r#"{"cniVersion": "0.4.0", "name": "bridge-net", "type": "bridge", "bridge": "cni0"}"#;
const FLANNEL: &str = r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#;

/// Something that an installer does.
pub struct Scenario {
    pub args: &'static [&'static str],
    /// The node when it starts.
    before: fn() -> Node,
    /// What happens once it is ready.
    pub then: Then,
}

pub enum Then {
    /// That was it.
    Nothing,
    /// Somebody else does something; when is the installer done with that?
    Change(fn(&Node), fn(&Node) -> bool),
    Leave,
}

fn calico() -> Node {
    let node = Node::with_conf("10-calico.conflist", CALICO);
    // Whose it was, it stays.
    let path = node.path(NET_DIR).join("10-calico.conflist");
    chown(&path, Some(12), Some(34)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    node
}

fn bridge() -> Node {
    Node::with_conf("10-bridge.conf", BRIDGE)
}

fn installed(node: Node, args: &[&str]) -> Node {
    drop(node.installed(args));
    node
}

/// As the earlier implementation left it: with plain files and an entry of its own.
fn earlier() -> Node {
    let node = calico();
    for (path, content, mode) in [
        (format!("{BIN_DIR}/msm-cni"), "earlier plugin", 0o755),
        (format!("{BIN_DIR}/msm-iptables"), "earlier redirect", 0o755),
        (
            KUBECONFIG.to_owned(),
            "{\"earlier\": \"kubeconfig\"}",
            0o600,
        ),
    ] {
        node.write(&path, content);
        fs::set_permissions(node.path(&path), Permissions::from_mode(mode)).unwrap();
    }
    let path = format!("{NET_DIR}/10-calico.conflist");
    let entry = r#"{"type": "msm-cni", "log_level": "info"}, {"type": "portmap""#;
    node.write(&path, &CALICO.replace(r#"{"type": "portmap""#, entry));
    node
}

/// As another version of ours left it.
fn older() -> Node {
    let node = installed(calico(), &[]);
    let path = format!("{BIN_DIR}/msm");
    fs::remove_file(node.path(&path)).unwrap();
    node.write(&path, "older version");
    fs::set_permissions(node.path(&path), Permissions::from_mode(0o755)).unwrap();
    node
}

pub const FRESH: Scenario = Scenario {
    args: &[],
    before: calico,
    then: Then::Nothing,
};

pub const CONVERSION: Scenario = Scenario {
    args: &[],
    before: bridge,
    then: Then::Nothing,
};

pub const EARLIER: Scenario = Scenario {
    args: &[],
    before: earlier,
    then: Then::Nothing,
};

pub const DEPARTURE: Scenario = Scenario {
    args: LEAVING,
    before: || installed(bridge(), LEAVING),
    then: Then::Leave,
};

const LEAVING: &[&str] = &["--cleanup-on-exit=always", "--cleanup-binaries"];

#[test]
fn killed_in_a_fresh_install() {
    FRESH.is_survived();
}

#[test]
fn killed_when_a_conf_becomes_a_list() {
    CONVERSION.is_survived();
}

#[test]
fn killed_at_the_rotation_of_a_token() {
    let scenario = Scenario {
        args: &[],
        before: || installed(calico(), &[]),
        then: Then::Change(
            |node| node.rotate_token("second.token.y"),
            |node| node.read(KUBECONFIG).contains("second.token.y"),
        ),
    };
    scenario.is_survived();
}

#[test]
fn killed_while_it_takes_the_place_of_the_earlier_implementation() {
    EARLIER.is_survived();
}

#[test]
fn killed_in_an_upgrade() {
    let scenario = Scenario {
        args: &[],
        before: older,
        then: Then::Nothing,
    };
    scenario.is_survived();
}

#[test]
fn killed_when_the_entry_moves_to_a_new_first_file() {
    let scenario = Scenario {
        args: &[],
        before: || installed(calico(), &[]),
        then: Then::Change(
            |node| {
                let path = format!("{NET_DIR}/05-flannel.conflist");
                node.write(&format!("{path}.new"), FLANNEL);
                fs::rename(node.path(&format!("{path}.new")), node.path(&path)).unwrap();
            },
            |node| {
                node.conf("05-flannel.conflist").contains("msm-cni")
                    && !node.conf("10-calico.conflist").contains("msm-cni")
            },
        ),
    };
    scenario.is_survived();
}

#[test]
fn killed_while_it_leaves() {
    let scenario = Scenario {
        args: LEAVING,
        before: || installed(calico(), LEAVING),
        then: Then::Leave,
    };
    scenario.is_survived();
}

#[test]
fn killed_while_it_leaves_and_a_conf_comes_back() {
    DEPARTURE.is_survived();
}

#[test]
fn killed_when_it_stands_alone() {
    let scenario = Scenario {
        args: &["--chained-cni-plugin=false"],
        before: calico,
        then: Then::Nothing,
    };
    scenario.is_survived();
}

#[test]
fn killed_when_it_stands_alone_on_a_node_without_a_network() {
    let scenario = Scenario {
        args: &["--chained-cni-plugin=false"],
        before: Node::new,
        then: Then::Nothing,
    };
    scenario.is_survived();
}

/// Runs `work` for every item, on all processors.
pub fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

/// The trees that a scenario leads through.
pub struct Course {
    pub calls: Vec<Call>,
    pub stages: Vec<Tree>,
    pub after: Tree,
}

impl Scenario {
    fn is_survived(&self) {
        if cannot_run(&["strace"]) {
            return;
        }
        let course = self.course();
        let points: Vec<&Call> = course
            .calls
            .iter()
            .filter(|call| call.changes_the_disk())
            .collect();
        for_each(&points, |call| self.is_survived_at(call, &course));
        assert!(points.len() > 5, "{:#?}", course.calls);
    }

    pub fn node(&self) -> Node {
        (self.before)()
    }

    /// A run that nobody disturbs.
    pub fn course(&self) -> Course {
        let node = self.node();
        let mut stages = vec![Tree::of(&node)];
        if let Then::Change(change, _) = self.then {
            change(&node);
            stages.push(Tree::of(&node));
        }
        let node = self.node();
        let mut traced = Traced::start_with(&node, self.args, None);
        assert!(self.goes_on(&mut traced.installer), "{}", node.tree());
        let calls = traced.all_calls();
        let after = Tree::of(&node);
        assert!(after.temporaries().is_empty(), "{after:#?}");
        stages.push(after.clone());
        Course {
            calls,
            stages,
            after,
        }
    }

    /// Waits until it is ready, changes something, and waits until it is done with that;
    /// whether it has lived to see it.
    pub fn goes_on(&self, installer: &mut Installer) -> bool {
        if !installer.lives_until("ready", Installer::is_ready) {
            return false;
        }
        match self.then {
            Then::Nothing => true,
            Then::Change(change, is_done) => {
                change(installer.node);
                installer.lives_until("done", |it| is_done(it.node) && it.is_ready())
            }
            Then::Leave => {
                installer.signal(Signal::SIGTERM);
                installer.wait() == Some(0)
            }
        }
    }

    fn is_survived_at(&self, call: &Call, course: &Course) {
        let context = format!(
            "killed at {} number {}: {}",
            call.name, call.number, call.rest
        );
        let node = self.node();
        let injection = call.expression("signal=SIGKILL", 1);
        let mut traced = Traced::start_with(&node, self.args, Some(&injection));
        let has_lived = self.goes_on(&mut traced.installer);
        // How often it looks at the disk, and so opens files, depends on others.
        assert!(!has_lived || call.name.starts_with("open"), "not {context}");
        drop(traced);

        let tree = Tree::of(&node);
        tree.is_made_of(&course.stages.iter().collect::<Vec<_>>(), &context);
        course.has_working_network(&tree, &context);

        let mut installer = node.start(self.args);
        match self.then {
            Then::Leave => assert!(self.goes_on(&mut installer), "{context}"),
            _ => installer.becomes_ready(),
        }
        let log = installer.log();
        drop(installer);
        let tree = Tree::of(&node);
        assert!(
            tree == course.after,
            "{context}: the next run left {tree:#?}\ninstead of {:#?}\n{log}",
            course.after
        );
    }
}

impl Course {
    /// What a runtime would load is what it loaded before or will load; and what it would
    /// run is there.
    #[track_caller]
    pub fn has_working_network(&self, tree: &Tree, context: &str) {
        let loaded = tree.networks();
        let others = |networks: [Option<Network>; 2]| {
            networks.map(|network| network.map(Network::without_us))
        };
        let mut stages = self.stages.iter().map(|stage| others(stage.networks()));
        assert!(
            stages.any(|networks| networks == others(loaded.clone())),
            "{context}: the network is {loaded:#?}\n{tree:#?}"
        );
        let loaded = loaded.into_iter().flatten();
        if !loaded.into_iter().any(|it| it.clone().without_us() != it) {
            return;
        }
        let is_whole = |path: &str| {
            let entry = tree.get(path);
            entry.is_some() && self.stages.iter().any(|stage| stage.get(path) == entry)
        };
        let plugin = match tree.get("opt/cni/bin/msm-cni") {
            Some(Entry::Link(_)) => "opt/cni/bin/msm",
            _ => "opt/cni/bin/msm-cni",
        };
        for path in [plugin, "etc/cni/net.d/ZZZ-msm-cni-kubeconfig"] {
            assert!(is_whole(path), "{context}: {path} is needed\n{tree:#?}");
        }
    }
}
