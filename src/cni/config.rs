//! The network configuration on standard input. Pure. `Network` is what every verb needs,
//! `Settings` are our own keys: what is wrong in them must not stop a DEL.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use serde_json::value::RawValue;

use crate::cni::version::Version;
use crate::json::{self, Kind, Object};
use crate::kube::{InvalidServer, Server};
use crate::logging;
use crate::redirect::{self, Backend, Redirect};
use crate::text::{excerpt, is_identifier};

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Of one of our keys, with all that is inside of it: room for thousands of namespaces.
const LONGEST_VALUE: usize = 256 << 10;
const MEND: &str = "set it right in the node's CNI configuration, usually in /etc/cni/net.d";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{what} cannot be read; {MEND}")]
    Decode {
        what: &'static str,
        source: json::Error,
    },
    #[error("{key} in the network configuration is {found}, where {wanted} is needed; {MEND}")]
    Type {
        key: String,
        found: &'static str,
        wanted: &'static str,
    },
    #[error("{key} in the network configuration is longer than {LONGEST_VALUE} bytes; {MEND}")]
    TooLong { key: String },
    #[error("{key} is missing in the network configuration; {MEND}")]
    Missing { key: &'static str },
    #[error(
        "{key} in the network configuration is {value:?}, which is not valid: {reason}; {MEND}"
    )]
    Value {
        key: String,
        value: String,
        reason: String,
    },
    /// Not quoted: it might hold a password.
    #[error("{key} in the network configuration is not a usable URL: {source}; {MEND}")]
    Server {
        key: &'static str,
        source: InvalidServer,
    },
    #[error(
        "the network configuration asks for CNI version {version:?}; this plugin speaks {}; {MEND}",
        Version::list()
    )]
    Version { version: String },
}

/// What every CNI plugin reads.
#[derive(Debug)]
pub struct Network<'a> {
    pub version: Version,
    pub prev_result: Option<&'a RawValue>,
    top: Section<'a>,
}

/// What is our own.
#[derive(Debug)]
pub struct Settings {
    pub log_level: LevelFilter,
    pub kubeconfig: PathBuf,
    /// `kubernetesAPIRoot`: overrides the kubeconfig's server.
    pub server: Option<Server>,
    pub exclude_namespaces: Vec<String>,
    pub backend: Backend,
    pub lookup_timeout: Duration,
    pub redirect: Redirect,
}

/// The version that a configuration asks for, as far as one can be made out, be the rest
/// of it broken: an error about anything else is answered in it.
pub fn version(stdin: &[u8]) -> Option<Version> {
    let text = stdin.utf8_chunks().next()?.valid();
    let mut asked_for = None;
    let whole = json::members(text.trim_start_matches('\u{feff}'), |key, value| {
        if key.eq_ignore_ascii_case("cniVersion") {
            asked_for = Some(value);
        }
    });
    match asked_for.filter(|raw| Kind::of(raw) != Kind::Null) {
        Some(raw) => Version::from_config(&json::string(raw)?),
        None => whole.is_ok().then_some(Version::FIRST),
    }
}

impl<'a> Network<'a> {
    pub fn parse(stdin: &'a [u8]) -> Result<Self, Error> {
        let object = Object::parse(stdin).map_err(|source| Error::Decode {
            what: "the network configuration on standard input",
            source,
        })?;
        let prev_result = object.get("prevResult");
        let top = Section {
            path: "",
            object: Some(object),
        };
        let name = top.text("name")?.ok_or(Error::Missing { key: "name" })?;
        if !is_identifier(&name) {
            let reason = "a network name begins with a letter or digit and goes on with letters, digits, dots, dashes and underscores";
            return Err(top.invalid("name", &name, reason));
        }
        let version = top.text("cniVersion")?.unwrap_or_default();
        let version = Version::from_config(&version).ok_or_else(|| Error::Version {
            version: excerpt(&version),
        })?;
        Ok(Self {
            version,
            prev_result,
            top,
        })
    }

    pub fn settings(&self) -> Result<Settings, Error> {
        let kubernetes = self.top.section("kubernetes")?;
        let redirect = self.top.section("redirect")?;
        let kubeconfig = kubernetes.text("kubeConfig")?.ok_or(Error::Missing {
            key: "kubernetes.kubeConfig",
        })?;
        Ok(Settings {
            log_level: self
                .top
                .word("logLevel", logging::level)?
                .unwrap_or(LevelFilter::Info),
            kubeconfig: kubeconfig.into_owned().into(),
            server: kubernetes.server()?,
            exclude_namespaces: kubernetes.texts("excludeNamespaces")?,
            backend: kubernetes.word("interceptName", parse)?.unwrap_or_default(),
            lookup_timeout: kubernetes
                .number("podLookupTimeoutSeconds", timeout)?
                .unwrap_or(LOOKUP_TIMEOUT),
            redirect: redirect.redirect()?,
        })
    }
}

