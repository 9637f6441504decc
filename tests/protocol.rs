//! The CNI protocol as a runtime sees it, from the specification's tables: verbs, versions,
//! streams, exit codes, and everything that can be wrong with them. No pod is redirected.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

#[cfg(test)]
#[expect(dead_code, reason = "no traffic is needed here")]
mod support;

use std::fs::File;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use support::applet;
use support::command::{Outcome, run, run_with_input};
use support::scratch::Scratch;

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
const POD: &str = "K8S_POD_NAMESPACE=media;K8S_POD_NAME=camera";

/// A request that is complete; its pod's namespace is excluded.
fn plugin(verb: &str) -> Command {
    let mut plugin = applet("msm-cni");
    plugin
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "0a1b2c")
        .env("CNI_NETNS", "/run/netns/gone")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", POD);
    plugin
}

fn configuration(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "k8s-pod-network", "type": "msm-cni",
        "kubernetes": {"kubeConfig": "/nowhere", "excludeNamespaces": ["media"]},
        "prevResult": {"cniVersion": version, "x-kept": [1.50, 12_345_678_901_234_567_890_u64]},
    })
}

fn ask(verb: &str, configuration: &Value) -> Outcome {
    run_with_input(&mut plugin(verb), &configuration.to_string())
}

#[track_caller]
fn assert_error(outcome: Outcome, code: u64, text: &str) {
    let outcome = outcome.exited(1);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    assert_eq!(error["code"], code, "{outcome}");
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(said.contains(text), "{text:?} is missing\n{outcome}");
    assert!(error["cniVersion"].is_string(), "{outcome}");
}

#[test]
fn version_answers_with_standard_input_open() {
    let (stdin, _held_open) = std::io::pipe().unwrap();
    let output = applet("msm-cni")
        .env("CNI_COMMAND", "VERSION")
        .stdin(stdin)
        .output()
        .unwrap();
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        answer,
        json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})
    );
}

#[test]
fn without_a_command_it_says_what_it_is_on_standard_error() {
    let outcome = run(&mut applet("msm-cni"))
        .succeeded()
        .complains_about("1.1.0");
    assert_eq!(outcome.stdout, "");
}

#[test]
fn every_verb_in_every_version() {
    for version in VERSIONS {
        let configuration = configuration(version);
        let outcome = ask("ADD", &configuration).succeeded();
        let answer: Value = serde_json::from_str(&outcome.stdout).expect("one JSON document");
        assert_eq!(answer, configuration["prevResult"], "{outcome}");
        assert_eq!(ask("DEL", &configuration).succeeded().stdout, "");
        for (verb, since) in [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0")] {
            let outcome = ask(verb, &configuration);
            match (verb, version < since) {
                (_, true) => assert_error(outcome, 1, since),
                // There is no such kubeconfig.
                ("STATUS", false) => assert_error(outcome, 50, "/nowhere"),
                (_, false) => assert_eq!(outcome.succeeded().stdout, ""),
            }
        }
        assert_error(ask("UPDATE", &configuration), 4, "UPDATE");
    }
    for version in ["1", "1.0", "1.0.1", "2.0.0", "v1.0.0", "latest"] {
        assert_error(ask("ADD", &configuration(version)), 1, version);
    }
}

#[test]
fn what_is_gone_cannot_stop_a_del() {
    for netns in [None, Some(""), Some("/run/netns/gone"), Some("/etc/passwd")] {
        let mut configuration = configuration("1.0.0");
        configuration["prevResult"] = json!("garbage");
        configuration["redirect"] = json!({"ports": "garbage"});
        let mut plugin = plugin("DEL");
        plugin.env("CNI_ARGS", "garbage").env_remove("CNI_NETNS");
        plugin.envs(netns.map(|netns| ("CNI_NETNS", netns)));
        run_with_input(&mut plugin, &configuration.to_string()).succeeded();
    }
}

#[test]
fn every_missing_variable_is_named_at_once() {
    let outcome = run(applet("msm-cni").env("CNI_COMMAND", "ADD"));
    let named = "CNI_CONTAINERID is missing; CNI_NETNS is missing; CNI_IFNAME is missing; CNI_PATH is missing";
    assert_error(outcome, 4, named);
}

