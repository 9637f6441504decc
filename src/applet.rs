//! Which applet a process is: by argv[0], as a symlink names it, or by the first argument
//! of `msm`. A name that is none of them is a usage error, never a default.

use std::ffi::OsString;
use std::io::{Write, stderr, stdin};
use std::path::Path;
use std::process::ExitCode;

use crate::names::{CNI_APPLET, EXECUTABLE, INSTALLER_ALIAS, INSTALLER_APPLET, IPTABLES_APPLET};
use crate::node::settings::Settings;
use crate::process::{Process, Reader, Stdout, end_at_panics};
use crate::redirect::iptables::exec;
use crate::text::error_chain;
use crate::{agent, cmd, cni, flags, node};

const USAGE_ERROR: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Applet {
    Cni,
    Iptables,
    Installer,
    /// A child process before it executes a program of the host.
    Exec,
}

/// What argv asks for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Applet {
        applet: Applet,
        args: Vec<OsString>,
    },
    Help,
    Version,
    /// No applet is named.
    Missing,
    Unknown {
        name: String,
    },
}

/// Runs this process as the applet that its arguments name.
#[must_use]
pub fn run() -> ExitCode {
    end_at_panics(tell_panic);
    let call = Call::from_args(std::env::args_os());
    let reader = match call {
        // An answer that the runtime does not get must not pass for success.
        Call::Applet {
            applet: Applet::Cni,
            ..
        } => Reader::Needed,
        _ => Reader::Optional,
    };
    let mut process = Process {
        vars: std::env::vars_os().collect(),
        stdin: &mut stdin(),
        stdout: &mut Stdout::new(reader),
        stderr: &mut stderr(),
    };
    match call {
        Call::Applet { applet, args } => applet.run(args, &mut process),
        Call::Help => say(&mut process, &help()),
        Call::Version => say(
            &mut process,
            concat!("msm ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
        Call::Missing => {
            let text = format!("{EXECUTABLE}: say which applet is wanted\n\n{}", help());
            refuse(&mut process, &text)
        }
        Call::Unknown { name } => {
            let text = format!(
                "{EXECUTABLE}: {name:?} is no applet of this program\n\n{}",
                help()
            );
            refuse(&mut process, &text)
        }
    }
}

fn tell_panic(place: &str) {
    // Nobody is left to tell it to when this fails; the exit code remains.
    let _ = writeln!(
        stderr(),
        "{EXECUTABLE}: this is a mistake in {EXECUTABLE}; please report it: panic at {place}"
    );
}

fn run_iptables(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    match cmd::iptables::flags::Options::new(args) {
        Ok(options) => cmd::iptables::run(&options, process),
        Err(stop) => stopped(&stop, process),
    }
}

fn run_installer(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    let matches = match flags::matches(&mut node::flags::command(), args) {
        Ok(matches) => matches,
        Err(stop) => return stopped(&stop, process),
    };
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    match Settings::new(&matches, &process.vars, &host_name.to_string_lossy()) {
        Ok(settings) => agent::run(settings),
        Err(error) => {
            let text = format!("{INSTALLER_APPLET}: {}\n", error_chain(&error));
            refuse(process, &text)
        }
    }
}

/// clap's way to say that there is nothing to run: a usage error, or a text that was asked for.
fn stopped(stop: &clap::Error, process: &mut Process) -> ExitCode {
    let text = stop.render().to_string();
    if stop.use_stderr() {
        refuse(process, &text)
    } else {
        say(process, &text)
    }
}

/// Writes what was asked for; a text that nobody takes is no success.
fn say(process: &mut Process, text: &str) -> ExitCode {
    let said = process
        .stdout
        .write_all(text.as_bytes())
        .and_then(|()| process.stdout.flush());
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell it to when this fails too; the exit code remains.
            let _ = writeln!(
                process.stderr,
                "{EXECUTABLE}: writing to standard output: {error}"
            );
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the arguments.
fn refuse(process: &mut Process, text: &str) -> ExitCode {
    // Nobody is left to tell it to when this fails; the exit code remains.
    let _ = process.stderr.write_all(text.as_bytes());
    USAGE_ERROR.into()
}

fn help() -> String {
    format!(
        "Media Streaming Mesh on a node: one executable, by the name it is called.\n\n\
         Usage: {EXECUTABLE} APPLET [ARGUMENTS], or a symlink of the applet's name\n\n\
         Applets:\n  \
         {CNI_APPLET:<14}chained CNI plugin, run by the container runtime\n  \
         {IPTABLES_APPLET:<14}sets, checks, prints or removes a redirect by hand\n  \
         {INSTALLER_APPLET:<14}puts the plugin on the node and keeps it there (also {INSTALLER_ALIAS})\n\n\
         Options:\n  -h, --help     print this\n  -V, --version  print the version\n"
    )
}

impl Applet {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            CNI_APPLET => Some(Self::Cni),
            IPTABLES_APPLET => Some(Self::Iptables),
            INSTALLER_APPLET | INSTALLER_ALIAS => Some(Self::Installer),
            exec::APPLET => Some(Self::Exec),
            _ => None,
        }
    }

    fn run(self, args: Vec<OsString>, process: &mut Process) -> ExitCode {
        match self {
            Self::Cni => cni::run(process),
            Self::Iptables => run_iptables(args, process),
            Self::Installer => run_installer(args, process),
            Self::Exec => exec::exec_with_pdeathsig(args, process),
        }
    }
}

impl Call {
    fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut args = args.into_iter();
        let called = args.next().unwrap_or_default();
        let name = Path::new(&called)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(applet) = Applet::from_name(&name) {
            return Self::Applet {
                applet,
                args: args.collect(),
            };
        }
        if name != EXECUTABLE {
            return Self::Unknown { name };
        }
        let Some(name) = args.next() else {
            return Self::Missing;
        };
        let name = name.to_string_lossy().into_owned();
        match (Applet::from_name(&name), name.as_str()) {
            (Some(applet), _) => Self::Applet {
                applet,
                args: args.collect(),
            },
            (None, "-h" | "--help" | "help") => Self::Help,
            (None, "-V" | "--version") => Self::Version,
            (None, _) => Self::Unknown { name },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::tests::in_own_process;

    fn call(args: &[&str]) -> Call {
        Call::from_args(args.iter().map(OsString::from))
    }

    #[test]
    fn the_name_chooses_the_applet() {
        for (args, applet) in [
            (&["msm-cni"][..], Applet::Cni),
            (&["/opt/cni/bin/msm-cni"], Applet::Cni),
            (&["msm", "msm-cni"], Applet::Cni),
            (&["./msm-iptables"], Applet::Iptables),
            (&["installer"], Applet::Installer),
            (&["install-cni"], Applet::Installer),
            (&["/usr/local/bin/msm", "install-cni"], Applet::Installer),
        ] {
            assert_eq!(
                call(args),
                Call::Applet {
                    applet,
                    args: Vec::new()
                },
                "{args:?}"
            );
        }
        let args = vec!["--check".into()];
        assert_eq!(
            call(&["msm", "msm-iptables", "--check"]),
            Call::Applet {
                applet: Applet::Iptables,
                args
            }
        );
    }

    #[test]
    fn another_name_is_unknown_and_no_default() {
        for args in [
            &[][..],
            &[""],
            &["msm", ""],
            &["sh"],
            &["msm-cni2"],
            &["MSM-CNI"],
            &["msm", "msm"],
            &["msm", "sh"],
        ] {
            assert!(matches!(call(args), Call::Unknown { .. }), "{args:?}");
        }
        assert_eq!(call(&["/opt/cni/bin/msm"]), Call::Missing);
    }

    #[test]
    fn a_panic_of_any_applet_is_told_on_standard_error() {
        let output = in_own_process(
            "applet::tests::a_panic_of_any_applet_is_told_on_standard_error",
            "",
            |_| {
                let code = run();
                panic!("sesame: {code:?}");
            },
        );
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("a mistake in msm; please report it: panic at src/applet.rs:"),
            "{text}"
        );
        assert!(!text.contains("sesame"), "{text}");
    }

    #[test]
    fn the_flags_are_consistent() {
        cmd::iptables::flags::command().debug_assert();
        node::flags::command().debug_assert();
    }
}
