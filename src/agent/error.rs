//! The errors that end the agent, their exit codes, and advice about the health address.

use std::io::{self, ErrorKind};

use crate::http;
use crate::node;
use crate::process::USAGE_ERROR;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] node::Error),
    #[error("cannot serve health on {address}")]
    Health {
        address: http::Address,
        source: io::Error,
    },
    #[error("cannot block signals (signalfd)")]
    Signals { source: io::Error },
    #[error("cannot wait for events (poll)")]
    Wait { source: io::Error },
    #[error(transparent)]
    Uninstall(#[from] node::uninstall::Error),
}

impl Error {
    /// What the user can do. Appended to the message.
    pub fn advice(&self) -> Option<&'static str> {
        let Self::Health { source, .. } = self else {
            return None;
        };
        Some(match source.kind() {
            ErrorKind::AddrInUse => {
                "stop the other process on this node, or choose another --health-address"
            }
            _ => "choose another --health-address",
        })
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
