//! A snapshot of the host's directories, for comparison, and the networks that runtimes load
//! from it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use msm_testkit::executable;
use msm_testkit::node::Node;
use msm_testkit::runtime::{Network, Runtime};

static EXECUTABLE: LazyLock<Vec<u8>> = LazyLock::new(|| fs::read(executable()).unwrap());
const TEMPORARY: &str = ".msm-cni-temporary-";

/// A directory entry.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    Directory,
    Link(PathBuf),
    File {
        mode: u32,
        owner: (u32, u32),
        content: Content,
    },
}

#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Equal to the executable under test.
    Executable,
    Other(Vec<u8>),
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Directory => write!(f, "directory"),
            Self::Link(target) => write!(f, "link to {}", target.display()),
            Self::File {
                mode,
                owner: (uid, gid),
                content,
            } => {
                write!(f, "{mode:04o} {uid}:{gid} ")?;
                match content {
                    Content::Executable => write!(f, "the executable"),
                    Content::Other(bytes) if bytes.len() < 4096 => {
                        write!(f, "{:?}", String::from_utf8_lossy(bytes))
                    }
                    Content::Other(bytes) => write!(f, "{} bytes", bytes.len()),
                }
            }
        }
    }
}

/// All entries below a directory, by their relative path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<PathBuf, Entry>);

impl Tree {
    pub fn of(node: &Node) -> Self {
        Self::below(&node.path("host"))
    }

    pub fn below(path: &Path) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.collect(path, path);
        tree
    }

    fn collect(&mut self, root: &Path, path: &Path) {
        // A temporary file may disappear at any time.
        let Ok(metadata) = path.symlink_metadata() else {
            return;
        };
        let entry = if metadata.is_symlink() {
            let Ok(target) = fs::read_link(path) else {
                return;
            };
            Entry::Link(target)
        } else if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                self.collect(root, &entry.unwrap().path());
            }
            Entry::Directory
        } else {
            let Ok(content) = fs::read(path) else {
                return;
            };
            Entry::File {
                mode: metadata.mode() & 0o7777,
                owner: (metadata.uid(), metadata.gid()),
                content: if content == *EXECUTABLE {
                    Content::Executable
                } else {
                    Content::Other(content)
                },
            }
        };
        let path = path.strip_prefix(root).unwrap().to_owned();
        self.0.insert(path, entry);
    }

    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.0.get(Path::new(path))
    }

    /// Temporary files, in use or left over.
    pub fn temporaries(&self) -> Vec<&Path> {
        let paths = self.0.keys().map(PathBuf::as_path);
        paths.filter(|path| is_temporary(path)).collect()
    }

    /// The network that each runtime loads.
    pub fn networks(&self) -> [Option<Network>; 2] {
        let files = self.0.iter().filter_map(|(path, entry)| {
            let name = path.strip_prefix("etc/cni/net.d").ok()?.to_str()?;
            match entry {
                Entry::File {
                    content: Content::Other(content),
                    ..
                } => Some((name, Some(content.as_slice()))),
                _ => None,
            }
        });
        Runtime::ALL.map(|runtime| runtime.loads(files.clone()))
    }

    /// Fails the test unless every entry but temporary files equals that in one of `others`.
    #[track_caller]
    pub fn is_made_of(&self, others: &[&Self], context: &str) {
        let paths = others.iter().flat_map(|other| other.0.keys());
        for path in paths.chain(self.0.keys()) {
            let entry = self.0.get(path);
            let is_known = others.iter().any(|other| other.0.get(path) == entry);
            assert!(
                is_known || is_temporary(path),
                "{context}: {} has an intermediate state: {entry:?}\n{self:#?}",
                path.display()
            );
        }
        for path in self.temporaries() {
            if path.starts_with("etc")
                && let Some(Entry::File { mode, content, .. }) = self.0.get(path)
                && let Content::Other(content) = content
            {
                let holds_token = String::from_utf8_lossy(content).contains("token");
                assert!(!holds_token || *mode == 0o600, "{context}: {self:#?}");
            }
        }
    }
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}
