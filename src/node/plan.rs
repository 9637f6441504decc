//! What has to be done so that the disk is as it should be: a list of steps, worked out of
//! what was found. Pure. The order is such that at no moment the node's configuration names
//! a plugin that is not there, or a plugin that could not work.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::fs::Owner;
use crate::kube::{self, Credentials};
use crate::names::{EXECUTABLE, STAND_ALONE_FILE};
use crate::node::lock::Charge;
use crate::node::netdir::Directory;
use crate::node::netdir::conflist::NetworkConfig;
use crate::node::netdir::template::{self, Entry};
use crate::node::observe::{BinDir, Comparison, Held, Observed, State};
use crate::node::settings::{ExecutableAtCleanup, Placement, Replacement, Settings};
use crate::text::error_chain;

const EXECUTABLE_MODE: u32 = 0o755;

/// What is to be done, and what has to be waited for. The disk is as it should be when
/// both are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// How many of them, from the first on, need nothing in other directories.
    pub independent: usize,
    pub waiting: Vec<String>,
    /// What somebody should know, though there is nothing to do about it.
    pub notes: Vec<String>,
    /// Whether somebody may just be writing one of the files.
    pub is_in_flux: bool,
}

/// One change, and why.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub action: Action,
    pub reason: String,
    pub cause: Cause,
}

/// Whether a step could have to do with somebody who changes what is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// What should be there has changed: a new token.
    Renewal,
    /// What is there has changed.
    Repair,
}

/// A change of one file; each is whole or not at all.
#[derive(PartialEq, Eq)]
pub enum Action {
    /// A copy of our own executable.
    CopyExecutable {
        path: PathBuf,
        mode: u32,
    },
    Link {
        path: PathBuf,
        target: &'static str,
    },
    Write {
        path: PathBuf,
        content: Vec<u8>,
        mode: u32,
        /// `None`: ours.
        owner: Option<Owner>,
        /// What is there; `None`: it does not matter.
        instead_of: Option<Vec<u8>>,
    },
    /// Gives what holds `content` another name.
    SetAside {
        path: PathBuf,
        aside: PathBuf,
        content: Vec<u8>,
    },
    /// And its own again.
    Restore {
        path: PathBuf,
        aside: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    /// Makes the changes in a directory safe from a power cut.
    Sync {
        path: PathBuf,
    },
}

/// What should be there.
pub fn plan(settings: &Settings, found: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.sync(found);
    if found.charge == Charge::Successors {
        plan.wait(format!(
            "an installer that was started later is in charge of this node, by the lock on {}; this one looks on",
            settings.kubeconfig().display()
        ));
        return plan;
    }
    plan.remove_temporaries(found);
    plan.executables(settings, found);
    plan.kubeconfig(settings, found);
    plan.independent = plan.steps.len();
    match (entry(settings, found), Directory::new(settings, found)) {
        (Err(reason), _) => plan.wait(reason),
        (_, Err(reason)) => plan.wait(reason.to_owned()),
        // A pod would fail to start with an entry whose plugin cannot work.
        (Ok(entry), Ok(directory)) if can_work(found) => match settings.placement {
            Placement::Chained => directory.chain(&entry, &mut plan),
            Placement::StandAlone => directory.stand_alone(&entry, found.own_uid, &mut plan),
        },
        _ => {}
    }
    plan
}

/// What is to be done so that nothing of ours is used any more; in reverse, because a
/// configuration must not name what is gone.
pub fn removal(settings: &Settings, found: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.remove_temporaries(found);
    let reason = "msm-cni leaves this node";
    match Directory::new(settings, found) {
        Ok(directory) => {
            directory.leave(None, reason, &mut plan);
            plan.notes = directory.left_aside();
            plan.waiting.extend(directory.suspects());
            plan.is_in_flux = directory.is_in_flux();
        }
        Err(reason) => plan.wait(reason.to_owned()),
    }
    // As long as an entry may be left, so is what it needs.
    if !plan.waiting.is_empty() {
        return plan;
    }
    if !matches!(found.kubeconfig, State::Missing) {
        plan.remove(settings.kubeconfig(), reason);
    }
    for dir in &found.bin_dirs {
        for (name, state) in &dir.links {
            if *state == Comparison::Right {
                plan.remove(dir.path.join(name), reason);
            }
        }
        if settings.executable_at_cleanup == ExecutableAtCleanup::Goes
            && dir.executable != Comparison::Missing
        {
            plan.remove(dir.path.join(EXECUTABLE), reason);
        }
    }
    plan
}

impl Plan {
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }

    pub fn push(&mut self, action: Action, reason: impl Into<String>) {
        self.push_for(Cause::Repair, action, reason);
    }

    pub fn push_for(&mut self, cause: Cause, action: Action, reason: impl Into<String>) {
        self.steps.push(Step {
            action,
            reason: reason.into(),
            cause,
        });
    }

    pub fn remove(&mut self, path: PathBuf, reason: &str) {
        self.push(Action::Remove { path }, reason);
    }

    pub fn wait(&mut self, reason: String) {
        self.waiting.push(reason);
    }

    fn sync(&mut self, found: &Observed) {
        for path in &found.unsynced {
            let path = path.clone();
            self.push_for(
                Cause::Renewal,
                Action::Sync { path },
                "what was changed in it has to last",
            );
        }
    }

    fn remove_temporaries(&mut self, found: &Observed) {
        for path in &found.temporaries {
            self.remove(path.clone(), "an interrupted run has left it");
        }
    }

