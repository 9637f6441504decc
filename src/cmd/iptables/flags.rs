//! The command line of `msm-iptables`: its flags, its help, and how arguments become
//! `Options`. Executes nothing.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, Command, value_parser};

use crate::flags;
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
        "Print the rules without setting them; needs no privileges",
    ),
    (
        "check",
        Mode::Run(Operation::Check),
        "Compare the rules in the namespace with the options: exit 0 if they match, otherwise 1",
    ),
    (
        "cleanup",
        Mode::Run(Operation::Remove),
        "Remove the rules of both backends",
    ),
];

const ABOUT: &str =
    "Redirects the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it";
const LONG_ABOUT: &str = "\
Redirects the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it.

Sets the redirect unless --dry-run, --check or --cleanup is given. Running it again changes \
nothing. Needs CAP_NET_ADMIN in the namespace, and CAP_SYS_ADMIN to enter another one.";

pub fn command() -> Command {
    let modes = MODES.map(|(flag, _, help)| {
        flags::flag(flag)
            .help(help)
            .action(ArgAction::SetTrue)
            .group("mode")
    });
    flags::command(IPTABLES_APPLET, ABOUT)
        .long_about(LONG_ABOUT)
        .args(PARAMETERS.iter().map(parameter_arg))
        .arg(
            flags::flag("inbound-intercept-mode")
                .short('m')
                .value_name("MODE")
                .value_parser(["REDIRECT"])
                .help("Accepted for compatibility, has no effect; see --inbound-ports"),
        )
        .arg(
            flags::flag("backend")
                .value_name("BACKEND")
                .value_parser(str::parse::<Backend>)
                .default_value("auto")
                .help("How rules are written: auto, nftables or iptables")
                .long_help(with_names(
                    "How rules are written: auto, nftables or iptables",
                    "kubernetes.interceptName",
                    None,
                )),
        )
        .arg(
            flags::flag("netns")
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("Network namespace, such as /run/netns/NAME or /proc/PID/ns/net [default: that of this process]"),
        )
        .args(modes)
        .group(ArgGroup::new("mode"))
}

fn parameter_arg(parameter: &'static Parameter) -> Arg {
    let arg = flags::flag(parameter.flag)
        .short(parameter.short_flag)
        .value_name(parameter.value_name)
        .default_value(parameter.default)
        .value_parser(|text: &str| check(parameter, text))
        .help(parameter.help)
        .long_help(with_names(
            parameter.help,
            &format!("redirect.{}", parameter.key),
            Some(parameter.annotation),
        ));
    match parameter.setter {
        Setter::Number(_) | Setter::Keyword(_) => arg,
        Setter::List(_) => arg.action(ArgAction::Append).value_delimiter(','),
    }
}

/// Adds the names that the option has elsewhere.
fn with_names(help: &str, key: &str, annotation: Option<&str>) -> String {
    let mut text = format!("{help}\n\nConfiguration key: {key}");
    if let Some(annotation) = annotation {
        text = text + "\nPod annotation: " + annotation;
    }
    text
}

/// Parses a value by itself, so that clap reports the flag and the value of an invalid one.
fn check(parameter: &Parameter, text: &str) -> Result<String, ParseError> {
    set(parameter, &mut Redirect::default(), &[text])?;
    Ok(text.to_owned())
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
    pub fn new(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = flags::matches(&mut command, args)?;
        let mut redirect = Redirect::default();
        for parameter in &PARAMETERS {
            if let Some(values) = matches.get_many::<String>(parameter.flag) {
                let values: Vec<&str> = values.map(String::as_str).collect();
                set(parameter, &mut redirect, &values).map_err(|reason| {
                    let text = format!("--{}: {reason}", parameter.flag);
                    command.error(ErrorKind::TooManyValues, text)
                })?;
            }
        }
        let mode = MODES.iter().find(|(flag, ..)| matches.get_flag(flag));
        Ok(Self {
            redirect,
            backend: matches.get_one("backend").copied().unwrap_or_default(),
            netns: matches.get_one("netns").cloned(),
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
        let help = command().render_long_help().to_string();
        for parameter in &PARAMETERS {
            for name in [parameter.flag, parameter.key, parameter.annotation] {
                assert!(help.contains(name), "{name}:\n{help}");
            }
        }
        assert!(help.contains("kubernetes.interceptName"), "{help}");
    }
}
