//! The host's iptables: it ends with us, holds nothing of ours, and neither its hanging nor
//! its babbling is ours. The tools are scripts here, put where a host has them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread;
use std::time::Duration;

use msm_testkit::cluster::{Cluster, LABELLED, by, request};
use msm_testkit::command::{Outcome, run};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::plugin::{end, read_to_end, redirected, send, start, under, wait_for};

const WRITERS: [&str; 2] = ["iptables-nft-restore", "ip6tables-nft-restore"];
const READERS: [&str; 2] = ["iptables-nft-save", "ip6tables-nft-save"];
/// Both families are written.
const BOTH: [&str; 4] = ["--backend", "iptables", "--ipv6", "redirect"];
/// What a pipe holds.
const PIPE_BYTES: usize = 65536;
/// In the kernel's masks the first bit is signal 1.
const SIGPIPE_BIT: u64 = 1 << 12;
const NEEDED: [&str; 5] = ["unshare", "mount", "sh", "cat", "sleep"];
/// Shows its directory in place of those that hold the host's network tools.
const ELSEWHERE: &str = "for directory in /usr/sbin /sbin /usr/local/sbin; do
        test ! -d $directory || mount --bind \"$1\" $directory || exit 99
    done
    shift
    exec \"$@\"";

/// A host whose tools are scripts.
struct Host(Scratch);

impl Host {
    /// All writers do as `script` says; the readers find nothing.
    fn new(script: &str) -> Self {
        let host = Self(Scratch::new());
        fs::create_dir(host.path("bin")).unwrap();
        for tool in WRITERS {
            host.install(tool, script);
        }
        for tool in READERS {
            host.install(tool, "exit 0");
        }
        host
    }

    fn install(&self, tool: &str, script: &str) {
        let path = self.path("bin").join(tool);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, applet: &str) -> Command {
        let bin = self.path("bin");
        let wrapper = ["unshare", "--mount", "sh", "-c", ELSEWHERE, "sh"];
        under(&[&wrapper[..], &[bin.to_str().unwrap()]].concat(), applet)
    }

    /// Writes a redirect into a sandbox of its own.
    fn apply(&self) -> Outcome {
        let sandbox = Namespace::new();
        let mut command = self.command("msm-iptables");
        run(command.arg("--netns").arg(sandbox.path()).args(BOTH))
    }
}

/// Two tools at work, from outside.
struct AtWork {
    host: Host,
    /// Open as long as one of them lives.
    alive: File,
    /// Where they read what nobody writes.
    _never: Scratch,
}

/// A host whose writers do as `script` says, and a stream that ends with the last of them.
fn waiting(script: &str) -> (Host, File) {
    let host = Host::new("");
    let fifo = host.path("alive");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for tool in WRITERS {
        host.install(tool, &format!("exec 3>{}\n{script}", fifo.display()));
    }
    // Nobody has to be writing yet.
    let alive = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(fifo)
        .unwrap();
    (host, alive)
}

impl AtWork {
    fn new() -> Self {
        let never = Scratch::new();
        let fifo = never.path().join("never");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // A second shell, which does not have the script open, and a third that writes, so
        // that the second moves no descriptors for it.
        let script = format!("exec sh -c '(echo $$ >&3); exec <{}'", fifo.display());
        let (host, alive) = waiting(&script);
        Self {
            host,
            alive,
            _never: never,
        }
    }

    /// The process IDs of both, once they have begun.
    fn processes(&mut self) -> Vec<String> {
        let (mut lines, mut buffer) = (String::new(), [0; 64]);
        while lines.matches('\n').count() < WRITERS.len() {
            wait_for(&self.alive);
            let count = self.alive.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the tools have ended: {lines}");
            lines += str::from_utf8(&buffer[..count]).unwrap();
        }
        lines.lines().map(str::to_owned).collect()
    }

    fn wait_for_the_end(mut self) {
        read_to_end(&mut self.alive);
    }
}

