//! `scripts/demo`: three pods with RTSP servers, an API server with TLS and the plugin, run as a
//! container runtime runs it. Prints which server answers each RTSP request.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a demonstration prints, and stops at the first error"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use msm_testkit::api_server::{Answer, ApiServer, Behaviour, Options, Request};
use msm_testkit::certificates::{CertificateAuthority, KeyKind};
use msm_testkit::cluster::INJECT;
use msm_testkit::command::run_with_input;
use msm_testkit::kubeconfig::{Credentials, Kubeconfig};
use msm_testkit::netns::{self, Namespace};
use msm_testkit::pod::{APP_UID, STUB_UID};
use msm_testkit::pod_json::{PodSpec, pod_json};
use msm_testkit::scratch::Scratch;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(30);

/// A pod on its own network, 10.N.0.0/24.
struct Pod {
    name: &'static str,
    label: Option<&'static str>,
    network: u8,
    namespace: Namespace,
}

/// A request and the server that answered it.
struct Row {
    what: String,
    expected: &'static str,
    actual: String,
}

fn main() -> ExitCode {
    if let Some(refusal) = netns::refusal() {
        println!("The demonstration cannot run here: {refusal}");
        return ExitCode::FAILURE;
    }
    let outside = Namespace::new();
    let pods = [
        ("camera", Some("true"), 1),
        ("plain", None, 2),
        ("declined", Some("false"), 3),
    ];
    let pods = pods.map(|(name, label, network)| Pod::new(name, label, network, &outside));
    serve(&outside, "RTSP server", 554);

    heading("ADD of each pod");
    let cluster = Cluster::new(&pods);
    for pod in &pods {
        cluster.add(pod);
    }

    let camera = &pods[0];
    heading("Rules in the network namespace of pod camera");
    match msm_testkit::find_tool("nft") {
        Some(_) => println!("{}", camera.namespace.nft_rules().trim_end()),
        None => println!("(nft is not installed; only this listing needs it)"),
    }

    heading("Servers that answer RTSP requests");
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |what: String, expected, actual| {
        rows.push(Row {
            what,
            expected,
            actual,
        });
    };
    for pod in &pods {
        let expected = if pod.name == "camera" {
            "stub"
        } else {
            "RTSP server"
        };
        let actual = pod.options(APP_UID, pod.server());
        row(
            format!("pod {}: app to the server, port 554", pod.name),
            expected,
            actual,
        );
    }
    row(
        "pod camera: stub to the server, port 554".into(),
        "RTSP server",
        camera.options(STUB_UID, camera.server()),
    );
    let loopback = (Ipv4Addr::LOCALHOST, 554).into();
    row(
        "pod camera: app to its own loopback, port 554".into(),
        "app's own server",
        camera.options(APP_UID, loopback),
    );

    let correct = rows.iter().filter(|row| row.actual == row.expected).count();
    println!("{:<48} {:<18} {:<18}", "request", "expected", "actual");
    for Row {
        what,
        expected,
        actual,
    } in &rows
    {
        let verdict = if actual == expected { "ok" } else { "WRONG" };
        println!("{what:<48} {expected:<18} {actual:<18} {verdict}");
    }
    println!(
        "\n{correct} of {} requests were answered by the expected server.",
        rows.len()
    );
    if correct == rows.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

impl Pod {
    /// Creates the pod with a stub and an application's server.
    fn new(
        name: &'static str,
        label: Option<&'static str>,
        network: u8,
        outside: &Namespace,
    ) -> Self {
        let namespace = Namespace::new();
        namespace.ip(&format!(
            "link add eth0 type veth peer name pod{network} netns {}
             address add 10.{network}.0.2/24 dev eth0
             link set eth0 up
             route add default via 10.{network}.0.1",
            outside.path().display()
        ));
        outside.ip(&format!(
            "address add 10.{network}.0.1/24 dev pod{network}\nlink set pod{network} up"
        ));
        serve(&namespace, "stub", 8554);
        serve(&namespace, "app's own server", 554);
        Self {
            name,
            label,
            network,
            namespace,
        }
    }

    fn uid(&self) -> String {
        format!("00000000-0000-0000-0000-{:012}", self.network)
    }

    fn server(&self) -> SocketAddr {
        (Ipv4Addr::new(10, self.network, 0, 1), 554).into()
    }

    /// Returns which server answers an RTSP request of the pod's user `uid`.
    fn options(&self, uid: u32, server: SocketAddr) -> String {
        self.namespace.run_as(uid, || options(server))
    }
}

/// Sends OPTIONS (RFC 7826, section 13.1) and returns the Server header of the response.
fn options(server: SocketAddr) -> String {
    let request = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "OPTIONS rtsp://{server}/stream RTSP/1.0\r\nCSeq: 1\r\n\r\n"
        )?;
        let lines: Vec<String> = BufReader::new(stream).lines().collect::<Result<_, _>>()?;
        let name = lines.iter().find_map(|line| line.strip_prefix("Server: "));
        Ok(name.unwrap_or("a response without Server").to_owned())
    };
    request().unwrap_or_else(|error| error.to_string())
}

