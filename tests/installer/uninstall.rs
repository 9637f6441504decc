//! Exit: whether the installation is removed, for every answer of the API server and for every
//! signal, and what happens if it cannot be removed.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use msm_testkit::api_server::{Answer, ApiServer, Behaviour, Greeting, Options, Request};
use msm_testkit::cannot_run;
use msm_testkit::certificates::{CertificateAuthority, Identity, KeyKind};
use msm_testkit::installer::{DEADLINE, Installer};
use msm_testkit::node::{BIN_DIR, CALICO, CONF, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::directories::Mount;

const POD: &str = "/api/v1/namespaces/msm/pods/msm-cni-x7k2p";
const DAEMONSET: &str = "/apis/apps/v1/namespaces/msm/daemonsets/msm-cni";
const KEPT: &str = "SIGTERM: leaving the installation in place: ";

/// A token that is bound to the installer's pod, as the kubelet's are.
fn bound_token() -> String {
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:msm:msm-cni",
        "kubernetes.io": {
            "namespace": "msm",
            "node": {"name": "node-1"},
            "pod": {"name": "msm-cni-x7k2p", "uid": "5f2c1d1e-8a35-4b7a-9f5d-1c2b3a4d5e6f"},
            "serviceaccount": {"name": "msm-cni"},
        },
    });
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2lnbmF0dXJl")
}

fn pod() -> Answer {
    let owner = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "msm-cni", "controller": true});
    Answer::object(&json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "msm-cni-x7k2p", "namespace": "msm", "ownerReferences": [owner]},
        "spec": {"nodeName": "node-1"},
    }))
}

fn daemonset(metadata: &Value) -> Answer {
    Answer::object(&json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": metadata, "spec": {},
    }))
}

/// A node, and an HTTPS server as its API server.
struct Cluster {
    node: Node,
    server: ApiServer,
}

impl Cluster {
    fn new(answer: impl Fn(&Request) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::with_greeting(Greeting::Handshake, answer)
    }

    fn with_greeting(
        greeting: Greeting,
        answer: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let authority = CertificateAuthority::new(KeyKind::Ecdsa);
        let options = Options {
            greeting,
            ..Options::new(authority.server(&["127.0.0.1"]))
        };
        let node = Node::with_account(&bound_token(), &authority.pem());
        node.write(CONF_PATH, CALICO);
        let server = ApiServer::start(&options, answer);
        Self { node, server }
    }

    fn installed(&self, args: &[&str], vars: &[(&str, &str)]) -> Installer<'_> {
        let (mut command, health) = self.node.command(args);
        command
            .env(
                "KUBERNETES_SERVICE_PORT",
                self.server.address().port().to_string(),
            )
            .envs(vars.iter().copied());
        let installer = Installer::start(&self.node, command, health);
        installer.becomes_ready();
        installer
    }
}

/// The installer's pod and an existing `DaemonSet`.
fn daemonset_exists(request: &Request) -> Behaviour {
    Behaviour::Answer(match request.path.as_str() {
        POD => pod(),
        DAEMONSET => daemonset(&json!({"name": "msm-cni"})),
        path => panic!("unexpected request for {path}"),
    })
}

/// The installer's pod, and `answer` about its `DaemonSet`.
fn daemonset_is(answer: Behaviour) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    move |request| match request.path.as_str() {
        POD => Behaviour::Answer(pod()),
        _ => answer.clone(),
    }
}

/// Repeats a run whose query timed out, which on a loaded machine may happen with any server.
fn in_time<T>(run: impl Fn() -> (T, String)) -> (T, String) {
    let start = Instant::now();
    loop {
        let (result, log) = run();
        if !log.contains("timed out") || start.elapsed() > DEADLINE {
            return (result, log);
        }
    }
}

fn always(answer: Behaviour) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    move |_| answer.clone()
}

fn error(code: u16) -> Behaviour {
    Behaviour::Answer(Answer::error(code, "because"))
}

