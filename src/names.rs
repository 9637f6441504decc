//! Every name that the outside world knows us by, once: applets, label, annotations,
//! default ports and UID, table and chain names. No logic.

/// The applet that the container runtime runs.
pub const CNI_APPLET: &str = "msm-cni";
/// The applet that a person runs.
pub const IPTABLES_APPLET: &str = "msm-iptables";
/// The applet that the `DaemonSet` runs.
pub const INSTALLER_APPLET: &str = "installer";
/// The installer's name in older manifests.
pub const INSTALLER_ALIAS: &str = "install-cni";

/// The executable that all applets are symlinks to.
pub const EXECUTABLE: &str = "msm";
/// The plugin's kubeconfig: sorted last, and no name that a runtime loads.
pub const KUBECONFIG_FILE: &str = "ZZZ-msm-cni-kubeconfig";
/// The plugin's configuration where it stands in a file of its own.
pub const STAND_ALONE_FILE: &str = "YYY-msm-cni.conf";
/// Behind the name of a `.conf` that has become a `.conflist`.
pub const ORIGINAL_SUFFIX: &str = ".msm-cni-original";
/// Before the name of a file that is still being written.
pub const TEMPORARY_PREFIX: &str = ".msm-cni-temporary-";
/// What runtimes take for a network configuration.
const NETWORK_CONFIGURATIONS: [&str; 3] = [".conf", ".conflist", ".json"];

/// Whether a runtime would load a file of this name.
pub fn is_network_configuration(file_name: &str) -> bool {
    NETWORK_CONFIGURATIONS
        .iter()
        .any(|extension| file_name.ends_with(extension))
}

/// Pod label: present and not `false` means MSM-enabled.
pub const INJECT_LABEL: &str = "sidecar.mediastreamingmesh.io/inject";
/// Pod annotation overriding `redirect.ports`.
pub const PORTS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/redirect-ports";
/// Pod annotation overriding `redirect.proxyPort`.
pub const PROXY_PORT_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/proxy-port";
/// Pod annotation overriding `redirect.proxyUID`.
pub const PROXY_UID_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/proxy-uid";
/// Pod annotation overriding `redirect.excludeCIDRs`.
pub const EXCLUDE_CIDRS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/exclude-outbound-cidrs";
/// Pod annotation overriding `redirect.ipv6`.
pub const IPV6_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/ipv6";
/// Pod annotation overriding `redirect.inboundPorts`.
pub const INBOUND_PORTS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/inbound-ports";
/// Kubernetes' annotation of a static pod's mirror: the UID that the runtime knows it by.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Everything above: what of a pod's labels and annotations is looked at.
pub const OF_A_POD: [&str; 8] = [
    INJECT_LABEL,
    PORTS_ANNOTATION,
    PROXY_PORT_ANNOTATION,
    PROXY_UID_ANNOTATION,
    EXCLUDE_CIDRS_ANNOTATION,
    IPV6_ANNOTATION,
    INBOUND_PORTS_ANNOTATION,
    MIRROR_ANNOTATION,
];

/// RTSP's registered port (RFC 7826, section 21).
pub const RTSP_PORT: u16 = 554;
/// TCP port that the stub listens on.
pub const PROXY_PORT: u16 = 8554;
/// User ID that the stub runs as.
pub const PROXY_UID: u32 = 1337;
/// Our nftables table.
pub const TABLE: &str = "msm_cni";
