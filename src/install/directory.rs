//! What has to be done in the runtime's configuration directory: our entry goes into the
//! file that the runtime would use without us, behind all others' plugins, and out of every
//! other file; or into a file of its own. Pure. At every moment the runtime finds the
//! network that it would find without us.

use std::path::{Path, PathBuf};

use super::conflist::{List, NetworkConfig, Single, is_list};
use super::observe::{Held, NetFile, Unheld};
use super::plan::{Action, Cause, Plan, amiss};
use super::settings::Settings;
use super::template::{Entry, Secrecy};
use crate::json;
use crate::names::{CNI_APPLET, ORIGINAL_SUFFIX, STAND_ALONE_FILE, is_network_configuration};
use crate::process::chain;

/// Of a configuration that was nobody's before.
const CONFIGURATION_MODE: u32 = 0o644;
/// The permissions of everybody but the owner.
const NOT_OWNERS: u32 = 0o077;

/// The files of the directory, by what they are.
pub struct Directory<'a> {
    settings: &'a Settings,
    /// All of them, sorted by name.
    all: &'a [NetFile],
    /// Those that a runtime would load.
    files: Vec<Loaded<'a>>,
    unusable: Vec<Unusable<'a>>,
    /// Those that have stepped aside for a list.
    originals: Vec<Original<'a>>,
}

struct Loaded<'a> {
    file: &'a NetFile,
    held: &'a Held,
    config: NetworkConfig<'a>,
}

/// A file of which we can make nothing.
struct Unusable<'a> {
    file: &'a NetFile,
    reason: String,
    /// Whether the runtime can make nothing of it either.
    is_certain: bool,
}

struct Original<'a> {
    /// Which it had before.
    name: &'a str,
    single: Single<'a>,
}

impl<'a> Directory<'a> {
    pub fn new(settings: &'a Settings, all: &'a [NetFile]) -> Self {
        let mut directory = Self {
            settings,
            all,
            files: Vec::new(),
            unusable: Vec::new(),
            originals: Vec::new(),
        };
        for file in all {
            directory.sort_in(file);
        }
        directory
    }

    fn sort_in(&mut self, file: &'a NetFile) {
        let before = file.name.strip_suffix(ORIGINAL_SUFFIX);
        let name = before.unwrap_or(&file.name);
        let parsed = match &file.held {
            Ok(held) => NetworkConfig::parse(name, &held.content)
                .map(|config| Loaded { file, held, config })
                .map_err(|error| (chain(&error), error.is_certain())),
            Err(Unheld::ByAnyone(reason)) => Err((reason.clone(), true)),
            Err(Unheld::Elsewhere(reason) | Unheld::Failed(reason)) => Err((reason.clone(), false)),
        };
        match (before, parsed) {
            (None, Ok(loaded)) => self.files.push(loaded),
            (None, Err((reason, is_certain))) => self.unusable.push(Unusable {
                file,
                reason,
                is_certain,
            }),
            (Some(name), Ok(loaded)) if is_network_configuration(name) => {
                if let NetworkConfig::Single(single) = loaded.config {
                    self.originals.push(Original { name, single });
                }
            }
            (Some(_), _) => {}
        }
    }

    /// Puts our entry into the file that the runtime uses, and takes it out of all others.
    pub fn chain(&self, entry: &Entry, plan: &mut Plan) {
        let Some(first) = self.first() else {
            // A network that is no network: nothing but our plugin.
            for loaded in self.files.iter().filter(|it| it.config.is_our_own()) {
                plan.remove(self.path(&loaded.file.name), "it is to be chained");
            }
            plan.wait(self.nothing_to_chain_to());
            return;
        };
        plan.waiting.extend(self.hidden_before(first));
        if let Some(other) = self.obstacle(first) {
            let reason = format!(
                "{} takes one plugin only, and {} comes before the list that it would become; rename one of them",
                self.rank(first),
                other.file.name
            );
            self.leave(None, &reason, plan);
            plan.wait(reason);
            return;
        }
        match &first.config {
            NetworkConfig::List(list) => {
                self.settle(first, list, entry, plan);
                self.leave(Some(&first.file.path), "it is in another file now", plan);
            }
            NetworkConfig::Single(single) => self.convert(first, single, entry, plan),
        }
    }

