//! Who is measured: the executable that ships, other builds of it, other plugins. Each is
//! called through symlinks with the applets' names, as on a node.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::libc::Libc;
use msm_testkit::scratch::Scratch;

use crate::arguments::Named;

/// What the executable that ships is called in the table.
pub const OURS: &str = "ours";

/// An executable.
pub struct Contender {
    pub label: String,
    pub kind: Kind,
    pub size: u64,
    /// The file itself.
    pub executable: PathBuf,
    names: Scratch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A build of msm, with this libc.
    Build(Libc),
    Peer,
}

impl Contender {
    pub fn build(label: &str, path: &Path) -> io::Result<Self> {
        Self::new(label, path, Kind::Build(Libc::of(path)?))
    }

    pub fn peer(named: &Named) -> io::Result<Self> {
        Self::new(&named.label, &named.path, Kind::Peer)
    }

    fn new(label: &str, path: &Path, kind: Kind) -> io::Result<Self> {
        let executable = path.canonicalize()?;
        let names = Scratch::new();
        for name in ["msm-cni", "msm-iptables", "installer"] {
            symlink(&executable, names.path().join(name))?;
        }
        // A whole path would not fit into its column.
        let label = label.rsplit('/').next().unwrap_or(label);
        Ok(Self {
            label: label.to_owned(),
            kind,
            size: fs::metadata(&executable)?.len(),
            executable,
            names,
        })
    }

    pub fn is_build(&self) -> bool {
        self.kind != Kind::Peer
    }

    pub fn libc(&self) -> Option<Libc> {
        match self.kind {
            Kind::Build(libc) => Some(libc),
            Kind::Peer => None,
        }
    }

    /// Where it is called by the name of an applet.
    pub fn path(&self, applet: &str) -> PathBuf {
        self.names.path().join(applet)
    }

    /// It as an applet, with nothing of our own environment.
    pub fn applet(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.env_clear();
        command
    }
}
