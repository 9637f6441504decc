//! The documents that the plugin writes to standard output: the previous result, the
//! supported versions, or an error. Pure.

use std::borrow::Cow;

use serde_json::json;
use serde_json::value::RawValue;

use super::config::Network;
use super::prev_result::{self, Violation};
use super::version::Version;
use crate::json::{self, Error as JsonError, Kind};
use crate::text::{excerpt, truncate};

/// In bytes: `"cniVersion":"1.0.0",` and the final newline.
const VERSION_MEMBER_BYTES: usize = 32;
/// In bytes. Longer than a supported version whose characters are all written as escapes.
const LONGEST_VERSION: usize = 64;
/// In characters. The plugin's own longest messages, with what they quote, have about 1,000.
const LONGEST_TEXT: usize = 2048;

/// Why the previous result cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the network configuration has no prevResult, which CNI version {version} requires")]
    Missing { version: &'static str },
    #[error("cannot parse prevResult")]
    Decode { source: JsonError },
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error("prevResult has CNI version {actual:?}, which cannot be converted to {expected}")]
    Version {
        actual: String,
        expected: &'static str,
    },
}

/// The result of ADD: the previous plugin's result with this configuration's version.
pub fn result(network: &Network) -> Result<String, Error> {
    let version = network.version;
    match network.prev_result {
        Some(raw) => relay(raw, version),
        None if version >= Version::WITH_CHAINING => {
            Ok(format!("{{\"cniVersion\":\"{}\"}}", version.name()))
        }
        None => Err(Error::Missing {
            version: version.name(),
        }),
    }
}

/// Checks a previous result, if there is one, as ADD does.
pub fn check(network: &Network) -> Result<(), Error> {
    match network.prev_result {
        Some(raw) => relay(raw, network.version).map(drop),
        None => Ok(()),
    }
}

fn relay(raw: &RawValue, version: Version) -> Result<String, Error> {
    let (result, previous) =
        with_cni_version(raw.get(), version).map_err(|source| Error::Decode { source })?;
    // libcni, too, treats a result without a version as one of the configuration's version.
    if let Some(previous) = previous.and_then(version_text)
        && !previous.is_empty()
        && !Version::parse(&previous).is_some_and(|it| it.same_result_format(version))
    {
        return Err(Error::Version {
            actual: excerpt(&previous),
            expected: version.name(),
        });
    }
    prev_result::check(raw, version)?;
    Ok(result)
}

/// The content of a string; its JSON text if that is too long or not valid Unicode. `None`
/// for other types.
fn version_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json_text = raw.get();
    match Kind::of(raw) {
        Kind::String if json_text.len() > LONGEST_VERSION => Some(Cow::Borrowed(json_text)),
        Kind::String => Some(json::string(raw).unwrap_or(Cow::Borrowed(json_text))),
        _ => None,
    }
}

/// Replaces every `cniVersion` of the object `text`, or adds one, and copies all other bytes
/// unchanged. Also returns the last value replaced, which is the object's version.
fn with_cni_version(
    text: &str,
    version: Version,
) -> Result<(String, Option<&RawValue>), JsonError> {
    let quoted = format!("\"{}\"", version.name());
    let mut output = String::with_capacity(text.len() + VERSION_MEMBER_BYTES);
    let (mut copied, mut separator, mut previous) = (0, "", None);
    json::members(text, |key, value| {
        separator = ",";
        if key == "cniVersion" {
            let span = json::span(text, value.get());
            output.push_str(text.get(copied..span.start).unwrap_or_default());
            output.push_str(&quoted);
            copied = span.end;
            previous = Some(value);
        }
    })?;
    if previous.is_none() {
        copied = "{".len();
        output = output + "{\"cniVersion\":" + &quoted + separator;
    }
    output.push_str(text.get(copied..).unwrap_or_default());
    Ok((output, previous))
}

/// The reply to VERSION.
pub fn versions() -> String {
    let supported: Vec<&str> = Version::names().collect();
    json!({ "cniVersion": Version::LATEST.name(), "supportedVersions": supported }).to_string()
}

/// The error document of the specification. Both texts may quote input of any length and
/// content; they are truncated, and control characters are replaced.
pub fn error(version: Version, code: u32, msg: &str, details: &str) -> String {
    let msg = printable(msg, char::is_control);
    // Keeps the lines of a tool's output.
    let details = printable(details, |character| {
        character.is_control() && character != '\n'
    });
    json!({ "cniVersion": version.name(), "code": code, "msg": msg, "details": details })
        .to_string()
}

