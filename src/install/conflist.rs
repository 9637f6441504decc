//! A file of the runtime's configuration directory: what the runtime would make of it, and
//! our entry put in or taken out while every other byte stays. Pure.
//! Rules: libcni's `ConfListFromBytes` and `ConfFromBytes`.

use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::{self, Object, span};
use crate::names::CNI_APPLET;

/// What a runtime would load.
#[derive(Debug)]
pub enum NetworkConfig<'a> {
    List(List<'a>),
    Single(Single<'a>),
}

/// A `.conflist`: a name and plugins.
#[derive(Debug)]
pub struct List<'a> {
    text: &'a str,
    /// What is in `plugins`, and where.
    plugins: Vec<Plugin<'a>>,
    /// From behind the opening to the closing bracket.
    inside: Range<usize>,
}

/// A `.conf` or `.json`: one plugin.
#[derive(Debug)]
pub struct Single<'a> {
    text: &'a str,
    kind: String,
    /// JSON, as are all of these.
    name: &'a str,
    version: Option<&'a str>,
}

#[derive(Debug)]
struct Plugin<'a> {
    text: &'a str,
    range: Range<usize>,
    kind: String,
}

/// Why a runtime would not load a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is not a network configuration in JSON")]
    Json { source: json::Error },
    #[error("it has no name")]
    NoName,
    #[error("it has no list of plugins, or an empty one")]
    NoPlugins,
    #[error("one of its plugins has no type")]
    NoType,
}

impl<'a> NetworkConfig<'a> {
    /// Reads what stands in the file `file_name`, as a runtime would.
    pub fn parse(file_name: &str, bytes: &'a [u8]) -> Result<Self, Error> {
        let text = str::from_utf8(bytes).map_err(|_| Error::NotUtf8)?;
        let object = Object::parse(bytes).map_err(|source| Error::Json { source })?;
        // A name is checked when a pod starts; that there is one, when the file is loaded.
        let name = object
            .get("name")
            .filter(|name| string(name).is_some_and(|name| !name.is_empty()))
            .ok_or(Error::NoName)?
            .get();
        if is_list(file_name) {
            return List::new(text, &object).map(Self::List);
        }
        Ok(Self::Single(Single {
            text: text.trim(),
            kind: kind(&object)?,
            name,
            version: object.get("cniVersion").map(RawValue::get),
        }))
    }

    /// Whether there is nothing in it but entries of ours.
    pub fn is_our_own(&self) -> bool {
        match self {
            Self::List(list) => list.plugins.iter().all(Plugin::is_ours),
            Self::Single(single) => single.kind == CNI_APPLET,
        }
    }
}

/// Whether the runtime takes a file of this name for a list.
pub fn is_list(file_name: &str) -> bool {
    file_name.ends_with(".conflist")
}

