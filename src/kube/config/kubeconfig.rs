//! A kubeconfig's text, YAML or JSON: what its current context says about the server and
//! about who we are, or a reason why it cannot be used. Pure; the files it names are read
//! by `access`. No error quotes a value that could be a secret.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::kube::config::yaml::{self, InvalidYaml};
use crate::kube::server::{Host, InvalidServer, Server};

/// Enough for hundreds of clusters; more is not a kubeconfig.
pub const MAX_SIZE: usize = 1 << 20;
/// As many that separate, mark or quote values have a few hundred clusters too. Each can
/// cost a parser a hundred times its size in memory.
const MAX_MARKS: usize = 1 << 16;

/// A kubeconfig's current context.
#[derive(Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `server`.
    pub server: Server,
    /// `tls-server-name`: what the server's certificate is issued to, and SNI.
    pub tls_server_name: Option<Host>,
    /// Whose certificates the server may show.
    pub trust: TlsVerify,
    /// `token` or `tokenFile`.
    pub token: Option<DataOrFile>,
    /// `client-certificate` and `client-key`.
    pub client: Option<ClientCertificate>,
}

/// Whose certificates the server may show.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsVerify {
    /// Those that this bundle vouches for.
    CaBundle(DataOrFile),
    /// Anybody's: `insecure-skip-tls-verify`.
    Skip,
}

/// A certificate that says who we are, and its key; both PEM.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, ours first.
    pub certificate: DataOrFile,
    /// The private key.
    pub key: DataOrFile,
}

/// Something that stands in the kubeconfig or in a file that it names.
#[derive(PartialEq, Eq)]
pub enum DataOrFile {
    /// The value itself.
    Inline(Vec<u8>),
    /// Relative to the kubeconfig's directory.
    File(PathBuf),
}

/// Secrets do not get into logs by way of `{:?}`.
impl fmt::Debug for DataOrFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKubeconfig {
    /// More than `MAX_SIZE`.
    #[error("it is larger than {} KiB, which no kubeconfig is", MAX_SIZE >> 10)]
    TooLarge,
    /// More than `MAX_MARKS`.
    #[error("it holds more values than the kubeconfig of hundreds of clusters")]
    TooManyValues,
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Binary, or UTF-16.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Neither YAML nor JSON.
    #[error("it is neither YAML nor JSON")]
    Syntax {
        /// Where, and what was wrong.
        #[from]
        source: InvalidYaml,
    },
    /// A field of another type.
    #[error("{field} is not {wanted}")]
    Type {
        /// As in `users.user.token`.
        field: String,
        /// As in `a text`.
        wanted: &'static str,
    },
    /// No `current-context`.
    #[error("it has no current-context (contexts: {})", listed(.contexts))]
    NoCurrentContext {
        /// Those it has.
        contexts: Vec<String>,
    },
    /// A name that leads nowhere.
    #[error("there is no {name:?} in its {list} (there: {})", listed(.known))]
    Dangling {
        /// `contexts`, `clusters` or `users`.
        list: &'static str,
        /// The name that is looked for.
        name: String,
        /// The names that are there.
        known: Vec<String>,
    },
    /// A field without which nothing goes.
    #[error("{field} is missing")]
    Missing {
        /// As in `cluster.server`.
        field: &'static str,
    },
    /// A field that asks for what we do not do.
    #[error(
        "{field} is not supported here; use a token, a tokenFile or a client certificate, and a direct connection"
    )]
    Unsupported {
        /// As in `user.exec`.
        field: String,
    },
    /// `cluster.server`.
    #[error("cluster.server is not a usable URL")]
    Server {
        /// Why.
        source: InvalidServer,
    },
    /// `cluster.tls-server-name`.
    #[error("cluster.tls-server-name is neither a DNS name nor an address")]
    TlsServerName,
    /// Both a CA and no verification.
    #[error("it has a certificate-authority and insecure-skip-tls-verify; drop one of them")]
    Contradiction,
    /// A `-data` field.
    #[error("{field} is not base64")]
    Base64 {
        /// As in `user.client-key-data`.
        field: String,
    },
    /// Nobody.
    #[error("its user has neither a token nor a client certificate")]
    NoCredentials,
}

/// Who a node is to the API server.
pub struct Credentials<'a> {
    /// Where the API server is.
    pub server: &'a Server,
    /// PEM bundle; `None` trusts anybody.
    pub authority: Option<&'a [u8]>,
    /// A service account's token.
    pub token: &'a str,
}

