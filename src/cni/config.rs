//! The network configuration on standard input. Pure. `Network` is what every verb needs,
//! `Settings` are our own keys: what is wrong in them must not stop a DEL.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use log::LevelFilter;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::request::{excerpt, is_identifier};
use super::version::Version;
use crate::json::{self, Object};
use crate::logging;
use crate::redirect::{Backend, Redirect};

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);
/// Lists become rules of one transaction, which has to fit a netlink socket's buffer; a
/// longer one is a mistake.
pub const LONGEST_LIST: usize = 64;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the network configuration on standard input cannot be read")]
    Decode { source: json::Error },
    #[error("{key} in the network configuration has the wrong type: {value}")]
    Type {
        key: String,
        value: String,
        source: serde_json::Error,
    },
    #[error("{key} is missing in the network configuration")]
    Missing { key: &'static str },
    #[error("{key} in the network configuration is {value:?}, which is not valid: {reason}")]
    Value {
        key: String,
        value: String,
        reason: String,
    },
    #[error(
        "the configuration asks for CNI version {version:?}; this plugin speaks {}",
        Version::list()
    )]
    Version { version: String },
}

/// What every CNI plugin reads.
#[derive(Debug)]
pub struct Network<'a> {
    pub version: Version,
    pub prev_result: Option<&'a RawValue>,
    object: Object<'a>,
}

/// What is our own.
#[derive(Debug)]
pub struct Settings {
    pub log_level: LevelFilter,
    pub kubeconfig: PathBuf,
    /// `kubernetesAPIRoot`: overrides the kubeconfig's server.
    pub server: Option<String>,
    pub exclude_namespaces: Vec<String>,
    pub backend: Backend,
    pub lookup_timeout: Duration,
    pub redirect: Redirect,
}

/// The version that a configuration asks for, as far as one can be made out: an error
/// about anything else is answered in it.
pub fn version(stdin: &[u8]) -> Option<Version> {
    Version::from_config(&Object::parse(stdin).ok()?).ok()
}

impl<'a> Network<'a> {
    pub fn parse(stdin: &'a [u8]) -> Result<Self, Error> {
        let object = Object::parse(stdin).map_err(|source| Error::Decode { source })?;
        let name: Option<String> = typed(object.get_any_case("name"), "name")?;
        match name.as_deref() {
            None | Some("") => return Err(Error::Missing { key: "name" }),
            Some(name) if !is_identifier(name) => {
                let reason = "a network name begins with a letter or digit and goes on with letters, digits, dots, dashes and underscores".to_owned();
                return Err(Error::Value {
                    key: "name".into(),
                    value: excerpt(name),
                    reason,
                });
            }
            Some(_) => {}
        }
        let version = Version::from_config(&object)?;
        Ok(Self {
            version,
            prev_result: object.get("prevResult"),
            object,
        })
    }

    pub fn settings(&self) -> Result<Settings, Error> {
        let section = |key: &'static str| Section::of(&self.object, key);
        let top = Section {
            path: "",
            object: Some(self.object.clone()),
        };
        let kubernetes = section("kubernetes")?;
        let redirect = section("redirect")?;
        let kubeconfig: String = kubernetes.text("kubeConfig")?.ok_or(Error::Missing {
            key: "kubernetes.kubeConfig",
        })?;
        Ok(Settings {
            log_level: top
                .value("logLevel", logging::level)?
                .unwrap_or(LevelFilter::Info),
            kubeconfig: kubeconfig.into(),
            server: kubernetes.text("kubernetesAPIRoot")?,
            exclude_namespaces: kubernetes.typed("excludeNamespaces")?.unwrap_or_default(),
            backend: kubernetes
                .value("interceptName", parse)?
                .unwrap_or_default(),
            lookup_timeout: kubernetes
                .value("podLookupTimeoutSeconds", timeout)?
                .unwrap_or(LOOKUP_TIMEOUT),
            redirect: redirect.redirect()?,
        })
    }
}

/// One object of the configuration; all its keys are optional.
struct Section<'a> {
    path: &'static str,
    object: Option<Object<'a>>,
}

