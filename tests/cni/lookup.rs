//! The pod lookup of ADD against an API server that works, fails or misbehaves: result, number
//! of requests, error code and message. The pods have no MSM label, so that ADD does nothing
//! but look them up.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use msm_testkit::api_server::{
    Answer, ApiServer, Behaviour, Greeting, Options, Request, Tls, script,
};
use msm_testkit::certificates::{CertificateAuthority, Identity, KeyKind};
use msm_testkit::cluster::{K8S_NAME, K8S_NAMESPACE, K8S_UID};
use msm_testkit::command;
use msm_testkit::kubeconfig::{Credentials, Kubeconfig};
use msm_testkit::netns::Namespace;
use msm_testkit::pod_json::{PodSpec, pod_json};
use msm_testkit::scratch::Scratch;
use nix::sys::socket::{Backlog, listen};
use serde_json::{Value, json};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.sesame.open";
/// Lookup deadline of the tests that do not depend on it: the harness ends a command earlier.
const NO_DEADLINE: Duration = Duration::from_secs(600);
/// The longest deadline of the tests that wait for it, on a loaded machine.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// The lookup may give up this long before its deadline.
const EARLY: Duration = Duration::from_millis(100);

// --- Success ---

#[test]
fn pod_is_looked_up_with_one_request_to_the_cache() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let outcome = cluster.node(&server.url()).add();
    outcome.passes_the_previous_result_on();
    let [request] = &server.requests()[..] else {
        panic!("{:?}", server.requests());
    };
    assert_eq!(request.method, "GET");
    assert_eq!(
        request.path,
        format!("/api/v1/namespaces/{K8S_NAMESPACE}/pods/{K8S_NAME}")
    );
    assert_eq!(request.query, "resourceVersion=0");
    assert_eq!(request.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(request.headers["host"], server.address().to_string());
    assert_eq!(request.headers["accept"], "application/json");
    assert_eq!(server.connections(), 1);
}

#[test]
fn largest_pod_that_etcd_stores_is_accepted() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let mut pod = pod_value(&[], K8S_UID);
    pod["metadata"]["annotations"] = json!({"big": "x".repeat(3 << 19)});
    let server = cluster.serve(vec![object(&pod)]);
    let outcome = cluster.node(&server.url()).add();
    outcome.passes_the_previous_result_on();
}

#[test]
fn all_key_types_and_tls_versions_are_supported() {
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let cluster = Cluster::new(kind);
        for tls in [Tls::Both, Tls::Only12, Tls::Only13] {
            let mut options = Options::new(cluster.ca.server(&["127.0.0.1"]));
            options.tls = tls;
            let server = ApiServer::start(&options, script(vec![pod()]));
            let outcome = cluster.node(&server.url()).add();
            assert!(outcome.succeeded(), "{kind:?} {tls:?}: {outcome}");
        }
    }
}

#[test]
fn server_is_an_ip_address_or_a_host_name() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let table = [
        ("[::1]:0", "::1", "https://[::1]:PORT"),
        ("127.0.0.1:0", "localhost", "https://localhost:PORT"),
        ("127.0.0.1:0", "127.0.0.1", "https://[127.0.0.1]:PORT"),
        ("127.0.0.1:0", "127.0.0.1", "https://127.0.0.1:PORT/"),
    ];
    for (address, name, url) in table {
        let mut options = Options::new(cluster.ca.server(&[name]));
        options.address = address.parse().unwrap();
        let server = ApiServer::start(&options, script(vec![pod()]));
        let url = url.replace("PORT", &server.address().port().to_string());
        let outcome = cluster.node(&url).add();
        assert!(outcome.succeeded(), "{url}: {outcome}");
    }
}

#[test]
fn path_prefix_of_the_server_is_kept() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let url = format!("{}/k8s/clusters/c-1/", server.url());
    cluster.node(&url).add().passes_the_previous_result_on();
    let path = format!("/k8s/clusters/c-1/api/v1/namespaces/{K8S_NAMESPACE}/pods/{K8S_NAME}");
    assert_eq!(server.requests()[0].path, path);
}

