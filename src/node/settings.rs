//! Everything that the installer is told, as values: a bad one is an error that names where
//! it comes from. Pure: what the values name is not looked at here.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use log::LevelFilter;

use crate::kube::Server;
use crate::logging::{self, Format};
use crate::node::flags::{self, Error, Given};
use crate::node::values;
use crate::process::Vars;

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
    pub server_verification: ServerVerification,
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
pub enum ServerVerification {
    CaFile(PathBuf),
    Skip,
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

impl Settings {
    /// `host_name`: the node's name where the environment gives none.
    pub fn new(matches: &ArgMatches, vars: &Vars, host_name: &str) -> Result<Self, Error> {
        let given = Given {
            flags: matches,
            vars,
        };
        let root = PathBuf::from(
            given
                .flag_alone(&flags::ROOT)
                .parsed(values::absolute_path)?,
        );
        let under = |path: &str| rooted(&root, Path::new(path));
        let absolute = |setting: &flags::Setting| given.parsed(setting, values::absolute_path);

        let kubeconfig_name = given.parsed(&flags::KUBECONFIG_NAME, values::kubeconfig_name)?;
        let host_net_dir = absolute(&flags::CNI_NET_DIR)?;
        let service_host = given.required("KUBERNETES_SERVICE_HOST")?;
        let service_port = given.required("KUBERNETES_SERVICE_PORT")?;
        given.https_only()?;
        let level = given.value(&flags::LOG_LEVEL)?;
        let template = given.value(&flags::TEMPLATE)?;
        let template_file = given.value(&flags::TEMPLATE_FILE)?;
        Ok(Self {
            net_dir: under(&absolute(&flags::MOUNTED_CNI_NET_DIR)?),
            kubeconfig_on_host: format!("{}/{kubeconfig_name}", host_net_dir.trim_end_matches('/')),
            conf_name: given
                .value(&flags::CNI_CONF_NAME)?
                .unless_empty(values::conf_name)?,
            placement: if given.parsed(&flags::CHAINED, values::boolean)? {
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
                .unless_empty(values::absolute_path)?
                .map(|path| under(&path)),
            log_level: level.parsed(logging::level)?,
            plugin_log_level: level.text,
            log_format: given.parsed(&flags::LOG_TYPE, Format::from_name)?,
            kubeconfig_name,
            kubeconfig_mode: given.parsed(&flags::KUBECONFIG_MODE, values::mode)?,
            server_verification: if given.parsed(&flags::SKIP_TLS_VERIFY, values::boolean)? {
                ServerVerification::Skip
            } else {
                ServerVerification::CaFile(under(&absolute(&flags::KUBE_CA_FILE)?))
            },
            replacement: if given.parsed(&flags::UPDATE, values::boolean)? {
                Replacement::IfDifferent
            } else {
                Replacement::Never
            },
            links: given.parsed(&flags::SKIP, values::links)?,
            cleanup: given.parsed(&flags::CLEANUP_ON_EXIT, values::cleanup)?,
            executable_at_cleanup: if given.parsed(&flags::CLEANUP_BINARIES, values::boolean)? {
                ExecutableAtCleanup::Goes
            } else {
                ExecutableAtCleanup::Stays
            },
            health_address: given.parsed(&flags::HEALTH_ADDRESS, values::health_address)?,
            api_server: values::api_server(&service_host, &service_port)?,
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

/// `path` below `root`, also where it is absolute.
fn rooted(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
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

#[cfg(test)]
mod tests {
    use super::*;

    const IN_A_CLUSTER: [(&str, &str); 2] = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];

    fn settings(args: &[&str], vars: &[(&str, &str)]) -> Result<Settings, Error> {
        let args = std::iter::once(&"installer").chain(args);
        let matches = flags::command().try_get_matches_from(args).unwrap();
        let vars = IN_A_CLUSTER.iter().chain(vars).copied().collect();
        Settings::new(&matches, &vars, "host-name")
    }

    #[test]
    fn a_flag_goes_before_its_variable_and_that_before_the_default() {
        let name =
            |args: &[&str], vars: &[(&str, &str)]| settings(args, vars).unwrap().kubeconfig_name;
        let variable = ("KUBECFG_FILE_NAME", "of-the-variable");
        let flag = "--kubecfg-file-name=of-the-flag";
        assert_eq!(name(&[], &[]), "ZZZ-msm-cni-kubeconfig");
        assert_eq!(
            name(&[], &[("KUBECFG_FILE_NAME", "")]),
            "ZZZ-msm-cni-kubeconfig"
        );
        assert_eq!(name(&[], &[variable]), "of-the-variable");
        assert_eq!(name(&[flag], &[variable]), "of-the-flag");
        assert_eq!(name(&[flag, "--kubecfg-file-name", "last"], &[]), "last");
    }

    #[test]
    fn without_a_word_everything_is_as_it_always_was() {
        let settings = settings(&[], &[]).unwrap();
        for (path, expected) in [
            (&settings.net_dir, "/host/etc/cni/net.d"),
            (&settings.bin_dir, "/host/opt/cni/bin"),
            (&settings.secondary_bin_dir, "/host/secondary-bin-dir"),
            (
                &settings.service_account,
                "/var/run/secrets/kubernetes.io/serviceaccount",
            ),
            (
                &settings.kubeconfig(),
                "/host/etc/cni/net.d/ZZZ-msm-cni-kubeconfig",
            ),
        ] {
            assert_eq!(path, Path::new(expected));
        }
        assert_eq!(
            settings.kubeconfig_on_host,
            "/etc/cni/net.d/ZZZ-msm-cni-kubeconfig"
        );
        assert_eq!(
            (settings.kubeconfig_mode, settings.node_name.as_str()),
            (0o600, "host-name")
        );
        assert_eq!(
            (settings.placement, settings.conf_name),
            (Placement::Chained, None)
        );
        assert_eq!(
            (settings.cleanup, settings.replacement),
            (Cleanup::Auto, Replacement::IfDifferent)
        );
        let authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        assert_eq!(
            settings.server_verification,
            ServerVerification::CaFile(authority.into())
        );
        assert_eq!(settings.links, ["msm-cni", "msm-iptables"]);
        assert_eq!(
            settings.health_address,
            HealthAddress::Everywhere { port: 8000 }
        );
        assert_eq!(settings.api_server.to_string(), "https://10.96.0.1");
    }

    #[test]
    fn a_switch_is_on_without_a_value_and_what_its_value_says() {
        for (given, expected) in [
            ("", true),
            ("=true", true),
            ("=1", true),
            ("=t", true),
            ("=T", true),
            ("=TRUE", true),
            ("=True", true),
            ("=false", false),
            ("=0", false),
            ("=f", false),
            ("=F", false),
            ("=FALSE", false),
            ("=False", false),
        ] {
            let server_verification = settings(&[&format!("--skip-tls-verify{given}")], &[])
                .unwrap()
                .server_verification;
            assert_eq!(
                server_verification == ServerVerification::Skip,
                expected,
                "{given}"
            );
        }
        for switch in [
            "--chained-cni-plugin",
            "--update-cni-binaries",
            "--cleanup-binaries",
        ] {
            settings(&[switch], &[]).unwrap();
        }
        let off = settings(
            &[],
            &[
                ("CHAINED_CNI_PLUGIN", "false"),
                ("UPDATE_CNI_BINARIES", "0"),
            ],
        );
        let off = off.unwrap();
        assert_eq!(
            (off.placement, off.replacement),
            (Placement::StandAlone, Replacement::Never)
        );
    }

    #[test]
    fn a_mode_is_octal_with_and_without_a_leading_zero() {
        for (text, mode) in [
            ("0600", 0o600),
            ("600", 0o600),
            ("0640", 0o640),
            ("640", 0o640),
            ("0400", 0o400),
            ("660", 0o660),
            ("00600", 0o600),
        ] {
            let settings = settings(&["--kubeconfig-mode", text], &[]).unwrap();
            assert_eq!(settings.kubeconfig_mode, mode, "{text}");
        }
    }

    #[test]
    fn names_to_skip_are_separated_by_whatever_they_always_were() {
        for (text, left) in [
            ("msm-cni", &["msm-iptables"][..]),
            ("msm-iptables msm-cni", &[]),
            ("msm-cni,msm-iptables", &[]),
            (" ,msm-iptables\n", &["msm-cni"]),
            (" ", &["msm-cni", "msm-iptables"]),
        ] {
            assert_eq!(
                settings(&["--skip-cni-binaries", text], &[]).unwrap().links,
                left,
                "{text:?}"
            );
        }
    }

    #[test]
    fn health_is_served_everywhere_or_at_one_address() {
        for (text, shown) in [
            ("8080", "port 8080 on all addresses"),
            (":8080", "port 8080 on all addresses"),
            ("[::]:8080", "port 8080 on all addresses"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]:65535", "[::1]:65535"),
        ] {
            let settings = settings(&["--health-address", text], &[]).unwrap();
            assert_eq!(settings.health_address.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn the_api_server_is_an_address_or_a_name() {
        for (host, port, url) in [
            ("10.96.0.1", "443", "https://10.96.0.1"),
            ("10.96.0.1", "6443", "https://10.96.0.1:6443"),
            ("fd00::1", "443", "https://[fd00::1]"),
            ("[fd00::1]", "6443", "https://[fd00::1]:6443"),
            ("[10.96.0.1]", "443", "https://10.96.0.1"),
            ("api.example.com", "443", "https://api.example.com"),
        ] {
            let vars = [
                ("KUBERNETES_SERVICE_HOST", host),
                ("KUBERNETES_SERVICE_PORT", port),
            ];
            assert_eq!(settings(&[], &vars).unwrap().api_server.to_string(), url);
        }
        for protocol in ["https", "HTTPS", ""] {
            settings(&[], &[("KUBERNETES_SERVICE_PROTOCOL", protocol)]).unwrap();
        }
    }

    #[test]
    fn every_path_is_below_the_root_but_what_the_host_calls_its_own() {
        let settings = settings(
            &[
                "--root=/tmp/x",
                "--cni-net-dir=/etc/net.d/",
                "--mounted-cni-net-dir=/mnt",
                "--kube-ca-file=/ca.crt",
                "--cni-network-config-file=/template",
            ],
            &[("ROOT", "/nowhere"), ("CNI_NETWORK_CONFIG", "{}")],
        )
        .unwrap();
        assert_eq!(
            settings.kubeconfig(),
            Path::new("/tmp/x/mnt/ZZZ-msm-cni-kubeconfig")
        );
        assert_eq!(
            settings.kubeconfig_on_host,
            "/etc/net.d/ZZZ-msm-cni-kubeconfig"
        );
        assert_eq!(
            settings.server_verification,
            ServerVerification::CaFile("/tmp/x/ca.crt".into())
        );
        assert_eq!(
            settings.template_file.as_deref(),
            Some(Path::new("/tmp/x/template"))
        );
        assert_eq!(settings.template_setting, "--cni-network-config-file");
    }

    #[test]
    fn the_environment_names_node_and_pod() {
        let settings = settings(
            &[],
            &[
                ("KUBERNETES_NODE_NAME", "node-1"),
                ("POD_NAMESPACE", "msm"),
                ("POD_NAME", "msm-cni-x"),
            ],
        )
        .unwrap();
        assert_eq!(settings.node_name, "node-1");
        assert_eq!(settings.own_pod, Some(("msm".into(), "msm-cni-x".into())));
    }
}
