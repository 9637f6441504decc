//! Why msm-cni does not load a file of the runtime's configuration directory. Pure.

use crate::json;

/// Why msm-cni does not load a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Json { source: json::Error },
    #[error("name is missing")]
    NoName,
    #[error("name is empty, which only some container runtimes accept")]
    EmptyName,
    #[error("plugins is missing, empty or not an array of objects")]
    NoPlugins,
    #[error("a plugin has no type")]
    NoType,
    #[error("{key} has the wrong JSON type")]
    WrongType { key: &'static str },
}

impl Error {
    /// Whether no runtime would load the file either.
    pub const fn is_certain(&self) -> bool {
        !matches!(
            self,
            // Go's decoder replaces bytes that are not UTF-8 and has higher limits; CRI-O names
            // the network after the file.
            Self::Json {
                source: json::Error::NotUtf8 { .. }
                    | json::Error::TooDeep
                    | json::Error::TooManyMembers
            } | Self::EmptyName
        )
    }
}
