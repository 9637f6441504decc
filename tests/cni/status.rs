//! STATUS: reports whether an ADD could succeed, names the kubeconfig that prevents it, and
//! makes no network request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use msm_testkit::api_server::{Answer, ApiServer, Behaviour, Options};
use msm_testkit::certificates::{CertificateAuthority, Identity, KeyKind};
use msm_testkit::cluster::error_text;
use msm_testkit::command::{Outcome, run_with_input};
use msm_testkit::kubeconfig::{Credentials, Kubeconfig};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{WITHOUT_NF_TABLES, WITHOUT_TOOLS, applet, applet_under, cannot_run};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

/// The code of a plugin that cannot serve ADD.
const UNAVAILABLE: u64 = 50;

/// A node with a kubeconfig.
struct Node {
    authority: CertificateAuthority,
    /// Counts connections.
    server: ApiServer,
    scratch: Scratch,
}

impl Node {
    /// A node with a valid kubeconfig.
    fn new() -> Self {
        let authority = CertificateAuthority::new(KeyKind::Ecdsa);
        let options = Options::new(authority.server(&["127.0.0.1", "localhost"]));
        let server = ApiServer::start(&options, |_| {
            Behaviour::Answer(Answer::error(500, "unexpected request"))
        });
        let node = Self {
            authority,
            server,
            scratch: Scratch::new(),
        };
        node.write(&node.valid());
        node
    }

    fn valid(&self) -> String {
        self.yaml(&self.server.url(), Credentials::Token("sesame"))
    }

    fn yaml(&self, server: &str, credentials: Credentials) -> String {
        let authority = self.authority.pem();
        let kubeconfig = Kubeconfig {
            server,
            ca_pem: Some(&authority),
            tls_server_name: None,
            credentials,
        };
        kubeconfig.yaml()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.scratch.path().join("kubeconfig")
    }

    fn write(&self, text: &str) {
        fs::write(self.kubeconfig(), text).unwrap();
    }

    /// The valid kubeconfig with `from` replaced by `to`.
    fn valid_but(&self, from: &str, to: &str) -> String {
        let valid = self.valid();
        assert!(valid.contains(from), "{valid}");
        valid.replace(from, to)
    }

    /// Runs STATUS with these settings of `kubernetes`.
    fn status(&self, kubernetes: &Value) -> Outcome {
        self.status_under(&[], kubernetes)
    }

    fn status_under(&self, wrapper: &[&str], kubernetes: &Value) -> Outcome {
        let mut plugin = match wrapper {
            [] => applet("msm-cni"),
            wrapper => applet_under(wrapper, "msm-cni"),
        };
        plugin
            .env("CNI_COMMAND", "STATUS")
            .env("CNI_PATH", "/opt/cni/bin");
        let mut configuration = json!({
            "cniVersion": "1.1.0", "name": "k8s-pod-network", "type": "msm-cni",
            "kubernetes": {"kubeConfig": self.kubeconfig()},
        });
        for (key, value) in kubernetes.as_object().unwrap() {
            configuration["kubernetes"][key] = value.clone();
        }
        let outcome = run_with_input(&mut plugin, &configuration.to_string());
        assert_eq!(self.server.connections(), 0, "{outcome}");
        outcome
    }

    /// Fails the test unless STATUS names the kubeconfig, advice and all `causes`.
    #[track_caller]
    fn assert_unusable(&self, causes: &[&str]) {
        self.assert_kubeconfig_named(self.status(&json!({})), causes);
    }

    fn assert_each_unusable(&self, kubeconfigs: &[(String, &[&str])]) {
        for (text, causes) in kubeconfigs {
            self.write(text);
            self.assert_unusable(causes);
        }
    }

    #[track_caller]
    fn assert_kubeconfig_named(&self, outcome: Outcome, causes: &[&str]) {
        let output = outcome.to_string();
        let message = error_text(outcome, UNAVAILABLE);
        let path = self.kubeconfig();
        let sentence = format!(
            "kubeconfig {} cannot be used; the msm-cni DaemonSet writes it: check its pod on this node: ",
            path.display()
        );
        assert!(message.starts_with(&sentence), "{message}\n{output}");
        for cause in causes {
            assert!(message.contains(cause), "{cause:?} is not in {message:?}");
        }
        assert!(!output.contains("sesame"), "{output}");
    }
}