impl<'a> List<'a> {
    fn new(text: &'a str, object: &Object<'a>) -> Result<Self, Error> {
        let raw = object.get("plugins").ok_or(Error::NoPlugins)?;
        let items: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| Error::NoPlugins)?;
        let plugins = items
            .into_iter()
            .map(|item| {
                let object = Object::from_raw(item).map_err(|_| Error::NoType)?;
                Ok(Plugin {
                    text: item.get(),
                    range: span(text, item.get()),
                    kind: kind(&object)?,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        if plugins.is_empty() {
            return Err(Error::NoPlugins);
        }
        let array = span(text, raw.get());
        Ok(Self {
            text,
            plugins,
            inside: array.start + 1..array.end - 1,
        })
    }

    /// Whether an entry of ours is in it.
    pub fn has_entry(&self) -> bool {
        self.plugins.iter().any(Plugin::is_ours)
    }

    /// The text with `entry` as the last plugin and no other of ours; `None` when it says
    /// so already.
    pub fn with_entry(&self, entry: &str) -> Option<String> {
        let ours = self.plugins.iter().filter(|plugin| plugin.is_ours());
        let is_there = self
            .plugins
            .last()
            .is_some_and(|last| last.is_ours() && same_json(last.text, entry));
        if is_there && ours.count() == 1 {
            return None;
        }
        let others = self.others();
        let separator = self.separator();
        let indented = entry.replace('\n', &format!("\n{}", indentation(&separator)));
        let first = if others.is_empty() {
            self.lead(0)
        } else {
            &separator
        };
        Some(self.assembled(&format!("{others}{first}{indented}")))
    }

    /// The text without any entry of ours; `None` when there is none.
    pub fn without_entry(&self) -> Option<String> {
        self.has_entry().then(|| self.assembled(&self.others()))
    }

    pub fn as_it_is(&self) -> String {
        self.text.to_owned()
    }

    /// Whether it holds, but for ours, just the plugin that `single` is.
    pub fn extends(&self, single: &Single) -> bool {
        let mut others = self.plugins.iter().filter(|plugin| !plugin.is_ours());
        match (others.next(), others.next()) {
            (Some(only), None) => same_json(only.text, single.text),
            _ => false,
        }
    }

    fn assembled(&self, plugins: &str) -> String {
        let tail = self.plugins.last().map_or(0, |last| last.range.end);
        [
            self.text.get(..self.inside.start),
            Some(plugins),
            self.text.get(tail..),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The plugins of others with what stands between them.
    fn others(&self) -> String {
        let mut text = String::new();
        for (index, plugin) in self.plugins.iter().enumerate() {
            if !plugin.is_ours() {
                let lead = if text.is_empty() { 0 } else { index };
                text.push_str(self.lead(lead));
                text.push_str(plugin.text);
            }
        }
        text
    }

    /// What stands between a plugin and the one before it, or the opening bracket.
    fn lead(&self, index: usize) -> &str {
        let before = index
            .checked_sub(1)
            .and_then(|index| self.plugins.get(index));
        let from = before.map_or(self.inside.start, |plugin| plugin.range.end);
        let to = self
            .plugins
            .get(index)
            .map_or(from, |plugin| plugin.range.start);
        self.text.get(from..to).unwrap_or_default()
    }

    /// What stands between two plugins, in this file's way of writing.
    fn separator(&self) -> String {
        match self.plugins.len() {
            0 | 1 => format!(",{}", self.lead(0)),
            _ => self.lead(1).to_owned(),
        }
    }
}

impl Single<'_> {
    /// A list of the same name and version with this plugin and ours in it.
    pub fn as_list_with(&self, entry: &str) -> String {
        self.list_of(&[self.text, &entry.replace('\n', "\n    ")])
    }

    /// The same with this plugin alone.
    pub fn as_list(&self) -> String {
        self.list_of(&[&self.text.replace('\n', "\n    ")])
    }

    /// As libcni's `ConfListFromConf` makes one.
    fn list_of(&self, plugins: &[&str]) -> String {
        let version = self
            .version
            .map(|version| format!("  \"cniVersion\": {version},\n"))
            .unwrap_or_default();
        format!(
            "{{\n{version}  \"name\": {},\n  \"plugins\": [\n    {}\n  ]\n}}\n",
            self.name,
            plugins.join(",\n    ")
        )
    }
}

impl Plugin<'_> {
    fn is_ours(&self) -> bool {
        self.kind == CNI_APPLET
    }
}

/// The plugin's type; Go's decoder has no regard to case.
fn kind(object: &Object) -> Result<String, Error> {
    object
        .get_any_case("type")
        .and_then(string)
        .filter(|kind| !kind.is_empty())
        .ok_or(Error::NoType)
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// However it is written.
pub fn same_json(one: &str, other: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// The white space behind the last line break.
fn indentation(lead: &str) -> &str {
    lead.rsplit_once('\n').map_or("", |(_, spaces)| spaces)
}
