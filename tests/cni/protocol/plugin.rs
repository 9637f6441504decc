//! A complete request for tests to modify, and the checks of an error reply.

use std::process::Command;

use msm_testkit::applet;
use msm_testkit::command::{Outcome, run_with_input};
use serde_json::{Value, json};

pub const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
/// Versions with the same result format, within which results are relayed.
pub const RESULT_FORMATS: [&[&str]; 3] = [
    &["0.1.0", "0.2.0"],
    &["0.3.0", "0.3.1", "0.4.0"],
    &["1.0.0", "1.1.0"],
];

/// A request for a pod in a namespace that `configuration` excludes.
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

/// A configuration that contains `result`, unchanged, as previous result.
pub fn with_result(version: &str, result: &str) -> String {
    let mut configuration = configuration(version);
    configuration["prevResult"] = json!("RESULT");
    configuration.to_string().replace("\"RESULT\"", result)
}

pub fn ask(verb: &str, input: &(impl AsRef<[u8]> + ?Sized)) -> Outcome {
    run_with_input(&mut plugin(verb), input)
}

/// Checks that the plugin exited with 1 and wrote one error document, which has this code and
/// contains `text`. Returns the document.
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
    let message = format!("{} {}", string(&error["msg"]), string(&error["details"]));
    assert!(message.contains(text), "no {text:?} in\n{outcome}");
    assert!(!message.contains("sesame"), "secret quoted\n{outcome}");
    assert!(message.len() < 2000, "message too long\n{outcome}");
    error
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// A kubeconfig for this API server, with a token.
pub fn kubeconfig(server: &str) -> Value {
    json!({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": "sesame"}}],
    })
}
