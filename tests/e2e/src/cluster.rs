//! The cluster as a node sees it: an API server that knows pods and the installer's own
//! `DaemonSet`, lets in who holds the right token, and can be down or refuse.

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

/// The API server and all that it knows.
pub struct Cluster {
    authority: CertificateAuthority,
    known: Arc<Mutex<Known>>,
    server: Mutex<Option<ApiServer>>,
}

#[derive(Default)]
struct Known {
    /// By path.
    objects: BTreeMap<String, Value>,
    token: String,
    /// Whether the token may read pods.
    role: bool,
    /// Paths that were asked for.
    asked: Vec<String>,
}

impl Cluster {
    /// A running API server that lets in `token` and knows nothing.
    pub fn start(token: &str) -> Self {
        let known = Known {
            token: token.to_owned(),
            role: true,
            ..Known::default()
        };
        let cluster = Self {
            authority: CertificateAuthority::new(KeyKind::Ecdsa),
            known: Arc::new(Mutex::new(known)),
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
        let known = Arc::clone(&self.known);
        let answer = move |request: &Request| Behaviour::Answer(lock(&known).answer(request));
        *lock(&self.server) = Some(ApiServer::start(&options, answer));
    }

    pub fn down(&self) {
        *lock(&self.server) = None;
    }

    pub fn let_in(&self, token: &str) {
        token.clone_into(&mut self.known().token);
    }

    pub fn give_role(&self, given: bool) {
        self.known().role = given;
    }

    /// Makes a pod known; its label's value, if it has the label.
    pub fn add_pod(&self, namespace: &str, name: &str, uid: &str, label: Option<&str>) {
        let labels: Vec<_> = label.map(|value| (INJECT, value)).into_iter().collect();
        let pod = pod_json(&PodSpec {
            namespace,
            name,
            uid,
            labels: &labels,
            annotations: &[],
        });
        self.known().objects.insert(pod_path(namespace, name), pod);
    }

    /// How often anybody asked for a pod.
    pub fn questions_about(&self, namespace: &str, name: &str) -> usize {
        let path = pod_path(namespace, name);
        self.known().asked.iter().filter(|it| **it == path).count()
    }

    /// Makes the installer's pod and its `DaemonSet` known.
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
        let objects = &mut self.known().objects;
        objects.insert(pod_path(SYSTEM, name), pod);
        objects.insert(daemon_set_path(), set);
    }

    pub fn delete_daemon_set(&self) {
        self.known().objects.remove(&daemon_set_path());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn daemon_set_path() -> String {
    format!("/apis/apps/v1/namespaces/{SYSTEM}/daemonsets/msm-cni")
}

impl Known {
    fn answer(&mut self, request: &Request) -> Answer {
        self.asked.push(request.path.clone());
        let expected = format!("Bearer {}", self.token);
        if request.headers.get("authorization") != Some(&expected) {
            return Answer::error(401, "Unauthorized");
        }
        if request.method != "GET" || !self.role {
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
