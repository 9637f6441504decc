//! Why no pod came back: one attempt's failure, and what all of them together come to.
//! Every text says what was tried and what to do; none holds a token or a key.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::kube::config::client_config::ConfigError;
use crate::kube::pod::PodDecodeError;

/// Why a pod could not be fetched. The source is the last attempt's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No request was possible.
    #[error("the kubeconfig {} cannot be used; the installer of msm-cni writes it", .path.display())]
    Kubeconfig {
        /// The kubeconfig.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// No answer until the deadline.
    #[error(
        "the Kubernetes API server does not answer ({tried}); check that it runs and that this node reaches it"
    )]
    Unreachable {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// Not the server that the kubeconfig's authority vouches for.
    #[error(
        "the API server's certificate is not to be trusted ({tried}); check its names and dates, and the kubeconfig's server and certificate-authority"
    )]
    Untrusted {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// 401, or our client certificate refused, until the deadline.
    #[error(
        "the API server does not accept our credentials ({tried}); check the kubeconfig's token or client certificate"
    )]
    Unauthorized {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// 403.
    #[error(
        "the API server does not let us read the pod ({tried}); the kubeconfig's account needs the verb get on pods"
    )]
    Forbidden {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// 404 until the deadline.
    #[error("the API server knows no such pod ({tried}); it was probably deleted meanwhile")]
    NotFound {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// Another pod has the name now.
    #[error(
        "the pod has been replaced by another one of the same name ({tried}); this sandbox is obsolete"
    )]
    Replaced {
        /// What was tried.
        tried: Attempts,
        /// Both UIDs.
        source: Failure,
    },
    /// 429 or 5xx until the deadline.
    #[error("the API server is overloaded or failing ({tried}); the pod's next start asks again")]
    Overloaded {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
    /// Something answered that no API server says to this question.
    #[error(
        "what the kubeconfig's server answers is not a pod ({tried}); check that it is the address of a Kubernetes API server"
    )]
    BadAnswer {
        /// What was tried.
        tried: Attempts,
        /// The last failure.
        source: Failure,
    },
}

/// What was tried, how often and for how long.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// Of the last request.
    pub url: String,
    /// How many requests.
    pub attempts: u32,
    /// From first to last.
    pub elapsed: Duration,
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GET {}, tried ", self.url)?;
        match self.attempts {
            1 => write!(f, "once")?,
            attempts => write!(f, "{attempts} times")?,
        }
        match self.elapsed.as_secs() {
            0 => write!(f, " in {} ms", self.elapsed.as_millis()),
            _ => write!(f, " in {:.1} s", self.elapsed.as_secs_f32()),
        }
    }
}

/// Why one attempt brought no pod.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection, no answer, or one that was cut off.
    #[error("no complete answer")]
    Transport {
        /// What the connection said.
        source: ureq::Error,
    },
    /// Our share of the deadline ran out.
    #[error("no complete answer in time")]
    Timeout {
        /// Which step took too long.
        source: ureq::Error,
    },
    /// Wrong authority, wrong name, expired, self-signed.
    #[error("its certificate was refused")]
    Certificate {
        /// Why.
        source: rustls::Error,
    },
    /// The server ended the handshake because of our certificate.
    #[error("it refused our client certificate, or wants one")]
    ClientCertificate {
        /// The alert.
        source: rustls::Error,
    },
    /// Not TLS, or none that we speak.
    #[error("it does not speak TLS as an API server does")]
    NotTls {
        /// Why.
        source: rustls::Error,
    },
    /// Not HTTP.
    #[error("it does not speak HTTP as an API server does")]
    NotHttp {
        /// Why.
        source: ureq::Error,
    },
    /// A status other than 200.
    #[error("it answered with status {code}{}", .message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Status {
        /// HTTP status.
        code: u16,
        /// `message` of the Kubernetes Status object.
        message: Option<String>,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// An answer without end, or nearly.
    #[error("its answer is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// 200 with something else.
    #[error(transparent)]
    PodDecodeError(#[from] PodDecodeError),
    /// The pod's UID is not the sandbox's.
    #[error("the pod there has the UID {found}, the sandbox is of {wanted}")]
    Replaced {
        /// `metadata.uid`.
        found: String,
        /// `K8S_POD_UID`.
        wanted: String,
    },
}

/// What follows from an attempt's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Ask again, without the cache.
    Missing,
    /// Read the kubeconfig again, then ask again.
    Unauthorized,
    /// Ask again.
    Retry,
    /// Asking again would change nothing.
    GiveUp,
}

impl Failure {
    /// What follows. A server that is the wrong one, or that means it, is not asked again:
    /// the runtime starts the pod once more anyway, and a fast answer says what is wrong.
    pub fn verdict(&self) -> Retry {
        match self {
            Self::ClientCertificate { .. } | Self::Status { code: 401, .. } => Retry::Unauthorized,
            Self::Status { code: 404, .. } | Self::Replaced { .. } => Retry::Missing,
            Self::Transport { .. }
            | Self::Timeout { .. }
            | Self::Status { code: 429 | 500..=599, .. }
            // Cut off in the middle, as when the API server is stopped.
            | Self::PodDecodeError(PodDecodeError::Syntax { truncated: true, .. }) => Retry::Retry,
            Self::Certificate { .. }
            | Self::NotTls { .. }
            | Self::NotHttp { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::PodDecodeError(_) => Retry::GiveUp,
        }
    }

    /// The pause that the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What the failure comes to when it was the last one.
    pub fn after(self, tried: Attempts) -> Error {
        let source = self;
        match source {
            Self::Transport { .. } | Self::Timeout { .. } => Error::Unreachable { tried, source },
            Self::Certificate { .. } => Error::Untrusted { tried, source },
            Self::ClientCertificate { .. } | Self::Status { code: 401, .. } => {
                Error::Unauthorized { tried, source }
            }
            Self::Status { code: 403, .. } => Error::Forbidden { tried, source },
            Self::Status { code: 404, .. } => Error::NotFound { tried, source },
            Self::Status {
                code: 429 | 500..=599,
                ..
            } => Error::Overloaded { tried, source },
            Self::Replaced { .. } => Error::Replaced { tried, source },
            Self::NotTls { .. }
            | Self::NotHttp { .. }
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::PodDecodeError(_) => Error::BadAnswer { tried, source },
        }
    }
}
