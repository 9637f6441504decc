//! The CNI plugin: one request from the runtime, one document back. This file is the only
//! writer of the plugin's standard output, and writes once, as the last thing.
//!
//! stdin + environment → `request`, `config` → `decision` → redirect → `reply`

mod config;
mod error;
mod prev_result;
mod reply;
mod request;
mod version;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use config::{Network, Settings};
use error::Error;
use request::{Request, Verb};
use version::Version;

use crate::decision::{self, Decision, Precheck, Reason, Stub};
use crate::kube::{self, PodRef};
use crate::process::{Process, Stdout, StdoutPolicy, exit_on_panic};
use crate::redirect::{self, Netns, Redirect};
use crate::text::error_chain;
use crate::{logging, names};

/// For `fuzzing`, which asks them by themselves.
#[cfg(any(test, fuzzing))]
pub mod parts {
    pub use super::request::Request;
    pub use crate::decision::{Decision, decide};
}

/// More than any runtime sends: etcd, where configurations may come from, ends at 1.5 MiB.
const STDIN_LIMIT: u64 = 16 << 20;
/// Code of a mistake of ours.
const PANIC_CODE: u32 = 999;

/// Answers one request, and a panic as well.
pub fn run(process: &mut Process) -> ExitCode {
    exit_on_panic(answer_panic);
    respond(process)
}

/// Answers one request.
pub fn respond(process: &mut Process) -> ExitCode {
    let Some(command) = process.vars.get("CNI_COMMAND").map(ToOwned::to_owned) else {
        let about = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        let said = writeln!(
            process.stderr,
            "{about}: a CNI plugin, to be run by a container runtime\nCNI versions supported: {}",
            Version::list()
        );
        return if said.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    };
    let mut stdin = Vec::new();
    let answer = Request::from_vars(&command, &process.vars)
        .map_err(Error::from)
        .and_then(|request| answer(&request, process.stdin, &mut stdin));
    let (document, code) = match answer {
        Ok(document) => (document, ExitCode::SUCCESS),
        Err(error) => {
            let version = config::version(&stdin).unwrap_or(Version::LATEST);
            (error_document(version, &error), ExitCode::FAILURE)
        }
    };
    match write(process.stdout, document) {
        Ok(()) => code,
        Err(error) => {
            let text = format!("writing the answer to standard output: {error}");
            complain(process.stderr, &text);
            ExitCode::FAILURE
        }
    }
}

fn error_document(version: Version, error: &Error) -> String {
    let details = std::error::Error::source(error)
        .map(error_chain)
        .unwrap_or_default();
    reply::error(version, error.code(), &error.to_string(), &details)
}

/// Whether standard output has its one document, or at least a part of it. Locked for good
/// by the first panic.
static ANSWERED: Mutex<bool> = Mutex::new(false);

/// Waits for whoever reads, however long: runtimes read to the end, and end us otherwise.
fn write(stdout: &mut dyn Write, document: String) -> io::Result<()> {
    if document.is_empty() {
        return Ok(());
    }
    *ANSWERED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    write_line(stdout, document)
}

fn write_line(stream: &mut dyn Write, mut line: String) -> io::Result<()> {
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    stream.flush()
}

fn complain(stderr: &mut dyn Write, text: &str) {
    // Nobody is left to tell it to when this fails; the exit code remains.
    let _ = write_line(stderr, format!("{}: {text}", names::CNI_APPLET));
}

/// A mistake of ours is told as any other error: the runtime must not take silence for
/// success. Where a document is already, or on its way, the exit code has to do.
fn answer_panic(place: &str) {
    let place = format!("panic at {place}");
    let document = reply::error(
        Version::LATEST,
        PANIC_CODE,
        "this is a mistake in msm-cni; please report it with the details",
        &place,
    );
    let answered = ANSWERED.lock().unwrap_or_else(PoisonError::into_inner);
    if *answered || write_line(&mut Stdout::new(StdoutPolicy::Required), document).is_err() {
        complain(&mut io::stderr(), &place);
    }
    // Other threads that answer or panic wait here for the process's end.
    std::mem::forget(answered);
}

