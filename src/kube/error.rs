//! Errors of a request, of one attempt to look up a pod, and of the whole lookup, and the
//! decision whether an attempt is repeated. No error contains a token or a key.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::AlertDescription;

use super::config::client_config::ConfigError;
use super::pod::PodDecodeError;

/// Why a pod lookup failed.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The kubeconfig, or a file that it names, cannot be used.
    #[error("kubeconfig {} cannot be used", .path.display())]
    Kubeconfig { path: PathBuf, source: ConfigError },
    /// The last attempt failed and is not repeated.
    #[error("{failure} ({attempts})")]
    Failed {
        failure: LookupFailure,
        attempts: Attempts,
        source: AttemptError,
    },
}

/// The class of an attempt's error. Message, retry decision and exit code depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupFailure {
    #[error("the API server does not respond")]
    Unreachable,
    #[error("the API server's certificate is not trusted")]
    Untrusted,
    /// 401, or the client certificate was rejected.
    #[error("the API server rejected the kubeconfig's credentials")]
    Unauthorized,
    /// 403.
    #[error("the API server denied access to the pod")]
    Forbidden,
    /// 404.
    #[error("the pod does not exist")]
    NotFound,
    /// The UID differs.
    #[error("the pod was replaced by another pod with the same name")]
    Replaced,
    /// 429 or 5xx.
    #[error("the API server is overloaded or failing")]
    Overloaded,
    #[error("the API server did not return a pod")]
    UnexpectedResponse,
}

/// What may follow a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again, without the API server's cache.
    BypassCache,
    /// Read the kubeconfig again, then try again.
    ReloadConfig,
    Again,
    /// The next attempt would fail too. The runtime starts the pod again anyway, and a fast
    /// error shows the cause.
    Never,
}

/// The attempts of a lookup.
#[derive(Debug, Clone)]
pub struct Attempts {
    /// The URL of the last request.
    pub url: String,
    pub count: u32,
    /// Since the lookup started.
    pub elapsed: Duration,
}

/// Why one attempt to look up a pod failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Decode(#[from] PodDecodeError),
    /// Namespace or name differ.
    #[error("response is a different pod")]
    OtherPod,
    #[error("pod has UID {actual}, expected {expected}")]
    Replaced { actual: String, expected: String },
}

/// Why a GET did not return a body.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No connection, or it was closed before the end of the response.
    #[error("connection failed")]
    Transport { source: ureq::Error },
    #[error("request timed out")]
    Timeout { source: ureq::Error },
    /// Issued by another CA or for another name, or expired.
    #[error("server certificate was rejected")]
    Certificate { source: rustls::Error },
    /// The server ended the handshake because of the client certificate, or of its absence.
    #[error("server rejected or requires a client certificate")]
    ClientCertificate { source: rustls::Error },
    /// Not TLS, or no version or cipher suite in common.
    #[error("TLS protocol error")]
    Tls { source: rustls::Error },
    #[error("HTTP protocol error")]
    Http { source: ureq::Error },
    /// A status other than 200.
    #[error("HTTP status {code}{}", in_parentheses(.message.as_deref()))]
    Status {
        code: u16,
        /// `message` of the Kubernetes Status object.
        message: Option<String>,
        /// The header `Retry-After`.
        retry_after: Option<Duration>,
    },
    #[error("response is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
}

impl LookupFailure {
    const fn retry(self) -> Retry {
        match self {
            Self::Unauthorized => Retry::ReloadConfig,
            Self::NotFound | Self::Replaced => Retry::BypassCache,
            Self::Unreachable | Self::Overloaded => Retry::Again,
            Self::Untrusted | Self::Forbidden | Self::UnexpectedResponse => Retry::Never,
        }
    }
}

impl AttemptError {
    /// The lookup's error if this is the error of its last attempt.
    pub fn into_error(self, attempts: Attempts) -> LookupError {
        LookupError::Failed {
            failure: self.failure(),
            attempts,
            source: self,
        }
    }

    pub fn retry(&self) -> Retry {
        match self {
            // Cut off, as by an API server that is shutting down.
            Self::Decode(PodDecodeError::Syntax {
                truncated: true, ..
            }) => Retry::Again,
            _ => self.failure().retry(),
        }
    }

