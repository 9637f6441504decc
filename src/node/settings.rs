//! The installer's settings as typed values. An invalid one is an error that names the flag or
//! variable. Pure: the files that settings name are not read here.

use std::path::{Path, PathBuf};

use super::flags;
use super::inputs::{Error, Inputs, Setting};
use super::values::{self, BinaryCleanup, Cleanup, Placement, Replacement};
use crate::http;
use crate::kube::Server;
use crate::logging::{self, Format, LevelFilter};

/// Does not change while the installer runs, except for `template`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The runtime's configuration directory, as mounted in this container.
    pub net_dir: PathBuf,
    /// The kubeconfig's path on the host.
    pub kubeconfig_on_host: String,
    /// `None`: the first valid file, or the default name of the stand-alone file.
    pub conf_name: Option<String>,
    pub placement: Placement,
    /// The plugin's configuration, with placeholders.
    pub template: String,
    /// Where the template comes from: a flag or a variable.
    pub template_setting: String,
    /// Replaces `template` at the start.
    pub template_file: Option<PathBuf>,
    pub plugin_log_level: String,
    pub log_level: LevelFilter,
    pub log_format: Format,
    pub kubeconfig_name: String,
    /// Permission bits.
    pub kubeconfig_mode: u32,
    pub server_verification: ServerVerification,
    pub replacement: Replacement,
    /// Names of the symlinks to create.
    pub links: Vec<&'static str>,
    pub cleanup: Cleanup,
    pub binary_cleanup: BinaryCleanup,
    pub health_address: http::Address,
    pub api_server: Server,
    pub service_host: String,
    pub service_port: String,
    pub node_name: String,
    /// Namespace and name of the installer's pod, if the environment names it.
    pub own_pod: Option<(String, String)>,
    /// Directory for executables; required.
    pub bin_dir: PathBuf,
    /// Second directory for executables, used if it exists.
    pub secondary_bin_dir: PathBuf,
    /// Holds token, CA bundle and namespace of the installer's service account.
    pub service_account: PathBuf,
}

/// How the API server's certificate is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerVerification {
    CaFile(PathBuf),
    Skip,
}

/// Used unless a template is given.
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

impl Settings {
    /// `host_name`: the node's name if the environment gives none.
    pub fn new(inputs: &Inputs, host_name: &str) -> Result<Self, Error> {
        let root = inputs.flag_only(&flags::ROOT);
        let root = PathBuf::from(root.parsed(values::absolute_path)?);
        let under = |path: &str| rooted(&root, Path::new(path));
        let absolute = |setting: &Setting| inputs.parsed(setting, values::absolute_path);
        let skip_verification = inputs.parsed(&flags::SKIP_TLS_VERIFY, values::boolean)?;

        let kubeconfig_name = inputs.parsed(&flags::KUBECONFIG_NAME, values::kubeconfig_name)?;
        let host_net_dir = absolute(&flags::CNI_NET_DIR)?;
        let level = inputs.value(&flags::LOG_LEVEL)?;
        let template = inputs.value(&flags::TEMPLATE)?;
        let template_file = inputs.value(&flags::TEMPLATE_FILE)?;
        let (service_host, service_port, api_server) = api_server(inputs)?;
        Ok(Self {
            net_dir: under(&absolute(&flags::MOUNTED_CNI_NET_DIR)?),
            kubeconfig_on_host: format!("{}/{kubeconfig_name}", host_net_dir.trim_end_matches('/')),
            conf_name: inputs
                .value(&flags::CNI_CONF_NAME)?
                .parsed_unless_empty(values::conf_name)?,
            placement: inputs.parsed(&flags::CHAINED, values::placement)?,
            template_setting: if template_file.text.is_empty() {
                template.source
            } else {
                template_file.source.clone()
            },
            template: if template.text.is_empty() {
                BUILT_IN_TEMPLATE.to_owned()
            } else {
                template.text
            },
            template_file: template_file
                .parsed_unless_empty(values::absolute_path)?
                .map(|path| under(&path)),
            log_level: level.parsed(logging::level)?,
            plugin_log_level: level.text,
            log_format: inputs.parsed(&flags::LOG_TYPE, Format::from_name)?,
            kubeconfig_name,
            kubeconfig_mode: inputs.parsed(&flags::KUBECONFIG_MODE, values::mode)?,
            server_verification: if skip_verification {
                ServerVerification::Skip
            } else {
                ServerVerification::CaFile(under(&absolute(&flags::KUBE_CA_FILE)?))
            },
            replacement: inputs.parsed(&flags::UPDATE, values::replacement)?,
            links: inputs.parsed(&flags::SKIP, values::links)?,
            cleanup: inputs.parsed(&flags::CLEANUP_ON_EXIT, values::cleanup)?,
            binary_cleanup: inputs.parsed(&flags::CLEANUP_BINARIES, values::binary_cleanup)?,
            health_address: inputs.parsed(&flags::HEALTH_ADDRESS, http::Address::parse)?,
            api_server,
            service_host,
            service_port,
            node_name: inputs
                .variable("KUBERNETES_NODE_NAME")?
                .unwrap_or_else(|| host_name.to_owned()),
            own_pod: inputs
                .variable("POD_NAMESPACE")?
                .zip(inputs.variable("POD_NAME")?),
            bin_dir: under("/host/opt/cni/bin"),
            secondary_bin_dir: under("/host/secondary-bin-dir"),
            service_account: under("/var/run/secrets/kubernetes.io/serviceaccount"),
        })
    }

