//! Parses a kubeconfig, YAML or JSON, and follows its current context; renders a kubeconfig
//! with a token. The files that it names are read by `client_config`. No error quotes a value
//! that could be a secret. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::fields::{DataOrFile, Fields, InvalidField};
use super::yaml::{self, InvalidYaml};
use crate::kube::server::{Host, InvalidServer, Server};

/// In bytes. Enough for hundreds of clusters.
pub const MAX_SIZE: u64 = 1 << 20;
/// Limits the number of values, because a parser can need a hundred times a value's size in
/// memory. Enough for hundreds of clusters.
const MAX_SEPARATORS: usize = 1 << 16;

/// The current context of a kubeconfig.
#[derive(Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    pub server: Server,
    /// `tls-server-name`: sent as SNI, and the name that the server's certificate is checked for.
    pub tls_server_name: Option<Host>,
    pub tls_verify: TlsVerify,
    /// `token` or `tokenFile`.
    pub token: Option<DataOrFile>,
    /// `client-certificate` and `client-key`.
    pub client_certificate: Option<ClientCertificate>,
}

/// How the server's certificate is verified.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsVerify {
    /// `certificate-authority`.
    CaBundle(DataOrFile),
    /// `insecure-skip-tls-verify`.
    Skip,
}

/// A client certificate and its key, both PEM.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, beginning with the client's own certificate.
    pub certificate: DataOrFile,
    pub key: DataOrFile,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKubeconfig {
    #[error("file is larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// More separators than `MAX_SEPARATORS`.
    #[error("file contains too many values")]
    TooManyValues,
    #[error("file is empty")]
    Empty,
    #[error("file is not UTF-8 text")]
    NotText,
    #[error("file is neither YAML nor JSON")]
    Syntax {
        #[from]
        source: InvalidYaml,
    },
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error("current-context is not set (contexts: {})", list(.contexts))]
    NoCurrentContext { contexts: Vec<String> },
    /// A reference to an entry that does not exist.
    #[error("{kind} {name:?} does not exist ({kind}s: {})", list(.found))]
    Dangling {
        /// `context`, `cluster` or `user`.
        kind: &'static str,
        name: String,
        found: Vec<String>,
    },
    #[error("invalid cluster.server")]
    Server { source: InvalidServer },
    #[error("invalid cluster.tls-server-name: neither a DNS name nor an IP address")]
    TlsServerName,
    #[error("cluster.certificate-authority and cluster.insecure-skip-tls-verify are both set")]
    Contradiction,
    #[error("user has neither a token nor a client certificate")]
    NoCredentials,
}

/// An API server and a token for it.
pub struct Credentials<'a> {
    pub server: &'a Server,
    /// PEM. Without a bundle the server's certificate is not verified.
    pub ca_bundle: Option<&'a [u8]>,
    /// A service account's token.
    pub token: &'a str,
}

/// Renders a kubeconfig. `name` is the name of its context and user, `comment` its first
/// line. The rest is JSON, which every YAML parser reads, and which `Kubeconfig::parse` reads
/// ten times faster than other YAML.
pub fn render(credentials: &Credentials, name: &str, comment: &str) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let tls_verify = match credentials.ca_bundle {
        Some(bundle) => format!(
            r#""certificate-authority-data": {}"#,
            quoted(&STANDARD.encode(bundle))
        ),
        None => r#""insecure-skip-tls-verify": true"#.to_owned(),
    };
    format!(
        r#"# {comment}
{{
  "apiVersion": "v1",
  "kind": "Config",
  "clusters": [{{"name": "local", "cluster": {{
    "server": {server},
    {tls_verify}
  }}}}],
  "users": [{{"name": {name}, "user": {{
    "token": {token}
  }}}}],
  "contexts": [{{"name": {name}, "context": {{"cluster": "local", "user": {name}}}}}],
  "current-context": {name}
}}
"#,
        name = quoted(name),
        server = quoted(&credentials.server.to_string()),
        token = quoted(credentials.token)
    )
}

impl Kubeconfig {
    /// Parses a kubeconfig and follows its current context.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKubeconfig> {
        let document = parse_document(bytes)?;
        let root = Fields::new(&document, "kubeconfig")?;
        let context = current_context(&root)?;
        let cluster_name = context.required_string("cluster")?;
        let user_name = context.required_string("user")?;
        let cluster = entry(&root, Section::Clusters, cluster_name)?;
        let user = entry(&root, Section::Users, user_name)?;
        cluster.refuse(&["proxy-url"])?;
        user.refuse(&["exec", "auth-provider", "username", "password"])?;
        user.refuse(&["as", "as-uid", "as-groups", "as-user-extra"])?;