/// One object of the configuration; all its keys are optional.
#[derive(Debug)]
struct Section<'a> {
    path: &'static str,
    object: Option<Object<'a>>,
}

impl<'a> Section<'a> {
    fn section(&self, path: &'static str) -> Result<Self, Error> {
        let Some(raw) = self.raw(path)? else {
            return Ok(Self { path, object: None });
        };
        match Object::from_raw(raw) {
            Ok(object) => Ok(Self {
                path,
                object: Some(object),
            }),
            Err(json::Error::NotAnObject { .. }) => Err(self.wrong(path, raw, "an object")),
            Err(source) => Err(Error::Decode { what: path, source }),
        }
    }

    fn raw(&self, key: &str) -> Result<Option<&'a RawValue>, Error> {
        let object = self.object.as_ref();
        let raw = object.and_then(|object| object.get_any_case(key));
        match raw {
            Some(raw) if raw.get().len() > LONGEST_VALUE => {
                let key = self.name_of(key);
                Err(Error::TooLong { key })
            }
            raw => Ok(raw),
        }
    }

    /// A text; an empty one counts as absent, as templates leave it.
    fn text(&self, key: &str) -> Result<Option<Cow<'a, str>>, Error> {
        let read = |raw| json::string(raw).ok_or_else(|| self.wrong(key, raw, "a text"));
        let text = self.raw(key)?.map(read).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, Error> {
        let items = self.items(key)?.unwrap_or_default();
        let read = |(index, raw)| {
            let text = json::string(raw).map(Cow::into_owned);
            text.ok_or_else(|| self.wrong(&format!("{key}[{index}]"), raw, "a text"))
        };
        items.into_iter().enumerate().map(read).collect()
    }

    /// A text that is one of a few words.
    fn word<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let read =
            |text: Cow<str>| parse(&text).map_err(|reason| self.invalid(key, &text, &reason));
        self.text(key)?.map(read).transpose()
    }

    /// A number, which is as good as its text: both are parsed by the same strict parser.
    fn number<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(key)? else {
            return Ok(None);
        };
        let text = scalar(raw).ok_or_else(|| self.wrong(key, raw, "a number"))?;
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = |reason: String| self.invalid(key, &text, &reason);
        parse(&text).map(Some).map_err(invalid)
    }

    fn list<T>(&self, key: &str) -> Result<Option<Vec<T>>, Error>
    where
        T: FromStr<Err: ToString> + PartialEq,
    {
        let Some(items) = self.items(key)? else {
            return Ok(None);
        };
        let mut list = Vec::new();
        for (index, raw) in items.into_iter().enumerate() {
            let wrong = || self.wrong(&format!("{key}[{index}]"), raw, "a number or a text");
            let text = scalar(raw).ok_or_else(wrong)?;
            let invalid = |reason: String| self.invalid(key, &text, &reason);
            let item = parse(&text).map_err(invalid)?;
            redirect::add(&mut list, item).map_err(|reason| invalid(reason.to_string()))?;
        }
        Ok(Some(list))
    }

    fn items(&self, key: &str) -> Result<Option<Vec<&'a RawValue>>, Error> {
        let Some(raw) = self.raw(key)? else {
            return Ok(None);
        };
        let mut items = Vec::new();
        match json::items(raw, |item| items.push(item)) {
            Some(()) => Ok(Some(items)),
            None => Err(self.wrong(key, raw, "a list")),
        }
    }

    fn server(&self) -> Result<Option<Server>, Error> {
        let invalid = |source| Error::Server {
            key: "kubernetes.kubernetesAPIRoot",
            source,
        };
        let url = self.text("kubernetesAPIRoot")?;
        url.map(|url| Server::parse(&url).map_err(invalid))
            .transpose()
    }

    fn redirect(&self) -> Result<Redirect, Error> {
        let default = Redirect::default();
        let ports = self.list("ports")?.unwrap_or(default.ports);
        if ports.is_empty() {
            let reason = "a redirect needs at least one port; to redirect nothing, leave the pod's label away";
            return Err(self.invalid("ports", "[]", reason));
        }
        Ok(Redirect {
            ports,
            proxy_port: self
                .number("proxyPort", parse)?
                .unwrap_or(default.proxy_port),
            proxy_uid: self.number("proxyUID", parse)?.unwrap_or(default.proxy_uid),
            exclude_cidrs: self.list("excludeCIDRs")?.unwrap_or(default.exclude_cidrs),
            ipv6: self.word("ipv6", parse)?.unwrap_or(default.ipv6),
            inbound_ports: self.list("inboundPorts")?.unwrap_or(default.inbound_ports),
        })
    }

    fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The value is not shown: what stands in the wrong place may be a secret.
    fn wrong(&self, key: &str, raw: &RawValue, wanted: &'static str) -> Error {
        let found = match Kind::of(raw) {
            Kind::String if json::string(raw).is_none() => "a string with an unpaired surrogate",
            kind => kind.name(),
        };
        Error::Type {
            key: self.name_of(key),
            found,
            wanted,
        }
    }

    fn invalid(&self, key: &str, value: &str, reason: &str) -> Error {
        Error::Value {
            key: self.name_of(key),
            value: excerpt(value),
            reason: reason.to_owned(),
        }
    }
}

