//! ADD against an API server in every state that one can be in: what comes out, how long
//! it takes, what the message says. The pods carry no label of ours, so that nothing but
//! the lookup decides.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use msm_testkit::api_server::{
    Answer, ApiServer, Authority, Behaviour, Credentials, Greeting, Identity, KeyKind, Kubeconfig,
    Options, PodSpec, Request, Tls, pod_json, script,
};
use msm_testkit::cluster::{K8S_NAME, K8S_NAMESPACE, K8S_UID};
use msm_testkit::command;
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use nix::sys::socket::{Backlog, listen};
use serde_json::{Value, json};

const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.sesame.open";
/// Between the deadline and the plugin's end, on a loaded machine.
const SLACK: Duration = Duration::from_millis(700);

// --- Success ---------------------------------------------------------------------------

#[test]
fn one_connection_and_one_get_of_the_cache_do() {
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
    assert!(outcome.run.took < SLACK, "{outcome}");
}

#[test]
fn a_pod_of_any_size_that_etcd_takes_is_read() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let mut pod = pod_value(&[], K8S_UID);
    pod["metadata"]["annotations"] = json!({"big": "x".repeat(3 << 19)});
    let server = cluster.serve(vec![object(&pod)]);
    let outcome = cluster.node(&server.url()).add();
    outcome.passes_the_previous_result_on();
}

#[test]
fn every_kind_of_key_and_tls_version_works() {
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let cluster = Cluster::new(kind);
        for tls in [Tls::Both, Tls::Only12, Tls::Only13] {
            let mut options = Options::new(cluster.authority.server(&["127.0.0.1"]));
            options.tls = tls;
            let server = ApiServer::start(&options, script(vec![pod()]));
            let outcome = cluster.node(&server.url()).add();
            assert!(outcome.succeeded(), "{kind:?} {tls:?}: {outcome}");
        }
    }
}

#[test]
fn ipv6_a_name_and_ipv4_in_brackets_work() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let table = [
        ("[::1]:0", "::1", "https://[::1]:PORT"),
        ("127.0.0.1:0", "localhost", "https://localhost:PORT"),
        ("127.0.0.1:0", "127.0.0.1", "https://[127.0.0.1]:PORT"),
        ("127.0.0.1:0", "127.0.0.1", "https://127.0.0.1:PORT/"),
    ];
    for (address, name, url) in table {
        let mut options = Options::new(cluster.authority.server(&[name]));
        options.address = address.parse().unwrap();
        let server = ApiServer::start(&options, script(vec![pod()]));
        let url = url.replace("PORT", &server.address().port().to_string());
        let outcome = cluster.node(&url).add();
        assert!(outcome.succeeded(), "{url}: {outcome}");
    }
}

#[test]
fn a_path_prefix_is_kept() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let url = format!("{}/k8s/clusters/c-1/", server.url());
    cluster.node(&url).add().passes_the_previous_result_on();
    let path = format!("/k8s/clusters/c-1/api/v1/namespaces/{K8S_NAMESPACE}/pods/{K8S_NAME}");
    assert_eq!(server.requests()[0].path, path);
}

#[test]
fn tls_server_name_is_what_the_certificate_is_checked_for() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = cluster.authority.server(&["kubernetes.default.svc"]);
    let server = ApiServer::start(&Options::new(identity), script(vec![pod()]));
    let node = Node::new(&Kubeconfig {
        tls_server_name: Some("kubernetes.default.svc"),
        ..kubeconfig(&server.url(), &cluster.authority.pem())
    });
    node.add().passes_the_previous_result_on();
    assert_eq!(
        server.requests()[0].headers["host"],
        server.address().to_string()
    );
}

#[test]
fn a_client_certificate_is_shown() {
    for kind in [KeyKind::Ecdsa, KeyKind::Rsa] {
        let cluster = Cluster::new(kind);
        let mut options = Options::new(cluster.authority.server(&["127.0.0.1"]));
        options.client_authority = Some(cluster.authority.pem());
        let server = ApiServer::start(&options, script(vec![pod()]));
        let node = Node::new(&Kubeconfig {
            credentials: Credentials::Client(&cluster.authority.client("system:msm-cni")),
            ..kubeconfig(&server.url(), &cluster.authority.pem())
        });
        node.add().passes_the_previous_result_on();
        assert!(!server.requests()[0].headers.contains_key("authorization"));
    }
}

