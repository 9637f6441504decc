//! The installer's command line: a table of settings. Each flag except `--root` can also be given
//! as an environment variable.

use super::inputs::{Flags, Setting};
use crate::flags::{CommandLine, Flag, Kind, Repeated, Values};
use crate::names::{self, INSTALLER_APPLET};

pub const CNI_NET_DIR: Setting = Setting::new(
    "cni-net-dir",
    "DIR",
    "/etc/cni/net.d",
    "CNI configuration directory on the host",
);
pub const MOUNTED_CNI_NET_DIR: Setting = Setting::new(
    "mounted-cni-net-dir",
    "DIR",
    "/host/etc/cni/net.d",
    "Where that directory is mounted in this container",
);
pub const CNI_CONF_NAME: Setting = Setting::new(
    "cni-conf-name",
    "FILE",
    "",
    "Network configuration to add the plugin to, or name of the stand-alone file [default: the first valid file, or YYY-msm-cni.conf]",
);
pub const CHAINED: Setting = Setting::new(
    "chained-cni-plugin",
    "BOOL",
    "true",
    "Add the plugin to the node's network configuration; false writes a separate file",
);
pub const TEMPLATE: Setting = Setting::new(
    "cni-network-config",
    "JSON",
    "",
    "Plugin configuration with placeholders [default: built in]",
);
pub const TEMPLATE_FILE: Setting = Setting::new(
    "cni-network-config-file",
    "FILE",
    "",
    "File with the plugin configuration; overrides --cni-network-config",
);
pub const LOG_LEVEL: Setting = Setting::new(
    "log-level",
    "LEVEL",
    "info",
    "Log level of the plugin and of the installer: trace, debug, info, warn or error",
);
pub const LOG_TYPE: Setting = Setting::new("log-type", "TYPE", "text", "Log format: text or json");
pub const KUBECONFIG_NAME: Setting = Setting::new(
    "kubecfg-file-name",
    "FILE",
    names::KUBECONFIG_FILE,
    "Name of the plugin's kubeconfig in the CNI configuration directory",
);
pub const KUBECONFIG_MODE: Setting = Setting::new(
    "kubeconfig-mode",
    "OCTAL",
    "0600",
    "Mode of the kubeconfig; it holds a token, so others must not have access",
);
pub const KUBE_CA_FILE: Setting = Setting::new(
    "kube-ca-file",
    "FILE",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "CA bundle that the API server's certificate is verified with",
);
pub const SKIP_TLS_VERIFY: Setting = Setting::new(
    "skip-tls-verify",
    "BOOL",
    "false",
    "Do not verify the API server's certificate",
);
pub const UPDATE: Setting = Setting::new(
    "update-cni-binaries",
    "BOOL",
    "true",
    "Replace existing executables; false installs only missing ones",
);
pub const SKIP: Setting = Setting::new(
    "skip-cni-binaries",
    "NAMES",
    "",
    "Executables not to install, separated by commas or spaces",
);
pub const CLEANUP_ON_EXIT: Setting = Setting::new(
    "cleanup-on-exit",
    "WHEN",
    "auto",
    "When to uninstall at exit: always, never, or auto (if the DaemonSet was deleted)",
);
pub const CLEANUP_BINARIES: Setting = Setting::new(
    "cleanup-binaries",
    "BOOL",
    "false",
    "Remove the executable too when uninstalling",
);
pub const HEALTH_ADDRESS: Setting = Setting::new(
    "health-address",
    "ADDRESS",
    ":8000",
    "Address of /healthz and /readyz: PORT or :PORT for all addresses, or ADDRESS:PORT",
);
pub const ROOT: Setting = Setting::new(
    "root",
    "DIR",
    "/",
    "Directory prepended to every path that is read or written; for tests",
);

const SETTINGS: [&Setting; 18] = [
    &CNI_NET_DIR,
    &MOUNTED_CNI_NET_DIR,
    &CNI_CONF_NAME,
    &CHAINED,
    &TEMPLATE,
    &TEMPLATE_FILE,
    &LOG_LEVEL,
    &LOG_TYPE,
    &KUBECONFIG_NAME,
    &KUBECONFIG_MODE,
    &KUBE_CA_FILE,
    &SKIP_TLS_VERIFY,
    &UPDATE,
    &SKIP,
    &CLEANUP_ON_EXIT,
    &CLEANUP_BINARIES,
    &HEALTH_ADDRESS,
    &ROOT,
];

pub const ABOUT: &str = "Install the CNI plugin on a node and keep it installed";
const NOTES: &str = "\
Each flag except --root can be set by an environment variable of the same name in upper snake \
case, such as CNI_NET_DIR. Other variables: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT \
(required), KUBERNETES_SERVICE_PROTOCOL (https), KUBERNETES_NODE_NAME (default: the host name), \
POD_NAME and POD_NAMESPACE (default: from the service account token).";

pub fn command_line() -> CommandLine {
    CommandLine {
        applet: INSTALLER_APPLET,
        about: ABOUT,
        notes: Some(NOTES),
        repeated: Repeated::LastCounts,
        flags: SETTINGS.map(flag).into(),
        ..CommandLine::default()
    }
}

/// The flags that were given.
pub fn given(values: &Values) -> Flags {
    SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.flag, values.text(setting.flag)?.to_owned())))
        .collect()
}

/// Without the default, which a variable overrides.
fn flag(setting: &Setting) -> Flag {
    Flag {
        name: setting.flag,
        short: None,
        kind: match setting.value_name {
            "BOOL" => Kind::Bool,
            _ => Kind::Text,
        },
        value_name: setting.value_name,
        default: None,
        help: help(setting),
        details: None,
    }
}

fn help(setting: &Setting) -> String {
    if setting.default.is_empty() {
        setting.help.to_owned()
    } else {
        format!("{} [default: {}]", setting.help, setting.default)
    }
}
