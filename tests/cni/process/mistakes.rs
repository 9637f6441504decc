//! A mistake in the program, met by the executable that ships: a thread that cannot be
//! started is one that a library of ours does not expect.

use msm_testkit::cannot_run;
use msm_testkit::cluster::{Cluster, LABELLED, request};
use msm_testkit::command::{Outcome, run_with_input};
use msm_testkit::netns::Namespace;
use serde_json::{Value, json};

use super::plugin::{document, under};

/// Looking a name up needs a thread.
fn by_name() -> Value {
    json!({"kubernetes": {"kubernetesAPIRoot": "https://localhost:1"}})
}

/// ADD on a kernel that starts no threads, with its streams redirected by the shell.
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
fn a_panic_is_one_error_with_its_place() {
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
fn a_panic_that_nobody_is_told_of_is_no_success() {
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
