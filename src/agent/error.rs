//! The errors that end the agent, their exit codes, and advice about the health address.

use std::io::{self, ErrorKind};

use crate::http;
use crate::node;
use crate::process::USAGE_ERROR;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] node::Error),
    #[error("serving health on {address}: {advice}")]
    Health {
        address: http::Address,
        advice: &'static str,
        source: io::Error,
    },
    #[error("blocking signals (signalfd)")]
    Signals { source: io::Error },
    #[error("waiting for events (poll)")]
    Wait { source: io::Error },
    #[error(transparent)]
    Uninstall(#[from] node::uninstall::Error),
}

impl Error {
    pub fn health(address: http::Address, source: io::Error) -> Self {
        let advice = match source.kind() {
            ErrorKind::AddrInUse => {
                "another process on this node uses it; choose another --health-address"
            }
            ErrorKind::AddrNotAvailable => {
                "this node does not have the address; choose another --health-address"
            }
            _ => "if it is not permitted, choose another --health-address",
        };
        Self::Health {
            address,
            advice,
            source,
        }
    }

    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => USAGE_ERROR,
            Self::Health { .. } | Self::Signals { .. } | Self::Wait { .. } | Self::Uninstall(_) => {
                1
            }
        }
    }
}
