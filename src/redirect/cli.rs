//! `msm-iptables`: the redirect by hand. Turns flags into a `Redirect` and an action;
//! what they do is the rest of this module's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, ValueEnum};

use super::rules::{RuleSet, Scope};
use super::value::{Backend, Cidr, Family, Ipv6Mode, Port, Uid, add};
use super::{Change, Netns, Redirect, script};
use crate::names::IPTABLES_APPLET;
use crate::process::{Process, chain};

/// Redirects the RTSP traffic of a network namespace to the Media Streaming Mesh stub in it.
///
/// Run twice is the same as once. Without --dry-run, --check or --cleanup the redirect is
/// set; needs `CAP_NET_ADMIN` in the namespace, and `CAP_SYS_ADMIN` to enter another one.
#[derive(Debug, Parser)]
#[command(name = IPTABLES_APPLET, version, disable_help_subcommand = true)]
pub struct Cli {
    /// TCP port that the stub listens on.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = Redirect::default().proxy_port)]
    msm_proxy_port: Port,
    /// User ID of the stub, whose own connections are left alone.
    #[arg(short = 'u', long, value_name = "UID", default_value_t = Redirect::default().proxy_uid)]
    proxy_uid: Uid,
    /// Destination that is left alone; may be given several times.
    #[arg(
        short = 'd',
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        default_value = "127.0.0.0/8"
    )]
    redir_dest_addr: Vec<Cidr>,
    /// Accepted for compatibility, without effect: see --inbound-ports.
    #[arg(short = 'm', long, value_name = "MODE")]
    inbound_intercept_mode: Option<InboundInterceptMode>,
    /// Destination ports of outgoing connections that are redirected.
    #[arg(
        long,
        value_name = "PORTS",
        value_delimiter = ',',
        default_value = "554"
    )]
    redirect_ports: Vec<Port>,
    /// Ports whose incoming connections are redirected as well.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    inbound_ports: Vec<Port>,
    /// What happens over IPv6: bypass, redirect or reject.
    #[arg(long, value_name = "MODE", default_value = "bypass")]
    ipv6: Ipv6Mode,
    /// How rules are written: auto, nftables or iptables.
    #[arg(long, value_name = "BACKEND", default_value = "auto")]
    backend: Backend,
    /// Network namespace to work in, such as /run/netns/NAME or /proc/PID/ns/net [default: the current one].
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    #[command(flatten)]
    action: Action,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
struct Action {
    /// Print the rules instead of setting them; needs no privilege.
    #[arg(long)]
    dry_run: bool,
    /// Compare the namespace with the rules: exit 0 when they are there, 1 when they differ.
    #[arg(long)]
    check: bool,
    /// Remove the rules of either backend.
    #[arg(long)]
    cleanup: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "UPPER")]
enum InboundInterceptMode {
    Redirect,
}

/// Why `msm-iptables` ended with 1.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("choosing the network namespace")]
    Netns { source: super::NetnsError },
    #[error("{doing} the redirect in {netns}")]
    Redirect {
        doing: &'static str,
        netns: String,
        source: super::Error,
    },
    #[error(
        "the redirect in {netns} is not as asked: {difference}; run the same command without --check to mend it"
    )]
    Differs {
        netns: String,
        difference: super::Difference,
    },
    #[error("writing the result")]
    Write { source: std::io::Error },
}

/// Runs `msm-iptables`; `Cli` is already parsed from the process's arguments.
pub fn run(cli: &Cli, process: &mut Process) -> ExitCode {
    let said = match act(cli) {
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
            let _ = writeln!(process.stderr, "{IPTABLES_APPLET}: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn act(cli: &Cli) -> Result<String, Error> {
    let redirect = cli.redirect();
    if cli.action.dry_run {
        return Ok(cli.print(&redirect));
    }
    let netns = cli
        .netns
        .as_deref()
        .map(Netns::open)
        .transpose()
        .map_err(|source| Error::Netns { source })?;
    let name = || {
        cli.netns.as_ref().map_or_else(
            || "this process's own network namespace".to_owned(),
            |path| format!("network namespace {}", path.display()),
        )
    };
    let work = || cli.work(&redirect);
    let result = match &netns {
        Some(netns) => netns.run(work).map_err(|source| Error::Netns { source })?,
        None => work(),
    };
    match result.map_err(|source| Error::Redirect {
        doing: cli.action.doing(),
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

fn plain<T: PartialEq>(flag: &str, items: Vec<T>) -> Result<Vec<T>, clap::Error> {
    let mut list = Vec::new();
    for item in items {
        add(&mut list, item).map_err(|reason| {
            Cli::command().error(ErrorKind::TooManyValues, format!("{flag}: {reason}"))
        })?;
    }
    Ok(list)
}

impl Action {
    const fn doing(&self) -> &'static str {
        match self {
            Self { check: true, .. } => "checking",
            Self { cleanup: true, .. } => "removing",
            _ => "setting",
        }
    }
}

enum Done {
    Said(&'static str),
    Differs(super::Difference),
}

impl Cli {
    /// Each item of a list once, and no more of them than the plugin takes.
    pub fn with_plain_lists(self) -> Result<Self, clap::Error> {
        Ok(Self {
            redir_dest_addr: plain("--redir-dest-addr", self.redir_dest_addr)?,
            redirect_ports: plain("--redirect-ports", self.redirect_ports)?,
            inbound_ports: plain("--inbound-ports", self.inbound_ports)?,
            ..self
        })
    }

    fn redirect(&self) -> Redirect {
        Redirect {
            ports: self.redirect_ports.clone(),
            proxy_port: self.msm_proxy_port,
            proxy_uid: self.proxy_uid,
            exclude_cidrs: self.redir_dest_addr.clone(),
            ipv6: self.ipv6,
            inbound_ports: self.inbound_ports.clone(),
        }
    }

    fn work(&self, redirect: &Redirect) -> Result<Done, super::Error> {
        Ok(if self.action.cleanup {
            let removed = super::remove()?;
            Done::Said(if removed {
                "redirect removed"
            } else {
                "no redirect to remove"
            })
        } else if self.action.check {
            super::check(redirect, self.backend)?
                .map_or(Done::Said("redirect as asked"), Done::Differs)
        } else {
            Done::Said(match super::apply(redirect, self.backend)? {
                Change::None => "redirect already set",
                Change::Created => "redirect set",
                Change::Replaced => "redirect replaced",
            })
        })
    }

    fn print(&self, redirect: &Redirect) -> String {
        let set = |scope| RuleSet::new(redirect, scope);
        match self.backend {
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
}
