//! The variables that each verb requires, and how their values are checked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use msm_testkit::applet;
use msm_testkit::command::{Outcome, run, run_with_input};

use super::plugin::{assert_error, configuration, plugin};

const CONTAINER_ID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const INTERFACE: &str = "CNI_IFNAME";
const PATH: &str = "CNI_PATH";
/// As in the reference implementation's `skel`; for GC and STATUS, as in the specification.
const REQUIRED: [(&str, &[&str]); 6] = [
    ("ADD", &[CONTAINER_ID, NETNS, INTERFACE, PATH]),
    ("CHECK", &[CONTAINER_ID, NETNS, INTERFACE, PATH]),
    ("DEL", &[CONTAINER_ID, INTERFACE, PATH]),
    ("GC", &[PATH]),
    ("STATUS", &[PATH]),
    ("VERSION", &[]),
];

fn ask(verb: &str, variable: &str, value: impl AsRef<OsStr>) -> Outcome {
    let mut plugin = plugin(verb);
    plugin.env(variable, value);
    run_with_input(&mut plugin, &configuration("1.1.0").to_string())
}

/// The environment was accepted. STATUS then fails because the kubeconfig does not exist.
#[track_caller]
fn assert_accepted(outcome: Outcome, verb: &str) {
    match verb {
        "STATUS" => drop(assert_error(outcome, 50, "/nowhere")),
        _ => drop(outcome.succeeded()),
    }
}

#[test]
fn missing_variable_is_error_4_if_the_verb_requires_it() {
    for (verb, required) in REQUIRED {
        for variable in [CONTAINER_ID, NETNS, INTERFACE, PATH, "CNI_ARGS"] {
            for value in [None, Some("")] {
                let mut plugin = plugin(verb);
                plugin.env_remove(variable);
                plugin.envs(value.map(|value| (variable, value)));
                let outcome = run_with_input(&mut plugin, &configuration("1.1.0").to_string());
                if required.contains(&variable) {
                    assert_error(outcome, 4, &format!("{variable} is missing"));
                } else {
                    assert_accepted(outcome, verb);
                }
            }
        }
    }
}

#[test]
fn all_missing_and_invalid_variables_are_named() {
    for (verb, required) in REQUIRED {
        let outcome = run(applet("msm-cni").env("CNI_COMMAND", verb));
        if required.is_empty() {
            outcome.succeeded();
            continue;
        }
        let missing: Vec<String> = required
            .iter()
            .map(|variable| format!("{variable} is missing"))
            .collect();
        let error = assert_error(outcome, 4, &missing.join("; "));
        assert_eq!(
            error["msg"].as_str().unwrap().matches("CNI_").count(),
            required.len()
        );
    }
    for verb in ["ADD", "CHECK"] {
        let mut plugin = applet("msm-cni");
        plugin
            .env("CNI_COMMAND", verb)
            .env(CONTAINER_ID, "../x")
            .env(INTERFACE, "a/b")
            .env("CNI_ARGS", "=");
        let error = assert_error(run(&mut plugin), 4, verb);
        for variable in [CONTAINER_ID, NETNS, INTERFACE, PATH, "CNI_ARGS"] {
            assert!(error["msg"].as_str().unwrap().contains(variable), "{error}");
        }
    }
}

