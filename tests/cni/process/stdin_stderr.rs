//! Standard input without a configuration, and standard error that cannot be written.

use std::io::{PipeWriter, pipe};
use std::process::{Child, Stdio};

use msm_testkit::applet;
use msm_testkit::command::{run, run_with_input};
use nix::sys::signal::Signal;
use serde_json::json;

use super::helpers::{configuration, document, end, excluded, redirected, send, start};

#[test]
fn unusable_stdin_is_an_error_with_a_code() {
    for (redirections, codes) in [
        ("<&-", [6, 6]),
        ("</dev/null", [6, 6]),
        ("<>/dev/null", [6, 6]),
        // Write-only.
        ("0>/dev/null", [5, 6]),
        ("</", [5, 5]),
        ("</dev/zero", [6, 6]),
        ("<&- >&1 2>&-", [6, 6]),
    ] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS", "NEW"] {
            let mut plugin = excluded(redirected(redirections, "msm-cni"), verb);
            let outcome = run(&mut plugin).exited(1);
            let error = document(&outcome);
            assert!(codes.iter().any(|code| error["code"] == *code), "{outcome}");
            assert!(
                error["msg"].as_str().unwrap().contains("standard input"),
                "{outcome}"
            );
        }
        let mut plugin = excluded(redirected(redirections, "msm-cni"), "VERSION");
        let outcome = run(&mut plugin).succeeded();
        assert_eq!(document(&outcome)["cniVersion"], "1.1.0");
    }
}

#[test]
fn signal_ends_plugin_that_blocks_on_stdin() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (plugin, _open_stdin) = waiting();
        send(&plugin, signal);
        assert_eq!(end(plugin).0.code(), None, "{signal}");
    }
}

/// A plugin whose standard input stays open and empty.
fn waiting() -> (Child, PipeWriter) {
    let (stdin, input) = pipe().unwrap();
    let plugin = start(
        &mut excluded(applet("msm-cni"), "ADD"),
        stdin,
        Stdio::null(),
    );
    (plugin, input)
}

#[test]
fn unwritable_stderr_changes_no_reply() {
    let mut verbose = configuration(0);
    verbose["logLevel"] = json!("trace");
    let mut invalid = verbose.clone();
    invalid["redirect"] = json!({"ports": [0]});
    for redirections in [
        "2>&-",
        "2>/dev/full",
        "2</dev/null",
        "2</",
        "2<>/dev/null",
        "<&0 2>&-",
    ] {
        let ask = |input: &str| {
            let mut plugin = excluded(redirected(redirections, "msm-cni"), "ADD");
            run_with_input(&mut plugin, input)
        };
        let outcome = ask(&verbose.to_string()).succeeded();
        assert_eq!(document(&outcome), verbose["prevResult"]);
        let outcome = ask(&invalid.to_string()).exited(1);
        assert_eq!(document(&outcome)["code"], 7, "{outcome}");
    }
}

#[test]
fn logs_are_not_written_to_stdout() {
    let mut verbose = configuration(0);
    verbose["logLevel"] = json!("trace");
    let mut plugin = excluded(redirected("2>&1", "msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &verbose.to_string()).succeeded();
    assert!(outcome.stdout.starts_with("info: "), "no log\n{outcome}");
    let mut plugin = excluded(applet("msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &verbose.to_string()).succeeded();
    assert_eq!(document(&outcome), verbose["prevResult"]);
}