#[test]
fn certificate_is_checked_for_tls_server_name() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = cluster.ca.server(&["kubernetes.default.svc"]);
    let server = ApiServer::start(&Options::new(identity), script(vec![pod()]));
    let node = Node::new(&Kubeconfig {
        tls_server_name: Some("kubernetes.default.svc"),
        ..kubeconfig(&server.url(), &cluster.ca.pem())
    });
    node.add().passes_the_previous_result_on();
    assert_eq!(
        server.requests()[0].headers["host"],
        server.address().to_string()
    );
}

#[test]
fn client_certificate_is_presented() {
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let cluster = Cluster::new(kind);
        let mut options = Options::new(cluster.ca.server(&["127.0.0.1"]));
        options.client_ca = Some(cluster.ca.pem());
        let server = ApiServer::start(&options, script(vec![pod()]));
        let node = Node::new(&Kubeconfig {
            credentials: Credentials::Client(&cluster.ca.client("system:msm-cni")),
            ..kubeconfig(&server.url(), &cluster.ca.pem())
        });
        node.add().passes_the_previous_result_on();
        assert!(!server.requests()[0].headers.contains_key("authorization"));
    }
}

#[test]
fn kubeconfig_in_json_names_files_relative_to_itself() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let node = cluster.node(&server.url());
    fs::write(node.scratch.path().join("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(node.scratch.path().join("ca.crt"), cluster.ca.pem()).unwrap();
    let config = json!({
        "clusters": [{"name": "c", "cluster": {"server": server.url(), "certificate-authority": "ca.crt"}}],
        "users": [{"name": "u", "user": {"tokenFile": "token", "token": "old"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    fs::write(node.scratch.path().join("kubeconfig"), config.to_string()).unwrap();
    node.add().passes_the_previous_result_on();
    assert_eq!(
        server.requests()[0].headers["authorization"],
        format!("Bearer {TOKEN}")
    );
}

#[test]
fn insecure_skip_tls_verify_accepts_any_certificate() {
    let identity = Identity::self_signed(&["elsewhere.example"]);
    let server = ApiServer::start(&Options::new(identity), script(vec![pod()]));
    let node = Node::new(&Kubeconfig {
        ca_pem: None,
        ..kubeconfig(&server.url(), "")
    });
    node.add().passes_the_previous_result_on();
}

#[test]
fn api_root_overrides_the_kubeconfigs_server() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let mut node = cluster.node("https://127.0.0.1:1");
    node.api_root = server.url();
    node.add().passes_the_previous_result_on();
}

#[test]
fn proxy_variables_are_ignored() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let mut node = cluster.node(&server.url());
    node.vars = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"]
        .map(|name| (name, "http://127.0.0.1:1"))
        .to_vec();
    node.add().passes_the_previous_result_on();
}

// --- Pod identity ---

#[test]
fn stale_cache_is_bypassed_over_the_same_connection() {
    for first in [missing(), pod_with(&[], "another-uid")] {
        let cluster = Cluster::new(KeyKind::Ecdsa);
        let server = cluster.serve(vec![first, pod()]);
        let outcome = cluster.node(&server.url()).add();
        outcome.passes_the_previous_result_on();
        let queries: Vec<_> = server.requests().into_iter().map(|it| it.query).collect();
        assert_eq!(queries, ["resourceVersion=0", ""]);
        assert_eq!(server.connections(), 1);
    }
}

#[test]
fn missing_pod_is_looked_up_again_until_it_exists() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![missing(), missing(), missing(), pod()]);
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn missing_pod_is_error_104_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![missing()]);
    let outcome = cluster.node(&server.url()).add_until_deadline(104, 3);
    outcome.fails(104, "does not exist").mentions("not found");
}

#[test]
fn pod_with_another_uid_is_error_105_without_delay() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod_with(&[], "another-uid")]);
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(105, "replaced")
        .mentions("another-uid")
        .mentions(K8S_UID)
        .is_final_after(2);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn mirror_pod_is_accepted_for_its_static_pod() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let mirror = [("kubernetes.io/config.mirror", K8S_UID)];
    let server = cluster.serve(vec![pod_with(&mirror, "the-mirrors-own-uid")]);
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn pod_is_identified_by_name_without_uid() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod_with(&[], "another-uid")]);
    let mut node = cluster.node(&server.url());
    node.uid = None;
    node.add().passes_the_previous_result_on();
}

