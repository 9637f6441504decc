//! Entry points of the fuzz targets in fuzz/, one for each kind of input from outside. Each
//! takes the input's bytes and panics if a property does not hold.

#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is the result of a check"
)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::plugin::{self, Outcome, SECRET, assert_printable};
use crate::cni::request::Request;
use crate::decision::{Decision, decide};
use crate::kube::client::Client;
use crate::kube::config::client_config::ClientConfig;
use crate::kube::config::fields::DataOrFile;
use crate::kube::config::kubeconfig::{Kubeconfig, TlsVerify};
use crate::kube::config::yaml::parse as parse_yaml;
use crate::kube::tls::PemIdentity;
use crate::kube::{Pod, Server};
use crate::process::Vars;
use crate::redirect::Redirect;
use crate::redirect::diff::{Listed, Listing};
use crate::redirect::id::Id;
use crate::redirect::nft::attributes::{Attributes, attribute, attributes};
use crate::redirect::nft::compile::{compile, decompile};
use crate::redirect::nft::expression::{Expression, decode, encode};
use crate::redirect::nft::list::heading;
use crate::redirect::nft::netlink::{Reply, replies};
use crate::redirect::rules::{RuleSet, Scope};
use crate::text::error_chain;

const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];
const POD: &str = "K8S_POD_NAMESPACE=media;K8S_POD_NAME=web;K8S_POD_UID=1";
/// Needs no API server: the pod's namespace is excluded.
const CONFIGURATION: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"msm-cni","kubernetes":{"kubeConfig":"/nowhere/k","excludeNamespaces":["media"]},"prevResult":{"cniVersion":"1.0.0","ips":[]}}"#;

/// A network configuration on standard input, for every verb.
pub fn configuration(stdin: &[u8]) {
    for verb in VERBS {
        Outcome::of(&plugin::environment(verb, POD), stdin).check(verb);
    }
    let without_pod = plugin::environment("ADD", "");
    let outcome = Outcome::of(&without_pod, stdin);
    outcome.check("ADD");
    assert_eq!(Outcome::of(&without_pod, stdin), outcome, "two runs differ");
    if outcome.succeeded() {
        plugin::check_relayed(stdin, &outcome.stdout);
    }
}

/// A valid configuration with a valid prevResult, which must be relayed.
pub fn valid_result(stdin: &[u8]) {
    let outcome = Outcome::of(&plugin::environment("ADD", ""), stdin);
    assert!(
        outcome.succeeded(),
        "{}",
        String::from_utf8_lossy(&outcome.stdout)
    );
    plugin::check_relayed(stdin, &outcome.stdout);
}

/// The environment: one value per line, in the order of `names`.
pub fn environment(lines: &[u8]) {
    let names = [
        "CNI_COMMAND",
        "CNI_CONTAINERID",
        "CNI_IFNAME",
        "CNI_PATH",
        "CNI_NETNS",
        "CNI_ARGS",
        "CNI_NETNS_OVERRIDE",
    ];
    let value = |line: &[u8], name: &str| match name {
        // No path may exist.
        "CNI_NETNS" if !line.is_empty() => [b"/nowhere/", line].concat(),
        _ => line.to_vec(),
    };
    let vars: Vars = names
        .iter()
        .zip(lines.split(|byte| *byte == b'\n'))
        .map(|(name, line)| (*name, OsString::from(OsStr::from_bytes(&value(line, name)))))
        .collect();
    let Some(command) = vars.get("CNI_COMMAND") else {
        return;
    };
    let outcome = Outcome::of(&vars, CONFIGURATION.as_bytes());
    outcome.check(&command.to_string_lossy());
    match Request::from_vars(command, &vars) {
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("CNI_"), "names no variable: {error}");
        }
        Ok(Request { pod: Some(pod), .. }) => {
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let names = [Some(&pod.namespace), Some(&pod.name), pod.uid.as_ref()];
            for name in names.into_iter().flatten() {
                assert!(name.bytes().all(safe), "unsafe in a URL: {name:?}");
            }
            assert!(!pod.name.split('.').any(str::is_empty), "{:?}", pod.name);
        }
        Ok(_) => {}
    }
}

