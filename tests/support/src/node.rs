//! A node as the installer's container sees it, below a scratch directory: the host's
//! directories, a service account as the kubelet mounts it, and a running installer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scratch::Scratch;
use crate::{applet, executable, find_tool};

/// The watchdog of every wait. It is not a promise: a slow machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Less than the resync interval of a minute: the installer noticed the change itself.
const REACTION: Duration = Duration::from_secs(45);
pub const NET_DIR: &str = "host/etc/cni/net.d";
pub const BIN_DIR: &str = "host/opt/cni/bin";
pub const KUBECONFIG: &str = "host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig";
pub const SERVICE_ACCOUNT: &str = "var/run/secrets/kubernetes.io/serviceaccount";
/// The node's network configuration: file name, path and content.
pub const CONF: &str = "10-calico.conflist";
pub const CONF_PATH: &str = "host/etc/cni/net.d/10-calico.conflist";
pub const CALICO: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "calico", "mtu": 1440},
    {"type": "portmap", "snat": true}
  ]
}
"#;
/// The certificate of an authority; no server certificate is signed by it.
const AUTHORITY: &str = include_str!("../../fixtures/authority.crt");

/// The files of a node.
pub struct Node {
    scratch: Scratch,
    /// Numbers the versions of the mounted service account.
    mounts: AtomicU32,
    /// Must not appear in a log.
    secrets: Mutex<Vec<String>>,
}

/// Inode and ctime of every file: a write changes one of them.
pub type Stamps = BTreeMap<PathBuf, (u64, i64, i64)>;

impl Node {
    /// A node with a service account and empty directories.
    pub fn new() -> Self {
        Self::with_account("first.token.x", AUTHORITY)
    }

    /// A node with this service account and empty directories.
    pub fn with_account(token: &str, authority: &str) -> Self {
        let node = Self {
            scratch: Scratch::new(),
            mounts: AtomicU32::new(0),
            secrets: Mutex::default(),
        };
        for directory in [NET_DIR, BIN_DIR, SERVICE_ACCOUNT] {
            fs::create_dir_all(node.path(directory)).unwrap();
        }
        for file in ["token", "ca.crt", "namespace"] {
            symlink(
                format!("..data/{file}"),
                node.path(SERVICE_ACCOUNT).join(file),
            )
            .unwrap();
        }
        node.mount_service_account(token, authority);
        node
    }

    /// A node with one file in the runtime's configuration directory.
    pub fn with_conf(name: &str, content: &str) -> Self {
        let node = Self::new();
        node.write(&format!("{NET_DIR}/{name}"), content);
        node
    }

    pub fn root(&self) -> &Path {
        self.scratch.path()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::write(&path, content)
            .unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    pub fn conf(&self, name: &str) -> String {
        self.read(&format!("{NET_DIR}/{name}"))
    }

    /// As the kubelet does it: creates a new directory, renames a symlink to `..data`, removes
    /// the old directory.
    pub fn mount_service_account(&self, token: &str, authority: &str) {
        self.keep_secret(token);
        self.keep_secret(authority.lines().nth(1).unwrap_or_default());
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let account = self.path(SERVICE_ACCOUNT);
        let version = format!("..2026_11_24.{number}");
        fs::create_dir(account.join(&version)).unwrap();
        for (name, content) in [
            ("token", token),
            ("ca.crt", authority),
            ("namespace", "msm"),
        ] {
            fs::write(account.join(&version).join(name), content).unwrap();
        }
        let old = fs::read_link(account.join("..data"));
        symlink(&version, account.join("..data_tmp")).unwrap();
        fs::rename(account.join("..data_tmp"), account.join("..data")).unwrap();
        if let Ok(old) = old {
            fs::remove_dir_all(account.join(old)).unwrap();
        }
    }

    /// Fails the test of every installer that logs this text.
    pub fn keep_secret(&self, text: &str) {
        if text.len() > 8 {
            self.secrets.lock().unwrap().push(text.to_owned());
        }
    }

    pub fn rotate_token(&self, token: &str) {
        self.mount_service_account(token, AUTHORITY);
    }

    /// Path, type or mode, and content of every file of the host; of executables the size. For
    /// comparing two states.
    pub fn tree(&self) -> String {
        let mut lines = Vec::new();
        collect(&self.path("host"), self.root(), &mut lines);
        lines.sort();
        lines.concat()
    }

    pub fn stamps(&self) -> Stamps {
        let mut stamps = Stamps::new();
        stamp(&self.path("host"), &mut stamps);
        stamps
    }

    /// An installer's command line, with a health address that no other installer uses.
    pub fn command(&self, args: &[&str]) -> (Command, SocketAddr) {
        let health = free_address();
        let mut command = applet("installer");
        command
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", "1")
            .env("KUBERNETES_NODE_NAME", "node-1")
            .arg("--root")
            .arg(self.root())
            .arg(format!("--health-address={health}"))
            .args(args);
        (command, health)
    }

    /// The same command line, run by a tool that prepares the environment.
    pub fn command_by(&self, tool: &[&str], args: &[&str]) -> (Command, SocketAddr) {
        let (installer, health) = self.command(args);
        let (name, tool_args) = tool.split_first().unwrap();
        let mut command = Command::new(find_tool(name).unwrap());
        command
            .args(tool_args)
            .arg(executable())
            .arg("installer")
            .args(installer.get_args())
            .env_clear()
            .envs(
                installer
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
        (command, health)
    }

    pub fn start(&self, args: &[&str]) -> Installer<'_> {
        let (command, health) = self.command(args);
        Installer::start(self, command, health)
    }

    /// Starts an installer and waits until it is ready.
    pub fn installed(&self, args: &[&str]) -> Installer<'_> {
        let installer = self.start(args);
        installer.becomes_ready();
        installer
    }
}

