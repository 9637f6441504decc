//! How our entry comes into the runtime's configuration directory. Pure.

use std::path::Path;

use crate::json;
use crate::names::STAND_ALONE_FILE;
use crate::node::netdir::Loaded;
use crate::node::netdir::NetDir;
use crate::node::netdir::conflist::{List, NetworkConfig, Single, is_list};
use crate::node::netdir::list_name;
use crate::node::netdir::original_name;
use crate::node::netdir::private;
use crate::node::netdir::template::{Entry, Secrecy};
use crate::node::step::{Action, Cause, Plan, metadata_drift};

/// Of a configuration that was nobody's before.
const CONFIGURATION_MODE: u32 = 0o644;

impl NetDir<'_> {
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
                "{} takes one plugin only, and {other} comes before the list that it would become; rename one of them",
                self.rank(first)
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

    /// Turns a `.conf` or `.json` into a `.conflist`. The list is there before the other
    /// steps aside, so that at every moment the runtime finds one of them.
    fn convert(&self, first: &Loaded, single: &Single, entry: &Entry, plan: &mut Plan) {
        let name = list_name(&first.file.name);
        let backup = self.originals.iter().find(|it| it.name == first.file.name);
        let existing = self.files.iter().find(|loaded| loaded.file.name == name);
        let mut path = self.path(&name);
        let written = |path: &Path, instead_of| Action::Write {
            path: path.to_owned(),
            content: single.as_list_with(&entry.text).into_bytes(),
            mode: private(first.snapshot.mode, entry.secrecy),
            owner: Some(first.snapshot.owner),
            instead_of,
        };
        match existing.map(|existing| (existing, &existing.config)) {
            // Another of our runs got that far, or somebody has changed the list since.
            Some((existing, NetworkConfig::List(list)))
                if list.has_entry() && list.is_made_of(single)
                    || backup.is_some() && list.holds(single) =>
            {
                path.clone_from(&existing.file.path);
                self.settle(existing, list, entry, plan);
            }
            Some((existing, config @ NetworkConfig::List(list)))
                if config.is_our_own()
                    || list.has_our_form()
                    || backup.is_some_and(|original| list.is_made_of(&original.single)) =>
            {
                path.clone_from(&existing.file.path);
                let reason = format!("{} has been written anew", first.file.name);
                // Of a `.json`, with a `.conf` of the same name now.
                if let Some(source) = self.source(existing)
                    && source.name() != first.file.name
                {
                    self.restore(source, &reason, plan);
                }
                plan.push(
                    written(&path, Some(existing.snapshot.content.clone())),
                    reason,
                );
            }
            None if !self.has(&name) => {
                let reason = format!("{} takes one plugin only", first.file.name);
                plan.push(written(&path, None), reason);
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
            Action::BackUp {
                path: self.path(&first.file.name),
                backup: self.path(&original_name(&first.file.name)),
                content: first.snapshot.content.clone(),
            },
            format!("{name} holds its plugin, and ours"),
        );
        self.leave(Some(&path), "it is in another file now", plan);
    }

    /// Makes our entry the last one of a list.
    fn settle(&self, loaded: &Loaded, list: &List, entry: &Entry, plan: &mut Plan) {
        let mode = private(loaded.snapshot.mode, entry.secrecy);
        let (content, reason) = match list.with_entry(&entry.text) {
            Some(content) if list.has_entry() => (
                content,
                "our entry was another one, not the last, or there twice",
            ),
            Some(content) => (content, "our entry was missing"),
            None if mode != loaded.snapshot.mode => (
                loaded.snapshot.text().into_owned(),
                "others could read the token in it",
            ),
            None => return,
        };
        plan.push_for(
            self.cause(entry),
            loaded.rewritten(content, entry.secrecy),
            reason,
        );
    }

    /// Of a change of the entry.
    const fn cause(&self, entry: &Entry) -> Cause {
        match entry.secrecy {
            Secrecy::HoldsToken if self.is_renewed => Cause::Renewal,
            _ => Cause::Repair,
        }
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
        let snapshot = existing.and_then(|file| file.snapshot.as_ref().ok());
        let reason = match existing.map(|file| &file.snapshot) {
            None => Some("it was missing".to_owned()),
            Some(Err(_)) => Some("it could not be read".to_owned()),
            Some(Ok(snapshot)) if !json::same(&snapshot.text(), &content) => {
                Some("it was another one".to_owned())
            }
            Some(Ok(snapshot)) => metadata_drift(snapshot, mode, own_uid),
        };
        if let Some(reason) = reason {
            plan.push_for(
                self.cause(entry),
                Action::Write {
                    path: path.clone(),
                    content: content.into_bytes(),
                    mode,
                    owner: None,
                    instead_of: snapshot.map(|snapshot| snapshot.content.clone()),
                },
                reason,
            );
        }
        self.leave(Some(&path), "it is in a file of its own now", plan);
    }

    fn nothing_to_chain_to(&self) -> String {
        let directory = self.settings.net_dir.display();
        let wanted = self.settings.conf_name.as_deref();
        let is_meant = |file: &str| wanted.is_none_or(|name| list_name(name) == list_name(file));
        let missing = wanted.map_or_else(
            || format!("{directory} holds no valid network configuration yet"),
            |name| format!("{directory} does not hold a valid {name} yet"),
        );
        let unusable = self
            .unusable
            .iter()
            .find(|it| is_meant(&it.file.name))
            .map(|it| format!("{} cannot be used: {}", it.file.name, it.reason));
        let original = self
            .originals
            .iter()
            .find(|it| is_meant(it.name))
            .map(|it| {
                format!(
                    "{} is gone, and {} is what it was made of",
                    list_name(it.name),
                    original_name(it.name)
                )
            });
        let waiting = "waiting for the node's network plugin to write it".to_owned();
        let parts = [Some(missing), Some(waiting), unusable, original];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// A list with nothing but our entry, of its name and version.
fn alone_in_a_list(entry: &str) -> String {
    match NetworkConfig::parse(STAND_ALONE_FILE, entry.as_bytes()) {
        Ok(NetworkConfig::Single(single)) => single.as_list(),
        _ => entry.to_owned(),
    }
}
