//! What is on the disk now, as a value for `plan`. Reads, and changes nothing; what cannot
//! be read is a reason, not an error.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

use crate::fs::{Disk, Owner, is_in_use, own_executable, read_file};
use crate::kube;
use crate::names::{EXECUTABLE, ORIGINAL_SUFFIX, TEMPORARY_PREFIX};
use crate::node::lock::{Holder, NodeLock};
use crate::node::settings::{ServerVerification, Settings};
use crate::text::is_network_configuration;

/// More than etcd, where such files may come from, holds in one object.
const LARGEST_FILE: u64 = 4 << 20;
/// How much of two files is compared at once; allocators keep what is as small as this.
const COMPARED: usize = 32 << 10;
/// Of an executable.
const EXECUTABLE_MODE: u32 = 0o755;
const PERMISSIONS: u32 = 0o7777;

/// Everything that a plan follows from.
#[derive(Debug)]
pub struct Observed {
    /// Those that are there, the one that has to be first.
    pub bin_dirs: Vec<BinDir>,
    /// Why there is no place for the executable.
    pub bin_dir_trouble: Option<String>,
    pub holder: Holder,
    pub kubeconfig: FileState,
    pub token: Result<String, String>,
    /// PEM; `None`: not asked for.
    pub authority: Result<Option<Vec<u8>>, String>,
    /// What a runtime may load, and what has stepped aside, sorted by name.
    pub net_files: Result<Vec<NetFile>, String>,
    /// Where some of these really are.
    pub linked_dirs: BTreeSet<PathBuf>,
    /// What an interrupted run has left.
    pub temporaries: Vec<PathBuf>,
    /// Directories with changes of ours that a power cut could undo.
    pub unsynced: BTreeSet<PathBuf>,
    /// Who we are.
    pub own_uid: u32,
    /// Whether token or authority are others than when the kubeconfig was right.
    pub is_renewed: bool,
}

/// A directory for executables.
#[derive(Debug)]
pub struct BinDir {
    pub path: PathBuf,
    pub executable: Drift,
    /// By name.
    pub links: Vec<(&'static str, Drift)>,
}

/// How something compares with what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    Missing,
    Right,
    /// Why not.
    Wrong(String),
}

/// A file that is ours alone.
#[derive(Debug)]
pub enum FileState {
    Missing,
    Present(FileSnapshot),
    Unreadable(String),
}

/// A file's content and whose it is.
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

/// A file of the runtime's configuration directory.
#[derive(Debug)]
pub struct NetFile {
    pub name: String,
    /// Where it really is: behind symlinks.
    pub path: PathBuf,
    pub snapshot: Result<FileSnapshot, Unreadable>,
}

/// Why the content of a file is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Nobody can read it.
    NotAFile(String),
    /// The runtime, which is not in this container, may find it; we never could.
    OutsideContainer(String),
    /// Reading it has failed.
    Io(String),
}

/// Contents may hold tokens.
impl std::fmt::Debug for FileSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} bytes, mode {:04o}", self.content.len(), self.mode)
    }
}

/// Looks, and remembers what it need not read again and what was right.
#[derive(Default)]
pub struct Observer {
    /// Files that were found to be copies of ours, as long as they stay what they were.
    copies: HashMap<PathBuf, Identity>,
    pub lock: NodeLock,
    /// Token and authority when the kubeconfig was right.
    written: Option<(String, Option<Vec<u8>>)>,
}

