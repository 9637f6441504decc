//! Parses the network configuration; reads and logs nothing. `Network` is what every verb
//! needs. `Settings` are msm-cni's own keys, parsed separately so that an error in them does
//! not fail a DEL.

use std::borrow::Cow;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use serde_json::value::RawValue;

use super::version::Version;
use crate::json::{self, Kind, Object};
use crate::kube::Server;
use crate::logging;
use crate::redirect::parameters::{PARAMETERS, Parameter, Setter};
use crate::redirect::{Backend, Redirect};
use crate::text::{excerpt, is_identifier};

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// In bytes, of the value of one of msm-cni's keys. Large enough for thousands of namespaces.
const LONGEST_VALUE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot parse {object}")]
    Decode { object: String, source: json::Error },
    #[error("{key} in the network configuration is {actual}, not {expected}")]
    Type {
        key: String,
        actual: &'static str,
        expected: &'static str,
    },
    #[error("{key} in the network configuration is longer than {LONGEST_VALUE} bytes")]
    TooLong { key: String },
    #[error("{key} is missing in the network configuration")]
    Missing { key: &'static str },
    /// The reason quotes the value, unless it may contain a password.
    #[error("invalid {key} in the network configuration: {reason}")]
    Value { key: String, reason: String },
    #[error(
        "cniVersion {version:?} in the network configuration is not supported (supported: {})",
        Version::list()
    )]
    Version { version: String },
}

/// The keys of the specification.
#[derive(Debug)]
pub struct Network<'a> {
    pub version: Version,
    pub prev_result: Option<&'a RawValue>,
    top: Section<'a>,
}

/// The keys of msm-cni.
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

/// The `cniVersion` of a configuration that may be malformed elsewhere. An error reply uses
/// it; `None` if it cannot be determined or is not supported.
pub fn version(stdin: &[u8]) -> Option<Version> {
    let text = stdin.utf8_chunks().next()?.valid();
    let mut version = None;
    let parsed = json::members(text.trim_start_matches('\u{feff}'), |key, value| {
        if key.eq_ignore_ascii_case("cniVersion") {
            version = Some(value);
        }
    });
    match version.filter(|raw| Kind::of(raw) != Kind::Null) {
        Some(raw) => Version::from_config(&json::string(raw)?),
        None => parsed.is_ok().then_some(Version::FIRST),
    }
}

impl<'a> Network<'a> {
    pub fn parse(stdin: &'a [u8]) -> Result<Self, Error> {
        let object = Object::parse(stdin).map_err(|source| Error::Decode {
            object: "the network configuration on standard input".into(),
            source,
        })?;
        let prev_result = object.get("prevResult");
        let top = Section {
            path: "",
            object: Some(object),
        };
        let name = top.string("name")?.ok_or(Error::Missing { key: "name" })?;
        if !is_identifier(&name) {
            return Err(Error::Value {
                key: "name".into(),
                reason: format!(
                    "{:?} must start with a letter or digit, and contain only letters, digits, dots, dashes and underscores",
                    excerpt(&name)
                ),
            });
        }
        let version = top.string("cniVersion")?.unwrap_or_default();
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
        let kubeconfig = kubernetes.string("kubeConfig")?.ok_or(Error::Missing {
            key: "kubernetes.kubeConfig",
        })?;
        Ok(Settings {
            log_level: self
                .top
                .keyword("logLevel", log_level)?
                .unwrap_or(LevelFilter::Info),
            kubeconfig: kubeconfig.into_owned().into(),
            server: kubernetes.keyword("kubernetesAPIRoot", Server::parse)?,
            exclude_namespaces: kubernetes.strings("excludeNamespaces")?,
            backend: kubernetes
                .keyword("interceptName", Backend::from_str)?
                .unwrap_or_default(),
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
            Err(json::Error::NotAnObject { .. }) => {
                Err(self.wrong_type(path, raw, Kind::Object.name()))
            }
            Err(source) => Err(Error::Decode {
                object: format!("{path} in the network configuration"),
                source,
            }),
        }
    }

    fn raw(&self, key: &str) -> Result<Option<&'a RawValue>, Error> {
        let object = self.object.as_ref();
        let raw = object.and_then(|object| object.get_any_case(key));
        match raw {
            Some(raw) if raw.get().len() > LONGEST_VALUE => Err(Error::TooLong {
                key: self.path_of(key),
            }),
            raw => Ok(raw),
        }
    }