#[test]
fn a_token_file_beside_the_kubeconfig_and_json_are_read() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let node = cluster.node(&server.url());
    fs::write(node.scratch.path().join("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(node.scratch.path().join("ca.crt"), cluster.authority.pem()).unwrap();
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
fn unverified_tls_is_there_for_who_asks_for_it() {
    let identity = Identity::self_signed(&["elsewhere.example"]);
    let server = ApiServer::start(&Options::new(identity), script(vec![pod()]));
    let node = Node::new(&Kubeconfig {
        authority: None,
        ..kubeconfig(&server.url(), "")
    });
    node.add().passes_the_previous_result_on();
}

#[test]
fn the_api_root_of_the_configuration_replaces_the_server() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let mut node = cluster.node("https://127.0.0.1:1");
    node.api_root = server.url();
    node.add().passes_the_previous_result_on();
}

#[test]
fn proxies_of_the_environment_are_ignored() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let mut node = cluster.node(&server.url());
    node.vars = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"]
        .map(|name| (name, "http://127.0.0.1:1"))
        .to_vec();
    node.add().passes_the_previous_result_on();
}

// --- Which pod -------------------------------------------------------------------------

#[test]
fn a_stale_cache_is_asked_past_over_the_same_connection() {
    let stale = [missing(), pod_with(&[], "another-uid")];
    for first in stale {
        let cluster = Cluster::new(KeyKind::Ecdsa);
        let server = cluster.serve(vec![first, pod()]);
        let outcome = cluster.node(&server.url()).add();
        outcome.passes_the_previous_result_on();
        let queries: Vec<_> = server.requests().into_iter().map(|it| it.query).collect();
        assert_eq!(queries, ["resourceVersion=0", ""]);
        assert_eq!(server.connections(), 1);
        assert!(outcome.run.took < SLACK, "{outcome}");
    }
}

#[test]
fn a_pod_that_appears_late_is_found() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![missing(), missing(), missing(), pod()]);
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_pod_that_is_gone_is_error_104() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![missing()]);
    let outcome = cluster.node(&server.url()).add();
    outcome.fails(104, "knows no such pod").says("not found");
    outcome.ends_by_the_deadline();
    assert!(server.requests().len() > 2, "{:?}", server.requests());
}

#[test]
fn a_pod_with_another_uid_is_error_105_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod_with(&[], "another-uid")]);
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(105, "replaced")
        .says("another-uid")
        .says(K8S_UID);
    outcome.is_immediate();
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_static_pods_mirror_is_that_pod() {
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
fn without_a_uid_any_pod_of_that_name_will_do() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod_with(&[], "another-uid")]);
    let mut node = cluster.node(&server.url());
    node.uid = None;
    node.add().passes_the_previous_result_on();
}

// --- Trust -----------------------------------------------------------------------------

#[test]
fn certificates_that_are_not_to_be_trusted_are_error_101_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let names = ["127.0.0.1"];
    let table = [
        (
            Authority::new(KeyKind::Ecdsa).server(&names),
            "invalid peer certificate",
        ),
        (
            Authority::new(KeyKind::Rsa).server(&names),
            "invalid peer certificate",
        ),
        (Identity::self_signed(&names), "invalid peer certificate"),
        (cluster.authority.expired_server(&names), "expired"),
        (
            cluster.authority.server(&["127.0.0.2", "api.example"]),
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
            outcome.fails(101, "certificate").says(cause);
            outcome.is_immediate();
            assert_eq!(server.requests().len(), 0, "the token was sent");
        }
    }
}

#[test]
fn a_name_in_the_kubeconfig_that_the_certificate_lacks_is_error_101() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let node = Node::new(&Kubeconfig {
        tls_server_name: Some("api.example"),
        ..kubeconfig(&server.url(), &cluster.authority.pem())
    });
    node.add().fails(101, "certificate").says("api.example");
}

// --- Silence and noise -----------------------------------------------------------------

#[test]
fn a_refused_connection_is_error_100_after_many_tries() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![pod()]);
    let url = server.url();
    drop(server);
    let outcome = cluster.node(&url).add();
    outcome
        .fails(100, "does not answer")
        .says("refused")
        .says(&url);
    outcome.ends_by_the_deadline();
    assert!(outcome.tries() >= 4, "{outcome}");
}