fn linked(process: &str, descriptor: &str) -> PathBuf {
    let link = Path::new("/proc").join(process).join(descriptor);
    fs::read_link(&link).unwrap_or_else(|error| panic!("{}: {error}", link.display()))
}

fn descriptors(process: &str) -> BTreeSet<String> {
    fs::read_dir(Path::new("/proc").join(process).join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The descriptors of any child of the tests.
fn inherited() -> BTreeSet<String> {
    let ((stdin, mut input), (output, stdout)) = (pipe().unwrap(), pipe().unwrap());
    let child = start(&mut Command::new("cat"), stdin, stdout);
    input.write_all(b"are you there?").unwrap();
    wait_for(&output);
    let descriptors = descriptors(&child.id().to_string());
    drop(input);
    end(child);
    descriptors
}

#[test]
fn a_tool_ends_with_us() {
    if cannot_run(&NEEDED) {
        return;
    }
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGABRT,
        Signal::SIGKILL,
    ] {
        let (mut tools, sandbox) = (AtWork::new(), Namespace::new());
        let mut command = tools.host.command("msm-iptables");
        command.arg("--netns").arg(sandbox.path()).args(BOTH);
        let running = start(&mut command, Stdio::null(), Stdio::null());
        tools.processes();
        send(&running, signal);
        // The end of its standard error too, which its tools might have kept.
        let (status, stderr) = end(running);
        assert_eq!(status.code(), None, "{signal}: {stderr}");
        tools.wait_for_the_end();
    }
}

#[test]
fn a_tool_of_the_plugin_ends_with_it() {
    if cannot_run(&NEEDED) {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (mut tools, sandbox) = (AtWork::new(), Namespace::new());
        let cluster = Cluster::new(LABELLED, &[]);
        let input = tools.host.path("configuration");
        let mut configuration = cluster.configuration(&by("iptables"));
        configuration["redirect"] = serde_json::json!({"ipv6": "redirect"});
        fs::write(&input, configuration.to_string()).unwrap();
        let mut plugin = request(tools.host.command("msm-cni"), "ADD", &sandbox.path());
        let plugin = start(&mut plugin, File::open(input).unwrap(), Stdio::null());
        tools.processes();
        send(&plugin, signal);
        let (status, stderr) = end(plugin);
        assert_eq!(status.code(), None, "{signal}: {stderr}");
        tools.wait_for_the_end();
    }
}

#[test]
fn a_tool_holds_nothing_of_ours() {
    if cannot_run(&NEEDED) {
        return;
    }
    let (mut tools, sandbox) = (AtWork::new(), Namespace::new());
    let mut command = tools.host.command("msm-iptables");
    command
        .arg("--netns")
        .arg(sandbox.path())
        .args(BOTH)
        .env("SECRET", "sesame");
    let running = start(&mut command, Stdio::null(), Stdio::null());
    let processes = tools.processes();
    // Beside its three streams: what the tests themselves were given, and the script's own.
    let mut wanted = inherited();
    wanted.insert("3".into());
    let us = running.id().to_string();
    let ours = ["fd/0", "fd/1", "fd/2"].map(|stream| linked(&us, stream));
    for process in &processes {
        let directory = Path::new("/proc").join(process);
        assert_eq!(descriptors(process), wanted);
        for stream in ["fd/0", "fd/1", "fd/2"] {
            let stream = linked(process, stream);
            assert!(!ours.contains(&stream), "{stream:?} is ours");
        }
        assert_eq!(linked(process, "cwd"), Path::new("/"));
        assert_eq!(linked(process, "ns/net"), linked(&us, "ns/net"));
        let variables = fs::read(directory.join("environ")).unwrap();
        let variables = String::from_utf8_lossy(&variables);
        // PWD is the shell's.
        let variables: Vec<_> = variables
            .split_terminator('\0')
            .filter(|variable| !variable.starts_with("PWD="))
            .collect();
        assert_eq!(variables, ["XTABLES_LOCKFILE=/proc/self/fd/0"]);
        // Rust's start-up ignores SIGPIPE, and a tool would inherit that.
        let status = fs::read_to_string(directory.join("status")).unwrap();
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .unwrap();
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        assert_eq!(mask & SIGPIPE_BIT, 0, "{status}");
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    }
    send(&running, Signal::SIGTERM);
    end(running);
    tools.wait_for_the_end();
}

#[test]
fn a_tool_that_misbehaves_is_told_of() {
    if cannot_run(&NEEDED) {
        return;
    }
    for (script, text) in [
        (
            "echo 'no such table' >&2; exit 4",
            "exit status: 4: no such table",
        ),
        (
            "echo 'no such table'; exit 1",
            "exit status: 1: no such table",
        ),
        ("kill -SEGV $$", "signal: 11"),
        ("kill -KILL $$", "signal: 9"),
        ("exec yes", "printed more than 16777216 bytes"),
        ("exec yes >&2", "printed more than 16777216 bytes"),
        ("exec >&-; exec yes >&2", "printed more than 16777216 bytes"),
        ("printf '\\377\\033[1m' >&2; exit 3", "exit status: 3"),
        (
            "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3",
            "exit status: 3: xxx",
        ),
    ] {
        let outcome = Host::new(script).apply().exited(1).complains_about(text);
        let outcome = outcome.complains_about("iptables-nft-restore");
        assert!(outcome.stderr.len() < 2000, "too long to read\n{outcome}");
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
}

#[test]
fn a_tool_that_cannot_be_started_is_told_of() {
    if cannot_run(&NEEDED) {
        return;
    }
    let host = Host::new("");
    let path = host.path("bin").join(WRITERS[0]);
    let starting = "starting \"/usr/sbin/iptables-nft-restore\": ";
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    host.apply()
        .exited(1)
        .complains_about(&format!("{starting}permission denied"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    host.apply()
        .exited(1)
        .complains_about(&format!("{starting}permission denied"));
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "#!/no/such/shell\n").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    host.apply()
        .exited(1)
        .complains_about(&format!("{starting}no such file"));
    fs::remove_file(host.path("bin").join(WRITERS[1])).unwrap();
    host.install(WRITERS[0], "cat >/dev/null");
    host.apply()
        .exited(1)
        .complains_about("starting \"/usr/sbin/ip6tables-nft-restore\": no such file");
}

#[test]
fn a_tool_that_talks_a_lot_is_listened_to() {
    if cannot_run(&NEEDED) {
        return;
    }
    for script in [
        "cat >/dev/null",
        "head -c 1000000 /dev/zero; cat >/dev/null",
        "head -c 1000000 /dev/zero >&2; cat >/dev/null",
        "cat >/dev/null; exec >&- 2>&-; exit 0",
    ] {
        Host::new(script).apply().succeeded();
    }
}

/// A host with one variant only has to be asked by running it which one that is.
#[test]
fn where_iptables_wrote_nothing_no_tool_is_started() {
    if cannot_run(&NEEDED) {
        return;
    }
    let (host, sandbox) = (Host::new(""), Namespace::new());
    let started = host.path("started");
    for tool in WRITERS {
        fs::remove_file(host.path("bin").join(tool)).unwrap();
    }
    let script = format!(": >{}; exec cat >/dev/null", started.display());
    host.install("iptables-restore", &script);
    for (more, starts) in [
        (&["--backend", "nftables"][..], false),
        (&["--cleanup"], false),
        (&["--backend", "iptables"], true),
    ] {
        let mut command = host.command("msm-iptables");
        run(command.arg("--netns").arg(sandbox.path()).args(more)).succeeded();
        assert_eq!(started.exists(), starts, "{more:?}");
    }
}

/// They are met at once: each takes all the time that a tool is given.
#[test]
fn a_tool_that_hangs_does_not_hang_us() {
    if cannot_run(&NEEDED) {
        return;
    }
    let hanging = [
        "exec sleep 1000",
        "echo 'still waiting' >&2; cat >/dev/null; exec sleep 1000",
        "exec >&- 2>&-; exec sleep 1000",
        "exec <&-; exec sleep 1000",
        "trap '' TERM INT HUP; exec sleep 1000",
    ];
    thread::scope(|scope| {
        for script in hanging {
            scope.spawn(move || {
                let outcome = Host::new(script).apply().exited(1);
                let outcome =
                    outcome.complains_about("was killed: it had not ended after 10 seconds");
                assert!(outcome.took < Duration::from_secs(20), "{outcome}");
                if script.contains("waiting") {
                    outcome.complains_about("still waiting");
                } else {
                    assert!(outcome.stderr.ends_with("10 seconds\n"), "{outcome}");
                }
            });
        }
        scope.spawn(|| {
            // A shell that waits for a child of its own.
            let (host, mut alive) = waiting("sleep 1000\nexit 1");
            host.apply().exited(1);
            read_to_end(&mut alive);
        });
        // What a tool leaves behind is waited for no longer, and what it did is done.
        scope.spawn(|| Host::new("cat >/dev/null; sleep 15 &").apply().succeeded());
    });
}

#[test]
fn rules_that_fill_more_than_a_pipe_are_written() {
    if cannot_run(&NEEDED) {
        return;
    }
    // Somebody's jumps to our chain, which we read and remove.
    let jump = format!(
        "-A OUTPUT -m comment --comment {} -j MSM_CNI_OUTPUT\n",
        "x".repeat(200)
    );
    let jumps = jump.repeat(700);
    let listing = format!("*nat\n:OUTPUT ACCEPT [0:0]\n:MSM_CNI_OUTPUT - [0:0]\n{jumps}COMMIT\n");
    let host = Host::new("");
    fs::write(host.path("listing"), listing).unwrap();
    for tool in READERS {
        host.install(tool, &format!("cat {}", host.path("listing").display()));
    }
    for tool in WRITERS {
        // As the real one has it, what exists is not made anew.
        let told = host.path(tool).display().to_string();
        host.install(tool, &format!("cat >{told}; ! grep -q -e ^-N {told}"));
    }
    host.apply().succeeded();
    for tool in WRITERS {
        let rules = fs::read_to_string(host.path(tool)).unwrap();
        assert!(rules.len() > 2 * PIPE_BYTES, "{} bytes", rules.len());
        assert_eq!(rules.matches("-D OUTPUT").count(), 700);
        assert!(rules.ends_with("COMMIT\n"), "{rules}");
    }
}

#[test]
fn without_standard_streams_the_tools_have_theirs() {
    if cannot_run(&["iptables-nft-restore", "iptables-nft-save"]) {
        return;
    }
    for backend in ["iptables", "nftables"] {
        let sandbox = Namespace::new();
        let mut command = redirected("<&- >&- 2>&-", "msm-iptables");
        run(command
            .arg("--netns")
            .arg(sandbox.path())
            .args(["--backend", backend]))
        .succeeded();
        let mut check = applet("msm-iptables");
        run(check
            .arg("--netns")
            .arg(sandbox.path())
            .args(["--backend", backend, "--check"]))
        .succeeded();
    }
}

/// Between the start of a child and its wish to end with us we may have ended.
#[test]
fn a_child_that_comes_too_late_starts_nothing() {
    let scratch = Scratch::new();
    let file = scratch.path().join("started");
    let us = id().to_string();
    run(applet("msm-tool").args(["1", "/usr/bin/touch"]).arg(&file))
        .exited(127)
        .complains_about("process 1, which wanted this done, has ended");
    assert!(!file.exists());
    run(applet("msm-tool").args([&us, "/usr/bin/touch"]).arg(&file)).succeeded();
    assert!(file.exists());
    for args in [&[][..], &["x"], &["-1", "/bin/true"], &[&us]] {
        run(applet("msm-tool").args(args))
            .exited(127)
            .complains_about("only this program starts this");
    }
    run(applet("msm-tool").args([&us, "/no/such/tool"]))
        .exited(127)
        .complains_about("starting \"/no/such/tool\": no such file");
}
