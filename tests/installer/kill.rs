//! The installer is killed at every system call that changes the disk, in every scenario. At
//! that moment the node's network must work, and the next run must complete the work. An
//! undisturbed run finds the calls.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use msm_testkit::cannot_run;
use msm_testkit::installer::Installer;
use msm_testkit::node::{BIN_DIR, CALICO, KUBECONFIG, NET_DIR, Node};
use msm_testkit::runtime::Network;
use nix::sys::signal::Signal;

use crate::strace::{Call, Traced};
use crate::tree::{Entry, Tree};

const BRIDGE: &str =
    r#"{"cniVersion": "0.4.0", "name": "bridge-net", "type": "bridge", "bridge": "cni0"}"#;
const FLANNEL: &str = r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#;

/// A task of the installer.
pub struct Scenario {
    pub args: &'static [&'static str],
    /// The node at the start.
    before: fn() -> Node,
    /// What happens once the installer is ready.
    pub then: Then,
}

pub enum Then {
    Nothing,
    /// Another process changes something. The second function returns whether the installer has
    /// reacted.
    Change(fn(&Node), fn(&Node) -> bool),
    Uninstall,
}

fn calico() -> Node {
    let node = Node::with_conf("10-calico.conflist", CALICO);
    // Owner and mode must be kept.
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

/// As the earlier implementation leaves it: regular files instead of symlinks, another entry.
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

/// With the executable of another version.
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

pub const REPLACEMENT: Scenario = Scenario {
    args: &[],
    before: earlier,
    then: Then::Nothing,
};

pub const UNINSTALL: Scenario = Scenario {
    args: CLEANUP,
    before: || installed(bridge(), CLEANUP),
    then: Then::Uninstall,
};

const CLEANUP: &[&str] = &["--cleanup-on-exit=always", "--cleanup-binaries"];

#[test]
fn killed_in_fresh_install() {
    FRESH.survives_kills();
}

#[test]
fn killed_while_conf_is_converted() {
    CONVERSION.survives_kills();
}

#[test]
fn killed_in_token_rotation() {
    let scenario = Scenario {
        args: &[],
        before: || installed(calico(), &[]),
        then: Then::Change(
            |node| node.rotate_token("second.token.y"),
            |node| node.read(KUBECONFIG).contains("second.token.y"),
        ),
    };
    scenario.survives_kills();
}

#[test]
fn killed_while_earlier_implementation_is_replaced() {
    REPLACEMENT.survives_kills();
}

#[test]
fn killed_in_upgrade() {
    let scenario = Scenario {
        args: &[],
        before: older,
        then: Then::Nothing,
    };
    scenario.survives_kills();
}

#[test]
fn killed_while_entry_moves_to_new_first_file() {
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
    scenario.survives_kills();
}

#[test]
fn killed_while_uninstalling() {
    let scenario = Scenario {
        args: CLEANUP,
        before: || installed(calico(), CLEANUP),
        then: Then::Uninstall,
    };
    scenario.survives_kills();
}

#[test]
fn killed_while_conf_is_restored() {
    UNINSTALL.survives_kills();
}

#[test]
fn killed_in_stand_alone_install() {
    let scenario = Scenario {
        args: &["--chained-cni-plugin=false"],
        before: calico,
        then: Then::Nothing,
    };
    scenario.survives_kills();
}

#[test]
fn killed_in_stand_alone_install_without_network() {
    let scenario = Scenario {
        args: &["--chained-cni-plugin=false"],
        before: Node::new,
        then: Then::Nothing,
    };
    scenario.survives_kills();
}

/// Runs `work` for every item, on all CPUs.
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

/// An undisturbed run of a scenario, with which other runs are compared.
pub struct Reference {
    pub calls: Vec<Call>,
    /// The states that files may be in.
    pub stages: Vec<Tree>,
    pub after: Tree,
}

impl Scenario {
    fn survives_kills(&self) {
        if cannot_run(&["strace"]) {
            return;
        }
        let reference = self.reference();
        let points: Vec<&Call> = reference
            .calls
            .iter()
            .filter(|call| call.changes_the_disk())
            .collect();
        for_each(&points, |call| self.survives_kill_at(call, &reference));
        assert!(points.len() > 5, "{:#?}", reference.calls);
    }

    pub fn node(&self) -> Node {
        (self.before)()
    }

    /// Runs the scenario undisturbed.
    pub fn reference(&self) -> Reference {
        let node = self.node();
        let mut stages = vec![Tree::of(&node)];
        if let Then::Change(change, _) = self.then {
            change(&node);
            stages.push(Tree::of(&node));
        }
        let node = self.node();
        let mut traced = Traced::start_with(&node, self.args, None);
        assert!(self.complete(&mut traced.installer), "{}", node.tree());
        let calls = traced.all_calls();
        let after = Tree::of(&node);
        assert!(after.temporaries().is_empty(), "{after:#?}");
        stages.push(after.clone());
        Reference {
            calls,
            stages,
            after,
        }
    }

    /// Runs the scenario to its end; returns false if the installer exits before.
    pub fn complete(&self, installer: &mut Installer) -> bool {
        if !installer.lives_until("ready", Installer::is_ready) {
            return false;
        }
        match self.then {
            Then::Nothing => true,
            Then::Change(change, is_done) => {
                change(installer.node);
                installer.lives_until("the reaction", |it| is_done(it.node) && it.is_ready())
            }
            Then::Uninstall => {
                installer.signal(Signal::SIGTERM);
                installer.wait() == Some(0)
            }
        }
    }

    fn survives_kill_at(&self, call: &Call, reference: &Reference) {
        let context = format!(
            "killed at {} number {}: {}",
            call.name, call.number, call.rest
        );
        let node = self.node();
        let injection = call.expression("signal=SIGKILL", 1);
        let mut traced = Traced::start_with(&node, self.args, Some(&injection));
        let survived = self.complete(&mut traced.installer);
        // The number of reconciles, and so of opened files, varies.
        assert!(!survived || call.name.starts_with("open"), "not {context}");
        drop(traced);

        let tree = Tree::of(&node);
        tree.is_made_of(&reference.stages.iter().collect::<Vec<_>>(), &context);
        reference.has_working_network(&tree, &context);

        let mut installer = node.start(self.args);
        match self.then {
            Then::Uninstall => assert!(self.complete(&mut installer), "{context}"),
            _ => installer.becomes_ready(),
        }
        let log = installer.log();
        drop(installer);
        let tree = Tree::of(&node);
        assert!(
            tree == reference.after,
            "{context}: the next run left {tree:#?}\ninstead of {:#?}\n{log}",
            reference.after
        );
    }
}

impl Reference {
    /// A runtime loads the network of one of the stages, and the plugin and kubeconfig that an
    /// entry needs are complete.
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
            assert!(
                is_whole(path),
                "{context}: {path} is missing or incomplete\n{tree:#?}"
            );
        }
    }
}
