//! Reads the observed state: everything that a plan depends on, as a plain value. Changes
//! nothing on the disk except for the lock on the kubeconfig. What cannot be read becomes a
//! reason in the value, not an error.

mod credentials;
mod executables;
mod files;

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::unistd::geteuid;

pub use credentials::{ca_bundle, token};
pub use executables::{BinDir, Drift, EXECUTABLE_MODE};
pub use files::{FileSnapshot, FileState, NetFile, Unreadable};

use super::lock::{Holder, NodeLock};
use super::settings::Settings;
use executables::ExecutableReader;

/// The observed state of the node.
#[derive(Debug)]
pub struct Observed {
    /// The existing ones; the required one first.
    pub bin_dirs: Vec<BinDir>,
    /// Why a directory for executables cannot be used.
    pub bin_dir_error: Option<String>,
    pub holder: Holder,
    pub kubeconfig: FileState,
    pub token: Result<String, String>,
    /// PEM; `None` if the API server's certificate is not verified.
    pub ca_bundle: Result<Option<Vec<u8>>, String>,
    /// Files that a runtime may load, and backups of such files, sorted by name.
    pub net_files: Result<Vec<NetFile>, String>,
    /// Directories that symlinks among `net_files` lead to.
    pub linked_dirs: BTreeSet<PathBuf>,
    /// Left by an interrupted run.
    pub temporaries: Vec<PathBuf>,
    /// Directories with changes that a power loss could undo.
    pub unsynced: BTreeSet<PathBuf>,
    /// The user of this process.
    pub own_uid: u32,
    /// Whether token or CA bundle changed since the kubeconfig was last current.
    pub is_renewed: bool,
}

/// Reads the observed state. Remembers which executables need not be compared again, and which
/// credentials the kubeconfig was last written with.
#[derive(Default)]
pub struct Observer {
    executables: ExecutableReader,
    written: Option<(String, Option<Vec<u8>>)>,
}

impl Observer {
    /// Acquires the lock if it is free. `unsynced`: directories with changes of this process
    /// that are not fsynced yet.
    pub fn observe(
        &mut self,
        settings: &Settings,
        lock: &mut NodeLock,
        unsynced: &BTreeSet<PathBuf>,
    ) -> Observed {
        let (bin_dirs, bin_dir_error) = self.executables.bin_dirs(settings);
        let net_files = files::net_files(&settings.net_dir);
        let linked_dirs = files::linked_dirs(&settings.net_dir, &net_files);
        let directories = bin_dirs
            .iter()
            .map(|dir| dir.path.as_path())
            .chain([settings.net_dir.as_path()])
            .chain(linked_dirs.iter().map(PathBuf::as_path));
        // In this order: if a newer installer writes the kubeconfig in between, the lock shows
        // it. In the reverse order, its content would look like drift and be overwritten.
        let kubeconfig = files::state(&settings.kubeconfig());
        let holder = lock.holder(&settings.kubeconfig());
        let token = token(&settings.service_account.join("token"));
        let ca_bundle = ca_bundle(&settings.server_verification);
        Observed {
            temporaries: directories.flat_map(files::temporaries).collect(),
            unsynced: unsynced.clone(),
            linked_dirs,
            bin_dirs,
            bin_dir_error,
            kubeconfig,
            holder,
            is_renewed: self.written.as_ref().is_none_or(|(old_token, old_bundle)| {
                token.as_ref() != Ok(old_token) || ca_bundle.as_ref() != Ok(old_bundle)
            }),
            token,
            ca_bundle,
            net_files,
            own_uid: geteuid().as_raw(),
        }
    }

    /// Records that the kubeconfig holds the observed credentials.
    pub fn record_current_kubeconfig(&mut self, observed: &Observed) {
        if observed.is_renewed
            && let (Ok(token), Ok(ca_bundle)) = (&observed.token, &observed.ca_bundle)
        {
            self.written = Some((token.clone(), ca_bundle.clone()));
        }
    }
}
