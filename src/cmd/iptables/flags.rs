//! The flags of `msm-iptables`: what they are called, what they take, and what was asked
//! for with them. Does nothing of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{EnumValueParser, PossibleValue};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, ValueEnum, value_parser};

use crate::flags;
use crate::names::IPTABLES_APPLET;
use crate::redirect::Redirect;
use crate::redirect::policy::{Backend, ParseError, add};

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    pub redirect: Redirect,
    pub backend: Backend,
    /// `None`: the current one.
    pub netns: Option<PathBuf>,
    pub action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Print,
    Work(Work),
}

/// What is done in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Set,
    Check,
    Remove,
}

struct Flag {
    short: Option<char>,
    name: &'static str,
    value_name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
    takes: Takes,
}

#[derive(Clone, Copy)]
enum Takes {
    /// A value; the flag may be given once.
    One(Put),
    /// Values, separated by commas or by being given the flag again.
    List(Put),
    /// What earlier manifests give, which changes nothing.
    InterceptMode,
    /// The namespace's path, which need not be UTF-8.
    Netns,
    /// No value: the flag itself says what to do.
    Nothing(Action),
}

#[derive(Clone)]
enum InterceptMode {
    Redirect,
}

/// Puts a value where it belongs. clap asks it of every value that it finds, so that a bad
/// one is told as clap tells things, and `Options::new` of all of them together.
type Put = fn(&mut Options, &str) -> Result<(), ParseError>;

