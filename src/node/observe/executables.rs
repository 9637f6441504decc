//! Compares the installed executables and symlinks with the desired ones.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::files::PERMISSIONS;
use crate::fs::{FileId, own_executable};
use crate::names::EXECUTABLE;
use crate::node::settings::Settings;

pub const EXECUTABLE_MODE: u32 = 0o755;
/// Bytes compared at once. Allocators reuse a buffer of this size instead of mapping a new one.
const COMPARE_SIZE: usize = 32 << 10;

/// A directory for executables.
#[derive(Debug)]
pub struct BinDir {
    pub path: PathBuf,
    pub executable: Drift,
    /// By name.
    pub links: Vec<(&'static str, Drift)>,
}

/// How a file differs from the desired one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    None,
    Missing,
    /// What is different.
    Wrong(String),
}

/// Reads the directories for executables. Remembers which files are copies of the running
/// executable, so that they are compared only once.
#[derive(Default)]
pub struct ExecutableReader {
    copies: HashMap<PathBuf, Version>,
}

/// Changes with every change of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    file: FileId,
    size: u64,
    /// Time of the last change of content or attributes; unlike mtime, it cannot be set.
    ctime: (i64, i64),
}

impl ExecutableReader {
    /// Returns the existing directories, and why one of them cannot be used.
    pub fn bin_dirs(&mut self, settings: &Settings) -> (Vec<BinDir>, Option<String>) {
        let mut dirs = Vec::new();
        let mut problem = None;
        for (path, is_required) in [
            (&settings.bin_dir, true),
            (&settings.secondary_bin_dir, false),
        ] {
            match check_directory(path) {
                Ok(()) => dirs.push(self.bin_dir(path, &settings.links)),
                Err(error) if is_required || error.kind() != io::ErrorKind::NotFound => {
                    problem = Some(format!(
                        "CNI plugin directory {} cannot be used: {error}; mount the host's CNI plugin directory there",
                        path.display()
                    ));
                }
                Err(_) => {}
            }
        }
        (dirs, problem)
    }

    fn bin_dir(&mut self, path: &Path, links: &[&'static str]) -> BinDir {
        let link = |name: &&'static str| (*name, link(&path.join(name)));
        BinDir {
            executable: self.executable(&path.join(EXECUTABLE)),
            links: links.iter().map(link).collect(),
            path: path.to_owned(),
        }
    }

    fn executable(&mut self, path: &Path) -> Drift {
        let drift = self.compare(path);
        if !matches!(drift, Ok(Drift::None)) {
            self.copies.remove(path);
        }
        drift.unwrap_or_else(|error| Drift::Wrong(format!("it was unreadable: {error}")))
    }

    fn compare(&mut self, path: &Path) -> io::Result<Drift> {
        let metadata = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Drift::Missing);
            }
            metadata => metadata?,
        };
        if !metadata.is_file() {
            return Ok(Drift::Wrong("it was not a regular file".into()));
        }
        let mode = metadata.mode() & PERMISSIONS;
        if mode != EXECUTABLE_MODE {
            return Ok(Drift::Wrong(format!("its mode was {mode:04o}")));
        }
        // Another owner could replace what root executes.
        if metadata.uid() != geteuid().as_raw() {
            return Ok(Drift::Wrong(format!(
                "it belonged to user {}",
                metadata.uid()
            )));
        }
        let version = Version::of(&metadata);
        if self.copies.get(path) == Some(&version) {
            return Ok(Drift::None);
        }
        let own = own_executable()?;
        if own.metadata()?.len() != metadata.len() || !has_same_content(own, File::open(path)?)? {
            return Ok(Drift::Wrong("it was another version".into()));
        }
        self.copies.insert(path.to_owned(), version);
        Ok(Drift::None)
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: FileId::of(metadata),
            size: metadata.size(),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn has_same_content(one: File, other: File) -> io::Result<bool> {
    let mut readers = [one, other].map(|file| BufReader::with_capacity(COMPARE_SIZE, file));
    loop {
        let [one, other] = &mut readers;
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let common = left.len().min(right.len());
        if left.get(..common) != right.get(..common) {
            return Ok(false);
        }
        if common == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(common);
        other.consume(common);
    }
}

fn link(path: &Path) -> Drift {
    match fs::read_link(path) {
        Ok(target) if target == Path::new(EXECUTABLE) => Drift::None,
        Ok(target) => Drift::Wrong(format!("it was a symlink to {}", target.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Drift::Missing,
        Err(_) => Drift::Wrong("it was not a symlink".into()),
    }
}

fn check_directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    }
}