#[test]
fn silence_of_any_kind_ends_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = || cluster.authority.server(&["127.0.0.1"]);
    let mute = Options {
        greeting: Greeting::Silence,
        ..Options::new(identity())
    };
    let mute = ApiServer::start(&mute, script(vec![pod()]));
    let silent = cluster.serve(vec![Behaviour::Silence]);
    let Behaviour::Answer(answer) = pod() else {
        unreachable!();
    };
    let drip = cluster.serve(vec![Behaviour::Drip(answer)]);
    let blackhole = Blackhole::new();
    let urls = [mute.url(), silent.url(), drip.url(), blackhole.url()];
    let outcomes = in_parallel(&urls, |url| cluster.node(url).add());
    for outcome in outcomes {
        outcome.fails(100, "does not answer").says("timeout");
        outcome.ends_by_the_deadline();
        assert!(outcome.run.took >= Duration::from_millis(1500), "{outcome}");
    }
}

#[test]
fn a_silent_server_is_tried_more_than_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let silent = cluster.serve(vec![Behaviour::Silence, pod()]);
    let blackhole = Blackhole::new();
    let urls = [silent.url(), blackhole.url()];
    let outcomes = in_parallel(&urls, |url| {
        let mut node = cluster.node(url);
        node.timeout = Duration::from_secs(7);
        node.add()
    });
    outcomes[0].passes_the_previous_result_on();
    outcomes[1].fails(100, "does not answer");
    assert!(outcomes[1].tries() >= 2, "{}", outcomes[1]);
    outcomes[1].ends_by_the_deadline();
}

#[test]
fn answers_that_are_no_pod_are_error_106_at_once() {
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
    let mut huge = pod_value(&[], K8S_UID);
    huge["metadata"]["annotations"] = json!({"big": "x".repeat(6 << 20)});
    let table = [
        (Behaviour::Garbage, "does not speak HTTP"),
        (Behaviour::Endless, "larger than"),
        (Behaviour::Answer(long_head), "does not speak HTTP"),
        (object(&huge), "larger than"),
        (text(b"<html>Welcome</html>"), "not a pod in JSON"),
        (text(b"\xff\xfe\x00"), "not a pod in JSON"),
        (object(&json!({"kind": "PodList", "items": []})), "kind Pod"),
        (object(&other), "another pod"),
        (error(400, "bad request"), "status 400"),
        (error(406, "not acceptable"), "status 406"),
    ];
    let cluster = Cluster::new(KeyKind::Ecdsa);
    for (behaviour, cause) in table {
        let server = cluster.serve(vec![behaviour]);
        let outcome = cluster.node(&server.url()).add();
        outcome.fails(106, "not a pod").says(cause);
        outcome.is_immediate();
    }
}

#[test]
fn a_server_without_tls_is_error_106_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let options = Options {
        greeting: Greeting::Garbage,
        ..Options::new(cluster.authority.server(&["127.0.0.1"]))
    };
    let server = ApiServer::start(&options, script(vec![pod()]));
    let outcome = cluster.node(&server.url()).add();
    outcome.fails(106, "not a pod").says("does not speak TLS");
    outcome.is_immediate();
}

#[test]
fn a_redirect_is_not_followed() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let elsewhere = cluster.serve(vec![pod()]);
    for status in [301, 302, 307, 308] {
        let mut redirect = Answer::error(status, "moved");
        redirect = redirect.header("Location", &elsewhere.url());
        let server = cluster.serve(vec![Behaviour::Answer(redirect)]);
        let outcome = cluster.node(&server.url()).add();
        outcome
            .fails(106, "not a pod")
            .says(&format!("status {status}"));
        outcome.is_immediate();
    }
    assert_eq!(elsewhere.connections(), 0, "the token went elsewhere");
}

#[test]
fn interruptions_are_got_over() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let Behaviour::Answer(answer) = pod() else {
        unreachable!();
    };
    for interruption in [Behaviour::Close, Behaviour::CutOff(answer)] {
        let server = cluster.serve(vec![interruption, pod()]);
        cluster
            .node(&server.url())
            .add()
            .passes_the_previous_result_on();
    }
    let options = Options {
        greeting: Greeting::CloseOnce,
        ..Options::new(cluster.authority.server(&["127.0.0.1"]))
    };
    let server = ApiServer::start(&options, script(vec![pod()]));
    cluster
        .node(&server.url())
        .add()
        .passes_the_previous_result_on();
    assert_eq!(server.connections(), 2);
}

