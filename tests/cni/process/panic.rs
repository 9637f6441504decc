//! A panic in the shipped executable: a dependency panics if it cannot start a thread.

use msm_testkit::cannot_run;
use msm_testkit::cluster::{Cluster, LABELLED, request};
use msm_testkit::command::{Outcome, run_with_input};
use msm_testkit::netns::Namespace;
use serde_json::{Value, json};

use super::helpers::{document, under};

/// Resolving a host name needs a thread.
fn by_name() -> Value {
    json!({"kubernetes": {"kubernetesAPIRoot": "https://localhost:1"}})
}

/// Runs ADD on a kernel that cannot start threads, with the redirections of a shell.
fn add_without_threads(redirections: &str) -> Outcome {
    let (cluster, sandbox) = (Cluster::new(LABELLED, &[]), Namespace::new());
    let script = format!("exec \"$@\" {redirections}");
    let wrapper = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=clone,clone3:error=EAGAIN",
        "sh",
        "-c",
        &script,
        "sh",
    ];
    let mut plugin = request(under(&wrapper, "msm-cni"), "ADD", &sandbox.path());
    run_with_input(&mut plugin, &cluster.configuration(&by_name()).to_string())
}

#[test]
fn panic_is_one_error_document_with_its_place() {
    if cannot_run(&["strace"]) {
        return;
    }
    let outcome = add_without_threads("").exited(1);
    let error = document(&outcome);
    assert_eq!(error["code"], 999, "{outcome}");
    assert!(
        error["details"].as_str().unwrap().starts_with("panic at "),
        "{outcome}"
    );
}

#[test]
fn panic_with_closed_streams_is_a_failure() {
    if cannot_run(&["strace"]) {
        return;
    }
    for redirections in [">&-", ">/dev/full", "1</dev/null"] {
        add_without_threads(redirections)
            .exited(1)
            .complains_about("panic at ");
    }
    for redirections in [">&- 2>&-", ">/dev/full 2>/dev/full"] {
        add_without_threads(redirections).exited(1);
    }
}
