//! What a user of `msm-iptables` can do about an error. Pure.

use crate::redirect::{self, Cause, NetnsError};

pub const fn for_redirect(error: &redirect::Error) -> Option<&'static str> {
    match error.cause() {
        Cause::NftablesUnsupported => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet, or use --backend iptables",
        ),
        Cause::TableOwned => Some("stop that process"),
        Cause::IptablesNotInstalled => Some("install iptables, or use --backend nftables"),
        // No backend helps: each one removes the rules of the others.
        Cause::IptablesNftNotInstalled => Some("install iptables-nft"),
        Cause::NoBackend => Some(
            "load the kernel modules nf_tables, nft_chain_nat, nft_redir and nft_reject_inet, or install iptables",
        ),
        Cause::Other => None,
    }
}

pub const fn for_netns(error: &NetnsError) -> &'static str {
    match error {
        NetnsError::NotFound { .. } => {
            "give the full path of a network namespace, such as /run/netns/NAME"
        }
        NetnsError::InvalidPath { .. } => {
            "give a full path such as /run/netns/NAME, without a trailing slash"
        }
        NetnsError::Open { .. } | NetnsError::NotANetns { .. } => {
            "give the path of a network namespace, such as /run/netns/NAME"
        }
        NetnsError::Proc { .. } => "check that /proc is mounted",
        NetnsError::Denied { .. } => {
            "read permission is required, and CAP_SYS_PTRACE for the namespace of another process"
        }
        NetnsError::Enter { .. } | NetnsError::Create { .. } => {
            "CAP_SYS_ADMIN is required, also in the user namespace that owns the network namespace"
        }
    }
}