// --- Refusals --------------------------------------------------------------------------

#[test]
fn a_rotated_token_is_read_again_and_used_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = cluster.authority.server(&["127.0.0.1"]);
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
        ..kubeconfig(&server.url(), &cluster.authority.pem())
    });
    let outcome = node.add();
    outcome.passes_the_previous_result_on();
    assert!(outcome.run.took < SLACK, "{outcome}");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn refused_credentials_are_error_102_at_the_deadline() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![error(401, "Unauthorized")]);
    let outcome = cluster.node(&server.url()).add();
    outcome.fails(102, "credentials").says("status 401");
    outcome.ends_by_the_deadline();
    assert!(server.requests().len() >= 4, "{:?}", server.requests());
}

/// Kubernetes' own server lets the handshake pass and answers 401; a proxy before it may
/// not.
#[test]
fn a_refused_client_certificate_is_error_102() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let stranger = Authority::new(KeyKind::Ecdsa).client("system:msm-cni");
    for tls in [Tls::Only12, Tls::Only13] {
        let mut options = Options::new(cluster.authority.server(&["127.0.0.1"]));
        options.client_authority = Some(cluster.authority.pem());
        options.tls = tls;
        let server = ApiServer::start(&options, script(vec![pod()]));
        for credentials in [Credentials::Client(&stranger), Credentials::Token(TOKEN)] {
            let mut node = Node::new(&Kubeconfig {
                credentials,
                ..kubeconfig(&server.url(), &cluster.authority.pem())
            });
            node.timeout = Duration::from_secs(1);
            let outcome = node.add();
            outcome.fails(102, "credentials").says("client certificate");
        }
    }
}

#[test]
fn a_missing_permission_is_error_103_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    // A server that repeats the token must not bring it into the message.
    let message = format!("pods is forbidden: User \"msm-cni\" cannot get resource; token {TOKEN}");
    let server = cluster.serve(vec![error(403, &message)]);
    let outcome = cluster.node(&server.url()).add();
    outcome
        .fails(103, "verb get on pods")
        .says("cannot get resource");
    outcome.is_immediate();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn retry_after_is_heeded() {
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
fn retry_after_beyond_the_deadline_is_not_waited_for() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let busy = Answer::error(429, "too many requests").header("Retry-After", "3600");
    let server = cluster.serve(vec![Behaviour::Answer(busy)]);
    let outcome = cluster.node(&server.url()).add();
    outcome.fails(11, "overloaded").says("status 429");
    outcome.is_immediate();
}

#[test]
fn server_errors_are_got_over() {
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
fn server_errors_until_the_deadline_are_error_11() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let servers = [429, 500, 503].map(|code| cluster.serve(vec![error(code, "not now")]));
    let urls = servers.each_ref().map(ApiServer::url);
    for outcome in in_parallel(&urls, |url| cluster.node(url).add()) {
        outcome.fails(11, "overloaded").says("not now");
        outcome.ends_by_the_deadline();
        assert!(outcome.tries() >= 4, "{outcome}");
    }
}

#[test]
fn the_deadline_does_not_hide_what_was_wrong() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let server = cluster.serve(vec![error(500, "etcd is gone"), Behaviour::Silence]);
    let outcome = cluster.node(&server.url()).add();
    outcome.fails(11, "overloaded").says("etcd is gone");
    outcome.ends_by_the_deadline();
}

// --- Kubeconfig ------------------------------------------------------------------------