/// A kubeconfig, YAML or JSON.
pub fn kubeconfig(text: &[u8]) {
    let parsed = Kubeconfig::parse(text);
    assert_eq!(
        parsed,
        Kubeconfig::parse(text),
        "two runs parse differently"
    );
    let shown = match &parsed {
        Ok(config) => format!("{config:?}"),
        Err(error) => format!("{} {error:?}", error_chain(error)),
    };
    let text = String::from_utf8_lossy(text);
    let json: Option<Value> = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok();
    let yaml = parse_yaml(&text).ok();
    let quotable = [&json, &yaml]
        .into_iter()
        .flatten()
        .any(|document| has_quotable_secret(document, true));
    assert!(quotable || !shown.contains(SECRET), "secret in: {shown}");
    if let (Some(yaml), Some(json)) = (yaml, json) {
        assert!(is_equivalent(&yaml, &json), "YAML {yaml}, JSON {json}");
    }
    let Ok(config) = parsed else {
        return;
    };
    let again = Server::parse(&config.server.to_string());
    assert_eq!(
        again.as_ref(),
        Ok(&config.server),
        "its URL parses differently"
    );
    if let Err(error) = Client::new(&without_files(config)) {
        let error = error_chain(&error);
        assert!(!error.contains(SECRET), "secret in: {error}");
    }
}

/// The client's configuration, without the files that the kubeconfig names.
fn without_files(config: Kubeconfig) -> ClientConfig {
    let data = |source| match source {
        DataOrFile::Data(bytes) => Some(bytes),
        DataOrFile::File(_) => None,
    };
    ClientConfig {
        server: config.server,
        tls_server_name: config.tls_server_name,
        ca_bundle: match config.tls_verify {
            TlsVerify::CaBundle(bundle) => data(bundle),
            TlsVerify::Skip => None,
        },
        token: None,
        identity: config.client_certificate.and_then(|client| {
            Some(PemIdentity {
                certificate: data(client.certificate)?,
                key: data(client.key)?,
            })
        }),
    }
}

/// The API server's response to a pod lookup, up to the rules of the pod's redirect.
pub fn pod(body: &[u8]) {
    let read = || Pod::from_json(body);
    assert_eq!(
        format!("{:?}", read()),
        format!("{:?}", read()),
        "two runs parse differently"
    );
    let Ok(pod) = read() else {
        return;
    };
    assert!(!pod.uid.is_empty());
    match decide(&pod, &Redirect::default()) {
        Err(error) => assert_printable(&error_chain(&error)),
        Ok(Decision::PassThrough(_)) => {}
        Ok(Decision::Redirect { redirect, .. }) => {
            assert!(!redirect.ports.is_empty(), "a redirect without a port");
            Scope::ALL
                .iter()
                .filter_map(|scope| RuleSet::new(&redirect, *scope))
                .for_each(|set| check_encoding(&set));
        }
    }
}

/// Asserts that the kernel's form of each rule decodes to the same rule.
fn check_encoding(set: &RuleSet) {
    for rule in set.chains.iter().flat_map(|chain| &chain.rules) {
        assert_printable(&rule.to_string());
        let expressions = compile(rule, set.scope);
        let mut list = Attributes::default();
        encode(&expressions, &mut list);
        let read = list.as_bytes().map(decode).unwrap_or_default();
        assert_eq!(read, expressions, "{rule}");
        assert_eq!(decompile(&read, set.scope).as_ref(), Some(rule), "{rule}");
    }
}

