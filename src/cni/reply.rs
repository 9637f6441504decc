//! What goes to standard output: the previous result, the versions, an error. Pure.

use serde_json::json;

use super::config::Network;
use super::version::Version;
use crate::json::{Error as JsonError, Object};

/// Why there is no result to hand on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the configuration holds no prevResult, and a result of CNI version {version} cannot be empty; chain this plugin behind one that makes a network"
    )]
    Missing { version: &'static str },
    #[error("prevResult cannot be read")]
    Decode { source: JsonError },
    #[error(
        "prevResult is of CNI version {found:?}, which cannot be handed on as {wanted}; give all plugins of the chain one cniVersion"
    )]
    Version { found: String, wanted: &'static str },
}

/// The result of ADD: the previous plugin's as it came, labelled with our version.
pub fn result(network: &Network) -> Result<String, Error> {
    let version = network.version;
    let label = json!(version.name()).to_string();
    let Some(raw) = network.prev_result else {
        return if version >= Version::WITH_CHAINS {
            Ok(format!("{{\"cniVersion\":{label}}}"))
        } else {
            Err(Error::Missing {
                version: version.name(),
            })
        };
    };
    let object = Object::from_raw(raw).map_err(|source| Error::Decode { source })?;
    let Some(found) = object.get("cniVersion") else {
        return Ok(object.with("cniVersion", &label));
    };
    if found.get() == label {
        return Ok(raw.get().to_owned());
    }
    let found: String = serde_json::from_str(found.get()).map_err(|source| Error::Decode {
        source: JsonError::Syntax { source },
    })?;
    match Version::parse(&found) {
        Some(found) if found.same_result_format(version) => Ok(object.with("cniVersion", &label)),
        _ => Err(Error::Version {
            found: super::request::excerpt(&found),
            wanted: version.name(),
        }),
    }
}

/// The answer to VERSION.
pub fn versions() -> String {
    let supported: Vec<&str> = Version::names().collect();
    json!({ "cniVersion": Version::LATEST.name(), "supportedVersions": supported }).to_string()
}

/// An error as the specification wants it.
pub fn error(version: Version, code: u32, msg: &str, details: &str) -> String {
    json!({ "cniVersion": version.name(), "code": code, "msg": msg, "details": details })
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(version: &str, prev_result: &str) -> Result<String, Error> {
        let text = format!(r#"{{"cniVersion":"{version}","name":"n","prevResult":{prev_result}}}"#);
        result(&Network::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_previous_result_is_handed_on_as_it_came() {
        let raw = r#"{ "ips": [ {"address":"10.0.0.2/24"} ], "x-unknown": 1e400, "cniVersion":"1.0.0", "a": 9007199254740993 }"#;
        assert_eq!(reply("1.0.0", raw).unwrap(), raw);
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
    fn without_a_previous_result_chains_go_on_and_older_versions_fail() {
        assert_eq!(reply("0.4.0", "null").unwrap(), r#"{"cniVersion":"0.4.0"}"#);
        assert!(matches!(reply("0.2.0", "null"), Err(Error::Missing { .. })));
        assert!(matches!(reply("1.0.0", "[]"), Err(Error::Decode { .. })));
        assert!(matches!(
            reply("1.0.0", "{\"cniVersion\":7}"),
            Err(Error::Decode { .. })
        ));
    }
}
