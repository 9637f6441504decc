//! `msm-iptables`: the redirect by hand. Does what its flags ask and says what came of it;
//! how is the rest of this module's.

mod advice;
pub mod flags;

use std::process::ExitCode;

use crate::cmd::iptables::flags::{Action, Options, Work};
use crate::names::IPTABLES_APPLET;
use crate::process::Process;
use crate::redirect::Netns;
use crate::redirect::iptables::script;
use crate::redirect::policy::{Backend, Family};
use crate::redirect::rules::{RuleSet, Scope};
use crate::redirect::{self, Change};
use crate::text::error_chain;

/// Why `msm-iptables` ended with 1.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("choosing the network namespace")]
    Netns { source: redirect::NetnsError },
    #[error("{doing} the redirect in {netns}")]
    Redirect {
        doing: &'static str,
        netns: String,
        source: redirect::Error,
    },
    #[error("the redirect in {netns} is not as asked: {difference}")]
    Differs {
        netns: String,
        difference: redirect::Difference,
    },
    #[error("writing the result")]
    Write { source: std::io::Error },
}

impl Error {
    /// What the user can do. Appended to the message.
    const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Netns { source } => advice::for_netns(source),
            Self::Redirect { source, .. } => advice::for_redirect(source),
            Self::Differs { .. } => Some("run the same command without --check to fix it"),
            Self::Write { .. } => None,
        }
    }
}

/// Runs `msm-iptables`, as its arguments ask.
pub fn run(options: &Options, process: &mut Process) -> ExitCode {
    let said = match act(options) {
        Ok(text) => process
            .stdout
            .write_all(text.as_bytes())
            .and_then(|()| process.stdout.flush())
            .map_err(|source| Error::Write { source }),
        Err(error) => Err(error),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell it to when this fails too; the exit code remains.
            let advice = match error.advice() {
                Some(advice) => format!("; {advice}"),
                None => String::new(),
            };
            let chain = error_chain(&error);
            let _ = writeln!(process.stderr, "{IPTABLES_APPLET}: {chain}{advice}");
            ExitCode::FAILURE
        }
    }
}

fn act(options: &Options) -> Result<String, Error> {
    let work = match options.action {
        Action::Print => return Ok(print(options)),
        Action::Work(work) => work,
    };
    let netns = options
        .netns
        .as_deref()
        .map(Netns::open)
        .transpose()
        .map_err(|source| Error::Netns { source })?;
    let name = || {
        options.netns.as_ref().map_or_else(
            || "this process's own network namespace".to_owned(),
            |path| format!("network namespace {}", path.display()),
        )
    };
    let perform = || perform(work, options);
    let result = match &netns {
        Some(netns) => netns
            .run(perform)
            .map_err(|source| Error::Netns { source })?,
        None => perform(),
    };
    match result.map_err(|source| Error::Redirect {
        doing: work.doing(),
        netns: name(),
        source,
    })? {
        Done::Said(text) => Ok(format!("{text} in {}\n", name())),
        Done::Differs(difference) => Err(Error::Differs {
            netns: name(),
            difference,
        }),
    }
}

impl Work {
    const fn doing(self) -> &'static str {
        match self {
            Self::Set => "setting",
            Self::Check => "checking",
            Self::Remove => "removing",
        }
    }
}

enum Done {
    Said(&'static str),
    Differs(redirect::Difference),
}

fn perform(work: Work, options: &Options) -> Result<Done, redirect::Error> {
    let (redirect, backend) = (&options.redirect, options.backend);
    Ok(match work {
        Work::Set => Done::Said(match redirect::apply(redirect, backend)? {
            Change::None => "redirect already set",
            Change::Created => "redirect set",
            Change::Replaced => "redirect replaced",
        }),
        Work::Check => redirect::check(redirect, backend)?
            .map_or(Done::Said("redirect as asked"), Done::Differs),
        Work::Remove => Done::Said(if redirect::remove()? {
            "redirect removed"
        } else {
            "no redirect to remove"
        }),
    })
}

fn print(options: &Options) -> String {
    let set = |scope| RuleSet::new(&options.redirect, scope);
    match options.backend {
        Backend::Auto | Backend::Nftables => {
            set(Scope::Inet).map_or_else(String::new, |set| set.to_string())
        }
        Backend::Iptables => {
            let tools = [
                (Family::Ipv4, "iptables-restore"),
                (Family::Ipv6, "ip6tables-restore"),
            ];
            let printed = tools.into_iter().filter_map(|(family, tool)| {
                let script = script::create(&set(Scope::Only(family))?);
                Some(format!("# {tool} --noflush\n{script}"))
            });
            printed.collect()
        }
    }
}