#[test]
fn the_environment_is_checked_before_standard_input() {
    for (variable, value) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_IFNAME", "0123456789abcdef"),
        ("CNI_IFNAME", "a\u{2003}b"),
        ("CNI_ARGS", "K8S_POD_NAME"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c"),
    ] {
        let outcome = run_with_input(plugin("ADD").env(variable, value), "not JSON");
        assert_error(outcome, 4, variable);
    }
}

#[test]
fn standard_input_of_every_bad_kind_is_an_error() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let mut without_name = configuration("1.0.0");
    without_name.as_object_mut().unwrap().remove("name");
    for (input, code) in [
        (String::new(), 6),
        ("null".into(), 6),
        ("[]".into(), 6),
        ("{".into(), 6),
        ("{} {}".into(), 6),
        ("\u{feff}{}".into(), 6),
        ("\0{\0}\0".into(), 6),
        (nested(10_000), 6),
        (r#"{"name": 7}"#.into(), 6),
        (r#"{"name": "a", "cniVersion": 1}"#.into(), 6),
        (
            r#"{"name": "a", "cniVersion": "1.0.0", "kubernetes": []}"#.into(),
            6,
        ),
        (r#"{"name": "a", "cniVersion": "1.0.0"}"#.into(), 7),
        (r#"{"name": "a/b", "cniVersion": "1.0.0"}"#.into(), 7),
        (without_name.to_string(), 7),
    ] {
        let outcome = run_with_input(&mut plugin("ADD"), &input);
        assert_error(outcome, code, "");
    }
    let huge = format!("{{\"name\":\"{}\"}}", "a".repeat(17 << 20));
    assert_error(
        run_with_input(&mut plugin("ADD"), &huge),
        6,
        "larger than 16777216 bytes",
    );
}

#[test]
fn the_last_of_repeated_keys_counts() {
    let input = r#"{"cniVersion":"9.9.9","name":"/","cniVersion":"1.0.0","name":"n","kubernetes":{},
        "kubernetes":{"kubeConfig":"/k","EXCLUDENAMESPACES":["other"],"excludeNamespaces":["media"]}}"#;
    let outcome = run_with_input(&mut plugin("ADD"), input).succeeded();
    assert_eq!(outcome.stdout, "{\"cniVersion\":\"1.0.0\"}\n");
}

#[test]
fn results_cross_no_family() {
    let mut configuration = configuration("1.1.0");
    configuration["prevResult"]["cniVersion"] = json!("1.0.0");
    let answer: Value =
        serde_json::from_str(&ask("ADD", &configuration).succeeded().stdout).unwrap();
    assert_eq!(answer["cniVersion"], "1.1.0");
    configuration["prevResult"]["cniVersion"] = json!("0.4.0");
    assert_error(ask("ADD", &configuration), 1, "0.4.0");
}

#[test]
fn a_namespace_that_is_none_is_error_8() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    nix::unistd::mkfifo(&scratch.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let mut configuration = configuration("1.0.0");
    configuration["kubernetes"]["excludeNamespaces"] = json!([]);
    for netns in [
        path("file"),
        path("dangling"),
        path("fifo"),
        path("socket"),
        path("missing"),
        path(""),
        "/dev/null".into(),
        "/proc/self/ns/mnt".into(),
        "/proc/self/ns/net".into(),
    ] {
        let mut plugin = plugin("ADD");
        plugin.env("CNI_NETNS", &netns);
        assert_error(
            run_with_input(&mut plugin, &configuration.to_string()),
            8,
            "network namespace",
        );
    }
}

#[test]
fn an_answer_that_nobody_takes_is_a_failure() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut version = applet("msm-cni");
    version
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    assert_eq!(version.stdout(full).status().unwrap().code(), Some(1));
    let unwritable = File::open("/dev/null").unwrap();
    assert_eq!(version.stdout(unwritable).status().unwrap().code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(version.stdout(writer).status().unwrap().code(), Some(1));
}

#[test]
fn another_name_is_a_usage_error() {
    for name in ["msm", "msm-cn", "sh", ""] {
        let outcome = run(&mut applet(name)).exited(2);
        assert!(outcome.stderr.contains("msm-iptables"), "{outcome}");
    }
    run(applet("msm").arg("--help")).succeeded();
    run(&mut applet("installer"))
        .exited(1)
        .complains_about("not there yet");
}