/// The executable and its symlinks remain: a runtime may still call the plugin to delete pods.
fn assert_uninstalled(node: &Node, log: &str) {
    let tree = node.tree();
    assert_eq!(node.conf(CONF), CALICO, "{log}");
    assert!(!tree.contains("ZZZ-msm-cni-kubeconfig"), "{tree}{log}");
    assert!(
        tree.contains("msm-cni ->") && tree.contains("msm-iptables ->"),
        "{tree}{log}"
    );
    assert!(tree.contains(&format!("{BIN_DIR}/msm 0755")), "{tree}{log}");
}

fn assert_allowed_requests(server: &ApiServer) {
    for request in server.requests() {
        assert_eq!(request.method, "GET");
        assert!(
            [POD, DAEMONSET].contains(&request.path.as_str()),
            "{request:?}"
        );
        assert_eq!(
            request.headers["authorization"],
            format!("Bearer {}", bound_token())
        );
    }
}

#[test]
fn uninstalls_when_daemonset_is_gone_or_credentials_are_refused() {
    let deleting =
        daemonset(&json!({"name": "msm-cni", "deletionTimestamp": "2026-01-05T09:30:00Z"}));
    let cases: Vec<(&str, Cluster)> = vec![
        ("does not exist", Cluster::new(daemonset_is(error(404)))),
        (
            "is being deleted",
            Cluster::new(daemonset_is(Behaviour::Answer(deleting))),
        ),
        ("status 401 (because)", Cluster::new(always(error(401)))),
        ("status 403 (because)", Cluster::new(always(error(403)))),
        (
            "status 401 (because)",
            Cluster::new(daemonset_is(error(401))),
        ),
        (
            "status 403 (because)",
            Cluster::new(daemonset_is(error(403))),
        ),
    ];
    for (reason, cluster) in cases {
        let (code, log) = in_time(|| cluster.installed(&[], &[]).end(Signal::SIGTERM));
        assert_eq!(code, Some(0), "{log}");
        assert!(
            log.contains("SIGTERM: uninstalling: ") && log.contains(reason),
            "{log}"
        );
        assert_uninstalled(&cluster.node, &log);
        assert_allowed_requests(&cluster.server);
    }
}

#[test]
fn installation_is_kept_when_daemonset_exists_or_is_unknown() {
    let other_owner = Answer::object(
        &json!({"metadata": {"ownerReferences": [{"kind": "Node", "name": "node-1"}]}}),
    );
    let invalid_owner = Answer::object(
        &json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "name": "../../x"}]}}),
    );
    let leaky = Answer::object(&json!({"metadata": bound_token()}));
    let redirect = Answer::error(302, "there").header("Location", "https://127.0.0.1:1/");
    let drip = || Behaviour::Drip(pod());
    let exists = "DaemonSet msm/msm-cni exists";
    let cases: Vec<(&str, Cluster)> = vec![
        (exists, Cluster::new(daemonset_exists)),
        (
            "pod msm/msm-cni-x7k2p does not exist",
            Cluster::new(always(error(404))),
        ),
        (
            "does not belong to a DaemonSet",
            Cluster::new(always(Behaviour::Answer(other_owner))),
        ),
        (
            "DaemonSet with an invalid name",
            Cluster::new(always(Behaviour::Answer(invalid_owner))),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(always(Behaviour::Answer(leaky))),
        ),
        ("status 500", Cluster::new(always(error(500)))),
        ("status 500", Cluster::new(daemonset_is(error(500)))),
        ("status 429", Cluster::new(daemonset_is(error(429)))),
        (
            "status 302",
            Cluster::new(daemonset_is(Behaviour::Answer(redirect))),
        ),
        (
            "HTTP protocol error",
            Cluster::new(daemonset_is(Behaviour::Garbage)),
        ),
        (
            "connection failed",
            Cluster::new(daemonset_is(Behaviour::Close)),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(daemonset_is(Behaviour::Answer(Answer {
                body: b"[]".to_vec(),
                ..pod()
            }))),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(daemonset_is(Behaviour::Answer(Answer {
                body: b"<html>".to_vec(),
                ..pod()
            }))),
        ),
        (
            "connection failed",
            Cluster::new(daemonset_is(Behaviour::CutOff(pod()))),
        ),
        (
            "larger than",
            Cluster::new(daemonset_is(Behaviour::Endless)),
        ),
        ("timed out", Cluster::new(always(Behaviour::Silence))),
        ("timed out", Cluster::new(daemonset_is(Behaviour::Silence))),
        ("timed out", Cluster::new(always(drip()))),
        ("timed out", Cluster::new(daemonset_is(drip()))),
        (
            "timed out",
            Cluster::with_greeting(Greeting::Silence, daemonset_exists),
        ),
        (
            "TLS protocol error",
            Cluster::with_greeting(Greeting::Garbage, daemonset_exists),
        ),
        (
            "connection failed",
            Cluster::with_greeting(Greeting::Close, daemonset_exists),
        ),
    ];
    thread::scope(|scope| {
        for (reason, cluster) in &cases {
            scope.spawn(move || assert_kept(cluster, reason));
        }
    });
}

