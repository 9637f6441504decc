//! Everything that can end a request, and the one place that gives it a CNI code.
//! Codes below 100 are the specification's; 100 and up are documented in the README.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::cni::config;
use crate::cni::reply;
use crate::cni::request;
use crate::decision;
use crate::kube::{self, LookupFailure};
use crate::redirect::{self, Difference};

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
    Lookup(#[from] FailedLookup),
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
    NoKubeconfig(FailedLookup),
    #[error("no pod could be redirected now: no network namespace could be entered")]
    NoNetns { source: redirect::NetnsError },
    #[error("no pod could be redirected now: its rules could not be written")]
    NoBackend { source: redirect::Error },
}

impl From<redirect::NetnsError> for Error {
    fn from(source: redirect::NetnsError) -> Self {
        match source {
            redirect::NetnsError::Gone { path } => Self::NetnsGone { path },
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
            Self::Lookup(error) => error.code(),
            Self::NoKubeconfig(_) | Self::NoNetns { .. } | Self::NoBackend { .. } => 50,
            Self::Apply { source, .. } | Self::Read { source, .. } => redirect_code(source),
            Self::Differs { .. } => 113,
        }
    }
}

/// The error of a pod lookup, with advice for the user.
#[derive(Debug)]
pub struct FailedLookup(Box<kube::LookupError>);

impl FailedLookup {
    const fn code(&self) -> u32 {
        self.code_and_advice().0
    }

    const fn code_and_advice(&self) -> (u32, &'static str) {
        let failure = match &*self.0 {
            kube::LookupError::Kubeconfig { .. } => {
                return (107, "the installer of msm-cni writes this file");
            }
            kube::LookupError::Failed { failure, .. } => *failure,
        };
        match failure {
            LookupFailure::Overloaded => (11, "the next start of the pod repeats the request"),
            LookupFailure::Unreachable => {
                (100, "check that it is running and reachable from this node")
            }
            LookupFailure::Untrusted => (
                101,
                "check its names and dates, and the kubeconfig's server and certificate-authority",
            ),
            LookupFailure::Unauthorized => (102, "check the token or client certificate"),
            LookupFailure::Forbidden => (103, "grant the kubeconfig's user the verb get on pods"),
            LookupFailure::NotFound => (104, "it was probably deleted in the meantime"),
            LookupFailure::Replaced => (105, "this sandbox is obsolete"),
            LookupFailure::UnexpectedResponse => (
                106,
                "check that it is the address of a Kubernetes API server",
            ),
        }
    }
}

impl From<kube::LookupError> for FailedLookup {
    fn from(error: kube::LookupError) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for FailedLookup {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (_, advice) = self.code_and_advice();
        write!(f, "{}; {advice}", self.0)
    }
}

impl std::error::Error for FailedLookup {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
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