    /// An empty string counts as absent: templates leave one where a value is not set.
    fn string(&self, key: &str) -> Result<Option<Cow<'a, str>>, Error> {
        let read =
            |raw| json::string(raw).ok_or_else(|| self.wrong_type(key, raw, Kind::String.name()));
        let string = self.raw(key)?.map(read).transpose()?;
        Ok(string.filter(|string| !string.is_empty()))
    }

    fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        let items = self.items(key)?.unwrap_or_default();
        let read = |(index, raw)| {
            let string = json::string(raw).map(Cow::into_owned);
            let key = || format!("{key}[{index}]");
            string.ok_or_else(|| self.wrong_type(&key(), raw, Kind::String.name()))
        };
        items.into_iter().enumerate().map(read).collect()
    }

    /// A string with a limited set of values.
    fn keyword<T, E: ToString>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        let value = parse(&text).map_err(|reason| self.invalid(key, &reason))?;
        Ok(Some(value))
    }

    /// A number, or a string that contains one.
    fn number<T, E: ToString>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        let Some(raw) = self.raw(key)? else {
            return Ok(None);
        };
        let text = scalar(raw).ok_or_else(|| self.wrong_type(key, raw, Kind::Number.name()))?;
        if text.is_empty() {
            return Ok(None);
        }
        let value = parse(&text).map_err(|reason| self.invalid(key, &reason))?;
        Ok(Some(value))
    }

    /// An array of numbers and strings.
    fn list<T, E: ToString>(
        &self,
        key: &str,
        parse: impl FnOnce(&[&str]) -> Result<T, E>,
    ) -> Result<Option<T>, Error> {
        let Some(items) = self.items(key)? else {
            return Ok(None);
        };
        let read = |(index, raw)| {
            let key = || format!("{key}[{index}]");
            scalar(raw).ok_or_else(|| self.wrong_type(&key(), raw, "a number or a string"))
        };
        let items: Vec<_> = items
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, Error>>()?;
        let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
        let value = parse(&items).map_err(|reason| self.invalid(key, &reason))?;
        Ok(Some(value))
    }

    fn items(&self, key: &str) -> Result<Option<Vec<&'a RawValue>>, Error> {
        let Some(raw) = self.raw(key)? else {
            return Ok(None);
        };
        let mut items = Vec::new();
        match json::items(raw, |item| items.push(item)) {
            Some(()) => Ok(Some(items)),
            None => Err(self.wrong_type(key, raw, Kind::Array.name())),
        }
    }

    fn redirect(&self) -> Result<Redirect, Error> {
        let mut redirect = Redirect::default();
        for Parameter { key, setter, .. } in &PARAMETERS {
            match setter {
                Setter::Number(set) => self.number(key, |text| set(&mut redirect, text))?,
                Setter::Keyword(set) => self.keyword(key, |text| set(&mut redirect, text))?,
                Setter::List(set) => self.list(key, |items| set(&mut redirect, items))?,
            };
        }
        Ok(redirect)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Does not quote the value: one of the wrong type may contain a secret.
    fn wrong_type(&self, key: &str, raw: &RawValue, expected: &'static str) -> Error {
        let actual = match Kind::of(raw) {
            Kind::String if json::string(raw).is_none() => "a string with an unpaired surrogate",
            kind => kind.name(),
        };
        Error::Type {
            key: self.path_of(key),
            actual,
            expected,
        }
    }

    fn invalid(&self, key: &str, reason: &impl ToString) -> Error {
        Error::Value {
            key: self.path_of(key),
            reason: reason.to_string(),
        }
    }
}

