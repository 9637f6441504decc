//! The runtime's configuration directory as a value: which file the runtime would load without
//! msm-cni, and which lists msm-cni made. `insert` and `remove` plan changes of it such that
//! the runtime finds the same network at every step. Pure.
//!
//! A `.conf` or `.json` holds one plugin only. msm-cni converts it to a list of the same stem,
//! records the origin in the list (`"msm-cni": {"from": "10-x.conf"}`), and renames the file
//! to its backup, `10-x.conf.msm-cni-original`. The rules for `10-x.conf` and its list:
//!
//! | The list | Backup | `10-x.conf` | Insertion | Removal |
//! |---|---|---|---|---|
//! | does not exist | | exists | convert, back up | |
//! | equals the converted backup | yes | | update the entry and the record | restore the backup, then remove the list |
//! | equals the converted backup | yes | exists: rewritten by its owner | convert, back up | remove the list and the backup |
//! | records `10-x.conf`, unedited | | exists: conversion or removal was interrupted | convert, back up | remove the list |
//! | edited by another component, contains the plugin | or a record | exists: rewritten by its owner | update the entry, back up | take out entry and record |
//! | edited by another component | or a record | | update the entry | take out entry and record; the backup remains |
//! | any other | | exists | wait for a decision | take out the entry |
//!
//! Release 0.1.0 recorded no origin; see `unrecorded_origin`.

pub mod conflist;
mod insert;
mod plugin;
mod remove;
mod stand_alone;
pub mod template;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use insert::insert;
pub use remove::{may_change, orphaned_backups, remove, unreadable_mentions};
pub use stand_alone::insert_stand_alone;

use self::conflist::{List, NetworkConfig, Single};
use self::template::Secrecy;
use crate::names::ORIGINAL_SUFFIX;
use crate::node::observe::{FileSnapshot, NetFile, Observed, Unreadable};
use crate::node::settings::Settings;
use crate::node::step::{Action, Cause};
use crate::text::error_chain;
use crate::text::is_network_configuration;

/// The permissions of everyone but the owner.
const OTHERS_PERMISSIONS: u32 = 0o077;

/// The files of the directory, by what they are.
pub struct NetDir<'a> {
    settings: &'a Settings,
    own_uid: u32,
    /// Whether there is a new token.
    is_renewed: bool,
    /// All files, sorted by name.
    all: &'a [NetFile],
    /// The valid network configurations among them.
    files: Vec<Loaded<'a>>,
    unusable: Vec<Unusable<'a>>,
    backups: Vec<Backup<'a>>,
}

struct Loaded<'a> {
    file: &'a NetFile,
    snapshot: &'a FileSnapshot,
    config: NetworkConfig<'a>,
    /// The file that msm-cni converted to this list.
    origin: Option<Origin<'a>>,
}

/// A file that msm-cni cannot load.
struct Unusable<'a> {
    file: &'a NetFile,
    reason: String,
    /// Whether no runtime can load it either.
    is_certain: bool,
}

/// A `.conf` or `.json` that msm-cni renamed after converting it.
struct Backup<'a> {
    /// The file's name before.
    name: &'a str,
    single: Single<'a>,
}

/// Where the origin of a list is, by its name before the conversion.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin<'a> {
    BackedUp(&'a str),
    /// Beside the list: the conversion or its removal was interrupted.
    Present(&'a str),
}

impl<'a> Origin<'a> {
    const fn name(self) -> &'a str {
        match self {
            Self::BackedUp(name) | Self::Present(name) => name,
        }
    }
}