/// A change of a file's content changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Observer {
    pub fn observe(&mut self, settings: &Settings, disk: &Disk) -> Observed {
        let (bin_dirs, bin_dir_trouble) = self.bin_dirs(settings);
        let net_files = net_files(&settings.net_dir);
        let linked_dirs = linked_dirs(&settings.net_dir, &net_files);
        let directories = bin_dirs
            .iter()
            .map(|dir| dir.path.as_path())
            .chain([settings.net_dir.as_path()])
            .chain(linked_dirs.iter().map(PathBuf::as_path));
        let token = token(&settings.service_account.join("token"));
        let authority = authority(&settings.server_verification);
        Observed {
            temporaries: directories.flat_map(temporaries).collect(),
            unsynced: disk.unsynced().clone(),
            linked_dirs,
            bin_dirs,
            bin_dir_trouble,
            holder: self.lock.look(&settings.kubeconfig()),
            kubeconfig: state(&settings.kubeconfig()),
            is_renewed: self
                .written
                .as_ref()
                .is_none_or(|(old_token, old_authority)| {
                    token.as_ref() != Ok(old_token) || authority.as_ref() != Ok(old_authority)
                }),
            token,
            authority,
            net_files,
            own_uid: geteuid().as_raw(),
        }
    }

    /// It was found to say what it should.
    pub fn kubeconfig_is_current(&mut self, found: &Observed) {
        if found.is_renewed
            && let (Ok(token), Ok(authority)) = (&found.token, &found.authority)
        {
            self.written = Some((token.clone(), authority.clone()));
        }
    }

    fn bin_dirs(&mut self, settings: &Settings) -> (Vec<BinDir>, Option<String>) {
        let mut dirs = Vec::new();
        let mut trouble = None;
        for (path, needed) in [
            (&settings.bin_dir, true),
            (&settings.secondary_bin_dir, false),
        ] {
            match directory(path) {
                Ok(()) => dirs.push(self.bin_dir(path, &settings.links)),
                Err(error) if needed || error.kind() != io::ErrorKind::NotFound => {
                    trouble = Some(format!(
                        "{} cannot be used for the executable: {error}; mount the host's directory of CNI plugins there",
                        path.display()
                    ));
                }
                Err(_) => {}
            }
        }
        (dirs, trouble)
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
        let compared = self.compare(path);
        if !matches!(compared, Ok(Drift::Right)) {
            self.copies.remove(path);
        }
        compared.unwrap_or_else(|error| Drift::Wrong(format!("it cannot be read: {error}")))
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
        // Who could replace what root runs.
        if metadata.uid() != geteuid().as_raw() {
            return Ok(Drift::Wrong(format!(
                "it belonged to user {}",
                metadata.uid()
            )));
        }
        let identity = Identity::of(&metadata);
        if self.copies.get(path) == Some(&identity) {
            return Ok(Drift::Right);
        }
        let own = own_executable()?;
        if own.metadata()?.len() != metadata.len() || !same_content(own, File::open(path)?)? {
            return Ok(Drift::Wrong("it was not this version".into()));
        }
        self.copies.insert(path.to_owned(), identity);
        Ok(Drift::Right)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            // Of any attribute or content: unlike the time of writing, it cannot be set.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn same_content(one: File, other: File) -> io::Result<bool> {
    let mut readers = [one, other].map(|file| BufReader::with_capacity(COMPARED, file));
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
        Ok(target) if target == Path::new(EXECUTABLE) => Drift::Right,
        Ok(target) => Drift::Wrong(format!("it was a symlink to {}", target.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Drift::Missing,
        Err(_) => Drift::Wrong("it was not a symlink".into()),
    }
}

fn directory(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::NotADirectory))
    }
}

fn temporaries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(is_left).map(|entry| entry.path()).collect()
}

/// Whether nobody is writing it any more.
fn is_left(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let is_temporary = name
        .as_encoded_bytes()
        .starts_with(TEMPORARY_PREFIX.as_bytes());
    is_temporary
        && entry
            .file_type()
            .is_ok_and(|kind| kind.is_symlink() || (kind.is_file() && !is_in_use(&entry.path())))
}

fn state(path: &Path) -> FileState {
    let snapshot = if path.is_symlink() {
        // For the host it leads elsewhere.
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

fn snapshot(path: &Path) -> io::Result<FileSnapshot> {
    let content = read_file(path, LARGEST_FILE)?;
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

fn net_files(directory: &Path) -> Result<Vec<NetFile>, String> {
    let unreadable = |error: io::Error| {
        format!(
            "{} cannot be read: {error}; mount the runtime's configuration directory there",
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

/// `None`: it has just gone.
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

/// The directories, but for the runtime's own, that hold files which are symlinked there.
fn linked_dirs(net_dir: &Path, files: &Result<Vec<NetFile>, String>) -> BTreeSet<PathBuf> {
    let files = files.iter().flatten();
    let dirs = files.filter_map(|file| file.path.parent());
    let mut linked = BTreeSet::new();
    // To collect a set is to sort a list, and each type's sort is kilobytes.
    linked.extend(dirs.filter(|dir| *dir != net_dir).map(Path::to_owned));
    linked
}

/// A symlink that leads out of the directory leads somewhere else on the host.
fn dangling(target: &Path) -> Unreadable {
    let reason = format!(
        "it is a symlink to {}, which is not there",
        target.display()
    );
    let stays = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if target.components().all(stays) {
        Unreadable::NotAFile(reason)
    } else {
        Unreadable::OutsideContainer(format!("{reason} in this container"))
    }
}

/// Reads what the kubelet mounts. It replaces the directory behind the file's symlink and
/// removes the old one, which may be the one that was just being opened.
fn read_mounted(path: &Path) -> io::Result<Vec<u8>> {
    match read_file(path, LARGEST_FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => read_file(path, LARGEST_FILE),
        read => read,
    }
}

/// The service account's token, as far as it could be sent.
pub fn token(path: &Path) -> Result<String, String> {
    let bytes = read_mounted(path).map_err(|error| {
        format!(
            "the service account's token {} cannot be read: {error}",
            path.display()
        )
    })?;
    let token = kube::parse_token(&bytes).map_err(|error| {
        format!(
            "the service account's token {} cannot be used: {error}",
            path.display()
        )
    })?;
    Ok(token.to_owned())
}

/// The certificate authority to trust; `None` where anybody is trusted.
pub fn authority(server_verification: &ServerVerification) -> Result<Option<Vec<u8>>, String> {
    let ServerVerification::CaFile(path) = server_verification else {
        return Ok(None);
    };
    let bytes = read_mounted(path).map_err(|error| {
        format!(
            "the certificate authority {} cannot be read: {error}",
            path.display()
        )
    })?;
    match kube::check_ca_bundle(&bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(error) => Err(format!(
            "the certificate authority {} cannot be used: {error}",
            path.display()
        )),
    }
}
