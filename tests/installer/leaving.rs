//! What becomes of it all at the end: against an API server that says every thing that one
//! can say, or nothing; in every way to be ended; and where nothing can be removed.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use msm_testkit::api_server::{
    Answer, ApiServer, Authority, Behaviour, Greeting, Identity, KeyKind, Options, Request,
};
use msm_testkit::cannot_run;
use msm_testkit::node::{BIN_DIR, CALICO, CONF, CONF_PATH, Installer, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::directories::Mount;

const POD: &str = "/api/v1/namespaces/msm/pods/msm-cni-x7k2p";
const SET: &str = "/apis/apps/v1/namespaces/msm/daemonsets/msm-cni";
/// What a question costs at most, and a second for the end itself.
const LONGEST_END: Duration = Duration::from_millis(6500);
/// Of an end that waits for no answer; less than a question may take, and far more than it
/// does on a machine that has something else to do.
const SHORT_END: Duration = Duration::from_secs(4);

/// A token that is bound to our pod, as the kubelet's are.
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

fn set(metadata: &Value) -> Answer {
    Answer::object(&json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": metadata, "spec": {},
    }))
}

/// A node whose API server is a real one, and the installer at work on it.
struct Cluster {
    node: Node,
    server: ApiServer,
}

impl Cluster {
    fn new(answer: impl Fn(&Request) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::greeting(Greeting::Handshake, answer)
    }

    fn greeting(
        greeting: Greeting,
        answer: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new(KeyKind::Ecdsa);
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

/// Pod and `DaemonSet` as they should be.
fn well(request: &Request) -> Behaviour {
    Behaviour::Answer(match request.path.as_str() {
        POD => pod(),
        SET => set(&json!({"name": "msm-cni"})),
        path => panic!("{path} is nobody's business"),
    })
}

/// The pod as it should be, and the `DaemonSet` in some other way.
fn but_the_set(answer: Behaviour) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    move |request| match request.path.as_str() {
        POD => Behaviour::Answer(pod()),
        _ => answer.clone(),
    }
}

fn always(answer: Behaviour) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    move |_| answer.clone()
}

fn error(code: u16) -> Behaviour {
    Behaviour::Answer(Answer::error(code, "because"))
}

/// Nothing is left but the executable.
fn assert_gone(node: &Node, log: &str) {
    let tree = node.tree();
    assert_eq!(node.conf(CONF), CALICO, "{log}");
    assert!(!tree.contains("ZZZ-msm-cni-kubeconfig"), "{tree}{log}");
    assert!(
        !tree.contains("msm-cni ->") && !tree.contains("msm-iptables ->"),
        "{tree}{log}"
    );
    assert!(tree.contains(&format!("{BIN_DIR}/msm 0755")), "{tree}{log}");
}

fn assert_asked_for_no_more_than_it_may(server: &ApiServer) {
    for request in server.requests() {
        assert_eq!(request.method, "GET");
        assert!([POD, SET].contains(&request.path.as_str()), "{request:?}");
        assert_eq!(
            request.headers["authorization"],
            format!("Bearer {}", bound_token())
        );
    }
}

#[test]
fn it_goes_when_the_daemon_set_is_gone_or_going_or_nobody_knows_us() {
    let deleting = set(&json!({"name": "msm-cni", "deletionTimestamp": "2026-01-05T09:30:00Z"}));
    let cases: Vec<(&str, Cluster)> = vec![
        ("does not exist", Cluster::new(but_the_set(error(404)))),
        (
            "is being deleted",
            Cluster::new(but_the_set(Behaviour::Answer(deleting))),
        ),
        ("status 401 (because)", Cluster::new(always(error(401)))),
        ("status 403 (because)", Cluster::new(always(error(403)))),
        (
            "status 401 (because)",
            Cluster::new(but_the_set(error(401))),
        ),
        (
            "status 403 (because)",
            Cluster::new(but_the_set(error(403))),
        ),
    ];
    for (reason, cluster) in cases {
        let installer = cluster.installed(&[], &[]);
        let (code, log, took) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{log}");
        assert!(took < SHORT_END, "{took:?}");
        assert!(
            log.contains("what was installed goes") && log.contains(reason),
            "{log}"
        );
        assert_gone(&cluster.node, &log);
        assert_asked_for_no_more_than_it_may(&cluster.server);
        // What protects pods: first the entry, and the symlinks last.
        let [entry, kubeconfig, link] = [
            "conflist with mode 0644: msm-cni leaves this node".to_owned(),
            format!("removed {}", cluster.node.path(KUBECONFIG).display()),
            format!(
                "removed {}",
                cluster.node.path(BIN_DIR).join("msm-cni").display()
            ),
        ]
        .map(|line| {
            log.find(&line)
                .unwrap_or_else(|| panic!("{line:?} is missing\n{log}"))
        });
        assert!(entry < kubeconfig && kubeconfig < link, "{log}");
    }
}

