//! The log: one line per change with its reason, in both formats. Every test of the installer
//! also checks that the log holds no token.

use msm_testkit::node::{CALICO, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Runs an installer from start to uninstall. Returns the log without the scratch path.
fn log_of_a_run(format: &str) -> String {
    let node = Node::new();
    let installer = node.start(&["--log-type", format, "--cleanup-on-exit=always"]);
    installer.becomes_unready("no valid network configuration");
    installer.at_once(|| node.write(CONF_PATH, CALICO));
    installer.becomes_ready();
    node.rotate_token("rotated.token.x");
    installer.wait_until("the new token", || {
        node.read(KUBECONFIG).contains("rotated.token.x")
    });
    // Wakes the installer and changes nothing that it manages.
    node.write(&format!("{NET_DIR}/README"), "");
    installer.signal(Signal::SIGHUP);
    installer.at_once(|| node.write(CONF_PATH, CALICO));
    installer.wait_until("the repair", || installer.repairs() == 1);
    let address = installer.health().to_string();
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    log.replace(node.root().to_str().unwrap(), "")
        .replace(&address, "ADDRESS")
}

const LOG: &str = "\
info: msm-cni VERSION manages /host/opt/cni/bin and /host/etc/cni/net.d; serving health on ADDRESS
info: copied the executable to /host/opt/cni/bin/msm: it was missing
info: linked /host/opt/cni/bin/msm-cni to msm: it was missing
info: linked /host/opt/cni/bin/msm-iptables to msm: it was missing
info: wrote /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig with mode 0600: it was missing
warn: not ready: /host/etc/cni/net.d contains no valid network configuration yet; waiting for the node's network plugin to write it
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: the plugin entry was missing
info: ready: this node is in the desired state
info: wrote /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig with mode 0600: token, CA bundle or API server address changed
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: the plugin entry was missing
info: SIGTERM: uninstalling: --cleanup-on-exit is always
info: wrote /host/etc/cni/net.d/10-calico.conflist with mode 0644: uninstalling
info: removed /host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig: uninstalling
";

#[test]
fn log_has_one_line_per_change() {
    assert_eq!(
        log_of_a_run("text"),
        LOG.replace("VERSION", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn json_log_has_the_same_lines() {
    let lines = log_of_a_run("json");
    let lines = lines.lines().map(|line| {
        let object: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| object[name].as_str().unwrap().to_owned();
        field("level") + ": " + &field("message") + "\n"
    });
    let text: String = lines.collect();
    assert_eq!(text, LOG.replace("VERSION", env!("CARGO_PKG_VERSION")));
}

#[test]
fn control_characters_in_file_names_are_replaced() {
    let node = Node::new();
    node.write(
        &format!("{NET_DIR}/00-\ninfo: ready\x1b[2J.conf"),
        "garbage",
    );
    let installer = node.start(&[]);
    installer.becomes_unready("no valid network configuration");
    let (_, log) = installer.end(Signal::SIGTERM);
    assert!(
        log.contains("00-\u{fffd}info: ready\u{fffd}[2J.conf"),
        "{log}"
    );
    assert!(!log.contains("\ninfo: ready"), "{log}");
}