/// Starts an RTSP server that puts its name in responses and runs until the process exits.
fn serve(namespace: &Namespace, name: &'static str, port: u16) {
    let listener =
        namespace.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = BufReader::new(stream.try_clone().unwrap()).lines();
            while request
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let _ = write!(
                stream,
                "RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\nServer: {name}\r\n\r\n"
            );
        }
    });
}

/// An API server with the pods, and a kubeconfig for it.
struct Cluster {
    _server: ApiServer,
    scratch: Scratch,
}

impl Cluster {
    fn new(pods: &[Pod]) -> Self {
        let authority = CertificateAuthority::new(KeyKind::Ecdsa);
        let objects: Vec<(String, serde_json::Value)> = pods.iter().map(object).collect();
        let respond = move |request: &Request| {
            let pod = objects.iter().find(|(path, _)| *path == request.path);
            Behaviour::Answer(match pod {
                Some((_, pod)) => Answer::object(pod),
                None => Answer::error(404, "no such pod"),
            })
        };
        let server = ApiServer::start(&Options::new(authority.server(&["127.0.0.1"])), respond);
        let scratch = Scratch::new();
        let kubeconfig = Kubeconfig {
            server: &server.url(),
            ca_pem: Some(&authority.pem()),
            tls_server_name: None,
            credentials: Credentials::Token("demo"),
        };
        kubeconfig.write(&scratch.path().join("kubeconfig"));
        Self {
            _server: server,
            scratch,
        }
    }

    fn add(&self, pod: &Pod) {
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "demo", "type": "msm-cni",
            "kubernetes": { "kubeConfig": self.scratch.path().join("kubeconfig") },
            "prevResult": {
                "cniVersion": "1.0.0",
                "ips": [{ "address": format!("10.{}.0.2/24", pod.network) }],
            },
        });
        let mut plugin = msm_testkit::applet("msm-cni");
        plugin
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("demo-{}", pod.name))
            .env("CNI_NETNS", pod.namespace.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/opt/cni/bin")
            .env(
                "CNI_ARGS",
                format!(
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=media;K8S_POD_NAME={};K8S_POD_UID={}",
                    pod.name,
                    pod.uid()
                ),
            );
        let outcome = run_with_input(&mut plugin, &configuration.to_string()).succeeded();
        let mut log = String::new();
        for line in outcome.stderr.lines() {
            let _ = write!(log, "\n    {line}");
        }
        println!(
            "pod {} ({INJECT}: {}){log}",
            pod.name,
            pod.label.unwrap_or("absent")
        );
    }
}

/// Path and object of a pod in the API.
fn object(pod: &Pod) -> (String, serde_json::Value) {
    let labels: Vec<(&str, &str)> = pod.label.map(|label| (INJECT, label)).into_iter().collect();
    let object = pod_json(&PodSpec {
        namespace: "media",
        name: pod.name,
        uid: &pod.uid(),
        labels: &labels,
        annotations: &[],
    });
    (
        format!("/api/v1/namespaces/media/pods/{}", pod.name),
        object,
    )
}
