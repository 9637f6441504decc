//! The node: a private containerd, directories for CNI plugins and their configuration, and a
//! network. All files are in memory, in the mount namespace that scripts/e2e created, and
//! disappear with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use serde_json::Value;

use crate::cluster;
use crate::cri::Runtime;

/// Every file that the node's components write is below one of these.
const WRITTEN_DIRECTORIES: [&str; 2] = ["/run", "/var/lib"];
const ROOT: &str = "/run/msm-e2e";
/// An address of the node outside of the pod network.
pub const FAR: &str = "198.51.100.1";
/// The image of every container except the installer's.
pub const GUEST_IMAGE: &str = "msm-e2e-guest:1";
/// The runtime class of pods without msm-cni.
pub const PLAIN: &str = "plain";
/// The directory of Debian's containernetworking-plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// A watchdog for conditions that are waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running node; containerd is killed on drop.
pub struct Node {
    /// The parent cgroup of all pods.
    pub cgroup: String,
    pub runtime: Runtime,
    containerd: Child,
}

impl Node {
    /// `cgroup`: the parent cgroup of pods; `archives`: images to import.
    pub fn start(cgroup: &str, archives: &[PathBuf]) -> Self {
        // Read before the mounts below can hide them.
        let archives = archives.iter().map(|path| {
            fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        });
        let archives: Vec<Vec<u8>> = archives.collect();
        assert_eq!(
            std::process::id(),
            1,
            "must be started by scripts/e2e, in new namespaces"
        );
        for directory in WRITTEN_DIRECTORIES {
            let nothing = None::<&str>;
            mount(nothing, directory, Some("tmpfs"), MsFlags::empty(), nothing)
                .unwrap_or_else(|error| panic!("mount a tmpfs on {directory}: {error}"));
        }
        for directory in [net_dir(), plain_dir(), bin_dir(), logs(), path("tmp")] {
            fs::create_dir_all(directory).unwrap();
        }
        let service = cluster::SERVICE.ip();
        for line in [
            "link set lo up".to_owned(),
            format!("address add {FAR}/32 dev lo"),
            format!("address add {service}/32 dev lo"),
        ] {
            run(Command::new("ip").args(line.split(' ')));
        }
        for plugin in ["bridge", "portmap", "host-local", "loopback"] {
            fs::copy(Path::new(PLUGINS).join(plugin), bin_dir().join(plugin)).unwrap();
        }
        fs::write(plain_dir().join("10-cluster.conflist"), network()).unwrap();
        fs::write(path("containerd.toml"), containerd_config()).unwrap();
        let log = File::create(path("containerd.log")).unwrap();
        let containerd = Command::new("containerd")
            .arg("--config")
            .arg(path("containerd.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let node = Self {
            cgroup: cgroup.to_owned(),
            runtime: Runtime::connect(&socket()),
            containerd,
        };
        wait_or_panic("containerd accepts requests", || {
            node.runtime.version().is_ok()
        });
        for archive in archives {
            let file = path("image.tar");
            fs::write(&file, archive).unwrap();
            let mut ctr = Command::new("ctr");
            ctr.arg("--address").arg(socket());
            run(ctr
                .args(["--namespace", "k8s.io", "images", "import"])
                .arg(&file));
        }
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.containerd.kill();
        let _ = self.containerd.wait();
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn socket() -> PathBuf {
    path("containerd.sock")
}

/// The CNI configuration directory.
pub fn net_dir() -> PathBuf {
    path("etc/cni/net.d")
}

/// The CNI configuration directory of pods without msm-cni.
fn plain_dir() -> PathBuf {
    path("etc/cni/plain.d")
}

/// The directory of CNI plugins.
pub fn bin_dir() -> PathBuf {
    path("opt/cni/bin")
}

/// The directory of container logs.
pub fn logs() -> PathBuf {
    path("log")
}

/// The directory of the installer's service account.
pub fn service_account() -> PathBuf {
    path("serviceaccount")
}

fn addresses() -> PathBuf {
    path("addresses")
}

/// The configuration that a network plugin's installer would write.
pub fn network() -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "cluster",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isDefaultGateway": true,
      "ipMasq": true,
      "hairpinMode": true,
      "ipam": {{
        "type": "host-local",
        "dataDir": "{}",
        "ranges": [[{{"subnet": "10.88.0.0/24"}}]]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"#,
        addresses().display()
    )
}

/// The configuration of a network with a single plugin.
pub fn single_plugin_network() -> String {
    format!(
        r#"{{
  "cniVersion": "1.0.0",
  "name": "cluster",
  "type": "bridge",
  "bridge": "cni0",
  "isDefaultGateway": true,
  "ipMasq": true,
  "hairpinMode": true,
  "ipam": {{
    "type": "host-local",
    "dataDir": "{}",
    "ranges": [[{{"subnet": "10.88.0.0/24"}}]]
  }}
}}
"#,
        addresses().display()
    )
}

/// The end of containerd's log.
pub fn log() -> String {
    let log = fs::read_to_string(path("containerd.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Lists the addresses that host-local has assigned to pods.
pub fn addresses_in_use() -> String {
    let mut names: Vec<String> = fs::read_dir(addresses().join("cluster"))
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("10."))
        .collect();
    names.sort();
    format!("{} addresses in use {}", names.len(), names.join(" "))
        .trim_end()
        .to_owned()
}

/// Lists the types of the plugins that the runtime has loaded, in the order of their calls.
pub fn loaded_plugins(runtime: &Runtime) -> Result<String, String> {
    let info = runtime.info()?;
    let text = info
        .get("cniconfig")
        .map(String::as_str)
        .unwrap_or_default();
    let config: Value = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    let networks = config["Networks"].as_array();
    let plugins = networks.into_iter().flatten().flat_map(|network| {
        let plugins = network["Config"]["Plugins"].as_array();
        plugins.into_iter().flatten()
    });
    let types = plugins.filter_map(|plugin| plugin["Network"]["type"].as_str());
    Ok(types.collect::<Vec<_>>().join(", "))
}

/// Counts portmap's rules for pods.
pub fn port_rules() -> String {
    let output = Command::new("iptables-save").args(["-t", "nat"]).output();
    let rules = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let rules = rules.unwrap_or_else(|error| error.to_string());
    let count = rules
        .lines()
        .filter(|rule| rule.starts_with("-A CNI-DN-"))
        .count();
    format!("{count} rules of port mappings")
}

fn containerd_config() -> String {
    // The native snapshotter copies layers and works without overlayfs.
    let has_overlay = fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.lines().any(|line| line.ends_with("\toverlay")));
    let snapshotter = if has_overlay { "overlayfs" } else { "native" };
    let (root, net_dir, plain_dir) = (ROOT, net_dir(), plain_dir());
    let (net_dir, plain_dir, bin_dir) = (net_dir.display(), plain_dir.display(), bin_dir());
    let (bin_dir, socket) = (bin_dir.display(), socket());
    let socket = socket.display();
    // The plugin "opt" would write to the machine's /opt, and AppArmor support would load profiles
    // into the machine's kernel. Lowering oom_score_adj needs a capability that may be missing.
    format!(
        r#"
version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
disable_apparmor = true
restrict_oom_score_adj = true
sandbox_image = "{GUEST_IMAGE}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin_dir}"
conf_dir = "{net_dir}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{PLAIN}]
runtime_type = "io.containerd.runc.v2"
cni_conf_dir = "{plain_dir}"
"#
    )
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Waits for a condition; returns the time, or `None` after the deadline.
pub fn wait_for(condition: impl Fn() -> bool) -> Option<Duration> {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > DEADLINE {
            return None;
        }
        // Yields the CPU to the processes that must make the condition true.
        std::thread::sleep(Duration::from_millis(1));
    }
    Some(start.elapsed())
}

/// Waits for a condition that later steps need.
#[track_caller]
pub fn wait_or_panic(what: &str, condition: impl Fn() -> bool) {
    assert!(
        wait_for(condition).is_some(),
        "timed out after {DEADLINE:?}: {what}"
    );
}
