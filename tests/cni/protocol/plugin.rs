//! A request that lacks nothing, for tests to spoil, and what an error has to look like.

use std::process::Command;

use msm_testkit::applet;
use msm_testkit::command::{Outcome, run_with_input};
use serde_json::{Value, json};

pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
/// Results can be handed on inside of one.
pub const FAMILIES: [&[&str]; 3] = [
    &["0.1.0", "0.2.0"],
    &["0.3.0", "0.3.1", "0.4.0"],
    &["1.0.0", "1.1.0"],
];

/// A request of a pod in a namespace that `configuration` excludes.
pub fn plugin(verb: &str) -> Command {
    let mut plugin = applet("msm-cni");
    plugin
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "0a1b2c")
        .env("CNI_NETNS", "/run/netns/gone")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=media;K8S_POD_NAME=camera");
    plugin
}

pub fn configuration(version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "k8s-pod-network", "type": "msm-cni",
        "kubernetes": {"kubeConfig": "/nowhere", "excludeNamespaces": ["media"]},
        "prevResult": {"cniVersion": version},
    })
}

/// The same with a previous result as it is written.
pub fn with_result(version: &str, result: &str) -> String {
    let mut configuration = configuration(version);
    configuration["prevResult"] = json!("RESULT");
    configuration.to_string().replace("\"RESULT\"", result)
}

pub fn ask(verb: &str, input: &(impl AsRef<[u8]> + ?Sized)) -> Outcome {
    run_with_input(&mut plugin(verb), input)
}

/// The plugin ended with 1 and one error document, that of `code` with `text` in it.
#[track_caller]
pub fn assert_error(outcome: Outcome, code: u64, text: &str) -> Value {
    let outcome = outcome.exited(1);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let keys: Vec<&String> = error
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["cniVersion", "code", "details", "msg"], "{outcome}");
    assert_eq!(error["code"], code, "{outcome}");
    let version = error["cniVersion"].as_str().unwrap_or_default();
    assert!(VERSIONS.contains(&version), "{outcome}");
    let said = format!("{} {}", text_of(&error["msg"]), text_of(&error["details"]));
    assert!(said.contains(text), "{text:?} is missing\n{outcome}");
    assert!(!said.contains("sesame"), "a secret is told\n{outcome}");
    assert!(said.len() < 2000, "too long to read\n{outcome}");
    error
}

fn text_of(value: &Value) -> &str {
    value.as_str().expect("a text")
}
