//! The redirect of a pod's RTSP traffic to its stub, inside the pod's network namespace.
//! Knows nothing of Kubernetes, CNI or command lines.
//!
//! `rules` computes the expected rules, `nft` and `iptables` program them into the kernel and
//! read them back, `diff` compares, and `netns` enters the network namespace.

pub mod diff;
pub mod id;
pub mod iptables;
mod netns;
pub mod nft;
pub mod parameters;
pub mod policy;
pub mod rules;

use crate::text::error_chain;

pub use diff::{Change, Difference};
pub use netns::{Error as NetnsError, Netns};
pub use policy::Backend;
pub use rules::Redirect;

/// Why a redirect cannot be written, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nftables")]
    Nftables { source: nft::Error },
    #[error("iptables")]
    Iptables { source: iptables::Error },
    #[error(
        "neither nftables ({}) nor iptables can be used",
        error_chain(nftables)
    )]
    Neither {
        nftables: Box<nft::Error>,
        source: iptables::Error,
    },
}

/// A cause that a user of the program can remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The kernel lacks nftables or a part of it.
    NftablesUnsupported,
    /// Another process owns the nftables table.
    TableOwned,
    IptablesNotInstalled,
    /// Rules of iptables-nft exist, but not the executable that can change them.
    IptablesNftNotInstalled,
    /// `NftablesUnsupported` and `IptablesNotInstalled`.
    NoBackend,
    Other,
}

impl Error {
    pub const fn cause(&self) -> Cause {
        match self {
            Self::Nftables { source } => match source {
                nft::Error::Unsupported { .. } => Cause::NftablesUnsupported,
                nft::Error::Owned { .. } => Cause::TableOwned,
                _ => Cause::Other,
            },
            Self::Iptables { source } => match source {
                iptables::Error::NotInstalled => Cause::IptablesNotInstalled,
                iptables::Error::NftNotInstalled => Cause::IptablesNftNotInstalled,
                _ => Cause::Other,
            },
            Self::Neither { .. } => Cause::NoBackend,
        }
    }

    /// Whether the selected backend is unavailable, as opposed to failing.
    pub const fn is_unsupported(&self) -> bool {
        match self {
            Self::Nftables { source } => source.is_unsupported(),
            Self::Iptables { source } => matches!(source, iptables::Error::NotInstalled),
            Self::Neither { .. } => true,
        }
    }
}

/// Programs exactly the rules of `redirect` in the calling thread's network namespace, and
/// removes those of the other backend.
pub fn apply(redirect: &Redirect, backend: Backend) -> Result<Change, Error> {
    match backend {
        Backend::Nftables => apply_nftables(redirect),
        Backend::Iptables => apply_iptables(redirect),
        Backend::Auto => match apply_nftables(redirect) {
            Err(Error::Nftables { source }) if source.is_unsupported() => {
                log::info!(
                    "nftables unavailable, using iptables: {}",
                    error_chain(&source)
                );
                apply_iptables(redirect).map_err(|error| or_neither(error, source))
            }
            outcome => outcome,
        },
    }
}

/// Returns the first difference between the calling thread's network namespace and the rules
/// of `redirect` in that backend. `Backend::Auto` is the backend that has rules of msm-cni.
pub fn check(redirect: &Redirect, backend: Backend) -> Result<Option<Difference>, Error> {
    let nftables = match nft::read() {
        // Without nftables there are no tables.
        Err(error) if error.is_unsupported() && backend != Backend::Nftables => {
            nft::State::default()
        }
        state => state.map_err(|source| Error::Nftables { source })?,
    };
    let iptables = iptables::read(&nftables.tables).map_err(|source| Error::Iptables { source })?;
    let uses_nftables = match backend {
        Backend::Nftables => true,
        Backend::Iptables => false,
        Backend::Auto => !nftables.listing.is_empty() || iptables.listing.is_empty(),
    };
    let expected = if uses_nftables {
        nft::expected(redirect, &nftables.listing)
    } else {
        iptables::expected(redirect, iptables.holder)
            .map_err(|source| Error::Iptables { source })?
    };
    // Of both backends, so that a second redirect is a difference.
    let mut actual = nftables.listing;
    actual.0.extend(iptables.listing.0);
    Ok(expected.diff(&actual))
}

/// Removes the rules of both backends from the calling thread's network namespace; returns
/// whether there were any.
pub fn remove() -> Result<bool, Error> {
    let tables = remove_nftables()?;
    let iptables = iptables::remove(&tables).map_err(|source| Error::Iptables { source })?;
    Ok(nft::has_redirect(&tables) || iptables)
}

fn apply_nftables(redirect: &Redirect) -> Result<Change, Error> {
    let applied = nft::apply(redirect).map_err(|source| Error::Nftables { source })?;
    iptables::remove(&applied.tables).map_err(|source| Error::Iptables { source })?;
    Ok(applied.change)
}

fn apply_iptables(redirect: &Redirect) -> Result<Change, Error> {
    let change = iptables::apply(redirect).map_err(|source| Error::Iptables { source })?;
    remove_nftables()?;
    Ok(change)
}

/// The error of iptables after nftables was unsupported.
fn or_neither(error: Error, nftables: nft::Error) -> Error {
    match error {
        Error::Iptables {
            source: source @ iptables::Error::NotInstalled,
        } => Error::Neither {
            nftables: Box::new(nftables),
            source,
        },
        other => other,
    }
}

/// Returns the tables from before the removal.
fn remove_nftables() -> Result<nft::Tables, Error> {
    match nft::remove() {
        // Without nftables there are no tables.
        Err(error) if error.is_unsupported() => Ok(nft::Tables::default()),
        tables => tables.map_err(|source| Error::Nftables { source }),
    }
}