/// What a text says, or how a number is written.
fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    match Kind::of(raw) {
        Kind::Number => Some(Cow::Borrowed(raw.get())),
        _ => json::string(raw),
    }
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|reason: T::Err| reason.to_string())
}

fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (1..=600).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "it is not a number of seconds from 1 to 600".into())
}

impl Version {
    /// The version of a configuration; one without any is of the first.
    fn from_config(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::FIRST),
            text => Self::parse(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keys: &str) -> Result<Settings, Error> {
        let text = format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"msm-cni",{keys}}}"#);
        Network::parse(text.as_bytes())?.settings()
    }

    #[test]
    fn only_the_kubeconfig_is_needed() {
        let settings = settings(r#""kubernetes":{"kubeConfig":"/k"}"#).unwrap();
        assert_eq!(settings.kubeconfig, PathBuf::from("/k"));
        assert_eq!(settings.redirect, Redirect::default());
        assert_eq!(settings.backend, Backend::Auto);
        assert_eq!(settings.lookup_timeout, Duration::from_secs(30));
        assert!(settings.exclude_namespaces.is_empty());
    }

    #[test]
    fn keys_are_matched_without_regard_to_case() {
        let settings = settings(
            r#""LOGLEVEL":"debug","Kubernetes":{"kubeconfig":"/k","EXCLUDENAMESPACES":["kube-system"],"interceptname":"iptables"},"REDIRECT":{"PORTS":[554,322,554],"proxyuid":7}"#,
        )
        .unwrap();
        assert_eq!(settings.log_level, LevelFilter::Debug);
        assert_eq!(settings.backend, Backend::Iptables);
        assert_eq!(settings.exclude_namespaces, ["kube-system"]);
        assert_eq!(settings.redirect.ports.len(), 2);
        assert_eq!(settings.redirect.proxy_uid.get(), 7);
    }

    #[test]
    fn an_unknown_value_is_an_error_that_names_it() {
        for (keys, key) in [
            (r#""kubernetes":{}"#, "kubernetes.kubeConfig"),
            (
                r#""kubernetes":{"kubeConfig":"/k","interceptName":"ipvs"}"#,
                "kubernetes.interceptName",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k","podLookupTimeoutSeconds":0}"#,
                "kubernetes.podLookupTimeoutSeconds",
            ),
            (r#""kubernetes":{"kubeConfig":7}"#, "kubernetes.kubeConfig"),
            (r#""kubernetes":[]"#, "kubernetes"),
            (
                r#""logLevel":"loud","kubernetes":{"kubeConfig":"/k"}"#,
                "logLevel",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ports":[0]}"#,
                "redirect.ports",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ports":[]}"#,
                "redirect.ports",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ports":554}"#,
                "redirect.ports",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"proxyPort":8554.5}"#,
                "redirect.proxyPort",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"proxyUID":-1}"#,
                "redirect.proxyUID",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"excludeCIDRs":["10.0.0.0/99"]}"#,
                "redirect.excludeCIDRs",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ipv6":"allow"}"#,
                "redirect.ipv6",
            ),
        ] {
            let error = settings(keys).unwrap_err().to_string();
            assert!(error.contains(key), "{keys}: {error}");
        }
    }

    #[test]
    fn the_network_needs_a_name_and_a_known_version() {
        for (text, sentence) in [
            (r#"{"cniVersion":"1.0.0"}"#, "name is missing"),
            (r#"{"name":null}"#, "name is missing"),
            (
                r#"{"name":"a b"}"#,
                "name in the network configuration is \"a b\"",
            ),
            (
                r#"{"name":"a","cniVersion":"1.0"}"#,
                "asks for CNI version \"1.0\"",
            ),
            (
                r#"{"name":"a","cniVersion":1}"#,
                "cniVersion in the network configuration is a number, where a text is needed",
            ),
            ("[]", "cannot be read"),
            ("", "cannot be read"),
        ] {
            let error = Network::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
        assert_eq!(
            Network::parse(br#"{"name":"a"}"#).unwrap().version,
            Version::FIRST
        );
    }

    #[test]
    fn a_wrong_type_is_told_without_the_value() {
        for (keys, sentence) in [
            (
                r#""kubernetes":["sesame"]"#,
                "kubernetes in the network configuration is an array, where an object is needed",
            ),
            (
                r#""kubernetes":{"kubeConfig":{"token":"sesame"}}"#,
                "kubernetes.kubeConfig in the network configuration is an object, where a text is needed",
            ),
            (
                r#""kubernetes":{"kubeConfig":"sesame\ud800"}"#,
                "a string with an unpaired surrogate, where a text is needed",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k","excludeNamespaces":["a",7]}"#,
                "kubernetes.excludeNamespaces[1] in the network configuration is a number",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ports":[554,["sesame"]]}"#,
                "redirect.ports[1] in the network configuration is an array, where a number or a text",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":"sesame""#,
                "redirect in the network configuration is a string, where an object is needed",
            ),
        ] {
            let error = settings(keys).unwrap_err();
            assert!(matches!(error, Error::Type { .. }), "{keys}: {error}");
            let error = error.to_string();
            assert!(error.contains(sentence), "{keys}: {error}");
            assert!(!error.contains("sesame"), "{keys}: {error}");
        }
    }

    #[test]
    fn an_unusable_url_is_told_without_the_value() {
        for (url, reason) in [
            ("http://10.0.0.1", "does not begin with https://"),
            ("https://user:sesame@10.0.0.1", "holds a user name"),
            ("https://10.0.0.1:sesame", "port is not a number"),
        ] {
            let keys = format!(r#""kubernetes":{{"kubeConfig":"/k","kubernetesAPIRoot":"{url}"}}"#);
            let error = settings(&keys).unwrap_err().to_string();
            let key = "kubernetes.kubernetesAPIRoot in the network configuration is";
            assert!(error.contains(key), "{url}: {error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("sesame"), "{url}: {error}");
        }
    }

    #[test]
    fn what_is_read_is_bounded() {
        let long = "1,".repeat(LONGEST_VALUE / 2) + "1";
        let keys = format!(r#""kubernetes":{{"kubeConfig":"/k"}},"redirect":{{"ports":[{long}]}}"#);
        let error = settings(&keys).unwrap_err().to_string();
        assert!(
            error.contains("redirect in the network configuration is longer"),
            "{error}"
        );
        let long = "a".repeat(LONGEST_VALUE);
        let error = settings(&format!(
            r#""kubernetes":{{"kubeConfig":"/k","interceptName":"{long}"}}"#
        ));
        assert!(error.unwrap_err().to_string().len() < 1000);
    }

    #[test]
    fn the_version_is_made_out_from_what_can_be_read() {
        for (stdin, expected) in [
            (&br#"{"cniVersion":"0.4.0"}"#[..], Some("0.4.0")),
            (
                br#"{"CNIVersion":"0.3.0","cniversion":"0.4.0""#,
                Some("0.4.0"),
            ),
            (b"\xef\xbb\xbf{\"cniVersion\":\"0.4.0\"}", Some("0.4.0")),
            (
                b"{\"cniVersion\":\"0.4.0\",\"name\":\"\xff\"}",
                Some("0.4.0"),
            ),
            (br#"{"cniVersion":"0.4.0","name":{{"#, Some("0.4.0")),
            (b"{}", Some("0.1.0")),
            (br#"{"cniVersion":""}"#, Some("0.1.0")),
            (br#"{"cniVersion":"9.9.9"}"#, None),
            (br#"{"cniVersion":7}"#, None),
            (br#"{"cniVersion":"0.4.0"#, None),
            (b"{\"name\":", None),
            (b"[]", None),
            (b"", None),
            (b"\xff", None),
        ] {
            let found = version(stdin).map(Version::name);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(stdin));
        }
    }
}
