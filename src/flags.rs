//! Command lines as tables of flags. The only file that knows clap, which parses the arguments
//! and renders help and usage errors.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

const OTHER_OPTIONS: &str = "Other options";

/// The command line of an applet.
#[derive(Default)]
pub struct CommandLine {
    pub applet: &'static str,
    pub about: &'static str,
    /// Shown by `--help` instead of `about`.
    pub long_about: Option<&'static str>,
    /// Shown by `--help` after the flags.
    pub notes: Option<&'static str>,
    pub repeated: Repeated,
    pub flags: Vec<Flag>,
}

/// What a repeated flag means, unless its value is a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repeated {
    #[default]
    Error,
    /// As with Go's flag package.
    LastCounts,
}

pub struct Flag {
    /// Of its group in help texts.
    pub heading: &'static str,
    /// Without dashes.
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    /// Placeholder of the value in help texts.
    pub value_name: &'static str,
    /// Used if the flag is not given.
    pub default: Option<&'static str>,
    pub help: String,
    /// Shown by `--help` after `help`.
    pub details: Option<String>,
}

/// What a flag takes.
#[derive(Clone)]
pub enum Kind {
    /// No value. At most one of a command line's switches may be given.
    Switch,
    /// A value that `Check` accepts.
    Checked(Check),
    /// Values that `Check` accepts, separated by commas or by repeating the flag.
    List(Check),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A path, which need not be UTF-8.
    Path,
    /// Any text, also with a leading dash.
    Text,
    /// Any text after an equals sign; without it, `true`.
    Bool,
}

/// Returns why a value is invalid.
pub type Check = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The values that were given, and the defaults of the others.
pub struct Values(ArgMatches);

/// Why the applet does not run.
#[derive(Debug)]
pub enum Stop {
    /// The help or the version, which the arguments ask for.
    Requested(String),
    UsageError(String),
}

impl CommandLine {
    /// Parses the arguments that follow the applet's name.
    pub fn parse(&self, args: impl IntoIterator<Item = OsString>) -> Result<Values, Stop> {
        let args = std::iter::once(self.applet.into()).chain(args);
        let matches = self.command().try_get_matches_from(args);
        matches.map(Values).map_err(Stop::from)
    }

    /// A usage error: `flag` cannot have this combination of values.
    pub fn invalid(&self, flag: &str, reason: &str) -> Stop {
        let text = format!("invalid value for '--{flag}': {reason}");
        self.command().error(ErrorKind::TooManyValues, text).into()
    }

    fn command(&self) -> Command {
        let switches = self.flags.iter().filter(|flag| flag.is_switch());
        let command = Command::new(self.applet)
            .version(env!("CARGO_PKG_VERSION"))
            .about(self.about)
            .args_override_self(self.repeated == Repeated::LastCounts)
            .args(self.flags.iter().map(Flag::arg))
            .group(ArgGroup::new("switch").args(switches.map(|flag| flag.name)))
            .disable_help_flag(true)
            .disable_version_flag(true)
            .args([help_arg(), version_arg()]);
        let command = match self.long_about {
            Some(text) => command.long_about(text),
            None => command,
        };
        match self.notes {
            Some(text) => command.after_long_help(text),
            None => command,
        }
    }
}

impl Flag {
    const fn is_switch(&self) -> bool {
        matches!(self.kind, Kind::Switch)
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name)
            .help_heading(self.heading)
            .long(self.name)
            .short(self.short)
            .help(self.help.clone());
        let arg = match &self.details {
            Some(details) => arg.long_help(format!("{}\n\n{details}", self.help)),
            None => arg,
        };
        let arg = match &self.kind {
            Kind::Switch => return arg.action(ArgAction::SetTrue),
            Kind::Checked(check) => arg.value_parser(parser(check)),
            Kind::List(check) => arg
                .value_parser(parser(check))
                .action(ArgAction::Append)
                .value_delimiter(','),
            Kind::Word(words) => arg.value_parser(PossibleValuesParser::new(*words)),
            Kind::Path => arg.value_parser(value_parser!(PathBuf)),
            Kind::Text => arg.allow_hyphen_values(true),
            Kind::Bool => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        };
        arg.value_name(self.value_name).default_value(self.default)
    }
}

/// clap's own flags cannot be listed last.
fn help_arg() -> Arg {
    Arg::new("help")
        .help_heading(OTHER_OPTIONS)
        .long("help")
        .short('h')
        .help("Print a summary of the help; --help prints all of it")
        .long_help("Print the help; -h prints a summary")
        .action(ArgAction::Help)
}

fn version_arg() -> Arg {
    Arg::new("version")
        .help_heading(OTHER_OPTIONS)
        .long("version")
        .short('V')
        .help("Print the version")
        .action(ArgAction::Version)
}

fn parser(
    check: &Check,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    let check = Arc::clone(check);
    move |text| check(text).map(|()| text.to_owned())
}

impl Values {
    /// The value of a flag that takes one text.
    pub fn text(&self, flag: &str) -> Option<&str> {
        self.0.get_one::<String>(flag).map(String::as_str)
    }

    pub fn list(&self, flag: &str) -> Option<Vec<&str>> {
        let values = self.0.get_many::<String>(flag)?;
        Some(values.map(String::as_str).collect())
    }

    pub fn path(&self, flag: &str) -> Option<&Path> {
        self.0.get_one::<PathBuf>(flag).map(PathBuf::as_path)
    }

    /// Whether a switch was given.
    pub fn is_set(&self, flag: &str) -> bool {
        self.0.get_flag(flag)
    }
}

impl From<clap::Error> for Stop {
    fn from(error: clap::Error) -> Self {
        let text = error.render().to_string();
        if error.use_stderr() {
            Self::UsageError(text)
        } else {
            Self::Requested(text)
        }
    }
}

#[cfg(test)]
impl CommandLine {
    /// Panics if flags contradict each other.
    pub fn assert_consistent(&self) {
        self.command().debug_assert();
    }
}