#[track_caller]
fn assert_ready(outcome: Outcome) -> Outcome {
    let outcome = outcome.succeeded();
    assert_eq!(outcome.stdout, "", "{outcome}");
    outcome
}

#[test]
fn node_that_can_add_pods_is_ready() {
    if cannot_run(&["ip", "iptables-nft-restore"]) {
        return;
    }
    let node = Node::new();
    for backend in ["auto", "nftables", "iptables", ""] {
        assert_ready(node.status(&json!({"interceptName": backend})));
    }
    let port = node.server.address().port();
    let client = node.authority.client("msm-cni");
    fs::write(node.scratch.path().join("token"), "sesame\n").unwrap();
    for kubeconfig in [
        node.yaml(
            &format!("https://localhost:{port}"),
            Credentials::Token("sesame"),
        ),
        node.yaml("https://api.example:6443", Credentials::TokenFile("token")),
        node.yaml("https://[::1]", Credentials::Client(&client)),
        Kubeconfig {
            server: "https://10.96.0.1",
            ca_pem: None,
            tls_server_name: Some("kubernetes"),
            credentials: Credentials::Token("sesame"),
        }
        .yaml(),
    ] {
        node.write(&kubeconfig);
        assert_ready(node.status(&json!({})));
    }
}

#[test]
fn kubeconfig_without_a_usable_context_is_named() {
    let node = Node::new();
    let swap = |from: &str, to: &str| node.valid_but(from, to);
    node.assert_each_unusable(&[
        (String::new(), &["file is empty"]),
        ("# nothing\n".to_owned(), &["file is empty"]),
        ("a: [b".to_owned(), &["neither YAML nor JSON", "line 2"]),
        ("{\"a\": ".to_owned(), &["neither YAML nor JSON"]),
        ("\0\u{1}".to_owned(), &["neither YAML nor JSON"]),
        ("- a\n".to_owned(), &["kubeconfig is not an object"]),
        ("x".repeat(2 << 20), &["larger than 1048576 bytes"]),
        (
            swap("current-context", "no-context"),
            &["current-context is not set", "msm-cni-context"],
        ),
        (
            swap("current-context: msm-cni-context", "current-context: x"),
            &["context \"x\" does not exist", "msm-cni-context"],
        ),
        (
            swap("cluster: local", "cluster: remote"),
            &["cluster \"remote\" does not exist", "local"],
        ),
        (
            swap("user: msm-cni\n", "user: other\n"),
            &["user \"other\" does not exist", "msm-cni"],
        ),
        (swap("cluster: local", ""), &["context.cluster is missing"]),
    ]);
    fs::write(node.kubeconfig(), [0xff, 0xfe]).unwrap();
    node.assert_unusable(&["not UTF-8"]);
}

#[test]
fn kubeconfig_without_a_usable_cluster_is_named() {
    let node = Node::new();
    let server = format!("server: {}", node.server.url());
    let server = |to: &str| node.valid_but(&server, to);
    let authority = STANDARD.encode(node.authority.pem());
    let authority = format!("certificate-authority-data: \"{authority}\"");
    let authority = |to: &str| node.valid_but(&authority, to);
    node.assert_each_unusable(&[
        (server("server: \"\""), &["cluster.server is missing"]),
        (
            server("server: http://127.0.0.1"),
            &["invalid cluster.server", "https://"],
        ),
        (server("server: [a]"), &["cluster.server is not a string"]),
        (
            server("server: https://a/\n    proxy-url: http://b"),
            &["cluster.proxy-url is not supported", "without a proxy"],
        ),
        (
            authority("namespace: x"),
            &["cluster.certificate-authority is missing"],
        ),
        (
            authority("certificate-authority-data: \"!\""),
            &["cluster.certificate-authority-data is not base64"],
        ),
        (
            authority("certificate-authority-data: QUFBQQ=="),
            &["CA bundle contains no PEM certificate"],
        ),
        (
            authority("certificate-authority: ca.crt"),
            &["reading", "/ca.crt", "No such file"],
        ),
        (
            authority("certificate-authority: /etc/passwd"),
            &["CA bundle contains no PEM certificate"],
        ),
        (
            authority("certificate-authority-data: QUFB\n    insecure-skip-tls-verify: true"),
            &["certificate-authority and cluster.insecure-skip-tls-verify are both set"],
        ),
    ]);
}

