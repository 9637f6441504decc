//! The host's iptables tools, replaced by scripts: they end with the process that started
//! them, inherit nothing from it, and may hang, fail or print any amount.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread;

use msm_testkit::cluster::{Cluster, LABELLED, intercept_name, request};
use msm_testkit::command::{Outcome, run};
use msm_testkit::executables::write_executable;
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::helpers::{DEFAULT_SIGNALS, end, read_to_end, redirected, send, start, under, wait_for};

const WRITERS: [&str; 2] = ["iptables-nft-restore", "ip6tables-nft-restore"];
const READERS: [&str; 2] = ["iptables-nft-save", "ip6tables-nft-save"];
/// Writes rules of both families.
const BOTH: [&str; 4] = ["--backend", "iptables", "--ipv6", "redirect"];
/// The capacity of a pipe.
const PIPE_BYTES: usize = 65536;
/// In /proc/PID/status, where signal 1 is the lowest bit.
const SIGPIPE_BIT: u64 = 1 << 12;
const NEEDED: [&str; 5] = ["unshare", "mount", "sh", "cat", "sleep"];
/// Script: mounts the directory `$1` over those with the host's network tools.
const MOUNT_TOOLS: &str = "for directory in /usr/sbin /sbin /usr/local/sbin; do
        test ! -d $directory || mount --bind \"$1\" $directory || exit 99
    done
    shift
    exec \"$@\"";

/// A host whose tools are scripts.
struct Host(Scratch);

impl Host {
    /// All writers run `script`; the readers find no rules.
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
        write_executable(&path, format!("#!/bin/sh\n{script}\n").as_bytes());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, applet: &str) -> Command {
        let bin = self.path("bin");
        let mount = ["unshare", "--mount", "sh", "-c", MOUNT_TOOLS, "sh"];
        let wrapper = [&DEFAULT_SIGNALS[..], &mount, &[bin.to_str().unwrap()]];
        under(&wrapper.concat(), applet)
    }

    /// Writes a redirect into a new sandbox.
    fn apply(&self) -> Outcome {
        let sandbox = Namespace::new();
        let mut command = self.command("msm-iptables");
        run(command.arg("--netns").arg(sandbox.path()).args(BOTH))
    }
}

/// A host whose writers run `script`, and a stream that is closed once all have exited.
fn host_with_writers(script: &str) -> (Host, File) {
    let host = Host::new("");
    let fifo = host.path("alive");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for tool in WRITERS {
        host.install(tool, &format!("exec 3>{}\n{script}", fifo.display()));
    }
    // Non-blocking, or it would wait for a writer.
    let alive = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(fifo)
        .unwrap();
    (host, alive)
}

/// Two tools that block until they are ended.
struct BlockedTools {
    host: Host,
    /// Closed once both have exited.
    alive: File,
    /// The directory of the FIFO that they block on.
    _never: Scratch,
}

impl BlockedTools {
    fn new() -> Self {
        let never = Scratch::new();
        let fifo = never.path().join("never");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        // `sh -c` keeps no script open. The redirection is in a subshell, because a shell saves
        // the descriptors that it redirects.
        let script = format!("exec sh -c '(echo $$ >&3); exec <{}'", fifo.display());
        let (host, alive) = host_with_writers(&script);
        Self {
            host,
            alive,
            _never: never,
        }
    }

    /// The process IDs, once both have started.
    fn processes(&mut self) -> Vec<String> {
        let (mut lines, mut buffer) = (String::new(), [0; 64]);
        while lines.matches('\n').count() < WRITERS.len() {
            wait_for(&self.alive);
            let count = self.alive.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the tools have exited: {lines}");
            lines += str::from_utf8(&buffer[..count]).unwrap();
        }
        lines.lines().map(str::to_owned).collect()
    }

    fn wait_for_exit(mut self) {
        read_to_end(&mut self.alive);
    }
}

fn read_link(process: &str, descriptor: &str) -> PathBuf {
    let link = Path::new("/proc").join(process).join(descriptor);
    fs::read_link(&link).unwrap_or_else(|error| panic!("{}: {error}", link.display()))
}

