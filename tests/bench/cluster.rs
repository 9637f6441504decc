//! Shared by all measurements: API servers with an ECDSA and an RSA certificate, pods of several
//! sizes, kubeconfigs, minimal programs to compare with, and calls of the plugin.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use msm_testkit::certificates::KeyKind;
use msm_testkit::cluster::{INJECT, K8S_NAMESPACE, K8S_UID, request};
use msm_testkit::kubeconfig::{Credentials, Kubeconfig};
use msm_testkit::netns::Namespace;
use msm_testkit::pod_json::{PodSpec, pod_json};
use msm_testkit::scratch::Scratch;
use serde_json::{Value, json};

use crate::launch::{Expected, Launch};
use crate::server::{Objects, Server};
use crate::targets::Target;

/// The pod of most measurements.
pub const POD: PodKind = PodKind::Labelled(8_000);
/// The sizes of pods, in bytes.
pub const SIZES: [usize; 6] = [2_000, 8_000, 50_000, 200_000, 500_000, 1_500_000];

/// Which pod is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// With the label, and of about this size in bytes.
    Labelled(usize),
    /// Without the label, of 8 kB.
    Plain,
    /// In a namespace that the configuration excludes.
    Excluded,
}

/// One call of the plugin.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub verb: &'static str,
    pub pod: PodKind,
    pub key: KeyKind,
    /// `interceptName` of the configuration.
    pub backend: &'static str,
}

impl Call {
    /// The ADD of most measurements.
    pub const ADD: Self = Self {
        verb: "ADD",
        pod: POD,
        key: KeyKind::Ecdsa,
        backend: "nftables",
    };
}

/// API servers, minimal programs and files.
pub struct Cluster {
    pub ecdsa: Server,
    pub rsa: Server,
    /// A program that does nothing and has no libraries.
    pub static_true: PathBuf,
    /// A program that runs another one and writes its memory and page faults.
    pub launcher: PathBuf,
    /// Standard error of the programs that are run.
    pub log: File,
    scratch: Scratch,
}

impl Cluster {
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
            .map_err(|error| format!("creating the log: {error}"))?;
        let cluster = Self {
            ecdsa: Server::start(KeyKind::Ecdsa, &objects),
            rsa: Server::start(KeyKind::Rsa, &objects),
            static_true,
            launcher,
            log,
            scratch,
        };
        for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
            let server = cluster.server(key);
            let kubeconfig = Kubeconfig {
                server: &server.url(),
                ca_pem: Some(server.authority()),
                tls_server_name: None,
                credentials: Credentials::Token("sesame"),
            };
            kubeconfig.write(&cluster.kubeconfig(key));
        }
        Ok(cluster)
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

    /// A call of the plugin, as a runtime makes it.
    pub fn call(&self, target: &Target, call: Call, netns: Option<&Namespace>) -> Launch {
        self.call_by(target.applet("msm-cni"), call, netns)
    }

    /// Like `call`, with a command that runs the plugin or a wrapper of it.
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
        let expected = match call.verb {
            "ADD" => Expected::Json(previous),
            "VERSION" => Expected::Key("supportedVersions"),
            _ => Expected::Nothing,
        };
        Launch {
            command,
            input: configuration.to_string().into_bytes(),
            expected,
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

    /// Its path in the API.
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

/// Removes what admission adds, or adds environment variables, until the pod has about `size`
/// bytes.
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
    let variable = |n: usize| json!({"name": format!("MORE_{n:05}"), "value": "x".repeat(40)});
    let more = size.saturating_sub(length) / (variable(0).to_string().len() + 1);
    let env = &mut pod["spec"]["containers"][0]["env"];
    env.as_array_mut()
        .expect("environment")
        .extend((0..more).map(variable));
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
        Ok(false) => Err("gcc could not build a static program, see above".to_owned()),
        Err(error) => Err(format!("running gcc: {error}; install gcc")),
    }
}
