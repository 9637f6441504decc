//! The cluster as a node sees it: an API server with pods and the installer's `DaemonSet`. It
//! accepts one token, and it can be down or deny access.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use msm_testkit::api_server::{Answer, ApiServer, Behaviour, Options, Request};
use msm_testkit::certificates::{CertificateAuthority, KeyKind};
use msm_testkit::cluster::INJECT;
use msm_testkit::pod_json::{PodSpec, pod_json};
use serde_json::{Value, json};

/// The address of the API server's service.
pub const SERVICE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
    443,
);
/// The installer's namespace.
pub const SYSTEM: &str = "msm-system";

/// The API server and its state.
pub struct Cluster {
    authority: CertificateAuthority,
    state: Arc<Mutex<State>>,
    server: Mutex<Option<ApiServer>>,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Value>,
    token: String,
    /// Whether the token has the role that permits to read pods.
    has_role: bool,
    /// Paths of all requests.
    requests: Vec<String>,
}

impl Cluster {
    /// Starts an API server that accepts `token` and has no objects.
    pub fn start(token: &str) -> Self {
        let state = State {
            token: token.to_owned(),
            has_role: true,
            ..State::default()
        };
        let cluster = Self {
            authority: CertificateAuthority::new(KeyKind::Ecdsa),
            state: Arc::new(Mutex::new(state)),
            server: Mutex::default(),
        };
        cluster.up();
        cluster
    }

    /// PEM of the cluster's certificate authority.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    pub fn up(&self) {
        let mut options = Options::new(self.authority.server(&[&SERVICE.ip().to_string()]));
        options.address = SERVICE;
        let state = Arc::clone(&self.state);
        let answer = move |request: &Request| Behaviour::Answer(lock(&state).answer(request));
        *lock(&self.server) = Some(ApiServer::start(&options, answer));
    }

    pub fn down(&self) {
        *lock(&self.server) = None;
    }

    pub fn accept_token(&self, token: &str) {
        token.clone_into(&mut self.state().token);
    }

    pub fn grant_role(&self) {
        self.state().has_role = true;
    }

    pub fn revoke_role(&self) {
        self.state().has_role = false;
    }

    /// `label`: the value of the injection label, if the pod has it.
    pub fn add_pod(&self, namespace: &str, name: &str, uid: &str, label: Option<&str>) {
        let labels: Vec<_> = label.map(|value| (INJECT, value)).into_iter().collect();
        let pod = pod_json(&PodSpec {
            namespace,
            name,
            uid,
            labels: &labels,
            annotations: &[],
        });
        self.state().objects.insert(pod_path(namespace, name), pod);
    }

    /// Returns the number of requests for a pod.
    pub fn requests_for(&self, namespace: &str, name: &str) -> usize {
        let path = pod_path(namespace, name);
        let state = self.state();
        state.requests.iter().filter(|it| **it == path).count()
    }

    /// Adds the installer's pod and its `DaemonSet`.
    pub fn add_installer(&self, name: &str) {
        let pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": name, "namespace": SYSTEM,
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "msm-cni",
                    "uid": "3e1f", "controller": true,
                }],
            },
        });
        let set = json!({
            "kind": "DaemonSet", "apiVersion": "apps/v1",
            "metadata": { "name": "msm-cni", "namespace": SYSTEM },
        });
        let objects = &mut self.state().objects;
        objects.insert(pod_path(SYSTEM, name), pod);
        objects.insert(daemon_set_path(), set);
    }

    pub fn delete_daemon_set(&self) {
        self.state().objects.remove(&daemon_set_path());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread panics while it holds the lock")
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn daemon_set_path() -> String {
    format!("/apis/apps/v1/namespaces/{SYSTEM}/daemonsets/msm-cni")
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        self.requests.push(request.path.clone());
        let expected = format!("Bearer {}", self.token);
        if request.headers.get("authorization") != Some(&expected) {
            return Answer::error(401, "Unauthorized");
        }
        if request.method != "GET" || !self.has_role {
            let message = format!(
                "pods is forbidden: User \"system:serviceaccount:{SYSTEM}:msm-cni\" cannot get {}",
                request.path
            );
            return Answer::error(403, &message);
        }
        match self.objects.get(&request.path) {
            Some(object) => Answer::object(object),
            None => Answer::error(404, "not found"),
        }
    }
}
