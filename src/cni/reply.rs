//! What goes to standard output: the previous result, the versions, an error. Pure.

use std::borrow::Cow;

use serde_json::json;
use serde_json::value::RawValue;

use crate::cni::config::Network;
use crate::cni::prev_result::{self, Violation};
use crate::cni::version::Version;
use crate::json::{self, Error as JsonError, Kind};
use crate::text::excerpt;

/// Room for `"cniVersion":"1.0.0",` and a line's end.
const LABEL_BYTES: usize = 32;
/// Longer than any version in JSON, each of its characters written as an escape.
const LONGEST_VERSION: usize = 64;
/// In characters; the longest of our own sentences, with what they quote, have some 1,000.
const LONGEST_TEXT: usize = 2048;

/// Why there is no result to hand on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the network configuration holds no prevResult, and a result of CNI version {version} cannot be empty; chain this plugin behind one that makes a network"
    )]
    Missing { version: &'static str },
    #[error("prevResult cannot be read; a plugin before this one in the chain made it")]
    Decode { source: JsonError },
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(
        "prevResult is of CNI version {found:?}, which cannot be handed on as {wanted}; give all plugins of the chain one cniVersion"
    )]
    Version { found: String, wanted: &'static str },
}

/// The result of ADD: the previous plugin's as it came, labelled with our version.
pub fn result(network: &Network) -> Result<String, Error> {
    let version = network.version;
    match network.prev_result {
        Some(raw) => hand_on(raw, version),
        None if version >= Version::WITH_CHAINS => {
            Ok(format!("{{\"cniVersion\":\"{}\"}}", version.name()))
        }
        None => Err(Error::Missing {
            version: version.name(),
        }),
    }
}

/// Checks a previous result as ADD does, where there is one.
pub fn check(network: &Network) -> Result<(), Error> {
    match network.prev_result {
        Some(raw) => hand_on(raw, network.version).map(drop),
        None => Ok(()),
    }
}

fn hand_on(raw: &RawValue, version: Version) -> Result<String, Error> {
    let (labelled, found) = label(raw.get(), version).map_err(|source| Error::Decode { source })?;
    // One without a version is of the configuration's, as libcni takes it.
    if let Some(found) = found.and_then(text_of)
        && !found.is_empty()
        && !Version::parse(&found).is_some_and(|found| found.same_result_format(version))
    {
        return Err(Error::Version {
            found: excerpt(&found),
            wanted: version.name(),
        });
    }
    prev_result::check(raw, version)?;
    Ok(labelled)
}

/// What a version's text says, or how it is written when that can be no version.
fn text_of(version: &RawValue) -> Option<Cow<'_, str>> {
    let as_written = version.get();
    match Kind::of(version) {
        Kind::String if as_written.len() > LONGEST_VERSION => Some(Cow::Borrowed(as_written)),
        Kind::String => Some(json::string(version).unwrap_or(Cow::Borrowed(as_written))),
        _ => None,
    }
}

/// The object `text` with our version in the place of its own, all else byte for byte; and
/// the version that counted.
fn label(text: &str, version: Version) -> Result<(String, Option<&RawValue>), JsonError> {
    let label = format!("\"{}\"", version.name());
    let mut labelled = String::with_capacity(text.len() + LABEL_BYTES);
    let (mut copied, mut separator, mut found) = (0, "", None);
    json::members(text, |key, value| {
        separator = ",";
        if key == "cniVersion" {
            let place = json::span(text, value.get());
            labelled.push_str(text.get(copied..place.start).unwrap_or_default());
            labelled.push_str(&label);
            copied = place.end;
            found = Some(value);
        }
    })?;
    if found.is_none() {
        copied = "{".len();
        labelled = labelled + "{\"cniVersion\":" + &label + separator;
    }
    labelled.push_str(text.get(copied..).unwrap_or_default());
    Ok((labelled, found))
}

/// The answer to VERSION.
pub fn versions() -> String {
    let supported: Vec<&str> = Version::names().collect();
    json!({ "cniVersion": Version::LATEST.name(), "supportedVersions": supported }).to_string()
}

/// An error as the specification wants it. What is wrong may be quoted in it, as long as
/// the input and with anything in it; people read it in an event.
pub fn error(version: Version, code: u32, msg: &str, details: &str) -> String {
    let msg = readable(msg, char::is_control);
    // A tool's output keeps its lines.
    let details = readable(details, |letter| letter.is_control() && letter != '\n');
    json!({ "cniVersion": version.name(), "code": code, "msg": msg, "details": details })
        .to_string()
}

fn readable(text: &str, is_unprintable: impl Fn(char) -> bool) -> String {
    let shown = |letter| if is_unprintable(letter) { ' ' } else { letter };
    let end = text.chars().nth(LONGEST_TEXT).map(|_| '…');
    let start = text.chars().take(LONGEST_TEXT).map(shown);
    start.chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(version: &str, prev_result: &str) -> Result<String, Error> {
        let text = format!(r#"{{"cniVersion":"{version}","name":"n","prevResult":{prev_result}}}"#);
        result(&Network::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn only_the_version_is_written_anew() {
        for (came, handed_on) in [
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
            assert_eq!(reply("0.4.0", came).unwrap(), handed_on, "{came}");
        }
    }

    #[test]
    fn a_result_is_relabelled_inside_its_family_only() {
        let families = [
            &["0.1.0", "0.2.0"][..],
            &["0.3.0", "0.3.1", "0.4.0"],
            &["1.0.0", "1.1.0"],
        ];
        for (index, wanted) in families
            .iter()
            .enumerate()
            .flat_map(|(index, family)| family.iter().map(move |version| (index, version)))
        {
            for (other, found) in families
                .iter()
                .enumerate()
                .flat_map(|(index, family)| family.iter().map(move |version| (index, version)))
            {
                let reply = reply(wanted, &format!(r#"{{"cniVersion":"{found}","k":1}}"#));
                if index == other {
                    assert_eq!(
                        reply.unwrap(),
                        format!(r#"{{"cniVersion":"{wanted}","k":1}}"#)
                    );
                } else {
                    assert!(
                        matches!(reply, Err(Error::Version { .. })),
                        "{found} as {wanted}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_error_is_as_long_as_people_read() {
        let document = error(Version::LATEST, 7, &"ä".repeat(10_000), "short");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        let msg = document["msg"].as_str().unwrap();
        assert_eq!(msg.chars().count(), LONGEST_TEXT + 1);
        assert!(msg.ends_with("ä…"));
        assert_eq!(document["details"], "short");
    }

    #[test]
    fn an_error_is_one_line_and_its_details_are_printable() {
        let text = "/a\nb\u{7f}\0\tc";
        let document = error(Version::LATEST, 7, text, text);
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["msg"], "/a b   c");
        assert_eq!(document["details"], "/a\nb   c");
    }

    #[test]
    fn without_a_previous_result_chains_go_on_and_older_versions_fail() {
        assert_eq!(reply("0.4.0", "null").unwrap(), r#"{"cniVersion":"0.4.0"}"#);
        assert!(matches!(reply("0.2.0", "null"), Err(Error::Missing { .. })));
    }

    #[test]
    fn what_is_no_result_is_not_handed_on() {
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