/// A kubeconfig of these credentials. Its one comment apart it is JSON, which YAML's readers
/// read as well, and which the plugin reads in a tenth of the time, at every pod start.
pub fn render(credentials: &Credentials) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let trust = match credentials.authority {
        Some(bundle) => format!(
            r#""certificate-authority-data": {}"#,
            quoted(&STANDARD.encode(bundle))
        ),
        None => r#""insecure-skip-tls-verify": true"#.to_owned(),
    };
    format!(
        r#"# Written by the installer of msm-cni, which replaces what is changed here.
{{
  "apiVersion": "v1",
  "kind": "Config",
  "clusters": [{{"name": "local", "cluster": {{
    "server": {},
    {trust}
  }}}}],
  "users": [{{"name": "msm-cni", "user": {{
    "token": {}
  }}}}],
  "contexts": [{{"name": "msm-cni", "context": {{"cluster": "local", "user": "msm-cni"}}}}],
  "current-context": "msm-cni"
}}
"#,
        quoted(&credentials.server.to_string()),
        quoted(credentials.token)
    )
}

impl Kubeconfig {
    /// Parses the text and follows its current context.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKubeconfig> {
        let root = document(bytes)?;
        let root = Fields::of(&root, "the kubeconfig")?;
        let context = current_context(&root)?;
        let cluster_name = context.text("cluster")?.ok_or(missing("context.cluster"))?;
        let user_name = context.text("user")?.ok_or(missing("context.user"))?;
        let cluster = named(&root, "clusters", "cluster", cluster_name)?;
        let user = named(&root, "users", "user", user_name)?;
        cluster.refuse(&["proxy-url"])?;
        user.refuse(&["exec", "auth-provider", "username", "password"])?;
        user.refuse(&["as", "as-uid", "as-groups", "as-user-extra"])?;

        let server = cluster.text("server")?.ok_or(missing("cluster.server"))?;
        let token = user.token()?;
        let client = user.client_certificate()?;
        if token.is_none() && client.is_none() {
            return Err(InvalidKubeconfig::NoCredentials);
        }
        Ok(Self {
            server: Server::parse(server).map_err(|source| InvalidKubeconfig::Server { source })?,
            tls_server_name: cluster
                .text("tls-server-name")?
                .map(Host::parse)
                .transpose()
                .map_err(|_| InvalidKubeconfig::TlsServerName)?,
            trust: cluster.trust()?,
            token,
            client,
        })
    }
}

fn document(bytes: &[u8]) -> Result<Value, InvalidKubeconfig> {
    if bytes.len() > MAX_SIZE {
        return Err(InvalidKubeconfig::TooLarge);
    }
    let marks = || bytes.iter().filter(|byte| is_mark(**byte)).count();
    if bytes.len() > MAX_MARKS && marks() > MAX_MARKS {
        return Err(InvalidKubeconfig::TooManyValues);
    }
    let text = str::from_utf8(bytes).map_err(|_| InvalidKubeconfig::NotText)?;
    let text = text.trim_start_matches('\u{feff}');
    // JSON is YAML but for a few escapes, and much faster to read as what it is.
    let json = behind_comments(text);
    match json.starts_with('{').then(|| serde_json::from_str(json)) {
        Some(Ok(value)) => Ok(value),
        _ => match yaml::parse(text)? {
            Value::Null => Err(InvalidKubeconfig::Empty),
            value => Ok(value),
        },
    }
}

/// The text from its first line on that is neither empty nor a comment of YAML's.
fn behind_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while rest.starts_with('#') {
        rest = rest
            .split_once('\n')
            .map_or("", |(_, behind)| behind.trim_start());
    }
    rest
}

/// Neither JSON nor YAML begins another value without one; base64 and paths have others.
fn is_mark(byte: u8) -> bool {
    let ordinary = matches!(byte, b'+' | b'/' | b'=' | b'.' | b'_');
    matches!(byte, b'\r' | b'\n') || (byte.is_ascii_punctuation() && !ordinary)
}

fn current_context<'a>(root: &Fields<'a>) -> Result<Fields<'a>, InvalidKubeconfig> {
    match root.text("current-context")? {
        Some(name) => named(root, "contexts", "context", name),
        None => Err(InvalidKubeconfig::NoCurrentContext {
            contexts: names(root.list("contexts")?),
        }),
    }
}

/// The entry `name` of one of the three lists of `{name, KIND: {…}}`.
fn named<'a>(
    root: &Fields<'a>,
    list: &'static str,
    kind: &'static str,
    name: &str,
) -> Result<Fields<'a>, InvalidKubeconfig> {
    let entries = root.list(list)?;
    let is_named = |entry: &&Value| entry.get("name").and_then(Value::as_str) == Some(name);
    match entries.iter().find(is_named).map(|entry| &entry[kind]) {
        Some(fields) => Fields::of(fields, kind),
        None => Err(InvalidKubeconfig::Dangling {
            list,
            name: name.to_owned(),
            known: names(entries),
        }),
    }
}