#[test]
fn it_stays_when_the_daemon_set_stays_or_nobody_can_tell() {
    let other_owner = Answer::object(
        &json!({"metadata": {"ownerReferences": [{"kind": "Node", "name": "node-1"}]}}),
    );
    let odd_owner = Answer::object(
        &json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "name": "../../x"}]}}),
    );
    let leaky = Answer::object(&json!({"metadata": bound_token()}));
    let redirect = Answer::error(302, "there").header("Location", "https://127.0.0.1:1/");
    let drip = || Behaviour::Drip(pod());
    let stays = "DaemonSet msm/msm-cni exists";
    let cases: Vec<(&str, Cluster)> = vec![
        (stays, Cluster::new(well)),
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
            Cluster::new(always(Behaviour::Answer(odd_owner))),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(always(Behaviour::Answer(leaky))),
        ),
        ("status 500", Cluster::new(always(error(500)))),
        ("status 500", Cluster::new(but_the_set(error(500)))),
        ("status 429", Cluster::new(but_the_set(error(429)))),
        (
            "status 302",
            Cluster::new(but_the_set(Behaviour::Answer(redirect))),
        ),
        (
            "HTTP protocol error",
            Cluster::new(but_the_set(Behaviour::Garbage)),
        ),
        (
            "no complete response",
            Cluster::new(but_the_set(Behaviour::Close)),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(but_the_set(Behaviour::Answer(Answer {
                body: b"[]".to_vec(),
                ..pod()
            }))),
        ),
        (
            "not a Kubernetes object",
            Cluster::new(but_the_set(Behaviour::Answer(Answer {
                body: b"<html>".to_vec(),
                ..pod()
            }))),
        ),
        (
            "no complete response",
            Cluster::new(but_the_set(Behaviour::CutOff(pod()))),
        ),
        ("larger than", Cluster::new(but_the_set(Behaviour::Endless))),
        ("in time", Cluster::new(always(Behaviour::Silence))),
        ("in time", Cluster::new(but_the_set(Behaviour::Silence))),
        ("in time", Cluster::new(always(drip()))),
        ("in time", Cluster::new(but_the_set(drip()))),
        ("in time", Cluster::greeting(Greeting::Silence, well)),
        (
            "TLS protocol error",
            Cluster::greeting(Greeting::Garbage, well),
        ),
        (
            "no complete response",
            Cluster::greeting(Greeting::CloseOnce, well),
        ),
    ];
    thread::scope(|scope| {
        for (reason, cluster) in &cases {
            scope.spawn(move || {
                let installer = cluster.installed(&[], &[]);
                let tree = cluster.node.tree();
                let (code, log, took) = installer.end(Signal::SIGTERM);
                assert_eq!(code, Some(0), "{log}");
                assert!(took < LONGEST_END, "{took:?}\n{log}");
                assert!(
                    log.contains("SIGTERM: everything stays as it is") && log.contains(reason),
                    "{reason:?}\n{log}"
                );
                assert_eq!(cluster.node.tree(), tree, "{log}");
                assert_asked_for_no_more_than_it_may(&cluster.server);
            });
        }
    });
}

