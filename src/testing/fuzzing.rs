//! What must hold for anything that others send us: each function takes their bytes and
//! panics where something does not. Only for tests and for fuzzing (`fuzz/`, `scripts/fuzz`):
//! nothing of it is in the executable.

#![expect(
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "to panic is what these are for"
)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::LazyLock;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cni::request::Request;
use crate::decision::{Decision, decide};
use crate::kube::parts::{
    Client, ClientConfig, DataOrFile, Kubeconfig, Server, TlsVerify, parse_yaml,
};
use crate::kube::{Pod, PodRef};
use crate::process::{Process, Vars};
use crate::redirect::Redirect;
use crate::redirect::parts::{
    Attributes, Expression, Family, Listed, Listing, Reply, RuleSet, Scope, attribute, attributes,
    compile, decode, decompile, encode, heading, replies,
};
use crate::text::error_chain;

const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];
const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
const POD: &str = "K8S_POD_NAMESPACE=media;K8S_POD_NAME=web;K8S_POD_UID=1";
/// What no error and no log may repeat where it stands for a secret.
const SECRET: &str = "SESAME";
/// In characters, of each of an error's texts.
const LONGEST_TEXT: usize = 2049;
/// One that needs no API server: everything of it is passed through.
const CONFIGURATION: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"msm-cni","kubernetes":{"kubeConfig":"/nowhere/k","excludeNamespaces":["media"]},"prevResult":{"cniVersion":"1.0.0","ips":[]}}"#;

/// A network configuration on standard input, for every verb.
pub fn configuration(stdin: &[u8]) {
    for verb in VERBS {
        Answer::of(&surroundings(verb, POD), stdin).check(verb);
    }
    let without_pod = surroundings("ADD", "");
    let answer = Answer::of(&without_pod, stdin);
    answer.check("ADD");
    assert_eq!(
        Answer::of(&without_pod, stdin),
        answer,
        "answered alike twice"
    );
    if answer.succeeded() {
        passed_through(stdin, &answer.stdout);
    }
}

/// A configuration that is right, with a result that is: it is handed on.
pub fn result(stdin: &[u8]) {
    let answer = Answer::of(&surroundings("ADD", ""), stdin);
    assert!(
        answer.succeeded(),
        "{}",
        String::from_utf8_lossy(&answer.stdout)
    );
    passed_through(stdin, &answer.stdout);
}

/// The variables of the environment, one a line in the order of the array below.
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
        // Whatever it is, it is nowhere.
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
    let answer = Answer::of(&vars, CONFIGURATION.as_bytes());
    answer.check(&command.to_string_lossy());
    match Request::from_vars(command, &vars) {
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("CNI_"), "names what is wrong: {error}");
        }
        Ok(Request { pod: Some(pod), .. }) => {
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            let names = [Some(&pod.namespace), Some(&pod.name), pod.uid.as_ref()];
            for name in names.into_iter().flatten() {
                assert!(name.bytes().all(safe), "safe in a URL: {name:?}");
            }
            assert!(!pod.name.split('.').any(str::is_empty), "{:?}", pod.name);
        }
        Ok(_) => {}
    }
}

