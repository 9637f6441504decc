//! Renders the plugin entry from the template of `--cni-network-config`. Pure.

use serde_json::Value;

use super::conflist::List;
use super::plugin::plugin_type;
use crate::json::{self, Object};
use crate::names::CNI_APPLET;

/// The values of the placeholders.
pub struct Values<'a> {
    pub log_level: &'a str,
    pub kubeconfig_name: &'a str,
    pub kubeconfig_path: &'a str,
    pub service_host: &'a str,
    pub service_port: &'a str,
    pub node_name: &'a str,
    /// `None` if there is no token yet.
    pub token: Option<&'a str>,
}

const TOKEN: &str = "__SERVICEACCOUNT_TOKEN__";

/// The rendered template: one JSON object of type `msm-cni`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub text: String,
    pub secrecy: Secrecy,
}

/// Whether the entry contains the service account's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    Public,
    HoldsToken,
}

/// Why a template does not render to a plugin configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Json { source: json::Error },
    #[error("type is {found:?}, not \"{CNI_APPLET}\"")]
    Type { found: String },
    #[error("the container runtime would refuse the network configuration")]
    Refused { source: super::error::Error },
    #[error("name is missing, which a stand-alone file requires")]
    NoName,
    #[error("it contains {TOKEN}, and there is no token yet")]
    NoToken,
}

/// Replaces the placeholders, which are inside JSON strings, by the escaped values.
pub fn render(template: &str, values: &Values) -> Result<Entry, Error> {
    let secrecy = if template.contains(TOKEN) {
        Secrecy::HoldsToken
    } else {
        Secrecy::Public
    };
    let token = match (secrecy, values.token) {
        (Secrecy::HoldsToken, None) => return Err(Error::NoToken),
        (_, token) => token.unwrap_or_default(),
    };
    let placeholders = [
        ("__LOG_LEVEL__", values.log_level),
        ("__KUBECONFIG_FILENAME__", values.kubeconfig_name),
        ("__KUBECONFIG_FILEPATH__", values.kubeconfig_path),
        ("__KUBERNETES_SERVICE_HOST__", values.service_host),
        ("__KUBERNETES_SERVICE_PORT__", values.service_port),
        ("__KUBERNETES_NODE_NAME__", values.node_name),
        (TOKEN, token),
    ];
    let text = substitute(template.trim(), &placeholders);
    let object = Object::parse(text.as_bytes()).map_err(|source| Error::Json { source })?;
    let found = plugin_type(&object).map_err(|source| Error::Refused { source })?;
    if found != CNI_APPLET {
        return Err(Error::Type { found });
    }
    // Within a list the entry is nested deeper.
    let list = format!(r#"{{"name": "any", "plugins": [{text}]}}"#);
    List::parse(list.as_bytes()).map_err(|source| Error::Refused { source })?;
    Ok(Entry { text, secrecy })
}

/// Replaces all placeholders in one pass, so that a value that looks like one is kept.
fn substitute(template: &str, placeholders: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("__") {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let found = placeholders
            .iter()
            .find_map(|(name, value)| Some((from.strip_prefix(name)?, value)));
        rest = if let Some((after, value)) = found {
            text.push_str(&escaped(value));
            after
        } else {
            let (underscore, after) = from.split_at(1);
            text.push_str(underscore);
            after
        };
    }
    text + rest
}

/// The text in the form that JSON strings require, without quotes.
fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    let inner = quoted
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::error_chain;

    const VALUES: Values = Values {
        log_level: "info",
        kubeconfig_name: "ZZZ-kubeconfig",
        kubeconfig_path: "/etc/cni/net.d/ZZZ-kubeconfig",
        service_host: "10.96.0.1",
        service_port: "443",
        node_name: "node \"1\"\\",
        token: Some("__LOG_LEVEL__"),
    };

    #[test]
    fn placeholders_are_replaced_by_escaped_values() {
        let template = r#"
            {"type": "msm-cni", "a": "__LOG_LEVEL__ __KUBECONFIG_FILENAME__", "b": "x__KUBECONFIG_FILEPATH__",
             "c": "__KUBERNETES_SERVICE_HOST__:__KUBERNETES_SERVICE_PORT__", "d": "__KUBERNETES_NODE_NAME__",
             "e": "__SERVICEACCOUNT_TOKEN__", "f": "__UNKNOWN__", "g": "___LOG_LEVEL___"}
        "#;
        let entry = render(template, &VALUES).unwrap();
        assert_eq!(entry.secrecy, Secrecy::HoldsToken);
        let value: Value = serde_json::from_str(&entry.text).unwrap();
        for (key, expected) in [
            ("a", "info ZZZ-kubeconfig"),
            ("b", "x/etc/cni/net.d/ZZZ-kubeconfig"),
            ("c", "10.96.0.1:443"),
            ("d", "node \"1\"\\"),
            ("e", "__LOG_LEVEL__"),
            ("f", "__UNKNOWN__"),
            ("g", "_info_"),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
    }

    #[test]
    fn template_that_runtimes_would_refuse_is_an_error() {
        for (template, sentence) in [
            ("", "empty"),
            ("[]", "an array, not an object"),
            ("{", "not valid JSON"),
            ("{}", "has no type"),
            (r#"{"type": ""}"#, "has no type"),
            (
                r#"{"type": "bridge"}"#,
                "type is \"bridge\", not \"msm-cni\"",
            ),
            (
                r#"{"type": "msm-cni", "Type": "bridge"}"#,
                "type is \"bridge\", not \"msm-cni\"",
            ),
            (r#"{"type": 7}"#, "type has the wrong JSON type"),
            // YAML parses an unquoted version as a number.
            (
                r#"{"type": "msm-cni", "cniVersion": 1.0}"#,
                "cniVersion has the wrong JSON type",
            ),
            (
                r#"{"type": "msm-cni", "NAME": {}}"#,
                "name has the wrong JSON type",
            ),
            (
                r#"{"type": "msm-cni", "capabilities": ["bandwidth"]}"#,
                "capabilities has the wrong JSON type",
            ),
            (
                r#"{"type": "msm-cni", "ipam": {"type": 1}}"#,
                "type has the wrong JSON type",
            ),
            (
                r#"{"type": "msm-cni", "dns": {"search": "a.b"}}"#,
                "search has the wrong JSON type",
            ),
            (
                r#"{"type": "msm-cni"}, {"type": "msm-cni"}"#,
                "not valid JSON",
            ),
        ] {
            let error = error_chain(&render(template, &VALUES).unwrap_err());
            assert!(error.contains(sentence), "{template}: {error}");
        }
    }

    #[test]
    fn template_that_is_nested_too_deeply_for_a_list_is_an_error() {
        let template = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"type": "msm-cni", "a": {open}{close}}}"#)
        };
        assert!(render(&template(125), &VALUES).is_ok());
        let error = error_chain(&render(&template(126), &VALUES).unwrap_err());
        assert!(error.contains("nested deeper"), "{error}");
    }

    #[test]
    fn template_with_token_requires_a_token() {
        let template = r#"{"type": "msm-cni", "token": "__SERVICEACCOUNT_TOKEN__"}"#;
        let values = Values {
            token: None,
            ..VALUES
        };
        assert!(matches!(render(template, &values), Err(Error::NoToken)));
        let template = r#"{"type": "msm-cni"}"#;
        assert_eq!(render(template, &values).unwrap().secrecy, Secrecy::Public);
    }
}