    /// The delay that the server asks for.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Request(RequestError::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    const fn failure(&self) -> LookupFailure {
        match self {
            Self::Replaced { .. } => LookupFailure::Replaced,
            Self::Decode(_) | Self::OtherPod => LookupFailure::UnexpectedResponse,
            Self::Request(error) => match error {
                RequestError::Transport { .. } | RequestError::Timeout { .. } => {
                    LookupFailure::Unreachable
                }
                RequestError::Certificate { .. } => LookupFailure::Untrusted,
                RequestError::ClientCertificate { .. } => LookupFailure::Unauthorized,
                RequestError::Status { code, .. } => match code {
                    401 => LookupFailure::Unauthorized,
                    403 => LookupFailure::Forbidden,
                    404 => LookupFailure::NotFound,
                    429 | 500..=599 => LookupFailure::Overloaded,
                    _ => LookupFailure::UnexpectedResponse,
                },
                RequestError::Tls { .. }
                | RequestError::Http { .. }
                | RequestError::TooLarge { .. } => LookupFailure::UnexpectedResponse,
            },
        }
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GET {}, tried ", self.url)?;
        match self.count {
            1 => write!(f, "once")?,
            count => write!(f, "{count} times")?,
        }
        match self.elapsed.as_secs() {
            0 => write!(f, " in {} ms", self.elapsed.as_millis()),
            _ => write!(f, " in {:.1} s", self.elapsed.as_secs_f32()),
        }
    }
}

impl From<ureq::Error> for RequestError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Timeout { source: error },
            ureq::Error::Rustls(error) => error.into(),
            ureq::Error::Io(error) => error.into(),
            ureq::Error::BodyExceedsLimit(limit) => Self::TooLarge { limit },
            ureq::Error::Http(_)
            | ureq::Error::Protocol(_)
            | ureq::Error::LargeResponseHeader(..) => Self::Http { source: error },
            _ => Self::Transport { source: error },
        }
    }
}

/// rustls wraps its errors into I/O errors.
impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::Transport {
                source: ureq::Error::Io(error),
            },
        }
    }
}

impl From<rustls::Error> for RequestError {
    fn from(error: rustls::Error) -> Self {
        use AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                Self::Certificate { source: error }
            }
            rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
                // The signature that proves possession of the key did not verify.
                | Alert::DecryptError,
            ) => Self::ClientCertificate { source: error },
            // Sent by a server that is starting or shutting down.
            rustls::Error::AlertReceived(Alert::InternalError | Alert::CloseNotify) => {
                Self::Transport {
                    source: ureq::Error::Rustls(error),
                }
            }
            _ => Self::Tls { source: error },
        }
    }
}

fn in_parentheses(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> AttemptError {
        let (message, retry_after) = (None, None);
        AttemptError::Request(RequestError::Status {
            code,
            message,
            retry_after,
        })
    }

    #[test]
    fn failure_and_retry_follow_from_the_status() {
        let table = [
            (400, LookupFailure::UnexpectedResponse, Retry::Never),
            (401, LookupFailure::Unauthorized, Retry::ReloadConfig),
            (403, LookupFailure::Forbidden, Retry::Never),
            (404, LookupFailure::NotFound, Retry::BypassCache),
            (429, LookupFailure::Overloaded, Retry::Again),
            (500, LookupFailure::Overloaded, Retry::Again),
            (503, LookupFailure::Overloaded, Retry::Again),
        ];
        for (code, failure, retry) in table {
            let error = status(code);
            assert_eq!((error.failure(), error.retry()), (failure, retry), "{code}");
        }
    }

    #[test]
    fn only_truncated_json_is_retried() {
        for (truncated, retry) in [(true, Retry::Again), (false, Retry::Never)] {
            let (line, column) = (1, 1);
            let error = AttemptError::Decode(PodDecodeError::Syntax {
                line,
                column,
                truncated,
            });
            assert_eq!(error.failure(), LookupFailure::UnexpectedResponse);
            assert_eq!(error.retry(), retry);
        }
    }

    #[test]
    fn tls_errors_of_a_server_that_is_shutting_down_are_retried() {
        let table = [
            (AlertDescription::CloseNotify, Retry::Again),
            (AlertDescription::InternalError, Retry::Again),
            (AlertDescription::UnknownCA, Retry::ReloadConfig),
            (AlertDescription::CertificateRequired, Retry::ReloadConfig),
            (AlertDescription::ProtocolVersion, Retry::Never),
        ];
        for (alert, retry) in table {
            // As ureq returns it: inside of an I/O error.
            let error = io::Error::other(rustls::Error::AlertReceived(alert));
            let error = AttemptError::Request(ureq::Error::Io(error).into());
            assert_eq!(error.retry(), retry, "{alert:?}");
        }
    }
}