/// Checks come before effects: the environment has been checked, then standard input,
/// the network's name and version, the verb, and the namespace.
fn answer(request: &Request, stdin: &mut dyn Read, bytes: &mut Vec<u8>) -> Result<String, Error> {
    if request.verb == Ok(Verb::Version) {
        return Ok(reply::versions());
    }
    stdin
        .take(STDIN_LIMIT + 1)
        .read_to_end(bytes)
        .map_err(|source| Error::Stdin { source })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > STDIN_LIMIT) {
        return Err(Error::StdinTooLarge { limit: STDIN_LIMIT });
    }
    let network = Network::parse(bytes)?;
    let since = |verb, since: Version| {
        let version = network.version;
        let too_new = Error::VerbTooNew {
            verb,
            version: version.name(),
            since: since.name(),
        };
        if version < since {
            Err(too_new)
        } else {
            Ok(())
        }
    };
    match &request.verb {
        Ok(Verb::Add) => add(request, &network),
        // The rules live and die with the pod's namespace. To remove them earlier would
        // open a way around the stub for whatever still runs there.
        Ok(Verb::Del | Verb::Version) => Ok(String::new()),
        Ok(Verb::Check) => {
            since("CHECK", Version::WITH_CHECK)?;
            check(request, &network).map(|()| String::new())
        }
        Ok(Verb::Gc) => since("GC", Version::WITH_GC_AND_STATUS).map(|()| String::new()),
        Ok(Verb::Status) => {
            since("STATUS", Version::WITH_GC_AND_STATUS)?;
            status(&network.settings()?).map(|()| String::new())
        }
        Err(command) => Err(Error::UnknownVerb {
            command: command.clone(),
        }),
    }
}

fn add(request: &Request, network: &Network) -> Result<String, Error> {
    let settings = network.settings()?;
    let result = reply::result(network)?;
    logging::start(settings.log_level);
    let wanted = match wanted(request, &settings)? {
        Wanted::Nothing => return Ok(result),
        Wanted::Redirect(wanted) => wanted,
    };
    let pod = wanted.pod;
    let change = wanted
        .netns
        .run(|| redirect::apply(&wanted.redirect, settings.backend))
        .map_err(Error::from)?
        .map_err(|source| Error::Apply {
            pod: pod.clone(),
            source,
        })?;
    log::info!(
        "pod {pod} is redirected to port {}: {change}",
        wanted.redirect.proxy_port
    );
    Ok(result)
}

/// A pod that asks for no redirect is not looked at: one that is there may have been set by
/// hand, and a label may have been taken away since.
fn check(request: &Request, network: &Network) -> Result<(), Error> {
    let settings = network.settings()?;
    reply::check(network)?;
    logging::start(settings.log_level);
    let Wanted::Redirect(wanted) = wanted(request, &settings)? else {
        return Ok(());
    };
    let pod = wanted.pod;
    let difference = wanted
        .netns
        .run(|| redirect::check(&wanted.redirect, settings.backend))
        .map_err(Error::from)?
        .map_err(|source| Error::Read {
            pod: pod.clone(),
            source,
        })?;
    difference.map_or(Ok(()), |difference| Err(Error::Differs { pod, difference }))
}

/// Whether an ADD could work, which nothing short of doing it tells: the rules are written,
/// in a network namespace that nobody uses and that ends with this process.
fn status(settings: &Settings) -> Result<(), Error> {
    logging::start(settings.log_level);
    kube::check_config(&settings.kubeconfig, settings.server.as_ref())
        .map_err(|source| Error::NoKubeconfig(Box::new(source)))?;
    Netns::run_in_fresh(|| redirect::apply(&settings.redirect, settings.backend))
        .map_err(|source| Error::NoNetns { source })?
        .map(drop)
        .map_err(|source| Error::NoBackend { source })
}

/// What a pod's namespace should hold.
enum Wanted {
    Nothing,
    Redirect(Box<PodRedirect>),
}

struct PodRedirect {
    /// Namespace and name.
    pod: String,
    netns: Netns,
    redirect: Redirect,
}

