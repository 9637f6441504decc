//! Network namespaces in the tests' own process: made by a thread, kept by a descriptor,
//! entered by a thread. Nothing is mounted, so nothing is left behind.

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

/// Where user 0 of a pod with a user namespace is outside of it. Container runtimes start
/// higher up, but an ordinary user's tests only have the IDs that /etc/subuid gives them.
pub const UID_SHIFT: u32 = 10_000;
/// How many users such a pod has.
const UID_COUNT: u32 = 40_000;
/// Both families and both variants of iptables.
const SAVE_TOOLS: [&str; 4] = [
    "iptables-nft-save",
    "ip6tables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
];

/// A network namespace, alive as long as this value.
pub struct Namespace {
    handle: File,
    /// Which user of the tests' its user 0 is.
    uid_shift: u32,
}

/// Why this machine does not let us make network namespaces, if it does not.
pub fn refusal() -> Option<String> {
    on_own_thread(|| unshare(CloneFlags::CLONE_NEWNET).err()).map(|error| {
        format!("make a network namespace: {error}; run it as root, or with scripts/run-in-userns")
    })
}

impl Namespace {
    /// A new one, with nothing but the loopback interface, up.
    pub fn new() -> Self {
        let handle = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open the new network namespace")
        });
        Self::with_loopback(handle, 0)
    }

    /// A new one that is owned by a user namespace of its own, in which user N is user
    /// `UID_SHIFT` + N of the tests': what a pod with `hostUsers: false` gets, made in the
    /// order in which a runtime makes it.
    pub fn in_user_namespace() -> Self {
        let users = Placeholder::start("unshare", &["--user"]);
        for file in ["uid_map", "gid_map"] {
            std::fs::write(users.file(file), format!("0 {UID_SHIFT} {UID_COUNT}\n"))
                .unwrap_or_else(|error| panic!("write {file}: {error}"));
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

    /// A path that any process on this machine can open it by, as a runtime would pass it
    /// in `CNI_NETNS`.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
        .into()
    }

    /// Runs `work` inside, on a thread of its own; processes it starts are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        })
    }

    /// The same with every socket belonging to user `uid` of the pod.
    pub fn run_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        let user = Uid::from_raw(self.uid_shift + uid);
        self.run(|| {
            // `meta skuid` and `-m owner` look at the file system UID of whoever opened the
            // socket, and that is a thread's own. It reports failure only by being the old
            // one still, which a change to an impossible UID reads.
            setfsuid(user);
            assert_eq!(
                setfsuid(Uid::from_raw(u32::MAX)),
                user,
                "become user {user}"
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

    /// Every nftables rule, counters' values left out.
    pub fn nft_rules(&self) -> String {
        self.tool("nft", &["--stateless", "list", "ruleset"], "")
            .succeeded()
            .stdout
    }

    /// Every iptables rule of both families and both variants, with neither comments nor
    /// counters. Asking legacy iptables does not create its tables.
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

    /// All there is to see, for the message of a failing test.
    pub fn rules(&self) -> String {
        format!("{}{}", self.nft_rules(), self.iptables_rules())
    }
}

/// A process in new namespaces that does nothing, so that they can be opened.
struct Placeholder(Child);

impl Placeholder {
    /// Starts `tool` and waits until it has made its namespaces.
    fn start(tool: &str, args: &[&str]) -> Self {
        // cat ends when its standard input does: at the latest with the tests themselves.
        let mut child = tool_command(&find_tool(tool).unwrap())
            .args(args)
            .args(["/bin/sh", "-c", "echo made; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {tool}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "made\n", "{tool} {args:?} made no namespace");
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
        // Legacy iptables takes a lock in /run, which an ordinary user cannot write. The
        // tables of a namespace are used by one test alone, so any file will do.
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

fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
