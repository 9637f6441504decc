//! Decides which installer owns the node. During a surge update two installers run, and the
//! most recently started one wins. Ownership is an advisory lock on the kubeconfig; the
//! kernel releases it when the process exits.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use crate::fs::FileId;

/// The owner of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process. Also returned if the file does not exist or cannot be locked.
    Us,
    /// An installer that started before this one.
    Older,
    /// An installer that started after this one.
    Newer,
}

/// The lock on the kubeconfig.
#[derive(Debug, Default)]
pub struct NodeLock {
    /// The kubeconfig that this process wrote or locked.
    file: Option<File>,
}

impl NodeLock {
    /// Returns the owner; acquires the lock if it is free.
    pub fn holder(&mut self, kubeconfig: &Path) -> Holder {
        match self.is_held_by_another(kubeconfig) {
            // Only a newer installer replaces the file that this process has locked.
            Ok(true) if self.file.is_some() => Holder::Newer,
            Ok(true) => Holder::Older,
            Ok(false) | Err(_) => Holder::Us,
        }
    }

    /// Keeps a kubeconfig that this process has just written.
    pub fn keep(&mut self, kubeconfig: File) {
        // Fails while another installer tests the lock, or if the file is locked already.
        let _ = kubeconfig.try_lock();
        self.file = Some(kubeconfig);
    }

    fn is_held_by_another(&mut self, path: &Path) -> io::Result<bool> {
        let metadata = path.symlink_metadata()?;
        if let Some(file) = &self.file
            && FileId::of(&file.metadata()?) == FileId::of(&metadata)
        {
            return Ok(false);
        }
        // Opening a named pipe would block.
        if !metadata.is_file() {
            return Ok(false);
        }
        let file = File::open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => self.keep(file),
        }
        Ok(false)
    }
}