fn printable(text: &str, is_unprintable: impl Fn(char) -> bool) -> String {
    truncate(text, LONGEST_TEXT).replace(is_unprintable, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(version: &str, prev_result: &str) -> Result<String, Error> {
        let text = format!(r#"{{"cniVersion":"{version}","name":"n","prevResult":{prev_result}}}"#);
        result(&Network::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn only_cni_version_is_replaced() {
        for (previous, relayed) in [
            (
                r#"{ "b\u0061" : 1e400, "cniVersion" : "0.3.1" , "a":{"z": 9007199254740993} , "a":"\ud800"}"#,
                r#"{ "b\u0061" : 1e400, "cniVersion" : "0.4.0" , "a":{"z": 9007199254740993} , "a":"\ud800"}"#,
            ),
            (
                r#"{"cni\u0056ersion":"0.3.0","cniVersion":null,"cniVersion":"0.\u0033.1"}"#,
                r#"{"cni\u0056ersion":"0.4.0","cniVersion":"0.4.0","cniVersion":"0.4.0"}"#,
            ),
            (
                "{\n\t\"ips\": [] }",
                "{\"cniVersion\":\"0.4.0\",\n\t\"ips\": [] }",
            ),
            (r#"{"cniVersion": ""}"#, r#"{"cniVersion": "0.4.0"}"#),
            ("{ }", r#"{"cniVersion":"0.4.0" }"#),
        ] {
            assert_eq!(reply("0.4.0", previous).unwrap(), relayed, "{previous}");
        }
    }

    #[test]
    fn result_is_converted_only_within_its_format() {
        let formats = [
            &["0.1.0", "0.2.0"][..],
            &["0.3.0", "0.3.1", "0.4.0"],
            &["1.0.0", "1.1.0"],
        ];
        let versions = || {
            let formats = formats.iter().enumerate();
            formats.flat_map(|(format, versions)| versions.iter().map(move |it| (format, it)))
        };
        for (format, version) in versions() {
            for (previous_format, previous) in versions() {
                let reply = reply(version, &format!(r#"{{"cniVersion":"{previous}","k":1}}"#));
                if format == previous_format {
                    assert_eq!(
                        reply.unwrap(),
                        format!(r#"{{"cniVersion":"{version}","k":1}}"#)
                    );
                } else {
                    assert!(
                        matches!(reply, Err(Error::Version { .. })),
                        "{previous} as {version}"
                    );
                }
            }
        }
    }

    #[test]
    fn long_error_texts_are_truncated() {
        let document = error(Version::LATEST, 7, &"ä".repeat(10_000), "short");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let msg = document["msg"].as_str().unwrap();
        assert_eq!(msg.chars().count(), LONGEST_TEXT + 1);
        assert!(msg.ends_with("ä…"));
        assert_eq!(document["details"], "short");
    }

    #[test]
    fn control_characters_in_error_texts_are_replaced() {
        let text = "/a\nb\u{7f}\0\tc";
        let document = error(Version::LATEST, 7, text, text);
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["msg"], "/a b   c");
        assert_eq!(document["details"], "/a\nb   c");
    }

    #[test]
    fn missing_result_is_an_error_only_before_chaining() {
        assert_eq!(reply("0.4.0", "null").unwrap(), r#"{"cniVersion":"0.4.0"}"#);
        assert!(matches!(reply("0.2.0", "null"), Err(Error::Missing { .. })));
    }

    #[test]
    fn invalid_result_is_not_relayed() {
        assert!(matches!(reply("1.0.0", "[]"), Err(Error::Decode { .. })));
        for result in [r#"{"cniVersion":7}"#, r#"{"ips":[{"address":"10.0.0.1"}]}"#] {
            assert!(
                matches!(reply("1.0.0", result), Err(Error::Violation(_))),
                "{result}"
            );
        }
        for version in [r#""2.0.0""#, r#""\ud800""#] {
            let result = format!(r#"{{"cniVersion":{version}}}"#);
            assert!(
                matches!(reply("1.0.0", &result), Err(Error::Version { .. })),
                "{result}"
            );
        }
    }
}