#[test]
fn nobody_there_or_a_stranger_changes_nothing() {
    let strangers = Options::new(Identity::self_signed(&["127.0.0.1"]));
    let stranger = ApiServer::start(&strangers, always(error(404)));
    let refused = "1".to_owned();
    for (port, reason) in [
        (
            stranger.address().port().to_string(),
            "server certificate was rejected",
        ),
        (refused, "Connection refused"),
    ] {
        let node = Node::with_account(&bound_token(), &Authority::new(KeyKind::Ecdsa).pem());
        node.write(CONF_PATH, CALICO);
        let (mut command, health) = node.command(&[]);
        command.env("KUBERNETES_SERVICE_PORT", &port);
        let installer = Installer::start(&node, command, health);
        installer.becomes_ready();
        let tree = node.tree();
        let (code, log, took) = installer.end(Signal::SIGTERM);
        assert_eq!((code, took < SHORT_END), (Some(0), true), "{log}");
        assert!(
            log.contains("everything stays") && log.contains(reason),
            "{log}"
        );
        assert_eq!(node.tree(), tree, "{log}");
    }
    assert!(stranger.requests().is_empty(), "it got our token");
}

#[test]
fn our_pod_is_named_by_the_environment_or_by_the_token() {
    let named = [("POD_NAMESPACE", "msm"), ("POD_NAME", "msm-cni-other")];
    let half = [("POD_NAMESPACE", "elsewhere"), ("POD_NAME", "")];
    let bad = [("POD_NAMESPACE", "msm"), ("POD_NAME", "../msm")];
    for (vars, asked) in [
        (&named[..], "/api/v1/namespaces/msm/pods/msm-cni-other"),
        (&half, POD),
        (&bad, POD),
        (&[], POD),
    ] {
        let cluster = Cluster::new(always(error(500)));
        let installer = cluster.installed(&[], vars);
        let (_, log, _) = installer.end(Signal::SIGINT);
        let [request] = cluster.server.requests().try_into().unwrap();
        assert_eq!(request.path, asked, "{log}");
        assert!(
            log.contains(&format!(
                "SIGINT: everything stays as it is: GET {}{asked}",
                cluster.server.url()
            )),
            "{log}"
        );
    }
}

#[test]
fn without_a_name_for_our_pod_nobody_is_asked() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(
        log.contains("neither POD_NAMESPACE and POD_NAME nor the service account's token"),
        "{log}"
    );
}

#[test]
fn always_and_never_ask_nobody() {
    for (flag, goes) in [("always", true), ("never", false)] {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let cluster = Cluster::new(always(error(500)));
            let installer = cluster.installed(&["--cleanup-on-exit", flag], &[]);
            let tree = cluster.node.tree();
            let (code, log, took) = installer.end(signal);
            assert_eq!(code, Some(0), "{log}");
            assert!(
                took < SHORT_END && log.contains(&format!("--cleanup-on-exit is {flag}")),
                "{log}"
            );
            assert_eq!(cluster.server.connections(), 0);
            if goes {
                assert_gone(&cluster.node, &log);
            } else {
                assert_eq!(cluster.node.tree(), tree);
            }
        }
    }
}

#[test]
fn the_executable_goes_where_that_is_asked_for() {
    let node = Node::with_conf(CONF, CALICO);
    let before = node.tree();
    let installer = node.installed(&["--cleanup-on-exit=always", "--cleanup-binaries"]);
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.tree(), before, "{log}");
}

#[test]
fn a_second_signal_does_not_wait_for_the_answer_and_health_is_served_meanwhile() {
    let cluster = Cluster::new(always(Behaviour::Silence));
    let installer = cluster.installed(&[], &[]);
    let tree = cluster.node.tree();
    installer.signal(Signal::SIGTERM);
    installer.wait_until("the question", || !cluster.server.requests().is_empty());
    assert_eq!(installer.get("/healthz").unwrap().0, 200);
    // Not an end, and no reason to look either.
    installer.signal(Signal::SIGHUP);
    let (code, log, took) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(took < SHORT_END, "{took:?}");
    assert!(
        log.contains("SIGTERM came before the API server's answer"),
        "{log}"
    );
    assert_eq!(cluster.node.tree(), tree);
}

