//! Command line and environment. An invalid setting exits with 2 before anything is changed; the
//! error names the flag or variable and its value.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use msm_testkit::applet;
use msm_testkit::command::run;
use msm_testkit::installer::Installer;
use msm_testkit::node::{CALICO, CONF, Node};

/// Every flag, and invalid values.
const INVALID: [(&str, &[&str]); 18] = [
    ("cni-net-dir", &["", "etc/cni", "."]),
    ("mounted-cni-net-dir", &["", "net.d"]),
    (
        "cni-conf-name",
        &["a/b.conf", "..", "10-x.yaml", ".conf", "x"],
    ),
    ("chained-cni-plugin", &["", "yes", "2", "tRUE"]),
    (
        "cni-network-config",
        &[
            "{",
            "[]",
            "null",
            "{\"type\": \"bridge\"}",
            "{\"type\": 1}",
            "x",
        ],
    ),
    (
        "cni-network-config-file",
        &[
            "template",
            "/nowhere",
            "/empty",
            "/directory",
            "/garbage",
            "/bridge",
        ],
    ),
    ("log-level", &["", "loud", "1"]),
    ("log-type", &["", "xml", "JSON"]),
    (
        "kubecfg-file-name",
        &["", "a/b", ".hidden", "..", "x.conf", "x.conflist", "x.json"],
    ),
    (
        "kubeconfig-mode",
        &[
            "",
            "0644",
            "644",
            "604",
            "0601",
            "0800",
            "rw",
            "-600",
            "+600",
            "0o600",
            "0x180",
            "07600",
            "1600",
            "0200",
            "0",
            "99999999999999999999",
        ],
    ),
    ("kube-ca-file", &["", "ca.crt"]),
    ("skip-tls-verify", &["", "no", "01"]),
    ("update-cni-binaries", &["on"]),
    (
        "skip-cni-binaries",
        &["calico", "msm-cni;msm-iptables", "msm"],
    ),
    ("cleanup-on-exit", &["", "true", "Always", "sometimes"]),
    ("cleanup-binaries", &["off"]),
    (
        "health-address",
        &[
            "",
            "0",
            ":0",
            "65536",
            ":x",
            "localhost:8000",
            "1.2.3.4",
            "1.2.3.4:",
            "1.2.3.4:0",
            "::1:8000",
            "[::]:0",
            "8000 ",
        ],
    ),
    ("root", &["", "relative"]),
];

fn node() -> Node {
    let node = Node::with_conf(CONF, CALICO);
    node.write("empty", "");
    node.write("garbage", "no template");
    node.write("bridge", "{\"type\": \"bridge\"}");
    fs::create_dir(node.path("directory")).unwrap();
    node
}

/// Fails the test unless the command changes nothing and its error names setting and value.
#[track_caller]
fn assert_refused(node: &Node, command: &mut Command, setting: &str, value: &str) {
    let before = node.tree();
    let outcome = run(command).exited(2).complains_about(setting);
    assert_eq!(node.tree(), before, "{outcome}");
    assert_eq!(outcome.stdout, "", "{outcome}");
    // A template is too long for an error, and may hold secrets.
    let flag = setting.to_lowercase().replace('_', "-");
    if !flag.contains("cni-network-config") {
        outcome.complains_about(&format!("{value:?}"));
    }
}

#[test]
fn invalid_flag_is_named_with_its_value() {
    let node = node();
    for (flag, values) in INVALID {
        for value in values {
            let (mut command, _) = node.command(&[&format!("--{flag}={value}")]);
            assert_refused(&node, &mut command, &format!("--{flag}"), value);
        }
    }
}

#[test]
fn invalid_variable_is_named_with_its_value() {
    let node = node();
    // An empty variable is unset, and --root has no variable.
    let settings = INVALID
        .iter()
        .filter(|(flag, _)| !["root", "health-address"].contains(flag));
    for (flag, values) in settings {
        let variable = flag.to_uppercase().replace('-', "_");
        for value in values.iter().filter(|value| !value.is_empty()) {
            let (mut command, _) = node.command(&[]);
            command.env(&variable, value);
            assert_refused(&node, &mut command, &variable, value);
        }
    }
    let mut command = applet("installer");
    command
        .env("KUBERNETES_SERVICE_HOST", "10.96.0.1")
        .env("KUBERNETES_SERVICE_PORT", "443")
        .env("HEALTH_ADDRESS", "x");
    assert_refused(&node, &mut command, "HEALTH_ADDRESS", "x");
}

