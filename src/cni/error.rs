//! Why a request failed. Only this file maps errors to CNI codes and adds advice for the user.
//! Codes below 100 are the specification's; docs/operations.md lists all of them.

use std::io;
use std::path::PathBuf;

use super::{config, reply, request};
use crate::decision;
use crate::kube::{LookupError, LookupFailure};
use crate::redirect::{self, Cause, Difference};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Request(#[from] request::Error),
    #[error("cannot read the network configuration from standard input")]
    Stdin { source: io::Error },
    #[error("the network configuration on standard input is larger than {limit} bytes")]
    StdinTooLarge { limit: u64 },
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("unknown CNI_COMMAND {command:?}")]
    UnknownVerb { command: String },
    #[error(
        "{verb} requires cniVersion {since} or newer, but the network configuration has {version}"
    )]
    VerbTooNew {
        verb: &'static str,
        version: &'static str,
        since: &'static str,
    },
    #[error(transparent)]
    Reply(#[from] reply::Error),
    #[error(transparent)]
    Netns(redirect::NetnsError),
    #[error("network namespace {path:?} in CNI_NETNS does not exist")]
    NetnsGone { path: PathBuf },
    #[error("CNI_NETNS {path:?} is the plugin's own network namespace, which is the node's")]
    OwnNetns { path: PathBuf },
    #[error(transparent)]
    Lookup(#[from] Box<LookupError>),
    #[error("pod {pod} has an invalid annotation")]
    Annotation {
        pod: String,
        source: decision::InvalidAnnotation,
    },
    #[error("cannot set the redirect of pod {pod}")]
    Apply {
        pod: String,
        source: redirect::Error,
    },
    #[error("cannot check the redirect of pod {pod}")]
    Read {
        pod: String,
        source: redirect::Error,
    },
    #[error("the redirect of pod {pod} does not match the expected rules: {difference}")]
    Differs { pod: String, difference: Difference },
    #[error(transparent)]
    NoKubeconfig(Box<LookupError>),
    #[error("pods on this node cannot be redirected: the test in a new network namespace failed")]
    NoNetns { source: redirect::NetnsError },
    #[error("pods on this node cannot be redirected: the rules cannot be set")]
    NoBackend { source: redirect::Error },
}

impl From<redirect::NetnsError> for Error {
    fn from(source: redirect::NetnsError) -> Self {
        match source {
            redirect::NetnsError::NotFound { path } => Self::NetnsGone { path },
            source => Self::Netns(source),
        }
    }
}

impl Error {
    pub const fn code(&self) -> u32 {
        match self {
            Self::Config(config::Error::Version { .. })
            | Self::VerbTooNew { .. }
            | Self::Reply(reply::Error::Version { .. }) => 1,
            Self::Request(_) | Self::UnknownVerb { .. } => 4,
            Self::Stdin { .. } => 5,
            Self::StdinTooLarge { .. }
            | Self::Config(config::Error::Decode { .. } | config::Error::Type { .. })
            | Self::Reply(reply::Error::Decode { .. } | reply::Error::Violation(_)) => 6,
            Self::Config(
                config::Error::TooLong { .. }
                | config::Error::Missing { .. }
                | config::Error::Value { .. },
            )
            | Self::Reply(reply::Error::Missing { .. })
            | Self::Annotation { .. } => 7,
            Self::Netns(_) | Self::NetnsGone { .. } | Self::OwnNetns { .. } => 8,
            Self::Lookup(error) => lookup_code(error),
            Self::NoKubeconfig(_) | Self::NoNetns { .. } | Self::NoBackend { .. } => 50,
            Self::Apply { source, .. } | Self::Read { source, .. } => redirect_code(source),
            Self::Differs { .. } => 113,
        }
    }

    /// What the user can do. The reply appends it to the message.
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::StdinTooLarge { .. } => Some(
                "check the network configuration and the result of the previous plugin in the chain",
            ),
            Self::Config(_) => {
                Some("fix the network configuration on this node, usually in /etc/cni/net.d")
            }
            Self::UnknownVerb { .. } => Some("expected ADD, DEL, CHECK, GC, STATUS or VERSION"),
            Self::VerbTooNew { .. } => Some("set a newer cniVersion in the network configuration"),
            Self::Reply(error) => Some(reply_advice(error)),
            Self::Netns(error) => Some(netns_advice(error)),
            Self::NoNetns { .. } => {
                Some("grant msm-cni CAP_SYS_ADMIN, and check the sysctl user.max_net_namespaces")
            }
            Self::Lookup(error) | Self::NoKubeconfig(error) => Some(lookup_advice(error)),
            Self::Apply { source, .. } | Self::Read { source, .. } | Self::NoBackend { source } => {
                redirect_advice(source)
            }
            Self::NetnsGone { .. } => Some("the pod was probably deleted"),
            Self::OwnNetns { .. } => Some("set CNI_NETNS_OVERRIDE=1 to redirect it anyway"),
            Self::Annotation { .. } => Some("fix the annotation and recreate the pod"),
            Self::Differs { .. } => Some("delete the pod to recreate it"),
            Self::Request(_) | Self::Stdin { .. } => None,
        }
    }
}

