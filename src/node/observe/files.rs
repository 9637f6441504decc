//! Reads the kubeconfig and the runtime's configuration directory, and finds temporary files of
//! interrupted runs.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::fs::{Owner, is_in_use, read_file};
use crate::names::{ORIGINAL_SUFFIX, TEMPORARY_PREFIX};
use crate::node::netdir::conflist::is_network_configuration;

pub const PERMISSIONS: u32 = 0o7777;
/// In bytes; more than etcd stores in one object, which such a file may be a copy of.
const MAX_FILE: u64 = 4 << 20;

/// A file that only msm-cni writes.
#[derive(Debug)]
pub enum FileState {
    Missing,
    Present(FileSnapshot),
    Unreadable(String),
}

/// Content and metadata of a file.
pub struct FileSnapshot {
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    pub owner: Owner,
}

impl FileSnapshot {
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.content)
    }
}

/// Without the content, which may hold a token.
impl std::fmt::Debug for FileSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} bytes, mode {:04o}", self.content.len(), self.mode)
    }
}

/// A file in the runtime's configuration directory.
#[derive(Debug)]
pub struct NetFile {
    pub name: String,
    /// With symlinks resolved.
    pub path: PathBuf,
    pub snapshot: Result<FileSnapshot, Unreadable>,
}

/// Why the content of a file is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// The runtime cannot read it either.
    NotAFile(String),
    /// The runtime may be able to read it, but this container cannot.
    OutsideContainer(String),
    /// The read failed.
    Io(String),
}

pub fn state(path: &Path) -> FileState {
    let snapshot = if path.is_symlink() {
        // On the host it may lead to another file.
        Err(io::Error::other("it was a symlink"))
    } else {
        snapshot(path)
    };
    match snapshot {
        Ok(snapshot) => FileState::Present(snapshot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Missing,
        Err(error) => FileState::Unreadable(error.to_string()),
    }
}

/// The files that a runtime may load, and their backups.
pub fn net_files(directory: &Path) -> Result<Vec<NetFile>, String> {
    let unreadable = |error: io::Error| {
        format!(
            "CNI configuration directory {} cannot be read: {error}; mount the host's CNI configuration directory there",
            directory.display()
        )
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let text = name.to_string_lossy();
        if is_network_configuration(&text) || text.ends_with(ORIGINAL_SUFFIX) {
            files.extend(net_file(directory, &name));
        }
    }
    files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// The directories, other than the runtime's, that symlinks lead to.
pub fn linked_dirs(net_dir: &Path, files: &Result<Vec<NetFile>, String>) -> BTreeSet<PathBuf> {
    let files = files.iter().flatten();
    files
        .filter_map(|file| file.path.parent())
        .filter(|dir| *dir != net_dir)
        .map(Path::to_owned)
        .collect()
}

/// Temporary files that no process is writing.
pub fn temporaries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(is_orphaned_temporary)
        .map(|entry| entry.path())
        .collect()
}

fn is_orphaned_temporary(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_temporary = name
        .as_encoded_bytes()
        .starts_with(TEMPORARY_PREFIX.as_bytes());
    is_temporary
        && entry
            .file_type()
            .is_ok_and(|kind| kind.is_symlink() || (kind.is_file() && !is_in_use(&entry.path())))
}

fn snapshot(path: &Path) -> io::Result<FileSnapshot> {
    let content = read_file(path, MAX_FILE)?;
    let metadata = fs::metadata(path)?;
    Ok(FileSnapshot {
        content,
        mode: metadata.mode() & PERMISSIONS,
        owner: Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
        },
    })
}

/// `None` if the file was removed meanwhile.
fn net_file(directory: &Path, name: &OsStr) -> Option<NetFile> {
    let path = directory.join(name);
    let snapshot = match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Err(Unreadable::NotAFile("it is a directory".into())),
        Ok(metadata) if !metadata.is_file() => {
            Err(Unreadable::NotAFile("it is not a regular file".into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(dangling(&fs::read_link(&path).ok()?))
        }
        _ if name.to_str().is_none() => {
            Err(Unreadable::OutsideContainer("its name is not UTF-8".into()))
        }
        _ => match snapshot(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            snapshot => snapshot.map_err(|error| Unreadable::Io(error.to_string())),
        },
    };
    Some(NetFile {
        name: name.to_string_lossy().into_owned(),
        path: if path.is_symlink() {
            path.canonicalize().unwrap_or(path)
        } else {
            path
        },
        snapshot,
    })
}

/// A symlink that leads out of the directory may have a target on the host.
fn dangling(target: &Path) -> Unreadable {
    let reason = format!(
        "it is a symlink to {}, which does not exist",
        target.display()
    );
    let is_inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if target.components().all(is_inside) {
        Unreadable::NotAFile(reason)
    } else {
        Unreadable::OutsideContainer(format!("{reason} in this container"))
    }
}
