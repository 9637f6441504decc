//! Flags and environment of the installer: a flag goes before its variable, a variable
//! before the default. An empty variable is unset; a bad value is an error that names where
//! it comes from. Pure: what the values name is not looked at here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Arg, ArgMatches, Command};
use log::LevelFilter;

use crate::kube::{self, Server};
use crate::logging::{self, Format};
use crate::names::{self, CNI_APPLET, INSTALLER_APPLET, IPTABLES_APPLET};
use crate::process::Vars;

/// One setting: `--flag`, or the variable of the same name in upper snake case.
struct Setting {
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

const CNI_NET_DIR: Setting = setting(
    "cni-net-dir",
    "DIR",
    "/etc/cni/net.d",
    "The runtime's configuration directory as the host names it",
);
const MOUNTED_CNI_NET_DIR: Setting = setting(
    "mounted-cni-net-dir",
    "DIR",
    "/host/etc/cni/net.d",
    "Where that directory is mounted here",
);
const CNI_CONF_NAME: Setting = setting(
    "cni-conf-name",
    "FILE",
    "",
    "The configuration to add the plugin to, or the stand-alone file to write [default: the first valid file; YYY-msm-cni.conf]",
);
const CHAINED: Setting = setting(
    "chained-cni-plugin",
    "BOOL",
    "true",
    "Add the plugin to the node's configuration; false writes a file of its own",
);
const TEMPLATE: Setting = setting(
    "cni-network-config",
    "JSON",
    "",
    "The plugin's configuration, with placeholders [default: built in]",
);
const TEMPLATE_FILE: Setting = setting(
    "cni-network-config-file",
    "FILE",
    "",
    "The same as a file, which goes before the text",
);
const LOG_LEVEL: Setting = setting(
    "log-level",
    "LEVEL",
    "info",
    "trace, debug, info, warn or error: of the plugin, and of the installer",
);
const LOG_TYPE: Setting = setting("log-type", "TYPE", "text", "text or json");
const KUBECONFIG_NAME: Setting = setting(
    "kubecfg-file-name",
    "FILE",
    names::KUBECONFIG_FILE,
    "The plugin's kubeconfig, in the configuration directory",
);
const KUBECONFIG_MODE: Setting = setting(
    "kubeconfig-mode",
    "OCTAL",
    "0600",
    "The kubeconfig's mode; it holds a token, so others may not read it",
);
const KUBE_CA_FILE: Setting = setting(
    "kube-ca-file",
    "FILE",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "The API server's certificate authority",
);
const SKIP_TLS_VERIFY: Setting = setting(
    "skip-tls-verify",
    "BOOL",
    "false",
    "Trust any API server's certificate",
);
const UPDATE: Setting = setting(
    "update-cni-binaries",
    "BOOL",
    "true",
    "Replace executables that are there; false installs only missing ones",
);
const SKIP: Setting = setting(
    "skip-cni-binaries",
    "NAMES",
    "",
    "Executables that are not installed, separated by commas or spaces",
);
const CLEANUP_ON_EXIT: Setting = setting(
    "cleanup-on-exit",
    "WHEN",
    "auto",
    "Whether what was installed goes at the end: always, never, or auto: when the DaemonSet is gone",
);
const CLEANUP_BINARIES: Setting = setting(
    "cleanup-binaries",
    "BOOL",
    "false",
    "Then remove the executable too, which stays otherwise",
);
const HEALTH_ADDRESS: Setting = setting(
    "health-address",
    "ADDRESS",
    ":8000",
    "Where /healthz and /readyz are served: PORT or :PORT on all addresses, or ADDRESS:PORT",
);
const ROOT: Setting = setting(
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

/// Everything that does not change while the installer runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The configuration directory, as mounted here.
    pub net_dir: PathBuf,
    /// The kubeconfig as the host names it.
    pub kubeconfig_on_host: String,
    /// `None`: the first valid file, or the stand-alone file's own name.
    pub conf_name: Option<String>,
    pub placement: Placement,
    /// With placeholders.
    pub template: String,
    /// Where it comes from: a flag, a variable, or neither.
    pub template_setting: String,
    /// Goes before `template`; for the shell to read.
    pub template_file: Option<PathBuf>,
    pub plugin_log_level: String,
    pub log_level: LevelFilter,
    pub log_format: Format,
    pub kubeconfig_name: String,
    /// Permission bits.
    pub kubeconfig_mode: u32,
    pub trust: Trust,
    pub replacement: Replacement,
    /// Symlinks that are made, by name.
    pub links: Vec<&'static str>,
    pub cleanup: Cleanup,
    pub executable_at_cleanup: ExecutableAtCleanup,
    pub health_address: HealthAddress,
    pub api_server: Server,
    pub service_host: String,
    pub service_port: String,
    pub node_name: String,
    /// Namespace and name of our own pod, where the environment gives them.
    pub own_pod: Option<(String, String)>,
    /// Where the executable goes; must be there.
    pub bin_dir: PathBuf,
    /// Where it goes too, if that is there.
    pub secondary_bin_dir: PathBuf,
    /// Token, certificate authority and namespace of our service account.
    pub service_account: PathBuf,
}

/// Where the plugin's configuration goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Into the node's configuration, behind its other plugins.
    Chained,
    /// Into a file of its own.
    StandAlone,
}