const fn lookup_code(error: &LookupError) -> u32 {
    match error {
        LookupError::Kubeconfig { .. } => 107,
        LookupError::Failed { failure, .. } => match failure {
            LookupFailure::Overloaded => 11,
            LookupFailure::Unreachable => 100,
            LookupFailure::Untrusted => 101,
            LookupFailure::Unauthorized => 102,
            LookupFailure::Forbidden => 103,
            LookupFailure::NotFound => 104,
            LookupFailure::Replaced => 105,
            LookupFailure::UnexpectedResponse => 106,
        },
    }
}

const fn redirect_code(error: &redirect::Error) -> u32 {
    match error {
        error if error.is_unsupported() => 111,
        redirect::Error::Neither { .. } => 111,
        redirect::Error::Nftables { .. } => 110,
        redirect::Error::Iptables { .. } => 112,
    }
}

const fn reply_advice(error: &reply::Error) -> &'static str {
    match error {
        reply::Error::Missing { .. } => {
            "place msm-cni after the plugin that creates the pod's network"
        }
        reply::Error::Version { .. } => {
            "set a cniVersion that all plugins of the network configuration support"
        }
        reply::Error::Decode { .. } | reply::Error::Violation(_) => {
            "check the previous plugin in the chain, which returned it"
        }
    }
}

const fn redirect_advice(error: &redirect::Error) -> Option<&'static str> {
    match error.cause() {
        Cause::NftablesUnsupported => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, or set interceptName to iptables",
        ),
        Cause::TableOwned => Some("stop that process"),
        Cause::IptablesNotInstalled => {
            Some("install iptables on the node, or set interceptName to nftables")
        }
        // No value of interceptName helps: each backend removes the rules of the others.
        Cause::IptablesNftNotInstalled => Some("install iptables-nft on the node"),
        Cause::NoBackend => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, or install iptables there",
        ),
        Cause::Other => None,
    }
}

const fn netns_advice(error: &redirect::NetnsError) -> &'static str {
    match error {
        redirect::NetnsError::InvalidPath { .. } => {
            "CNI_NETNS must be a full path such as /run/netns/NAME, without a trailing slash"
        }
        redirect::NetnsError::Proc { .. } => "check that /proc is mounted",
        redirect::NetnsError::Denied { .. } => {
            "read permission is required, and CAP_SYS_PTRACE for the namespace of another process"
        }
        redirect::NetnsError::Enter { .. } | redirect::NetnsError::Create { .. } => {
            "CAP_SYS_ADMIN is required, also in the user namespace that owns the network namespace"
        }
        redirect::NetnsError::NotFound { .. }
        | redirect::NetnsError::Open { .. }
        | redirect::NetnsError::NotANetns { .. } => {
            "check CNI_NETNS, which the container runtime sets"
        }
    }
}

const fn lookup_advice(error: &LookupError) -> &'static str {
    match error {
        LookupError::Kubeconfig { .. } => {
            "the msm-cni DaemonSet writes it: check its pod on this node"
        }
        LookupError::Failed { failure, .. } => match failure {
            LookupFailure::Overloaded => {
                "no action is needed unless this persists: the kubelet tries again"
            }
            LookupFailure::Unreachable => "check that it is running, and reachable from this node",
            LookupFailure::Untrusted => {
                "check the certificate's names and dates, and the kubeconfig's server and certificate-authority"
            }
            LookupFailure::Unauthorized => "check the kubeconfig's token or client certificate",
            LookupFailure::Forbidden => "grant the kubeconfig's user the verb get on pods (RBAC)",
            LookupFailure::NotFound => "it was probably deleted",
            LookupFailure::Replaced => "no action is needed: this sandbox is obsolete",
            LookupFailure::UnexpectedResponse => "check the server in the kubeconfig",
        },
    }
}
