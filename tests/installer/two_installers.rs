//! Two installers on one node, as in a surge update: each has its own token, and perhaps another
//! executable and another entry.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::executable;
use msm_testkit::executables::write_other_version;
use msm_testkit::installer::Installer;
use msm_testkit::node::{BIN_DIR, CALICO, CONF, KUBECONFIG, Node};
use nix::sys::signal::Signal;

use crate::tree::Tree;

const STANDBY: &str = "an installer that started later owns this node";

/// The same host as another pod sees it.
fn other_pod(node: &Node, token: &str) -> Node {
    let other = Node::new();
    other.rotate_token(token);
    fs::remove_dir_all(other.path("host")).unwrap();
    symlink(node.path("host"), other.path("host")).unwrap();
    other
}

/// Asserts that no file changes for one second.
#[track_caller]
fn assert_quiet(node: &Node) {
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
    write_other_version(&path);
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
fn newer_installer_owns_the_node_until_it_exits() {
    let node = Node::with_conf(CONF, CALICO);
    for token in ["second.token.y", "first.token.x"] {
        let other = other_pod(&node, token);
        let old = node.installed(&[]);
        let new = other.installed(&[]);
        old.becomes_unready(STANDBY);
        assert!(node.read(KUBECONFIG).contains(token));
        assert_quiet(&node);
        node.rotate_token("third.token.z");
        other.rotate_token("fourth.token.u");
        new.wait_until("the new token", || {
            node.read(KUBECONFIG).contains("fourth.token.u")
        });
        assert_quiet(&node);
        assert!(new.is_ready(), "{}", new.log());
        assert_eq!(new.repairs(), 0, "{}", new.log());

        let (_, log) = new.end(Signal::SIGKILL);
        assert_eq!(log.matches("ready: ").count(), 1, "{log}");
        old.becomes_ready();
        assert!(node.read(KUBECONFIG).contains("third.token.z"));
        let (_, log) = old.end(Signal::SIGTERM);
        assert_eq!(log.matches(STANDBY).count(), 1, "{log}");
        node.rotate_token("first.token.x");
    }
}

#[test]
fn installer_on_standby_does_not_uninstall() {
    let node = Node::with_conf(CONF, CALICO);
    let other = other_pod(&node, "second.token.y");
    let old = node.installed(&["--cleanup-on-exit=always", "--cleanup-binaries"]);
    let new = other.installed(&[]);
    old.becomes_unready(STANDBY);
    let stamps = node.stamps();
    let (code, log) = old.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(
        log.contains("leaving the installation in place: another installer owns this node"),
        "{log}"
    );
    assert_eq!(node.stamps(), stamps, "{log}");
    assert!(new.is_ready());
}

#[test]
fn update_to_another_version_settles_while_the_old_installer_runs() {
    let node = Node::with_conf(CONF, CALICO);
    let other = other_pod(&node, "second.token.y");
    let old = start_version(&other_version(&node), &node, &["--log-level=debug"]);
    old.becomes_ready();
    let new = other.installed(&["--log-level=warn"]);
    old.becomes_unready(STANDBY);
    // The old installer may have restored its executable before it noticed the new one.
    let path = node.path(BIN_DIR).join("msm");
    new.wait_until("the new executable", || {
        fs::read(&path).unwrap() == fs::read(executable()).unwrap()
            && Tree::of(&node).temporaries().is_empty()
    });
    assert_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
    assert_files_of_the_new_installer(&node);
    let (code, _) = old.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
    assert!(new.repairs() <= 2, "{}", new.log());
}

fn assert_files_of_the_new_installer(node: &Node) {
    let installed = fs::read(node.path(BIN_DIR).join("msm")).unwrap();
    assert!(installed == fs::read(executable()).unwrap());
    assert!(node.read(KUBECONFIG).contains("second.token.y"));
    assert!(node.conf(CONF).contains("\"warn\""), "{}", node.tree());
}

#[test]
fn installers_that_start_together_agree_on_one_owner() {
    for round in 0..3 {
        let node = Node::with_conf(CONF, CALICO);
        let other = other_pod(&node, "second.token.y");
        let one = start_version(&other_version(&node), &node, &["--log-level=debug"]);
        let two = other.start(&["--log-level=warn"]);
        let is_on_standby =
            |it: &Installer| it.ready().is_some_and(|(_, body)| body.contains(STANDBY));
        let is_settled =
            || (one.is_ready() && is_on_standby(&two)) || (is_on_standby(&one) && two.is_ready());
        one.wait_until("one of them owns the node", is_settled);
        assert_quiet(&node);
        one.wait_until("one of them still owns the node", is_settled);
        if two.is_ready() {
            assert_files_of_the_new_installer(&node);
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
fn restarted_container_takes_over_from_one_that_has_not_exited() {
    let node = Node::with_conf(CONF, CALICO);
    let old = node.installed(&[]);
    let new = node.installed(&[]);
    old.becomes_unready(STANDBY);
    assert_quiet(&node);
    assert!(new.is_ready(), "{}", new.log());
}
