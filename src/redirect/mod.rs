//! The redirect: a pod's RTSP traffic to its stub, inside the pod's network namespace.
//! Knows nothing of Kubernetes or of CNI.
//!
//! `rules` says what is wanted, `listing` where what is there differs; `nft` and
//! `iptables` bring the kernel from one to the other, in the calling thread's namespace;
//! `netns` gets a thread there.

pub mod cli;
mod expression;
mod iptables;
mod listing;
mod netlink;
mod netns;
mod nft;
mod rules;
mod script;
mod value;

pub use listing::Difference;
pub use netns::{Error as NetnsError, Netns};
pub use rules::Redirect;
pub use value::{Backend, Cidr, Ipv6Mode, ParseError, Port, Uid};

/// Why a redirect could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("redirecting by nftables")]
    Nftables { source: nft::Error },
    #[error("redirecting by iptables")]
    Iptables { source: iptables::Error },
}

impl Error {
    /// Whether the backend that was asked for is not there, as opposed to one that is
    /// there and refused.
    pub const fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::Nftables { source: nft::Error::Unsupported { .. } }
                | Self::Iptables { source: iptables::Error::NoTool }
        )
    }
}

/// What `apply` had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was there already, and right.
    None,
    /// There was nothing before.
    Created,
    /// There was something else of ours before.
    Replaced,
}

/// Brings the calling thread's namespace to hold exactly the rules of `redirect`, by that
/// backend and no other.
pub fn apply(redirect: &Redirect, backend: Backend) -> Result<Change, Error> {
    match backend {
        Backend::Nftables => apply_nftables(redirect),
        Backend::Iptables => apply_iptables(redirect),
        Backend::Auto => match apply_nftables(redirect) {
            Err(unsupported) if unsupported.is_unsupported() => {
                log::info!("{unsupported}: not offered here, using iptables");
                apply_iptables(redirect)
            }
            outcome => outcome,
        },
    }
}

fn apply_nftables(redirect: &Redirect) -> Result<Change, Error> {
    let change = nft::apply(redirect).map_err(|source| Error::Nftables { source })?;
    iptables::remove().map_err(|source| Error::Iptables { source })?;
    Ok(change)
}

fn apply_iptables(redirect: &Redirect) -> Result<Change, Error> {
    let change = iptables::apply(redirect).map_err(|source| Error::Iptables { source })?;
    remove_nftables()?;
    Ok(change)
}

/// The first difference between what the calling thread's namespace holds and `redirect`;
/// with `Backend::Auto` of the backend that holds something of ours.
pub fn check(redirect: &Redirect, backend: Backend) -> Result<Option<Difference>, Error> {
    let nftables = || nft::check(redirect).map_err(|source| Error::Nftables { source });
    let iptables = || iptables::check(redirect).map_err(|source| Error::Iptables { source });
    match backend {
        Backend::Nftables => nftables(),
        Backend::Iptables => iptables(),
        Backend::Auto => {
            let by_nftables = match nft::exists() {
                Err(nft::Error::Unsupported { .. }) => false,
                answer => answer.map_err(|source| Error::Nftables { source })?,
            };
            let holder = iptables::in_place().map_err(|source| Error::Iptables { source })?;
            match (by_nftables, holder) {
                (true, _) => nftables(),
                (false, Some(_)) => iptables(),
                (false, None) => Ok(Some(Difference::Missing)),
            }
        }
    }
}

/// Removes every rule of ours from the calling thread's namespace, whichever backend wrote
/// it; says whether there was any.
pub fn remove() -> Result<bool, Error> {
    let nftables = remove_nftables()?;
    let iptables = iptables::remove().map_err(|source| Error::Iptables { source })?;
    Ok(nftables || iptables)
}

fn remove_nftables() -> Result<bool, Error> {
    match nft::remove() {
        Err(nft::Error::Unsupported { .. }) => Ok(false),
        removed => removed.map_err(|source| Error::Nftables { source }),
    }
}
