//! The CNI plugin: reads one request of the container runtime and replies with one document.
//! Nothing else writes to the plugin's standard output, and the reply is written last.
//!
//! stdin + environment → `request`, `config` → `decision` → redirect → `reply`

mod config;
mod error;
mod prev_result;
mod reply;
pub mod request;
mod version;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use config::{Network, Settings};
use error::Error;
use request::{Request, Verb};
use version::Version;

use crate::decision::{self, Decision, Precheck, Reason, Stub};
use crate::kube::{self, PodQuery, PodRef};
use crate::logging;
use crate::names::CNI_APPLET;
use crate::process::{Process, Stdout, StdoutPolicy, eprint_line, exit_on_panic};
use crate::redirect::{self, Netns, Redirect};
use crate::text::error_chain;

/// In bytes. Larger than any configuration: etcd, where one may be stored, limits a value to
/// 1.5 MiB.
const STDIN_LIMIT: u64 = 16 << 20;
/// The error code of a bug in msm-cni.
const PANIC_CODE: u32 = 999;

/// Replies to one request. If the plugin panics, the reply is an error.
pub fn run(process: &mut Process) -> ExitCode {
    exit_on_panic(reply_to_panic);
    respond(process)
}

/// Like `run`, but leaves panics to the caller.
pub fn respond(process: &mut Process) -> ExitCode {
    let Some(command) = process.vars.get("CNI_COMMAND").map(ToOwned::to_owned) else {
        return print_about(process.stderr);
    };
    let mut stdin = Vec::new();
    let result = Request::from_vars(&command, &process.vars)
        .map_err(Error::from)
        .and_then(|request| handle(&request, process.stdin, &mut stdin));
    let (document, code) = match result {
        Ok(document) => (document, ExitCode::SUCCESS),
        Err(error) => {
            let version = config::version(&stdin).unwrap_or(Version::LATEST);
            (error_document(version, &error), ExitCode::FAILURE)
        }
    };
    match write_reply(process.stdout, document) {
        Ok(()) => code,
        Err(error) => {
            process.eprint_line(&format!(
                "{CNI_APPLET}: cannot write the reply to standard output: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn print_about(stderr: &mut dyn Write) -> ExitCode {
    let about = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let written = writeln!(
        stderr,
        "{about}: a CNI plugin, run by the container runtime\nCNI protocol versions supported: {}",
        Version::list()
    );
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn error_document(version: Version, error: &Error) -> String {
    let msg = match error.advice() {
        Some(advice) => format!("{error}; {advice}"),
        None => error.to_string(),
    };
    let details = std::error::Error::source(error)
        .map(error_chain)
        .unwrap_or_default();
    reply::error(version, error.code(), &msg, &details)
}

/// Set before the first byte of the reply is written. The first panic keeps it locked, so
/// that no second document follows.
static REPLIED: Mutex<bool> = Mutex::new(false);

/// Blocks until the runtime has read the reply: runtimes read to the end, or kill the plugin.
fn write_reply(stdout: &mut dyn Write, document: String) -> io::Result<()> {
    if document.is_empty() {
        return Ok(());
    }
    *REPLIED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    write_line(stdout, document)
}

fn write_line(stream: &mut dyn Write, mut line: String) -> io::Result<()> {
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    stream.flush()
}

/// Reports a panic as an error document: the runtime must not take an empty reply for
/// success. If a reply was started, stderr and the exit code report the panic.
fn reply_to_panic(place: &str) {
    let place = format!("panic at {place}");
    let document = reply::error(
        Version::LATEST,
        PANIC_CODE,
        "internal error in msm-cni; please report it with the details",
        &place,
    );
    let replied = REPLIED.lock().unwrap_or_else(PoisonError::into_inner);
    if *replied || write_line(&mut Stdout::new(StdoutPolicy::Required), document).is_err() {
        eprint_line(&mut io::stderr(), &format!("{CNI_APPLET}: {place}"));
    }
    // Other threads that reply or panic block here until the process has exited.
    std::mem::forget(replied);
}

/// Validates standard input, network name, version, verb and network namespace, in this order,
/// before it changes anything. The environment is already validated.
fn handle(request: &Request, stdin: &mut dyn Read, bytes: &mut Vec<u8>) -> Result<String, Error> {
    if request.verb == Verb::Version {
        return Ok(reply::versions());
    }
    read_stdin(stdin, bytes)?;
    let network = Network::parse(bytes)?;
    match &request.verb {
        Verb::Add => add(request, &network),
        // The rules live in the pod's network namespace and are removed with it. Removing
        // them earlier would let processes that still run there bypass the stub.
        Verb::Del | Verb::Version => Ok(String::new()),
        Verb::Check => {
            require_version(&network, "CHECK", Version::WITH_CHECK)?;
            check(request, &network).map(|()| String::new())
        }
        Verb::Gc => {
            require_version(&network, "GC", Version::WITH_GC_AND_STATUS).map(|()| String::new())
        }
        Verb::Status => {
            require_version(&network, "STATUS", Version::WITH_GC_AND_STATUS)?;
            status(&network.settings()?).map(|()| String::new())
        }
        Verb::Unknown(command) => Err(Error::UnknownVerb {
            command: command.clone(),
        }),
    }
}

fn read_stdin(stdin: &mut dyn Read, bytes: &mut Vec<u8>) -> Result<(), Error> {
    stdin
        .take(STDIN_LIMIT + 1)
        .read_to_end(bytes)
        .map_err(|source| Error::Stdin { source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > STDIN_LIMIT) {
        return Err(Error::StdinTooLarge { limit: STDIN_LIMIT });
    }
    Ok(())
}

fn require_version(network: &Network, verb: &'static str, since: Version) -> Result<(), Error> {
    if network.version < since {
        return Err(Error::VerbTooNew {
            verb,
            version: network.version.name(),
            since: since.name(),
        });
    }
    Ok(())
}

fn add(request: &Request, network: &Network) -> Result<String, Error> {
    let settings = network.settings()?;
    let result = reply::result(network)?;
    logging::start(settings.log_level);
    let target = match target(request, &settings)? {
        Target::PassThrough => return Ok(result),
        Target::Redirect(target) => target,
    };
    let pod = target.pod;
    let change = target
        .netns
        .run(|| redirect::apply(&target.redirect, settings.backend))
        .map_err(Error::from)?
        .map_err(|source| Error::Apply {
            pod: pod.clone(),
            source,
        })?;
    log::info!(
        "pod {pod} is redirected to port {}: {change}",
        target.redirect.proxy_port
    );
    Ok(result)
}

/// Does not check a pod that is passed through: a redirect in it may have been set manually,
/// or its label may have been removed since.
fn check(request: &Request, network: &Network) -> Result<(), Error> {
    let settings = network.settings()?;
    reply::check(network)?;
    logging::start(settings.log_level);
    let Target::Redirect(target) = target(request, &settings)? else {
        return Ok(());
    };
    let pod = target.pod;
    let difference = target
        .netns
        .run(|| redirect::check(&target.redirect, settings.backend))
        .map_err(Error::from)?
        .map_err(|source| Error::Read {
            pod: pod.clone(),
            source,
        })?;
    difference.map_or(Ok(()), |difference| Err(Error::Differs { pod, difference }))
}

/// Checks whether an ADD could succeed by writing the rules in a new network namespace, which
/// is removed with this process. No other check is reliable.
fn status(settings: &Settings) -> Result<(), Error> {
    logging::start(settings.log_level);
    kube::check_config(&settings.kubeconfig, settings.server.as_ref())
        .map_err(|source| Error::NoKubeconfig(Box::new(source)))?;
    Netns::run_in_fresh(|| redirect::apply(&settings.redirect, settings.backend))
        .map_err(|source| Error::NoNetns { source })?
        .map(drop)
        .map_err(|source| Error::NoBackend { source })
}

/// What a request applies to.
enum Target {
    PassThrough,
    Redirect(Box<PodRedirect>),
}

struct PodRedirect {
    /// `NAMESPACE/NAME`.
    pod: String,
    netns: Netns,
    redirect: Redirect,
}

fn target(request: &Request, settings: &Settings) -> Result<Target, Error> {
    let pod = match decision::precheck(request.pod.as_ref(), &settings.exclude_namespaces) {
        Precheck::PassThrough(reason) => return Ok(pass_through(request.pod.as_ref(), &reason)),
        Precheck::Lookup(pod) => pod,
    };
    let netns = open_netns(request)?;
    let query = PodQuery {
        kubeconfig: &settings.kubeconfig,
        server: settings.server.as_ref(),
        pod,
        timeout: settings.lookup_timeout,
    };
    let fetched = kube::fetch_pod(&query).map_err(Box::new)?;
    let decision =
        decision::decide(&fetched, &settings.redirect).map_err(|source| Error::Annotation {
            pod: pod.to_string(),
            source,
        })?;
    match decision {
        Decision::PassThrough(reason) => Ok(pass_through(Some(pod), &reason)),
        Decision::Redirect { redirect, stub } => {
            if stub == Stub::NotFound {
                warn_without_stub(pod, &redirect);
            }
            Ok(Target::Redirect(Box::new(PodRedirect {
                pod: pod.to_string(),
                netns,
                redirect,
            })))
        }
    }
}

fn pass_through(pod: Option<&PodRef>, reason: &Reason) -> Target {
    let pod = pod.map_or_else(|| "the container".to_owned(), |pod| format!("pod {pod}"));
    log::info!("{pod} is not redirected: {reason}");
    Target::PassThrough
}

fn warn_without_stub(pod: &PodRef, redirect: &Redirect) {
    log::warn!(
        "pod {pod} seems to have no stub: no container has port {} or runs as user {}; redirected connections will be refused",
        redirect.proxy_port,
        redirect.proxy_uid
    );
}

fn open_netns(request: &Request) -> Result<Netns, Error> {
    let path = request.netns.clone().unwrap_or_default();
    let netns = Netns::open(&path)?;
    if !request.netns_override && netns.is_own()? {
        return Err(Error::OwnNetns { path });
    }
    Ok(netns)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Barrier;
    use std::thread;

    use nix::unistd::dup2_stdout;
    use serde_json::Value;

    use super::*;
    use crate::process::tests::in_own_process;

    /// Standard streams that panic at the point that the case names.
    struct Faulty<'a>(&'a str);

    impl Read for Faulty<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let barrier = Barrier::new(2);
            let panic_together = || {
                barrier.wait();
                panic!("sesame");
            };
            match self.0 {
                "reading" => panic!("sesame"),
                "on another thread" => thread::scope(|scope| {
                    scope.spawn(|| panic!("sesame"));
                }),
                "on two threads at once" => thread::scope(|scope| {
                    scope.spawn(panic_together);
                    scope.spawn(panic_together);
                }),
                "reading, with a full disk" => {
                    dup2_stdout(File::create("/dev/full")?)?;
                    panic!("sesame");
                }
                "reading, with a closed standard output" => {
                    dup2_stdout(File::options().read(true).write(true).open("/dev/null")?)?;
                    panic!("sesame");
                }
                _ => {}
            }
            b"not JSON".as_slice().read(buffer)
        }
    }

    impl Write for Faulty<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.0 {
                "before the reply" => panic!("sesame"),
                "within the reply" => {
                    Stdout::new(StdoutPolicy::Required).write_all(&bytes[..20])?;
                    panic!("sesame");
                }
                _ => Stdout::new(StdoutPolicy::Required).write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            match self.0 {
                "after the reply" => panic!("sesame"),
                "after the reply, on another thread" => thread::scope(|scope| {
                    scope.spawn(|| panic!("sesame"));
                    Ok(())
                }),
                _ => Ok(()),
            }
        }
    }

    fn run_faulty(case: &str) {
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "a"),
            ("CNI_IFNAME", "b"),
        ];
        let more = [("CNI_NETNS", "/c"), ("CNI_PATH", "/d")];
        let code = run(&mut Process {
            vars: variables.into_iter().chain(more).collect(),
            stdin: &mut Faulty(case),
            stdout: &mut Faulty(case),
            stderr: &mut io::stderr(),
        });
        panic!("{case}: no panic but {code:?}");
    }

    #[test]
    fn panic_is_reported_once_and_fails() {
        for (case, started, codes) in [
            ("reading", 1, &[PANIC_CODE][..]),
            ("on another thread", 1, &[PANIC_CODE]),
            ("on two threads at once", 1, &[PANIC_CODE]),
            ("reading, with a full disk", 0, &[]),
            ("reading, with a closed standard output", 0, &[]),
            // A part of the reply may have been written before the panic.
            ("before the reply", 0, &[]),
            ("within the reply", 1, &[]),
            ("after the reply", 1, &[6]),
            ("after the reply, on another thread", 1, &[6]),
        ] {
            let output = in_own_process(
                "cni::tests::panic_is_reported_once_and_fails",
                case,
                run_faulty,
            );
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let context = format!("{case}\n{stdout}\n{stderr}");
            assert_eq!(output.status.code(), Some(1), "{context}");
            let lines = || stdout.lines().filter(|line| line.starts_with('{'));
            assert_eq!(lines().count(), started, "{context}");
            let actual: Vec<Value> = lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .map(|document: Value| document["code"].clone())
                .collect();
            assert_eq!(actual, codes, "{context}");
            assert!(context.contains("panic at src/cni/mod.rs:"), "{context}");
            assert!(!context.contains("sesame"), "{context}");
        }
    }
}