// --- Server certificates ---

#[test]
fn untrusted_certificates_are_error_101_without_retry() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let names = ["127.0.0.1"];
    let table = [
        (
            CertificateAuthority::new(KeyKind::Ecdsa).server(&names),
            "invalid peer certificate",
        ),
        (
            CertificateAuthority::new(KeyKind::Rsa).server(&names),
            "invalid peer certificate",
        ),
        (Identity::self_signed(&names), "invalid peer certificate"),
        (cluster.ca.expired_server(&names), "expired"),
        (
            cluster.ca.server(&["127.0.0.2", "api.example"]),
            "not valid for name",
        ),
    ];
    for (identity, cause) in table {
        for tls in [Tls::Only12, Tls::Only13] {
            let identity = Identity {
                certificate_pem: identity.certificate_pem.clone(),
                key_pem: identity.key_pem.clone(),
            };
            let mut options = Options::new(identity);
            options.tls = tls;
            let server = ApiServer::start(&options, script(vec![pod()]));
            let outcome = cluster.node(&server.url()).add();
            outcome
                .fails(101, "certificate")
                .mentions(cause)
                .is_final_after(1);
            assert_eq!(server.requests().len(), 0, "the token was sent");
        }
    }
}

#[test]
fn certificate_without_tls_server_name_is_error_101() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let node = Node::new(&Kubeconfig {
        tls_server_name: Some("api.example"),
        ..kubeconfig(&server.url(), &cluster.ca.pem())
    });
    node.add().fails(101, "certificate").mentions("api.example");
}

// --- No response, or an unexpected one ---

#[test]
fn refused_connection_is_error_100_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let url = server.url();
    drop(server);
    let outcome = cluster.node(&url).add_until_deadline(100, 4);
    outcome
        .fails(100, "does not respond")
        .mentions("refused")
        .mentions(&url);
}

#[test]
fn unresponsive_server_is_error_100_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = || cluster.ca.server(&["127.0.0.1"]);
    let no_handshake = Options {
        greeting: Greeting::Silence,
        ..Options::new(identity())
    };
    let no_handshake = ApiServer::start(&no_handshake, script(vec![pod()]));
    let no_response = cluster.serve(vec![Behaviour::Silence]);
    let slow_body = cluster.serve(vec![Behaviour::Drip(pod_answer())]);
    let no_connection = Blackhole::new();
    let urls = [
        no_handshake.url(),
        no_response.url(),
        slow_body.url(),
        no_connection.url(),
    ];
    let outcomes = in_parallel(&urls, |url| cluster.node(url).add_until_deadline(100, 1));
    for outcome in outcomes {
        outcome.fails(100, "does not respond").mentions("timeout");
    }
}

#[test]
fn unresponsive_server_is_tried_again() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let no_response = cluster.serve(vec![Behaviour::Silence, pod()]);
    let no_connection = Blackhole::new();
    let urls = [no_response.url(), no_connection.url()];
    let outcomes = in_parallel(&urls, |url| {
        let mut node = cluster.node(url);
        if *url == no_response.url() {
            return node.add();
        }
        // Longer than the time that one attempt may take to connect.
        node.deadline = Duration::from_secs(5);
        node.add_until_deadline(100, 2)
    });
    outcomes[0].passes_the_previous_result_on();
    outcomes[1].fails(100, "does not respond");
}