    fn executables(&mut self, settings: &Settings, found: &Observed) {
        self.waiting.extend(found.bin_dir_trouble.clone());
        for dir in &found.bin_dirs {
            self.bin_dir(settings.replacement, dir);
        }
    }

    fn bin_dir(&mut self, replacement: Replacement, dir: &BinDir) {
        let reason = |state: &Comparison| match (state, replacement) {
            (Comparison::Missing, _) => Some("it was missing".to_owned()),
            (Comparison::Wrong(why), Replacement::IfDifferent) => Some(why.clone()),
            (Comparison::Wrong(_), Replacement::Never) | (Comparison::Right, _) => None,
        };
        // Nobody would call it.
        if dir.links.is_empty() {
            return;
        }
        if let Some(reason) = reason(&dir.executable) {
            let path = dir.path.join(EXECUTABLE);
            let mode = EXECUTABLE_MODE;
            self.push(Action::CopyExecutable { path, mode }, reason);
        }
        for (name, state) in &dir.links {
            if let Some(reason) = reason(state) {
                let path = dir.path.join(name);
                let target = EXECUTABLE;
                self.push(Action::Link { path, target }, reason);
            }
        }
    }

    fn kubeconfig(&mut self, settings: &Settings, found: &Observed) {
        let (token, authority) = match (&found.token, &found.authority) {
            (Ok(token), Ok(authority)) => (token, authority),
            (token, authority) => {
                self.waiting.extend(token.clone().err());
                self.waiting.extend(authority.clone().err());
                return;
            }
        };
        let content = kube::render_kubeconfig(&Credentials {
            server: &settings.api_server,
            authority: authority.as_deref(),
            token,
        });
        let mode = settings.kubeconfig_mode;
        let is_other = |held: &Held| held.content != content.as_bytes();
        let (reason, cause) = match &found.kubeconfig {
            State::There(held) if is_other(held) && found.is_renewed => (
                "token, authority or address have changed".to_owned(),
                Cause::Renewal,
            ),
            State::There(held) if is_other(held) => {
                ("it was another one".to_owned(), Cause::Repair)
            }
            State::There(_) if found.charge == Charge::Predecessors => (
                "another installer was in charge, which was started earlier".to_owned(),
                Cause::Renewal,
            ),
            State::There(held) => match amiss(held, mode, found.own_uid) {
                Some(reason) => (reason, Cause::Repair),
                None => return,
            },
            State::Missing => ("it was missing".to_owned(), Cause::Repair),
            State::Unreadable(reason) => (format!("it could not be read: {reason}"), Cause::Repair),
        };
        let action = Action::Write {
            path: settings.kubeconfig(),
            content: content.into_bytes(),
            mode,
            owner: None,
            instead_of: None,
        };
        self.push_for(cause, action, reason);
    }
}

/// Whether executable and kubeconfig are there, or can be made.
fn can_work(found: &Observed) -> bool {
    let kubeconfig = matches!(found.kubeconfig, State::There(_))
        || (found.token.is_ok() && found.authority.is_ok());
    found.bin_dir_trouble.is_none() && kubeconfig
}

/// What is wrong with a file of ours, its content apart.
pub fn amiss(held: &Held, mode: u32, own_uid: u32) -> Option<String> {
    if held.mode != mode {
        return Some(format!("its mode was {:04o}", held.mode));
    }
    let uid = held.owner.uid;
    (uid != own_uid).then(|| format!("it belonged to user {uid}"))
}

/// Whether the template makes a plugin's configuration at all.
pub fn check_template(settings: &Settings) -> Result<(), template::Error> {
    let entry = template::render(&settings.template, &values(settings, Some("token")))?;
    let alone = NetworkConfig::parse(STAND_ALONE_FILE, entry.text.as_bytes());
    match (settings.placement, alone) {
        (Placement::StandAlone, Err(_)) => Err(template::Error::NoName),
        _ => Ok(()),
    }
}

fn values<'a>(settings: &'a Settings, token: Option<&'a str>) -> template::Values<'a> {
    template::Values {
        log_level: &settings.plugin_log_level,
        kubeconfig_name: &settings.kubeconfig_name,
        kubeconfig_path: &settings.kubeconfig_on_host,
        service_host: &settings.service_host,
        service_port: &settings.service_port,
        node_name: &settings.node_name,
        token,
    }
}

fn entry(settings: &Settings, found: &Observed) -> Result<Entry, String> {
    let values = values(settings, found.token.as_deref().ok());
    template::render(&settings.template, &values).map_err(|error| error_chain(&error))
}

impl Action {
    /// The file that changes; a renamed one under its old name.
    pub fn path(&self) -> &Path {
        match self {
            Self::CopyExecutable { path, .. }
            | Self::Link { path, .. }
            | Self::Write { path, .. }
            | Self::SetAside { path, .. }
            | Self::Restore { aside: path, .. }
            | Self::Remove { path }
            | Self::Sync { path } => path,
        }
    }
}

/// In the past tense, for the log. Never a content, which may hold a token.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = self.path().display();
        match self {
            Self::CopyExecutable { .. } => write!(f, "copied the executable to {path}"),
            Self::Link { target, .. } => write!(f, "linked {path} to {target}"),
            Self::Write { mode, .. } => write!(f, "wrote {path} with mode {mode:04o}"),
            Self::SetAside {
                path: from,
                aside: to,
                ..
            }
            | Self::Restore {
                path: to,
                aside: from,
            } => {
                write!(f, "renamed {} to {}", from.display(), to.display())
            }
            Self::Remove { .. } => write!(f, "removed {path}"),
            Self::Sync { .. } => write!(f, "synced {path}"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