#[test]
fn kubeconfig_without_usable_credentials_is_named() {
    let node = Node::new();
    let user = |to: &str| node.valid_but("token: \"sesame\"", to);
    let mixed = Identity {
        certificate_pem: node.authority.client("a").certificate_pem,
        key_pem: node.authority.client("b").key_pem,
    };
    fs::write(node.scratch.path().join("empty"), "\n").unwrap();
    let mixed = node.yaml("https://127.0.0.1", Credentials::Client(&mixed));
    node.assert_each_unusable(&[
        (user(""), &["neither a token nor a client certificate"]),
        (
            user("token: \"\""),
            &["neither a token nor a client certificate"],
        ),
        (
            user("token: \"a b\""),
            &["invalid user.token: token contains characters other than printable ASCII"],
        ),
        (
            user("token: \" \""),
            &["invalid user.token: token is empty"],
        ),
        (
            user("tokenFile: empty"),
            &["invalid user.tokenFile /", "/empty: token is empty"],
        ),
        (user("token: [a]"), &["user.token is not a string"]),
        (
            user("tokenFile: nowhere"),
            &["reading", "/nowhere", "No such file"],
        ),
        (
            user("tokenFile: /dev/null"),
            &["reading /dev/null", "not a regular file"],
        ),
        (
            user("exec: {command: aws}"),
            &["user.exec is not supported", "supported: token"],
        ),
        (
            user("auth-provider: {name: oidc}"),
            &["user.auth-provider is not supported"],
        ),
        (
            user("username: a\n    password: b"),
            &["user.username is not supported"],
        ),
        (
            user("client-certificate-data: QUFB"),
            &["user.client-key is missing"],
        ),
        (
            user("client-key-data: QUFB"),
            &["user.client-certificate is missing"],
        ),
        (
            user("client-certificate-data: QUFB\n    client-key-data: QUFB"),
            &["client-certificate contains no usable PEM certificate"],
        ),
        (
            mixed,
            &["client-certificate and client-key cannot be used together"],
        ),
    ]);
}

#[test]
fn kubeconfig_that_is_not_a_readable_file_is_named() {
    if cannot_run(&["setpriv"]) {
        return;
    }
    let node = Node::new();
    let path = node.kubeconfig();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    // Without these capabilities root cannot read it.
    let wrapper = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ];
    let unreadable = node.status_under(&wrapper, &json!({}));
    node.assert_kubeconfig_named(unreadable, &["reading", "Permission denied"]);

    fs::remove_file(&path).unwrap();
    node.assert_unusable(&["reading", "No such file"]);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    node.assert_unusable(&["not a regular file"]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    node.assert_unusable(&["not a regular file"]);
}

#[test]
fn only_netlink_sockets_are_opened() {
    if cannot_run(&["ip", "strace", "iptables-nft-restore"]) {
        return;
    }
    let node = Node::new();
    let port = node.server.address().port();
    for server in [node.server.url(), format!("https://localhost:{port}")] {
        node.write(&node.yaml(&server, Credentials::Token("sesame")));
        for backend in ["nftables", "iptables"] {
            let trace = ["strace", "-f", "-e", "trace=socket,connect"];
            let outcome =
                assert_ready(node.status_under(&trace, &json!({"interceptName": backend})));
            assert!(outcome.stderr.contains("socket(AF_NETLINK"), "{outcome}");
            // iptables asks the host's name service, over a Unix socket, whether the number is
            // a user name.
            let is_other = |line: &&str| match backend {
                "nftables" => line.contains("connect(") || !line.contains("AF_NETLINK"),
                _ => line.contains("AF_INET"),
            };
            let is_call = |line: &&str| line.contains("socket(") || line.contains("connect(");
            let other = outcome.stderr.lines().filter(is_call).find(is_other);
            assert_eq!(other, None, "{outcome}");
        }
    }
}

