//! The runtime's request in environment variables: verb, container, network namespace, pod.
//! Pure. Source: CNI specification 1.1.0, "Parameters". Names are checked as by the reference
//! implementation's `skel`.

use std::ffi::OsStr;
use std::path::PathBuf;

use crate::kube::{InvalidPodRef, PodRef};
use crate::process::Vars;
use crate::text::{excerpt, is_identifier};

/// The kernel's `IFNAMSIZ` without the terminating NUL.
const INTERFACE_NAME_BYTES: usize = 15;
/// The kernel's `PATH_MAX` without the terminating NUL.
const LONGEST_PATH: usize = 4095;

/// `CNI_COMMAND`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
    /// Any other value, truncated. The reference implementation reports errors in the network
    /// configuration first, so this is not an error of the request.
    Unknown(String),
}

/// A request whose variables are complete and well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    /// `CNI_NETNS`; always set for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: the plugin's own network namespace is allowed.
    pub netns_override: bool,
    /// The pod in `CNI_ARGS`. Parsed only for ADD and CHECK, so that invalid arguments do not
    /// fail a DEL.
    pub pod: Option<PodRef>,
}

/// All missing and invalid variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid environment for {command}: {}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Error {
    command: String,
    problems: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{variable} is missing")]
    Missing { variable: &'static str },
    #[error("{variable} is not UTF-8")]
    NotUtf8 { variable: &'static str },
    #[error("CNI_NETNS is longer than {LONGEST_PATH} bytes")]
    NetnsTooLong,
    #[error(
        "CNI_CONTAINERID {value:?} must start with a letter or digit, and contain only letters, digits, dots, dashes and underscores"
    )]
    ContainerId { value: String },
    #[error(
        "CNI_IFNAME {value:?} is not an interface name (1 to {INTERFACE_NAME_BYTES} bytes, without slashes, colons and spaces, and not \".\" or \"..\")"
    )]
    InterfaceName { value: String },
    #[error("CNI_ARGS contains {pair:?}, which is not KEY=VALUE")]
    Argument { pair: String },
    #[error("CNI_ARGS contains {key}={value:?}, which is not {rule}")]
    Pod {
        key: &'static str,
        value: String,
        rule: &'static str,
    },
}

impl Request {
    /// Reads the variables that `command`, the value of `CNI_COMMAND`, requires.
    pub fn from_vars(command: &OsStr, vars: &Vars) -> Result<Self, Error> {
        let command = excerpt(&command.to_string_lossy());
        let verb = Verb::parse(&command);
        let mut reader = Reader {
            vars,
            problems: Vec::new(),
        };
        for variable in verb.required() {
            reader.require(variable);
        }
        let pod = match verb {
            Verb::Add | Verb::Check => reader.pod(),
            _ => None,
        };
        if !reader.problems.is_empty() {
            return Err(Error {
                command,
                problems: reader.problems,
            });
        }
        let netns_override = vars
            .get("CNI_NETNS_OVERRIDE")
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"));
        Ok(Self {
            verb,
            netns: vars.get("CNI_NETNS").map(PathBuf::from),
            netns_override,
            pod,
        })
    }
}

impl Verb {
    fn parse(text: &str) -> Self {
        match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            unknown => Self::Unknown(unknown.to_owned()),
        }
    }

    /// The variables that `skel` requires.
    const fn required(&self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
            Self::Gc | Self::Status => &["CNI_PATH"],
            Self::Version | Self::Unknown(_) => &[],
        }
    }
}

struct Reader<'a> {
    vars: &'a Vars,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn require(&mut self, variable: &'static str) {
        let problem = match self.vars.get(variable) {
            None => Some(Problem::Missing { variable }),
            Some(value) => problem(variable, value),
        };
        self.problems.extend(problem);
    }

    /// `None` unless `CNI_ARGS` contains both a pod's namespace and its name.
    fn pod(&mut self) -> Option<PodRef> {
        let args = self.vars.get("CNI_ARGS")?;
        let pod = match args.to_str() {
            Some(args) => pod(args),
            None => Err(Problem::NotUtf8 {
                variable: "CNI_ARGS",
            }),
        };
        pod.unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }
}

fn problem(variable: &'static str, value: &OsStr) -> Option<Problem> {
    let text = match variable {
        "CNI_NETNS" if value.len() > LONGEST_PATH => return Some(Problem::NetnsTooLong),
        // Paths need not be UTF-8.
        "CNI_NETNS" | "CNI_PATH" => return None,
        _ => value.to_str(),
    };
    match (variable, text) {
        (_, None) => Some(Problem::NotUtf8 { variable }),
        ("CNI_CONTAINERID", Some(id)) if !is_identifier(id) => {
            Some(Problem::ContainerId { value: excerpt(id) })
        }
        ("CNI_IFNAME", Some(name)) if !is_interface_name(name) => Some(Problem::InterfaceName {
            value: excerpt(name),
        }),
        _ => None,
    }
}

