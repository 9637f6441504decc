//! Plans the insertion of the plugin entry as the last plugin of the network that the runtime
//! loads. A `.conf` or `.json` is converted to a list first. Pure.

use std::path::{Path, PathBuf};

use super::conflist::{List, NetworkConfig, Single};
use super::model::{Loaded, NetDir, Origin, backup_name, list_name, mode_for};
use super::remove::{remove, restore};
use super::template::Entry;
use crate::node::step::{Action, Cause, Plan};

/// Adds the entry to the file that the runtime loads, and takes it out of every other file.
pub fn insert(dir: &NetDir, entry: &Entry, plan: &mut Plan) {
    let mut insertion = Insertion { dir, entry, plan };
    match dir.primary() {
        Some(primary) => insertion.chain_to(primary),
        None => insertion.wait_for_network(),
    }
}

struct Insertion<'a> {
    dir: &'a NetDir<'a>,
    entry: &'a Entry,
    plan: &'a mut Plan,
}

impl Insertion<'_> {
    fn chain_to(&mut self, primary: &Loaded) {
        self.wait_for_doubtful(primary);
        if let Some(other) = self.dir.shadowing(primary) {
            let reason = format!(
                "{} can hold only one plugin, and cannot be converted to {}, because {other} sorts before that; rename one of them",
                primary.sort_key(),
                list_name(primary.sort_key()),
            );
            self.plan.steps.extend(remove(self.dir, None, &reason));
            self.plan.wait(reason);
            return;
        }
        match &primary.config {
            NetworkConfig::List(list) => {
                self.update_entry(primary, list);
                self.remove_others(&primary.file.path);
            }
            NetworkConfig::Single(single) => self.convert(&Source {
                file: primary,
                single,
            }),
        }
    }

    fn remove_others(&mut self, kept: &Path) {
        let reason = "the plugin entry is in another file now";
        self.plan.steps.extend(remove(self.dir, Some(kept), reason));
    }

    /// Makes the entry the last plugin of a list. A converted list is generated from its backup
    /// again, which also records the origin if the list does not.
    fn update_entry(&mut self, file: &Loaded, list: &List) {
        let backup = match file.origin {
            Some(Origin::BackedUp(name)) => self.dir.backup(name),
            _ => None,
        };
        let content = match backup {
            Some(backup) => {
                let converted = backup.single.converted(backup.name, &self.entry.text);
                (!list.equals(&converted)).then_some(converted)
            }
            None => list.with_entry(&self.entry.text),
        };
        let (content, reason) = match content {
            Some(content) => (content, self.list_drift(list)),
            None if mode_for(self.entry.secrecy, file.snapshot.mode) != file.snapshot.mode => (
                file.snapshot.text().into_owned(),
                "its mode let other users read the token",
            ),
            None => return,
        };
        let action = file.rewritten(content, self.entry.secrecy);
        self.plan
            .push_for(self.dir.cause(self.entry.secrecy), action, reason);
    }

    /// How a list differs from what msm-cni would write.
    fn list_drift(&self, list: &List) -> &'static str {
        match list.with_entry(&self.entry.text) {
            Some(_) if list.has_entry() => "the plugin entry was different, repeated or not last",
            Some(_) => "the plugin entry was missing",
            None => "the name of its original was not recorded",
        }
    }

    /// Converts a `.conf` or `.json`. The list is written before the file is renamed, so that
    /// the runtime finds one of them at any time.
    fn convert(&mut self, source: &Source) {
        let dir = self.dir;
        let origin = &source.file.file.name;
        let name = list_name(origin);
        let existing = dir.find(&name);
        match existing.map(|existing| (existing, &existing.config)) {
            None if !dir.exists(&name) => self.plan.push(
                self.converted(source, None),
                format!("it replaces {origin}, which can hold only one plugin"),
            ),
            Some((existing, NetworkConfig::List(list))) if is_replaceable(existing, list) => {
                self.replace(existing, list, source);
            }
            // Another component has edited the list, which still contains the whole source.
            Some((existing, NetworkConfig::List(list)))
                if list.contains(source.single)
                    && (list.recorded_origin() == Some(origin) || dir.backup(origin).is_some()) =>
            {
                self.update_entry(existing, list);
            }
            _ => {
                self.plan.wait(format!(
                    "both {origin} and {name} are in {}, and the container runtime loads only the first; remove the outdated one",
                    dir.settings.net_dir.display()
                ));
                return;
            }
        }
        self.plan.push(
            Action::BackUp {
                path: dir.path(origin),
                backup: dir.path(&backup_name(origin)),
                content: source.file.snapshot.content.clone(),
            },
            format!("{name} replaces it"),
        );
        self.remove_others(&list_path(dir, existing, &name));
    }

    /// Replaces a list that msm-cni made by the conversion of `source`.
    fn replace(&mut self, existing: &Loaded, list: &List, source: &Source) {
        let name = &source.file.file.name;
        if list.equals(&source.single.converted(name, &self.entry.text)) {
            // Only the mode may differ.
            self.update_entry(existing, list);
            return;
        }
        let (cause, reason) = if list.is_converted_from(source.single) {
            (
                self.dir.cause(self.entry.secrecy),
                self.list_drift(list).to_owned(),
            )
        } else {
            (Cause::Repair, format!("{name} was rewritten"))
        };
        // A `.conf` takes precedence over the `.json` that the list was made from.
        let other = existing.origin.filter(|origin| origin.name() != name);
        let restored = other.and_then(|origin| restore(self.dir, origin, &reason));
        self.plan.steps.extend(restored);
        let action = self.converted(source, Some(existing));
        self.plan.push_for(cause, action, reason);
    }

    /// The list that `source` is converted to.
    fn converted(&self, source: &Source, existing: Option<&Loaded>) -> Action {
        let Source { file, single } = source;
        let name = &file.file.name;
        Action::Write {
            path: list_path(self.dir, existing, &list_name(name)),
            content: single.converted(name, &self.entry.text).into_bytes(),
            mode: mode_for(self.entry.secrecy, file.snapshot.mode),
            owner: Some(file.snapshot.owner),
            instead_of: existing.map(|existing| existing.snapshot.content.clone()),
        }
    }

    fn wait_for_network(&mut self) {
        let dir = self.dir;
        // A stand-alone file is not a network to add the entry to.
        for loaded in dir.files.iter().filter(|it| it.config.is_our_own()) {
            let path = dir.path(&loaded.file.name);
            self.plan
                .remove(path, "the plugin is chained, and no longer stand-alone");
        }
        self.plan.wait(missing_network(dir));
    }

    fn wait_for_doubtful(&mut self, primary: &Loaded) {
        if let Some(unusable) = self.dir.doubtful_before(primary) {
            self.plan.wait(format!(
                "{} sorts before {} and the container runtime may load it, but msm-cni cannot: {}; fix or remove it",
                unusable.file.name, primary.file.name, unusable.reason
            ));
        }
    }
}

