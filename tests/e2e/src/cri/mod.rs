//! A client of the container runtime interface (CRI): gRPC over the runtime's socket, as used
//! by the kubelet.

mod messages;

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

/// A watchdog for every call.
const DEADLINE: Duration = Duration::from_secs(180);
/// Values of `NamespaceMode`.
pub const POD: i32 = 0;
pub const CONTAINER: i32 = 1;
pub const NODE: i32 = 2;
/// A value of `ContainerState`.
pub const EXITED: i32 = 2;

/// A connection to the runtime. Errors are the runtime's messages.
pub struct Runtime {
    threads: tokio::runtime::Runtime,
    channel: Channel,
}

/// The outcome of a command in a container.
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Runtime {
    /// The connection is made by the first call.
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

    fn call<Q, R>(&self, service: &str, method: &str, request: Q) -> Result<R, String>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.{service}/{method}");
        let path = PathAndQuery::try_from(path).expect("a method's path");
        let mut client = Grpc::new(self.channel.clone());
        self.threads.block_on(async {
            client.ready().await.map_err(|error| error.to_string())?;
            let codec = ProstCodec::<Q, R>::default();
            let response = client.unary(Request::new(request), path, codec).await;
            // The kubelet copies this message to the pod's events.
            let response = response.map_err(|status| status.message().to_owned())?;
            Ok(response.into_inner())
        })
    }

    fn runtime<Q, R>(&self, method: &str, request: Q) -> Result<R, String>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        self.call("RuntimeService", method, request)
    }

    /// Returns the runtime's name and version.
    pub fn version(&self) -> Result<String, String> {
        let response: VersionResponse = self.runtime("Version", VersionRequest::default())?;
        Ok(format!(
            "{} {}",
            response.runtime_name, response.runtime_version
        ))
    }

    /// Returns the runtime's verbose status, which includes the loaded network configuration.
    pub fn info(&self) -> Result<HashMap<String, String>, String> {
        let response: StatusResponse = self.runtime("Status", StatusRequest { verbose: true })?;
        Ok(response.info)
    }

    pub fn has_image(&self, image: &str) -> Result<bool, String> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
            }),
        };
        let response: ImageStatusResponse = self.call("ImageService", "ImageStatus", request)?;
        Ok(response.image.is_some())
    }

    /// Returns the sandbox's ID. `handler`: the runtime class, empty for the default.
    pub fn run_sandbox(&self, config: &SandboxConfig, handler: &str) -> Result<String, String> {
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let response: RunPodSandboxResponse = self.runtime("RunPodSandbox", request)?;
        Ok(response.pod_sandbox_id)
    }

    /// Returns the sandbox's address and its verbose status.
    pub fn sandbox(&self, id: &str) -> Result<(String, Value), String> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: true,
        };
        let response: PodSandboxStatusResponse = self.runtime("PodSandboxStatus", request)?;
        let network = response.status.and_then(|status| status.network);
        Ok((network.unwrap_or_default().ip, parsed(&response.info)))
    }

    pub fn stop_sandbox(&self, id: &str) -> Result<(), String> {
        self.sandbox_call("StopPodSandbox", id)
    }

    pub fn remove_sandbox(&self, id: &str) -> Result<(), String> {
        self.sandbox_call("RemovePodSandbox", id)
    }

    fn sandbox_call(&self, method: &str, id: &str) -> Result<(), String> {
        let request = SandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.runtime::<_, Empty>(method, request).map(drop)
    }

    /// Creates and starts a container in a sandbox; returns its ID.
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
        let response: CreateContainerResponse = self.runtime("CreateContainer", request)?;
        let container_id = response.container_id;
        let request = ContainerRequest {
            container_id: container_id.clone(),
        };
        self.runtime::<_, Empty>("StartContainer", request)?;
        Ok(container_id)
    }

    /// Sends SIGTERM, and SIGKILL after `seconds`.
    pub fn stop_container(&self, id: &str, seconds: i64) -> Result<(), String> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds,
        };
        self.runtime::<_, Empty>("StopContainer", request).map(drop)
    }

    /// Returns the container's status and its verbose status.
    pub fn container(&self, id: &str) -> Result<(ContainerStatus, Value), String> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: true,
        };
        let response: ContainerStatusResponse = self.runtime("ContainerStatus", request)?;
        Ok((response.status.unwrap_or_default(), parsed(&response.info)))
    }

    /// Runs a command in a container, as the container's user.
    pub fn exec(&self, id: &str, command: &[&str]) -> Result<Outcome, String> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout: 60,
        };
        let response: ExecSyncResponse = self.runtime("ExecSync", request)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Outcome {
            code: response.exit_code,
            stdout: text(&response.stdout),
            stderr: text(&response.stderr),
        })
    }
}

fn parsed(info: &HashMap<String, String>) -> Value {
    let text = info.get("info").map(String::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}