/// How the API server's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    AuthorityFile(PathBuf),
    Anyone,
}

/// What happens to executables that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replacement {
    IfDifferent,
    Never,
}

/// Whether what was installed goes when the installer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// When our `DaemonSet` is gone.
    Auto,
    Always,
    Never,
}

/// What a clean-up does to the executable itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutableAtCleanup {
    Stays,
    Goes,
}

/// Where health is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthAddress {
    /// IPv6 and IPv4, or IPv4 alone where the node has no IPv6.
    Everywhere {
        port: u16,
    },
    At(SocketAddr),
}

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
    #[error("{variable} is not UTF-8")]
    NotUtf8 { variable: String },
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
        let arg = Arg::new(setting.flag)
            .long(setting.flag)
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
    Command::new(INSTALLER_APPLET)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts the Media Streaming Mesh CNI plugin on a node and keeps it there")
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

impl Settings {
    /// `host_name`: the node's name where the environment gives none.
    pub fn new(flags: &ArgMatches, vars: &Vars, host_name: &str) -> Result<Self, Error> {
        let given = Given { flags, vars };
        let root = PathBuf::from(given.flag_alone(&ROOT).parsed(absolute_path)?);
        let under = |path: &str| rooted(&root, Path::new(path));
        let absolute = |setting: &Setting| given.parsed(setting, absolute_path);

        let kubeconfig_name = given.parsed(&KUBECONFIG_NAME, kubeconfig_name)?;
        let host_net_dir = absolute(&CNI_NET_DIR)?;
        let service_host = given.required("KUBERNETES_SERVICE_HOST")?;
        let service_port = given.required("KUBERNETES_SERVICE_PORT")?;
        given.https_only()?;
        let level = given.value(&LOG_LEVEL)?;
        let template = given.value(&TEMPLATE)?;
        let template_file = given.value(&TEMPLATE_FILE)?;
        Ok(Self {
            net_dir: under(&absolute(&MOUNTED_CNI_NET_DIR)?),
            kubeconfig_on_host: format!("{}/{kubeconfig_name}", host_net_dir.trim_end_matches('/')),
            conf_name: given.value(&CNI_CONF_NAME)?.unless_empty(conf_name)?,
            placement: if given.parsed(&CHAINED, boolean)? {
                Placement::Chained
            } else {
                Placement::StandAlone
            },
            template_setting: if template_file.text.is_empty() {
                template.source.clone()
            } else {
                template_file.source.clone()
            },
            template: template
                .unless_empty(|text| Ok(text.to_owned()))?
                .unwrap_or_else(|| BUILT_IN_TEMPLATE.to_owned()),
            template_file: template_file
                .unless_empty(absolute_path)?
                .map(|path| under(&path)),
            log_level: level.parsed(logging::level)?,
            plugin_log_level: level.text,
            log_format: given.parsed(&LOG_TYPE, Format::from_name)?,
            kubeconfig_name,
            kubeconfig_mode: given.parsed(&KUBECONFIG_MODE, mode)?,
            trust: if given.parsed(&SKIP_TLS_VERIFY, boolean)? {
                Trust::Anyone
            } else {
                Trust::AuthorityFile(under(&absolute(&KUBE_CA_FILE)?))
            },
            replacement: if given.parsed(&UPDATE, boolean)? {
                Replacement::IfDifferent
            } else {
                Replacement::Never
            },
            links: given.parsed(&SKIP, links)?,
            cleanup: given.parsed(&CLEANUP_ON_EXIT, cleanup)?,
            executable_at_cleanup: if given.parsed(&CLEANUP_BINARIES, boolean)? {
                ExecutableAtCleanup::Goes
            } else {
                ExecutableAtCleanup::Stays
            },
            health_address: given.parsed(&HEALTH_ADDRESS, health_address)?,
            api_server: api_server(&service_host, &service_port)?,
            service_host,
            service_port,
            node_name: given
                .variable("KUBERNETES_NODE_NAME")?
                .unwrap_or_else(|| host_name.to_owned()),
            own_pod: given
                .variable("POD_NAMESPACE")?
                .zip(given.variable("POD_NAME")?),
            bin_dir: under("/host/opt/cni/bin"),
            secondary_bin_dir: under("/host/secondary-bin-dir"),
            service_account: under("/var/run/secrets/kubernetes.io/serviceaccount"),
        })
    }
}

impl Settings {
    /// The kubeconfig as it is found here.
    pub fn kubeconfig(&self) -> PathBuf {
        self.net_dir.join(&self.kubeconfig_name)
    }
}

/// What the plugin needs, for nodes whose manifest brings no template.
const BUILT_IN_TEMPLATE: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "msm-cni",
  "type": "msm-cni",
  "logLevel": "__LOG_LEVEL__",
  "kubernetes": {
    "kubeConfig": "__KUBECONFIG_FILEPATH__",
    "nodeName": "__KUBERNETES_NODE_NAME__",
    "excludeNamespaces": ["kube-system"]
  }
}"#;

