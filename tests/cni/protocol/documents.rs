//! Standard input that is malformed, too large, or crafted to use much memory.

use std::process::Command;

use msm_testkit::command::{Outcome, run_with_input};
use msm_testkit::executable;

use super::plugin::{ask, assert_error, plugin, with_result};

/// The size limit of standard input, in bytes.
const LIMIT: usize = 16 << 20;
/// In bytes. Large enough to show memory that grows with the input. With the configuration
/// around it just below a power of two, to which buffers grow: address space counts even if it
/// is not used.
const LARGE: usize = (2 << 20) - 4096;
/// A complete configuration without its closing brace.
const BEGINNING: &str = r#"{"cniVersion":"1.0.0","name":"a","kubernetes":{"kubeConfig":"/k","excludeNamespaces":["media"]}"#;

#[test]
fn input_other_than_a_json_object_is_error_6() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    let utf16: Vec<u8> = "{\"name\":\"a\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let utf16_be: Vec<u8> = "{\"name\":\"a\"}"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let bytes = |parts: &[&[u8]]| parts.concat();
    for (input, text) in [
        (b"".to_vec(), "empty"),
        (b" \r\n\t".to_vec(), "empty"),
        (b"null".to_vec(), "null"),
        (b"[]".to_vec(), "an array"),
        (b"\"sesame\"".to_vec(), "a string"),
        (b"7".to_vec(), "a number"),
        (b"true".to_vec(), "a boolean"),
        (b"garbage".to_vec(), "not valid JSON"),
        (b"{".to_vec(), "not valid JSON"),
        (b"}".to_vec(), "not valid JSON"),
        (b"{\"name\"}".to_vec(), "not valid JSON"),
        (b"{\"name\":}".to_vec(), "not valid JSON"),
        (b"{\"name\":\"a\",}".to_vec(), "not valid JSON"),
        (b"{name:\"a\"}".to_vec(), "not valid JSON"),
        (b"{'name':'a'}".to_vec(), "not valid JSON"),
        (b"{\"name\":\"a\" // b\n}".to_vec(), "not valid JSON"),
        (b"{\"name\":\"a\n\"}".to_vec(), "not valid JSON"),
        (b"{\"name\":\"\\x\"}".to_vec(), "not valid JSON"),
        (b"{\"name\":\"\\ud8\"}".to_vec(), "not valid JSON"),
        (b"{\"a\":01}".to_vec(), "not valid JSON"),
        (b"{\"a\":+1}".to_vec(), "not valid JSON"),
        (b"{\"a\":.5}".to_vec(), "not valid JSON"),
        (b"{\"a\":NaN}".to_vec(), "not valid JSON"),
        (b"{\"a\":1 \"b\":2}".to_vec(), "not valid JSON"),
        (b"{} {}".to_vec(), "not valid JSON"),
        (b"{}]".to_vec(), "not valid JSON"),
        (b"{}\0".to_vec(), "not valid JSON"),
        (
            bytes(&[b"\xef\xbb\xbf", b"{\"name\":\"a\"}"]),
            "byte order mark",
        ),
        (utf16.clone(), "UTF-16"),
        (utf16_be.clone(), "UTF-16"),
        (bytes(&[b"\xff\xfe", &utf16]), "UTF-16"),
        (bytes(&[b"\xfe\xff", &utf16_be]), "UTF-16"),
        (b"{\"name\":\"\xff\"}".to_vec(), "not UTF-8"),
        (b"{\"unknown\":\"\xc3\"}".to_vec(), "not UTF-8"),
        (b"{\"\xed\xa0\x80\":1}".to_vec(), "not UTF-8"),
        (b"\x80".to_vec(), "not UTF-8"),
        (nested(128).into(), "128 levels"),
        (nested(100_000).into(), "128 levels"),
        ("[".repeat(100_000).into(), "128 levels"),
        ("{\"a\":".repeat(100_000).into(), "128 levels"),
    ] {
        for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            assert_error(ask(verb, &input), 6, text);
        }
    }
}