    /// What the runtime would use without us: a list that we made of a `.conf` or `.json`
    /// counts as that.
    fn first(&self) -> Option<&Loaded<'a>> {
        let others = || self.files.iter().filter(|it| !it.config.is_our_own());
        let first = match &self.settings.conf_name {
            None => others().min_by_key(|loaded| self.rank(loaded)),
            Some(wanted) => others()
                .find(|loaded| loaded.file.name == *wanted)
                .or_else(|| others().find(|it| list_name(&it.file.name) == list_name(wanted))),
        }?;
        // Its owner has written anew what stepped aside.
        let source = self.source(first).map(Source::name);
        let anew = others().find(|loaded| Some(loaded.file.name.as_str()) == source);
        anew.or(Some(first))
    }

    /// The name that decides about its turn without us.
    fn rank<'b>(&'b self, loaded: &'b Loaded<'a>) -> &'b str {
        self.source(loaded).map_or(&loaded.file.name, Source::name)
    }

    /// What the list is made of, if it is ours and nobody has changed it since.
    fn source(&self, loaded: &Loaded<'a>) -> Option<Source<'_>> {
        let NetworkConfig::List(list) = &loaded.config else {
            return None;
        };
        let becomes_it = |name: &str| list_name(name) == loaded.file.name;
        let aside = self
            .originals
            .iter()
            .find(|original| becomes_it(original.name) && list.is_made_of(&original.single))
            .map(|original| Source::Aside(original.name));
        // We were interrupted before it stepped aside, or after it came back.
        let beside = || {
            self.files.iter().find_map(|other| match &other.config {
                NetworkConfig::Single(single)
                    if becomes_it(&other.file.name)
                        && list.has_entry()
                        && list.is_made_of(single) =>
                {
                    Some(Source::Beside(other.file.name.as_str()))
                }
                _ => None,
            })
        };
        aside.or_else(beside)
    }

    /// A file that the runtime would use instead of the list that `first` is or becomes.
    fn obstacle(&self, first: &Loaded<'a>) -> Option<&Loaded<'a>> {
        let list = list_name(&first.file.name);
        self.files.iter().find(|other| {
            self.settings.conf_name.is_none()
                && other.file.name < list
                && other.file.name != first.file.name
                && !other.config.is_our_own()
                && self.source(other).is_none()
        })
    }

    /// A file before `first` that may be a network for the runtime, though not for us.
    fn hidden_before(&self, first: &Loaded<'a>) -> Option<String> {
        let list = list_name(&first.file.name);
        let end = list.as_str().max(self.rank(first));
        let hidden = self.unusable.iter().find(|unusable| {
            self.settings.conf_name.is_none()
                && !unusable.is_certain
                && unusable.file.name.as_str() < end
        })?;
        Some(format!(
            "the runtime may use {}, which comes before {}, but we cannot: {}; mend or remove it",
            hidden.file.name, first.file.name, hidden.reason
        ))
    }

    fn nothing_to_chain_to(&self) -> String {
        let directory = self.settings.net_dir.display();
        let wanted = self.settings.conf_name.as_deref();
        let mut reason = wanted.map_or_else(
            || format!("{directory} holds no valid network configuration yet"),
            |name| format!("{directory} does not hold a valid {name} yet"),
        );
        reason += "; waiting for the node's network plugin to write it";
        let is_meant = |file: &str| wanted.is_none_or(|name| list_name(name) == list_name(file));
        let mut unusable = self.unusable.iter();
        if let Some(it) = unusable.find(|it| is_meant(&it.file.name)) {
            reason += &format!("; {} cannot be used: {}", it.file.name, it.reason);
        }
        if let Some(original) = self.originals.iter().find(|it| is_meant(it.name)) {
            let list = list_name(original.name);
            reason += &format!(
                "; {list} is gone, and {} is still what it was made of",
                original_name(original.name)
            );
        }
        reason
    }

    /// Makes our entry the last one of a list.
    fn settle(&self, loaded: &Loaded, list: &List, entry: &Entry, plan: &mut Plan) {
        let mode = private(loaded.held.mode, entry.secrecy);
        let (content, reason) = match list.with_entry(&entry.text) {
            Some(content) if list.has_entry() => (
                content,
                "our entry was another one, not the last, or there twice".to_owned(),
            ),
            Some(content) => (content, "our entry was missing".to_owned()),
            None if mode != loaded.held.mode => (
                loaded.held.text().into_owned(),
                format!(
                    "it holds a token, and its mode was {:04o}",
                    loaded.held.mode
                ),
            ),
            None => return,
        };
        // A new token makes another entry.
        let cause = match entry.secrecy {
            Secrecy::HoldsToken if list.has_entry() => Cause::Renewal,
            _ => Cause::Repair,
        };
        plan.push_for(cause, loaded.rewritten(content, entry.secrecy), reason);
    }

    /// Turns a `.conf` or `.json` into a `.conflist`. The list is there before the other
    /// steps aside, so that at every moment the runtime finds one of them.
    fn convert(&self, first: &Loaded, single: &Single, entry: &Entry, plan: &mut Plan) {
        let name = list_name(&first.file.name);
        let aside = self.originals.iter().find(|it| it.name == first.file.name);
        let existing = self.files.iter().find(|loaded| loaded.file.name == name);
        let mut path = self.path(&name);
        match existing.map(|existing| (existing, &existing.config)) {
            // Another of our runs got that far, or somebody has changed the list since.
            Some((existing, NetworkConfig::List(list)))
                if list.has_entry() && list.is_made_of(single)
                    || aside.is_some() && list.holds(single) =>
            {
                path.clone_from(&existing.file.path);
                self.settle(existing, list, entry, plan);
            }
            Some((existing, config @ NetworkConfig::List(list)))
                if config.is_our_own()
                    || aside.is_some_and(|original| list.is_made_of(&original.single)) =>
            {
                path.clone_from(&existing.file.path);
                let reason = format!("{} has been written anew", first.file.name);
                plan.push(
                    Action::Write {
                        path: path.clone(),
                        content: single.as_list_with(&entry.text).into_bytes(),
                        mode: private(first.held.mode, entry.secrecy),
                        owner: Some(first.held.owner),
                    },
                    reason,
                );
            }
            None if !self.has(&name) => {
                let reason = format!("{} takes one plugin only", first.file.name);
                plan.push(
                    Action::Write {
                        path: path.clone(),
                        content: single.as_list_with(&entry.text).into_bytes(),
                        mode: private(first.held.mode, entry.secrecy),
                        owner: Some(first.held.owner),
                    },
                    reason,
                );
            }
            _ => {
                plan.wait(format!(
                    "both {} and {name} are in {}, and the runtime uses the first of them; remove the one that is not needed",
                    first.file.name,
                    self.settings.net_dir.display()
                ));
                return;
            }
        }
        plan.push(
            Action::Rename {
                from: self.path(&first.file.name),
                to: self.path(&original_name(&first.file.name)),
            },
            format!("{name} holds its plugin, and ours"),
        );
        self.leave(Some(&path), "it is in another file now", plan);
    }

    /// Writes a file of our own, whatever else is there.
    pub fn stand_alone(&self, entry: &Entry, own_uid: u32, plan: &mut Plan) {
        let wanted = self.settings.conf_name.as_deref();
        let name = wanted.unwrap_or(STAND_ALONE_FILE);
        let path = self.path(name);
        let existing = self.all.iter().find(|file| file.name == name);
        let loaded = self.files.iter().find(|loaded| loaded.file.name == name);
        let is_ours = match loaded {
            Some(loaded) => loaded.config.is_our_own(),
            // Nobody else has reason to write a file of our name.
            None => existing.is_none() || wanted.is_none(),
        };
        if !is_ours {
            plan.wait(format!(
                "{} is somebody else's; choose another --cni-conf-name",
                path.display()
            ));
            return;
        }
        let content = if is_list(name) {
            alone_in_a_list(&entry.text)
        } else {
            format!("{}\n", entry.text)
        };
        let mode = private(CONFIGURATION_MODE, entry.secrecy);
        let reason = match existing.map(|file| &file.held) {
            None => Some("it was missing".to_owned()),
            Some(Err(_)) => Some("it could not be read".to_owned()),
            Some(Ok(held)) if !json::same(&held.text(), &content) => {
                Some("it was another one".to_owned())
            }
            Some(Ok(held)) => amiss(held, mode, own_uid),
        };
        if let Some(reason) = reason {
            let content = content.into_bytes();
            plan.push(
                Action::Write {
                    path: path.clone(),
                    content,
                    mode,
                    owner: None,
                },
                reason,
            );
        }
        self.leave(Some(&path), "it is in a file of its own now", plan);
    }

    /// Takes our entry out of every file but `kept`. What was a `.conf` or `.json` is one
    /// again, and there before its list goes.
    pub fn leave(&self, kept: Option<&Path>, reason: &str, plan: &mut Plan) {
        for loaded in &self.files {
            let name = &loaded.file.name;
            if Some(loaded.file.path.as_path()) == kept {
                continue;
            }
            match (self.source(loaded), &loaded.config) {
                _ if loaded.config.is_our_own() => plan.remove(self.path(name), reason),
                (Some(source), _) => {
                    if let Source::Aside(original) = source
                        && !self.has(original)
                    {
                        plan.push(
                            Action::Rename {
                                from: self.path(&original_name(original)),
                                to: self.path(original),
                            },
                            format!("it comes back in place of {name}: {reason}"),
                        );
                    }
                    plan.remove(self.path(name), reason);
                }
                (None, NetworkConfig::List(list)) => {
                    if let Some(content) = list.without_entry() {
                        plan.push(loaded.rewritten(content, Secrecy::Public), reason);
                    }
                }
                (None, NetworkConfig::Single(_)) => {}
            }
        }
        self.remove_originals(kept, plan);
    }

    /// What has been written anew needs no other version of it.
    fn remove_originals(&self, kept: Option<&Path>, plan: &mut Plan) {
        for file in self.all {
            if let Some(name) = file.name.strip_suffix(ORIGINAL_SUFFIX)
                && self.has(name)
                && Some(self.path(&list_name(name)).as_path()) != kept
            {
                plan.remove(
                    self.path(&file.name),
                    &format!("{name} has been written anew"),
                );
            }
        }
    }

    /// The originals that stay aside when we leave, because others have changed or removed
    /// what was made of them.
    pub fn left_aside(&self) -> Vec<String> {
        let sources: Vec<_> = self
            .files
            .iter()
            .filter_map(|loaded| self.source(loaded))
            .map(Source::name)
            .collect();
        self.all
            .iter()
            .filter_map(|file| Some((file, file.name.strip_suffix(ORIGINAL_SUFFIX)?)))
            .filter(|(_, name)| !self.has(name) && !sources.contains(name))
            .map(|(file, name)| {
                format!(
                    "{} stays: {}, which it had become, has been changed or removed by somebody since",
                    self.path(&file.name).display(),
                    list_name(name)
                )
            })
            .collect()
    }

    /// Files that may hold our entry, though we cannot see it or take it out.
    pub fn suspects(&self) -> Vec<String> {
        let may_name_us = |file: &NetFile| match &file.held {
            Ok(held) => names_us(&held.content),
            Err(Unheld::Failed(_)) => true,
            Err(Unheld::ByAnyone(_) | Unheld::Elsewhere(_)) => false,
        };
        self.unusable
            .iter()
            .filter(|unusable| may_name_us(unusable.file))
            .map(|unusable| {
                format!(
                    "{} may hold our entry, but {}",
                    self.path(&unusable.file.name).display(),
                    unusable.reason
                )
            })
            .collect()
    }

    /// Whether there is anything of that name.
    fn has(&self, name: &str) -> bool {
        self.all.iter().any(|file| file.name == name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.net_dir.join(name)
    }
}

/// What a list was made of, by name.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// It has stepped aside.
    Aside(&'a str),
    /// It stands beside the list.
    Beside(&'a str),
}

impl<'a> Source<'a> {
    const fn name(self) -> &'a str {
        match self {
            Self::Aside(name) | Self::Beside(name) => name,
        }
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

fn names_us(content: &[u8]) -> bool {
    let name = CNI_APPLET.as_bytes();
    content.windows(name.len()).any(|window| window == name)
}