/// Asserts that SIGTERM changes nothing for this reason.
fn assert_kept(cluster: &Cluster, reason: &str) {
    let run = || {
        let installer = cluster.installed(&[], &[]);
        let tree = cluster.node.tree();
        let (code, log) = installer.end(Signal::SIGTERM);
        ((code, tree), log)
    };
    let ((code, tree), log) = match reason {
        "timed out" => run(),
        _ => in_time(run),
    };
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains(KEPT) && log.contains(reason),
        "{reason:?}\n{log}"
    );
    assert_eq!(cluster.node.tree(), tree, "{log}");
    assert_allowed_requests(&cluster.server);
}

#[test]
fn installation_is_kept_when_server_is_unreachable_or_untrusted() {
    let options = Options::new(Identity::self_signed(&["127.0.0.1"]));
    let untrusted = ApiServer::start(&options, always(error(404)));
    let refused = "1".to_owned();
    for (port, reason) in [
        (
            untrusted.address().port().to_string(),
            "server certificate was rejected",
        ),
        (refused, "Connection refused"),
    ] {
        let node = Node::with_account(
            &bound_token(),
            &CertificateAuthority::new(KeyKind::Ecdsa).pem(),
        );
        node.write(CONF_PATH, CALICO);
        let ((code, tree), log) = in_time(|| {
            let (mut command, health) = node.command(&[]);
            command.env("KUBERNETES_SERVICE_PORT", &port);
            let installer = Installer::start(&node, command, health);
            installer.becomes_ready();
            let tree = node.tree();
            let (code, log) = installer.end(Signal::SIGTERM);
            ((code, tree), log)
        });
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(KEPT) && log.contains(reason), "{log}");
        assert_eq!(node.tree(), tree, "{log}");
    }
    assert!(untrusted.requests().is_empty(), "it received the token");
}

#[test]
fn own_pod_is_taken_from_environment_or_token() {
    let named = [("POD_NAMESPACE", "msm"), ("POD_NAME", "msm-cni-other")];
    let half = [("POD_NAMESPACE", "elsewhere"), ("POD_NAME", "")];
    let bad = [("POD_NAMESPACE", "msm"), ("POD_NAME", "../msm")];
    for (vars, asked) in [
        (&named[..], "/api/v1/namespaces/msm/pods/msm-cni-other"),
        (&half, POD),
        (&bad, POD),
        (&[], POD),
    ] {
        let (cluster, log) = in_time(|| {
            let cluster = Cluster::new(always(error(500)));
            let (_, log) = cluster.installed(&[], vars).end(Signal::SIGINT);
            (cluster, log)
        });
        let [request] = cluster.server.requests().try_into().unwrap();
        assert_eq!(request.path, asked, "{log}");
        assert!(
            log.contains(&format!(
                "SIGINT: leaving the installation in place: GET {}{asked}",
                cluster.server.url()
            )),
            "{log}"
        );
    }
}

