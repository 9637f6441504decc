//! The previous result is handed on byte for byte but for its version, which follows the
//! configuration's inside of a family.

use super::plugin::{FAMILIES, ask, assert_error, with_result};

#[test]
fn a_result_is_handed_on_byte_for_byte() {
    for (came, handed_on) in [
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
            let outcome = ask("ADD", &with_result(new, &came.replace("OLD", old))).succeeded();
            let expected = handed_on.replace("NEW", new).replace("OLD", old) + "\n";
            assert_eq!(outcome.stdout, expected, "{came}");
        }
    }
}

#[test]
fn a_large_result_is_handed_on_as_well() {
    let addresses = vec![r#"{"address": "10.0.0.2/24"}"#; 20_000].join(", ");
    let result = format!(r#"{{"cniVersion":"1.0.0","ips":[{addresses}]}}"#);
    let outcome = ask("ADD", &with_result("1.0.0", &result)).succeeded();
    assert_eq!(outcome.stdout, result + "\n");
}

#[test]
fn results_are_relabelled_inside_of_a_family_and_cross_none() {
    for (family, wanted) in members() {
        for (of, found) in members() {
            let input = with_result(wanted, &format!(r#"{{"cniVersion":"{found}","k":1}}"#));
            for verb in ["ADD", "CHECK"] {
                let outcome = ask(verb, &input);
                match (verb, family == of) {
                    ("CHECK", _) if wanted < "0.4.0" => drop(assert_error(outcome, 1, "CHECK")),
                    ("CHECK", true) => assert_eq!(outcome.succeeded().stdout, ""),
                    (_, true) => assert_eq!(
                        outcome.succeeded().stdout,
                        format!("{{\"cniVersion\":\"{wanted}\",\"k\":1}}\n")
                    ),
                    (_, false) => {
                        let error = assert_error(outcome, 1, found);
                        assert_eq!(error["cniVersion"], wanted);
                    }
                }
            }
        }
        for found in ["9.9.9", "1.0", "v1.0.0", "\\ud800"] {
            let result = format!(r#"{{"cniVersion":"{found}"}}"#);
            assert_error(ask("ADD", &with_result(wanted, &result)), 1, found);
        }
    }
}

fn members() -> impl Iterator<Item = (usize, &'static str)> {
    let families = FAMILIES.iter().enumerate();
    families.flat_map(|(index, family)| family.iter().map(move |version| (index, *version)))
}