impl<'a> NetDir<'a> {
    /// The error is why the directory cannot be read.
    pub fn new(settings: &'a Settings, observed: &'a Observed) -> Result<Self, &'a str> {
        let all = observed.net_files.as_ref().map_err(String::as_str)?;
        let mut dir = Self {
            settings,
            own_uid: observed.own_uid,
            is_renewed: observed.is_renewed,
            all,
            files: Vec::new(),
            unusable: Vec::new(),
            backups: Vec::new(),
        };
        for file in all {
            dir.load(file);
        }
        let origins: Vec<_> = dir.files.iter().map(|loaded| dir.origin(loaded)).collect();
        for (loaded, origin) in dir.files.iter_mut().zip(origins) {
            loaded.origin = origin;
        }
        Ok(dir)
    }

    fn load(&mut self, file: &'a NetFile) {
        let original_name = file.name.strip_suffix(ORIGINAL_SUFFIX);
        let name = original_name.unwrap_or(&file.name);
        let parsed = match &file.snapshot {
            Ok(snapshot) => NetworkConfig::parse(name, &snapshot.content)
                .map(|config| Loaded {
                    file,
                    snapshot,
                    config,
                    origin: None,
                })
                .map_err(|error| (error_chain(&error), error.is_certain())),
            Err(Unreadable::NotAFile(reason)) => Err((reason.clone(), true)),
            Err(Unreadable::OutsideContainer(reason) | Unreadable::Io(reason)) => {
                Err((reason.clone(), false))
            }
        };
        match (original_name, parsed) {
            (None, Ok(loaded)) => self.files.push(loaded),
            (None, Err((reason, is_certain))) => self.unusable.push(Unusable {
                file,
                reason,
                is_certain,
            }),
            (Some(name), Ok(loaded)) if is_network_configuration(name) => {
                if let NetworkConfig::Single(single) = loaded.config {
                    self.backups.push(Backup { name, single });
                }
            }
            (Some(_), _) => {}
        }
    }

    /// The origin of a list, as long as no other component has edited the list.
    fn origin(&self, loaded: &Loaded<'a>) -> Option<Origin<'a>> {
        let NetworkConfig::List(list) = &loaded.config else {
            return None;
        };
        let recorded = list
            .recorded_origin()
            .and_then(|name| self.recorded_origin(list, name));
        recorded
            .filter(|origin| list_name(origin.name()) == loaded.file.name)
            .or_else(|| self.unrecorded_origin(list, &loaded.file.name))
    }

    fn recorded_origin(&self, list: &List, name: &str) -> Option<Origin<'a>> {
        let backup = self.backup(name);
        if let Some(backup) = backup.filter(|backup| list.is_converted_from(&backup.single)) {
            return Some(Origin::BackedUp(backup.name));
        }
        let (present, _) = self.singles().find(|(file, _)| file.name == name)?;
        // It may differ from the list: its owner may have rewritten it since.
        list.is_unedited_conversion()
            .then_some(Origin::Present(&present.name))
    }

    /// The origin of a list of release 0.1.0, or of one whose record another component removed:
    /// the backup or file of the same stem whose conversion the list is.
    fn unrecorded_origin(&self, list: &List, list_file: &str) -> Option<Origin<'a>> {
        let matches =
            |name: &str, single| list_name(name) == list_file && list.is_converted_from(single);
        let backup = self
            .backups
            .iter()
            .find(|backup| matches(backup.name, &backup.single))
            .map(|backup| Origin::BackedUp(backup.name));
        let present = || {
            self.singles()
                .find(|(file, single)| list.has_entry() && matches(&file.name, single))
                .map(|(file, _)| Origin::Present(&file.name))
        };
        backup.or_else(present)
    }

    fn singles(&self) -> impl Iterator<Item = (&'a NetFile, &Single<'a>)> {
        self.files.iter().filter_map(|loaded| match &loaded.config {
            NetworkConfig::Single(single) => Some((loaded.file, single)),
            NetworkConfig::List(_) => None,
        })
    }

    /// The file that the runtime would load without msm-cni. For a converted list that is the
    /// list, unless its origin exists again.
    fn primary(&self) -> Option<&Loaded<'a>> {
        let others = || self.files.iter().filter(|it| !it.config.is_our_own());
        let primary = match &self.settings.conf_name {
            None => others().min_by_key(|loaded| loaded.sort_key()),
            Some(wanted) => others()
                .find(|loaded| loaded.file.name == *wanted)
                .or_else(|| others().find(|it| list_name(&it.file.name) == list_name(wanted))),
        }?;
        let origin = primary.origin.map(Origin::name);
        let rewritten = others().find(|loaded| Some(loaded.file.name.as_str()) == origin);
        rewritten.or(Some(primary))
    }

    /// A file that sorts after the origin of `primary` but before its list: the runtime would
    /// load it instead of the list, or fail to.
    fn shadowing(&self, primary: &Loaded) -> Option<&'a str> {
        if self.settings.conf_name.is_some() {
            return None;
        }
        let list = list_name(&primary.file.name);
        let loadable = self.files.iter().filter(|it| it.origin.is_none());
        loadable
            .map(|it| it.file)
            .chain(self.unusable.iter().map(|it| it.file))
            .map(|file| file.name.as_str())
            .find(|name| primary.sort_key() < *name && *name < list.as_str())
    }

    /// A file that sorts before `primary`, and that a runtime may be able to load although
    /// msm-cni is not.
    fn doubtful_before(&self, primary: &Loaded) -> Option<&Unusable<'a>> {
        let list = list_name(&primary.file.name);
        let end = list.as_str().max(primary.sort_key());
        self.unusable.iter().find(|unusable| {
            self.settings.conf_name.is_none()
                && !unusable.is_certain
                && unusable.file.name.as_str() < end
        })
    }

    fn find(&self, name: &str) -> Option<&Loaded<'a>> {
        self.files.iter().find(|loaded| loaded.file.name == name)
    }

    fn backup(&self, name: &str) -> Option<&Backup<'a>> {
        self.backups.iter().find(|backup| backup.name == name)
    }

    /// Whether a file of that name exists, valid or not.
    fn exists(&self, name: &str) -> bool {
        self.all.iter().any(|file| file.name == name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.net_dir.join(name)
    }

    /// The cause of a changed entry: if it holds a token, a new one.
    const fn cause(&self, secrecy: Secrecy) -> Cause {
        match secrecy {
            Secrecy::HoldsToken if self.is_renewed => Cause::Renewal,
            _ => Cause::Repair,
        }
    }
}

impl Loaded<'_> {
    /// The name that decides the order without msm-cni.
    fn sort_key(&self) -> &str {
        self.origin.map_or(&self.file.name, Origin::name)
    }

    /// The same file with another content.
    fn rewritten(&self, content: String, secrecy: Secrecy) -> Action {
        Action::Write {
            path: self.file.path.clone(),
            content: content.into_bytes(),
            mode: mode_for(secrecy, self.snapshot.mode),
            owner: Some(self.snapshot.owner),
            instead_of: Some(self.snapshot.content.clone()),
        }
    }
}

const fn mode_for(secrecy: Secrecy, mode: u32) -> u32 {
    match secrecy {
        Secrecy::Public => mode,
        Secrecy::HoldsToken => mode & !OTHERS_PERMISSIONS,
    }
}

/// The name of the list that `10-x.conf` or `10-x.json` is converted to.
fn list_name(name: &str) -> String {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    format!("{}.conflist", stem.to_string_lossy())
}

fn backup_name(name: &str) -> String {
    format!("{name}{ORIGINAL_SUFFIX}")
}
