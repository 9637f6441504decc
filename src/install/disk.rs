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

/// A file as it is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    pub path: &'a Path,
    /// Permission bits.
    pub mode: u32,
    /// `None`: us.
    pub owner: Option<Owner>,
    /// What it replaces; when something else is there by then, that stays. `None`: whatever
    /// is there.
    pub instead_of: Option<&'a [u8]>,
}

/// Writes a file.
pub fn write(new: NewFile, content: &[u8]) -> Result<(), Error> {
    write_with(new, |file| file.write_all(content))
}

/// Writes a copy of our own executable.
pub fn copy_own_executable(path: &Path, mode: u32) -> Result<(), Error> {
    let new = NewFile {
        path,
        mode,
        owner: None,
        instead_of: None,
    };
    write_with(new, |file| io::copy(&mut own_executable()?, file).map(drop))
}

fn write_with(new: NewFile, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let temporary = Temporary::beside(new.path);
    let outcome = temporary.write(fill, new.mode, new.owner).and_then(|()| {
        if let Some(content) = new.instead_of {
            check(new.path, content)?;
        }
        temporary.take_place_of(new.path)
    });
    outcome.map_err(|source| Error {
        doing: "writing",
        path: new.path.to_owned(),
        source,
    })
}

/// Somebody else's change since it was looked at would be lost.
fn check(path: &Path, content: &[u8]) -> io::Result<()> {
    let limit = u64::try_from(content.len()).unwrap_or(u64::MAX);
    match read(path, limit) {
        Ok(found) if found == content => Ok(()),
        _ => Err(io::Error::other("somebody else has just changed it")),
    }
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

/// Gives a file that holds `content` another name in its directory, where what has that
/// name goes. When somebody writes it meanwhile, it stays.
pub fn set_aside(path: &Path, aside: &Path, content: &[u8]) -> Result<(), Error> {
    let outcome = check(path, content).and_then(|()| {
        fs::rename(path, aside)?;
        if let Err(error) = check(aside, content) {
            come_back(aside, path)?;
            return Err(error);
        }
        sync_directory_of(path)
    });
    outcome.map_err(|source| Error {
        doing: "renaming",
        path: path.to_owned(),
        source,
    })
}

/// Gives it its own name again, unless there is something of that name.
pub fn restore(path: &Path, aside: &Path) -> Result<(), Error> {
    come_back(aside, path).map_err(|source| Error {
        doing: "renaming",
        path: aside.to_owned(),
        source,
    })
}

fn come_back(aside: &Path, path: &Path) -> io::Result<()> {
    // A link would replace nothing for certain, but not everyone may make one.
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(aside, path)?;
    sync_directory_of(path)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one file, gone when dropped.
    struct Scratch(PathBuf);

    impl Scratch {
        fn with(content: &str) -> Self {
            let number = RandomState::new().hash_one(content);
            let path = std::env::temp_dir().join(format!("msm-cni.disk.{number:016x}"));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("x"), content).unwrap();
            Self(path)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn count(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_somebody_else_has_just_written_stays() {
        for expected in ["before", "now and more", "", "noW"] {
            let scratch = Scratch::with("now");
            let path = scratch.path("x");
            let new = NewFile {
                path: &path,
                mode: 0o600,
                owner: None,
                instead_of: Some(expected.as_bytes()),
            };
            let error = write(new, b"ours").unwrap_err();
            assert!(crate::process::chain(&error).ends_with("just changed it"));
            set_aside(&path, &scratch.path("y"), expected.as_bytes()).unwrap_err();
            assert_eq!(scratch.read("x").as_deref(), Some("now"));
            assert_eq!(scratch.count(), 1);

            let instead_of = Some(&b"now"[..]);
            write(NewFile { instead_of, ..new }, b"ours").unwrap();
            assert_eq!(scratch.read("x").as_deref(), Some("ours"));
        }
    }

    #[test]
    fn what_is_set_aside_comes_back_but_replaces_nothing() {
        let scratch = Scratch::with("now");
        let (path, aside) = (scratch.path("x"), scratch.path("y"));
        fs::write(&aside, "old").unwrap();
        set_aside(&path, &aside, b"now").unwrap();
        assert_eq!((scratch.read("x"), scratch.count()), (None, 1));
        restore(&path, &aside).unwrap();
        assert_eq!(scratch.read("x").as_deref(), Some("now"));
        assert_eq!(scratch.count(), 1);

        fs::write(&aside, "old").unwrap();
        restore(&path, &aside).unwrap_err();
        assert_eq!(scratch.read("x").as_deref(), Some("now"));
        assert_eq!(scratch.read("y").as_deref(), Some("old"));
        // A symlink comes back as one.
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, scratch.path("z")).unwrap();
        symlink("z", &aside).unwrap();
        restore(&path, &aside).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("z"));
    }
}