const FLAGS: [Flag; 12] = [
    Flag {
        short: Some('p'),
        name: "msm-proxy-port",
        value_name: "PORT",
        default: Some("8554"),
        help: "TCP port that the stub listens on",
        takes: Takes::One(|options, text| {
            options.redirect.proxy_port = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        short: Some('u'),
        name: "proxy-uid",
        value_name: "UID",
        default: Some("1337"),
        help: "User ID of the stub, whose own connections are left alone",
        takes: Takes::One(|options, text| {
            options.redirect.proxy_uid = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        short: Some('d'),
        name: "redir-dest-addr",
        value_name: "CIDR",
        default: Some("127.0.0.0/8"),
        help: "Destination that is left alone; may be given several times",
        takes: Takes::List(|options, text| add(&mut options.redirect.exclude_cidrs, text.parse()?)),
    },
    Flag {
        short: Some('m'),
        name: "inbound-intercept-mode",
        value_name: "MODE",
        default: None,
        help: "Accepted for compatibility, without effect: see --inbound-ports",
        takes: Takes::InterceptMode,
    },
    Flag {
        short: None,
        name: "redirect-ports",
        value_name: "PORTS",
        default: Some("554"),
        help: "Destination ports of outgoing connections that are redirected",
        takes: Takes::List(|options, text| add(&mut options.redirect.ports, text.parse()?)),
    },
    Flag {
        short: None,
        name: "inbound-ports",
        value_name: "PORTS",
        default: None,
        help: "Ports whose incoming connections are redirected as well",
        takes: Takes::List(|options, text| add(&mut options.redirect.inbound_ports, text.parse()?)),
    },
    Flag {
        short: None,
        name: "ipv6",
        value_name: "MODE",
        default: Some("bypass"),
        help: "What happens over IPv6: bypass, redirect or reject",
        takes: Takes::One(|options, text| {
            options.redirect.ipv6 = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        short: None,
        name: "backend",
        value_name: "BACKEND",
        default: Some("auto"),
        help: "How rules are written: auto, nftables or iptables",
        takes: Takes::One(|options, text| {
            options.backend = text.parse()?;
            Ok(())
        }),
    },
    Flag {
        short: None,
        name: "netns",
        value_name: "PATH",
        default: None,
        help: "Network namespace to work in, such as /run/netns/NAME or /proc/PID/ns/net [default: the current one]",
        takes: Takes::Netns,
    },
    action(
        "dry-run",
        "Print the rules instead of setting them; needs no privilege",
        Action::Print,
    ),
    action(
        "check",
        "Compare the namespace with the rules: exit 0 when they are there, 1 when they differ",
        Action::Work(Work::Check),
    ),
    action(
        "cleanup",
        "Remove the rules of either backend",
        Action::Work(Work::Remove),
    ),
];

const fn action(name: &'static str, help: &'static str, action: Action) -> Flag {
    Flag {
        short: None,
        name,
        value_name: "",
        default: None,
        help,
        takes: Takes::Nothing(action),
    }
}

const ABOUT: &str =
    "Redirects the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it";
const LONG_ABOUT: &str = "\
Redirects the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it.

Run twice is the same as once. Without --dry-run, --check or --cleanup the redirect is set; \
needs `CAP_NET_ADMIN` in the namespace, and `CAP_SYS_ADMIN` to enter another one.";

/// The flags, for clap.
pub fn command() -> Command {
    let actions = FLAGS
        .iter()
        .filter(|flag| matches!(flag.takes, Takes::Nothing(_)));
    flags::command(IPTABLES_APPLET, ABOUT)
        .long_about(LONG_ABOUT)
        .args(FLAGS.iter().map(Flag::arg))
        .group(ArgGroup::new("action").args(actions.map(|flag| flag.name)))
}

impl Flag {
    fn arg(&self) -> Arg {
        let arg = flags::flag(self.name).short(self.short).help(self.help);
        let arg = match self.takes {
            Takes::Nothing(_) => return arg.action(ArgAction::SetTrue),
            Takes::One(put) => arg.value_parser(checked(put)),
            Takes::List(put) => arg
                .value_parser(checked(put))
                .action(ArgAction::Append)
                .value_delimiter(','),
            Takes::InterceptMode => arg.value_parser(EnumValueParser::<InterceptMode>::new()),
            Takes::Netns => arg.value_parser(value_parser!(PathBuf)),
        };
        arg.value_name(self.value_name).default_value(self.default)
    }
}

impl ValueEnum for InterceptMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Redirect]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new("REDIRECT"))
    }
}

fn checked(put: Put) -> impl Fn(&str) -> Result<(), ParseError> + Clone {
    move |text| put(&mut Options::without_values(), text)
}

impl Options {
    /// `args`: what stands behind the applet's name.
    pub fn new(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = flags::matches(&mut command, args)?;
        let mut options = Self::without_values();
        for flag in &FLAGS {
            options.take(flag, &matches).map_err(|reason| {
                let text = format!("--{}: {reason}", flag.name);
                command.error(ErrorKind::TooManyValues, text)
            })?;
        }
        Ok(options)
    }

    /// What the flags' values, given or default, make complete.
    fn without_values() -> Self {
        Self {
            redirect: Redirect {
                ports: Vec::new(),
                exclude_cidrs: Vec::new(),
                ..Redirect::default()
            },
            backend: Backend::default(),
            netns: None,
            action: Action::Work(Work::Set),
        }
    }

    /// A list takes each item once, and no more of them than the plugin does.
    fn take(&mut self, flag: &Flag, matches: &ArgMatches) -> Result<(), ParseError> {
        match flag.takes {
            Takes::One(put) | Takes::List(put) => {
                for text in matches.get_raw(flag.name).into_iter().flatten() {
                    put(self, &text.to_string_lossy())?;
                }
            }
            Takes::Netns => self.netns = matches.get_one(flag.name).cloned(),
            Takes::Nothing(action) if matches.get_flag(flag.name) => self.action = action,
            Takes::Nothing(_) | Takes::InterceptMode => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_the_redirect_is_the_plugins() {
        let options = Options::new(Vec::new()).unwrap();
        assert_eq!(options.redirect, Redirect::default());
        assert_eq!(options.backend, Backend::default());
        assert_eq!(
            (options.netns, options.action),
            (None, Action::Work(Work::Set))
        );
    }
}