    /// The kubeconfig's path in this container.
    pub fn kubeconfig(&self) -> PathBuf {
        self.net_dir.join(&self.kubeconfig_name)
    }
}

/// Host and port as the environment gives them, and the server's address.
fn api_server(inputs: &Inputs) -> Result<(String, String, Server), Error> {
    const PROTOCOL: &str = "KUBERNETES_SERVICE_PROTOCOL";
    let host = inputs.required("KUBERNETES_SERVICE_HOST")?;
    let port = inputs.required("KUBERNETES_SERVICE_PORT")?;
    if let Some(protocol) = inputs.variable(PROTOCOL)?
        && !protocol.eq_ignore_ascii_case("https")
    {
        return Err(Error::Invalid {
            setting: PROTOCOL.into(),
            value: protocol,
            reason: "only https is supported, because requests carry a token".into(),
        });
    }
    match values::api_server(&host, &port) {
        Ok(server) => Ok((host, port, server)),
        Err(source) => Err(Error::ApiServer { host, port, source }),
    }
}

/// `path` below `root`, even if it is absolute.
fn rooted(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_A_CLUSTER: [(&str, &str); 2] = [
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT", "443"),
    ];

    fn settings(args: &[&str], vars: &[(&str, &str)]) -> Result<Settings, Error> {
        let values = flags::command_line().parse(args.iter().map(Into::into));
        let inputs = Inputs {
            flags: flags::given(&values.unwrap()),
            vars: &IN_A_CLUSTER.iter().chain(vars).copied().collect(),
        };
        Settings::new(&inputs, "host-name")
    }

    #[test]
    fn flag_overrides_variable_and_variable_overrides_default() {
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
    fn defaults_match_previous_release() {
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
        let ca_file = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
        assert_eq!(
            settings.server_verification,
            ServerVerification::CaFile(ca_file.into())
        );
        assert_eq!(settings.links, ["msm-cni", "msm-iptables"]);
        assert_eq!(settings.health_address, http::Address::Any { port: 8000 });
        assert_eq!(settings.api_server.to_string(), "https://10.96.0.1");
    }

    #[test]
    fn boolean_flag_without_value_is_true() {
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
    fn mode_is_octal_with_and_without_leading_zero() {
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
    fn skipped_names_are_separated_by_commas_or_spaces() {
        for (text, expected) in [
            ("msm-cni", &["msm-iptables"][..]),
            ("msm-iptables msm-cni", &[]),
            ("msm-cni,msm-iptables", &[]),
            (" ,msm-iptables\n", &["msm-cni"]),
            (" ", &["msm-cni", "msm-iptables"]),
        ] {
            assert_eq!(
                settings(&["--skip-cni-binaries", text], &[]).unwrap().links,
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn health_address_is_a_port_or_one_address() {
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
    fn api_server_is_an_address_or_a_name() {
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
    fn root_is_prepended_to_paths_in_the_container_only() {
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
    fn environment_names_node_and_pod() {
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