fn descriptors(process: &str) -> BTreeSet<String> {
    fs::read_dir(Path::new("/proc").join(process).join("fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The descriptors that every child of the tests inherits.
fn inherited_descriptors() -> BTreeSet<String> {
    let ((stdin, mut input), (output, stdout)) = (pipe().unwrap(), pipe().unwrap());
    let child = start(&mut Command::new("cat"), stdin, stdout);
    input.write_all(b"ready?").unwrap();
    wait_for(&output);
    let descriptors = descriptors(&child.id().to_string());
    drop(input);
    end(child);
    descriptors
}

#[test]
fn tool_ends_when_iptables_applet_is_ended() {
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
        let (mut tools, sandbox) = (BlockedTools::new(), Namespace::new());
        let mut command = tools.host.command("msm-iptables");
        command.arg("--netns").arg(sandbox.path()).args(BOTH);
        let running = start(&mut command, Stdio::null(), Stdio::null());
        tools.processes();
        send(&running, signal);
        // Includes that no tool keeps its standard error open.
        let (status, stderr) = end(running);
        assert_eq!(status.code(), None, "{signal}: {stderr}");
        tools.wait_for_exit();
    }
}

#[test]
fn tool_ends_when_plugin_is_ended() {
    if cannot_run(&NEEDED) {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let (mut tools, sandbox) = (BlockedTools::new(), Namespace::new());
        let cluster = Cluster::new(LABELLED, &[]);
        let input = tools.host.path("configuration");
        let mut configuration = cluster.configuration(&intercept_name("iptables"));
        configuration["redirect"] = serde_json::json!({"ipv6": "redirect"});
        fs::write(&input, configuration.to_string()).unwrap();
        let mut plugin = request(tools.host.command("msm-cni"), "ADD", &sandbox.path());
        let plugin = start(&mut plugin, File::open(input).unwrap(), Stdio::null());
        tools.processes();
        send(&plugin, signal);
        let (status, stderr) = end(plugin);
        assert_eq!(status.code(), None, "{signal}: {stderr}");
        tools.wait_for_exit();
    }
}

#[test]
fn tool_inherits_nothing() {
    if cannot_run(&NEEDED) {
        return;
    }
    let (mut tools, sandbox) = (BlockedTools::new(), Namespace::new());
    let mut command = tools.host.command("msm-iptables");
    command
        .arg("--netns")
        .arg(sandbox.path())
        .args(BOTH)
        .env("SECRET", "sesame");
    let running = start(&mut command, Stdio::null(), Stdio::null());
    let processes = tools.processes();
    // The tests' own, and the script's descriptor 3.
    let mut expected = inherited_descriptors();
    expected.insert("3".into());
    let parent = running.id().to_string();
    let parent_streams = ["fd/0", "fd/1", "fd/2"].map(|stream| read_link(&parent, stream));
    for process in &processes {
        let directory = Path::new("/proc").join(process);
        assert_eq!(descriptors(process), expected);
        for stream in ["fd/0", "fd/1", "fd/2"] {
            let stream = read_link(process, stream);
            assert!(!parent_streams.contains(&stream), "inherited: {stream:?}");
        }
        assert_eq!(read_link(process, "cwd"), Path::new("/"));
        assert_eq!(read_link(process, "ns/net"), read_link(&parent, "ns/net"));
        let variables = fs::read(directory.join("environ")).unwrap();
        let variables = String::from_utf8_lossy(&variables);
        // The shell sets PWD.
        let variables: Vec<_> = variables
            .split_terminator('\0')
            .filter(|variable| !variable.starts_with("PWD="))
            .collect();
        assert_eq!(variables, ["XTABLES_LOCKFILE=/proc/self/fd/0"]);
        // Rust's runtime ignores SIGPIPE, which children inherit unless it is reset.
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
    tools.wait_for_exit();
}

#[test]
fn failure_of_a_tool_is_reported() {
    if cannot_run(&NEEDED) {
        return;
    }
    for (script, text) in [
        (
            "echo 'no such table' >&2; exit 4",
            "(exit status: 4): no such table",
        ),
        (
            "echo 'no such table'; exit 1",
            "(exit status: 1): no such table",
        ),
        ("kill -SEGV $$", "signal: 11"),
        ("kill -KILL $$", "signal: 9"),
        ("exec yes", "printed more than 16777216 bytes"),
        ("exec yes >&2", "printed more than 16777216 bytes"),
        ("exec >&-; exec yes >&2", "printed more than 16777216 bytes"),
        ("printf '\\377\\033[1m' >&2; exit 3", "exit status: 3"),
        (
            "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3",
            "(exit status: 3): xxx",
        ),
    ] {
        let outcome = Host::new(script).apply().exited(1).complains_about(text);
        let outcome = outcome.complains_about("iptables-nft-restore");
        assert!(outcome.stderr.len() < 2000, "too long to read\n{outcome}");
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
}

#[test]
fn tool_that_cannot_be_started_is_reported() {
    if cannot_run(&NEEDED) {
        return;
    }
    let host = Host::new("");
    let path = host.path("bin").join(WRITERS[0]);
    let starting = "executing \"/usr/sbin/iptables-nft-restore\": ";
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
    write_executable(&path, b"#!/no/such/shell\n");
    host.apply()
        .exited(1)
        .complains_about(&format!("{starting}no such file"));
    fs::remove_file(host.path("bin").join(WRITERS[1])).unwrap();
    host.install(WRITERS[0], "cat >/dev/null");
    host.apply()
        .exited(1)
        .complains_about("executing \"/usr/sbin/ip6tables-nft-restore\": no such file");
}

#[test]
fn output_of_a_tool_may_exceed_a_pipe() {
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

/// The applet runs `iptables-restore` to detect its variant.
#[test]
fn tools_are_started_only_for_the_iptables_backend() {
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
    for (flags, is_started) in [
        (&["--backend", "nftables"][..], false),
        (&["--cleanup"], false),
        (&["--backend", "iptables"], true),
    ] {
        let mut command = host.command("msm-iptables");
        run(command.arg("--netns").arg(sandbox.path()).args(flags)).succeeded();
        assert_eq!(started.exists(), is_started, "{flags:?}");
    }
}

/// All at once: each takes the whole time limit of a tool.
#[test]
fn hanging_tool_is_killed() {
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
                let outcome = outcome.complains_about("was killed after 10 seconds");
                if script.contains("waiting") {
                    outcome.complains_about("still waiting");
                } else {
                    assert!(outcome.stderr.ends_with("10 seconds\n"), "{outcome}");
                }
            });
        }
        scope.spawn(|| {
            // A shell that waits for its child.
            let (host, mut alive) = host_with_writers("sleep 1000\nexit 1");
            host.apply().exited(1);
            read_to_end(&mut alive);
        });
        // A tool's background process is not waited for, and its rules are kept.
        scope.spawn(|| Host::new("cat >/dev/null; sleep 15 &").apply().succeeded());
    });
}

