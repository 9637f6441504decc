//! Atomic changes of files: written under a temporary name, fsynced and renamed. A step that
//! depends on an earlier one runs only after that one was fsynced. Decides nothing.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use crate::names::TEMPORARY_PREFIX;

/// The running executable, even if its file was renamed or removed.
const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {}", .path.display())]
    Io {
        /// With a preposition if the path needs one: "writing", "setting the mode of".
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The change was planned for a content that the file no longer has.
    #[error("another process has just changed {}", .path.display())]
    Outdated { path: PathBuf },
}

impl Error {
    /// For `map_err`.
    fn during(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// Identifies an existing file regardless of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// User and group of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// A file to write.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    pub path: &'a Path,
    /// Permission bits.
    pub mode: u32,
    /// `None`: this process's user and group.
    pub owner: Option<Owner>,
    /// The content that it may replace; any other content is an error. `None`: anything.
    pub instead_of: Option<&'a [u8]>,
}

/// Opens the running executable for reading.
pub fn own_executable() -> io::Result<File> {
    File::open(OWN_EXECUTABLE)
}

/// Reads a regular file of at most `limit` bytes. Nothing else is opened: opening a named pipe
/// blocks until another process writes to it.
pub fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let too_large = || io::Error::other(format!("larger than {limit} bytes"));
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(metadata.len().try_into().unwrap_or_default());
    // The file may have grown since.
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > limit) {
        return Err(too_large());
    }
    Ok(bytes)
}

/// Whether an installer still has the regular file open: installers lock the files they write.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Changes files, and remembers which changes a power loss could still undo.
#[derive(Debug, Default)]
pub struct Disk {
    /// Directories to fsync.
    unsynced: BTreeSet<PathBuf>,
}

impl Disk {
    /// Directories with changes that a power loss could undo.
    pub const fn unsynced(&self) -> &BTreeSet<PathBuf> {
        &self.unsynced
    }

    /// Makes all changes safe from a power loss.
    pub fn sync(&mut self) -> Result<(), Error> {
        while let Some(directory) = self.unsynced.first() {
            match File::open(directory).and_then(|directory| directory.sync_all()) {
                // Removed together with its content.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(Error::during("syncing the directory", directory))?,
            }
            self.unsynced.pop_first();
        }
        Ok(())
    }

    /// Writes a copy of the running executable. Copies and links do not depend on earlier
    /// changes, so they are not synced one by one.
    pub fn copy_own_executable(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        let new = NewFile {
            path,
            mode,
            owner: None,
            instead_of: None,
        };
        let fill = |file: &mut File| io::copy(&mut own_executable()?, file).map(drop);
        // Closed before the rename: executing a file that is open for writing fails (ETXTBSY).
        self.replace(path, |temporary| new.write(temporary, &fill).map(drop))
    }

    /// Creates or replaces a symlink.
    pub fn link(&mut self, path: &Path, target: &str) -> Result<(), Error> {
        self.replace(path, |temporary| {
            symlink(target, temporary)
                .map_err(Error::during("creating a temporary symlink for", path))
        })
    }

    /// Writes a file and returns it open. It is locked until it is closed.
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

    /// Renames a file with this content to `backup` in the same directory, replacing an older
    /// backup. Undone if another process writes the file meanwhile.
    pub fn back_up(&mut self, path: &Path, backup: &Path, content: &[u8]) -> Result<(), Error> {
        self.sync()?;
        check(path, content)?;
        self.rename(path, backup)?;
        check(backup, content).or_else(|outdated| {
            self.restore(path, backup)?;
            Err(outdated)
        })
    }

    /// Renames a backup to its former name, unless that name is taken.
    pub fn restore(&mut self, path: &Path, backup: &Path) -> Result<(), Error> {
        self.sync()?;
        // A hard link would exclude a race, but not every file system and user can create one.
        if path.symlink_metadata().is_ok() {
            return Err(Error::Outdated {
                path: path.to_owned(),
            });
        }
        self.rename(backup, path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        fs::rename(from, to).map_err(Error::during("renaming", from))?;
        self.mark_changed(to);
        Ok(())
    }

    /// Removes a file if it exists.
    pub fn remove(&mut self, path: &Path) -> Result<(), Error> {
        self.sync()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(Error::during("removing", path))?,
        }
        self.mark_changed(path);
        Ok(())
    }

    /// Creates something under a temporary name, which no runtime loads, and renames it.
    fn replace<T>(
        &mut self,
        path: &Path,
        create: impl FnOnce(&Path) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Random, so that two installers on one node do not write into the same file.
        let number = RandomState::new().hash_one(path);
        let temporary = path.with_file_name(format!("{TEMPORARY_PREFIX}{number:016x}"));
        let created = create(&temporary).and_then(|created| {
            rename_over(&temporary, path).map_err(Error::during("replacing", path))?;
            Ok(created)
        });
        match &created {
            Ok(_) => self.mark_changed(path),
            // If this fails, the next observation finds the file.
            Err(_) => drop(fs::remove_file(&temporary)),
        }
        created
    }