#[test]
fn environment_is_checked_before_standard_input_is_read() {
    for (variable, value) in [
        (CONTAINER_ID, "../x"),
        (INTERFACE, "0123456789abcdef"),
        ("CNI_ARGS", "K8S_POD_NAME"),
    ] {
        let outcome = run_with_input(plugin("ADD").env(variable, value), "not JSON");
        assert_error(outcome, 4, variable);
    }
    // Standard input that stays open.
    let (stdin, _held_open) = std::io::pipe().unwrap();
    let output = plugin("ADD")
        .env_remove(PATH)
        .stdin(stdin)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn container_ids_are_checked_as_by_skel() {
    for verb in ["ADD", "CHECK", "DEL"] {
        for id in [
            "a",
            "0",
            "A-b_c.d",
            "a..",
            "0a1b2c",
            &"f".repeat(64),
            &"a".repeat(100_000),
        ] {
            ask(verb, CONTAINER_ID, id).succeeded();
        }
        for id in [
            "-a",
            ".a",
            "_a",
            "a b",
            " a",
            "a\n",
            "a/b",
            "../a",
            "a:b",
            "a\\b",
            "ä",
            "aä",
            "a\u{2003}",
            "a;b",
            "a=b",
            &"/".repeat(100_000),
        ] {
            assert_error(ask(verb, CONTAINER_ID, id), 4, CONTAINER_ID);
        }
    }
    for verb in ["GC", "STATUS", "VERSION"] {
        assert_accepted(ask(verb, CONTAINER_ID, "../a"), verb);
    }
}

#[test]
fn interface_names_are_checked_as_by_skel() {
    for verb in ["ADD", "CHECK", "DEL"] {
        for name in [
            "e",
            "eth0",
            "0123456789abcde",
            "...",
            "a.b",
            "eth0@if7",
            "-",
            "ääääääa",
            "\u{200b}",
        ] {
            ask(verb, INTERFACE, name).succeeded();
        }
        for name in [
            ".",
            "..",
            "a/b",
            "a:1",
            "a b",
            " ",
            "a\tb",
            "a\nb",
            "a\u{b}b",
            "a\u{c}b",
            "a\rb",
            "0123456789abcdef",
            "ääääääää",
            "a\u{85}b",
            "a\u{a0}b",
            "a\u{1680}b",
            "a\u{2000}b",
            "a\u{200a}b",
            "a\u{2028}b",
            "a\u{2029}b",
            "a\u{202f}b",
            "a\u{205f}b",
            "a\u{3000}b",
            &"x".repeat(100_000),
        ] {
            assert_error(ask(verb, INTERFACE, name), 4, INTERFACE);
        }
    }
    for verb in ["GC", "STATUS", "VERSION"] {
        assert_accepted(ask(verb, INTERFACE, "a/b"), verb);
    }
}

#[test]
fn network_namespace_is_a_path_of_at_most_4095_bytes() {
    for verb in ["ADD", "CHECK"] {
        ask(verb, NETNS, "x".repeat(4095)).succeeded();
        assert_error(ask(verb, NETNS, "x".repeat(4096)), 4, NETNS);
    }
    ask("DEL", NETNS, "x".repeat(4096)).succeeded();
}

#[test]
fn pod_is_checked_for_add_and_check() {
    let long = "a".repeat(100_000);
    for verb in ["ADD", "CHECK"] {
        for args in [
            "IgnoreUnknown=1",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=media;K8S_POD_NAME=camera;K8S_POD_INFRA_CONTAINER_ID=a;K8S_POD_UID=1-2",
            "K8S_POD_NAMESPACE=media",
            "K8S_POD_NAMESPACE=;K8S_POD_NAME=camera",
            "K8S_POD_NAMESPACE=A/B;K8S_POD_NAME=camera;K8S_POD_NAMESPACE=media",
            "A=b=c;",
            ";;",
            "A=",
            &format!("A={long}"),
        ] {
            ask(verb, "CNI_ARGS", args).succeeded();
        }
        for (args, named) in [
            ("K8S_POD_NAME", "\"K8S_POD_NAME\""),
            ("A=b;c;d", "\"c\""),
            ("=b", "\"=b\""),
            (" ", "\" \""),
            (
                "K8S_POD_NAMESPACE=a/b;K8S_POD_NAME=c",
                "K8S_POD_NAMESPACE=\"a/b\"",
            ),
            (
                "K8S_POD_NAMESPACE=..;K8S_POD_NAME=c",
                "K8S_POD_NAMESPACE=\"..\"",
            ),
            (
                "K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=c",
                "K8S_POD_NAMESPACE=\"a.b\"",
            ),
            ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=B", "K8S_POD_NAME=\"B\""),
            (
                "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b?c",
                "K8S_POD_NAME=\"b?c\"",
            ),
            (
                "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=../x",
                "K8S_POD_UID=\"../x\"",
            ),
            (
                &format!("K8S_POD_NAMESPACE=a;K8S_POD_NAME={long}"),
                "K8S_POD_NAME=\"aaa",
            ),
            (&long, "…"),
            (&"a;".repeat(50_000), "\"a\""),
        ] {
            assert_error(ask(verb, "CNI_ARGS", args), 4, named);
        }
    }
    for verb in ["DEL", "GC", "STATUS", "VERSION"] {
        assert_accepted(ask(verb, "CNI_ARGS", "garbage"), verb);
    }
}

#[test]
fn only_paths_and_other_variables_may_be_non_utf8() {
    let bytes =
        |text: &str| OsString::from(OsStr::from_bytes(&[text.as_bytes(), b"\xff"].concat()));
    for verb in ["ADD", "CHECK", "DEL"] {
        for variable in [CONTAINER_ID, INTERFACE] {
            let outcome = ask(verb, variable, bytes("a"));
            assert_error(outcome, 4, &format!("{variable} is not UTF-8"));
        }
        for variable in [NETNS, PATH, "CNI_NETNS_OVERRIDE", "OTHER"] {
            ask(verb, variable, bytes("/a")).succeeded();
        }
    }
    for verb in ["ADD", "CHECK"] {
        let outcome = ask(verb, "CNI_ARGS", bytes("A=b"));
        assert_error(outcome, 4, "CNI_ARGS is not UTF-8");
    }
    for verb in ["DEL", "GC", "STATUS", "VERSION"] {
        assert_accepted(ask(verb, "CNI_ARGS", bytes("A=b")), verb);
    }
    assert_error(ask("ADD", "CNI_COMMAND", bytes("ADD")), 4, "CNI_COMMAND");
}

#[test]
fn values_of_other_variables_are_not_quoted() {
    let mut plugin = plugin("ADD");
    plugin
        .env("KUBERNETES_TOKEN", "sesame")
        .env("HTTPS_PROXY", "http://sesame@proxy")
        .env_remove(PATH);
    assert_error(run(&mut plugin), 4, PATH);
}
