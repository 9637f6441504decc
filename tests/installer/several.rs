//! Several installers on one node, as in an update that starts the new one before the old one
//! ends: each has a token of its own, perhaps another executable and another entry.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::executable;
use msm_testkit::node::{BIN_DIR, CALICO, CONF, Installer, KUBECONFIG, Node};
use nix::sys::signal::Signal;

use crate::tree::Tree;

const LATER: &str = "an installer that was started later is in charge";

/// The same node as another pod sees it.
fn other_pod(node: &Node, token: &str) -> Node {
    let other = Node::new();
    other.rotate_token(token);
    fs::remove_dir_all(other.path("host")).unwrap();
    symlink(node.path("host"), other.path("host")).unwrap();
    other
}

/// Fails the test unless nothing changes for a while.
#[track_caller]
fn is_quiet(node: &Node) {
    let stamps = node.stamps();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        assert_eq!(node.stamps(), stamps, "{}", node.tree());
        thread::yield_now();
    }
}

/// Another version of the executable.
fn other_version(node: &Node) -> PathBuf {
    let path = node.path("other-version");
    let mut bytes = fs::read(executable()).unwrap();
    bytes.push(b'\n');
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn start_version<'a>(executable: &Path, node: &'a Node, args: &[&str]) -> Installer<'a> {
    let (command, health) = node.command(args);
    let mut other = Command::new(executable);
    other.arg0("installer").args(command.get_args());
    let vars = command.get_envs();
    other.envs(vars.filter_map(|(name, value)| Some((name, value?))));
    Installer::start(node, other, health)
}

#[test]
fn the_one_that_starts_last_is_in_charge_until_it_is_gone() {
    let node = Node::with_conf(CONF, CALICO);
    for token in ["second.token.y", "first.token.x"] {
        let other = other_pod(&node, token);
        let old = node.installed(&[]);
        let new = other.installed(&[]);
        old.becomes_unready(LATER);
        assert!(node.read(KUBECONFIG).contains(token));
        is_quiet(&node);
        node.rotate_token("third.token.z");
        other.rotate_token("fourth.token.u");
        new.wait_until("the new token", || {
            node.read(KUBECONFIG).contains("fourth.token.u")
        });
        is_quiet(&node);
        assert!(new.is_ready(), "{}", new.log());
        assert_eq!(new.mended(), 0, "{}", new.log());

        let (_, log, _) = new.end(Signal::SIGKILL);
        assert_eq!(log.matches("ready: ").count(), 1, "{log}");
        old.becomes_ready();
        assert!(node.read(KUBECONFIG).contains("third.token.z"));
        let (_, log, _) = old.end(Signal::SIGTERM);
        assert_eq!(log.matches(LATER).count(), 1, "{log}");
        node.rotate_token("first.token.x");
    }
}

#[test]
fn one_that_is_not_in_charge_leaves_everything_to_the_other() {
    let node = Node::with_conf(CONF, CALICO);
    let other = other_pod(&node, "second.token.y");
    let old = node.installed(&["--cleanup-on-exit=always", "--cleanup-binaries"]);
    let new = other.installed(&[]);
    old.becomes_unready(LATER);
    let stamps = node.stamps();
    let (code, log, _) = old.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(log.contains("another installer is in charge"), "{log}");
    assert_eq!(node.stamps(), stamps, "{log}");
    assert!(new.is_ready());
}

#[test]
fn an_update_to_another_version_ends_quietly_while_the_old_one_runs() {
    let node = Node::with_conf(CONF, CALICO);
    let other = other_pod(&node, "second.token.y");
    let old = start_version(&other_version(&node), &node, &["--log-level=debug"]);
    old.becomes_ready();
    let new = other.installed(&["--log-level=warn"]);
    old.becomes_unready(LATER);
    // It may have put its own back before it noticed.
    let path = node.path(BIN_DIR).join("msm");
    new.wait_until("the new executable", || {
        fs::read(&path).unwrap() == fs::read(executable()).unwrap()
            && Tree::of(&node).temporaries().is_empty()
    });
    is_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
    belongs_to_the_new_one(&node);
    let (code, _, _) = old.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    is_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
    assert!(new.mended() <= 2, "{}", new.log());
}

fn belongs_to_the_new_one(node: &Node) {
    let installed = fs::read(node.path(BIN_DIR).join("msm")).unwrap();
    assert!(installed == fs::read(executable()).unwrap());
    assert!(node.read(KUBECONFIG).contains("second.token.y"));
    assert!(node.conf(CONF).contains("\"warn\""), "{}", node.tree());
}

#[test]
fn two_that_start_at_once_agree() {
    for round in 0..3 {
        let node = Node::with_conf(CONF, CALICO);
        let other = other_pod(&node, "second.token.y");
        let one = start_version(&other_version(&node), &node, &["--log-level=debug"]);
        let two = other.start(&["--log-level=warn"]);
        let looks_on = |it: &Installer| it.ready().is_some_and(|(_, body)| body.contains(LATER));
        let is_settled =
            || (one.is_ready() && looks_on(&two)) || (looks_on(&one) && two.is_ready());
        one.wait_until("one of them is in charge", is_settled);
        is_quiet(&node);
        one.wait_until("one of them is in charge still", is_settled);
        if two.is_ready() {
            belongs_to_the_new_one(&node);
        } else {
            let installed = fs::read(node.path(BIN_DIR).join("msm")).unwrap();
            assert!(installed != fs::read(executable()).unwrap(), "{round}");
            assert!(node.read(KUBECONFIG).contains("first.token.x"));
            assert!(node.conf(CONF).contains("\"debug\""), "{}", node.tree());
        }
        let tree = Tree::of(&node);
        assert!(tree.temporaries().is_empty(), "{tree:#?}");
        for installer in [&one, &two] {
            let writes = installer.logged("info: wrote") + installer.logged("info: copied");
            assert!(writes < 12, "{}", installer.log());
        }
    }
}

#[test]
fn a_restarted_container_takes_over_from_the_one_that_has_not_ended_yet() {
    let node = Node::with_conf(CONF, CALICO);
    let old = node.installed(&[]);
    let new = node.installed(&[]);
    old.becomes_unready(LATER);
    is_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
}
