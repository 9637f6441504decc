//! Changes to the disk, each of them whole or not at all: a file is written under a name
//! that nobody loads, synced and renamed. What counts on an earlier change happens after
//! that one is safe from a power cut. Decides nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use crate::names::TEMPORARY_PREFIX;

/// Our own executable, whatever has become of its name.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Why the disk is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}", .path.display())]
    Failed {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What was to be done followed from something that is not so any more.
    #[error("somebody else has just changed {}", .path.display())]
    Outdated { path: PathBuf },
}

impl Error {
    /// For `map_err`.
    fn when(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Failed {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// User and group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// How a file is to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    pub path: &'a Path,
    /// Permission bits.
    pub mode: u32,
    /// `None`: ours.
    pub owner: Option<Owner>,
    /// What it replaces; when something else is there by then, that stays. `None`: whatever
    /// is there.
    pub instead_of: Option<&'a [u8]>,
}

/// Opens our own executable for reading.
pub fn own_executable() -> io::Result<File> {
    File::open(OWN_EXECUTABLE)
}

/// A regular file of `limit` bytes at most; anything else that has the name is not opened,
/// because opening a pipe waits for somebody to write.
pub fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let too_large = || io::Error::other(format!("it is larger than {limit} bytes"));
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(metadata.len().try_into().unwrap_or_default());
    // It may have grown since.
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Whether an installer, which locks what it writes, still has a regular file open.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// What is changed, and which of the changes a power cut could still undo.
#[derive(Debug, Default)]
pub struct Disk {
    /// Directories.
    unsynced: BTreeSet<PathBuf>,
}

impl Disk {
    pub const fn unsynced(&self) -> &BTreeSet<PathBuf> {
        &self.unsynced
    }

    /// Makes all changes safe from a power cut.
    pub fn sync(&mut self) -> Result<(), Error> {
        while let Some(directory) = self.unsynced.first() {
            match File::open(directory).and_then(|directory| directory.sync_all()) {
                // Gone, with all that was in it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(Error::when("syncing the directory", directory))?,
            }
            self.unsynced.pop_first();
        }
        Ok(())
    }

    /// Writes a copy of our own executable. Copies and links depend on nothing and not on
    /// each other, so that one sync does for several of them.
    pub fn copy_own_executable(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let new = NewFile {
            path,
            mode,
            owner: None,
            instead_of: None,
        };
        let fill = |file: &mut File| io::copy(&mut own_executable()?, file).map(drop);
        // Closed before it gets its name: what is open for writing cannot be run.
        self.replace(path, |temporary| new.write(temporary, &fill).map(drop))
    }

    /// Makes a symlink.
    pub fn link(&mut self, path: &Path, target: &str) -> Result<(), Error> {
        self.replace(path, |temporary| {
            symlink(target, temporary).map_err(Error::when("making a temporary symlink for", path))
        })
    }

    /// Writes a file; it is still open, and locked as long as it is.
    pub fn write(&mut self, new: NewFile, content: &[u8]) -> Result<File, Error> {
        self.sync()?;
        self.replace(new.path, |temporary| {
            let file = new.write(temporary, &|file| file.write_all(content))?;
            if let Some(content) = new.instead_of {
                check(new.path, content)?;
            }
            Ok(file)
        })
    }

    /// Gives a file that holds `content` another name in its directory, where what has that
    /// name goes. When somebody writes it meanwhile, it stays.
    pub fn back_up(&mut self, path: &Path, backup: &Path, content: &[u8]) -> Result<(), Error> {
        self.sync()?;
        check(path, content)?;
        self.rename(path, backup)?;
        check(backup, content).or_else(|outdated| {
            self.restore(path, backup)?;
            Err(outdated)
        })
    }

    /// Gives it its own name again, unless there is something of that name.
    pub fn restore(&mut self, path: &Path, backup: &Path) -> Result<(), Error> {
        self.sync()?;
        // A link would replace nothing for certain, but not everyone may make one.
        if path.symlink_metadata().is_ok() {
            return Err(Error::Outdated {
                path: path.to_owned(),
            });
        }
        self.rename(backup, path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        fs::rename(from, to).map_err(Error::when("renaming", from))?;
        self.has_changed(to);
        Ok(())
    }

    /// Removes a file, if it is there.
    pub fn remove(&mut self, path: &Path) -> Result<(), Error> {
        self.sync()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(Error::when("removing", path))?,
        }
        self.has_changed(path);
        Ok(())
    }

    /// Makes something under a name that no runtime loads, and gives it its own name.
    fn replace<T>(
        &mut self,
        path: &Path,
        make: impl FnOnce(&Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Random, so that two installers of one node do not write into the same file.
        let number = RandomState::new().hash_one(path);
        let temporary = path.with_file_name(format!("{TEMPORARY_PREFIX}{number:016x}"));
        let made = make(&temporary).and_then(|made| {
            take_place(&temporary, path).map_err(Error::when("replacing", path))?;
            Ok(made)
        });
        match &made {
            Ok(_) => self.has_changed(path),
            // If it stays, it is found when the disk is looked at.
            Err(_) => drop(fs::remove_file(&temporary)),
        }
        made
    }

    fn has_changed(&mut self, path: &Path) {
        self.unsynced.extend(path.parent().map(Path::to_owned));
    }
}

impl NewFile<'_> {
    fn write(
        &self,
        temporary: &Path,
        fill: &dyn Fn(&mut File) -> io::Result<()>,
    ) -> Result<File, Error> {
        let when = |doing| Error::when(doing, self.path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Until it is complete, nobody else's business.
            .mode(0o600)
            .open(temporary)
            .map_err(when("creating a temporary file for"))?;
        // Where files cannot be locked, others have to do without knowing.
        let _ = file.try_lock();
        fill(&mut file).map_err(when("writing"))?;
        self.give_away(&file)
            .map_err(when("keeping the owner of"))?;
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(when("setting the mode of"))?;
        file.sync_all().map_err(when("syncing"))?;
        Ok(file)
    }

    /// Where it is ours already, that takes no privilege.
    fn give_away(&self, file: &File) -> io::Result<()> {
        let Some(Owner { uid, gid }) = self.owner else {
            return Ok(());
        };
        let metadata = file.metadata()?;
        if (metadata.uid(), metadata.gid()) == (uid, gid) {
            return Ok(());
        }
        fchown(file, Some(uid), Some(gid)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::other(format!(
                "{error}; it belongs to user {uid} and group {gid}, so the installer needs the capability CHOWN"
            )),
            _ => error,
        })
    }
}

/// Somebody else's change since it was looked at would be lost.
fn check(path: &Path, content: &[u8]) -> Result<(), Error> {
    let limit = u64::try_from(content.len()).unwrap_or(u64::MAX);
    match read_file(path, limit) {
        Ok(found) if found == content => Ok(()),
        _ => Err(Error::Outdated {
            path: path.to_owned(),
        }),
    }
}

fn take_place(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(temporary, path) {
        // Container runtimes make one to mount a file on that is missing; one that is not
        // empty is somebody's.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir(path)?;
            fs::rename(temporary, path)
        }
        renamed => renamed,
    }
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
            let mut disk = Disk::default();
            let error = disk.write(new, b"ours").unwrap_err();
            assert!(matches!(error, Error::Outdated { .. }), "{error}");
            disk.back_up(&path, &scratch.path("y"), expected.as_bytes())
                .unwrap_err();
            assert_eq!(scratch.read("x").as_deref(), Some("now"));
            assert_eq!(scratch.count(), 1);

            let instead_of = Some(&b"now"[..]);
            disk.write(NewFile { instead_of, ..new }, b"ours").unwrap();
            assert_eq!(scratch.read("x").as_deref(), Some("ours"));
        }
    }

    #[test]
    fn what_is_set_aside_comes_back_but_replaces_nothing() {
        let scratch = Scratch::with("now");
        let (path, backup) = (scratch.path("x"), scratch.path("y"));
        fs::write(&backup, "old").unwrap();
        let mut disk = Disk::default();
        disk.back_up(&path, &backup, b"now").unwrap();
        assert_eq!((scratch.read("x"), scratch.count()), (None, 1));
        disk.restore(&path, &backup).unwrap();
        assert_eq!(scratch.read("x").as_deref(), Some("now"));
        assert_eq!(scratch.count(), 1);

        fs::write(&backup, "old").unwrap();
        disk.restore(&path, &backup).unwrap_err();
        assert_eq!(scratch.read("x").as_deref(), Some("now"));
        assert_eq!(scratch.read("y").as_deref(), Some("old"));
        // A symlink comes back as one.
        fs::remove_file(&path).unwrap();
        fs::rename(&backup, scratch.path("z")).unwrap();
        symlink("z", &backup).unwrap();
        disk.restore(&path, &backup).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("z"));
    }
}
