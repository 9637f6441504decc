//! Complete requests, and processes whose streams are not the pipes of `command::run`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use msm_testkit::cluster::request;
use msm_testkit::command::Outcome;
use msm_testkit::{TOOL_DIRECTORIES, applet_under};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A watchdog; no step takes a second on an idle machine.
const DEADLINE_MS: u16 = 60_000;

/// Wrapper: restores the default action of every signal. A test that a shell runs in the
/// background inherits that SIGINT is ignored.
pub const DEFAULT_SIGNALS: [&str; 2] = ["env", "--default-signal"];

/// Runs the executable as `applet` by `wrapper`, a program and its arguments.
pub fn under(wrapper: &[&str], applet: &str) -> Command {
    let mut command = applet_under(wrapper, applet);
    command.env("PATH", TOOL_DIRECTORIES.join(":"));
    command
}

/// Runs the executable as `applet`, with the redirections of a shell.
pub fn redirected(redirections: &str, applet: &str) -> Command {
    under(
        &["sh", "-c", &format!("exec \"$@\" {redirections}"), "sh"],
        applet,
    )
}

/// A request for a pod in the namespace that `configuration` excludes.
pub fn excluded(plugin: Command, verb: &str) -> Command {
    request(plugin, verb, Path::new("/run/netns/gone"))
}

/// A configuration that needs no API server, with a prevResult of at least this length.
pub fn configuration(result_bytes: usize) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "k8s-pod-network", "type": "msm-cni",
        "kubernetes": {"kubeConfig": "/nowhere", "excludeNamespaces": ["media"]},
        "prevResult": {"cniVersion": "1.1.0", "x-long": "x".repeat(result_bytes)},
    })
}

/// The document on standard output.
#[track_caller]
pub fn document(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{outcome}"))
}

/// Asserts a failure: with an error document, or with no output.
#[track_caller]
pub fn assert_failed(outcome: &Outcome) {
    assert_ne!(outcome.code, Some(0), "{outcome}");
    if !outcome.stdout.is_empty() {
        let error = document(outcome);
        assert!(error["code"].is_u64(), "{outcome}");
        assert_ne!(error["msg"], "", "{outcome}");
    }
}

/// Starts a process whose standard input is `stdin` and whose standard output is `stdout`.
pub fn start(command: &mut Command, stdin: impl Into<Stdio>, stdout: impl Into<Stdio>) -> Child {
    command
        .stdin(stdin)
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits until the process has exited and its children have closed standard error. Returns
/// the exit status and standard error.
pub fn end(mut child: Child) -> (ExitStatus, String) {
    let text = read_to_end(&mut child.stderr.take().unwrap());
    (child.wait().unwrap(), text)
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// Waits until the stream is readable or closed.
pub fn wait_for(stream: &impl AsFd) {
    let mut waited_for = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut waited_for, DEADLINE_MS).unwrap();
    assert_eq!(ready, 1, "neither readable nor closed");
}

/// Reads a stream until every writer has closed it.
pub fn read_to_end(stream: &mut (impl Read + AsFd)) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        wait_for(stream);
        match stream.read(&mut buffer).unwrap() {
            0 => return String::from_utf8_lossy(&bytes).into_owned(),
            count => bytes.extend(&buffer[..count]),
        }
    }
}
