//! The keys of the configuration: types, values, repeated keys, case.

use serde_json::{Value, json};

use super::plugin::{VERSIONS, ask, assert_error, configuration};

/// A configuration with the JSON text `value` at `path`, such as `redirect.ports`.
fn with(path: &str, value: &str) -> String {
    let mut configuration = configuration("1.1.0");
    let mut member = &mut configuration;
    for key in path.split('.') {
        member = &mut member[key];
    }
    *member = json!("VALUE");
    configuration.to_string().replace("\"VALUE\"", value)
}

#[test]
fn value_of_the_wrong_type_is_error_6() {
    let not_string = &[
        "7",
        "-1.5",
        "true",
        "[]",
        "{}",
        r#"["sesame"]"#,
        r#"{"token":"sesame"}"#,
        r#""\ud800""#,
    ][..];
    let not_number = &["true", "[]", "{}", r#"{"token":"sesame"}"#, r#""\udc00""#];
    let not_list = &[
        "7",
        r#""sesame""#,
        "true",
        "{}",
        "[null]",
        "[true]",
        "[[554]]",
        r#"[{"token":"sesame"}]"#,
    ];
    let not_strings = &[
        "7",
        r#""sesame""#,
        "true",
        "{}",
        "[null]",
        "[7]",
        r#"["a",["sesame"]]"#,
    ];
    let not_object = &["7", r#""sesame""#, "true", "[]", r#"["sesame"]"#];
    for (path, values) in [
        ("name", not_string),
        ("cniVersion", not_string),
        ("logLevel", not_string),
        ("kubernetes", not_object),
        ("kubernetes.kubeConfig", not_string),
        ("kubernetes.kubernetesAPIRoot", not_string),
        ("kubernetes.interceptName", not_string),
        ("kubernetes.excludeNamespaces", not_strings),
        ("kubernetes.podLookupTimeoutSeconds", not_number),
        ("redirect", not_object),
        ("redirect.ports", not_list),
        ("redirect.inboundPorts", not_list),
        ("redirect.excludeCIDRs", not_list),
        ("redirect.proxyPort", not_number),
        ("redirect.proxyUID", not_number),
        ("redirect.ipv6", not_string),
    ] {
        for value in values {
            let input = with(path, value);
            for verb in ["ADD", "CHECK", "STATUS"] {
                assert_error(ask(verb, &input), 6, path);
            }
            for verb in ["DEL", "GC"] {
                if ["name", "cniVersion"].contains(&path) {
                    assert_error(ask(verb, &input), 6, path);
                } else {
                    assert_eq!(ask(verb, &input).succeeded().stdout, "");
                }
            }
        }
    }
}

#[test]
fn invalid_value_is_error_7_and_named() {
    let many = |count: u16| json!((1..=count).collect::<Vec<_>>()).to_string();
    let long = format!("\"{}\"", "x".repeat(100_000));
    let lists = ["redirect.ports", "redirect.inboundPorts"];
    let ports = lists.iter().flat_map(|path| {
        [
            "0",
            "65536",
            "-1",
            "554.0",
            "5e2",
            "1e400",
            r#""""#,
            r#"" 554""#,
            r#""554-560""#,
            r#""rtsp""#,
        ]
        .map(|value| {
            (
                *path,
                format!("[80,{value}]"),
                value.trim_matches('"').to_owned(),
            )
        })
    });
    let others = [
        ("logLevel", r#""loud""#, "loud"),
        ("kubernetes.interceptName", r#""ipvs""#, "ipvs"),
        ("kubernetes.interceptName", r#""NFTABLES""#, "NFTABLES"),
        ("kubernetes.interceptName", &long, "xxx…"),
        ("kubernetes.podLookupTimeoutSeconds", "0", "1 to 600"),
        ("kubernetes.podLookupTimeoutSeconds", "601", "601"),
        ("kubernetes.podLookupTimeoutSeconds", "-1", "-1"),
        ("kubernetes.podLookupTimeoutSeconds", "1.5", "1.5"),
        ("kubernetes.podLookupTimeoutSeconds", r#""30s""#, "30s"),
        (
            "kubernetes.kubernetesAPIRoot",
            r#""http://10.0.0.1""#,
            "https://",
        ),
        (
            "kubernetes.kubernetesAPIRoot",
            r#""https://user:sesame@10.0.0.1""#,
            "user name",
        ),
        ("redirect.ports", "[]", "at least one port"),
        ("redirect.ports", &many(65), "more than 64"),
        ("redirect.inboundPorts", &many(65), "more than 64"),
        ("redirect.proxyPort", "0", "0"),
        ("redirect.proxyPort", "65536", "65536"),
        ("redirect.proxyPort", "8554.0", "8554.0"),
        (
            "redirect.proxyPort",
            "18446744073709551616",
            "18446744073709551616",
        ),
        ("redirect.proxyUID", "-1", "-1"),
        ("redirect.proxyUID", "4294967295", "4294967295"),
        ("redirect.proxyUID", r#""root""#, "root"),
        ("redirect.excludeCIDRs", r#"["10.0.0.0/33"]"#, "10.0.0.0/33"),
        ("redirect.excludeCIDRs", r#"["127.0.0.0/8","lo"]"#, "lo"),
        ("redirect.excludeCIDRs", "[10]", "10"),
        ("redirect.ipv6", r#""allow""#, "allow"),
        ("redirect.ipv6", r#""Reject""#, "Reject"),
        ("kubernetes.kubeConfig", r#""""#, "missing"),
        ("kubernetes.kubeConfig", "null", "missing"),
    ]
    .map(|(path, value, text)| (path, value.to_owned(), text.to_owned()));
    for (path, value, text) in ports.chain(others) {
        let input = with(path, &value);
        for verb in ["ADD", "CHECK", "STATUS"] {
            let error = assert_error(ask(verb, &input), 7, path);
            assert!(error["msg"].as_str().unwrap().contains(&text), "{error}");
        }
        for verb in ["DEL", "GC"] {
            assert_eq!(ask(verb, &input).succeeded().stdout, "");
        }
    }
}

#[test]
fn network_names_are_checked_as_by_skel() {
    let long = "a".repeat(10_000);
    for name in ["a", "0", "k8s-pod-network", "A_b.c-d", "a..", &long] {
        ask("ADD", &with("name", &json!(name).to_string())).succeeded();
    }
    for name in [
        "-a",
        ".a",
        "_a",
        "a b",
        "a/b",
        "../a",
        "a:b",
        "a\n",
        "\u{0}",
        "ä",
        "aä",
        " a",
        "a\u{2003}",
        "a$",
    ] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            assert_error(
                ask(verb, &with("name", &json!(name).to_string())),
                7,
                "name",
            );
        }
    }
    for absent in ["null", r#""""#] {
        assert_error(ask("DEL", &with("name", absent)), 7, "name is missing");
    }
}

#[test]
fn optional_values_may_be_null_or_empty() {
    for (path, value) in [
        ("logLevel", "null"),
        ("logLevel", r#""""#),
        ("logLevel", r#""WARNING""#),
        ("kubernetes.kubernetesAPIRoot", "null"),
        ("kubernetes.kubernetesAPIRoot", r#""""#),
        ("kubernetes.interceptName", "null"),
        ("kubernetes.interceptName", r#""""#),
        ("kubernetes.podLookupTimeoutSeconds", "null"),
        ("kubernetes.podLookupTimeoutSeconds", r#""600""#),
        ("kubernetes.nodeName", "7"),
        ("kubernetes.cniBinDir", "[]"),
        ("redirect", "null"),
        ("redirect", "{}"),
        ("redirect.ports", "null"),
        ("redirect.ports", r#"[554,"554","00322"]"#),
        ("redirect.ports", &json!(vec![554; 10_000]).to_string()),
        ("redirect.inboundPorts", "[]"),
        ("redirect.excludeCIDRs", "[]"),
        ("redirect.excludeCIDRs", r#"["10.0.0.1","fd00::/8"]"#),
        ("redirect.proxyPort", r#""9554""#),
        ("redirect.proxyUID", "0"),
        ("redirect.ipv6", "null"),
        ("redirect.unknown", "7"),
    ] {
        let outcome = ask("ADD", &with(path, value)).succeeded();
        assert_eq!(
            outcome.stdout, "{\"cniVersion\":\"1.1.0\"}\n",
            "{path} {value}"
        );
    }
    let namespaces: Vec<String> = (0..10_000)
        .map(|number| format!("namespace-{number}"))
        .collect();
    let input = with(
        "kubernetes.excludeNamespaces",
        &json!([&namespaces[..], &["media".into()]].concat()).to_string(),
    );
    ask("ADD", &input).succeeded();
}

#[test]
fn last_of_repeated_keys_counts_in_any_case() {
    for (input, version) in [
        (
            r#"{"cniVersion":"9.9.9","name":"/","cniVersion":"1.0.0","name":"n","kubernetes":{},
                "kubernetes":{"kubeConfig":"/k","EXCLUDENAMESPACES":["other"],"excludeNamespaces":["media"]}}"#,
            "1.0.0",
        ),
        (
            r#"{"CNIVERSION":"1.0.0","cniversion":"0.4.0","NAME":"n","KUBERNETES":{"KUBECONFIG":"/k","excludenamespaces":["media"]}}"#,
            "0.4.0",
        ),
        (
            r#"{"cniVersion":"0.4.0","name":"n","kubernetes":7,"k\u0075bernetes":{"kubeConfig":"/k","excludeNamespaces":[7],"excludeNamespaces":["m\u0065dia"]}}"#,
            "0.4.0",
        ),
    ] {
        let outcome = ask("ADD", input).succeeded();
        assert_eq!(
            outcome.stdout,
            format!("{{\"cniVersion\":\"{version}\"}}\n")
        );
    }
    let input = r#"{"cniVersion":"1.0.0","name":"n","kubernetes":{"kubeConfig":"/k"},"kubernetes":{"kubeConfig":null}}"#;
    assert_error(ask("ADD", input), 7, "kubernetes.kubeConfig");
}

#[test]
fn error_has_the_version_of_the_configuration() {
    for version in VERSIONS {
        let mut broken = configuration(version);
        broken["name"] = json!("/");
        let mut without_settings = configuration(version);
        without_settings["kubernetes"].take();
        let whole = configuration(version).to_string();
        for input in [
            broken.to_string(),
            without_settings.to_string(),
            whole[..whole.len() - 1].to_owned(),
            format!("{whole}}}"),
            format!("\u{feff}{whole}"),
            format!("{{\"cniVersion\":\"{version}\",\"a\":{}", "[".repeat(1000)),
            format!("{{\"cniVersion\":\"{version}\",\"a\":garbage"),
        ] {
            let error = document(&ask("ADD", &input).exited(1).stdout);
            assert_eq!(error["cniVersion"], version, "{input}");
        }
    }
    for input in [
        "",
        "[]",
        "{",
        r#"{"name":"#,
        r#"{"cniVersion":"9.9.9"}"#,
        r#"{"cniVersion":7}"#,
    ] {
        let error = document(&ask("ADD", input).exited(1).stdout);
        assert_eq!(error["cniVersion"], "1.1.0", "{input}");
    }
}

fn document(stdout: &str) -> Value {
    serde_json::from_str(stdout).expect("one JSON document")
}
