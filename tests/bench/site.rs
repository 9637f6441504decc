//! The surroundings of all measurements: API servers with an ECDSA and an RSA certificate, pods
//! of several sizes, kubeconfigs, the smallest programs there can be; and how the plugin is
//! called there.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use msm_testkit::api_server::{Credentials, KeyKind, Kubeconfig, PodSpec, pod_json};
use msm_testkit::cluster::{INJECT, K8S_NAMESPACE, K8S_UID, request};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use serde_json::{Value, json};

use crate::contenders::Contender;
use crate::launch::{Answer, Launch};
use crate::server::{Objects, Server};

/// The pod that most figures are of.
pub const POD: PodKind = PodKind::Labelled(8_000);
/// How large pods are, in bytes.
pub const SIZES: [usize; 6] = [2_000, 8_000, 50_000, 200_000, 500_000, 1_500_000];

/// Which pod is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// With the label, and about so many bytes.
    Labelled(usize),
    /// Without, of 8 kB.
    Plain,
    /// Of a namespace that the configuration excludes.
    Excluded,
}

/// One call of the plugin.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub verb: &'static str,
    pub pod: PodKind,
    pub key: KeyKind,
    /// As the configuration names it.
    pub backend: &'static str,
}

impl Call {
    /// ADD of the pod that most figures are of.
    pub const ADD: Self = Self {
        verb: "ADD",
        pod: POD,
        key: KeyKind::Ecdsa,
        backend: "nftables",
    };
}

/// The surroundings.
pub struct Site {
    pub ecdsa: Server,
    pub rsa: Server,
    /// Does nothing, with no libraries.
    pub static_true: PathBuf,
    /// Runs something and tells its memory.
    pub launcher: PathBuf,
    /// Standard error of whatever runs.
    pub log: File,
    scratch: Scratch,
}

impl Site {
    pub fn new() -> Result<Self, String> {
        let scratch = Scratch::new();
        let compiled = |name, source| compile(&scratch.path().join(name), source);
        let static_true = compiled("true", include_str!("true.c"))?;
        let launcher = compiled("launcher", include_str!("launcher.c"))?;
        let objects = Arc::new(objects());
        let log = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(scratch.path().join("log"))
            .map_err(|error| format!("create the log of what runs: {error}"))?;
        let site = Self {
            ecdsa: Server::start(KeyKind::Ecdsa, &objects),
            rsa: Server::start(KeyKind::Rsa, &objects),
            static_true,
            launcher,
            log,
            scratch,
        };
        for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
            let server = site.server(key);
            let kubeconfig = Kubeconfig {
                server: &server.url(),
                authority: Some(server.authority()),
                tls_server_name: None,
                credentials: Credentials::Token("sesame"),
            };
            kubeconfig.write(&site.kubeconfig(key));
        }
        Ok(site)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    pub const fn server(&self, key: KeyKind) -> &Server {
        match key {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => &self.rsa,
        }
    }

    fn kubeconfig(&self, key: KeyKind) -> PathBuf {
        self.path(&format!("kubeconfig-{key:?}"))
    }

    /// The plugin as a runtime calls it.
    pub fn call(&self, who: &Contender, call: Call, netns: Option<&Namespace>) -> Launch {
        self.call_by(who.applet("msm-cni"), call, netns)
    }

    /// The same by another program, which gets the environment and standard input.
    pub fn call_by(&self, plugin: Command, call: Call, netns: Option<&Namespace>) -> Launch {
        let netns = netns.map(Namespace::path);
        let netns = netns.as_deref().unwrap_or(Path::new("/var/run/netns/none"));
        let mut command = request(plugin, call.verb, netns);
        let (namespace, name) = call.pod.reference();
        command.env(
            "CNI_ARGS",
            format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
                 K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID={K8S_UID}"
            ),
        );
        let previous = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/x"}],
            "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
        });
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "msm-cni",
            "kubernetes": {
                "kubeConfig": self.kubeconfig(call.key),
                "excludeNamespaces": ["kube-system"],
                "interceptName": call.backend,
            },
            "prevResult": previous,
        });
        let answer = match call.verb {
            "ADD" => Answer::Json(previous),
            "VERSION" => Answer::Key("supportedVersions"),
            _ => Answer::Nothing,
        };
        Launch {
            command,
            input: configuration.to_string().into_bytes(),
            answer,
        }
    }
}

impl PodKind {
    fn reference(self) -> (&'static str, String) {
        match self {
            Self::Labelled(size) => (K8S_NAMESPACE, format!("labelled-{size}")),
            Self::Plain => (K8S_NAMESPACE, "plain".to_owned()),
            Self::Excluded => ("kube-system", "excluded".to_owned()),
        }
    }

    /// Where the API server has it.
    pub fn url_path(self) -> String {
        let (namespace, name) = self.reference();
        format!("/api/v1/namespaces/{namespace}/pods/{name}")
    }

    fn object(self) -> Value {
        let (size, labels) = match self {
            Self::Labelled(size) => (size, &[("app", "camera"), (INJECT, "true")][..]),
            Self::Plain | Self::Excluded => (8_000, &[("app", "camera")][..]),
        };
        let (namespace, name) = self.reference();
        let mut pod = pod_json(&PodSpec {
            namespace,
            name: &name,
            uid: K8S_UID,
            labels,
            annotations: &[],
        });
        resize(&mut pod, size);
        pod
    }
}

/// Takes away what admission and the kubelet's habits add, or gives the application more
/// settings, until the pod has about so many bytes.
fn resize(pod: &mut Value, size: usize) {
    if pod.to_string().len() > size + size / 4 {
        pod["metadata"]["managedFields"] = json!([]);
        for container in pod["spec"]["containers"]
            .as_array_mut()
            .expect("containers")
        {
            container["env"] = json!([]);
        }
    }
    let length = pod.to_string().len();
    let setting = |n: usize| json!({"name": format!("MORE_{n:05}"), "value": "x".repeat(40)});
    let more = size.saturating_sub(length) / (setting(0).to_string().len() + 1);
    let env = &mut pod["spec"]["containers"][0]["env"];
    env.as_array_mut()
        .expect("settings")
        .extend((0..more).map(setting));
}

fn objects() -> Objects {
    let labelled = SIZES.into_iter().map(PodKind::Labelled);
    let pods = labelled.chain([PodKind::Plain]);
    let objects = pods.map(|pod| (pod.url_path(), pod.object().to_string().into_bytes()));
    objects.collect::<HashMap<_, _>>()
}

fn compile(output: &Path, source: &str) -> Result<PathBuf, String> {
    let compiling = || -> std::io::Result<bool> {
        let mut compiler = Command::new("gcc")
            .args(["-static", "-O2", "-s", "-x", "c", "-", "-o"])
            .arg(output)
            .stdin(Stdio::piped())
            .spawn()?;
        let mut stdin = compiler.stdin.take().expect("a pipe");
        stdin.write_all(source.as_bytes())?;
        drop(stdin);
        Ok(compiler.wait()?.success() && fs::exists(output)?)
    };
    match compiling() {
        Ok(true) => Ok(output.to_owned()),
        Ok(false) => Err("gcc cannot build a static program, for the reason above".to_owned()),
        Err(error) => Err(format!("gcc cannot be run: {error}; install gcc")),
    }
}