/// The content of a string, or the digits of a number.
fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    match Kind::of(raw) {
        Kind::Number => Some(Cow::Borrowed(raw.get())),
        _ => json::string(raw),
    }
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    logging::level(text).map_err(|reason| format!("{:?}: {reason}", excerpt(text)))
}

fn timeout(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|it| (1..=600).contains(it));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        format!(
            "{:?} is not a number of seconds from 1 to 600",
            excerpt(text)
        )
    })
}

impl Version {
    /// A configuration without a version has the first one.
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
    fn only_the_kubeconfig_is_required() {
        let settings = settings(r#""kubernetes":{"kubeConfig":"/k"}"#).unwrap();
        assert_eq!(settings.kubeconfig, PathBuf::from("/k"));
        assert_eq!(settings.redirect, Redirect::default());
        assert_eq!(settings.backend, Backend::Auto);
        assert_eq!(settings.lookup_timeout, Duration::from_secs(30));
        assert!(settings.exclude_namespaces.is_empty());
    }

    #[test]
    fn keys_are_case_insensitive() {
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
    fn invalid_value_is_an_error_that_names_the_key() {
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
    fn network_requires_a_name_and_a_supported_version() {
        for (text, sentence) in [
            (r#"{"cniVersion":"1.0.0"}"#, "name is missing"),
            (r#"{"name":null}"#, "name is missing"),
            (
                r#"{"name":"a b"}"#,
                "invalid name in the network configuration: \"a b\"",
            ),
            (
                r#"{"name":"a","cniVersion":"1.0"}"#,
                "cniVersion \"1.0\" in the network configuration is not supported",
            ),
            (
                r#"{"name":"a","cniVersion":1}"#,
                "cniVersion in the network configuration is a number, not a string",
            ),
            ("[]", "cannot parse the network configuration"),
            ("", "cannot parse the network configuration"),
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
    fn value_of_the_wrong_type_is_not_quoted() {
        for (keys, sentence) in [
            (
                r#""kubernetes":["sesame"]"#,
                "kubernetes in the network configuration is an array, not an object",
            ),
            (
                r#""kubernetes":{"kubeConfig":{"token":"sesame"}}"#,
                "kubernetes.kubeConfig in the network configuration is an object, not a string",
            ),
            (
                r#""kubernetes":{"kubeConfig":"sesame\ud800"}"#,
                "a string with an unpaired surrogate, not a string",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k","excludeNamespaces":["a",7]}"#,
                "kubernetes.excludeNamespaces[1] in the network configuration is a number",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":{"ports":[554,["sesame"]]}"#,
                "redirect.ports[1] in the network configuration is an array, not a number or a string",
            ),
            (
                r#""kubernetes":{"kubeConfig":"/k"},"redirect":"sesame""#,
                "redirect in the network configuration is a string, not an object",
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
    fn invalid_url_is_not_quoted() {
        for (url, reason) in [
            ("http://10.0.0.1", "must begin with https://"),
            ("https://user:sesame@10.0.0.1", "contains a user name"),
            ("https://10.0.0.1:sesame", "port is not a number"),
        ] {
            let keys = format!(r#""kubernetes":{{"kubeConfig":"/k","kubernetesAPIRoot":"{url}"}}"#);
            let error = settings(&keys).unwrap_err().to_string();
            let key = "invalid kubernetes.kubernetesAPIRoot in the network configuration";
            assert!(error.contains(key), "{url}: {error}");
            assert!(error.contains(reason), "{url}: {error}");
            assert!(!error.contains("sesame"), "{url}: {error}");
        }
    }

    #[test]
    fn values_are_bounded() {
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
    fn version_is_read_from_a_malformed_configuration() {
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
            let actual = version(stdin).map(Version::name);
            assert_eq!(actual, expected, "{}", String::from_utf8_lossy(stdin));
        }
    }
}
