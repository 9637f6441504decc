//! Standard output that is closed, full, not writable, or not read.

use std::fs::File;
use std::io::{PipeReader, Write, pipe};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

use msm_testkit::command::{run, run_with_input};
use msm_testkit::scratch::Scratch;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::helpers::{
    DEFAULT_SIGNALS, configuration, end, excluded, read_to_end, redirected, send, start, under,
    wait_for,
};

/// Redirections, and whether a write to them counts as delivered.
const STREAMS: [(&str, bool); 11] = [
    (">&-", false),
    (">&- 2>&-", false),
    ("<&- >&- 2>&-", false),
    (">/dev/full", false),
    ("1</dev/null", false),
    ("1</dev/zero", false),
    ("1</", false),
    // Rust's runtime opens this in place of a closed descriptor.
    ("1<>/dev/null", false),
    (">/dev/null", true),
    (">>/dev/null", true),
    ("1<>/dev/zero", true),
];

#[test]
fn undelivered_reply_is_a_failure() {
    for (redirections, is_delivered) in STREAMS {
        for (verb, has_result) in [
            ("VERSION", true),
            ("ADD", true),
            ("DEL", false),
            ("GC", false),
        ] {
            // The other verbs need a configuration.
            if redirections.contains("<&-") && verb != "VERSION" {
                continue;
            }
            let mut plugin = excluded(redirected(redirections, "msm-cni"), verb);
            let outcome = run_with_input(&mut plugin, &configuration(0).to_string());
            let outcome = outcome.exited(i32::from(has_result && !is_delivered));
            if has_result && !is_delivered && !redirections.contains("2>&-") {
                outcome.complains_about("cannot write the reply to standard output");
            }
        }
        for verb in ["ADD", "DEL", "STATUS", "NEW"] {
            let mut plugin = excluded(redirected(redirections, "msm-cni"), verb);
            run_with_input(&mut plugin, "not JSON").exited(1);
        }
    }
}

#[test]
fn undelivered_long_reply_is_a_failure() {
    let input = configuration(1 << 20).to_string();
    for redirections in [">/dev/full", ">&-", "1<>/dev/null"] {
        let mut plugin = excluded(redirected(redirections, "msm-cni"), "ADD");
        run_with_input(&mut plugin, &input).exited(1);
    }
}

#[test]
fn reply_can_be_written_to_a_file() {
    let scratch = Scratch::new();
    let file = scratch.path().join("reply");
    let redirections = format!("2>&- >{}", file.display());
    let mut plugin = excluded(redirected(&redirections, "msm-cni"), "ADD");
    run_with_input(&mut plugin, &configuration(100_000).to_string()).succeeded();
    let reply: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(reply, configuration(100_000)["prevResult"]);
}

#[test]
fn help_and_errors_tolerate_closed_streams() {
    for (redirections, code) in [
        (">&-", 0),
        ("1<>/dev/null", 0),
        (">/dev/null", 0),
        ("2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        ("1</dev/null", 1),
    ] {
        for words in [
            &["--help"][..],
            &["--version"],
            &["msm-iptables", "--help"],
            &["msm-iptables", "--dry-run"],
        ] {
            run(redirected(redirections, words[0]).args(&words[1..])).exited(code);
        }
    }
    for redirections in [
        "2>&-",
        "2>/dev/full",
        "2</dev/null",
        ">&- 2>&-",
        "<&- >&- 2>&-",
    ] {
        for (words, code) in [
            (&["sh"][..], 2),
            (&["msm-iptables", "--no-such-flag"], 2),
            (&["msm-iptables", "--netns", "/nowhere"], 1),
        ] {
            run(redirected(redirections, words[0]).args(&words[1..])).exited(code);
        }
    }
}

#[test]
fn reply_can_be_written_to_a_socket() {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    let plugin = start_add(OwnedFd::from(writer));
    let reply: Value = serde_json::from_str(&read_to_end(&mut reader)).unwrap();
    assert_eq!(reply, configuration(1 << 20)["prevResult"]);
    assert!(end(plugin).0.success());
}

/// A plugin that has begun to write more than a pipe holds, and the pipe.
fn unread() -> (Child, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let plugin = start_add(writer);
    wait_for(&reader);
    (plugin, reader)
}

fn start_add(stdout: impl Into<Stdio>) -> Child {
    let (stdin, mut input) = pipe().unwrap();
    let plugin = start(
        &mut excluded(under(&DEFAULT_SIGNALS, "msm-cni"), "ADD"),
        stdin,
        stdout,
    );
    let configuration = configuration(1 << 20).to_string();
    input.write_all(configuration.as_bytes()).unwrap();
    plugin
}

#[test]
fn long_reply_blocks_until_it_is_read() {
    let (plugin, mut reader) = unread();
    let reply: Value = serde_json::from_str(&read_to_end(&mut reader)).unwrap();
    assert_eq!(reply, configuration(1 << 20)["prevResult"]);
    assert!(end(plugin).0.success());
}

#[test]
fn signal_ends_plugin_that_blocks_on_stdout() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ] {
        let (plugin, reader) = unread();
        send(&plugin, signal);
        let (status, _) = end(plugin);
        let ended_by = status.signal().map(Signal::try_from);
        assert_eq!(ended_by, Some(Ok(signal)), "{status}");
        drop(reader);
    }
}

#[test]
fn closed_reader_is_a_failure() {
    let (writing, reader) = unread();
    drop(reader);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut version = excluded(under(&DEFAULT_SIGNALS, "msm-cni"), "VERSION");
    let starting = start(&mut version, Stdio::null(), writer);
    for plugin in [writing, starting] {
        let (status, stderr) = end(plugin);
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("Broken pipe"), "{stderr}");
    }
}

/// The caller may share a pipe that it made non-blocking.
#[test]
fn non_blocking_pipe_is_a_failure() {
    let (reader, writer) = pipe().unwrap();
    let non_blocking = File::options()
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(format!("/proc/self/fd/{}", writer.as_raw_fd()))
        .unwrap();
    let (status, stderr) = end(start_add(non_blocking));
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write the reply"), "{stderr}");
    drop(reader);
}
