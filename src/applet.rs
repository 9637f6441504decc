//! The table of applets, and the selection of one: by argv[0] (a symlink with the applet's
//! name), or by the first argument of `msm`. An unknown name is a usage error.

use std::ffi::OsString;
use std::io::{stderr, stdin};
use std::path::Path;
use std::process::ExitCode;

use crate::flags::Stop;
use crate::names::{CNI_APPLET, EXECUTABLE, INSTALLER_ALIAS, INSTALLER_APPLET, IPTABLES_APPLET};
use crate::node::inputs::Inputs;
use crate::node::settings::Settings;
use crate::process::{Process, Stdout, StdoutPolicy, USAGE_ERROR, eprint_line, exit_on_panic};
use crate::redirect::iptables::exec;
use crate::text::error_chain;
use crate::{agent, cmd, cni, node};

struct Applet {
    name: &'static str,
    aliases: &'static [&'static str],
    /// Its line in `msm --help`; `None` hides it.
    about: Option<&'static str>,
    stdout: StdoutPolicy,
    run: fn(Vec<OsString>, &mut Process) -> ExitCode,
}

const APPLETS: [Applet; 4] = [
    Applet {
        name: CNI_APPLET,
        aliases: &[],
        about: Some("CNI plugin, run by the container runtime"),
        // Without a result, exit code 0 would look like success to the runtime.
        stdout: StdoutPolicy::Required,
        run: |_, process| cni::run(process),
    },
    Applet {
        name: IPTABLES_APPLET,
        aliases: &[],
        about: Some("Set, check, print or remove the redirect of a network namespace"),
        stdout: StdoutPolicy::BestEffort,
        run: run_iptables,
    },
    Applet {
        name: INSTALLER_APPLET,
        aliases: &[INSTALLER_ALIAS],
        about: Some(node::flags::ABOUT),
        stdout: StdoutPolicy::BestEffort,
        run: run_installer,
    },
    // Run by msm-cni and msm-iptables; replaces itself by an iptables tool.
    Applet {
        name: exec::APPLET,
        aliases: &[],
        about: None,
        stdout: StdoutPolicy::BestEffort,
        run: exec::exec_with_pdeathsig,
    },
];

/// What argv asks for.
enum Call {
    Applet {
        applet: Applet,
        args: Vec<OsString>,
    },
    Help,
    Version,
    /// `msm` without arguments.
    Missing,
    Unknown {
        name: String,
    },
}

/// Runs the applet that this process's arguments select.
#[must_use]
pub fn run() -> ExitCode {
    exit_on_panic(report_panic);
    let call = Call::from_args(std::env::args_os());
    let policy = match &call {
        Call::Applet { applet, .. } => applet.stdout,
        _ => StdoutPolicy::BestEffort,
    };
    let mut process = Process {
        vars: std::env::vars_os().collect(),
        stdin: &mut stdin(),
        stdout: &mut Stdout::new(policy),
        stderr: &mut stderr(),
    };
    match call {
        Call::Applet { applet, args } => (applet.run)(args, &mut process),
        Call::Help => print(&help(), &mut process),
        Call::Version => print(
            concat!("msm ", env!("CARGO_PKG_VERSION"), "\n"),
            &mut process,
        ),
        Call::Missing => {
            let text = format!("{EXECUTABLE}: no applet given\n\n{}", help());
            usage_error(&text, &mut process)
        }
        Call::Unknown { name } => {
            let text = format!("{EXECUTABLE}: unknown applet {name:?}\n\n{}", help());
            usage_error(&text, &mut process)
        }
    }
}

fn report_panic(place: &str) {
    let text =
        format!("{EXECUTABLE}: internal error in msm-cni; please report it: panic at {place}");
    eprint_line(&mut stderr(), &text);
}

fn run_iptables(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    match cmd::iptables::flags::Options::new(args) {
        Ok(options) => cmd::iptables::run(&options, process),
        Err(stop) => print_stop(stop, process),
    }
}

fn run_installer(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    let values = match node::flags::command_line().parse(args) {
        Ok(values) => values,
        Err(stop) => return print_stop(stop, process),
    };
    let host_name = nix::unistd::gethostname().unwrap_or_default();
    let inputs = Inputs {
        flags: node::flags::given(&values),
        vars: &process.vars,
    };
    match Settings::new(&inputs, &host_name.to_string_lossy()) {
        Ok(settings) => agent::run(settings),
        Err(error) => {
            let text = format!("{INSTALLER_APPLET}: {}", error_chain(&error));
            usage_error(&text, process)
        }
    }
}

fn print_stop(stop: Stop, process: &mut Process) -> ExitCode {
    match stop {
        Stop::Requested(text) => print(&text, process),
        Stop::UsageError(text) => usage_error(&text, process),
    }
}

