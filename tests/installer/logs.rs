//! What is logged: each change once and why, so that the log alone explains what is on the
//! disk; in both formats. That no token is in it is looked at by every test of the installer.

use msm_testkit::node::{CALICO, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A life with a bit of everything; the log with the root taken out of it.
fn life(format: &str) -> String {
    let node = Node::new();
    let installer = node.start(&["--log-type", format, "--cleanup-on-exit=always"]);
    installer.becomes_unready("no valid network configuration");
    node.write(CONF_PATH, CALICO);
    installer.becomes_ready();
    node.rotate_token("rotated.token.x");
    installer.wait_until("the new token", || {
        node.read(KUBECONFIG).contains("rotated.token.x")
    });
    // Wakes it, and changes nothing.
    node.write(&format!("{NET_DIR}/README"), "");
    installer.signal(Signal::SIGHUP);
    node.write(CONF_PATH, CALICO);
    installer.wait_until("mended", || installer.mended() == 1);
    let address = installer.health().to_string();
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    log.replace(node.root().to_str().unwrap(), "")
        .replace(&address, "ADDRESS")
}

const LIFE: &str = "\
info: msm-cni VERSION keeps /host/opt/cni/bin and /host/etc/cni/net.d as they should be; health on ADDRESS
info: copied the executable to /host/opt/cni/bin/msm: it was missing
info: linked /host/opt/cni/bin/msm-cni to msm: it was missing
info: linked /host/opt/cni/bin/msm-iptables to msm: it was missing
info: wrote /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig with mode 0600: it was missing
warn: not ready: /host/etc/cni/net.d contains no valid network configuration yet; waiting for the node's network plugin to write it
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: the plugin entry was missing
info: ready: everything on this node is as it should be
info: wrote /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig with mode 0600: token, authority or address have changed
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: the plugin entry was missing
info: SIGTERM: what was installed goes: --cleanup-on-exit is always
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: msm-cni leaves this node
info: removed /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig: msm-cni leaves this node
info: removed /host/opt/cni/bin/msm-cni: msm-cni leaves this node
info: removed /host/opt/cni/bin/msm-iptables: msm-cni leaves this node
";

#[test]
fn every_change_is_a_line_and_every_line_is_a_change() {
    assert_eq!(
        life("text"),
        LIFE.replace("VERSION", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn with_json_every_line_is_an_object_that_says_the_same() {
    let lines = life("json");
    let lines = lines.lines().map(|line| {
        let object: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| object[name].as_str().unwrap().to_owned();
        field("level") + ": " + &field("message") + "\n"
    });
    let text: String = lines.collect();
    assert_eq!(text, LIFE.replace("VERSION", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_files_name_begins_no_line_of_its_own() {
    let node = Node::new();
    node.write(
        &format!("{NET_DIR}/00-\ninfo: ready\x1b[2J.conf"),
        "garbage",
    );
    let installer = node.start(&[]);
    installer.becomes_unready("no valid network configuration");
    let (_, log, _) = installer.end(Signal::SIGTERM);
    assert!(
        log.contains("00-\u{fffd}info: ready\u{fffd}[2J.conf"),
        "{log}"
    );
    assert!(!log.contains("\ninfo: ready"), "{log}");
}