/// The file to convert.
struct Source<'a> {
    file: &'a Loaded<'a>,
    single: &'a Single<'a>,
}

/// Whether msm-cni made all of a list, so that no edit is lost with it.
fn is_replaceable(existing: &Loaded, list: &List) -> bool {
    let is_recorded = list
        .recorded_origin()
        .is_some_and(|name| list_name(name) == existing.file.name);
    existing.config.is_our_own()
        || existing.origin.is_some()
        || is_recorded && list.is_unedited_conversion()
}

/// Where a list is; the name of an existing one may be a symlink.
fn list_path(dir: &NetDir, existing: Option<&Loaded>, name: &str) -> PathBuf {
    existing.map_or_else(|| dir.path(name), |existing| existing.file.path.clone())
}

/// Reports why there is no network to add the entry to.
fn missing_network(dir: &NetDir) -> String {
    let directory = dir.settings.net_dir.display();
    let conf_name = dir.settings.conf_name.as_deref();
    let is_candidate = |file: &str| conf_name.is_none_or(|name| list_name(name) == list_name(file));
    let missing = conf_name.map_or_else(
        || format!("{directory} contains no valid network configuration yet"),
        |name| format!("{directory} does not contain a valid {name} yet"),
    );
    let waiting = "waiting for the node's network plugin to write it".to_owned();
    let unusable = dir
        .unusable
        .iter()
        .find(|it| is_candidate(&it.file.name))
        .map(|it| format!("{} cannot be used: {}", it.file.name, it.reason));
    let backup = dir
        .backups
        .iter()
        .find(|it| is_candidate(it.name))
        .map(|it| {
            format!(
                "{} was removed, and its original is {}",
                list_name(it.name),
                backup_name(it.name)
            )
        });
    let parts = [Some(missing), Some(waiting), unusable, backup];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
