//! Errors of the nftables backend, and what the kernel's error numbers mean.

use nix::errno::Errno;

use super::netlink;

/// Why rules cannot be programmed or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the kernel does not support {what}")]
    Unsupported {
        what: String,
        source: netlink::Error,
    },
    #[error("table {table} belongs to another process (flag owner)")]
    Owned { table: String },
    #[error("CAP_NET_ADMIN is required in the network namespace")]
    NotPermitted { source: Errno },
    #[error("the kernel rejected {what} of table {table}")]
    Rejected {
        what: String,
        table: String,
        source: Errno,
    },
    #[error(transparent)]
    Netlink { source: netlink::Error },
}

impl Error {
    /// Whether this kernel lacks nftables or a part that is needed, as opposed to a
    /// temporary failure or a missing permission.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }

    /// The error of opening a socket.
    pub(super) fn opening(source: netlink::Error) -> Self {
        match &source {
            netlink::Error::Socket { source: cause } if is_unknown_protocol(cause) => {
                let what = "netlink sockets".to_owned();
                Self::Unsupported { what, source }
            }
            _ => Self::Netlink { source },
        }
    }

    /// The error of reading tables, chains or rules.
    pub(super) fn listing(source: netlink::Error) -> Self {
        match source {
            netlink::Error::Refused {
                source: Errno::EOPNOTSUPP | Errno::EINVAL,
                ..
            } => Self::Unsupported {
                what: "listing tables".to_owned(),
                source,
            },
            netlink::Error::Refused {
                source: source @ Errno::EPERM,
                ..
            } => Self::NotPermitted { source },
            source => Self::Netlink { source },
        }
    }
}

/// Whether the kernel has no netlink protocol for netfilter, as opposed to a lack of memory
/// or permission.
fn is_unknown_protocol(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT))
}