/// The kernel's replies on a netlink socket: messages, attributes, chains and rules.
pub fn netlink(bytes: &[u8]) {
    let read: Vec<_> = replies(bytes).collect();
    assert!(
        read.len() <= bytes.len().div_ceil(16),
        "more messages than fit"
    );
    let first_error = read.iter().position(Result::is_err);
    assert!(
        first_error.is_none_or(|index| index + 1 == read.len()),
        "parsing continued after an error"
    );
    let mut listing = Listing::default();
    for (index, reply) in read.iter().flatten().enumerate() {
        let Reply::Object {
            attributes: object, ..
        } = reply
        else {
            continue;
        };
        for scope in Scope::ALL {
            listing.0.push(Listed {
                id: Id::Chain {
                    scope,
                    chain: index.to_string(),
                },
                heading: heading(object),
                rules: attributes(object)
                    .map(|it| rule_text(it.value, scope))
                    .collect(),
            });
        }
    }
    assert_eq!(listing.diff(&listing), None);
    assert_eq!(
        listing.diff(&Listing::default()).is_none(),
        listing.0.is_empty()
    );
}

fn rule_text(list: &[u8], scope: Scope) -> String {
    let total: usize = attributes(list).map(|it| it.value.len() + 4).sum();
    assert!(total <= list.len(), "attributes are longer than their list");
    let first = attributes(list).next();
    assert!(first.is_none_or(|it| attribute(list, it.kind) == Some(it.value)));

    let expressions = decode(list);
    let mut again = Attributes::default();
    encode(&expressions, &mut again);
    if let Some(bytes) = again.as_bytes() {
        assert_eq!(
            decode(bytes),
            expressions,
            "encoded and decoded differently"
        );
    }
    match decompile(&expressions, scope) {
        Some(rule) => {
            assert_eq!(compile(&rule, scope), expressions, "{rule}");
            assert_printable(&rule.to_string());
            rule.to_string()
        }
        None => expressions.iter().map(Expression::to_string).collect(),
    }
}

/// Whether the secret is where an error may quote it: anywhere but in a credential.
fn has_quotable_secret(value: &Value, may_quote: bool) -> bool {
    const CREDENTIALS: [&str; 4] = [
        "token",
        "password",
        "client-key-data",
        "client-certificate-data",
    ];
    match value {
        Value::String(text) => may_quote && text.contains(SECRET),
        Value::Array(items) => items
            .iter()
            .any(|item| has_quotable_secret(item, may_quote)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let may_quote = !CREDENTIALS.contains(&key.as_str());
            key.contains(SECRET) || has_quotable_secret(value, may_quote)
        }),
        _ => false,
    }
}

/// Compares a document's YAML and JSON values. The YAML parser reads plain scalars as strings
/// where JSON has numbers.
fn is_equivalent(yaml: &Value, json: &Value) -> bool {
    match (yaml, json) {
        (Value::String(_), Value::Number(_)) => true,
        (Value::Array(yaml), Value::Array(json)) => {
            yaml.len() == json.len()
                && yaml
                    .iter()
                    .zip(json)
                    .all(|(yaml, json)| is_equivalent(yaml, json))
        }
        (Value::Object(yaml), Value::Object(json)) => {
            let same = |(key, json)| yaml.get(key).is_some_and(|yaml| is_equivalent(yaml, json));
            yaml.len() == json.len() && json.iter().all(same)
        }
        (yaml, json) => yaml == json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Fuzzing needs a nightly toolchain; this test checks its corpus without one.
    #[test]
    fn checks_hold_for_the_fuzzing_corpus() {
        corpus("configuration", configuration);
        corpus("environment", environment);
        corpus("kubeconfig", kubeconfig);
        corpus("pod", pod);
        corpus("netlink", netlink);
    }

    #[expect(
        clippy::print_stdout,
        reason = "shown on failure: the last file failed"
    )]
    fn corpus(target: &str, check: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let mut files = 0;
        for entry in corpus.read_dir().unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            check(&std::fs::read(path).unwrap());
            files += 1;
        }
        assert!(files > 0, "{} is empty", corpus.display());
    }
}
