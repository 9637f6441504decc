//! Network namespaces of the test process: a thread creates one, a descriptor keeps it, and
//! other threads enter it. Nothing is mounted, so nothing needs to be removed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Uid, setfsuid};

use crate::command::{Outcome, run, run_with_input};
use crate::{TOOL_DIRECTORIES, find_tool};

/// The test process's UID for user 0 of a pod with a user namespace. Container runtimes use
/// higher ones, but rootless tests are limited to the IDs in /etc/subuid.
pub const UID_SHIFT: u32 = 10_000;
/// The number of users of such a pod.
const UID_COUNT: u32 = 40_000;
/// Both families and both variants of iptables.
const SAVE_TOOLS: [&str; 4] = [
    "iptables-nft-save",
    "ip6tables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
];

/// A network namespace, kept by this value.
pub struct Namespace {
    handle: File,
    /// The test process's UID for its user 0.
    uid_shift: u32,
}

/// Why this machine does not allow network namespaces, or `None` if it does.
pub fn refusal() -> Option<String> {
    on_new_thread(|| unshare(CloneFlags::CLONE_NEWNET).err()).map(|error| {
        format!(
            "creating a network namespace: {error}; run the tests as root, or with scripts/run-in-userns"
        )
    })
}

impl Namespace {
    /// Creates one with only the loopback interface, up.
    pub fn new() -> Self {
        let handle = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("create a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open the new network namespace")
        });
        Self::with_loopback(handle, 0)
    }

    /// Creates one in a new user namespace, as for a pod with `hostUsers: false`: user N of the
    /// pod is user `UID_SHIFT` + N of the test process. Like a runtime, it creates the user
    /// namespace first.
    pub fn in_user_namespace() -> Self {
        let users = Placeholder::start("unshare", &["--user"]);
        for file in ["uid_map", "gid_map"] {
            std::fs::write(users.file(file), format!("0 {UID_SHIFT} {UID_COUNT}\n"))
                .unwrap_or_else(|error| panic!("writing {file}: {error}"));
        }
        let user_namespace = format!("--user={}", users.file("ns/user").display());
        let as_its_root = [
            &user_namespace,
            "--setuid=0",
            "--setgid=0",
            "unshare",
            "--net",
        ];
        let network = Placeholder::start("nsenter", &as_its_root);
        let handle = File::open(network.file("ns/net")).expect("open the pod's network namespace");
        Self::with_loopback(handle, UID_SHIFT)
    }

    fn with_loopback(handle: File, uid_shift: u32) -> Self {
        let namespace = Self { handle, uid_shift };
        namespace.ip("link set lo up");
        namespace
    }

    /// A path that any process on this machine can open, as a runtime passes it in
    /// `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
        .into()
    }

    /// Runs `work` inside, on a new thread; processes that it starts are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_new_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// Runs `work` inside; its sockets belong to user `uid` of the pod.
    pub fn run_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        let user = Uid::from_raw(self.uid_shift + uid);
        self.run(|| {
            // `meta skuid` and `-m owner` match the file system UID of the thread that opened
            // the socket. setfsuid returns the previous UID even if it fails; a second call
            // with an invalid UID reads the current one.
            setfsuid(user);
            assert_eq!(
                setfsuid(Uid::from_raw(u32::MAX)),
                user,
                "change to user {user}"
            );
            work()
        })
    }

    /// Runs a tool inside, with `input` on its standard input.
    pub fn tool(&self, name: &str, args: &[&str], input: &str) -> Outcome {
        let path = find_tool(name).unwrap_or_else(|| panic!("{name} is not installed"));
        self.run(|| run_with_input(tool_command(&path).args(args), input))
    }

    /// Runs `command` inside.
    pub fn command(&self, command: &mut Command) -> Outcome {
        self.run(|| run(command))
    }

    /// Runs lines of `ip` commands inside.
    pub fn ip(&self, lines: &str) {
        self.tool("ip", &["-batch", "-"], lines).succeeded();
    }

    /// Loads rules in nft's language.
    pub fn load(&self, rules: &str) {
        self.tool("nft", &["-f", "-"], rules).succeeded();
    }

    /// All nftables rules, without the values of counters.
    pub fn nft_rules(&self) -> String {
        self.tool("nft", &["--stateless", "list", "ruleset"], "")
            .succeeded()
            .stdout
    }

    /// All iptables rules of both families and both variants, without comments and counters.
    /// `iptables-legacy-save` does not create tables.
    pub fn iptables_rules(&self) -> String {
        let mut rules = String::new();
        for tool in SAVE_TOOLS
            .into_iter()
            .filter(|tool| find_tool(tool).is_some())
        {
            let listing = self.tool(tool, &[], "").succeeded().stdout;
            rules.extend([tool, ":\n", &without_counters(&listing)]);
        }
        rules
    }

    /// All rules, for the message of a failing test.
    pub fn rules(&self) -> String {
        format!("{}{}", self.nft_rules(), self.iptables_rules())
    }
}

/// An idle process in new namespaces, so that they can be opened.
struct Placeholder(Child);

impl Placeholder {
    /// Starts `tool` and waits until it has created its namespaces.
    fn start(tool: &str, args: &[&str]) -> Self {
        // cat ends when its standard input is closed, at the latest with the test process.
        let mut child = tool_command(&find_tool(tool).unwrap())
            .args(args)
            .args(["/bin/sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {tool}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n", "{tool} {args:?} created no namespace");
        Self(child)
    }

    /// One of the process's files in /proc.
    fn file(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0.id()).into()
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tool with a clean environment.
fn tool_command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", TOOL_DIRECTORIES.join(":"))
        // Legacy iptables locks a file in /run, which only root can write. Only one test uses
        // the tables of a namespace, so any file is fine.
        .env("XTABLES_LOCKFILE", "/dev/null");
    command
}

/// `iptables-save` output without comments, `[packets:bytes]` and empty lines.
fn without_counters(listing: &str) -> String {
    listing
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(" [").next().unwrap().to_owned() + "\n")
        .collect()
}

fn on_new_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
