//! What a user of `msm-iptables` can do about an error. Pure.

use crate::redirect::{self, Cause, NetnsError};

pub const fn for_redirect(error: &redirect::Error) -> Option<&'static str> {
    match error.cause() {
        Cause::NftablesUnsupported => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet, or use --backend iptables",
        ),
        Cause::TableOwned => Some("end that process"),
        Cause::IptablesNotInstalled => Some("install iptables, or use --backend nftables"),
        // No backend helps: each one removes the rules of the others.
        Cause::IptablesNftNotInstalled => Some("install iptables-nft"),
        Cause::NoBackend => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet, or install iptables",
        ),
        Cause::Other => None,
    }
}

pub const fn for_netns(error: &NetnsError) -> Option<&'static str> {
    match error {
        NetnsError::NotFound { .. } => {
            Some("give the full path of a network namespace, such as /run/netns/NAME")
        }
        NetnsError::InvalidPath { .. } => {
            Some("give a full path such as /run/netns/NAME, without a trailing slash")
        }
        NetnsError::Open { .. } | NetnsError::NotANetns { .. } => {
            Some("give the path of a network namespace, such as /run/netns/NAME")
        }
        NetnsError::Proc { .. } => Some("check that /proc is mounted"),
        NetnsError::Denied { .. } | NetnsError::Enter { .. } | NetnsError::Create { .. } => None,
    }
}