#[test]
fn an_unusable_kubeconfig_is_error_107_at_once() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let good = kubeconfig("https://127.0.0.1:1", &cluster.authority.pem()).yaml();
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    let token = format!("token: \"{TOKEN}\"");
    let table = [
        (String::new(), "it is empty"),
        ("[".repeat(1 << 15), "line 1: "),
        ("[".repeat(1 << 19), "more values than"),
        ("a: &a [x]\nb: [*a, *a]\n".to_owned(), "aliases"),
        ("x".repeat(10 << 20), "larger than"),
        (swap("current-context", "no-context"), "no current-context"),
        (swap("https://", "http://"), "does not begin with https://"),
        (
            swap(&token, "exec: {command: aws}"),
            "user.exec is not supported",
        ),
        (swap(&token, "tokenFile: nowhere"), "nowhere"),
        (swap(&token, "tokenFile: /"), "not a regular file"),
        (
            swap(&token, "token: \"a b\""),
            "its user.token holds characters",
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
        outcome.fails(107, "kubeconfig").says(cause);
        outcome.is_immediate();
    }
    let mut node = cluster.node("https://127.0.0.1:1");
    fs::remove_file(node.scratch.path().join("kubeconfig")).unwrap();
    node.add().fails(107, "kubeconfig").says("No such file");
    fs::write(node.scratch.path().join("kubeconfig"), &good).unwrap();
    node.api_root = "http://127.0.0.1:1".to_owned();
    node.add().fails(7, "kubernetes.kubernetesAPIRoot");
}

#[test]
fn a_key_of_another_certificate_is_error_107() {
    let cluster = Cluster::new(KeyKind::Ecdsa);
    let identity = Identity {
        certificate_pem: cluster.authority.client("a").certificate_pem,
        key_pem: cluster.authority.client("b").key_pem,
    };
    let node = Node::new(&Kubeconfig {
        credentials: Credentials::Client(&identity),
        ..kubeconfig("https://127.0.0.1:1", &cluster.authority.pem())
    });
    node.add()
        .fails(107, "kubeconfig")
        .says("cannot be used together");
}

// --- What the tests are made of --------------------------------------------------------

/// An authority, and servers and nodes that belong to it.
struct Cluster {
    authority: Authority,
}

impl Cluster {
    fn new(kind: KeyKind) -> Self {
        Self {
            authority: Authority::new(kind),
        }
    }

    fn serve(&self, steps: Vec<Behaviour>) -> ApiServer {
        let identity = self.authority.server(&["127.0.0.1"]);
        ApiServer::start(&Options::new(identity), script(steps))
    }

    fn node(&self, server: &str) -> Node {
        Node::new(&kubeconfig(server, &self.authority.pem()))
    }
}

fn kubeconfig<'a>(server: &'a str, authority: &'a str) -> Kubeconfig<'a> {
    Kubeconfig {
        server,
        authority: Some(authority),
        tls_server_name: None,
        credentials: Credentials::Token(TOKEN),
    }
}

/// A node with a kubeconfig, on which a pod starts.
struct Node {
    scratch: Scratch,
    timeout: Duration,
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
            timeout: Duration::from_secs(2),
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
        Outcome {
            run,
            timeout: self.timeout,
        }
    }

    fn configuration(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "msm-cni",
            "logLevel": "debug",
            "kubernetes": {
                "kubeConfig": self.scratch.path().join("kubeconfig"),
                "kubernetesAPIRoot": self.api_root,
                "podLookupTimeoutSeconds": self.timeout.as_secs(),
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

/// What one ADD came to.
struct Outcome {
    run: command::Outcome,
    timeout: Duration,
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

    /// The message and the chain of causes.
    fn said(&self) -> String {
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
    fn says(&self, text: &str) -> &Self {
        assert!(self.said().contains(text), "{text:?} is missing\n{self}");
        self
    }

    fn tries(&self) -> u32 {
        let said = self.said();
        let (_, rest) = said.split_once(", tried ").unwrap();
        match rest.split(' ').next().unwrap() {
            "once" => 1,
            number => number.parse().unwrap(),
        }
    }

    #[track_caller]
    fn ends_by_the_deadline(&self) {
        assert!(self.run.took < self.timeout + SLACK, "{self}");
    }

    #[track_caller]
    fn is_immediate(&self) {
        assert!(self.run.took < SLACK, "{self}");
    }
}

/// A network namespace for the pods. They carry no label: nothing happens in it.
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

/// An address whose packets are dropped: a listener whose queue is full answers no SYN.
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
            assert!(queue.len() < 10, "the queue does not fill");
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

fn object(value: &Value) -> Behaviour {
    Behaviour::Answer(Answer::object(value))
}

fn error(code: u16, message: &str) -> Behaviour {
    Behaviour::Answer(Answer::error(code, message))
}

fn missing() -> Behaviour {
    error(404, &format!("pods \"{K8S_NAME}\" not found"))
}
