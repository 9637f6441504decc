//! The redirect: a pod's RTSP traffic to its stub, inside the pod's network namespace.
//! Knows nothing of Kubernetes or of CNI.
//!
//! `rules` says what is wanted, `listing` where what is there differs; `nft` and
//! `iptables` bring the kernel from one to the other, in the calling thread's namespace;
//! `netns` gets a thread there, and `tool` runs what the host has for it.

mod diff;
pub mod iptables;
mod netns;
pub mod nft;
pub mod parameters;
pub mod policy;
pub mod rules;

use std::fmt;

use crate::text::error_chain;

pub use diff::Difference;
pub use netns::{Error as NetnsError, Netns};
pub use policy::Backend;
pub use rules::Redirect;

/// For `fuzzing`, which asks them by themselves.
#[cfg(any(test, fuzzing))]
pub mod parts {
    pub use super::diff::{Listed, Listing};
    pub use super::nft::expression::{Expression, compile, decode, decompile, encode};
    pub use super::nft::heading;
    pub use super::nft::netlink::{Attributes, Reply, attribute, attributes, replies};
    pub use super::policy::Family;
    pub use super::rules::{RuleSet, Scope};
}

/// Why a redirect could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("using nftables")]
    Nftables { source: nft::Error },
    #[error("using iptables")]
    Iptables { source: iptables::Error },
    #[error("neither nftables nor iptables can be used: {}", error_chain(nftables))]
    Neither {
        nftables: Box<nft::Error>,
        source: iptables::Error,
    },
}

impl Error {
    /// Whether the backend that was asked for is not there, as opposed to one that is
    /// there and refused.
    pub const fn is_unsupported(&self) -> bool {
        match self {
            Self::Nftables { source } => source.is_unsupported(),
            Self::Iptables { source } => matches!(source, iptables::Error::NoTool),
            Self::Neither { .. } => true,
        }
    }

    /// The same after nftables was not there either.
    fn after(self, nftables: nft::Error) -> Self {
        match self {
            Self::Iptables {
                source: source @ iptables::Error::NoTool,
            } => Self::Neither {
                nftables: Box::new(nftables),
                source,
            },
            other => other,
        }
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

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::None => "it was already",
            Self::Created => "its rules are new",
            Self::Replaced => "its rules were replaced",
        })
    }
}

/// Brings the calling thread's namespace to hold exactly the rules of `redirect`, by that
/// backend and no other.
pub fn apply(redirect: &Redirect, backend: Backend) -> Result<Change, Error> {
    match backend {
        Backend::Nftables => apply_nftables(redirect),
        Backend::Iptables => apply_iptables(redirect),
        Backend::Auto => match apply_nftables(redirect) {
            Err(Error::Nftables { source }) if source.is_unsupported() => {
                log::info!("{source}: using iptables");
                apply_iptables(redirect).map_err(|error| error.after(source))
            }
            outcome => outcome,
        },
    }
}

fn apply_nftables(redirect: &Redirect) -> Result<Change, Error> {
    let (change, tables) = nft::apply(redirect).map_err(|source| Error::Nftables { source })?;
    iptables::remove(&tables).map_err(|source| Error::Iptables { source })?;
    Ok(change)
}

fn apply_iptables(redirect: &Redirect) -> Result<Change, Error> {
    let change = iptables::apply(redirect).map_err(|source| Error::Iptables { source })?;
    remove_nftables()?;
    Ok(change)
}

/// The first difference between what the calling thread's namespace holds and `redirect`,
/// written by that backend and no other; with `Backend::Auto` by the one that holds
/// something of ours.
pub fn check(redirect: &Redirect, backend: Backend) -> Result<Option<Difference>, Error> {
    let (mut found, tables) = match nft::found() {
        Err(unsupported) if unsupported.is_unsupported() && backend != Backend::Nftables => {
            Default::default()
        }
        found => found.map_err(|source| Error::Nftables { source })?,
    };
    let iptables = |source| Error::Iptables { source };
    let (others, holder) = iptables::found(&tables).map_err(iptables)?;
    let by_nftables = match backend {
        Backend::Nftables => true,
        Backend::Iptables => false,
        Backend::Auto => !found.is_empty() || others.is_empty(),
    };
    let wanted = if by_nftables {
        nft::wanted(redirect, &found)
    } else {
        iptables::wanted(redirect, holder).map_err(iptables)?
    };
    // Together, so that a second redirect, of whatever form, is one too many.
    found.0.extend(others.0);
    Ok(wanted.first_difference(&found))
}

/// Removes every rule of ours from the calling thread's namespace, whichever backend wrote
/// it; says whether there was any.
pub fn remove() -> Result<bool, Error> {
    let (nftables, tables) = remove_nftables()?;
    let iptables = iptables::remove(&tables).map_err(|source| Error::Iptables { source })?;
    Ok(nftables || iptables)
}

/// Says whether there was anything, and which tables there were.
fn remove_nftables() -> Result<(bool, nft::Tables), Error> {
    match nft::remove() {
        Err(unsupported) if unsupported.is_unsupported() => Ok(Default::default()),
        removed => removed.map_err(|source| Error::Nftables { source }),
    }
}
