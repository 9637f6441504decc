//! What has to be done so that the disk is as it should be: a list of steps, worked out of
//! what was found. Pure. The order is such that at no moment the node's configuration names
//! a plugin that is not there, or a plugin that could not work.

use std::fmt;
use std::path::{Path, PathBuf};

use super::conflist::{List, NetworkConfig, Single, is_list, same_json};
use super::disk::Owner;
use super::observe::{BinDir, Comparison, Held, NetFile, Observed, State};
use super::settings::{ExecutableAtCleanup, Placement, Replacement, Settings};
use super::template::{self, Entry, Secrecy};
use crate::kube::{self, Credentials};
use crate::names::{CNI_APPLET, EXECUTABLE, ORIGINAL_SUFFIX, STAND_ALONE_FILE};
use crate::process::chain;

const EXECUTABLE_MODE: u32 = 0o755;
/// Of a configuration that was nobody's before.
const CONFIGURATION_MODE: u32 = 0o644;
/// The permissions of everybody but the owner.
const NOT_OWNERS: u32 = 0o077;

/// What is to be done, and what has to be waited for. The disk is as it should be when
/// both are empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<String>,
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
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
}

/// What should be there.
pub fn plan(settings: &Settings, found: &Observed) -> Plan {
    let mut plan = Plan::default();
    plan.remove_temporaries(found);
    plan.executables(settings, found);
    plan.kubeconfig(settings, found);
    match (entry(settings, found), &found.net_files) {
        (Err(reason), _) => plan.wait(reason),
        (_, Err(reason)) => plan.wait(reason.clone()),
        // A pod would fail to start with an entry whose plugin cannot work.
        (Ok(entry), Ok(files)) if can_work(found) => {
            let directory = Directory::new(settings, files);
            match settings.placement {
                Placement::Chained => directory.chain(&entry, &mut plan),
                Placement::StandAlone => directory.stand_alone(&entry, &mut plan),
            }
        }
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
    match &found.net_files {
        Ok(files) => {
            for file in files {
                plan.know_before_leaving(file);
            }
            Directory::new(settings, files).leave(None, reason, &mut plan);
        }
        Err(reason) => plan.wait(reason.clone()),
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

    fn push(&mut self, action: Action, reason: impl Into<String>) {
        self.steps.push(Step {
            action,
            reason: reason.into(),
            cause: Cause::Repair,
        });
    }

    fn remove(&mut self, path: PathBuf, reason: &str) {
        self.push(Action::Remove { path }, reason);
    }

    fn wait(&mut self, reason: String) {
        self.waiting.push(reason);
    }

    /// A file that cannot be read, or is just being written, may hold our entry.
    fn know_before_leaving(&mut self, file: &NetFile) {
        let path = file.path.display();
        match &file.held {
            Err(reason) => self.wait(format!("{path} cannot be read: {reason}")),
            Ok(held) if !file.name.ends_with(ORIGINAL_SUFFIX) && names_us(&held.content) => {
                if let Err(error) = NetworkConfig::parse(&file.name, &held.content) {
                    self.wait(format!("{path} names {CNI_APPLET}, but {}", chain(&error)));
                }
            }
            Ok(_) => {}
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
            state => match amiss(state, mode, found.own_uid) {
                Some(reason) => (reason, Cause::Repair),
                None => return,
            },
        };
        self.steps.push(Step {
            action: Action::Write {
                path: settings.kubeconfig(),
                content: content.into_bytes(),
                mode,
                owner: None,
            },
            reason,
            cause,
        });
    }
}

fn names_us(content: &[u8]) -> bool {
    let name = CNI_APPLET.as_bytes();
    content.windows(name.len()).any(|window| window == name)
}

/// Whether executable and kubeconfig are there, or can be made.
fn can_work(found: &Observed) -> bool {
    let kubeconfig = matches!(found.kubeconfig, State::There(_))
        || (found.token.is_ok() && found.authority.is_ok());
    found.bin_dir_trouble.is_none() && kubeconfig
}

/// What is wrong with a file of ours, its content apart.
fn amiss(state: &State, mode: u32, own_uid: u32) -> Option<String> {
    match state {
        State::Missing => Some("it was missing".to_owned()),
        State::Unreadable(reason) => Some(format!("it could not be read: {reason}")),
        State::There(held) if held.mode != mode => Some(format!("its mode was {:04o}", held.mode)),
        State::There(held) if held.owner.uid != own_uid => {
            Some(format!("it belonged to user {}", held.owner.uid))
        }
        State::There(_) => None,
    }
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
    template::render(&settings.template, &values).map_err(|error| chain(&error))
}

/// The runtime's configuration directory.
struct Directory<'a> {
    settings: &'a Settings,
    files: Vec<Loaded<'a>>,
    all: &'a [NetFile],
}

/// A file that a runtime would load.
struct Loaded<'a> {
    file: &'a NetFile,
    held: &'a Held,
    config: NetworkConfig<'a>,
}

