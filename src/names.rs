//! Names and numbers that other programs see: applets, files, pod labels and annotations,
//! default ports and UID, the nftables table. Constants only.

/// The CNI plugin, run by the container runtime.
pub const CNI_APPLET: &str = "msm-cni";
/// The command line tool for redirects.
pub const IPTABLES_APPLET: &str = "msm-iptables";
/// The installer, run by the `DaemonSet`.
pub const INSTALLER_APPLET: &str = "installer";
/// The installer's name in older manifests.
pub const INSTALLER_ALIAS: &str = "install-cni";

/// The executable that all applets are symlinks to.
pub const EXECUTABLE: &str = "msm";
/// The plugin's kubeconfig. The name sorts last and has no extension that a runtime loads.
pub const KUBECONFIG_FILE: &str = "ZZZ-msm-cni-kubeconfig";
/// The plugin's configuration, if it is not chained.
pub const STAND_ALONE_FILE: &str = "YYY-msm-cni.conf";
/// Appended to the name of a `.conf` while the `.conflist` converted from it is in use.
pub const ORIGINAL_SUFFIX: &str = ".msm-cni-original";
/// Prepended to the name of a file while it is being written.
pub const TEMPORARY_PREFIX: &str = ".msm-cni-temporary-";

/// Pod label that enables the redirect, unless its value is `false`.
pub const INJECT_LABEL: &str = "sidecar.mediastreamingmesh.io/inject";
/// Pod annotation that overrides `redirect.ports`.
pub const PORTS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/redirect-ports";
/// Pod annotation that overrides `redirect.proxyPort`.
pub const PROXY_PORT_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/proxy-port";
/// Pod annotation that overrides `redirect.proxyUID`.
pub const PROXY_UID_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/proxy-uid";
/// Pod annotation that overrides `redirect.excludeCIDRs`.
pub const EXCLUDE_CIDRS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/exclude-outbound-cidrs";
/// Pod annotation that overrides `redirect.ipv6`.
pub const IPV6_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/ipv6";
/// Pod annotation that overrides `redirect.inboundPorts`.
pub const INBOUND_PORTS_ANNOTATION: &str = "sidecar.mediastreamingmesh.io/inbound-ports";
/// Annotation of a static pod's mirror pod: the UID by which the runtime knows the pod.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The labels and annotations that are read from a pod; all others are skipped.
pub const POD_METADATA_KEYS: [&str; 8] = [
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
/// The nftables table of msm-cni, in every family.
pub const TABLE: &str = "msm_cni";