impl<'a> Section<'a> {
    fn of(parent: &Object<'a>, path: &'static str) -> Result<Self, Error> {
        let object = parent
            .get_any_case(path)
            .map(|raw| typed(Some(raw), path))
            .transpose()?
            .flatten();
        Ok(Self { path, object })
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn typed<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, Error> {
        typed(
            self.object
                .as_ref()
                .and_then(|object| object.get_any_case(key)),
            &self.key(key),
        )
    }

    /// A text; an empty one counts as absent, as templates leave it.
    fn text(&self, key: &str) -> Result<Option<String>, Error> {
        Ok(self.typed::<String>(key)?.filter(|text| !text.is_empty()))
    }

    /// A text or number, parsed strictly.
    fn value<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some(scalar) = self.typed::<Scalar>(key)? else {
            return Ok(None);
        };
        let text = scalar.text();
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = |reason| Error::Value {
            key: self.key(key),
            value: excerpt(&text),
            reason,
        };
        parse(&text).map(Some).map_err(invalid)
    }

    fn list<T>(&self, key: &str) -> Result<Option<Vec<T>>, Error>
    where
        T: FromStr<Err: ToString> + PartialEq,
    {
        let Some(items) = self.typed::<Vec<Scalar>>(key)? else {
            return Ok(None);
        };
        let mut list = Vec::with_capacity(items.len());
        for text in items.iter().map(Scalar::text) {
            let invalid = |reason| Error::Value {
                key: self.key(key),
                value: excerpt(&text),
                reason,
            };
            let item = parse(&text).map_err(invalid)?;
            if !list.contains(&item) {
                list.push(item);
            }
            if list.len() > LONGEST_LIST {
                return Err(invalid(format!("the list is longer than {LONGEST_LIST}")));
            }
        }
        Ok(Some(list))
    }

    fn redirect(&self) -> Result<Redirect, Error> {
        let default = Redirect::default();
        let ports = self.list("ports")?.unwrap_or(default.ports);
        if ports.is_empty() {
            let reason = "a redirect needs at least one port; to redirect nothing, leave the pod's label away".to_owned();
            return Err(Error::Value {
                key: self.key("ports"),
                value: "[]".into(),
                reason,
            });
        }
        Ok(Redirect {
            ports,
            proxy_port: self
                .value("proxyPort", parse)?
                .unwrap_or(default.proxy_port),
            proxy_uid: self.value("proxyUID", parse)?.unwrap_or(default.proxy_uid),
            exclude_cidrs: self.list("excludeCIDRs")?.unwrap_or(default.exclude_cidrs),
            ipv6: self.value("ipv6", parse)?.unwrap_or(default.ipv6),
            inbound_ports: self.list("inboundPorts")?.unwrap_or(default.inbound_ports),
        })
    }
}

/// A number is as good as its text: both are parsed by the same strict parser.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(serde_json::Number),
}

impl Scalar {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
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

fn typed<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, key: &str) -> Result<Option<T>, Error> {
    let Some(raw) = raw else { return Ok(None) };
    let wrong = |source| Error::Type {
        key: key.to_owned(),
        value: excerpt(raw.get()),
        source,
    };
    serde_json::from_str(raw.get()).map(Some).map_err(wrong)
}

impl Version {
    /// The version of a configuration; one without any is of the first.
    fn from_config(object: &Object) -> Result<Self, Error> {
        match typed::<String>(object.get_any_case("cniVersion"), "cniVersion")?.as_deref() {
            None | Some("") => Ok(Self::FIRST),
            Some(text) => Self::parse(text).ok_or_else(|| Error::Version {
                version: excerpt(text),
            }),
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
                "cniVersion in the network configuration has the wrong type",
            ),
            ("[]", "cannot be read"),
            ("", "cannot be read"),
            ("\u{feff}{}", "cannot be read"),
        ] {
            let error = Network::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(sentence), "{text}: {error}");
        }
        assert_eq!(
            Network::parse(br#"{"name":"a"}"#).unwrap().version,
            Version::FIRST
        );
    }
}