#[test]
fn rules_may_exceed_a_pipe() {
    if cannot_run(&NEEDED) {
        return;
    }
    // Foreign jumps to the chain of msm-cni, which are removed.
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
        // Like the real one, it fails to create a chain that exists.
        let input = host.path(tool).display().to_string();
        host.install(tool, &format!("cat >{input}; ! grep -q -e ^-N {input}"));
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
fn tools_have_streams_if_the_applet_has_none() {
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

/// The parent may exit before the child sets its parent-death signal.
#[test]
fn child_of_an_exited_parent_starts_nothing() {
    let scratch = Scratch::new();
    let file = scratch.path().join("started");
    let parent = id().to_string();
    run(applet("msm-exec").args(["1", "/usr/bin/touch"]).arg(&file))
        .exited(127)
        .complains_about("parent process 1 has ended");
    assert!(!file.exists());
    run(applet("msm-exec")
        .args([&parent, "/usr/bin/touch"])
        .arg(&file))
    .succeeded();
    assert!(file.exists());
    for args in [&[][..], &["x"], &["-1", "/bin/true"], &[&parent]] {
        run(applet("msm-exec").args(args))
            .exited(127)
            .complains_about("internal applet: expects");
    }
    run(applet("msm-exec").args([&parent, "/no/such/tool"]))
        .exited(127)
        .complains_about("executing \"/no/such/tool\": no such file");
}
