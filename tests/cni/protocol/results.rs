//! The previous result is relayed unchanged except for its version, which becomes that of the
//! configuration if both have the same result format.

use super::plugin::{RESULT_FORMATS, ask, assert_error, with_result};

#[test]
fn only_cni_version_of_a_result_is_replaced() {
    for (previous, relayed) in [
        (r#"{"cniVersion":"OLD"}"#, r#"{"cniVersion":"NEW"}"#),
        (
            r#"{ "cniVersion" :"OLD" , "a" : [ 1 ,2 ] }"#,
            r#"{ "cniVersion" :"NEW" , "a" : [ 1 ,2 ] }"#,
        ),
        (
            "{\n\t\"z\": 1,\r\n\"cniVersion\":\n\"OLD\"\n}",
            "{\n\t\"z\": 1,\r\n\"cniVersion\":\n\"NEW\"\n}",
        ),
        (r#"{"a":1}"#, r#"{"cniVersion":"NEW","a":1}"#),
        (r#"{ "a":1}"#, r#"{"cniVersion":"NEW", "a":1}"#),
        ("{}", r#"{"cniVersion":"NEW"}"#),
        ("{ }", r#"{"cniVersion":"NEW" }"#),
        (r#"{"cniVersion":""}"#, r#"{"cniVersion":"NEW"}"#),
        (r#"{"cniVersion":null}"#, r#"{"cniVersion":"NEW"}"#),
        (
            r#"{"cniVersion":"9.9.9","a":1,"cniVersion":"OLD"}"#,
            r#"{"cniVersion":"NEW","a":1,"cniVersion":"NEW"}"#,
        ),
        (
            r#"{"cni\u0056ersion":"OLD"}"#,
            r#"{"cni\u0056ersion":"NEW"}"#,
        ),
        (
            r#"{"z":1,"b":2,"cniVersion":"OLD","a":3,"b":4}"#,
            r#"{"z":1,"b":2,"cniVersion":"NEW","a":3,"b":4}"#,
        ),
        (
            r#"{"cniVersion":"OLD","x":[1.50,1e400,-0.0,1E+2,12345678901234567890123456789,0.1000000000000000055511151231257827]}"#,
            r#"{"cniVersion":"NEW","x":[1.50,1e400,-0.0,1E+2,12345678901234567890123456789,0.1000000000000000055511151231257827]}"#,
        ),
        (
            r#"{"cniVersion":"OLD","\u0061\/b":"\u00e4\ud83d\ude00\ud800\/","ä":"ä😀<>&\u2028"}"#,
            r#"{"cniVersion":"NEW","\u0061\/b":"\u00e4\ud83d\ude00\ud800\/","ä":"ä😀<>&\u2028"}"#,
        ),
        (
            r#"{"x":{"cniVersion":"OLD"},"y":["cniVersion"],"cniVersion":"OLD","CNIVERSION":7}"#,
            r#"{"x":{"cniVersion":"OLD"},"y":["cniVersion"],"cniVersion":"NEW","CNIVERSION":7}"#,
        ),
    ] {
        for (old, new) in [
            ("0.2.0", "0.1.0"),
            ("0.3.1", "0.4.0"),
            ("1.0.0", "1.0.0"),
            ("1.0.0", "1.1.0"),
        ] {
            let outcome = ask("ADD", &with_result(new, &previous.replace("OLD", old))).succeeded();
            let expected = relayed.replace("NEW", new).replace("OLD", old) + "\n";
            assert_eq!(outcome.stdout, expected, "{previous}");
        }
    }
}

#[test]
fn large_result_is_relayed() {
    let addresses = vec![r#"{"address": "10.0.0.2/24"}"#; 20_000].join(", ");
    let result = format!(r#"{{"cniVersion":"1.0.0","ips":[{addresses}]}}"#);
    let outcome = ask("ADD", &with_result("1.0.0", &result)).succeeded();
    assert_eq!(outcome.stdout, result + "\n");
}

#[test]
fn result_is_converted_only_within_its_format() {
    for (format, version) in versions() {
        for (previous_format, previous) in versions() {
            let input = with_result(version, &format!(r#"{{"cniVersion":"{previous}","k":1}}"#));
            for verb in ["ADD", "CHECK"] {
                let outcome = ask(verb, &input);
                match (verb, format == previous_format) {
                    ("CHECK", _) if version < "0.4.0" => drop(assert_error(outcome, 1, "CHECK")),
                    ("CHECK", true) => assert_eq!(outcome.succeeded().stdout, ""),
                    (_, true) => assert_eq!(
                        outcome.succeeded().stdout,
                        format!("{{\"cniVersion\":\"{version}\",\"k\":1}}\n")
                    ),
                    (_, false) => {
                        let error = assert_error(outcome, 1, previous);
                        assert_eq!(error["cniVersion"], version);
                    }
                }
            }
        }
        for previous in ["9.9.9", "1.0", "v1.0.0", "\\ud800"] {
            let result = format!(r#"{{"cniVersion":"{previous}"}}"#);
            assert_error(ask("ADD", &with_result(version, &result)), 1, previous);
        }
    }
}

/// All versions, each with the index of its result format.
fn versions() -> impl Iterator<Item = (usize, &'static str)> {
    let formats = RESULT_FORMATS.iter().enumerate();
    formats.flat_map(|(index, versions)| versions.iter().map(move |version| (index, *version)))
}