#[test]
fn other_responses_are_error_106_without_retry() {
    let text = |body: &[u8]| {
        Behaviour::Answer(Answer {
            status: 200,
            headers: Vec::new(),
            body: body.to_vec(),
        })
    };
    let long_head = Answer::object(&pod_value(&[], K8S_UID)).header("X-Long", &"x".repeat(1 << 20));
    let mut other = pod_value(&[], K8S_UID);
    other["metadata"]["name"] = json!("another");
    let without_uid = pod_value(&[], "");
    let mut huge = pod_value(&[], K8S_UID);
    huge["metadata"]["annotations"] = json!({"big": "x".repeat(6 << 20)});
    let table = [
        (Behaviour::Garbage, "HTTP protocol error"),
        (Behaviour::Endless, "larger than"),
        (Behaviour::Answer(long_head), "HTTP protocol error"),
        (object(&huge), "larger than"),
        (text(b"<html>Welcome</html>"), "not a pod in JSON"),
        (text(b"\xff\xfe\x00"), "not a pod in JSON"),
        (object(&json!({"kind": "PodList", "items": []})), "kind Pod"),
        (object(&other), "a different pod"),
        (object(&without_uid), "without UID"),
        (error(400, "bad request"), "status 400"),
        (error(406, "not acceptable"), "status 406"),
    ];
    let cluster = Cluster::new(KeyKind::Ecdsa);
    for (behaviour, cause) in table {
        let server = cluster.serve(vec![behaviour]);
        let outcome = cluster.node(&server.url()).add();
        outcome
            .fails(106, "did not return a pod")
            .mentions(cause)
            .is_final_after(1);
    }
}

#[test]
fn server_without_tls_is_error_106_without_retry() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let options = Options {
        greeting: Greeting::Garbage,
        ..Options::new(cluster.ca.server(&["127.0.0.1"]))
    };
    let server = ApiServer::start(&options, script(vec![pod()]));
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(106, "did not return a pod")
        .mentions("TLS protocol error")
        .is_final_after(1);
}

#[test]
fn redirects_are_not_followed() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let elsewhere = cluster.serve(vec![pod()]);
    for status in [301, 302, 307, 308] {
        let mut redirect = Answer::error(status, "moved");
        redirect = redirect.header("Location", &elsewhere.url());
        let server = cluster.serve(vec![Behaviour::Answer(redirect)]);
        let outcome = cluster.node(&server.url()).add();
        outcome
            .fails(106, "did not return a pod")
            .mentions(&format!("status {status}"))
            .is_final_after(1);
    }
    assert_eq!(
        elsewhere.connections(),
        0,
        "the token was sent to another server"
    );
}

#[test]
fn interrupted_responses_are_retried() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    for interruption in [Behaviour::Close, Behaviour::CutOff(pod_answer())] {
        let server = cluster.serve(vec![interruption, pod()]);
        cluster
            .node(&server.url())
            .add()
            .passes_the_previous_result_on();
    }
    let options = Options {
        greeting: Greeting::CloseOnce,
        ..Options::new(cluster.ca.server(&["127.0.0.1"]))
    };
    let server = ApiServer::start(&options, script(vec![pod()]));
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    assert_eq!(server.connections(), 2);
}

// --- Error responses ---

#[test]
fn rotated_token_is_used_after_401() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = cluster.ca.server(&["127.0.0.1"]);
    let scratch = Scratch::new();
    let path = scratch.path().join("token");
    fs::write(scratch.path().join("token"), "old").unwrap();
    let server = ApiServer::start(&Options::new(identity), move |request: &Request| {
        if request.headers["authorization"] == format!("Bearer {TOKEN}") {
            return pod();
        }
        fs::write(&path, TOKEN).unwrap();
        error(401, "Unauthorized")
    });
    let token_path = scratch.path().join("token");
    let node = Node::new(&Kubeconfig {
        credentials: Credentials::TokenFile(token_path.to_str().unwrap()),
        ..kubeconfig(&server.url(), &cluster.ca.pem())
    });
    let outcome = node.add();
    outcome.passes_the_previous_result_on();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn rejected_token_is_error_102_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![error(401, "Unauthorized")]);
    let outcome = cluster.node(&server.url()).add_until_deadline(102, 4);
    outcome.fails(102, "credentials").mentions("status 401");
}

