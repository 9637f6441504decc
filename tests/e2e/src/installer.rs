//! The installer as its `DaemonSet` runs it: a pod in the node's network namespace with a
//! container of the release image, hostPath volumes and a service account.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use crate::Env;
use crate::cluster::{Cluster, SERVICE, SYSTEM};
use crate::cri::{EXITED, NODE, Outcome};
use crate::node::{self, wait_for};
use crate::pod::{ContainerSpec, Pod, PodRequest, sandbox_config};

/// As in the manifests.
const MEMORY_LIMIT: i64 = 32 << 20;
/// Seconds until SIGKILL: a watchdog, longer than `terminationGracePeriodSeconds`.
const GRACE: i64 = 60;
/// A watchdog for a request of a probe.
const PROBE: Duration = Duration::from_secs(30);
/// The plugin's entry, from the manifests' `ConfigMap`.
const NETWORK_CONFIG: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "msm-cni",
  "type": "msm-cni",
  "logLevel": "__LOG_LEVEL__",
  "kubernetes": {
    "kubeConfig": "__KUBECONFIG_FILEPATH__",
    "excludeNamespaces": ["kube-system", "msm-system"]
  }
}"#;

/// A running installer.
pub struct Installer<'a> {
    pod: Pod<'a>,
    name: String,
    pub container: String,
}

impl<'a> Installer<'a> {
    /// Starts the installer in a new pod.
    pub fn start(env: &'a Env, name: &str, image: &str) -> Result<Self, String> {
        env.cluster.add_installer(name);
        let request = PodRequest {
            namespace: SYSTEM,
            network: NODE,
            ..PodRequest::new(name, None)
        };
        let config = sandbox_config(&env.node, request);
        let pod = Pod::start_sandbox(&env.node.runtime, config, request.handler)?;
        let [bin_dir, net_dir, account] =
            [node::bin_dir(), node::net_dir(), node::service_account()]
                .map(|path| path.display().to_string());
        let spec = ContainerSpec {
            name: "installer",
            image,
            command: &["installer"],
            env: &[
                ("CNI_NETWORK_CONFIG", NETWORK_CONFIG),
                ("CNI_NET_DIR", &net_dir),
                ("CHAINED_CNI_PLUGIN", "true"),
                ("KUBERNETES_NODE_NAME", "node-1"),
                ("POD_NAME", name),
                ("POD_NAMESPACE", SYSTEM),
                ("KUBERNETES_SERVICE_HOST", &SERVICE.ip().to_string()),
                ("KUBERNETES_SERVICE_PORT", &SERVICE.port().to_string()),
            ],
            mounts: &[
                (&bin_dir, "/host/opt/cni/bin", false),
                (&net_dir, "/host/etc/cni/net.d", false),
                (
                    &account,
                    "/var/run/secrets/kubernetes.io/serviceaccount",
                    true,
                ),
            ],
            memory_limit: MEMORY_LIMIT,
            network: NODE,
            ..ContainerSpec::default()
        };
        let container = pod.container(spec.config())?;
        Ok(Self {
            pod,
            name: name.to_owned(),
            container,
        })
    }

    /// Requests `/readyz`; returns the status code and the body.
    pub fn readiness() -> Result<(u16, String), String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 8000))?;
            stream.set_read_timeout(Some(PROBE))?;
            write!(stream, "GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.get(9..12).and_then(|code| code.parse().ok());
        Ok((code.ok_or(head)?, body.trim().to_owned()))
    }

    /// Waits until the installer is ready; returns the time, or the reason why it is not ready.
    pub fn becomes_ready(&self) -> Result<Duration, String> {
        let is_ready = || Self::readiness().is_ok_and(|(code, _)| code == 200);
        wait_for(is_ready).ok_or_else(|| format!("{:?}\n{}", Self::readiness(), self.log()))
    }

    /// The process ID in the node's PID namespace.
    pub fn pid(&self) -> Result<u64, String> {
        let (_, info) = self.pod.runtime.container(&self.container)?;
        info["pid"].as_u64().ok_or_else(|| info.to_string())
    }

    /// Runs a command in the installer's container.
    pub fn exec(&self, command: &[&str]) -> Result<Outcome, String> {
        self.pod.runtime.exec(&self.container, command)
    }

    /// Reads a file of the process in /proc.
    pub fn proc_file(&self, name: &str) -> Result<String, String> {
        let path = format!("/proc/{}/{name}", self.pid()?);
        fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
    }

    /// Sends SIGTERM; returns the exit code.
    pub fn terminate(&self) -> Result<String, String> {
        let runtime = self.pod.runtime;
        runtime.stop_container(&self.container, GRACE)?;
        let (status, _) = runtime.container(&self.container)?;
        if status.state == EXITED {
            Ok(format!("exit code {}", status.exit_code))
        } else {
            Err(format!("container state {}", status.state))
        }
    }

    /// Removes the pod.
    pub fn remove(self) -> Result<String, String> {
        self.pod.remove()
    }

    /// The container's log.
    pub fn log(&self) -> String {
        let file = node::logs().join(&self.name).join("installer.log");
        fs::read_to_string(&file).unwrap_or_else(|error| format!("{}: {error}", file.display()))
    }
}

/// Writes a token as the kubelet does: into a new directory, then by renaming `..data`.
pub fn mount_token(cluster: &Cluster, token: &str) {
    let account = node::service_account();
    let version: PathBuf = format!("..{token}").into();
    fs::create_dir_all(account.join(&version)).unwrap();
    let authority = cluster.authority();
    for (file, content) in [
        ("token", token),
        ("ca.crt", &authority),
        ("namespace", SYSTEM),
    ] {
        fs::write(account.join(&version).join(file), content).unwrap();
        // Fails from the second time on, because the link exists.
        let _ = symlink(format!("..data/{file}"), account.join(file));
    }
    symlink(&version, account.join("..data_tmp")).unwrap();
    fs::rename(account.join("..data_tmp"), account.join("..data")).unwrap();
}