#[test]
fn server_is_not_asked_when_own_pod_is_unknown() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(
        log.contains("the name of this pod is unknown: set POD_NAMESPACE and POD_NAME"),
        "{log}"
    );
}

#[test]
fn server_is_not_asked_when_cleanup_is_always_or_never() {
    for (flag, uninstalls) in [("always", true), ("never", false)] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let cluster = Cluster::new(always(error(500)));
            let installer = cluster.installed(&["--cleanup-on-exit", flag], &[]);
            let tree = cluster.node.tree();
            let (code, log) = installer.end(signal);
            assert_eq!(code, Some(0), "{log}");
            assert!(
                log.contains(&format!("--cleanup-on-exit is {flag}")),
                "{log}"
            );
            assert_eq!(cluster.server.connections(), 0);
            if uninstalls {
                assert_uninstalled(&cluster.node, &log);
            } else {
                assert_eq!(cluster.node.tree(), tree);
            }
        }
    }
}

#[test]
fn cleanup_binaries_removes_executable_and_symlinks_last() {
    let node = Node::with_conf(CONF, CALICO);
    let before = node.tree();
    let installer = node.installed(&["--cleanup-on-exit=always", "--cleanup-binaries"]);
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.tree(), before, "{log}");
    // A pod must never start with an entry whose kubeconfig or plugin is missing.
    let bin_dir = node.path(BIN_DIR);
    let lines = [
        "conflist with mode 0644: uninstalling".to_owned(),
        format!("removed {}:", node.path(KUBECONFIG).display()),
        format!("removed {}:", bin_dir.join("msm-cni").display()),
        format!("removed {}:", bin_dir.join("msm").display()),
    ];
    let places = lines.map(|line| {
        log.find(&line)
            .unwrap_or_else(|| panic!("{line:?} is missing\n{log}"))
    });
    assert!(places.is_sorted(), "{log}");
}

#[test]
fn second_signal_ends_the_wait_for_the_server_and_health_is_served_meanwhile() {
    // On a machine that stalls for seconds, the request times out before the second signal.
    let start = Instant::now();
    while !second_signal_is_in_time() {
        assert!(start.elapsed() < DEADLINE);
    }
}

fn second_signal_is_in_time() -> bool {
    let cluster = Cluster::new(always(Behaviour::Silence));
    let installer = cluster.installed(&[], &[]);
    let tree = cluster.node.tree();
    installer.signal(Signal::SIGTERM);
    installer.wait_until("a request", || !cluster.server.requests().is_empty());
    let health = installer.get("/healthz");
    // Neither ends the wait nor starts a reconcile.
    installer.signal(Signal::SIGHUP);
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(cluster.node.tree(), tree);
    if log.contains("timed out") {
        return false;
    }
    assert_eq!(health.unwrap().0, 200);
    assert!(
        log.contains("SIGTERM arrived before the API server responded"),
        "{log}"
    );
    true
}

#[test]
fn signal_that_arrives_before_the_start_is_handled() {
    for (cleanup, uninstalls) in [("always", true), ("never", false)] {
        let node = Node::with_conf(CONF, CALICO);
        let early = "kill -TERM $$; exec \"$0\" \"$@\"";
        // Needs coreutils 8.31.
        let tool = ["env", "--block-signal=TERM", "sh", "-c", early];
        let (command, health) = node.command_by(&tool, &["--cleanup-on-exit", cleanup]);
        let mut installer = Installer::start(&node, command, health);
        assert_eq!(installer.wait(), Some(0), "{}", installer.log());
        let log = installer.log();
        assert!(log.contains("SIGTERM: "), "{log}");
        if uninstalls {
            assert_uninstalled(&node, &log);
        } else {
            assert!(node.conf(CONF).contains("\"msm-cni\""), "{log}");
        }
    }
}

