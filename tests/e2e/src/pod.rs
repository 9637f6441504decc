//! A pod, started as the kubelet starts it: sandbox first, then its containers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Stage;
use crate::cri::{
    CONTAINER, Capabilities, ContainerConfig, ContainerMetadata, ImageSpec, KeyValue,
    LinuxContainerConfig, LinuxSandboxConfig, Mount, NODE, NamespaceOptions, POD, PortMapping,
    Resources, Runtime, SandboxConfig, SandboxMetadata, SandboxSecurity, Security, SecurityProfile,
    User,
};
use crate::node::{self, GUEST_IMAGE, Node, becomes_true};

/// The user of an application.
pub const APP: i64 = 1000;
/// The user of a stub.
pub const STUB: i64 = 1337;

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// The label's value, if it has the label.
    pub label: Option<&'a str>,
    /// The pod's port and the node's.
    pub port: Option<(u16, u16)>,
    /// The runtime class; empty: the default one.
    pub handler: &'a str,
    /// `POD` or `NODE`.
    pub network: i32,
}

impl<'a> Wish<'a> {
    /// A pod in the namespace `media`.
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
    /// Its own.
    pub address: String,
}

impl<'a> Pod<'a> {
    /// Makes the pod known to the API server and starts its sandbox.
    pub fn start(stage: &'a Stage, wish: Wish) -> Result<Self, String> {
        let config = make_known(stage, wish);
        Self::start_sandbox(&stage.node.runtime, config, wish.handler)
    }

    /// Starts a sandbox; what the API server knows of it is the caller's.
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

    /// Starts a container of the pod; its ID.
    pub fn container(&self, mut config: ContainerConfig) -> Result<String, String> {
        let name = config.metadata.clone().unwrap_or_default().name;
        config.log_path = format!("{name}.log");
        self.runtime.start(&self.sandbox, &self.config, config)
    }

    /// Starts a server of that user and waits until it listens; its container's ID.
    pub fn server(&self, name: &str, port: u16, user: i64) -> Result<String, String> {
        let port = port.to_string();
        let config = guest(name, &["serve", name, &port], user);
        let container = self.container(config)?;
        let own = format!("127.0.0.1:{port}");
        let listens = || self.lands(&container, &own).is_ok_and(|it| it != "refused");
        becomes_true(listens).ok_or(format!("{name} does not listen"))?;
        Ok(container)
    }

    /// Where a connection lands that a container makes.
    pub fn lands(&self, container: &str, to: &str) -> Result<String, String> {
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

    /// Stops and removes it, as the kubelet does with a deleted pod.
    pub fn end(self) -> Result<String, String> {
        let Self {
            runtime, sandbox, ..
        } = self;
        runtime.stop_sandbox(&sandbox)?;
        runtime.remove_sandbox(&sandbox)?;
        Ok("gone".to_owned())
    }
}

/// Makes a pod known to the API server; its sandbox, to be started.
pub fn make_known(stage: &Stage, wish: Wish) -> SandboxConfig {
    let config = sandbox_config(&stage.node, wish);
    let uid = config.metadata.clone().unwrap_or_default().uid;
    let Wish {
        namespace,
        name,
        label,
        ..
    } = wish;
    stage.cluster.add_pod(namespace, name, &uid, label);
    config
}

/// As the kubelet makes it.
pub fn sandbox_config(node: &Node, wish: Wish) -> SandboxConfig {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let port = wish.port.map(|(container_port, host_port)| PortMapping {
        container_port: container_port.into(),
        host_port: host_port.into(),
    });
    SandboxConfig {
        metadata: Some(SandboxMetadata {
            name: wish.name.to_owned(),
            uid: format!("6f0c7d2b-5e4a-4f0e-9d55-{count:012}"),
            namespace: wish.namespace.to_owned(),
            attempt: 0,
        }),
        // On the node's network, the node's name.
        hostname: if wish.network == NODE {
            String::new()
        } else {
            wish.name.to_owned()
        },
        log_directory: node::logs().join(wish.name).display().to_string(),
        port_mappings: port.into_iter().collect(),
        linux: Some(LinuxSandboxConfig {
            cgroup_parent: node.cgroup.clone(),
            security_context: Some(SandboxSecurity {
                namespace_options: Some(NamespaceOptions {
                    network: wish.network,
                    pid: CONTAINER,
                }),
                seccomp: Some(SecurityProfile { profile_type: 0 }),
            }),
        }),
    }
}

/// A container of the guest's image, without capabilities.
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

/// What a container's part of a pod says.
#[derive(Clone, Copy, Default)]
pub struct ContainerSpec<'a> {
    pub name: &'a str,
    pub image: &'a str,
    pub command: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
    /// On the node, in the container, and whether it is only read.
    pub mounts: &'a [(&'a str, &'a str, bool)],
    pub user: i64,
    pub capabilities: &'a [&'a str],
    /// In bytes; 0: none.
    pub memory_limit: i64,
    /// `POD` or `NODE`.
    pub network: i32,
}

impl ContainerSpec<'_> {
    /// With the strictest of security contexts: `readOnlyRootFilesystem`, no
    /// `allowPrivilegeEscalation`, all capabilities dropped but those that are named, and
    /// the runtime's default seccomp profile.
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

/// Where a connection from the node itself lands.
pub fn lands_from_node(to: &str) -> String {
    let address: SocketAddr = to.parse().expect("an address");
    msm_cni_e2e::traffic::connect(address)
}
