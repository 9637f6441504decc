//! The runtime's configuration directory as a value: which file the runtime would load without
//! msm-cni, which lists msm-cni made, and where it converted them from. Pure.

use std::path::{Path, PathBuf};

use super::conflist::{List, NetworkConfig, Single, is_network_configuration};
use super::template::Secrecy;
use crate::names::ORIGINAL_SUFFIX;
use crate::node::observe::{FileSnapshot, NetFile, Observed, Unreadable};
use crate::node::settings::Settings;
use crate::node::step::{Action, Cause};
use crate::text::error_chain;

/// The permissions of all users but the owner.
const OTHERS_PERMISSIONS: u32 = 0o077;

/// The files of the directory, by kind.
pub struct NetDir<'a> {
    pub settings: &'a Settings,
    pub own_uid: u32,
    /// Whether there is a new token.
    pub is_renewed: bool,
    /// All files, sorted by name.
    pub all: &'a [NetFile],
    /// The valid network configurations among them.
    pub files: Vec<Loaded<'a>>,
    pub unusable: Vec<Unusable<'a>>,
    pub backups: Vec<Backup<'a>>,
}

pub struct Loaded<'a> {
    pub file: &'a NetFile,
    pub snapshot: &'a FileSnapshot,
    pub config: NetworkConfig<'a>,
    /// The file that msm-cni converted to this list.
    pub origin: Option<Origin<'a>>,
}

/// A file that msm-cni cannot load.
pub struct Unusable<'a> {
    pub file: &'a NetFile,
    pub reason: String,
    /// Whether no runtime can load it either.
    pub is_certain: bool,
}

/// A `.conf` or `.json` that msm-cni renamed after converting it.
pub struct Backup<'a> {
    /// The file's former name.
    pub name: &'a str,
    pub single: Single<'a>,
}

/// Where the file that a list was converted from is, by its former name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    BackedUp(&'a str),
    /// Next to the list: the conversion or its removal was interrupted, or the owner of the file
    /// has rewritten it.
    Present(&'a str),
}

impl<'a> Origin<'a> {
    pub const fn name(self) -> &'a str {
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

    /// The origin of a list, unless another component has edited the list.
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
    pub fn primary(&self) -> Option<&Loaded<'a>> {
        let others = || self.files.iter().filter(|it| !it.config.is_our_own());
        let primary = match &self.settings.conf_name {
            None => others().min_by_key(|loaded| loaded.sort_key()),
            Some(name) => others()
                .find(|loaded| loaded.file.name == *name)
                .or_else(|| others().find(|it| list_name(&it.file.name) == list_name(name))),
        }?;
        let origin = primary.origin.map(Origin::name);
        let rewritten = others().find(|loaded| Some(loaded.file.name.as_str()) == origin);
        rewritten.or(Some(primary))
    }

    /// A file that sorts after the origin of `primary` but before its list: the runtime would
    /// load it instead of the list, or fail to.
    pub fn shadowing(&self, primary: &Loaded) -> Option<&'a str> {
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
    pub fn doubtful_before(&self, primary: &Loaded) -> Option<&Unusable<'a>> {
        let list = list_name(&primary.file.name);
        let end = list.as_str().max(primary.sort_key());
        self.unusable.iter().find(|unusable| {
            self.settings.conf_name.is_none()
                && !unusable.is_certain
                && unusable.file.name.as_str() < end
        })
    }

    pub fn find(&self, name: &str) -> Option<&Loaded<'a>> {
        self.files.iter().find(|loaded| loaded.file.name == name)
    }

    pub fn backup(&self, name: &str) -> Option<&Backup<'a>> {
        self.backups.iter().find(|backup| backup.name == name)
    }

    /// Whether a file of that name exists, valid or not.
    pub fn exists(&self, name: &str) -> bool {
        self.all.iter().any(|file| file.name == name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.settings.net_dir.join(name)
    }

    /// The cause of a changed entry: if it holds a token, a new one.
    pub const fn cause(&self, secrecy: Secrecy) -> Cause {
        match secrecy {
            Secrecy::HoldsToken if self.is_renewed => Cause::Renewal,
            _ => Cause::Repair,
        }
    }
}

impl Loaded<'_> {
    /// The file name by which the runtime would sort it without msm-cni.
    pub fn sort_key(&self) -> &str {
        self.origin.map_or(&self.file.name, Origin::name)
    }

    /// The same file with another content.
    pub fn rewritten(&self, content: String, secrecy: Secrecy) -> Action {
        Action::Write {
            path: self.file.path.clone(),
            content: content.into_bytes(),
            mode: mode_for(secrecy, self.snapshot.mode),
            owner: Some(self.snapshot.owner),
            instead_of: Some(self.snapshot.content.clone()),
        }
    }
}

pub const fn mode_for(secrecy: Secrecy, mode: u32) -> u32 {
    match secrecy {
        Secrecy::Public => mode,
        Secrecy::HoldsToken => mode & !OTHERS_PERMISSIONS,
    }
}

/// The name of the list that `10-x.conf` or `10-x.json` is converted to.
pub fn list_name(name: &str) -> String {
    let stem = Path::new(name).file_stem().unwrap_or_default();
    format!("{}.conflist", stem.to_string_lossy())
}

pub fn backup_name(name: &str) -> String {
    format!("{name}{ORIGINAL_SUFFIX}")
}
