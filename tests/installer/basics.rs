//! A new node: the files that exist once the installer is ready, and that they are kept.

use msm_testkit::node::{BIN_DIR, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;

const CALICO: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "mtu": 12345678901234567890
    },
    {"type": "portmap", "snat": true}
  ]
}
"#;

#[test]
fn new_node_gets_all_files_and_keeps_them() {
    let node = Node::with_conf("10-calico.conflist", CALICO);
    let installer = node.installed(&[]);
    let conf = node.conf("10-calico.conflist");
    let (before, after) = CALICO.split_at(CALICO.find("\n  ]").unwrap());
    assert!(
        conf.starts_with(before) && conf.ends_with(after),
        "bytes of other components changed:\n{conf}"
    );
    let value: serde_json::Value = serde_json::from_str(&conf).unwrap();
    assert_eq!(value["plugins"][2]["type"], "msm-cni");
    assert!(node.read(KUBECONFIG).contains("first.token.x"));
    for applet in ["msm-cni", "msm-iptables"] {
        let link = std::fs::read_link(node.path(BIN_DIR).join(applet)).unwrap();
        assert_eq!(link.to_str(), Some("msm"));
    }
    let tree = node.tree();
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.tree(), tree, "{log}");
}

#[test]
fn installer_waits_for_a_network_and_creates_none() {
    let node = Node::new();
    let installer = node.start(&[]);
    installer.becomes_unready("no valid network configuration");
    let names = std::fs::read_dir(node.path(NET_DIR)).unwrap().count();
    assert_eq!(names, 1, "only the kubeconfig is expected\n{}", node.tree());
    node.write(&format!("{NET_DIR}/10-calico.conflist"), CALICO);
    installer.becomes_ready();
}