/// A kubeconfig, YAML or JSON.
pub fn kubeconfig(text: &[u8]) {
    let parsed = Kubeconfig::parse(text);
    assert_eq!(parsed, Kubeconfig::parse(text), "read alike twice");
    let told = match &parsed {
        Ok(config) => format!("{config:?}"),
        Err(error) => format!("{} {error:?}", error_chain(error)),
    };
    let text = String::from_utf8_lossy(text);
    let json: Option<Value> = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok();
    let yaml = parse_yaml(&text).ok();
    let quotable = [&json, &yaml]
        .into_iter()
        .flatten()
        .any(|document| holds_secret(document, true));
    assert!(quotable || !told.contains(SECRET), "tells a secret: {told}");
    if let (Some(yaml), Some(json)) = (yaml, json) {
        assert!(alike(&yaml, &json), "YAML {yaml}, JSON {json}");
    }
    let Ok(config) = parsed else {
        return;
    };
    let again = Server::parse(&config.server.to_string());
    assert_eq!(again.as_ref(), Ok(&config.server), "its URL says the same");
    let inline = |material| match material {
        DataOrFile::Inline(bytes) => Some(bytes),
        DataOrFile::File(_) => None,
    };
    let access = ClientConfig {
        server: config.server,
        tls_server_name: config.tls_server_name,
        authorities: match config.trust {
            TlsVerify::CaBundle(bundle) => inline(bundle),
            TlsVerify::Skip => None,
        },
        token: None,
        client: config
            .client
            .and_then(|client| inline(client.certificate).zip(inline(client.key))),
    };
    if let Err(error) = Client::new(&access) {
        let error = error_chain(&error);
        assert!(!error.contains(SECRET), "tells a secret: {error}");
    }
}

/// What the API server answers about a pod, up to the rules that follow from it.
pub fn pod(body: &[u8]) {
    let Ok(wanted) = PodRef::new("media", "web", Some("1")) else {
        return;
    };
    let read = || Pod::from_json(body, &wanted);
    assert_eq!(
        format!("{:?}", read()),
        format!("{:?}", read()),
        "read alike twice"
    );
    let Ok(pod) = read() else {
        return;
    };
    assert!(!pod.uid.is_empty());
    match decide(&pod, &Redirect::default()) {
        Err(error) => printable(&error.to_string()),
        Ok(Decision::PassThrough(_)) => {}
        Ok(Decision::Redirect { redirect, .. }) => {
            assert!(!redirect.ports.is_empty(), "a redirect without a port");
            SCOPES
                .iter()
                .filter_map(|scope| RuleSet::new(&redirect, *scope))
                .for_each(|set| survives_the_kernel(&set));
        }
    }
}

const SCOPES: [Scope; 3] = [
    Scope::Inet,
    Scope::Only(Family::Ipv4),
    Scope::Only(Family::Ipv6),
];

fn survives_the_kernel(set: &RuleSet) {
    for rule in set.chains.iter().flat_map(|chain| &chain.rules) {
        printable(&rule.to_string());
        let expressions = compile(rule, set.scope);
        let mut list = Attributes::default();
        encode(&expressions, &mut list);
        let read = decode(&list.into_bytes());
        assert_eq!(read, expressions, "{rule}");
        assert_eq!(decompile(&read, set.scope).as_ref(), Some(rule), "{rule}");
    }
}

/// The kernel's answers on a netlink socket: messages, their attributes, and what these
/// say about chains and rules.
pub fn netlink(answer: &[u8]) {
    let read: Vec<_> = replies(answer).collect();
    assert!(
        read.len() <= answer.len().div_ceil(16),
        "more messages than fit"
    );
    let cut_short = read.iter().position(Result::is_err);
    assert!(
        cut_short.is_none_or(|index| index + 1 == read.len()),
        "goes on after an error"
    );
    let mut listing = Listing::default();
    for (index, reply) in read.iter().flatten().enumerate() {
        let Reply::Object {
            attributes: object, ..
        } = reply
        else {
            continue;
        };
        for scope in SCOPES {
            listing.0.push(Listed {
                name: format!("{} {index}", scope.name()),
                heading: heading(object),
                rules: attributes(object)
                    .map(|it| rule_text(it.value, scope))
                    .collect(),
            });
        }
    }
    assert_eq!(listing.first_difference(&listing), None);
    assert_eq!(
        listing.first_difference(&Listing::default()).is_none(),
        listing.0.is_empty()
    );
}

