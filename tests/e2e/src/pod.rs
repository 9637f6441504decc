//! Pods, started as the kubelet starts them: first the sandbox, then the containers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Env;
use crate::cri::{
    CONTAINER, Capabilities, ContainerConfig, ContainerMetadata, ImageSpec, KeyValue,
    LinuxContainerConfig, LinuxSandboxConfig, Mount, NODE, NamespaceOptions, POD, PortMapping,
    Resources, Runtime, SandboxConfig, SandboxMetadata, SandboxSecurity, Security, SecurityProfile,
    User,
};
use crate::node::{self, GUEST_IMAGE, Node, wait_for};

/// The user ID of an application.
pub const APP: i64 = 1000;
/// The user ID of a stub.
pub const STUB: i64 = 1337;

/// The pod to start.
#[derive(Clone, Copy)]
pub struct PodRequest<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// The value of the injection label, if the pod has it.
    pub label: Option<&'a str>,
    /// `containerPort` and `hostPort`.
    pub port: Option<(u16, u16)>,
    /// The runtime class; empty for the default.
    pub handler: &'a str,
    /// `POD` or `NODE`.
    pub network: i32,
}

impl<'a> PodRequest<'a> {
    /// A pod in the namespace `media`, with defaults for the rest.
    pub const fn new(name: &'a str, label: Option<&'a str>) -> Self {
        Self {
            namespace: "media",
            name,
            label,
            port: None,
            handler: "",
            network: POD,
        }
    }
}

/// A running pod.
pub struct Pod<'a> {
    pub runtime: &'a Runtime,
    pub sandbox: String,
    pub config: SandboxConfig,
    pub address: String,
}

impl<'a> Pod<'a> {
    /// Adds the pod to the API server and starts its sandbox.
    pub fn start(env: &'a Env, request: PodRequest) -> Result<Self, String> {
        let config = register(env, request);
        Self::start_sandbox(&env.node.runtime, config, request.handler)
    }

    /// Starts a sandbox without adding it to the API server.
    pub fn start_sandbox(
        runtime: &'a Runtime,
        config: SandboxConfig,
        handler: &str,
    ) -> Result<Self, String> {
        let sandbox = runtime.run_sandbox(&config, handler)?;
        let (address, _) = runtime.sandbox(&sandbox)?;
        Ok(Self {
            runtime,
            sandbox,
            config,
            address,
        })
    }

    /// Starts a container of the pod; returns its ID.
    pub fn container(&self, mut config: ContainerConfig) -> Result<String, String> {
        let name = config.metadata.clone().unwrap_or_default().name;
        config.log_path = format!("{name}.log");
        self.runtime.start(&self.sandbox, &self.config, config)
    }

    /// Starts a server as `user` and waits until it listens; returns its container's ID.
    pub fn server(&self, name: &str, port: u16, user: i64) -> Result<String, String> {
        let port = port.to_string();
        let config = guest(name, &["serve", name, &port], user);
        let container = self.container(config)?;
        let own = format!("127.0.0.1:{port}");
        let listens = || {
            self.connect(&container, &own)
                .is_ok_and(|it| it != "refused")
        };
        wait_for(listens).ok_or(format!("{name} does not listen"))?;
        Ok(container)
    }

    /// Makes a connection from a container; returns the server's answer.
    pub fn connect(&self, container: &str, to: &str) -> Result<String, String> {
        let command = ["/guest", "connect", to];
        let outcome = self.runtime.exec(container, &command)?;
        if outcome.code == 0 {
            Ok(outcome.stdout)
        } else {
            Err(format!(
                "guest connect: {} {}",
                outcome.code, outcome.stderr
            ))
        }
    }

    /// Stops and removes the pod, as the kubelet does with a deleted pod.
    pub fn remove(self) -> Result<String, String> {
        let Self {
            runtime, sandbox, ..
        } = self;
        runtime.stop_sandbox(&sandbox)?;
        runtime.remove_sandbox(&sandbox)?;
        Ok("removed".to_owned())
    }
}

