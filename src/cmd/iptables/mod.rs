//! `msm-iptables`: sets, checks, removes or prints a redirect manually. Executes the options
//! that `flags` parsed and reports the outcome; the rules are made by `redirect`.

mod advice;
pub mod flags;

use std::process::ExitCode;

use flags::{Mode, Operation, Options};

use crate::names::IPTABLES_APPLET;
use crate::process::Process;
use crate::redirect::iptables::script;
use crate::redirect::policy::Family;
use crate::redirect::rules::{RuleSet, Scope};
use crate::redirect::{self, Backend, Change, Netns};
use crate::text::error_chain;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Netns(#[from] redirect::NetnsError),
    #[error("cannot {operation} the redirect in {netns}")]
    Redirect {
        operation: &'static str,
        netns: String,
        source: redirect::Error,
    },
    #[error("the redirect in {netns} does not match the options: {difference}")]
    Differs {
        netns: String,
        difference: redirect::Difference,
    },
    #[error("cannot write to standard output")]
    Write(#[source] std::io::Error),
}

impl Error {
    /// What the user can do. Appended to the message.
    const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Netns(source) => Some(advice::for_netns(source)),
            Self::Redirect { source, .. } => advice::for_redirect(source),
            Self::Differs { .. } => Some("run the same command without --check to fix it"),
            Self::Write(_) => None,
        }
    }
}

pub fn run(options: &Options, process: &mut Process) -> ExitCode {
    let printed = execute(options).and_then(|text| process.print(&text).map_err(Error::Write));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let advice = error.advice().map(|advice| format!("; {advice}"));
            let advice = advice.unwrap_or_default();
            process.eprint_line(&format!(
                "{IPTABLES_APPLET}: {}{advice}",
                error_chain(&error)
            ));
            ExitCode::FAILURE
        }
    }
}

fn execute(options: &Options) -> Result<String, Error> {
    let operation = match options.mode {
        Mode::DryRun => return Ok(rules_text(options)),
        Mode::Run(operation) => operation,
    };
    let outcome = match &options.netns {
        Some(path) => Netns::open(path)?.run(|| perform(operation, options))?,
        None => perform(operation, options),
    };
    let netns = match &options.netns {
        Some(path) => format!("network namespace {}", path.display()),
        None => "the current network namespace".to_owned(),
    };
    match outcome {
        Ok(Outcome::Success(text)) => Ok(format!("{text} in {netns}\n")),
        Ok(Outcome::Differs(difference)) => Err(Error::Differs { netns, difference }),
        Err(source) => Err(Error::Redirect {
            operation: match operation {
                Operation::Set => "set",
                Operation::Check => "check",
                Operation::Remove => "remove",
            },
            netns,
            source,
        }),
    }
}

enum Outcome {
    Success(&'static str),
    Differs(redirect::Difference),
}

fn perform(operation: Operation, options: &Options) -> Result<Outcome, redirect::Error> {
    let (redirect, backend) = (&options.redirect, options.backend);
    Ok(match operation {
        Operation::Set => Outcome::Success(match redirect::apply(redirect, backend)? {
            Change::None => "redirect already set",
            Change::Created => "redirect set",
            Change::Replaced => "redirect replaced",
        }),
        Operation::Check => redirect::check(redirect, backend)?
            .map_or(Outcome::Success("redirect matches"), Outcome::Differs),
        Operation::Remove => Outcome::Success(if redirect::remove()? {
            "redirect removed"
        } else {
            "no redirect to remove"
        }),
    })
}

/// The rules as input for `nft` or `iptables-restore`.
fn rules_text(options: &Options) -> String {
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
            let scripts = tools.into_iter().filter_map(|(family, tool)| {
                let script = script::create(&set(Scope::Only(family))?);
                Some(format!("# {tool} --noflush\n{script}"))
            });
            scripts.collect()
        }
    }
}