/// kube-apiserver completes the handshake and responds with 401. A proxy in front of it may
/// end the handshake instead.
#[test]
fn rejected_client_certificate_is_error_102_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let other_ca = CertificateAuthority::new(KeyKind::Ecdsa).client("system:msm-cni");
    let servers = [Tls::Only12, Tls::Only13].map(|tls| {
        let mut options = Options::new(cluster.ca.server(&["127.0.0.1"]));
        options.client_ca = Some(cluster.ca.pem());
        options.tls = tls;
        ApiServer::start(&options, script(vec![pod()]))
    });
    let cases: Vec<_> = servers
        .iter()
        .flat_map(|server| {
            [Credentials::Client(&other_ca), Credentials::Token(TOKEN)]
                .map(|credentials| (server.url(), credentials))
        })
        .collect();
    let outcomes = in_parallel(&cases, |(url, credentials)| {
        let mut node = Node::new(&Kubeconfig {
            credentials: *credentials,
            ..kubeconfig(url, &cluster.ca.pem())
        });
        node.add_until_deadline(102, 2)
    });
    for outcome in outcomes {
        outcome
            .fails(102, "credentials")
            .mentions("client certificate");
    }
}

#[test]
fn missing_permission_is_error_103_without_retry() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    // `add` checks that the token is not in the output.
    let message = format!("pods is forbidden: User \"msm-cni\" cannot get resource; token {TOKEN}");
    let server = cluster.serve(vec![error(403, &message)]);
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(103, "verb get on pods")
        .mentions("cannot get resource")
        .is_final_after(1);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn retry_after_delays_the_next_request() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    for code in [429, 503] {
        let busy = Answer::error(code, "too many requests").header("Retry-After", "1");
        let server = cluster.serve(vec![Behaviour::Answer(busy), pod()]);
        let outcome = cluster.node(&server.url()).add();
        outcome.passes_the_previous_result_on();
        assert!(outcome.run.took >= Duration::from_secs(1), "{outcome}");
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn retry_after_beyond_the_deadline_is_error_11_without_delay() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let busy = Answer::error(429, "too many requests").header("Retry-After", "3600");
    let server = cluster.serve(vec![Behaviour::Answer(busy)]);
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(11, "overloaded")
        .mentions("status 429")
        .is_final_after(1);
}

#[test]
fn server_errors_are_retried_over_the_same_connection() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let errors = [500, 502, 503, 504].map(|code| error(code, "etcdserver: request timed out"));
    let server = cluster.serve([&errors[..], &[pod()]].concat());
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    let connections: Vec<_> = server.requests().iter().map(|it| it.connection).collect();
    assert_eq!(connections, [1; 5]);
}

#[test]
fn server_errors_are_error_11_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let servers = [429, 500, 503].map(|code| cluster.serve(vec![error(code, "not now")]));
    let urls = servers.each_ref().map(ApiServer::url);
    for outcome in in_parallel(&urls, |url| cluster.node(url).add_until_deadline(11, 4)) {
        outcome.fails(11, "overloaded").mentions("not now");
    }
}

#[test]
fn timeout_at_the_deadline_does_not_hide_the_previous_error() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = cluster.ca.server(&["127.0.0.1"]);
    let connections = Mutex::new(HashSet::new());
    // Responds only to the first request of each connection.
    let server = ApiServer::start(&Options::new(identity), move |request: &Request| {
        if connections.lock().unwrap().insert(request.connection) {
            error(500, "etcd is unavailable")
        } else {
            Behaviour::Silence
        }
    });
    let outcome = cluster.node(&server.url()).add_until_deadline(11, 2);
    outcome
        .fails(11, "overloaded")
        .mentions("etcd is unavailable");
}

// --- Kubeconfig ---

