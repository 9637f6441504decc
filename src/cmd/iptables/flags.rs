//! The command line of `msm-iptables`: its flags, its help, and how arguments become
//! `Options`. Executes nothing.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::flags::{Check, CommandLine, Flag, Kind, Stop};
use crate::names::IPTABLES_APPLET;
use crate::redirect::parameters::{PARAMETERS, Parameter, Setter};
use crate::redirect::policy::ParseError;
use crate::redirect::{Backend, Redirect};

#[derive(Debug)]
pub struct Options {
    pub redirect: Redirect,
    pub backend: Backend,
    /// `None`: the network namespace of this process.
    pub netns: Option<PathBuf>,
    pub mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    DryRun,
    Run(Operation),
}

/// What is done in the network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Set,
    Check,
    Remove,
}

const MODES: [(&str, Mode, &str); 3] = [
    (
        "dry-run",
        Mode::DryRun,
        "Print the rules instead of setting them; requires no privileges",
    ),
    (
        "check",
        Mode::Run(Operation::Check),
        "Compare the rules in the network namespace with the options; exit with 1 if they differ",
    ),
    (
        "cleanup",
        Mode::Run(Operation::Remove),
        "Remove the redirect, whichever backend wrote it",
    ),
];

const REDIRECT_OPTIONS: &str = "Redirect options";
const TARGET_OPTIONS: &str = "Network namespace and backend";
const MODE_OPTIONS: &str = "Modes, at most one";

const ABOUT: &str =
    "Redirect the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it";
const LONG_ABOUT: &str = "\
Redirect the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it.

Sets the redirect unless --dry-run, --check or --cleanup is given. Setting the same redirect again
changes nothing. Requires CAP_NET_ADMIN in the network namespace, and CAP_SYS_ADMIN to enter
another one.";
const NOTES: &str = "\
Exit status:
  0  Success. With --check: the rules match the options.
  1  Failure. With --check: also if the rules do not match; the first difference is printed.
  2  Invalid command line.

Examples:
  Print the rules for two ports, which requires no privileges:
    msm-iptables --dry-run --redirect-ports 554,322

  Set, check and remove the redirect of a pod; PID is any process of the pod:
    msm-iptables --netns /proc/PID/ns/net
    msm-iptables --netns /proc/PID/ns/net --check
    msm-iptables --netns /proc/PID/ns/net --cleanup";

pub fn command_line() -> CommandLine {
    let others = [
        Flag {
            heading: REDIRECT_OPTIONS,
            name: "inbound-intercept-mode",
            short: Some('m'),
            kind: Kind::Word(&["REDIRECT"]),
            value_name: "MODE",
            default: None,
            help: "No effect, accepted for compatibility; use --inbound-ports instead".into(),
            details: None,
        },
        Flag {
            heading: TARGET_OPTIONS,
            name: "backend",
            short: None,
            kind: Kind::Checked(check(|text| text.parse::<Backend>().map(drop))),
            value_name: "BACKEND",
            default: Some("auto"),
            help: "What writes the rules: nftables, iptables, or auto (nftables if the kernel supports it)".into(),
            details: Some("Configuration key: kubernetes.interceptName".into()),
        },
        Flag {
            heading: TARGET_OPTIONS,
            name: "netns",
            short: None,
            kind: Kind::Path,
            value_name: "PATH",
            default: None,
            help: "Network namespace, such as /run/netns/NAME or /proc/PID/ns/net [default: the current one]".into(),
            details: Some("On a node, the current network namespace is that of the node.".into()),
        },
    ];
    let modes = MODES.map(|(name, _, help)| Flag {
        heading: MODE_OPTIONS,
        name,
        short: None,
        kind: Kind::Switch,
        value_name: "",
        default: None,
        help: help.into(),
        details: None,
    });
    let parameters = PARAMETERS.iter().map(parameter_flag);
    CommandLine {
        applet: IPTABLES_APPLET,
        about: ABOUT,
        long_about: Some(LONG_ABOUT),
        notes: Some(NOTES),
        flags: parameters.chain(others).chain(modes).collect(),
        ..CommandLine::default()
    }
}

fn parameter_flag(parameter: &'static Parameter) -> Flag {
    // Each value is checked by itself, so that an error names the flag and the value.
    let check = check(|text| set(parameter, &mut Redirect::default(), &[text]));
    Flag {
        heading: REDIRECT_OPTIONS,
        name: parameter.flag,
        short: parameter.short_flag,
        kind: match parameter.setter {
            Setter::Number(_) | Setter::Keyword(_) => Kind::Checked(check),
            Setter::List(_) => Kind::List(check),
        },
        value_name: parameter.value_name,
        default: parameter.default,
        help: parameter.help.into(),
        details: Some(format!(
            "Configuration key: redirect.{}\nPod annotation: {}",
            parameter.key, parameter.annotation
        )),
    }
}

fn check<E: Display>(parse: impl Fn(&str) -> Result<(), E> + Send + Sync + 'static) -> Check {
    Arc::new(move |text| parse(text).map_err(|reason| reason.to_string()))
}

fn set(parameter: &Parameter, redirect: &mut Redirect, values: &[&str]) -> Result<(), ParseError> {
    match parameter.setter {
        Setter::Number(set) | Setter::Keyword(set) => {
            values.iter().try_for_each(|text| set(redirect, text))
        }
        Setter::List(set) => set(redirect, values),
    }
}

impl Options {
    /// Parses the arguments that follow the applet's name.
    pub fn new(args: Vec<OsString>) -> Result<Self, Stop> {
        let command_line = command_line();
        let values = command_line.parse(args)?;
        let mut redirect = Redirect::default();
        for parameter in &PARAMETERS {
            if let Some(texts) = values.list(parameter.flag) {
                set(parameter, &mut redirect, &texts).map_err(|reason: ParseError| {
                    command_line.invalid(parameter.flag, &reason.to_string())
                })?;
            }
        }
        let backend = values.text("backend").unwrap_or_default();
        let mode = MODES.iter().find(|(flag, ..)| values.is_set(flag));
        Ok(Self {
            redirect,
            backend: backend.parse().map_err(|reason: ParseError| {
                command_line.invalid("backend", &reason.to_string())
            })?,
            netns: values.path("netns").map(Path::to_owned),
            mode: mode.map_or(Mode::Run(Operation::Set), |(_, mode, _)| *mode),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_plugin() {
        let options = Options::new(Vec::new()).unwrap();
        assert_eq!(options.redirect, Redirect::default());
        assert_eq!(options.backend, Backend::default());
        assert_eq!(
            (options.netns, options.mode),
            (None, Mode::Run(Operation::Set))
        );
    }

    #[test]
    fn help_names_the_configuration_key_and_annotation_of_each_flag() {
        let Err(Stop::Requested(help)) = Options::new(vec!["--help".into()]) else {
            panic!("no help");
        };
        for parameter in &PARAMETERS {
            for name in [parameter.flag, parameter.key, parameter.annotation] {
                assert!(help.contains(name), "{name}:\n{help}");
            }
        }
        assert!(help.contains("kubernetes.interceptName"), "{help}");
    }
}