#[test]
fn a_signal_that_was_there_first_ends_it_all_the_same() {
    for (cleanup, goes) in [("always", true), ("never", false)] {
        let node = Node::with_conf(CONF, CALICO);
        let early = "kill -TERM $$; exec \"$0\" \"$@\"";
        // Of coreutils 8.31 or newer.
        let tool = ["env", "--block-signal=TERM", "sh", "-c", early];
        let (command, health) = node.command_by(&tool, &["--cleanup-on-exit", cleanup]);
        let mut installer = Installer::start(&node, command, health);
        assert_eq!(installer.wait(), Some(0), "{}", installer.log());
        let log = installer.log();
        assert!(log.contains("SIGTERM: "), "{log}");
        if goes {
            assert_gone(&node, &log);
        } else {
            assert!(node.conf(CONF).contains("\"msm-cni\""), "{log}");
        }
    }
}

#[test]
fn it_ends_while_it_waits_for_a_directory() {
    for missing in [NET_DIR, BIN_DIR] {
        for (cleanup, code) in [("auto", 0), ("never", 0)] {
            let node = Node::with_conf(CONF, CALICO);
            fs::remove_dir_all(node.path(missing)).unwrap();
            let installer = node.start(&["--cleanup-on-exit", cleanup]);
            installer.becomes_unready("mount");
            let (ended, log, took) = installer.end(Signal::SIGTERM);
            assert_eq!(ended, Some(code), "{log}");
            assert!(took < SHORT_END, "{took:?}");
        }
    }
}

/// Ends it with 1; the log.
fn cannot_leave(installer: Installer) -> String {
    let (code, log, took) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(1), "{log}");
    assert!(took < SHORT_END, "{took:?}");
    log
}

fn assert_still_works(node: &Node, log: &str) {
    assert!(node.path(KUBECONFIG).exists(), "{log}");
    assert!(node.path(BIN_DIR).join("msm-cni").exists(), "{log}");
}

#[test]
fn as_long_as_an_entry_may_be_left_so_is_what_it_needs() {
    let unreadable = " ".repeat((4 << 20) + 1);
    let half_written = "{\"name\": \"x\", \"plugins\": [{\"type\": \"msm-cni\"";
    for (content, reason) in [
        (unreadable.as_str(), "it is larger than"),
        (
            half_written,
            "99-other.conflist may contain the plugin entry",
        ),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&["--cleanup-on-exit=always"]);
        node.write(&format!("{NET_DIR}/99-other.conflist"), content);
        let log = cannot_leave(installer);
        assert!(
            log.contains("99-other.conflist") && log.contains(reason),
            "{log}"
        );
        assert_eq!(
            node.conf(CONF),
            CALICO,
            "the entry that is known goes\n{log}"
        );
        assert_still_works(&node, &log);
    }
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    installer.at_once(|| {
        fs::rename(node.path(NET_DIR), node.path("elsewhere")).unwrap();
        installer.signal(Signal::SIGTERM);
    });
    let log = cannot_leave(installer);
    assert!(log.contains("net.d cannot be read"), "{log}");
    assert!(node.path(BIN_DIR).join("msm-cni").exists(), "{log}");
}

#[test]
fn what_cannot_be_removed_is_named() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let read_only = |node: &Node, directory: &str| Mount::read_only(&node.path(directory));
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let tree = node.tree();
    let mount = read_only(&node, NET_DIR);
    let log = cannot_leave(installer);
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

    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let _mount = read_only(&node, BIN_DIR);
    let log = cannot_leave(installer);
    assert_eq!(node.conf(CONF), CALICO, "{log}");
    assert!(!node.path(KUBECONFIG).exists(), "{log}");
    let line = log.lines().last().unwrap();
    assert!(
        line.contains("msm-cni") && line.contains("msm-iptables"),
        "{log}"
    );
}

#[test]
fn the_end_is_quick_while_a_rival_fights() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    installer.until("a fight", || {
        node.write(CONF_PATH, CALICO);
        installer.ready().filter(|(code, _)| *code == 503)
    });
    let start = Instant::now();
    let (code, log, took) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(took < SHORT_END, "{took:?} {:?}", start.elapsed());
    assert_gone(&node, &log);
}