        let server = cluster.required_string("server")?;
        let token = token(&user)?;
        let client_certificate = client_certificate(&user)?;
        if token.is_none() && client_certificate.is_none() {
            return Err(InvalidKubeconfig::NoCredentials);
        }
        Ok(Self {
            server: Server::parse(server).map_err(|source| InvalidKubeconfig::Server { source })?,
            tls_server_name: cluster
                .string("tls-server-name")?
                .map(Host::parse)
                .transpose()
                .map_err(|_| InvalidKubeconfig::TlsServerName)?,
            tls_verify: tls_verify(&cluster)?,
            token,
            client_certificate,
        })
    }
}

fn parse_document(bytes: &[u8]) -> Result<Value, InvalidKubeconfig> {
    if u64::try_from(bytes.len()).map_or(true, |length| length > MAX_SIZE) {
        return Err(InvalidKubeconfig::TooLarge);
    }
    let separators = || bytes.iter().filter(|byte| is_separator(**byte)).count();
    if bytes.len() > MAX_SEPARATORS && separators() > MAX_SEPARATORS {
        return Err(InvalidKubeconfig::TooManyValues);
    }
    let text = str::from_utf8(bytes).map_err(|_| InvalidKubeconfig::NotText)?;
    let text = text.trim_start_matches('\u{feff}');
    // Except for a few escapes JSON is YAML, and much faster to parse as JSON.
    let json = skip_comments(text);
    match json.starts_with('{').then(|| serde_json::from_str(json)) {
        Some(Ok(value)) => Ok(value),
        _ => match yaml::parse(text)? {
            Value::Null => Err(InvalidKubeconfig::Empty),
            value => Ok(value),
        },
    }
}

/// Skips leading empty lines and YAML comments.
fn skip_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest
            .split_once('\n')
            .map_or("", |(_, after)| after.trim_start());
    }
    rest
}

/// Every value in YAML or JSON but the first is preceded by one of these. The other
/// punctuation occurs in base64 and paths.
fn is_separator(byte: u8) -> bool {
    let in_values = matches!(byte, b'+' | b'/' | b'=' | b'.' | b'_');
    matches!(byte, b'\r' | b'\n') || (byte.is_ascii_punctuation() && !in_values)
}

/// One of the arrays of `{name, KIND: {…}}` in a kubeconfig.
#[derive(Clone, Copy)]
enum Section {
    Contexts,
    Clusters,
    Users,
}

impl Section {
    const fn name(self) -> &'static str {
        match self {
            Self::Contexts => "contexts",
            Self::Clusters => "clusters",
            Self::Users => "users",
        }
    }

    /// The key of an entry's fields.
    const fn kind(self) -> &'static str {
        match self {
            Self::Contexts => "context",
            Self::Clusters => "cluster",
            Self::Users => "user",
        }
    }
}

fn current_context<'a>(root: &Fields<'a>) -> Result<Fields<'a>, InvalidKubeconfig> {
    match root.string("current-context")? {
        Some(name) => entry(root, Section::Contexts, name),
        None => Err(InvalidKubeconfig::NoCurrentContext {
            contexts: names(root.array("contexts")?),
        }),
    }
}

fn entry<'a>(
    root: &Fields<'a>,
    section: Section,
    name: &str,
) -> Result<Fields<'a>, InvalidKubeconfig> {
    let entries = root.array(section.name())?;
    let has_name = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some(name);
    match entries.iter().find(has_name) {
        Some(entry) => Ok(Fields::new(&entry[section.kind()], section.kind())?),
        None => Err(InvalidKubeconfig::Dangling {
            kind: section.kind(),
            name: name.to_owned(),
            found: names(entries),
        }),
    }
}

/// `tokenFile` precedes `token`, as in client-go: only the file is renewed.
fn token(user: &Fields) -> Result<Option<DataOrFile>, InvalidKubeconfig> {
    if let Some(path) = user.string("tokenFile")? {
        return Ok(Some(DataOrFile::File(path.into())));
    }
    let token = user.string("token")?;
    Ok(token.map(|token| DataOrFile::Data(token.as_bytes().to_vec())))
}

fn client_certificate(user: &Fields) -> Result<Option<ClientCertificate>, InvalidKubeconfig> {
    match (
        user.data_or_file("client-certificate")?,
        user.data_or_file("client-key")?,
    ) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
        (None, Some(_)) => Err(user.missing("client-certificate").into()),
        (Some(_), None) => Err(user.missing("client-key").into()),
    }
}

fn tls_verify(cluster: &Fields) -> Result<TlsVerify, InvalidKubeconfig> {
    let ca_bundle = cluster.data_or_file("certificate-authority")?;
    match (cluster.bool("insecure-skip-tls-verify")?, ca_bundle) {
        (true, Some(_)) => Err(InvalidKubeconfig::Contradiction),
        (true, None) => Ok(TlsVerify::Skip),
        (false, Some(bundle)) => Ok(TlsVerify::CaBundle(bundle)),
        (false, None) => Err(cluster.missing("certificate-authority").into()),
    }
}

