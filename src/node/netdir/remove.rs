//! Plans the removal of the plugin entry from the runtime's configuration directory, or from
//! every file but one, and reports the files that a removal cannot change. Pure.

use std::path::Path;

use super::conflist::NetworkConfig;
use super::model::{Loaded, NetDir, Origin, backup_name, list_name};
use super::template::Secrecy;
use crate::names::{CNI_APPLET, ORIGINAL_SUFFIX};
use crate::node::observe::{NetFile, Unreadable};
use crate::node::step::{Action, Cause, Step};

/// Takes the plugin entry out of every file but `kept`. A converted file is restored before
/// its list is removed.
pub fn remove(dir: &NetDir, kept: Option<&Path>, reason: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for loaded in &dir.files {
        if Some(loaded.file.path.as_path()) == kept || is_alias(dir, loaded) {
            continue;
        }
        let path = dir.path(&loaded.file.name);
        match (&loaded.config, loaded.origin) {
            (config, _) if config.is_our_own() => {
                steps.push(step(Action::Remove { path }, reason));
            }
            (_, Some(origin)) => {
                steps.extend(restore(dir, origin, reason));
                steps.push(step(Action::Remove { path }, reason));
            }
            (NetworkConfig::List(list), None) => {
                let rewritten = list
                    .without_us()
                    .map(|content| loaded.rewritten(content, Secrecy::Public));
                steps.extend(rewritten.map(|action| step(action, reason)));
            }
            (NetworkConfig::Single(_), None) => {}
        }
    }
    steps.extend(obsolete_backups(dir, kept));
    steps
}

/// Whether another name, which sorts earlier, leads to the same file.
fn is_alias(dir: &NetDir, loaded: &Loaded) -> bool {
    let mut names = dir.files.iter();
    let first = names.find(|other| other.file.path == loaded.file.path);
    first.is_some_and(|first| first.file.name != loaded.file.name)
}

/// Renames a backup to its former name, unless a file has that name.
pub(super) fn restore(dir: &NetDir, origin: Origin, reason: &str) -> Option<Step> {
    let Origin::BackedUp(name) = origin else {
        return None;
    };
    let action = Action::Restore {
        path: dir.path(name),
        backup: dir.path(&backup_name(name)),
    };
    let reason = format!("it replaces {}: {reason}", list_name(name));
    (!dir.exists(name)).then(|| step(action, &reason))
}

/// Removes the backups of files that their owners have rewritten.
fn obsolete_backups(dir: &NetDir, kept: Option<&Path>) -> Vec<Step> {
    backups(dir)
        .filter(|(_, name)| dir.exists(name) && Some(dir.path(&list_name(name)).as_path()) != kept)
        .map(|(file, name)| {
            let path = dir.path(&file.name);
            step(Action::Remove { path }, &format!("{name} was rewritten"))
        })
        .collect()
}

/// All backups, valid or not, with the former names of the files.
fn backups<'a>(dir: &NetDir<'a>) -> impl Iterator<Item = (&'a NetFile, &'a str)> {
    let files = dir.all.iter();
    files.filter_map(|file| Some((file, file.name.strip_suffix(ORIGINAL_SUFFIX)?)))
}

fn step(action: Action, reason: &str) -> Step {
    Step {
        action,
        reason: reason.to_owned(),
        cause: Cause::Repair,
    }
}

/// Reports the backups that remain after a removal, because another component has edited or
/// removed the list.
pub fn orphaned_backups(dir: &NetDir) -> Vec<String> {
    let origins: Vec<_> = dir
        .files
        .iter()
        .filter_map(|loaded| loaded.origin.map(Origin::name))
        .collect();
    backups(dir)
        .filter(|(_, name)| !dir.exists(name) && !origins.contains(name))
        .map(|(file, name)| {
            format!(
                "{} is kept: another component has edited or removed {}, which was converted from it",
                dir.path(&file.name).display(),
                list_name(name)
            )
        })
        .collect()
}

/// Whether a component may be writing a file that will contain the plugin entry.
pub fn may_change(dir: &NetDir) -> bool {
    dir.unusable.iter().any(|it| it.file.snapshot.is_ok())
}

/// Reports the files that may contain the plugin entry, but that msm-cni cannot parse.
pub fn unreadable_mentions(dir: &NetDir) -> Vec<String> {
    dir.unusable
        .iter()
        .filter(|unusable| may_mention_us(unusable.file))
        .map(|unusable| {
            format!(
                "{} may contain the plugin entry but cannot be used: {}",
                dir.path(&unusable.file.name).display(),
                unusable.reason
            )
        })
        .collect()
}

fn may_mention_us(file: &NetFile) -> bool {
    let name = CNI_APPLET.as_bytes();
    match &file.snapshot {
        Ok(snapshot) => snapshot
            .content
            .windows(name.len())
            .any(|window| window == name),
        Err(Unreadable::Io(_)) => true,
        Err(Unreadable::NotAFile(_) | Unreadable::OutsideContainer(_)) => false,
    }
}
