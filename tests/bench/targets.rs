//! The executables that are measured: the shipped one, other builds of it, other plugins. Each
//! is run through symlinks with the applets' names, as on a node.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::libc::Libc;
use msm_testkit::scratch::Scratch;

use crate::arguments::Named;

/// The label of the shipped executable in the table.
pub const OURS: &str = "ours";

/// An executable.
pub struct Target {
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

impl Target {
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
        // A path would not fit in the column.
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

    /// The symlink with the name of an applet.
    pub fn path(&self, applet: &str) -> PathBuf {
        self.names.path().join(applet)
    }

    /// Runs the applet `name` in an empty environment.
    pub fn applet(&self, name: &str) -> Command {
        let mut command = Command::new(self.path(name));
        command.env_clear();
        command
    }
}
