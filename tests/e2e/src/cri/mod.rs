//! A client of the container runtime interface: gRPC over the runtime's socket, as the
//! kubelet speaks it.

mod messages; // what goes over the wire

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use serde_json::Value;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

pub use messages::*;

/// No call takes so long but one that hangs.
const DEADLINE: Duration = Duration::from_secs(90);
/// `NamespaceMode`: whose namespace a container is in.
pub const POD: i32 = 0;
pub const CONTAINER: i32 = 1;
pub const NODE: i32 = 2;
/// `ContainerState`.
pub const EXITED: i32 = 2;

/// A connection to the runtime; its errors are the runtime's own words.
pub struct Runtime {
    threads: tokio::runtime::Runtime,
    channel: Channel,
}

/// What a command in a container did.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Runtime {
    /// Connects with the first call.
    pub fn connect(socket: &Path) -> Self {
        let threads = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("start tokio");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))
            .expect("the socket's path")
            .timeout(DEADLINE);
        let channel = threads.block_on(async { endpoint.connect_lazy() });
        Self { threads, channel }
    }

    fn call<Q, A>(&self, service: &str, method: &str, request: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.{service}/{method}");
        let path = PathAndQuery::try_from(path).expect("a method's path");
        let mut client = Grpc::new(self.channel.clone());
        self.threads.block_on(async {
            client.ready().await.map_err(|error| error.to_string())?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = client.unary(Request::new(request), path, codec).await;
            // What the kubelet puts into a pod's events.
            let answer = answer.map_err(|status| status.message().to_owned())?;
            Ok(answer.into_inner())
        })
    }

    fn runtime<Q, A>(&self, method: &str, request: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.call("RuntimeService", method, request)
    }

    /// Name and version of the runtime.
    pub fn version(&self) -> Result<String, String> {
        let answer: VersionResponse = self.runtime("Version", VersionRequest::default())?;
        Ok(format!(
            "{} {}",
            answer.runtime_name, answer.runtime_version
        ))
    }

    /// What the runtime tells of itself, the network configuration that it has loaded included.
    pub fn info(&self) -> Result<HashMap<String, String>, String> {
        let answer: StatusResponse = self.runtime("Status", StatusRequest { verbose: true })?;
        Ok(answer.info)
    }

    pub fn has_image(&self, image: &str) -> Result<bool, String> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
            }),
        };
        let answer: ImageStatusResponse = self.call("ImageService", "ImageStatus", request)?;
        Ok(answer.image.is_some())
    }

    /// The sandbox's ID; `handler`: the runtime class, empty for the default one.
    pub fn run_sandbox(&self, config: &SandboxConfig, handler: &str) -> Result<String, String> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer: RunPodSandboxResponse = self.runtime("RunPodSandbox", request)?;
        Ok(answer.pod_sandbox_id)
    }

    /// The sandbox's own address, and what the runtime knows besides.
    pub fn sandbox(&self, id: &str) -> Result<(String, Value), String> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let answer: PodSandboxStatusResponse = self.runtime("PodSandboxStatus", request)?;
        let network = answer.status.and_then(|status| status.network);
        Ok((network.unwrap_or_default().ip, parsed(&answer.info)))
    }

    pub fn stop_sandbox(&self, id: &str) -> Result<(), String> {
        self.of_sandbox("StopPodSandbox", id)
    }

    pub fn remove_sandbox(&self, id: &str) -> Result<(), String> {
        self.of_sandbox("RemovePodSandbox", id)
    }

    fn of_sandbox(&self, method: &str, id: &str) -> Result<(), String> {
        let request = SandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.runtime::<_, Empty>(method, request).map(drop)
    }

    /// Creates and starts a container in a sandbox; its ID.
    pub fn start(
        &self,
        sandbox: &str,
        sandbox_config: &SandboxConfig,
        config: ContainerConfig,
    ) -> Result<String, String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config.clone()),
        };
        let answer: CreateContainerResponse = self.runtime("CreateContainer", request)?;
        let container_id = answer.container_id;
        let request = ContainerRequest {
            container_id: container_id.clone(),
        };
        self.runtime::<_, Empty>("StartContainer", request)?;
        Ok(container_id)
    }

    /// SIGTERM, and SIGKILL after `seconds`.
    pub fn stop_container(&self, id: &str, seconds: i64) -> Result<(), String> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds,
        };
        self.runtime::<_, Empty>("StopContainer", request).map(drop)
    }

    /// The container's status, and what the runtime knows besides.
    pub fn container(&self, id: &str) -> Result<(ContainerStatus, Value), String> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let answer: ContainerStatusResponse = self.runtime("ContainerStatus", request)?;
        Ok((answer.status.unwrap_or_default(), parsed(&answer.info)))
    }

    /// Runs a command in a container, as the container's user.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<Outcome, String> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: 30,
        };
        let answer: ExecSyncResponse = self.runtime("ExecSync", request)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Outcome {
            code: answer.exit_code,
            stdout: text(&answer.stdout),
            stderr: text(&answer.stderr),
        })
    }
}

fn parsed(info: &HashMap<String, String>) -> Value {
    let text = info.get("info").map(String::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}
