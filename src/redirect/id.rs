//! Identifies the tables and chains of msm-cni across backends, and names them for people.
//! Pure.

use std::fmt;

use super::policy::Family;
use super::rules::Scope;
use crate::names::TABLE;

/// A table or chain of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// The nftables table of msm-cni in that family.
    Table(Scope),
    /// A chain of that table.
    Chain { scope: Scope, chain: String },
    /// A chain of iptables.
    IptablesChain {
        variant: Variant,
        family: Family,
        table: String,
        chain: String,
    },
}

/// The kernel subsystem that an iptables executable uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Nft,
    Legacy,
}

impl Variant {
    /// The command of one family.
    pub const fn command(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::Ipv4) => "iptables-nft",
            (Self::Nft, Family::Ipv6) => "ip6tables-nft",
            (Self::Legacy, Family::Ipv4) => "iptables-legacy",
            (Self::Legacy, Family::Ipv6) => "ip6tables-legacy",
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Table(scope) => write!(f, "table {} {TABLE}", scope.name()),
            Self::Chain { scope, chain } => write!(f, "chain {} {TABLE} {chain}", scope.name()),
            Self::IptablesChain {
                variant,
                family,
                table,
                chain,
            } => {
                let command = variant.command(*family);
                write!(f, "chain {chain} in table {table} of {command}")
            }
        }
    }
}
