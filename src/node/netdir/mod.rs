//! What has to be done in the runtime's configuration directory: our entry goes into the
//! file that the runtime would use without us, behind all others' plugins, and out of every
//! other file; or into a file of its own. Pure. At every moment the runtime finds the
//! network that it would find without us.

pub mod conflist;
mod insert; // our entry goes in
mod remove; // and out
pub mod template;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::names::ORIGINAL_SUFFIX;
use crate::node::netdir::conflist::{NetworkConfig, Single};
use crate::node::netdir::template::Secrecy;
use crate::node::observe::{FileSnapshot, NetFile, Observed, Unreadable};
use crate::node::settings::Settings;
use crate::node::step::Action;
use crate::text::{error_chain, is_network_configuration};

/// The permissions of everybody but the owner.
const NOT_OWNERS: u32 = 0o077;

/// The files of the directory, by what they are.
pub struct NetDir<'a> {
    settings: &'a Settings,
    /// Whether there is a new token.
    is_renewed: bool,
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
    snapshot: &'a FileSnapshot,
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

impl<'a> NetDir<'a> {
    /// The error is why the directory cannot be read.
    pub fn new(settings: &'a Settings, found: &'a Observed) -> Result<Self, &'a str> {
        let all = found.net_files.as_ref().map_err(String::as_str)?;
        let mut directory = Self {
            settings,
            is_renewed: found.is_renewed,
            all,
            files: Vec::new(),
            unusable: Vec::new(),
            originals: Vec::new(),
        };
        for file in all {
            directory.sort_in(file);
        }
        Ok(directory)
    }

    fn sort_in(&mut self, file: &'a NetFile) {
        let before = file.name.strip_suffix(ORIGINAL_SUFFIX);
        let name = before.unwrap_or(&file.name);
        let parsed = match &file.snapshot {
            Ok(snapshot) => NetworkConfig::parse(name, &snapshot.content)
                .map(|config| Loaded {
                    file,
                    snapshot,
                    config,
                })
                .map_err(|error| (error_chain(&error), error.is_certain())),
            Err(Unreadable::NotAFile(reason)) => Err((reason.clone(), true)),
            Err(Unreadable::OutsideContainer(reason) | Unreadable::Io(reason)) => {
                Err((reason.clone(), false))
            }
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

    /// What the list is made of, if it is ours and nobody has added to it since.
    fn source(&self, loaded: &Loaded<'a>) -> Option<Source<'_>> {
        let NetworkConfig::List(list) = &loaded.config else {
            return None;
        };
        let becomes_it = |name: &str| list_name(name) == loaded.file.name;
        let backup = self
            .originals
            .iter()
            .find(|original| becomes_it(original.name) && list.is_made_of(&original.single))
            .map(|original| Source::Aside(original.name));
        // We were interrupted before it stepped aside, or after it came back.
        let is_ours = |single| list.has_our_form() || list.has_entry() && list.is_made_of(single);
        let beside = || {
            self.files.iter().find_map(|other| match &other.config {
                NetworkConfig::Single(single)
                    if becomes_it(&other.file.name) && is_ours(single) =>
                {
                    Some(Source::Beside(other.file.name.as_str()))
                }
                _ => None,
            })
        };
        backup.or_else(beside)
    }

    /// A file that would come before the list that `first` is or becomes, but after what
    /// that is made of. The runtime would use it, or stumble over it.
    fn obstacle(&self, first: &Loaded<'a>) -> Option<&str> {
        if self.settings.conf_name.is_some() {
            return None;
        }
        let list = list_name(&first.file.name);
        let files = self.files.iter().filter(|it| self.source(it).is_none());
        let unusable = self.unusable.iter().map(|it| it.file);
        files
            .map(|it| it.file)
            .chain(unusable)
            .map(|file| file.name.as_str())
            .find(|name| self.rank(first) < *name && *name < list.as_str())
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
            mode: private(self.snapshot.mode, secrecy),
            owner: Some(self.snapshot.owner),
            instead_of: Some(self.snapshot.content.clone()),
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