#[test]
fn invalid_api_server_address_is_named() {
    let node = node();
    for (variable, value) in [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.256"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1:443"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1/x"),
        ("KUBERNETES_SERVICE_HOST", "https://10.96.0.1"),
        ("KUBERNETES_SERVICE_HOST", "me@10.96.0.1"),
        ("KUBERNETES_SERVICE_HOST", "[::1"),
        ("KUBERNETES_SERVICE_HOST", "a b"),
        ("KUBERNETES_SERVICE_PORT", "0"),
        ("KUBERNETES_SERVICE_PORT", "65536"),
        ("KUBERNETES_SERVICE_PORT", "443/x"),
        ("KUBERNETES_SERVICE_PORT", "tcp://10.96.0.1:443"),
        ("KUBERNETES_SERVICE_PORT", "https"),
        ("KUBERNETES_SERVICE_PROTOCOL", "http"),
        ("KUBERNETES_SERVICE_PROTOCOL", "httpss"),
    ] {
        let (mut command, _) = node.command(&[]);
        command.env(variable, value);
        assert_refused(&node, &mut command, variable, value);
    }
    for variable in ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"] {
        let (mut unset, _) = node.command(&[]);
        unset.env_remove(variable);
        let (mut empty, _) = node.command(&[]);
        empty.env(variable, "");
        for command in [&mut unset, &mut empty] {
            let outcome = run(command).exited(2);
            outcome.complains_about(&format!("{variable} is not set"));
        }
    }
}

#[test]
fn value_that_is_not_utf8_is_refused_if_it_is_used() {
    let node = node();
    let bytes = OsStr::from_bytes(b"\xff");
    for variable in [
        "LOG_LEVEL",
        "KUBERNETES_NODE_NAME",
        "KUBERNETES_SERVICE_HOST",
        "POD_NAME",
    ] {
        let (mut command, _) = node.command(&[]);
        command.env("POD_NAMESPACE", "msm").env(variable, bytes);
        run(&mut command)
            .exited(2)
            .complains_about(&format!("{variable} is not UTF-8: \"\\xFF\""));
    }
    let (mut command, _) = node.command(&[]);
    run(command.arg("--log-level").arg(bytes))
        .exited(2)
        .complains_about("utf-8");
    let (mut command, health) = node.command(&[]);
    command.env("OTHER", bytes).env(bytes, "x");
    Installer::start(&node, command, health).becomes_ready();
}

#[test]
fn unknown_argument_is_a_usage_error() {
    let node = node();
    for args in [
        &["--no-such-flag"][..],
        &["argument"],
        &["--log-level"],
        &["--skip-tls-verify", "true"],
    ] {
        let (mut command, _) = node.command(args);
        run(&mut command).exited(2).complains_about("error");
    }
}

#[test]
fn help_lists_every_flag_and_its_default() {
    for args in [&["--help"][..], &["-h"], &["--help", "--log-level=loud"]] {
        let outcome = run(applet("installer").args(args)).succeeded();
        for (flag, _) in INVALID {
            assert!(
                outcome.stdout.contains(&format!("--{flag}")),
                "{flag}\n{outcome}"
            );
        }
        for text in [
            "[default: /etc/cni/net.d]",
            "[default: 0600]",
            "[default: auto]",
            "[default: :8000]",
        ] {
            assert!(outcome.stdout.contains(text), "{text}\n{outcome}");
        }
        // No flag is missing in this table.
        let flags = outcome
            .stdout
            .lines()
            .filter(|line| line.trim_start().starts_with("--"));
        assert_eq!(flags.count(), INVALID.len(), "{outcome}");
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn long_help_explains_environment_signals_and_exit_status() {
    let help = run(applet("installer").arg("--help")).succeeded().stdout;
    for text in [
        "upper snake case",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_SERVICE_PORT",
        "KUBERNETES_SERVICE_PROTOCOL",
        "KUBERNETES_NODE_NAME",
        "POD_NAME",
        "POD_NAMESPACE",
        "__SERVICEACCOUNT_TOKEN__",
        "SIGHUP",
        "Exit status:",
    ] {
        assert!(help.contains(text), "{text}\n{help}");
    }
}

#[test]
fn applet_name_and_level_of_older_manifests_are_accepted() {
    let node = node();
    node.write(
        "template",
        r#"{"type": "msm-cni", "name": "m", "kubernetes": {"nodeName": "__KUBERNETES_NODE_NAME__", "kubeConfig": "__KUBECONFIG_FILEPATH__"}}"#,
    );
    let (mut command, health) = node.command(&["--cni-network-config-file", "/template"]);
    command
        .arg0("/usr/local/bin/install-cni")
        .env("CNI_NETWORK_CONFIG", "ignored, because a file is given")
        .env("CNI_NET_DIR", "/etc/cni/x.d")
        .env("CHAINED_CNI_PLUGIN", "")
        .env("KUBERNETES_NODE_NAME", "a \"b\"\\ \u{7}")
        .env("LOG_LEVEL", "WARNING");
    let installer = Installer::start(&node, command, health);
    installer.becomes_ready();
    let conf: serde_json::Value = serde_json::from_str(&node.conf(CONF)).unwrap();
    let entry = &conf["plugins"][2]["kubernetes"];
    assert_eq!(entry["nodeName"], "a \"b\"\\ \u{7}");
    assert_eq!(entry["kubeConfig"], "/etc/cni/x.d/ZZZ-msm-cni-kubeconfig");
    assert_eq!(installer.log(), "", "level info is not logged");
}
