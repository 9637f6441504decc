//! Requests that lack nothing, and how a process is started and ended when its streams are
//! other than pipes.

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

/// No step of these tests takes a second.
const DEADLINE_MS: u16 = 30_000;

/// The executable as `applet`, run by `wrapper`, a program and its arguments.
pub fn under(wrapper: &[&str], applet: &str) -> Command {
    let mut command = applet_under(wrapper, applet);
    command.env("PATH", TOOL_DIRECTORIES.join(":"));
    command
}

/// The same with streams as a shell's `redirections` say.
pub fn redirected(redirections: &str, applet: &str) -> Command {
    under(
        &["sh", "-c", &format!("exec \"$@\" {redirections}"), "sh"],
        applet,
    )
}

/// A request of a pod in a namespace that `configuration` excludes.
pub fn excluded(plugin: Command, verb: &str) -> Command {
    request(plugin, verb, Path::new("/run/netns/gone"))
}

/// Of a node that asks for no pod; its result is as long as it is told to be.
pub fn configuration(result_bytes: usize) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "k8s-pod-network", "type": "msm-cni",
        "kubernetes": {"kubeConfig": "/nowhere", "excludeNamespaces": ["media"]},
        "prevResult": {"cniVersion": "1.1.0", "x-long": "x".repeat(result_bytes)},
    })
}

/// The one document on standard output.
#[track_caller]
pub fn document(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}\n{outcome}"))
}

/// What is expected of a plugin that was refused something: an error, or no answer at all.
#[track_caller]
pub fn refused(outcome: &Outcome) {
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

/// How it ended, and what it and its children said on standard error until then.
pub fn end(mut child: Child) -> (ExitStatus, String) {
    let text = read_to_end(&mut child.stderr.take().unwrap());
    (child.wait().unwrap(), text)
}

pub fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// Waits until there is something to read, or nobody left to write it.
pub fn wait_for(stream: &impl AsFd) {
    let mut waited_for = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut waited_for, DEADLINE_MS).unwrap();
    assert_eq!(ready, 1, "nothing was written, and nobody ended");
}

/// Reads a stream until nobody is left to write to it.
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