#[test]
fn namespace_of_the_node_is_unchanged() {
    if cannot_run(&["ip", "nft", "iptables-nft-restore"]) {
        return;
    }
    let node = Node::new();
    let own = Namespace::new();
    let before = own.rules();
    for backend in ["nftables", "iptables"] {
        assert_ready(own.run(|| node.status(&json!({"interceptName": backend}))));
        assert_eq!(own.rules(), before);
    }
}

#[test]
fn nftables_is_usable_without_tools_and_iptables_is_not() {
    if cannot_run(&["unshare", "mount", "sh"]) {
        return;
    }
    let node = Node::new();
    for backend in ["auto", "nftables"] {
        assert_ready(node.status_under(&WITHOUT_TOOLS, &json!({"interceptName": backend})));
    }
    let outcome = node.status_under(&WITHOUT_TOOLS, &json!({"interceptName": "iptables"}));
    let message = error_text(outcome, UNAVAILABLE);
    assert!(
        message.contains("iptables-restore not found in /usr/sbin, ")
            && message.contains("install iptables on the node, or set interceptName to nftables"),
        "{message}"
    );
}

#[test]
fn without_nf_tables_iptables_is_used_or_both_are_named() {
    if cannot_run(&["unshare", "mount", "sh", "strace", "iptables-nft-restore"]) {
        return;
    }
    let node = Node::new();
    let outcome = assert_ready(node.status_under(&WITHOUT_NF_TABLES, &json!({})));
    assert!(outcome.stderr.contains("using iptables"), "{outcome}");
    assert_ready(node.status_under(&WITHOUT_NF_TABLES, &json!({"interceptName": "iptables"})));

    let nftables = "the kernel does not support netlink sockets";
    let advice = "load the kernel modules nf_tables, ";
    let iptables = "iptables-restore not found in";
    let outcome = node.status_under(&WITHOUT_NF_TABLES, &json!({"interceptName": "nftables"}));
    let message = error_text(outcome, UNAVAILABLE);
    assert!(message.contains(nftables), "{message}");
    assert!(message.contains(advice), "{message}");
    assert!(!message.contains(iptables), "{message}");

    let neither = [
        &WITHOUT_TOOLS[..],
        &["/usr/bin/strace"],
        &WITHOUT_NF_TABLES[1..],
    ]
    .concat();
    let message = error_text(node.status_under(&neither, &json!({})), UNAVAILABLE);
    for part in [
        "neither nftables (",
        ") nor iptables can be used",
        nftables,
        iptables,
        advice,
        "install iptables there",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn missing_capability_is_named() {
    if cannot_run(&["setpriv", "iptables-nft-restore"]) {
        return;
    }
    let node = Node::new();
    let drop = |capability: &str| {
        let (bounding, inherited) = (
            format!("--bounding-set=-{capability}"),
            format!("--inh-caps=-{capability}"),
        );
        let wrapper = ["setpriv", &bounding, &inherited];
        ["auto", "nftables", "iptables"].map(|backend| {
            let outcome = node.status_under(&wrapper, &json!({"interceptName": backend}));
            error_text(outcome, UNAVAILABLE)
        })
    };
    for message in drop("all").into_iter().chain(drop("sys_admin")) {
        assert!(message.contains("CAP_SYS_ADMIN"), "{message}");
    }
    let [auto, nftables, iptables] = drop("net_admin");
    for message in [auto, nftables] {
        assert!(message.contains("CAP_NET_ADMIN"), "{message}");
    }
    // The output of iptables.
    assert!(iptables.contains("you must be root"), "{iptables}");
}

#[test]
fn relative_path_is_relative_to_the_kubeconfig() {
    let node = Node::new();
    let path = node.scratch.path().join("tokens/now");
    node.write(&node.yaml("https://127.0.0.1", Credentials::TokenFile("tokens/now")));
    node.assert_unusable(&[path.to_str().unwrap()]);
}