/// One mapping of the kubeconfig, and what errors call it.
struct Fields<'a> {
    values: &'a Value,
    name: &'static str,
}

impl<'a> Fields<'a> {
    /// An absent mapping is one without fields.
    fn of(values: &'a Value, name: &'static str) -> Result<Self, InvalidKubeconfig> {
        match values {
            Value::Null | Value::Object(_) => Ok(Self { values, name }),
            _ => Err(InvalidKubeconfig::Type {
                field: name.to_owned(),
                wanted: "a mapping",
            }),
        }
    }

    /// A text; an empty one counts as absent, as in client-go.
    fn text(&self, key: &str) -> Result<Option<&'a str>, InvalidKubeconfig> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.not(key, "a text")),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, InvalidKubeconfig> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.not(key, "true or false")),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Value], InvalidKubeconfig> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.not(key, "a list")),
        }
    }

    /// `KEY-data`, else the file `KEY`.
    fn material(&self, key: &str) -> Result<Option<DataOrFile>, InvalidKubeconfig> {
        let data_key = format!("{key}-data");
        let Some(data) = self.text(&data_key)? else {
            return Ok(self.text(key)?.map(|path| DataOrFile::File(path.into())));
        };
        // Written over several lines by some, which Go's decoder reads too.
        let mut compact = data.as_bytes().to_vec();
        compact.retain(|byte| !byte.is_ascii_whitespace());
        STANDARD
            .decode(compact)
            .map(|bytes| Some(DataOrFile::Inline(bytes)))
            .map_err(|_| InvalidKubeconfig::Base64 {
                field: self.path(&data_key),
            })
    }

    /// The file wins over the value, as in client-go: it is the one that gets renewed.
    fn token(&self) -> Result<Option<DataOrFile>, InvalidKubeconfig> {
        if let Some(path) = self.text("tokenFile")? {
            return Ok(Some(DataOrFile::File(path.into())));
        }
        let token = self.text("token")?;
        Ok(token.map(|token| DataOrFile::Inline(token.as_bytes().to_vec())))
    }

    fn client_certificate(&self) -> Result<Option<ClientCertificate>, InvalidKubeconfig> {
        match (
            self.material("client-certificate")?,
            self.material("client-key")?,
        ) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(ClientCertificate { certificate, key })),
            (None, Some(_)) => Err(missing("user.client-certificate")),
            (Some(_), None) => Err(missing("user.client-key")),
        }
    }

    fn trust(&self) -> Result<TlsVerify, InvalidKubeconfig> {
        let authority = self.material("certificate-authority")?;
        match (self.flag("insecure-skip-tls-verify")?, authority) {
            (true, Some(_)) => Err(InvalidKubeconfig::Contradiction),
            (true, None) => Ok(TlsVerify::Skip),
            (false, Some(authority)) => Ok(TlsVerify::CaBundle(authority)),
            (false, None) => Err(missing("cluster.certificate-authority")),
        }
    }

    fn refuse(&self, keys: &[&str]) -> Result<(), InvalidKubeconfig> {
        let is_set = |key: &&&str| match self.values.get(**key) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        match keys.iter().find(is_set) {
            None => Ok(()),
            Some(key) => Err(InvalidKubeconfig::Unsupported {
                field: self.path(key),
            }),
        }
    }

    fn not(&self, key: &str, wanted: &'static str) -> InvalidKubeconfig {
        InvalidKubeconfig::Type {
            field: self.path(key),
            wanted,
        }
    }

    fn path(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }
}

fn missing(field: &'static str) -> InvalidKubeconfig {
    InvalidKubeconfig::Missing { field }
}