fn wanted(request: &Request, settings: &Settings) -> Result<Wanted, Error> {
    let pod = match decision::precheck(request.pod.as_ref(), &settings.exclude_namespaces) {
        Precheck::PassThrough(reason) => return Ok(pass_through(request.pod.as_ref(), &reason)),
        Precheck::Ask(pod) => pod,
    };
    let netns = open_netns(request)?;
    let lookup = kube::Lookup {
        kubeconfig: &settings.kubeconfig,
        server: settings.server.as_ref(),
        pod,
        timeout: settings.lookup_timeout,
    };
    let found = kube::fetch_pod(&lookup).map_err(Box::new)?;
    match decision::decide(&found, &settings.redirect).map_err(|source| Error::Annotation {
        pod: name(pod),
        source,
    })? {
        Decision::PassThrough(reason) => Ok(pass_through(Some(pod), &reason)),
        Decision::Redirect { redirect, stub } => {
            if stub == Stub::NotSeen {
                log::warn!(
                    "pod {}: no container has port {} or runs as user {}: is its stub missing? its redirected connections will be refused",
                    name(pod),
                    redirect.proxy_port,
                    redirect.proxy_uid
                );
            }
            Ok(Wanted::Redirect(Box::new(PodRedirect {
                pod: name(pod),
                netns,
                redirect,
            })))
        }
    }
}

fn pass_through(pod: Option<&PodRef>, reason: &Reason) -> Wanted {
    let pod = pod.map_or_else(
        || "the container".to_owned(),
        |pod| format!("pod {}", name(pod)),
    );
    log::info!("{pod} is not redirected: {reason}");
    Wanted::Nothing
}

fn open_netns(request: &Request) -> Result<Netns, Error> {
    let path = request.netns.clone().unwrap_or_default();
    let netns = Netns::open(&path)?;
    if !request.netns_override && netns.is_own()? {
        return Err(Error::OwnNetns {
            path: path.display().to_string(),
        });
    }
    Ok(netns)
}

fn name(pod: &PodRef) -> String {
    format!("{}/{}", pod.namespace, pod.name)
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

    /// Streams with a mistake in them.
    struct Faulty<'a>(&'a str);

    impl Read for Faulty<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let barrier = Barrier::new(2);
            let fault = || {
                barrier.wait();
                panic!("sesame");
            };
            match self.0 {
                "reading" => panic!("sesame"),
                "on another thread" => thread::scope(|scope| {
                    scope.spawn(|| panic!("sesame"));
                }),
                "on two threads at once" => thread::scope(|scope| {
                    scope.spawn(fault);
                    scope.spawn(fault);
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
                "before the answer" => panic!("sesame"),
                "in the middle of the answer" => {
                    Stdout::new(StdoutPolicy::Required).write_all(&bytes[..20])?;
                    panic!("sesame");
                }
                _ => Stdout::new(StdoutPolicy::Required).write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            match self.0 {
                "after the answer" => panic!("sesame"),
                "after the answer, on another thread" => thread::scope(|scope| {
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
    fn a_panic_is_answered_once_and_is_no_success() {
        for (case, begun, whole) in [
            ("reading", 1, &[PANIC_CODE][..]),
            ("on another thread", 1, &[PANIC_CODE]),
            ("on two threads at once", 1, &[PANIC_CODE]),
            ("reading, with a full disk", 0, &[]),
            ("reading, with a closed standard output", 0, &[]),
            // Whether anything was written, nobody knows.
            ("before the answer", 0, &[]),
            ("in the middle of the answer", 1, &[]),
            ("after the answer", 1, &[6]),
            ("after the answer, on another thread", 1, &[6]),
        ] {
            let output = in_own_process(
                "cni::tests::a_panic_is_answered_once_and_is_no_success",
                case,
                run_faulty,
            );
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let said = format!("{case}\n{stdout}\n{stderr}");
            assert_eq!(output.status.code(), Some(1), "{said}");
            let lines = || stdout.lines().filter(|line| line.starts_with('{'));
            assert_eq!(lines().count(), begun, "{said}");
            let codes: Vec<Value> = lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .map(|document: Value| document["code"].clone())
                .collect();
            assert_eq!(codes, whole, "{said}");
            assert!(said.contains("panic at src/cni/mod.rs:"), "{said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }
}