/// Adds a pod to the API server; returns the configuration of its sandbox.
pub fn register(env: &Env, request: PodRequest) -> SandboxConfig {
    let config = sandbox_config(&env.node, request);
    let uid = config.metadata.clone().unwrap_or_default().uid;
    let PodRequest {
        namespace,
        name,
        label,
        ..
    } = request;
    env.cluster.add_pod(namespace, name, &uid, label);
    config
}

/// Returns a sandbox's configuration as the kubelet writes it.
pub fn sandbox_config(node: &Node, request: PodRequest) -> SandboxConfig {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let port = request.port.map(|(container_port, host_port)| PortMapping {
        container_port: container_port.into(),
        host_port: host_port.into(),
    });
    SandboxConfig {
        metadata: Some(SandboxMetadata {
            name: request.name.to_owned(),
            uid: format!("6f0c7d2b-5e4a-4f0e-9d55-{count:012}"),
            namespace: request.namespace.to_owned(),
            attempt: 0,
        }),
        // A pod in the node's network namespace has the node's host name.
        hostname: if request.network == NODE {
            String::new()
        } else {
            request.name.to_owned()
        },
        log_directory: node::logs().join(request.name).display().to_string(),
        port_mappings: port.into_iter().collect(),
        linux: Some(LinuxSandboxConfig {
            cgroup_parent: node.cgroup.clone(),
            security_context: Some(SandboxSecurity {
                namespace_options: Some(NamespaceOptions {
                    network: request.network,
                    pid: CONTAINER,
                }),
                seccomp: Some(SecurityProfile { profile_type: 0 }),
            }),
        }),
    }
}

/// Returns a container of the guest's image, without capabilities.
pub fn guest(name: &str, args: &[&str], user: i64) -> ContainerConfig {
    let command = ["/guest"].iter().chain(args);
    ContainerSpec {
        name,
        image: GUEST_IMAGE,
        command: &command.copied().collect::<Vec<_>>(),
        user,
        ..ContainerSpec::default()
    }
    .config()
}

/// A container of a pod's specification.
#[derive(Clone, Copy, Default)]
pub struct ContainerSpec<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub command: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
    /// The path on the node, the path in the container, and whether it is read-only.
    pub mounts: &'a [(&'a str, &'a str, bool)],
    pub user: i64,
    pub capabilities: &'a [&'a str],
    /// In bytes; 0 for no limit.
    pub memory_limit: i64,
    /// `POD` or `NODE`.
    pub network: i32,
}

impl ContainerSpec<'_> {
    /// Adds the strictest security context: `readOnlyRootFilesystem`, no
    /// `allowPrivilegeEscalation`, no capabilities except the named ones, and the runtime's
    /// default seccomp profile.
    pub fn config(self) -> ContainerConfig {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let envs = self.env.iter().map(|&(key, value)| KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        });
        let mounts = self.mounts.iter().map(|&(host, inside, readonly)| Mount {
            container_path: inside.to_owned(),
            host_path: host.to_owned(),
            readonly,
        });
        ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: self.name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: self.image.to_owned(),
            }),
            command: owned(self.command),
            envs: envs.collect(),
            mounts: mounts.collect(),
            log_path: String::new(),
            linux: Some(LinuxContainerConfig {
                resources: Some(Resources {
                    memory_limit_in_bytes: self.memory_limit,
                }),
                security_context: Some(Security {
                    capabilities: Some(Capabilities {
                        add: owned(self.capabilities),
                        drop: owned(&["ALL"]),
                    }),
                    namespace_options: Some(NamespaceOptions {
                        network: self.network,
                        pid: CONTAINER,
                    }),
                    run_as_user: Some(User { uid: self.user }),
                    readonly_rootfs: true,
                    no_new_privs: true,
                    seccomp: Some(SecurityProfile { profile_type: 0 }),
                }),
            }),
        }
    }
}

/// Makes a connection from the node; returns the server's answer.
pub fn connect_from_node(to: &str) -> String {
    let address: SocketAddr = to.parse().expect("an address");
    msm_cni_e2e::traffic::connect(address)
}
