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
    "The same directory as mounted in this container",
);
pub const CNI_CONF_NAME: Setting = Setting::new(
    "cni-conf-name",
    "FILE",
    "",
    "Network configuration to add the plugin entry to, or name of the stand-alone file [default: the first valid file, or YYY-msm-cni.conf]",
);
pub const CHAINED: Setting = Setting::new(
    "chained-cni-plugin",
    "BOOL",
    "true",
    "Add the plugin entry to the network configuration of the node; false: write a stand-alone file",
);
pub const TEMPLATE: Setting = Setting::new(
    "cni-network-config",
    "JSON",
    "",
    "Plugin entry, with placeholders [default: built in]",
);
pub const TEMPLATE_FILE: Setting = Setting::new(
    "cni-network-config-file",
    "FILE",
    "",
    "File that contains the plugin entry; overrides --cni-network-config",
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
    "Mode of the kubeconfig; the last digit must be 0, because the file holds a token",
);
pub const KUBE_CA_FILE: Setting = Setting::new(
    "kube-ca-file",
    "FILE",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "CA bundle to verify the API server's certificate with",
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
    "Replace executables that differ; false: install only missing ones",
);
pub const SKIP: Setting = Setting::new(
    "skip-cni-binaries",
    "NAMES",
    "",
    "Executables not to install, msm-cni or msm-iptables, separated by commas or spaces",
);
pub const CLEANUP_ON_EXIT: Setting = Setting::new(
    "cleanup-on-exit",
    "WHEN",
    "auto",
    "When to uninstall at exit: always, never, or auto (if the DaemonSet is deleted)",
);
pub const CLEANUP_BINARIES: Setting = Setting::new(
    "cleanup-binaries",
    "BOOL",
    "false",
    "Also remove the executable and its symlinks when uninstalling",
);
pub const HEALTH_ADDRESS: Setting = Setting::new(
    "health-address",
    "ADDRESS",
    ":8000",
    "Where to serve /healthz and /readyz: PORT or :PORT (on all addresses), IPV4:PORT or [IPV6]:PORT",
);
pub const ROOT: Setting = Setting::new(
    "root",
    "DIR",
    "/",
    "Directory prepended to every path that is read or written; for tests",
);

/// By heading in the help.
const GROUPS: [(&str, &[&Setting]); 6] = [
    (
        "Network configuration",
        &[
            &CNI_NET_DIR,
            &MOUNTED_CNI_NET_DIR,
            &CNI_CONF_NAME,
            &CHAINED,
            &TEMPLATE,
            &TEMPLATE_FILE,
        ],
    ),
    (
        "Kubeconfig",
        &[
            &KUBECONFIG_NAME,
            &KUBECONFIG_MODE,
            &KUBE_CA_FILE,
            &SKIP_TLS_VERIFY,
        ],
    ),
    ("Executables", &[&UPDATE, &SKIP]),
    ("Uninstallation", &[&CLEANUP_ON_EXIT, &CLEANUP_BINARIES]),
    (
        "Logging and health",
        &[&LOG_LEVEL, &LOG_TYPE, &HEALTH_ADDRESS],
    ),
    ("Tests", &[&ROOT]),
];

pub const ABOUT: &str = "Install the CNI plugin on a node and keep it installed";
const LONG_ABOUT: &str = "\
Install the CNI plugin on a node and keep it installed.

Runs in the container of the DaemonSet. Installs the executables and a kubeconfig, adds the plugin
entry to the network configuration of the node, and repairs all of them until a signal ends it.";
const NOTES: &str = "\
Environment:
  Each flag except --root can also be set by the variable of the same name in upper snake case,
  such as CNI_NET_DIR for --cni-net-dir. A flag overrides its variable. An empty variable is
  ignored. Other variables:

  KUBERNETES_SERVICE_HOST      Address of the API server; required, set by the kubelet
  KUBERNETES_SERVICE_PORT      Port of the API server; required, set by the kubelet
  KUBERNETES_SERVICE_PROTOCOL  Only https is supported
  KUBERNETES_NODE_NAME         Name of the node [default: the host name]
  POD_NAMESPACE, POD_NAME      Name of this pod [default: from the service account token]

Placeholders in --cni-network-config:
  __LOG_LEVEL__                __KUBERNETES_SERVICE_HOST__
  __KUBECONFIG_FILENAME__      __KUBERNETES_SERVICE_PORT__
  __KUBECONFIG_FILEPATH__      __KUBERNETES_NODE_NAME__
  __SERVICEACCOUNT_TOKEN__

Health:
  GET /healthz  200 while the installer is running
  GET /readyz   200 if the node is in the desired state, otherwise 503 and the reasons

Signals:
  SIGTERM, SIGINT  Uninstall according to --cleanup-on-exit, then exit
  SIGHUP           Retry now what failed or is delayed

Exit status:
  0  Ended by a signal
  1  Failure
  2  Invalid flag, variable or file that one of them names";

pub fn command_line() -> CommandLine {
    CommandLine {
        applet: INSTALLER_APPLET,
        about: ABOUT,
        long_about: Some(LONG_ABOUT),
        notes: Some(NOTES),
        repeated: Repeated::LastCounts,
        flags: GROUPS
            .iter()
            .flat_map(|(heading, settings)| settings.iter().map(|setting| flag(heading, setting)))
            .collect(),
    }
}

/// The flags that were given.
pub fn given(values: &Values) -> Flags {
    GROUPS
        .iter()
        .flat_map(|(_, settings)| *settings)
        .filter_map(|setting| Some((setting.flag, values.text(setting.flag)?.to_owned())))
        .collect()
}

/// Without the default, which a variable overrides.
fn flag(heading: &'static str, setting: &Setting) -> Flag {
    Flag {
        heading,
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
