//! Plans as plain values: a plan lists steps, and each step changes one file. `apply` carries
//! them out. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use super::observe::FileSnapshot;
use crate::fs::Owner;

/// Steps to take in order, and reasons why they do not lead to the desired state. The disk is
/// in the desired state if both are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// What has to change on the node first; shown to people.
    pub waiting: Vec<String>,
}

impl Plan {
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }

    /// Adds a repair.
    pub fn push(&mut self, action: Action, reason: impl Into<String>) {
        self.push_for(Cause::Repair, action, reason);
    }

    pub fn push_for(&mut self, cause: Cause, action: Action, reason: impl Into<String>) {
        self.steps.push(Step {
            action,
            reason: reason.into(),
            cause,
        });
    }

    pub fn remove(&mut self, path: PathBuf, reason: &str) {
        self.push(Action::Remove { path }, reason);
    }

    pub fn wait(&mut self, reason: String) {
        self.waiting.push(reason);
    }
}

/// One change, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    pub reason: String,
    pub cause: Cause,
}

/// Why a step is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The desired state changed, for example by a token rotation.
    Renewal,
    /// The disk drifted.
    Repair,
}

/// A change of one file; each is atomic.
#[derive(PartialEq, Eq)]
pub enum Action {
    /// Installs a copy of the running executable.
    CopyExecutable {
        path: PathBuf,
        mode: u32,
    },
    Link {
        path: PathBuf,
        target: &'static str,
    },
    Write {
        path: PathBuf,
        content: Vec<u8>,
        mode: u32,
        /// `None`: this process's user and group.
        owner: Option<Owner>,
        /// The observed content, which may be replaced. `None`: anything may be replaced.
        instead_of: Option<Vec<u8>>,
    },
    /// Renames a file with this content.
    BackUp {
        path: PathBuf,
        backup: PathBuf,
        content: Vec<u8>,
    },
    /// Renames a backup to its former name.
    Restore {
        path: PathBuf,
        backup: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Makes earlier changes in a directory safe from a power loss.
    Sync {
        path: PathBuf,
    },
}

/// How the mode or owner of a file that only msm-cni writes differs from the desired one.
pub fn metadata_drift(snapshot: &FileSnapshot, mode: u32, own_uid: u32) -> Option<String> {
    if snapshot.mode != mode {
        return Some(format!("its mode was {:04o}", snapshot.mode));
    }
    let uid = snapshot.owner.uid;
    (uid != own_uid).then(|| format!("it belonged to user {uid}"))
}

impl Action {
    /// The file that changes; of a rename, the old name.
    pub fn path(&self) -> &Path {
        match self {
            Self::CopyExecutable { path, .. }
            | Self::Link { path, .. }
            | Self::Write { path, .. }
            | Self::BackUp { path, .. }
            | Self::Restore { backup: path, .. }
            | Self::Remove { path }
            | Self::Sync { path } => path,
        }
    }
}

/// For the log, in the past tense. Contents are left out: they may hold a token.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = self.path().display();
        match self {
            Self::CopyExecutable { .. } => write!(f, "copied the executable to {path}"),
            Self::Link { target, .. } => write!(f, "linked {path} to {target}"),
            Self::Write { mode, .. } => write!(f, "wrote {path} with mode {mode:04o}"),
            Self::BackUp {
                path: from,
                backup: to,
                ..
            }
            | Self::Restore {
                path: to,
                backup: from,
            } => {
                write!(f, "renamed {} to {}", from.display(), to.display())
            }
            Self::Remove { .. } => write!(f, "removed {path}"),
            Self::Sync { .. } => write!(f, "synced {path}"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
