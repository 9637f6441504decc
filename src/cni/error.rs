//! Everything that can end a request, and the one place that gives it a CNI code.
//! Codes below 100 are the specification's; 100 and up are documented in the README.

use std::io;
use std::path::PathBuf;

use crate::cni::config;
use crate::cni::reply;
use crate::cni::request;
use crate::decision;
use crate::redirect::{Cause, Difference};
use crate::{kube, redirect};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Request(#[from] request::Error),
    #[error("reading the network configuration from standard input")]
    Stdin { source: io::Error },
    #[error(
        "the network configuration on standard input is larger than {limit} bytes; look for what fills it in the node's CNI configuration and in the previous plugin's result"
    )]
    StdinTooLarge { limit: u64 },
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(
        "unknown CNI_COMMAND {command:?}; this plugin knows ADD, DEL, CHECK, GC, STATUS and VERSION"
    )]
    UnknownVerb { command: String },
    #[error(
        "the configuration's CNI version {version} has no {verb}, which came with {since}; to use it, set a newer cniVersion in the node's CNI configuration"
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
    #[error("was the pod deleted? its network namespace does not exist: CNI_NETNS {path:?}")]
    NetnsGone { path: PathBuf },
    #[error(
        "CNI_NETNS {path} is this plugin's own network namespace, and a redirect there would be the node's; if that is meant, set CNI_NETNS_OVERRIDE to 1"
    )]
    OwnNetns { path: String },
    #[error(transparent)]
    Lookup(#[from] Box<kube::Error>),
    #[error("pod {pod} cannot be redirected as its annotations say; correct them")]
    Annotation {
        pod: String,
        source: decision::InvalidAnnotation,
    },
    #[error("the redirect of pod {pod} cannot be set")]
    Apply {
        pod: String,
        source: redirect::Error,
    },
    #[error("the redirect of pod {pod} cannot be read")]
    Read {
        pod: String,
        source: redirect::Error,
    },
    #[error(
        "the redirect of pod {pod} is not as it should be: {difference}; delete the pod, so that it is made anew"
    )]
    Differs { pod: String, difference: Difference },
    #[error(transparent)]
    NoKubeconfig(Box<kube::Error>),
    #[error("no pod could be redirected now: no network namespace could be entered")]
    NoNetns { source: redirect::NetnsError },
    #[error("no pod could be redirected now: its rules could not be written")]
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
                | config::Error::Server { .. }
                | config::Error::Value { .. },
            )
            | Self::Reply(reply::Error::Missing { .. })
            | Self::Annotation { .. } => 7,
            Self::Netns(_) | Self::NetnsGone { .. } | Self::OwnNetns { .. } => 8,
            Self::Lookup(source) => lookup_code(source),
            Self::NoKubeconfig(_) | Self::NoNetns { .. } | Self::NoBackend { .. } => 50,
            Self::Apply { source, .. } | Self::Read { source, .. } => redirect_code(source),
            Self::Differs { .. } => 113,
        }
    }

    /// What the user can do. The reply appends it to the message.
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Netns(error) => netns_advice(error),
            Self::Apply { source, .. } | Self::Read { source, .. } | Self::NoBackend { source } => {
                redirect_advice(source)
            }
            _ => None,
        }
    }
}

const fn redirect_advice(error: &redirect::Error) -> Option<&'static str> {
    match error.cause() {
        Cause::NftablesUnsupported => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, or set interceptName to iptables",
        ),
        Cause::TableOwned => Some("end that process"),
        Cause::IptablesNotInstalled => {
            Some("install iptables on the node, or set interceptName to nftables")
        }
        Cause::NoBackend => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, or install iptables there",
        ),
        Cause::Other => None,
    }
}

const fn netns_advice(error: &redirect::NetnsError) -> Option<&'static str> {
    match error {
        redirect::NetnsError::InvalidPath { .. } => {
            Some("give a full path such as /run/netns/NAME, without a trailing slash")
        }
        redirect::NetnsError::Proc { .. } => Some("check that /proc is mounted"),
        _ => None,
    }
}

const fn lookup_code(error: &kube::Error) -> u32 {
    match error {
        kube::Error::Overloaded { .. } => 11,
        kube::Error::Unreachable { .. } => 100,
        kube::Error::Untrusted { .. } => 101,
        kube::Error::Unauthorized { .. } => 102,
        kube::Error::Forbidden { .. } => 103,
        kube::Error::NotFound { .. } => 104,
        kube::Error::Replaced { .. } => 105,
        kube::Error::BadAnswer { .. } => 106,
        kube::Error::Kubeconfig { .. } => 107,
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