impl<'a> Directory<'a> {
    fn new(settings: &'a Settings, all: &'a [NetFile]) -> Self {
        let loaded = |file: &'a NetFile| {
            if file.name.ends_with(ORIGINAL_SUFFIX) {
                return None;
            }
            let held = file.held.as_ref().ok()?;
            let config = NetworkConfig::parse(&file.name, &held.content).ok()?;
            Some(Loaded { file, held, config })
        };
        Self {
            settings,
            files: all.iter().filter_map(loaded).collect(),
            all,
        }
    }

    /// Puts our entry into the file that the runtime uses, and takes it out of all others.
    fn chain(&self, entry: &Entry, plan: &mut Plan) {
        let Some(first) = self.first() else {
            plan.wait(self.nothing_to_chain_to());
            return;
        };
        match &first.config {
            NetworkConfig::List(list) => {
                if let Some(content) = list.with_entry(&entry.text) {
                    let reason = if list.has_entry() {
                        "our entry was another one, not the last, or there twice"
                    } else {
                        "our entry was missing"
                    };
                    plan.push(first.rewritten(content, entry.secrecy), reason);
                } else if first.held.mode != private(first.held.mode, entry.secrecy) {
                    plan.push(
                        first.rewritten(list.as_it_is(), entry.secrecy),
                        "others could read the token in it",
                    );
                }
                self.leave(Some(&first.file.name), "it is in another file now", plan);
            }
            NetworkConfig::Single(single) => self.convert(first, single, entry, plan),
        }
    }

    fn first(&self) -> Option<&Loaded<'a>> {
        let others = || {
            self.files
                .iter()
                .filter(|loaded| !loaded.config.is_our_own())
        };
        let Some(name) = &self.settings.conf_name else {
            return others().next();
        };
        let converted = list_name(name);
        others()
            .find(|loaded| loaded.file.name == *name)
            .or_else(|| others().find(|loaded| loaded.file.name == converted))
    }

    fn nothing_to_chain_to(&self) -> String {
        let directory = self.settings.net_dir.display();
        let unusable = self.all.iter().find_map(|file| {
            let reason = match &file.held {
                Err(reason) => reason.clone(),
                Ok(held) => match NetworkConfig::parse(&file.name, &held.content) {
                    Err(error) => chain(&error),
                    Ok(_) => return None,
                },
            };
            (!file.name.ends_with(ORIGINAL_SUFFIX))
                .then(|| format!("; {} cannot be used: {reason}", file.name))
        });
        let wanted = self.settings.conf_name.as_deref().map_or_else(
            || format!("{directory} holds no valid network configuration yet"),
            |name| format!("{directory} does not hold a valid {name} yet"),
        );
        format!(
            "{wanted}; waiting for the node's network plugin to write it{}",
            unusable.unwrap_or_default()
        )
    }

    /// Turns a `.conf` into a `.conflist`. The list is there before the `.conf` steps
    /// aside, so that at every moment the runtime finds one of them.
    fn convert(&self, first: &Loaded, single: &Single, entry: &Entry, plan: &mut Plan) {
        let name = list_name(&first.file.name);
        let path = self.settings.net_dir.join(&name);
        let content = single.as_list_with(&entry.text);
        let existing = self.all.iter().find(|file| file.name == name);
        let is_ours = |file: &&NetFile| {
            self.original_of(&file.name).is_some()
                || self.list(&file.name).is_some_and(List::has_entry)
        };
        if existing.is_some_and(|file| !is_ours(&file)) {
            plan.wait(format!(
                "both {} and {name} are in {}, and the runtime uses the first of them; remove the one that is not needed",
                first.file.name,
                self.settings.net_dir.display()
            ));
            return;
        }
        let held = existing.and_then(|file| file.held.as_ref().ok());
        if held.is_none_or(|held| held.content != content.as_bytes()) {
            let reason = format!("{} takes one plugin only", first.file.name);
            let mode = private(first.held.mode, entry.secrecy);
            plan.push(
                Action::Write {
                    path: path.clone(),
                    content: content.into_bytes(),
                    mode,
                    owner: Some(first.held.owner),
                },
                reason,
            );
        }
        plan.push(
            Action::Rename {
                from: self.settings.net_dir.join(&first.file.name),
                to: self.settings.net_dir.join(original_name(&first.file.name)),
            },
            format!("{name} holds its plugin, and ours"),
        );
        self.leave(Some(&name), "it is in another file now", plan);
    }

    /// Writes a file of our own, whatever else is there.
    fn stand_alone(&self, entry: &Entry, plan: &mut Plan) {
        let name = self
            .settings
            .conf_name
            .as_deref()
            .unwrap_or(STAND_ALONE_FILE);
        let existing = self.all.iter().find(|file| file.name == name);
        let loaded = self.files.iter().find(|loaded| loaded.file.name == name);
        match (existing, loaded) {
            (Some(_), Some(loaded)) if !loaded.config.is_our_own() => {
                plan.wait(format!(
                    "{name} in {} is somebody else's; choose another --cni-conf-name",
                    self.settings.net_dir.display()
                ));
                return;
            }
            _ => {}
        }
        let content = if is_list(name) {
            alone_in_a_list(&entry.text)
        } else {
            format!("{}\n", entry.text)
        };
        let mode = private(CONFIGURATION_MODE, entry.secrecy);
        let is_same = |held: &Held| same_json(&String::from_utf8_lossy(&held.content), &content);
        let reason = match existing.map(|file| &file.held) {
            Some(Ok(held)) if !is_same(held) => Some("it was another one".to_owned()),
            Some(Ok(held)) if held.mode != mode => Some(format!("its mode was {:04o}", held.mode)),
            Some(Ok(_)) => None,
            Some(Err(reason)) => Some(format!("it could not be read: {reason}")),
            None => Some("it was missing".to_owned()),
        };
        if let Some(reason) = reason {
            plan.push(
                Action::Write {
                    path: self.settings.net_dir.join(name),
                    content: content.into_bytes(),
                    mode,
                    owner: None,
                },
                reason,
            );
        }
        self.leave(Some(name), "it is in a file of its own now", plan);
    }

    /// Takes our entry out of every file but `kept`.
    fn leave(&self, kept: Option<&str>, reason: &str, plan: &mut Plan) {
        for loaded in &self.files {
            let name = &loaded.file.name;
            if Some(name.as_str()) == kept {
                continue;
            }
            if loaded.config.is_our_own() {
                plan.remove(loaded.file.path.clone(), reason);
                continue;
            }
            let NetworkConfig::List(list) = &loaded.config else {
                continue;
            };
            let Some(content) = list.without_entry() else {
                continue;
            };
            match self.original_of(name) {
                Some((original, single)) if list.extends(&single) => {
                    let back = original.name.strip_suffix(ORIGINAL_SUFFIX);
                    plan.push(
                        Action::Rename {
                            from: original.path.clone(),
                            to: self.settings.net_dir.join(back.unwrap_or_default()),
                        },
                        format!("it comes back in place of {name}: {reason}"),
                    );
                    plan.remove(loaded.file.path.clone(), reason);
                }
                // Killed between coming back and this.
                None if self
                    .single_of(name)
                    .is_some_and(|single| list.extends(single)) =>
                {
                    plan.remove(loaded.file.path.clone(), reason);
                }
                _ => plan.push(loaded.rewritten(content, Secrecy::Public), reason),
            }
        }
    }

    fn list(&self, name: &str) -> Option<&List<'a>> {
        self.files.iter().find_map(|loaded| match &loaded.config {
            NetworkConfig::List(list) if loaded.file.name == name => Some(list),
            _ => None,
        })
    }

    /// The `.conf` or `.json` that has become the list `name`.
    fn original_of(&self, name: &str) -> Option<(&'a NetFile, Single<'a>)> {
        self.all.iter().find_map(|file| {
            let before = file.name.strip_suffix(ORIGINAL_SUFFIX)?;
            if list_name(before) != name {
                return None;
            }
            let held = file.held.as_ref().ok()?;
            match NetworkConfig::parse(before, &held.content) {
                Ok(NetworkConfig::Single(single)) => Some((file, single)),
                _ => None,
            }
        })
    }

    /// A `.conf` or `.json` that stands beside the list `name`.
    fn single_of(&self, name: &str) -> Option<&Single<'a>> {
        self.files.iter().find_map(|loaded| match &loaded.config {
            NetworkConfig::Single(single) if list_name(&loaded.file.name) == name => Some(single),
            _ => None,
        })
    }
}

