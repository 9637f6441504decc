//! Standard input that holds no configuration, and standard error that takes no log.

use std::io::{PipeWriter, pipe};
use std::process::{Child, Stdio};

use msm_testkit::applet;
use msm_testkit::command::{run, run_with_input};
use nix::sys::signal::Signal;
use serde_json::json;

use super::plugin::{configuration, document, end, excluded, redirected, send, start};

#[test]
fn standard_input_of_every_kind_is_an_error_with_a_code() {
    for (redirections, codes) in [
        ("<&-", [6, 6]),
        ("</dev/null", [6, 6]),
        ("<>/dev/null", [6, 6]),
        // It can only be written to.
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
fn whoever_waits_for_a_configuration_can_be_ended() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (plugin, _held_open) = waiting();
        send(&plugin, signal);
        assert_eq!(end(plugin).0.code(), None, "{signal}");
    }
}

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
fn standard_error_does_not_matter() {
    let mut talkative = configuration(0);
    talkative["logLevel"] = json!("trace");
    let mut wrong = talkative.clone();
    wrong["redirect"] = json!({"ports": [0]});
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
        let outcome = ask(&talkative.to_string()).succeeded();
        assert_eq!(document(&outcome), talkative["prevResult"]);
        let outcome = ask(&wrong.to_string()).exited(1);
        assert_eq!(document(&outcome)["code"], 7, "{outcome}");
    }
}

#[test]
fn logs_never_reach_the_answer() {
    let mut talkative = configuration(0);
    talkative["logLevel"] = json!("trace");
    let mut plugin = excluded(redirected("2>&1", "msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &talkative.to_string()).succeeded();
    assert!(
        outcome.stdout.starts_with("info: "),
        "nothing is logged\n{outcome}"
    );
    let mut plugin = excluded(applet("msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &talkative.to_string()).succeeded();
    assert_eq!(document(&outcome), talkative["prevResult"]);
}