#[test]
fn unusable_kubeconfig_is_error_107() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let good = kubeconfig("https://127.0.0.1:1", &cluster.ca.pem()).yaml();
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    let token = format!("token: \"{TOKEN}\"");
    let table = [
        (String::new(), "file is empty"),
        ("[".repeat(1 << 15), "line 1: "),
        ("[".repeat(1 << 19), "too many values"),
        ("a: &a [x]\nb: [*a, *a]\n".to_owned(), "aliases"),
        ("x".repeat(10 << 20), "larger than"),
        (
            swap("current-context", "no-context"),
            "current-context is not set",
        ),
        (swap("https://", "http://"), "must begin with https://"),
        (
            swap(&token, "exec: {command: aws}"),
            "user.exec is not supported",
        ),
        (swap(&token, "tokenFile: nowhere"), "nowhere"),
        (swap(&token, "tokenFile: /"), "not a regular file"),
        (
            swap(&token, "token: \"a b\""),
            "invalid user.token: token contains characters",
        ),
        (
            swap(
                "certificate-authority-data: \"",
                "certificate-authority-data: \"QUFB",
            ),
            "no PEM certificate",
        ),
    ];
    for (text, cause) in table {
        let node = cluster.node("https://127.0.0.1:1");
        fs::write(node.scratch.path().join("kubeconfig"), &text).unwrap();
        let outcome = node.add();
        outcome.fails(107, "kubeconfig").mentions(cause);
    }
    let mut node = cluster.node("https://127.0.0.1:1");
    fs::remove_file(node.scratch.path().join("kubeconfig")).unwrap();
    node.add().fails(107, "kubeconfig").mentions("No such file");
    fs::write(node.scratch.path().join("kubeconfig"), &good).unwrap();
    node.api_root = "http://127.0.0.1:1".to_owned();
    node.add().fails(7, "kubernetes.kubernetesAPIRoot");
}

#[test]
fn key_of_another_certificate_is_error_107() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = Identity {
        certificate_pem: cluster.ca.client("a").certificate_pem,
        key_pem: cluster.ca.client("b").key_pem,
    };
    let node = Node::new(&Kubeconfig {
        credentials: Credentials::Client(&identity),
        ..kubeconfig("https://127.0.0.1:1", &cluster.ca.pem())
    });
    node.add()
        .fails(107, "kubeconfig")
        .mentions("cannot be used together");
}

// --- Fixtures ---

/// A certificate authority, and servers and nodes that use it.
struct Cluster {
    ca: CertificateAuthority,
}

impl Cluster {
    fn new(kind: KeyKind) -> Self {
        Self {
            ca: CertificateAuthority::new(kind),
        }
    }

    fn serve(&self, steps: Vec<Behaviour>) -> ApiServer {
        let identity = self.ca.server(&["127.0.0.1"]);
        ApiServer::start(&Options::new(identity), script(steps))
    }

    fn node(&self, server: &str) -> Node {
        Node::new(&kubeconfig(server, &self.ca.pem()))
    }
}

fn kubeconfig<'a>(server: &'a str, ca_pem: &'a str) -> Kubeconfig<'a> {
    Kubeconfig {
        server,
        ca_pem: Some(ca_pem),
        tls_server_name: None,
        credentials: Credentials::Token(TOKEN),
    }
}

/// A node with a kubeconfig, on which a pod starts.
struct Node {
    scratch: Scratch,
    deadline: Duration,
    uid: Option<&'static str>,
    api_root: String,
    vars: Vec<(&'static str, &'static str)>,
}

impl Node {
    fn new(kubeconfig: &Kubeconfig) -> Self {
        let scratch = Scratch::new();
        kubeconfig.write(&scratch.path().join("kubeconfig"));
        Self {
            scratch,
            deadline: NO_DEADLINE,
            uid: Some(K8S_UID),
            api_root: String::new(),
            vars: Vec::new(),
        }
    }

    fn add(&self) -> Outcome {
        let uid = self.uid.map(|uid| format!(";K8S_POD_UID={uid}"));
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={K8S_NAMESPACE};K8S_POD_NAME={K8S_NAME};\
             K8S_POD_INFRA_CONTAINER_ID=c0ffee{}",
            uid.unwrap_or_default()
        );
        let mut command = msm_testkit::applet("msm-cni");
        command
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", "c0ffee")
            .env("CNI_NETNS", sandbox())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env("CNI_ARGS", arguments)
            .envs(self.vars.iter().copied());
        let run = command::run_with_input(&mut command, &self.configuration().to_string());
        for stream in [&run.stdout, &run.stderr] {
            assert!(!stream.contains(TOKEN), "the token is in the output\n{run}");
        }
        Outcome { run }
    }

    /// ADD that fails with `code` at its deadline, after `attempts` or more. A loaded machine
    /// may not get that far, so the deadline is extended until it does.
    #[track_caller]
    fn add_until_deadline(&mut self, code: u64, attempts: u32) -> Outcome {
        if self.deadline == NO_DEADLINE {
            self.deadline = Duration::from_secs(2);
        }
        loop {
            let outcome = self.add();
            assert!(outcome.run.took + EARLY >= self.deadline, "{outcome}");
            let is_complete = outcome.code() == code && outcome.attempts() >= attempts;
            if is_complete || self.deadline >= MAX_DEADLINE {
                assert!(is_complete, "{code} after {attempts} attempts\n{outcome}");
                return outcome;
            }
            self.deadline = (2 * self.deadline).min(MAX_DEADLINE);
        }
    }

    fn configuration(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "msm-cni",
            "logLevel": "debug",
            "kubernetes": {
                "kubeConfig": self.scratch.path().join("kubeconfig"),
                "kubernetesAPIRoot": self.api_root,
                "podLookupTimeoutSeconds": self.deadline.as_secs(),
            },
            "prevResult": previous_result(),
        })
    }
}