fn rule_text(list: &[u8], scope: Scope) -> String {
    let inside: usize = attributes(list).map(|it| it.value.len() + 4).sum();
    assert!(
        inside <= list.len(),
        "attributes larger than what holds them"
    );
    let first = attributes(list).next();
    assert!(first.is_none_or(|it| attribute(list, it.kind) == Some(it.value)));

    let expressions = decode(list);
    let mut again = Attributes::default();
    encode(&expressions, &mut again);
    assert_eq!(
        decode(&again.into_bytes()),
        expressions,
        "written and read again"
    );
    match decompile(&expressions, scope) {
        Some(rule) => {
            assert_eq!(compile(&rule, scope), expressions, "{rule}");
            printable(&rule.to_string());
            rule.to_string()
        }
        None => expressions.iter().map(Expression::to_string).collect(),
    }
}

/// What the plugin leaves behind.
#[derive(Debug, PartialEq)]
struct Answer {
    code: ExitCode,
    stdout: Vec<u8>,
}

impl Answer {
    fn of(vars: &Vars, stdin: &[u8]) -> Self {
        // The first logger stays: what the plugin logs is looked at instead of printed.
        let _ = log::set_logger(&Watch);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = crate::cni::respond(&mut Process {
            vars: vars.clone(),
            stdin: &mut &*stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
        });
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
        Self { code, stdout }
    }

    fn succeeded(&self) -> bool {
        self.code == ExitCode::SUCCESS
    }

    /// One document, and the right one.
    fn check(&self, verb: &str) {
        let text = String::from_utf8_lossy(&self.stdout);
        if self.succeeded() && matches!(verb, "DEL" | "CHECK" | "GC" | "STATUS") {
            assert_eq!(text, "", "{verb} has no result");
            return;
        }
        assert!(
            text.ends_with('\n'),
            "{verb}: a document and a newline: {text}"
        );
        let document: Members = parsed(&self.stdout);
        let version: &str = parsed(document.last("cniVersion").unwrap_or("0").as_bytes());
        assert!(VERSIONS.contains(&version), "{verb}: {text}");
        if self.succeeded() {
            assert!(
                matches!(verb, "ADD" | "VERSION"),
                "{verb} succeeded: {text}"
            );
            return;
        }
        assert_eq!(self.code, ExitCode::FAILURE);
        let keys: Vec<&[u8]> = document.0.iter().map(|(key, _)| key.0.as_slice()).collect();
        assert_eq!(
            keys,
            [&b"cniVersion"[..], b"code", b"details", b"msg"],
            "{verb}: {text}"
        );
        let code = document.last("code").unwrap_or_default();
        assert!(
            code != "3" && code != "999" && documented(code),
            "{verb}: {text}"
        );
        assert_ne!(document.last("msg"), Some("\"\""), "{verb}: {text}");
        let text = |key| -> String { parsed(document.last(key).unwrap_or_default().as_bytes()) };
        let (msg, details) = (text("msg"), text("details"));
        printable(&msg);
        // A tool's output keeps its lines.
        details.lines().for_each(printable);
        for text in [msg, details] {
            assert!(text.chars().count() <= LONGEST_TEXT, "{verb}: {text}");
        }
    }
}

/// The table of codes is the README's.
fn documented(code: &str) -> bool {
    static FIRST_CELLS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let rows = include_str!("../../README.md").lines();
        let cell = |row: &'static str| row.strip_prefix("| ")?.split(" | ").next();
        rows.filter_map(cell).collect()
    });
    FIRST_CELLS.contains(&code)
}

fn surroundings(verb: &str, args: &str) -> Vars {
    [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "0a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
        ("CNI_NETNS", "/nowhere/netns"),
        ("CNI_ARGS", args),
    ]
    .into_iter()
    .collect()
}

