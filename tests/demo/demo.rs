//! The main job, shown: three pods with real addresses, RTSP servers, an API server over
//! TLS, the plugin run as a runtime runs it, and where each RTSP request lands.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a demonstration prints, and ends at the first thing that does not work"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use msm_testkit::api_server::{
    Answer, ApiServer, Authority, Behaviour, Credentials, KeyKind, Kubeconfig, Options, PodSpec,
    Request, pod_json,
};
use msm_testkit::cluster::INJECT;
use msm_testkit::command::run_with_input;
use msm_testkit::netns::{self, Namespace};
use msm_testkit::pod::{APP_UID, STUB_UID};
use msm_testkit::scratch::Scratch;
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(5);

/// A pod: its name, its label and the network that it has to itself.
struct Pod {
    name: &'static str,
    label: Option<&'static str>,
    network: u8,
    namespace: Namespace,
}

/// One row of the table.
struct Row {
    what: String,
    expected: &'static str,
    seen: String,
}

fn main() -> ExitCode {
    if let Some(refusal) = netns::refusal() {
        println!("This cannot run here: {refusal}");
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

    heading("The plugin, run for each pod as a container runtime runs it");
    let cluster = Cluster::new(&pods);
    for pod in &pods {
        cluster.add(pod);
    }

    let camera = &pods[0];
    heading("What the kernel now holds in the namespace of pod camera");
    match msm_testkit::find_tool("nft") {
        Some(_) => println!("{}", camera.namespace.nft_rules().trim_end()),
        None => println!("(nft is not installed to show it; the redirect needs no tool)"),
    }

    heading("Where RTSP requests land");
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |what: String, expected, seen| {
        rows.push(Row {
            what,
            expected,
            seen,
        });
    };
    for pod in &pods {
        let expected = if pod.name == "camera" {
            "stub"
        } else {
            "RTSP server"
        };
        let seen = pod.options(APP_UID, pod.server());
        row(
            format!("pod {}: app to the server, port 554", pod.name),
            expected,
            seen,
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

    let right = rows.iter().filter(|row| row.seen == row.expected).count();
    println!("{:<48} {:<18} {:<18}", "request", "expected", "seen");
    for Row {
        what,
        expected,
        seen,
    } in &rows
    {
        let verdict = if seen == expected { "ok" } else { "WRONG" };
        println!("{what:<48} {expected:<18} {seen:<18} {verdict}");
    }
    println!(
        "\n{right} of {} requests landed where they should.",
        rows.len()
    );
    if right == rows.len() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn heading(text: &str) {
    println!("\n== {text}");
}

impl Pod {
    /// A pod on a network of its own, with a stub and an application's server in it.
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

    /// Who answers an RTSP request of that user of the pod.
    fn options(&self, uid: u32, server: SocketAddr) -> String {
        self.namespace.run_as(uid, || options(server))
    }
}

/// RTSP's OPTIONS (RFC 7826, section 13.1); returns the Server header of the answer.
fn options(server: SocketAddr) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "OPTIONS rtsp://{server}/stream RTSP/1.0\r\nCSeq: 1\r\n\r\n"
        )?;
        let lines: Vec<String> = BufReader::new(stream).lines().collect::<Result<_, _>>()?;
        let name = lines.iter().find_map(|line| line.strip_prefix("Server: "));
        Ok(name.unwrap_or("an answer that is not RTSP").to_owned())
    };
    ask().unwrap_or_else(|error| error.to_string())
}

/// An RTSP server that tells its name; ends with the process.
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

/// An API server that knows the pods, and a node's kubeconfig for it.
struct Cluster {
    _server: ApiServer,
    scratch: Scratch,
}

impl Cluster {
    fn new(pods: &[Pod]) -> Self {
        let authority = Authority::new(KeyKind::Ecdsa);
        let known: Vec<(String, serde_json::Value)> = pods.iter().map(known_pod).collect();
        let answer = move |request: &Request| {
            let pod = known.iter().find(|(path, _)| *path == request.path);
            Behaviour::Answer(match pod {
                Some((_, pod)) => Answer::object(pod),
                None => Answer::error(404, "no such pod"),
            })
        };
        let server = ApiServer::start(&Options::new(authority.server(&["127.0.0.1"])), answer);
        let scratch = Scratch::new();
        let kubeconfig = Kubeconfig {
            server: &server.url(),
            authority: Some(&authority.pem()),
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
        let mut said = String::new();
        for line in outcome.stderr.lines() {
            let _ = write!(said, "\n    {line}");
        }
        println!(
            "pod {} ({INJECT}: {}){said}",
            pod.name,
            pod.label.unwrap_or("absent")
        );
    }
}

fn known_pod(pod: &Pod) -> (String, serde_json::Value) {
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
