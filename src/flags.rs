//! What the command lines of the applets share: clap's builder, fed from the applets' tables
//! of flags (clap's derive would generate code for every flag). The flags themselves are
//! defined by the applets.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};

/// The command line of an applet, without flags.
pub fn command(applet: &'static str, about: &'static str) -> Command {
    Command::new(applet)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
}

pub fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

/// Parses `args`, the arguments after the applet's name.
pub fn matches(command: &mut Command, mut args: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    args.insert(0, command.get_name().into());
    command.try_get_matches_from_mut(args)
}