/// An address for one installer. It is unique on this machine: the IP address is derived from
/// the test's process ID, and the port is counted up.
fn free_address() -> SocketAddr {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(8000);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, a | 64, b, c), port))
}

fn stamp(path: &Path, stamps: &mut Stamps) {
    let metadata = path.symlink_metadata().unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            stamp(&entry.unwrap().path(), stamps);
        }
    } else {
        let changed = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
        stamps.insert(path.to_owned(), changed);
    }
}

fn collect(path: &Path, root: &Path, lines: &mut Vec<String>) {
    let shown = path.strip_prefix(root).unwrap().display();
    // The installer may have just removed it.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    if metadata.is_symlink() {
        let target = fs::read_link(path).unwrap();
        lines.push(format!("{shown} -> {}\n", target.display()));
    } else if metadata.is_dir() {
        lines.push(format!("{shown}/\n"));
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), root, lines);
        }
    } else {
        let mode = metadata.mode() & 0o7777;
        let mut line = format!("{shown} {mode:04o}");
        match fs::read_to_string(path) {
            Ok(text) => write!(line, "\n{text}").unwrap(),
            Err(_) => write!(line, " {} bytes", metadata.len()).unwrap(),
        }
        lines.push(line + "\n");
    }
}

/// A running installer; killed when dropped. Dropping it also checks the log for secrets.
pub struct Installer<'a> {
    pub node: &'a Node,
    child: Child,
    health: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl<'a> Installer<'a> {
    pub fn start(node: &'a Node, mut command: Command, health: SocketAddr) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *lines.lock().unwrap() += &(line + "\n");
            }
        });
        Self {
            node,
            child,
            health,
            log,
            reader: Some(reader),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `condition` is true.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        self.until(what, || condition().then_some(()));
    }

    /// Waits until `condition` is true. Fails the test if that takes as long as a resync, which
    /// repairs everything even if the installer watches nothing.
    #[track_caller]
    pub fn reacts(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        self.wait_until(what, condition);
        let took = start.elapsed();
        assert!(took < REACTION, "{what}: after {took:?}\n{}", self.log());
    }

    /// Waits until `condition` returns a value.
    #[track_caller]
    pub fn until<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}\n--- log\n{}--- node\n{}",
                self.log(),
                self.node.tree()
            );
            thread::yield_now();
        }
    }

    #[track_caller]
    pub fn becomes_ready(&self) {
        self.wait_until("ready", || self.is_ready());
    }

    /// Waits until the installer is not ready for a reason that contains `text`.
    #[track_caller]
    pub fn becomes_unready(&self, text: &str) {
        self.wait_until(&format!("not ready because of {text:?}"), || {
            self.ready()
                .is_some_and(|(code, body)| code == 503 && body.contains(text))
        });
    }

    /// Status and body of `/readyz`; `None` without an answer.
    pub fn ready(&self) -> Option<(u16, String)> {
        self.get("/readyz")
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        Self::get_from(self.health, path)
    }

    /// Status and body; `None` without an answer.
    pub fn get_from(address: SocketAddr, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    pub const fn health(&self) -> SocketAddr {
        self.health
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The number of lines in the log that contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    /// The number of repairs, as `/readyz` reports it.
    pub fn repairs(&self) -> u64 {
        let (_, body) = self.ready().unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["repairs"].as_u64().unwrap()
    }

    /// Does something while the installer is stopped, so that it observes no state in between.
    pub fn at_once(&self, work: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        self.wait_until("stopped", || self.is_stopped());
        work();
        self.signal(Signal::SIGCONT);
    }

    /// Whether a signal has stopped the process (proc(5)).
    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.starts_with('T')
    }

    /// Sends a signal, waits for the exit, and returns the exit code and the log.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let code = self.wait();
        (code, self.log())
    }

    /// Waits until `condition` is true or the installer exits; returns whether it is true.
    #[track_caller]
    pub fn lives_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> bool {
        let start = Instant::now();
        loop {
            if condition(self) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}\n--- log\n{}--- node\n{}",
                self.log(),
                self.node.tree()
            );
            thread::yield_now();
        }
    }

    /// Kills it unless it has exited.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(|(code, _)| code == 200)
    }

    /// Waits until it exits by itself; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().map(JoinHandle::join);
                return status.code();
            }
            assert!(start.elapsed() < DEADLINE, "still running\n{}", self.log());
            thread::yield_now();
        }
    }
}

impl Drop for Installer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.take().map(JoinHandle::join);
        if !thread::panicking() {
            let log = self.log();
            for secret in &*self.node.secrets.lock().unwrap() {
                assert!(!log.contains(secret), "{secret:?} is in the log\n{log}");
            }
        }
    }
}