/// Prints what the caller asked for. A failed write fails the applet.
fn print(text: &str, process: &mut Process) -> ExitCode {
    match process.print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process.eprint_line(&format!(
                "{EXECUTABLE}: cannot write to standard output: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn usage_error(text: &str, process: &mut Process) -> ExitCode {
    process.eprint_line(text.trim_end());
    USAGE_ERROR.into()
}

fn help() -> String {
    let applets: String = APPLETS.iter().filter_map(Applet::help).collect();
    format!(
        "Redirect the RTSP traffic of Media Streaming Mesh pods to their stub.

Usage: {EXECUTABLE} APPLET [ARGUMENTS]
       APPLET [ARGUMENTS]  (a symlink to {EXECUTABLE} with the applet's name)

Applets:
{applets}
Options:
  -h, --help     Print the help
  -V, --version  Print the version

See '{EXECUTABLE} {IPTABLES_APPLET} --help' and '{EXECUTABLE} {INSTALLER_APPLET} --help' for their options.
"
    )
}

impl Applet {
    fn find(name: &str) -> Option<Self> {
        APPLETS
            .into_iter()
            .find(|applet| applet.name == name || applet.aliases.contains(&name))
    }

    fn help(&self) -> Option<String> {
        let (name, about) = (self.name, self.about?);
        let aliases = match self.aliases {
            [] => String::new(),
            aliases => format!(" [alias: {}]", aliases.join(", ")),
        };
        Some(format!("  {name:<14}{about}{aliases}\n"))
    }
}

impl Call {
    fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let mut args = args.into_iter();
        let path = args.next().unwrap_or_default();
        let name = Path::new(&path).file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        if name != EXECUTABLE {
            return Self::applet(name, args);
        }
        let Some(name) = args.next() else {
            return Self::Missing;
        };
        match name.to_string_lossy().into_owned() {
            name if matches!(&*name, "-h" | "--help" | "help") => Self::Help,
            name if matches!(&*name, "-V" | "--version") => Self::Version,
            name => Self::applet(name, args),
        }
    }

    fn applet(name: String, args: impl Iterator<Item = OsString>) -> Self {
        match Applet::find(&name) {
            Some(applet) => Self::Applet {
                applet,
                args: args.collect(),
            },
            None => Self::Unknown { name },
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
    fn name_or_first_argument_selects_the_applet() {
        for (args, expected, rest) in [
            (&["msm-cni"][..], CNI_APPLET, &[][..]),
            (&["/opt/cni/bin/msm-cni"], CNI_APPLET, &[]),
            (&["msm", "msm-cni"], CNI_APPLET, &[]),
            (&["./msm-iptables"], IPTABLES_APPLET, &[]),
            (
                &["msm", "msm-iptables", "--check"],
                IPTABLES_APPLET,
                &["--check"],
            ),
            (&["installer"], INSTALLER_APPLET, &[]),
            (&["install-cni"], INSTALLER_APPLET, &[]),
            (
                &["/usr/local/bin/msm", "install-cni"],
                INSTALLER_APPLET,
                &[],
            ),
        ] {
            let Call::Applet {
                applet,
                args: found,
            } = call(args)
            else {
                panic!("{args:?}: no applet");
            };
            assert_eq!(applet.name, expected, "{args:?}");
            assert_eq!(found, rest, "{args:?}");
        }
    }

    #[test]
    fn unknown_name_selects_no_applet() {
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
        assert!(matches!(call(&["/opt/cni/bin/msm"]), Call::Missing));
    }

    #[test]
    fn help_lists_every_applet_but_the_hidden_one() {
        let text = help();
        let usage = "Usage: msm APPLET [ARGUMENTS]\n       APPLET [ARGUMENTS]  (a symlink";
        assert!(text.contains(usage), "{text}");
        for name in [CNI_APPLET, IPTABLES_APPLET, INSTALLER_APPLET] {
            assert!(text.contains(&format!("\n  {name} ")), "{text}");
        }
        assert!(text.contains("[alias: install-cni]"), "{text}");
        assert!(!text.contains(exec::APPLET), "{text}");
    }

    #[test]
    fn panic_of_an_applet_is_reported_on_stderr() {
        let output = in_own_process(
            "applet::tests::panic_of_an_applet_is_reported_on_stderr",
            "",
            |_| {
                let code = run();
                panic!("sesame: {code:?}");
            },
        );
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("internal error in msm-cni; please report it: panic at src/applet.rs:"),
            "{text}"
        );
        assert!(!text.contains("sesame"), "{text}");
    }

    #[test]
    fn flag_tables_are_consistent() {
        cmd::iptables::flags::command_line().assert_consistent();
        node::flags::command_line().assert_consistent();
    }
}