/// The names of the first entries, for errors.
fn names(entries: &[Value]) -> Vec<String> {
    let name = |entry: &Value| entry.get("name")?.as_str().map(str::to_owned);
    entries.iter().filter_map(name).take(10).collect()
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Written by the earlier Go installer.
    const INSTALLED: &str = r#"# Kubeconfig file for MSM CNI plugin.
apiVersion: v1
kind: Config
clusters:
- name: local
  cluster:
    server: https://[10.96.0.1]:443
    certificate-authority-data: "Q0E="
users:
- name: msm-cni
  user:
    token: "sesame"
contexts:
- name: msm-cni-context
  context:
    cluster: local
    user: msm-cni
current-context: msm-cni-context
"#;

    fn data(text: &str) -> DataOrFile {
        DataOrFile::Data(text.as_bytes().to_vec())
    }

    fn config(cluster: &Value, user: &Value) -> Value {
        json!({
            "clusters": [{"name": "other", "cluster": {"server": 1}}, {"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "other", "context": {}}, {"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        })
    }

    fn good_cluster() -> Value {
        json!({"server": "https://10.0.0.1", "certificate-authority-data": "Q0E="})
    }

    fn parse(value: &Value) -> Result<Kubeconfig, InvalidKubeconfig> {
        Kubeconfig::parse(value.to_string().as_bytes())
    }

    fn with(cluster: Value, user: Value) -> Result<Kubeconfig, InvalidKubeconfig> {
        let mut whole = good_cluster();
        if let (Value::Object(whole), Value::Object(more)) = (&mut whole, cluster) {
            whole.extend(more);
        }
        let user = if user.is_null() {
            json!({"token": "sesame"})
        } else {
            user
        };
        parse(&config(&whole, &user))
    }

    #[test]
    fn rendered_kubeconfig_can_be_parsed() {
        for (url, ca_bundle) in [
            ("https://10.96.0.1", Some(&b"PEM"[..])),
            ("https://[fd00::1]:6443", None),
        ] {
            let server = Server::parse(url).unwrap();
            let credentials = Credentials {
                server: &server,
                ca_bundle,
                token: "a.b\"\\c",
            };
            let text = render(&credentials, "msm \"cni\"", "a comment");
            let config = Kubeconfig::parse(text.as_bytes()).unwrap();
            assert_eq!(config.server, server, "{text}");
            assert_eq!(config.token, Some(data("a.b\"\\c")));
            let tls_verify = match ca_bundle {
                Some(_) => TlsVerify::CaBundle(data("PEM")),
                None => TlsVerify::Skip,
            };
            assert_eq!(config.tls_verify, tls_verify, "{text}");
        }
    }

    #[test]
    fn yaml_and_json_give_the_same_result() {
        let expected = Kubeconfig {
            server: Server::parse("https://10.96.0.1").unwrap(),
            tls_server_name: None,
            tls_verify: TlsVerify::CaBundle(data("CA")),
            token: Some(data("sesame")),
            client_certificate: None,
        };
        assert_eq!(Kubeconfig::parse(INSTALLED.as_bytes()).unwrap(), expected);
        let with_bom = format!("\u{feff}{INSTALLED}");
        assert_eq!(Kubeconfig::parse(with_bom.as_bytes()).unwrap(), expected);
        let json = yaml::parse(INSTALLED).unwrap();
        assert_eq!(parse(&json).unwrap(), expected);
        let commented = format!("# a\r\n\n  #b\n{json}");
        assert_eq!(Kubeconfig::parse(commented.as_bytes()).unwrap(), expected);
        let flow = "{clusters: [{name: c, cluster: {server: 'https://10.96.0.1', certificate-authority-data: Q0E=}}], users: [{name: u, user: {token: sesame}}], contexts: [{name: x, context: {cluster: c, user: u}}], current-context: x}";
        assert_eq!(Kubeconfig::parse(flow.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn data_precedes_its_file_and_token_file_precedes_token() {
        let file = |path: &str| DataOrFile::File(path.into());
        let config = with(
            json!({"certificate-authority": "ca.crt", "tls-server-name": "api.example"}),
            json!({
                "token": "sesame", "tokenFile": "token",
                "client-certificate": "c.crt", "client-certificate-data": "Q0\nE=",
                "client-key": "c.key",
            }),
        )
        .unwrap();
        assert_eq!(config.tls_verify, TlsVerify::CaBundle(data("CA")));
        assert_eq!(
            config.tls_server_name,
            Some(Host::Name("api.example".to_owned()))
        );
        assert_eq!(config.token, Some(file("token")));
        let (certificate, key) = (data("CA"), file("c.key"));
        let client_certificate = Some(ClientCertificate { certificate, key });
        assert_eq!(config.client_certificate, client_certificate);
    }

    #[test]
    fn skipping_verification_excludes_a_ca_bundle() {
        let insecure = json!({"insecure-skip-tls-verify": true});
        let error = with(insecure, Value::Null).unwrap_err();
        assert_eq!(error, InvalidKubeconfig::Contradiction);
        let config = with(
            json!({"insecure-skip-tls-verify": true, "certificate-authority-data": ""}),
            Value::Null,
        );
        assert_eq!(config.unwrap().tls_verify, TlsVerify::Skip);
    }

    #[test]
    fn unsupported_fields_are_named() {
        let users = [
            ("exec", json!({"command": "aws"})),
            ("auth-provider", json!({"name": "gcp"})),
            ("username", json!("admin")),
            ("password", json!("sesame")),
            ("as", json!("admin")),
            ("as-groups", json!(["a"])),
        ];
        for (field, value) in users {
            let error = with(json!({}), json!({"token": "t", field: value})).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("user.{field} is not supported")),
                "{error}"
            );
        }
        let error = with(json!({"proxy-url": "http://proxy"}), Value::Null).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cluster.proxy-url is not supported"),
            "{error}"
        );
        let empty = json!({"token": "t", "username": "", "exec": null});
        assert!(with(json!({}), empty).is_ok());
    }

    #[test]
    fn errors_name_the_field_and_quote_no_secret() {
        let user = |user| with(json!({}), user).unwrap_err();
        let cluster = |cluster| with(cluster, Value::Null).unwrap_err();
        let whole = |value| parse(&value).unwrap_err();
        let text = |text: &str| Kubeconfig::parse(text.as_bytes()).unwrap_err();
        let contexts = json!([{"name": "a"}, {"name": "b"}]);
        let table = [
            (text(""), "file is empty"),
            (text("# nothing\n"), "file is empty"),
            (text("# {}"), "file is empty"),
            (text("sesame"), "kubeconfig is not an object"),
            (text("[]"), "kubeconfig is not an object"),
            (
                text(
                    "users: sesame\ncurrent-context: x\ncontexts: [{name: x, context: {user: u, cluster: c}}]\nclusters: [{name: c}]",
                ),
                "kubeconfig.users is not an array",
            ),
            (text("a: 'sesame"), "neither YAML nor JSON"),
            (text("{\"token\": \"sesame\""), "neither YAML nor JSON"),
            (Kubeconfig::parse(b"\xff\xfea").unwrap_err(), "not UTF-8"),
            (
                Kubeconfig::parse(&vec![b' '; 10 << 20]).unwrap_err(),
                "larger than 1048576 bytes",
            ),
            (text(&"- \n".repeat(MAX_SEPARATORS)), "too many values"),
            (
                text(&format!("[{}]", ":,".repeat(MAX_SEPARATORS))),
                "too many values",
            ),
            (whole(json!([""].repeat(MAX_SEPARATORS))), "too many values"),
            (
                whole(json!({})),
                "current-context is not set (contexts: none)",
            ),
            (
                whole(json!({"contexts": contexts})),
                "current-context is not set (contexts: a, b)",
            ),
            (
                whole(json!({"contexts": contexts, "current-context": "c"})),
                "context \"c\" does not exist (contexts: a, b)",
            ),
            (
                whole(json!({"contexts": contexts, "current-context": "a"})),
                "context.cluster is missing",
            ),
            (cluster(json!({"server": ""})), "cluster.server is missing"),
            (
                cluster(json!({"server": "http://a"})),
                "invalid cluster.server",
            ),
            (
                cluster(json!({"server": ["sesame"]})),
                "cluster.server is not a string",
            ),
            (
                cluster(json!({"certificate-authority-data": ""})),
                "cluster.certificate-authority is missing",
            ),
            (
                cluster(json!({"certificate-authority-data": "sesame!"})),
                "cluster.certificate-authority-data is not base64",
            ),
            (
                cluster(json!({"insecure-skip-tls-verify": "sesame"})),
                "cluster.insecure-skip-tls-verify is not true or false",
            ),
            (
                cluster(json!({"tls-server-name": "a b"})),
                "tls-server-name: neither",
            ),
            (user(json!({})), "neither a token nor a client certificate"),
            (
                user(json!({"client-key-data": "Q0E="})),
                "user.client-certificate is missing",
            ),
            (
                user(json!({"client-certificate-data": "Q0E="})),
                "user.client-key is missing",
            ),
        ];
        for (error, expected) in table {
            let shown = format!("{error}");
            assert!(shown.contains(expected), "{shown} / {expected}");
            assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
        }
        let secret = Kubeconfig::parse(INSTALLED.as_bytes()).unwrap();
        assert!(!format!("{secret:?}").contains("sesame"));
    }
}
