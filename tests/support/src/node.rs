//! A node as the installer's container sees it, below a scratch directory: the host's
//! directories, and a service account as the kubelet mounts it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::installer::Installer;
use crate::scratch::Scratch;
use crate::{applet, executable, find_tool};

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

    /// Fails the test if the log contains a secret.
    pub fn assert_no_secret(&self, log: &str) {
        for secret in &*self.secrets.lock().unwrap() {
            assert!(!log.contains(secret), "{secret:?} is in the log\n{log}");
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
    // The installer may have just removed it.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
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
    // The installer may have just removed or replaced it, also between two calls.
    let Ok(metadata) = path.symlink_metadata() else {
        return;
    };
    if metadata.is_symlink() {
        let Ok(target) = fs::read_link(path) else {
            return;
        };
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
