//! Flags and environment: a flag goes before its variable, a variable before the default.
//! An empty variable is unset. Pure.

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use crate::flags;
use crate::kube;
use crate::names::{self, INSTALLER_APPLET};
use crate::process::Vars;

/// One setting: `--flag`, or the variable of the same name in upper snake case.
pub struct Setting {
    flag: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
}

const fn setting(
    flag: &'static str,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        flag,
        value_name,
        default,
        help,
    }
}

pub const CNI_NET_DIR: Setting = setting(
    "cni-net-dir",
    "DIR",
    "/etc/cni/net.d",
    "The runtime's configuration directory as the host names it",
);
pub const MOUNTED_CNI_NET_DIR: Setting = setting(
    "mounted-cni-net-dir",
    "DIR",
    "/host/etc/cni/net.d",
    "Where that directory is mounted here",
);
pub const CNI_CONF_NAME: Setting = setting(
    "cni-conf-name",
    "FILE",
    "",
    "The configuration to add the plugin to, or the stand-alone file to write [default: the first valid file; YYY-msm-cni.conf]",
);
pub const CHAINED: Setting = setting(
    "chained-cni-plugin",
    "BOOL",
    "true",
    "Add the plugin to the node's configuration; false writes a file of its own",
);
pub const TEMPLATE: Setting = setting(
    "cni-network-config",
    "JSON",
    "",
    "The plugin's configuration, with placeholders [default: built in]",
);
pub const TEMPLATE_FILE: Setting = setting(
    "cni-network-config-file",
    "FILE",
    "",
    "The same as a file, which goes before the text",
);
pub const LOG_LEVEL: Setting = setting(
    "log-level",
    "LEVEL",
    "info",
    "trace, debug, info, warn or error: of the plugin, and of the installer",
);
pub const LOG_TYPE: Setting = setting("log-type", "TYPE", "text", "text or json");
pub const KUBECONFIG_NAME: Setting = setting(
    "kubecfg-file-name",
    "FILE",
    names::KUBECONFIG_FILE,
    "The plugin's kubeconfig, in the configuration directory",
);
pub const KUBECONFIG_MODE: Setting = setting(
    "kubeconfig-mode",
    "OCTAL",
    "0600",
    "The kubeconfig's mode; it holds a token, so others may not read it",
);
pub const KUBE_CA_FILE: Setting = setting(
    "kube-ca-file",
    "FILE",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "The API server's certificate authority",
);
pub const SKIP_TLS_VERIFY: Setting = setting(
    "skip-tls-verify",
    "BOOL",
    "false",
    "ServerVerification any API server's certificate",
);
pub const UPDATE: Setting = setting(
    "update-cni-binaries",
    "BOOL",
    "true",
    "Replace executables that are there; false installs only missing ones",
);
pub const SKIP: Setting = setting(
    "skip-cni-binaries",
    "NAMES",
    "",
    "Executables that are not installed, separated by commas or spaces",
);
pub const CLEANUP_ON_EXIT: Setting = setting(
    "cleanup-on-exit",
    "WHEN",
    "auto",
    "Whether what was installed goes at the end: always, never, or auto: when the DaemonSet is gone",
);
pub const CLEANUP_BINARIES: Setting = setting(
    "cleanup-binaries",
    "BOOL",
    "false",
    "Then remove the executable too, which stays otherwise",
);
pub const HEALTH_ADDRESS: Setting = setting(
    "health-address",
    "ADDRESS",
    ":8000",
    "Where /healthz and /readyz are served: PORT or :PORT on all addresses, or ADDRESS:PORT",
);
pub const ROOT: Setting = setting(
    "root",
    "DIR",
    "/",
    "Put in front of every path that is read or written; for tests",
);

