//! One change of one file, as a value that a plan lists and the agent carries out. Pure.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::fs::Owner;
use crate::node::observe::FileSnapshot;

/// What is to be done, and what has to be waited for. The disk is as it should be when
/// both are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// How many of them, from the first on, need nothing in other directories.
    pub independent: usize,
    pub waiting: Vec<String>,
    /// What somebody should know, though there is nothing to do about it.
    pub notes: Vec<String>,
    /// Whether somebody may just be writing one of the files.
    pub is_in_flux: bool,
}

impl Plan {
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }

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

/// Whether a step could have to do with somebody who changes what is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What should be there has changed: a new token.
    Renewal,
    /// What is there has changed.
    Repair,
}

/// A change of one file; each is whole or not at all.
#[derive(PartialEq, Eq)]
pub enum Action {
    /// A copy of our own executable.
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
        /// `None`: ours.
        owner: Option<Owner>,
        /// What is there; `None`: it does not matter.
        instead_of: Option<Vec<u8>>,
    },
    /// Gives what holds `content` another name.
    BackUp {
        path: PathBuf,
        backup: PathBuf,
        content: Vec<u8>,
    },
    /// And its own again.
    Restore {
        path: PathBuf,
        backup: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Makes the changes in a directory safe from a power cut.
    Sync {
        path: PathBuf,
    },
}

/// What is wrong with a file of ours, its content apart.
pub fn metadata_drift(snapshot: &FileSnapshot, mode: u32, own_uid: u32) -> Option<String> {
    if snapshot.mode != mode {
        return Some(format!("its mode was {:04o}", snapshot.mode));
    }
    let uid = snapshot.owner.uid;
    (uid != own_uid).then(|| format!("it belonged to user {uid}"))
}

impl Action {
    /// The file that changes; a renamed one under its old name.
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

/// In the past tense, for the log. Never a content, which may hold a token.
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