fn previous_result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/x"}],
        "ips": [{"address": "10.244.1.7/24", "gateway": "10.244.1.1", "interface": 0}],
    })
}

/// The outcome of an ADD.
struct Outcome {
    run: command::Outcome,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.run.fmt(f)
    }
}

impl Outcome {
    fn succeeded(&self) -> bool {
        self.run.code == Some(0)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.run.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    fn code(&self) -> u64 {
        self.json()["code"].as_u64().unwrap_or_default()
    }

    /// The error's message with its causes.
    fn error_text(&self) -> String {
        let error = self.json();
        format!("{}: {}", error["msg"], error["details"])
    }

    #[track_caller]
    fn passes_the_previous_result_on(&self) {
        assert!(self.succeeded(), "{self}");
        assert_eq!(self.json(), previous_result(), "{self}");
    }

    #[track_caller]
    fn fails(&self, code: u64, message: &str) -> &Self {
        assert_eq!(self.run.code, Some(1), "{self}");
        let error = self.json();
        assert_eq!(error["code"], code, "{self}");
        let found = error["msg"].as_str().unwrap().contains(message);
        assert!(found, "{message:?} is not in the message\n{self}");
        self
    }

    #[track_caller]
    fn mentions(&self, text: &str) -> &Self {
        let found = self.error_text().contains(text);
        assert!(found, "{text:?} is not in the error\n{self}");
        self
    }

    /// The error ended the lookup before its deadline.
    #[track_caller]
    fn is_final_after(&self, attempts: u32) {
        assert_eq!(self.attempts(), attempts, "{self}");
    }

    /// The number of attempts in the error.
    fn attempts(&self) -> u32 {
        let text = self.error_text();
        let (_, rest) = text.split_once(", tried ").unwrap();
        match rest.split(' ').next().unwrap() {
            "once" => 1,
            number => number.parse().unwrap(),
        }
    }
}

/// A network namespace for all pods. ADD does not change it, because they have no label.
fn sandbox() -> PathBuf {
    static SANDBOX: LazyLock<Namespace> = LazyLock::new(Namespace::new);
    SANDBOX.path()
}

fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// An address that drops packets: a listener with a full queue does not respond to a SYN.
struct Blackhole {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Blackhole {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queue.push(stream);
            assert!(queue.len() < 10, "the queue does not fill up");
        }
        Self {
            address,
            _listener: listener,
            _queue: queue,
        }
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

fn pod_value(annotations: &[(&str, &str)], uid: &str) -> Value {
    pod_json(&PodSpec {
        namespace: K8S_NAMESPACE,
        name: K8S_NAME,
        uid,
        labels: &[("app", "camera")],
        annotations,
    })
}

fn pod_with(annotations: &[(&str, &str)], uid: &str) -> Behaviour {
    object(&pod_value(annotations, uid))
}

fn pod() -> Behaviour {
    pod_with(&[], K8S_UID)
}

fn pod_answer() -> Answer {
    Answer::object(&pod_value(&[], K8S_UID))
}

fn object(value: &Value) -> Behaviour {
    Behaviour::Answer(Answer::object(value))
}

fn error(code: u16, message: &str) -> Behaviour {
    Behaviour::Answer(Answer::error(code, message))
}

fn missing() -> Behaviour {
    error(404, &format!("pods \"{K8S_NAME}\" not found"))
}