/// Members, order and spellings of the previous result are kept; only `cniVersion` follows
/// the configuration. Handed on once more, it stays as it is.
fn passed_through(stdin: &[u8], stdout: &[u8]) {
    let configuration: Members = parsed(stdin);
    let result: Members = parsed(stdout);
    let version = result.last("cniVersion").unwrap_or_default();
    let others = |members: &Members| -> Vec<(Key, String)> {
        let owned = |(key, value): &(Key, &RawValue)| (key.clone(), value.get().to_owned());
        let members = members.0.iter().map(owned);
        members.filter(|(key, _)| key.0 != b"cniVersion").collect()
    };
    let previous = configuration.last("prevResult").unwrap_or("null");
    let expected = match previous {
        "null" => Members(Vec::new()),
        previous => parsed(previous.as_bytes()),
    };
    assert_eq!(others(&result), others(&expected));
    let found = expected.last("cniVersion").filter(|it| *it != "null");
    let family = |version: &str| family(&parsed::<String>(version.as_bytes()));
    let same = found.is_none_or(|found| family(found) == family(version));
    assert!(same, "{found:?} is handed on as {version}");
    let text = String::from_utf8_lossy(stdout);
    let next = format!(
        r#"{{"cniVersion":{version},"name":"n","kubernetes":{{"kubeConfig":"/nowhere/k"}},"prevResult":{text}}}"#
    );
    let again = Answer::of(&surroundings("ADD", ""), next.as_bytes());
    assert_eq!(String::from_utf8_lossy(&again.stdout), text);
}

/// The number of a version's result format.
fn family(version: &str) -> usize {
    let place = VERSIONS.iter().position(|name| *name == version);
    place.map_or(usize::MAX, |place| match place {
        0..2 => 0,
        2..5 => 1,
        _ => 2,
    })
}

/// An object's members as they were written.
struct Members<'a>(Vec<(Key, &'a RawValue)>);

/// A key as bytes: half a surrogate pair is no text.
#[derive(Debug, Clone, PartialEq)]
struct Key(Vec<u8>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'a> Members<'a> {
    fn last(&self, key: &str) -> Option<&'a str> {
        let member = self
            .0
            .iter()
            .rev()
            .find(|(name, _)| name.0 == key.as_bytes());
        member.map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let members = std::iter::from_fn(|| map.next_entry().transpose());
                members.collect::<Result<_, _>>().map(Members)
            }
        }
        deserializer.deserialize_map(Each)
    }
}

fn parsed<'a, T: Deserialize<'a>>(json: &'a [u8]) -> T {
    match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(json)),
    }
}

/// One line, for a log or an event.
fn printable(text: &str) {
    assert!(
        !text.contains(char::is_control),
        "control characters: {text:?}"
    );
}

/// Whether the marker stands where an error may quote it: anywhere but in a credential.
fn holds_secret(value: &Value, may_quote: bool) -> bool {
    match value {
        Value::String(text) => may_quote && text.contains(SECRET),
        Value::Array(items) => items.iter().any(|item| holds_secret(item, may_quote)),
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let credential = [
                "token",
                "password",
                "client-key-data",
                "client-certificate-data",
            ];
            key.contains(SECRET) || holds_secret(value, !credential.contains(&key.as_str()))
        }),
        _ => false,
    }
}

/// A plain scalar of our YAML is a text where JSON has a number.
fn alike(yaml: &Value, json: &Value) -> bool {
    match (yaml, json) {
        (Value::String(_), Value::Number(_)) => true,
        (Value::Array(yaml), Value::Array(json)) => {
            yaml.len() == json.len() && yaml.iter().zip(json).all(|(yaml, json)| alike(yaml, json))
        }
        (Value::Object(yaml), Value::Object(json)) => {
            let same = |(key, json)| yaml.get(key).is_some_and(|yaml| alike(yaml, json));
            yaml.len() == json.len() && json.iter().all(same)
        }
        (yaml, json) => yaml == json,
    }
}

/// A logger that prints nothing and lets no secret through.
struct Watch;

impl log::Log for Watch {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let text = record.args().to_string();
        assert!(!text.contains(SECRET), "logs a secret: {text}");
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `cargo test` is on a stable toolchain and has no time: this is the part of fuzzing
    /// that it can do.
    #[test]
    fn everything_that_was_ever_interesting_still_holds() {
        corpus("configuration", configuration);
        corpus("environment", environment);
        corpus("kubeconfig", kubeconfig);
        corpus("pod", pod);
        corpus("netlink", netlink);
    }

    #[expect(clippy::print_stdout, reason = "a failure is about the last file")]
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
