//! Looks up settings: a flag overrides its environment variable, which overrides the default.
//! An empty variable counts as unset. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::kube;
use crate::process::Vars;

/// One setting: `--flag`, or the variable of the same name in upper snake case.
pub struct Setting {
    pub flag: &'static str,
    /// In the help; `BOOL` if the flag may be given without a value.
    pub value_name: &'static str,
    /// Empty: none.
    pub default: &'static str,
    pub help: &'static str,
}

impl Setting {
    pub const fn new(
        flag: &'static str,
        value_name: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            flag,
            value_name,
            default,
            help,
        }
    }
}

/// Values by flag.
pub type Flags = BTreeMap<&'static str, String>;

/// The command line and the environment.
pub struct Inputs<'a> {
    pub flags: Flags,
    pub vars: &'a Vars,
}

/// A value and its origin.
pub struct Value {
    /// The flag or variable.
    pub source: String,
    pub text: String,
}

/// Why a setting cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid value {value:?} for {setting}: {reason}")]
    Invalid {
        /// The flag or variable.
        setting: String,
        value: String,
        reason: String,
    },
    #[error("{variable} is not set; run the installer in a pod, where the kubelet sets it")]
    Missing { variable: &'static str },
    #[error("{variable} is not UTF-8: {value:?}")]
    NotUtf8 { variable: String, value: OsString },
    #[error(
        "invalid API server address KUBERNETES_SERVICE_HOST={host:?} KUBERNETES_SERVICE_PORT={port:?}"
    )]
    ApiServer {
        host: String,
        port: String,
        source: kube::InvalidServer,
    },
}

impl Value {
    pub fn parsed<T>(&self, parse: fn(&str) -> Result<T, String>) -> Result<T, Error> {
        parse(&self.text).map_err(|reason| Error::Invalid {
            setting: self.source.clone(),
            value: self.text.clone(),
            reason,
        })
    }

    /// `None` if the value is empty.
    pub fn parsed_unless_empty<T>(
        &self,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        if self.text.is_empty() {
            return Ok(None);
        }
        self.parsed(parse).map(Some)
    }
}

impl Inputs<'_> {
    /// The value of a setting, with its default.
    pub fn value(&self, setting: &Setting) -> Result<Value, Error> {
        if let Some(value) = self.flag(setting) {
            return Ok(value);
        }
        let name = setting.flag.to_ascii_uppercase().replace('-', "_");
        let text = self.variable(&name)?;
        Ok(Value {
            text: text.unwrap_or_else(|| setting.default.to_owned()),
            source: name,
        })
    }

    pub fn parsed<T>(
        &self,
        setting: &Setting,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        self.value(setting)?.parsed(parse)
    }

    /// The value of a setting that has no variable.
    pub fn flag_only(&self, setting: &Setting) -> Value {
        self.flag(setting).unwrap_or_else(|| Value {
            source: format!("--{}", setting.flag),
            text: setting.default.to_owned(),
        })
    }

    pub fn variable(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.vars.get(name) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| Error::NotUtf8 {
            variable: name.to_owned(),
            value: value.to_owned(),
        })?;
        Ok(Some(text.to_owned()))
    }

    pub fn required(&self, variable: &'static str) -> Result<String, Error> {
        self.variable(variable)?.ok_or(Error::Missing { variable })
    }

    fn flag(&self, setting: &Setting) -> Option<Value> {
        let text = self.flags.get(setting.flag)?;
        Some(Value {
            source: format!("--{}", setting.flag),
            text: text.clone(),
        })
    }
}
