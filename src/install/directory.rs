//! What has to be done in the runtime's configuration directory: our entry goes into the
//! file that the runtime would use without us, behind all others' plugins, and out of every
//! other file; or into a file of its own. Pure. At every moment the runtime finds the
//! network that it would find without us.

use std::path::Path;

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
            Err(Unheld::ByUs(reason)) => Err((reason.clone(), false)),
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
                loaded.text(),
                format!("it holds a token, and its mode was {:04o}", loaded.held.mode),
            ),
            None => return,
        };
        // A new token makes another entry.
        let cause = match entry.secrecy {
            Secrecy::HoldsToken if list.has_entry() => Cause::Renewal,
            _ => Cause::Repair,
        };
        plan.push_as(cause, loaded.rewritten(content, entry.secrecy), reason);
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
                plan.push(first.as_list(existing, single, entry), reason);
            }
            None if !self.has(&name) => {
                let reason = format!("{} takes one plugin only", first.file.name);
                plan.push(
                    Action::Write {
                        path: path.clone(),
                        content: single.as_list_with(&entry.text).into_bytes(),
                        mode: private(first.held.mode, entry.secrecy),
                        owner: Some(first.held.owner),
                        known: None,
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
                known: Some(first.held.content.clone()),
            },
            format!("{name} holds its plugin, and ours"),
        );
        self.leave(Some(&path), "it is in another file now", plan);
    }
}
