//! What the command lines of `msm-iptables` and the installer have in common, for clap's
//! builder: its derive makes code of every flag, where a table and a loop will do.
//! Which flags there are is for their applets to say.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command};

/// An applet's command line, without its flags yet.
pub fn command(applet: &'static str, about: &'static str) -> Command {
    Command::new(applet)
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
}

/// The flag `--name`.
pub fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name)
}

/// What was given, `args` being what stands behind the applet's name.
pub fn matches(command: &mut Command, mut args: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    args.insert(0, command.get_name().into());
    command.try_get_matches_from_mut(args)
}
