//! Values in the previous result: checked against the specification of each CNI version, as
//! libcni decodes them.

use super::plugin::{ask, assert_error, with_result};

/// Calls `test` with each CNI version of a section and each line in that section.
fn for_each(fixture: &str, test: impl Fn(&str, &str)) {
    let mut versions = "";
    for line in fixture.lines() {
        match line.strip_prefix("== ") {
            Some(heading) => versions = heading,
            None if line.is_empty() || line.starts_with('#') => {}
            None => versions.split(' ').for_each(|version| test(version, line)),
        }
    }
}

#[test]
fn invalid_result_is_error_6_and_named() {
    for_each(include_str!("invalid_results.txt"), |version, line| {
        let (result, message) = line.split_once(" => ").expect("RESULT => MESSAGE");
        let input = with_result(version, result);
        let error = assert_error(ask("ADD", &input), 6, message);
        assert_eq!(error["cniVersion"], version, "{error}");
        if version >= "0.4.0" {
            assert_error(ask("CHECK", &input), 6, message);
        }
        assert_eq!(ask("DEL", &input).succeeded().stdout, "");
        if version == "1.1.0" {
            assert_eq!(ask("GC", &input).succeeded().stdout, "");
        }
    });
}

#[test]
fn result_that_libcni_accepts_is_relayed() {
    for_each(include_str!("valid_results.txt"), |version, line| {
        let result = line.replacen('{', &format!("{{\"cniVersion\":\"{version}\","), 1);
        let input = with_result(version, &result);
        assert_eq!(ask("ADD", &input).succeeded().stdout, format!("{result}\n"));
        if version >= "0.4.0" {
            assert_eq!(ask("CHECK", &input).succeeded().stdout, "");
        }
    });
}
