//! Changes to the disk, each of them whole or not at all: a file is written under a name
//! that nobody loads, synced and renamed, and its directory synced. Decides nothing.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use crate::names::TEMPORARY_PREFIX;

/// Our own executable, whatever has become of its name.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Why the disk is as it was.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", .path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// User and group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Opens our own executable for reading.
pub fn own_executable() -> io::Result<File> {
    File::open(OWN_EXECUTABLE)
}

/// A regular file of `limit` bytes at most; anything else that has the name is not opened,
/// because opening a pipe waits for somebody to write.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Writes a file; `owner`: who it belongs to, where it should not be us.
pub fn write(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> Result<(), Error> {
    let fill = |file: &mut File| file.write_all(content);
    write_with(path, fill, mode, owner)
}

/// Writes a copy of our own executable.
pub fn copy_own_executable(path: &Path, mode: u32) -> Result<(), Error> {
    let fill = |file: &mut File| io::copy(&mut own_executable()?, file).map(drop);
    write_with(path, fill, mode, None)
}

fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
    mode: u32,
    owner: Option<Owner>,
) -> Result<(), Error> {
    let temporary = Temporary::beside(path);
    temporary
        .write(fill, mode, owner)
        .and_then(|()| temporary.take_place_of(path))
        .map_err(|source| Error {
            doing: "writing",
            path: path.to_owned(),
            source,
        })
}

/// Makes a symlink.
pub fn link(target: &str, path: &Path) -> Result<(), Error> {
    let temporary = Temporary::beside(path);
    symlink(target, &temporary.0)
        .and_then(|()| temporary.take_place_of(path))
        .map_err(|source| Error {
            doing: "making the symlink",
            path: path.to_owned(),
            source,
        })
}

/// Gives a file of the same directory another name; what has that name already goes.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(from, to)
        .and_then(|()| sync_directory_of(to))
        .map_err(|source| Error {
            doing: "renaming",
            path: from.to_owned(),
            source,
        })
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(path),
    };
    removed.map_err(|source| Error {
        doing: "removing",
        path: path.to_owned(),
        source,
    })
}

/// A file under a name that no runtime loads; goes unless it takes its place.
struct Temporary(PathBuf);

impl Temporary {
    /// Random, so that two installers of one node do not write into the same file.
    fn beside(path: &Path) -> Self {
        let number = RandomState::new().hash_one(path);
        Self(path.with_file_name(format!("{TEMPORARY_PREFIX}{number:016x}")))
    }

    fn write(
        &self,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
        mode: u32,
        owner: Option<Owner>,
    ) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Until it is complete, nobody else's business.
            .mode(0o600)
            .open(&self.0)?;
        fill(&mut file)?;
        if let Some(owner) = owner {
            let metadata = file.metadata()?;
            let is = Owner {
                uid: metadata.uid(),
                gid: metadata.gid(),
            };
            if is != owner {
                fchown(&file, Some(owner.uid), Some(owner.gid))?;
            }
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    }

    fn take_place_of(&self, path: &Path) -> io::Result<()> {
        match fs::rename(&self.0, path) {
            // Container runtimes make one to mount a file on that is missing; one that is
            // not empty is somebody's.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                fs::remove_dir(path)?;
                fs::rename(&self.0, path)?;
            }
            renamed => renamed?,
        }
        sync_directory_of(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already when it took its place; else a later run removes what stays.
        let _ = fs::remove_file(&self.0);
    }
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