impl Loaded<'_> {
    /// The same file with another content.
    fn rewritten(&self, content: String, secrecy: Secrecy) -> Action {
        Action::Write {
            path: self.file.path.clone(),
            content: content.into_bytes(),
            mode: private(self.held.mode, secrecy),
            owner: Some(self.held.owner),
        }
    }
}

const fn private(mode: u32, secrecy: Secrecy) -> u32 {
    match secrecy {
        Secrecy::Public => mode,
        Secrecy::HoldsToken => mode & !NOT_OWNERS,
    }
}

/// What `10-x.conf` or `10-x.json` is called as a list.
fn list_name(name: &str) -> String {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    format!("{}.conflist", stem.to_string_lossy())
}

fn original_name(name: &str) -> String {
    format!("{name}{ORIGINAL_SUFFIX}")
}

/// A list with nothing but our entry, of its name and version.
fn alone_in_a_list(entry: &str) -> String {
    match NetworkConfig::parse(STAND_ALONE_FILE, entry.as_bytes()) {
        Ok(NetworkConfig::Single(single)) => single.as_list(),
        _ => entry.to_owned(),
    }
}

impl Action {
    /// The file that changes; a renamed one under its old name.
    pub fn path(&self) -> &Path {
        match self {
            Self::CopyExecutable { path, .. }
            | Self::Link { path, .. }
            | Self::Write { path, .. }
            | Self::Rename { from: path, .. }
            | Self::Remove { path } => path,
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
            Self::Rename { to, .. } => write!(f, "renamed {path} to {}", to.display()),
            Self::Remove { .. } => write!(f, "removed {path}"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