const SETTINGS: [Setting; 18] = [
    CNI_NET_DIR,
    MOUNTED_CNI_NET_DIR,
    CNI_CONF_NAME,
    CHAINED,
    TEMPLATE,
    TEMPLATE_FILE,
    LOG_LEVEL,
    LOG_TYPE,
    KUBECONFIG_NAME,
    KUBECONFIG_MODE,
    KUBE_CA_FILE,
    SKIP_TLS_VERIFY,
    UPDATE,
    SKIP,
    CLEANUP_ON_EXIT,
    CLEANUP_BINARIES,
    HEALTH_ADDRESS,
    ROOT,
];

/// A setting that says nothing we can do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{setting} is {value:?}, which is not valid: {reason}")]
    Invalid {
        /// The flag or variable.
        setting: String,
        value: String,
        reason: String,
    },
    #[error("{variable} is not set; in a cluster, the kubelet sets it for every container")]
    Missing { variable: &'static str },
    #[error("{variable} is {value:?}, which is not UTF-8")]
    NotUtf8 { variable: String, value: OsString },
    #[error(
        "KUBERNETES_SERVICE_HOST {host:?} and KUBERNETES_SERVICE_PORT {port:?} are no API server's address"
    )]
    ApiServer {
        host: String,
        port: String,
        source: kube::InvalidServer,
    },
}

/// The flags, for clap.
pub fn command() -> Command {
    let bool_help = |setting: &Setting| setting.value_name == "BOOL";
    let args = SETTINGS.iter().map(move |setting| {
        let arg = flags::flag(setting.flag)
            .value_name(setting.value_name)
            .help(described(setting))
            .allow_hyphen_values(true);
        if bool_help(setting) {
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            arg
        }
    });
    let about = "Puts the Media Streaming Mesh CNI plugin on a node and keeps it there";
    flags::command(INSTALLER_APPLET, about)
        .after_help(
            "Each flag but --root may be given as a variable of the same name in upper snake case, such as \
             CNI_NET_DIR. Besides: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT (needed), \
             KUBERNETES_SERVICE_PROTOCOL (https), KUBERNETES_NODE_NAME (else the host name), \
             POD_NAME and POD_NAMESPACE (else taken from the service account's token).",
        )
        // The last one counts, as with Go's flags.
        .args_override_self(true)
        .args(args)
}

fn described(setting: &Setting) -> String {
    if setting.default.is_empty() {
        setting.help.to_owned()
    } else {
        format!("{} [default: {}]", setting.help, setting.default)
    }
}

/// What was given.
pub struct Given<'a> {
    pub flags: &'a ArgMatches,
    pub vars: &'a Vars,
}

/// A value and where it comes from.
pub struct Value {
    pub source: String,
    pub text: String,
}

impl Value {
    pub fn parsed<T>(&self, parse: fn(&str) -> Result<T, String>) -> Result<T, Error> {
        parse(&self.text).map_err(|reason| Error::Invalid {
            setting: self.source.clone(),
            value: self.text.clone(),
            reason,
        })
    }

    /// A setting whose empty value is none.
    pub fn unless_empty<T>(
        &self,
        parse: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        if self.text.is_empty() {
            return Ok(None);
        }
        self.parsed(parse).map(Some)
    }
}

impl Given<'_> {
    fn flag(&self, setting: &Setting) -> Option<Value> {
        let text = self.flags.get_one::<String>(setting.flag)?;
        Some(Value {
            source: format!("--{}", setting.flag),
            text: text.clone(),
        })
    }

    /// A setting without a variable.
    pub fn flag_alone(&self, setting: &Setting) -> Value {
        self.flag(setting).unwrap_or_else(|| Value {
            source: format!("--{}", setting.flag),
            text: setting.default.to_owned(),
        })
    }

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

    /// The plugin sends a token, which plain HTTP would show to everybody.
    pub fn https_only(&self) -> Result<(), Error> {
        match self.variable("KUBERNETES_SERVICE_PROTOCOL")? {
            Some(protocol) if !protocol.eq_ignore_ascii_case("https") => Err(Error::Invalid {
                setting: "KUBERNETES_SERVICE_PROTOCOL".into(),
                value: protocol,
                reason: "the API server is asked by https only".into(),
            }),
            _ => Ok(()),
        }
    }
}
