//! How our entry goes from the runtime's configuration directory, or from all of it but one
//! file. Pure.

use std::path::Path;

use crate::names::{CNI_APPLET, ORIGINAL_SUFFIX};
use crate::node::netdir::Loaded;
use crate::node::netdir::NetDir;
use crate::node::netdir::Source;
use crate::node::netdir::conflist::NetworkConfig;
use crate::node::netdir::list_name;
use crate::node::netdir::original_name;
use crate::node::netdir::template::Secrecy;
use crate::node::observe::{NetFile, Unreadable};
use crate::node::step::{Action, Plan};

impl NetDir<'_> {
    /// Takes our entry out of every file but `kept`. What was a `.conf` or `.json` is one
    /// again, and there before its list goes.
    pub fn leave(&self, kept: Option<&Path>, reason: &str, plan: &mut Plan) {
        for loaded in &self.files {
            let name = &loaded.file.name;
            let is_itself = |other: &&Loaded| other.file.path == loaded.file.path;
            let first_name = self.files.iter().find(is_itself).map(|it| &it.file.name);
            if Some(loaded.file.path.as_path()) == kept || first_name != Some(name) {
                continue;
            }
            match (self.source(loaded), &loaded.config) {
                _ if loaded.config.is_our_own() => plan.remove(self.path(name), reason),
                (Some(source), _) => {
                    self.restore(source, reason, plan);
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

    /// Gives what has stepped aside for a list its name again, if it is free.
    pub(super) fn restore(&self, source: Source, reason: &str, plan: &mut Plan) {
        if let Source::Aside(name) = source
            && !self.has(name)
        {
            plan.push(
                Action::Restore {
                    path: self.path(name),
                    backup: self.path(&original_name(name)),
                },
                format!("it comes back in place of {}: {reason}", list_name(name)),
            );
        }
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

    /// Whether there is a file that may become a configuration with our entry in a moment.
    pub fn is_in_flux(&self) -> bool {
        self.unusable.iter().any(|it| it.file.snapshot.is_ok())
    }

    /// Files that may hold our entry, though we cannot see it or take it out.
    pub fn suspects(&self) -> Vec<String> {
        let may_name_us = |file: &NetFile| match &file.snapshot {
            Ok(snapshot) => names_us(&snapshot.content),
            Err(Unreadable::Io(_)) => true,
            Err(Unreadable::NotAFile(_) | Unreadable::OutsideContainer(_)) => false,
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
}

fn names_us(content: &[u8]) -> bool {
    let name = CNI_APPLET.as_bytes();
    content.windows(name.len()).any(|window| window == name)
}