/// Parses `CNI_ARGS`: `KEY=VALUE` pairs, separated by semicolons.
fn pod(args: &str) -> Result<Option<PodRef>, Problem> {
    let (mut namespace, mut name, mut uid) = ("", "", "");
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("K8S_POD_NAMESPACE", value)) => namespace = value,
            Some(("K8S_POD_NAME", value)) => name = value,
            Some(("K8S_POD_UID", value)) => uid = value,
            Some(("", _)) | None => {
                let pair = excerpt(pair);
                return Err(Problem::Argument { pair });
            }
            Some(_) => {}
        }
    }
    if namespace.is_empty() || name.is_empty() {
        return Ok(None);
    }
    let uid = Some(uid).filter(|uid| !uid.is_empty());
    PodRef::new(namespace, name, uid)
        .map(Some)
        .map_err(|reason| {
            let (key, value, rule) = match reason {
                InvalidPodRef::Namespace(value) => ("K8S_POD_NAMESPACE", value, "a DNS label"),
                InvalidPodRef::Name(value) => ("K8S_POD_NAME", value, "a DNS subdomain name"),
                InvalidPodRef::Uid(value) => ("K8S_POD_UID", value, "a UID"),
            };
            let value = excerpt(&value);
            Problem::Pod { key, value, rule }
        })
}

fn is_interface_name(name: &str) -> bool {
    (1..=INTERFACE_NAME_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|letter| letter == '/' || letter == ':' || letter.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: [(&str, &str); 5] = [
        ("CNI_CONTAINERID", "0a1b"),
        ("CNI_NETNS", "/run/netns/a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=camera;K8S_POD_UID=1-2",
        ),
    ];

    fn request(command: &str, change: &[(&str, &str)]) -> Result<Request, Error> {
        let vars = COMPLETE.iter().chain(change).copied().collect();
        Request::from_vars(OsStr::new(command), &vars)
    }

    #[test]
    fn all_missing_variables_are_named() {
        let all = "CNI_CONTAINERID is missing; CNI_NETNS is missing; CNI_IFNAME is missing; CNI_PATH is missing";
        for (command, expected) in [
            ("ADD", all),
            ("CHECK", all),
            (
                "DEL",
                "CNI_CONTAINERID is missing; CNI_IFNAME is missing; CNI_PATH is missing",
            ),
            ("GC", ": CNI_PATH is missing"),
            ("STATUS", ": CNI_PATH is missing"),
        ] {
            let error = Request::from_vars(OsStr::new(command), &Vars::default())
                .unwrap_err()
                .to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        for command in ["VERSION", "add", "NEW"] {
            assert!(
                Request::from_vars(OsStr::new(command), &Vars::default()).is_ok(),
                "{command}"
            );
        }
    }

    #[test]
    fn names_are_checked_as_by_skel() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\u{2003}b",
            "0123456789abcdef",
            "ääääääää",
        ] {
            assert!(!is_interface_name(name), "{name:?}");
        }
        assert!(is_interface_name("0123456789abcde"));
        for id in ["", "-a", ".a", "a b", "a/b", "ä"] {
            assert!(!is_identifier(id), "{id:?}");
        }
        assert!(is_identifier(&"a".repeat(4096)));
    }

    #[test]
    fn pod_is_parsed_from_cni_args() {
        let pod = request("ADD", &[]).unwrap().pod.unwrap();
        assert_eq!(
            (
                pod.namespace.as_str(),
                pod.name.as_str(),
                pod.uid.as_deref()
            ),
            ("default", "camera", Some("1-2"))
        );
        for args in [
            "",
            "K8S_POD_NAME=a",
            "K8S_POD_NAMESPACE=a;K8S_POD_NAME=",
            ";;A=b",
        ] {
            assert_eq!(
                request("ADD", &[("CNI_ARGS", args)]).unwrap().pod,
                None,
                "{args}"
            );
        }
        for args in [
            "K8S_POD_NAME",
            "a=b;c",
            "=b",
            "K8S_POD_NAMESPACE=..;K8S_POD_NAME=a",
            "K8S_POD_NAMESPACE=a;K8S_POD_NAME=a/b",
            "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c d",
        ] {
            assert!(request("ADD", &[("CNI_ARGS", args)]).is_err(), "{args}");
            assert!(request("DEL", &[("CNI_ARGS", args)]).is_ok(), "{args}");
        }
    }
}
