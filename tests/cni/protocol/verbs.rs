//! The effect of each verb in each CNI version.

use std::fs;

use msm_testkit::command::{run, run_with_input};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run};
use serde_json::{Value, json};

use super::plugin::{VERSIONS, ask, assert_error, configuration, kubeconfig, plugin};

#[test]
fn version_requires_no_environment_and_no_input() {
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS});
    let (stdin, _held_open) = std::io::pipe().unwrap();
    let output = applet("msm-cni")
        .env("CNI_COMMAND", "VERSION")
        .stdin(stdin)
        .output()
        .unwrap();
    assert!(output.status.success());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, expected);
    for input in [
        "",
        "garbage",
        r#"{"cniVersion":"9.9.9"}"#,
        r#"{"cniVersion":"0.4.0"}"#,
    ] {
        let mut version = applet("msm-cni");
        version
            .env("CNI_COMMAND", "VERSION")
            .env("CNI_CONTAINERID", "../x")
            .env("CNI_ARGS", "garbage");
        let outcome = run_with_input(&mut version, input).succeeded();
        let answer: Value = serde_json::from_str(&outcome.stdout).expect("one JSON document");
        assert_eq!(answer, expected, "{input}");
    }
}

#[test]
fn without_command_versions_are_printed_on_standard_error() {
    for command in [None, Some("")] {
        let mut plugin = applet("msm-cni");
        plugin.envs(command.map(|command| ("CNI_COMMAND", command)));
        let outcome = run(&mut plugin).succeeded();
        assert_eq!(outcome.stdout, "", "{outcome}");
        for text in VERSIONS.iter().chain(&["msm-cni"]) {
            assert!(outcome.stderr.contains(text), "{outcome}");
        }
    }
}

#[test]
fn verbs_exist_since_their_version() {
    for version in VERSIONS {
        let configuration = configuration(version);
        for (verb, since) in [
            ("ADD", "0.1.0"),
            ("DEL", "0.1.0"),
            ("CHECK", "0.4.0"),
            ("GC", "1.1.0"),
            ("STATUS", "1.1.0"),
        ] {
            let outcome = ask(verb, &configuration.to_string());
            match verb {
                _ if version < since => {
                    let error = assert_error(outcome, 1, since);
                    assert_eq!(error["cniVersion"], version);
                }
                "ADD" => {
                    let expected = format!("{}\n", configuration["prevResult"]);
                    assert_eq!(outcome.succeeded().stdout, expected);
                }
                // The kubeconfig does not exist.
                "STATUS" => drop(assert_error(outcome, 50, "/nowhere")),
                _ => assert_eq!(outcome.succeeded().stdout, ""),
            }
        }
    }
}

#[test]
fn missing_prev_result_is_an_error_only_before_0_3_0() {
    for version in VERSIONS {
        for null in [false, true] {
            let mut configuration = configuration(version);
            configuration["prevResult"].take();
            if !null {
                configuration.as_object_mut().unwrap().remove("prevResult");
            }
            let configuration = configuration.to_string();
            let outcome = ask("ADD", &configuration);
            if version < "0.3.0" {
                assert_error(outcome, 7, "prevResult");
            } else {
                let expected = format!("{{\"cniVersion\":\"{version}\"}}\n");
                assert_eq!(outcome.succeeded().stdout, expected);
            }
            assert_eq!(ask("DEL", &configuration).succeeded().stdout, "");
            if version >= "0.4.0" {
                assert_eq!(ask("CHECK", &configuration).succeeded().stdout, "");
            }
        }
    }
}

#[test]
fn versions_are_matched_exactly() {
    for version in [
        "1",
        "1.0",
        "1.0.1",
        "0.5.0",
        "2.0.0",
        "1.2.0",
        "v1.0.0",
        " 1.0.0",
        "1.0.0 ",
        "1.0.0\n",
        "01.0.0",
        "1.0.0-rc1",
        "1.0.0.0",
        "latest",
        "١.0.0",
    ] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            let error = assert_error(ask(verb, &configuration(version).to_string()), 1, "1.1.0");
            assert!(
                error["msg"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("{version:?}"))
            );
        }
    }
}

#[test]
fn missing_version_means_0_1_0() {
    for version in [Value::Null, json!("")] {
        let mut configuration = configuration("0.1.0");
        configuration["cniVersion"] = version;
        let outcome = ask("ADD", &configuration.to_string()).succeeded();
        assert_eq!(outcome.stdout, "{\"cniVersion\":\"0.1.0\"}\n");
        assert_error(ask("CHECK", &configuration.to_string()), 1, "0.1.0");
    }
}

#[test]
fn unknown_verb_is_an_error_after_the_network_is_checked() {
    for verb in [
        "UPDATE", "add", "Add", "ADD ", " ADD", "DELETE", "ADD,DEL", "äöü",
    ] {
        let configuration = configuration("0.4.0");
        let error = assert_error(ask(verb, &configuration.to_string()), 4, "CNI_COMMAND");
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains(&format!("{verb:?}"))
        );
        assert_eq!(error["cniVersion"], "0.4.0");
        assert_error(ask(verb, "{}"), 7, "name");
        assert_error(ask(verb, "garbage"), 6, "not valid JSON");
    }
    assert_error(
        ask(&"X".repeat(100_000), &configuration("1.0.0").to_string()),
        4,
        "XXX…",
    );
}

#[test]
fn del_succeeds_without_network_namespace_and_with_invalid_settings() {
    for netns in [
        None,
        Some(""),
        Some("/run/netns/gone"),
        Some("/etc/passwd"),
        Some("/proc/self/ns/net"),
    ] {
        for version in VERSIONS {
            let mut configuration = configuration(version);
            configuration["prevResult"] = json!("garbage");
            configuration["redirect"] = json!({"ports": "garbage"});
            configuration["kubernetes"] = json!(7);
            let mut plugin = plugin("DEL");
            plugin.env("CNI_ARGS", "garbage").env_remove("CNI_NETNS");
            plugin.envs(netns.map(|netns| ("CNI_NETNS", netns)));
            let outcome = run_with_input(&mut plugin, &configuration.to_string()).succeeded();
            assert_eq!(outcome.stdout, "", "{outcome}");
        }
    }
}

#[test]
fn gc_succeeds_with_invalid_settings() {
    for (key, value) in [
        ("kubernetes", json!("garbage")),
        ("redirect", json!([])),
        ("logLevel", json!(7)),
        ("prevResult", json!("garbage")),
        (
            "cni.dev/valid-attachments",
            json!([{"containerID": "a", "ifname": "eth0"}]),
        ),
        ("cni.dev/valid-attachments", json!("garbage")),
    ] {
        let mut configuration = configuration("1.1.0");
        configuration[key] = value;
        let outcome = ask("GC", &configuration.to_string()).succeeded();
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
}

#[test]
fn successful_status_prints_nothing() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path().join("kubeconfig");
    fs::write(&path, kubeconfig("https://192.0.2.1").to_string()).unwrap();
    let mut configuration = configuration("1.1.0");
    configuration["kubernetes"]["kubeConfig"] = json!(path);
    let mut status = applet("msm-cni");
    status
        .env("CNI_COMMAND", "STATUS")
        .env("CNI_PATH", "/opt/cni/bin");
    let outcome = Namespace::new().run(|| run_with_input(&mut status, &configuration.to_string()));
    assert_eq!(outcome.succeeded().stdout, "");
}