#[test]
fn installer_exits_while_a_directory_is_missing() {
    for missing in [NET_DIR, BIN_DIR] {
        for cleanup in ["auto", "never"] {
            let node = Node::with_conf(CONF, CALICO);
            fs::remove_dir_all(node.path(missing)).unwrap();
            let installer = node.start(&["--cleanup-on-exit", cleanup]);
            installer.becomes_unready("mount");
            let (code, log) = installer.end(Signal::SIGTERM);
            assert_eq!(code, Some(0), "{log}");
        }
    }
}

/// Sends SIGTERM, asserts exit code 1 and returns the log.
fn fails_to_uninstall(installer: Installer) -> String {
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(1), "{log}");
    log
}

fn assert_plugin_works(node: &Node, log: &str) {
    assert!(node.path(KUBECONFIG).exists(), "{log}");
    assert!(node.path(BIN_DIR).join("msm-cni").exists(), "{log}");
}

#[test]
fn kubeconfig_and_plugin_are_kept_while_an_entry_may_remain() {
    let unreadable = " ".repeat((4 << 20) + 1);
    let half_written = "{\"name\": \"x\", \"plugins\": [{\"type\": \"msm-cni\"";
    for (content, reason) in [
        (unreadable.as_str(), "larger than"),
        (half_written, "may contain the plugin entry"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&["--cleanup-on-exit=always"]);
        node.write(&format!("{NET_DIR}/99-other.conflist"), content);
        let log = fails_to_uninstall(installer);
        assert!(
            log.contains("99-other.conflist") && log.contains(reason),
            "{log}"
        );
        assert_eq!(node.conf(CONF), CALICO, "the known entry is removed\n{log}");
        assert_plugin_works(&node, &log);
    }
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    installer.at_once(|| {
        fs::rename(node.path(NET_DIR), node.path("elsewhere")).unwrap();
        installer.signal(Signal::SIGTERM);
    });
    let log = fails_to_uninstall(installer);
    assert!(log.contains("net.d cannot be read"), "{log}");
    assert!(node.path(BIN_DIR).join("msm-cni").exists(), "{log}");
}

#[test]
fn files_that_cannot_be_removed_are_named() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let read_only = |node: &Node, directory: &str| Mount::read_only(&node.path(directory));
    let node = Node::with_conf(CONF, CALICO);
    let cleanup = ["--cleanup-on-exit=always", "--cleanup-binaries"];
    let installer = node.installed(&cleanup);
    let tree = node.tree();
    let mount = read_only(&node, NET_DIR);
    let log = fails_to_uninstall(installer);
    let names: [&Path; 3] = [
        CONF.as_ref(),
        "ZZZ-msm-cni-kubeconfig".as_ref(),
        "msm-iptables".as_ref(),
    ];
    let line = log.lines().last().unwrap();
    for name in names {
        assert!(line.contains(name.to_str().unwrap()), "{log}");
    }
    assert!(line.contains("Read-only file system"), "{log}");
    assert_eq!(node.tree(), tree, "{log}");
    drop(mount);

    let installer = node.installed(&cleanup);
    let _mount = read_only(&node, BIN_DIR);
    let log = fails_to_uninstall(installer);
    assert_eq!(node.conf(CONF), CALICO, "{log}");
    assert!(!node.path(KUBECONFIG).exists(), "{log}");
    let line = log.lines().last().unwrap();
    assert!(
        line.contains("msm-cni") && line.contains("msm-iptables"),
        "{log}"
    );
}

#[test]
fn delayed_repairs_do_not_delay_the_uninstall() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    installer.until("repairs are delayed", || {
        node.write(CONF_PATH, CALICO);
        installer.ready().filter(|(code, _)| *code == 503)
    });
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_uninstalled(&node, &log);
}
