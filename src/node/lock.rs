//! Who is in charge where several installers run on one node, as in an update that starts
//! the new one before the old one ends: the one that has started last. It is known by the
//! kubeconfig, which it has written and locked; a lock ends with its process.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whose the kubeconfig is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// Ours, or nobody's.
    Us,
    /// An installer's that has started before us.
    Older,
    /// An installer's that has started after us.
    Newer,
}

/// What we have of it.
#[derive(Debug, Default)]
pub struct NodeLock {
    /// The kubeconfig when we were in charge, locked.
    file: Option<File>,
}

impl NodeLock {
    /// Looks whose it is; takes what is nobody's.
    pub fn look(&mut self, kubeconfig: &Path) -> Holder {
        match self.is_others(kubeconfig) {
            Ok(true) if self.file.is_some() => Holder::Newer,
            Ok(true) => Holder::Older,
            // Or it is not there, or on a file system that knows no locks.
            Ok(false) | Err(_) => Holder::Us,
        }
    }

    /// We have written it.
    pub fn take(&mut self, kubeconfig: File) {
        // It is locked already, unless somebody was just looking whether it is.
        let _ = kubeconfig.try_lock();
        self.file = Some(kubeconfig);
    }

    fn is_others(&mut self, path: &Path) -> io::Result<bool> {
        let metadata = path.symlink_metadata()?;
        if let Some(file) = &self.file
            && identity(&file.metadata()?) == identity(&metadata)
        {
            return Ok(false);
        }
        // A pipe, for one, would have to be opened first.
        if !metadata.is_file() {
            return Ok(false);
        }
        let file = File::open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Ok(()) => self.take(file),
        }
        Ok(false)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