fn names(entries: &[Value]) -> Vec<String> {
    let name = |entry: &Value| entry.get("name")?.as_str().map(str::to_owned);
    entries.iter().filter_map(name).take(10).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        for (url, authority) in [
            ("https://10.96.0.1", Some(&b"PEM"[..])),
            ("https://[fd00::1]:6443", None),
        ] {
            let server = Server::parse(url).unwrap();
            let text = render(&Credentials {
                server: &server,
                authority,
                token: "a.b\"\\c",
            });
            let config = Kubeconfig::parse(text.as_bytes()).unwrap();
            assert_eq!(config.server, server, "{text}");
            assert_eq!(config.token, Some(DataOrFile::Inline(b"a.b\"\\c".to_vec())));
            let trust = authority.map_or(TlsVerify::Skip, |bundle| {
                TlsVerify::CaBundle(DataOrFile::Inline(bundle.to_vec()))
            });
            assert_eq!(config.trust, trust, "{text}");
        }
    }
    use serde_json::json;

    /// As the earlier installer wrote it.
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

    fn inline(text: &str) -> DataOrFile {
        DataOrFile::Inline(text.as_bytes().to_vec())
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
    fn the_earlier_installers_file_is_read_as_yaml_and_as_json() {
        let expected = Kubeconfig {
            server: Server::parse("https://10.96.0.1").unwrap(),
            tls_server_name: None,
            trust: TlsVerify::CaBundle(inline("CA")),
            token: Some(inline("sesame")),
            client: None,
        };
        assert_eq!(Kubeconfig::parse(INSTALLED.as_bytes()).unwrap(), expected);
        let with_mark = format!("\u{feff}{INSTALLED}");
        assert_eq!(Kubeconfig::parse(with_mark.as_bytes()).unwrap(), expected);
        let json = yaml::parse(INSTALLED).unwrap();
        assert_eq!(parse(&json).unwrap(), expected);
        let commented = format!("# a\r\n\n  #b\n{json}");
        assert_eq!(Kubeconfig::parse(commented.as_bytes()).unwrap(), expected);
        let flow = "{clusters: [{name: c, cluster: {server: 'https://10.96.0.1', certificate-authority-data: Q0E=}}], users: [{name: u, user: {token: sesame}}], contexts: [{name: x, context: {cluster: c, user: u}}], current-context: x}";
        assert_eq!(Kubeconfig::parse(flow.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn data_beats_its_file_and_a_token_file_beats_the_token() {
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
        assert_eq!(config.trust, TlsVerify::CaBundle(inline("CA")));
        assert_eq!(
            config.tls_server_name,
            Some(Host::Name("api.example".to_owned()))
        );
        assert_eq!(config.token, Some(file("token")));
        let (certificate, key) = (inline("CA"), file("c.key"));
        assert_eq!(config.client, Some(ClientCertificate { certificate, key }));
    }

    #[test]
    fn verification_is_skipped_only_without_an_authority() {
        let insecure = json!({"insecure-skip-tls-verify": true});
        let error = with(insecure, Value::Null).unwrap_err();
        assert_eq!(error, InvalidKubeconfig::Contradiction);
        let config = with(
            json!({"insecure-skip-tls-verify": true, "certificate-authority-data": ""}),
            Value::Null,
        );
        assert_eq!(config.unwrap().trust, TlsVerify::Skip);
    }

    #[test]
    fn what_we_do_not_do_is_named() {
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
    fn what_is_wrong_is_said_without_secrets() {
        let user = |user| with(json!({}), user).unwrap_err();
        let cluster = |cluster| with(cluster, Value::Null).unwrap_err();
        let whole = |value| parse(&value).unwrap_err();
        let text = |text: &str| Kubeconfig::parse(text.as_bytes()).unwrap_err();
        let contexts = json!([{"name": "a"}, {"name": "b"}]);
        let table = [
            (text(""), "it is empty"),
            (text("# nothing\n"), "it is empty"),
            (text("# {}"), "it is empty"),
            (text("sesame"), "the kubeconfig is not a mapping"),
            (text("[]"), "the kubeconfig is not a mapping"),
            (
                text(
                    "users: sesame\ncurrent-context: x\ncontexts: [{name: x, context: {user: u, cluster: c}}]\nclusters: [{name: c}]",
                ),
                "the kubeconfig.users is not a list",
            ),
            (text("a: 'sesame"), "neither YAML nor JSON"),
            (text("{\"token\": \"sesame\""), "neither YAML nor JSON"),
            (Kubeconfig::parse(b"\xff\xfea").unwrap_err(), "not UTF-8"),
            (
                Kubeconfig::parse(&vec![b' '; 10 << 20]).unwrap_err(),
                "larger than 1024 KiB",
            ),
            (text(&"- \n".repeat(MAX_MARKS)), "holds more values"),
            (
                text(&format!("[{}]", ":,".repeat(MAX_MARKS))),
                "holds more values",
            ),
            (whole(json!([""].repeat(MAX_MARKS))), "holds more values"),
            (whole(json!({})), "no current-context (contexts: none)"),
            (
                whole(json!({"contexts": contexts})),
                "no current-context (contexts: a, b)",
            ),
            (
                whole(json!({"contexts": contexts, "current-context": "c"})),
                "no \"c\" in its contexts (there: a, b)",
            ),
            (
                whole(json!({"contexts": contexts, "current-context": "a"})),
                "context.cluster is missing",
            ),
            (cluster(json!({"server": ""})), "cluster.server is missing"),
            (
                cluster(json!({"server": "http://a"})),
                "cluster.server is not a usable URL",
            ),
            (
                cluster(json!({"server": ["sesame"]})),
                "cluster.server is not a text",
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
                "tls-server-name is neither",
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