struct Given<'a> {
    flags: &'a ArgMatches,
    vars: &'a Vars,
}

/// A value and where it comes from.
struct Value {
    source: String,
    text: String,
}

impl Value {
    fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, Error> {
        parse(&self.text).map_err(|reason| Error::Invalid {
            setting: self.source.clone(),
            value: self.text.clone(),
            reason,
        })
    }

    /// A setting whose empty value is none.
    fn unless_empty<T>(
        &self,
        parse: impl Fn(&str) -> Result<T, String>,
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
    fn flag_alone(&self, setting: &Setting) -> Value {
        self.flag(setting).unwrap_or_else(|| Value {
            source: format!("--{}", setting.flag),
            text: setting.default.to_owned(),
        })
    }

    fn value(&self, setting: &Setting) -> Result<Value, Error> {
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

    fn parsed<T>(
        &self,
        setting: &Setting,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        self.value(setting)?.parsed(parse)
    }

    fn variable(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.vars.get(name) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| Error::NotUtf8 {
            variable: name.to_owned(),
        })?;
        Ok(Some(text.to_owned()))
    }

    fn required(&self, variable: &'static str) -> Result<String, Error> {
        self.variable(variable)?.ok_or(Error::Missing { variable })
    }

    /// The plugin sends a token, which plain HTTP would show to everybody.
    fn https_only(&self) -> Result<(), Error> {
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

/// `path` below `root`, also where it is absolute.
fn rooted(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn absolute_path(text: &str) -> Result<String, String> {
    if Path::new(text).is_absolute() {
        Ok(text.to_owned())
    } else {
        Err("it is not an absolute path".into())
    }
}

fn file_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err("it is not the name of a file".into());
    }
    if text.starts_with('.') {
        return Err("hidden files are not for the node's configuration".into());
    }
    Ok(text.to_owned())
}

fn conf_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if names::is_network_configuration(&name) {
        Ok(name)
    } else {
        Err("runtimes read .conf, .conflist and .json files only".into())
    }
}

fn kubeconfig_name(text: &str) -> Result<String, String> {
    let name = file_name(text)?;
    if names::is_network_configuration(&name) {
        return Err("the runtime would take it for a network configuration".into());
    }
    Ok(name)
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or("it is not an octal mode such as 0600")?;
    if mode & 0o007 != 0 {
        return Err("others could use the token in it; the last digit has to be 0".into());
    }
    if mode & 0o400 == 0 {
        return Err("its owner could not read it".into());
    }
    Ok(mode)
}

/// What Go's flags take for one.
fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".into()),
    }
}

/// The symlinks that are left when some are skipped.
fn links(skip: &str) -> Result<Vec<&'static str>, String> {
    let skipped: Vec<&str> = skip
        .split([',', ' ', '\t', '\n', '\r'])
        .filter(|name| !name.is_empty())
        .collect();
    let known = [CNI_APPLET, IPTABLES_APPLET];
    if let Some(name) = skipped.iter().find(|name| !known.contains(name)) {
        return Err(format!(
            "{name:?} is not installed anyway; what can be skipped is {}",
            known.join(" and ")
        ));
    }
    Ok(known
        .into_iter()
        .filter(|name| !skipped.contains(name))
        .collect())
}

fn cleanup(text: &str) -> Result<Cleanup, String> {
    match text {
        "auto" => Ok(Cleanup::Auto),
        "always" => Ok(Cleanup::Always),
        "never" => Ok(Cleanup::Never),
        _ => Err("it is none of auto, always and never".into()),
    }
}

fn health_address(text: &str) -> Result<HealthAddress, String> {
    let port = |text: &str| u16::from_str(text).ok().filter(|port| *port > 0);
    let everywhere = port(text.strip_prefix(':').unwrap_or(text));
    if let Some(port) = everywhere {
        return Ok(HealthAddress::Everywhere { port });
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            Ok(HealthAddress::Everywhere {
                port: address.port(),
            })
        }
        Ok(address) if address.port() > 0 => Ok(HealthAddress::At(address)),
        _ => Err("it is neither PORT, :PORT, IPV4:PORT nor [IPV6]:PORT".into()),
    }
}

fn api_server(host: &str, port: &str) -> Result<Server, Error> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let url = if bare.parse::<Ipv6Addr>().is_ok() {
        format!("https://[{bare}]:{port}")
    } else {
        format!("https://{bare}:{port}")
    };
    let invalid = |source| Error::ApiServer {
        host: host.to_owned(),
        port: port.to_owned(),
        source,
    };
    // Either would begin a path.
    if [host, port].iter().any(|text| text.contains('/')) {
        return Err(invalid(kube::InvalidServer::Path));
    }
    Server::parse(&url).map_err(invalid)
}

impl fmt::Display for HealthAddress {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Everywhere { port } => write!(f, "port {port} on all addresses"),
            Self::At(address) => address.fmt(f),
        }
    }
}

impl HealthAddress {
    /// The addresses to try, in order; the first that the node has is served.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Everywhere { port } => vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ],
            Self::At(address) => vec![address],
        }
    }
}