#[test]
fn unknown_keys_may_have_any_value() {
    let deep = "[".repeat(127) + &"]".repeat(127);
    for member in [
        r#""":"""#,
        r#""\ud800":"\udfff\ud800""#,
        r#""a":1e400,"b":-0.0E-9"#,
        r#""a":[null,true,{"a":{}}],"a":7"#,
        r#""capabilities":{"portMappings":true},"runtimeConfig":{"portMappings":[]},"args":7,"ipam":[],"dns":0,"type":7"#,
        &format!(r#""a":{deep}"#),
        &format!(r#""{}":0"#, "k".repeat(100_000)),
        &vec![r#""a":0"#; 1000].join(","),
    ] {
        let input = with_result("1.0.0", "null").replacen('{', &format!("{{{member},"), 1);
        assert_eq!(
            ask("ADD", &input).succeeded().stdout,
            "{\"cniVersion\":\"1.0.0\"}\n"
        );
    }
}

#[test]
fn input_is_limited_to_16_mib() {
    let configuration = with_result("1.0.0", "null");
    let padded = |length: usize| configuration.clone() + &" ".repeat(length - configuration.len());
    assert_eq!(ask("DEL", &padded(LIMIT)).succeeded().stdout, "");
    for verb in ["ADD", "DEL"] {
        let error = assert_error(
            ask(verb, &padded(LIMIT + 1)),
            6,
            "larger than 16777216 bytes",
        );
        assert_eq!(error["cniVersion"], "1.0.0");
    }
}

#[test]
fn memory_is_less_than_three_times_a_document_of_many_parts() {
    let base = base();
    for (start, part, end, code) in [
        ("", r#""":0"#, "}", Some(6)),
        ("", r#""name":"a""#, "}", Some(6)),
        ("", r#""redirect":{}"#, "}", Some(6)),
        (r#""redirect":{"#, r#""":0"#, "}}", Some(7)),
        (r#""redirect":{"ports":["#, "1", "]}}", Some(7)),
        (r#""redirect":{"excludeCIDRs":["#, r#""""#, "]}}", Some(7)),
        (
            r#""kubernetes":{"kubeConfig":"/k","excludeNamespaces":["#,
            "1",
            "]}}",
            Some(7),
        ),
        (r#""unknown":["#, "1", "]}", None),
        (r#""prevResult":{"#, r#""":0"#, "}}", None),
        (r#""prevResult":{"#, r#""cniVersion":"""#, "}}", None),
        (r#""prevResult":{"ips":["#, "0", "]}}", Some(6)),
        (
            r#""prevResult":{"ips":["#,
            r#"{"address":"1.2.3.4/8"}"#,
            "]}}",
            None,
        ),
        (r#""prevResult":{"routes":["#, "{}", "]}}", None),
        (r#""prevResult":{"dns":{"search":["#, r#""""#, "]}}}", None),
    ] {
        let parts = vec![part; LARGE / (part.len() + 1)].join(",");
        assert_bounded(base, &format!("{BEGINNING},{start}{parts}{end}"), code);
    }
}

#[test]
fn memory_is_less_than_three_times_a_document_with_one_large_part() {
    let base = base();
    let text = "x".repeat(LARGE);
    let digits = "1".repeat(LARGE);
    for (rest, code) in [
        (format!(r#""\n{text}":0}}"#), None),
        (format!(r#""name":"\n{text}"}}"#), Some(7)),
        (format!(r#""cniVersion":"\n{text}"}}"#), Some(7)),
        (
            format!(r#""kubernetes":{{"kubeConfig":"\n{text}"}}}}"#),
            Some(7),
        ),
        (format!(r#""redirect":{{"proxyPort":{digits}}}}}"#), Some(7)),
        (
            format!(r#""prevResult":{{"cniVersion":"\n{text}"}}}}"#),
            Some(1),
        ),
        (
            format!(r#""prevResult":{{"ips":[{{"address":"\n{text}"}}]}}}}"#),
            Some(6),
        ),
        (
            format!(r#""prevResult":{{"ips":[{{"interface":{digits}}}]}}}}"#),
            Some(6),
        ),
        (format!(r#""prevResult":"{text}"}}"#), Some(6)),
        ("\"a\":[{".repeat(LARGE / 6), Some(6)),
        (" ".repeat(LARGE), Some(6)),
        ("\0".repeat(LARGE), Some(6)),
        ("\u{e4}".repeat(LARGE / 2), Some(6)),
    ] {
        assert_bounded(base, &format!("{BEGINNING},{rest}"), code);
    }
}

/// The address space that the executable needs for a small input, in bytes.
fn base() -> usize {
    let is_enough = |limit: &usize| bounded(*limit, &format!("{BEGINNING}}}")).code == Some(0);
    let mut steps = (1..64).map(|mebibytes| mebibytes << 20);
    steps.find(is_enough).expect("less than 64 MiB")
}

#[track_caller]
fn assert_bounded(base: usize, input: &str, code: Option<u64>) {
    // A version that is replaced in many places makes the reply larger than the input.
    let reply = run_with_input(&mut plugin("ADD"), input).stdout;
    let outcome = bounded(base + 3 * input.len().max(reply.len()), input);
    match code {
        Some(code) => drop(assert_error(outcome, code, "")),
        None => assert_eq!(outcome.code, Some(0), "{}", outcome.stderr),
    }
}

/// Runs the plugin in an address space of `limit` bytes.
fn bounded(limit: usize, input: &str) -> Outcome {
    let plugin = plugin("ADD");
    let mut bounded = Command::new("/bin/sh");
    bounded
        .args([
            "-c",
            &format!("ulimit -v {} && exec \"$0\" msm-cni", limit >> 10),
        ])
        .arg(executable())
        .env_clear()
        .envs(
            plugin
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        );
    run_with_input(&mut bounded, input)
}