    fn mark_changed(&mut self, path: &Path) {
        self.unsynced.extend(path.parent().map(Path::to_owned));
    }
}

impl NewFile<'_> {
    fn write(
        &self,
        temporary: &Path,
        fill: &dyn Fn(&mut File) -> io::Result<()>,
    ) -> Result<File, Error> {
        let during = |operation| Error::during(operation, self.path);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            // Private until it is complete.
            .mode(0o600)
            .open(temporary)
            .map_err(during("creating a temporary file for"))?;
        // Best effort: some file systems cannot lock.
        let _ = file.try_lock();
        fill(&mut file).map_err(during("writing"))?;
        self.set_owner(&file)
            .map_err(during("setting the owner of"))?;
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(during("setting the mode of"))?;
        file.sync_all().map_err(during("syncing"))?;
        Ok(file)
    }

    /// If the owner is correct already, makes no system call that needs a privilege.
    fn set_owner(&self, file: &File) -> io::Result<()> {
        let Some(Owner { uid, gid }) = self.owner else {
            return Ok(());
        };
        let metadata = file.metadata()?;
        if (metadata.uid(), metadata.gid()) == (uid, gid) {
            return Ok(());
        }
        fchown(file, Some(uid), Some(gid)).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => io::Error::other(format!(
                "{error}; the owner is user {uid}, group {gid}, so the capability CHOWN is needed"
            )),
            _ => error,
        })
    }
}

/// Fails unless the file still has the expected content.
fn check(path: &Path, expected: &[u8]) -> Result<(), Error> {
    let actual = u64::try_from(expected.len())
        .map_err(io::Error::other)
        .and_then(|limit| read_file(path, limit));
    match actual {
        Ok(actual) if actual == expected => Ok(()),
        _ => Err(Error::Outdated {
            path: path.to_owned(),
        }),
    }
}

fn rename_over(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::rename(temporary, path) {
        // If the source of a file mount is missing, container runtimes create a directory in its
        // place. A directory with content is an error.
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir(path)?;
            fs::rename(temporary, path)
        }
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use msm_testkit::scratch::Scratch;

    use super::*;

    /// A directory with one file.
    struct Directory(Scratch);

    impl Directory {
        fn with(content: &str) -> Self {
            let directory = Self(Scratch::new());
            fs::write(directory.path("x"), content).unwrap();
            directory
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }

        fn count(&self) -> usize {
            fs::read_dir(self.0.path()).unwrap().count()
        }
    }

    #[test]
    fn write_keeps_a_file_that_was_changed_meanwhile() {
        for expected in ["before", "now and more", "", "noW"] {
            let directory = Directory::with("now");
            let path = directory.path("x");
            let new = NewFile {
                path: &path,
                mode: 0o600,
                owner: None,
                instead_of: Some(expected.as_bytes()),
            };
            let mut disk = Disk::default();
            let error = disk.write(new, b"ours").unwrap_err();
            assert!(matches!(error, Error::Outdated { .. }), "{error}");
            disk.back_up(&path, &directory.path("y"), expected.as_bytes())
                .unwrap_err();
            assert_eq!(directory.read("x").as_deref(), Some("now"));
            assert_eq!(directory.count(), 1);

            let instead_of = Some(&b"now"[..]);
            disk.write(NewFile { instead_of, ..new }, b"ours").unwrap();
            assert_eq!(directory.read("x").as_deref(), Some("ours"));
        }
    }

    #[test]
    fn backup_is_restored_and_replaces_nothing() {
        let directory = Directory::with("now");
        let (path, backup) = (directory.path("x"), directory.path("y"));
        fs::write(&backup, "old").unwrap();
        let mut disk = Disk::default();
        disk.back_up(&path, &backup, b"now").unwrap();
        assert_eq!((directory.read("x"), directory.count()), (None, 1));
        disk.restore(&path, &backup).unwrap();
        assert_eq!(directory.read("x").as_deref(), Some("now"));
        assert_eq!(directory.count(), 1);

        fs::write(&backup, "old").unwrap();
        disk.restore(&path, &backup).unwrap_err();
        assert_eq!(directory.read("x").as_deref(), Some("now"));
        assert_eq!(directory.read("y").as_deref(), Some("old"));
        // A symlink is restored as a symlink.
        fs::remove_file(&path).unwrap();
        fs::rename(&backup, directory.path("z")).unwrap();
        symlink("z", &backup).unwrap();
        disk.restore(&path, &backup).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("z"));
    }
}
