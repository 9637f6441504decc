//! A file of the runtime's configuration directory: what the runtime would make of it, and
//! our entry put in or taken out while every other byte stays. Pure.
//! Rules: libcni's `ConfListFromBytes`, `ConfFromBytes` and `ConfListFromConf`.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
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

/// Why we do not load a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is not a network configuration in JSON")]
    Json { source: json::Error },
    #[error("it has no name")]
    NoName,
    #[error("its name is empty, which only some runtimes take")]
    EmptyName,
    #[error("it has no list of plugins, or an empty one")]
    NoPlugins,
    #[error("it, or a plugin in it, has no type")]
    NoType,
    #[error("its {key} is of a kind that no runtime takes")]
    WrongKind { key: &'static str },
}

impl Error {
    /// Whether no runtime would load the file either.
    pub const fn is_certain(&self) -> bool {
        match self {
            // Go's decoder mends bytes that are not UTF-8, and minds depth far later.
            Self::NotUtf8
            | Self::Json {
                source: json::Error::TooDeep,
            } => false,
            // CRI-O takes the name of the file.
            Self::EmptyName => false,
            _ => true,
        }
    }
}

impl<'a> NetworkConfig<'a> {
    /// Reads what stands in the file `file_name`, as a runtime would.
    pub fn parse(file_name: &str, bytes: &'a [u8]) -> Result<Self, Error> {
        let text = str::from_utf8(bytes).map_err(|_| Error::NotUtf8)?;
        let object = Object::parse(bytes).map_err(|source| Error::Json { source })?;
        if is_list(file_name) {
            List::new(text, &object).map(Self::List)
        } else {
            Single::new(text, &object).map(Self::Single)
        }
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
        let name = object.written("name").ok_or(Error::NoName)?;
        if string(name).ok_or(Error::WrongKind { key: "name" })?.is_empty() {
            return Err(Error::EmptyName);
        }
        for (key, is_right) in LIST_KEYS {
            if !object.written(key).is_none_or(is_right) {
                return Err(Error::WrongKind { key });
            }
        }
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
            .is_some_and(|last| last.is_ours() && json::same(last.text, entry));
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

    /// Whether it is what `single` becomes as a list, with or without an entry of ours.
    pub fn is_made_of(&self, single: &Single) -> bool {
        let without = self.without_entry();
        json::same(without.as_deref().unwrap_or(self.text), &single.as_list())
    }

    /// Whether the plugin that `single` is stands in it.
    pub fn holds(&self, single: &Single) -> bool {
        self.plugins
            .iter()
            .any(|plugin| json::same(plugin.text, single.text))
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

impl<'a> Single<'a> {
    fn new(text: &'a str, object: &Object<'a>) -> Result<Self, Error> {
        let kind = kind(object)?;
        let name = object.get_any_case("name").ok_or(Error::EmptyName)?;
        if string(name).is_none_or(|name| name.is_empty()) {
            return Err(Error::EmptyName);
        }
        Ok(Self {
            text: text.trim(),
            kind,
            name: name.get(),
            version: object.get_any_case("cniVersion").map(RawValue::get),
        })
    }

    /// A list of the same name and version with this plugin and ours in it.
    pub fn as_list_with(&self, entry: &str) -> String {
        self.list_of(&[self.text, entry])
    }

    /// The same with this plugin alone.
    pub fn as_list(&self) -> String {
        self.list_of(&[self.text])
    }

    fn list_of(&self, plugins: &[&str]) -> String {
        let version = self
            .version
            .map(|version| format!("  \"cniVersion\": {version},\n"))
            .unwrap_or_default();
        format!(
            "{{\n{version}  \"name\": {},\n  \"plugins\": [\n    {}\n  ]\n}}\n",
            self.name,
            plugins.join(",\n").replace('\n', "\n    ")
        )
    }
}

impl Plugin<'_> {
    fn is_ours(&self) -> bool {
        self.kind == CNI_APPLET
    }
}

/// The type of the plugin `text`, if a runtime would take it in a list. One that it does
/// not take would make it refuse the whole list.
pub fn plugin_type(text: &str) -> Result<String, Error> {
    let list = format!(r#"{{"name": "any", "plugins": [{text}]}}"#);
    match NetworkConfig::parse("any.conflist", list.as_bytes())? {
        NetworkConfig::List(List { plugins, .. }) => {
            let first = plugins.into_iter().next();
            first.map(|plugin| plugin.kind).ok_or(Error::NoPlugins)
        }
        NetworkConfig::Single(single) => Ok(single.kind),
    }
}

/// What libcni checks of a list's own keys where they are there, `null` included.
const LIST_KEYS: [(&str, fn(&RawValue) -> bool); 4] = [
    ("cniVersion", |raw| string(raw).is_some()),
    ("disableCheck", is_switch),
    ("disableGC", is_switch),
    ("loadOnlyInlinedPlugins", is_switch),
];

fn is_switch(raw: &RawValue) -> bool {
    let text = string(raw).unwrap_or_else(|| raw.get().to_owned());
    ["true", "false"].contains(&text.to_lowercase().as_str())
}

/// The plugin's type, when all that libcni decodes of a plugin is of the right kind. Go's
/// decoder has no regard to case.
fn kind(plugin: &Object) -> Result<String, Error> {
    type Texts = Vec<Option<String>>;

    decoded::<String>(plugin, "cniVersion")?;
    decoded::<String>(plugin, "name")?;
    decoded::<HashMap<String, Option<bool>>>(plugin, "capabilities")?;
    decoded::<Object>(plugin, "prevResult")?;
    if let Some(ipam) = decoded::<Object>(plugin, "ipam")? {
        decoded::<String>(&ipam, "type")?;
    }
    if let Some(dns) = decoded::<Object>(plugin, "dns")? {
        decoded::<String>(&dns, "domain")?;
        for key in ["nameservers", "search", "options"] {
            decoded::<Texts>(&dns, key)?;
        }
    }
    let kind = decoded::<String>(plugin, "type")?;
    kind.filter(|kind| !kind.is_empty()).ok_or(Error::NoType)
}

fn decoded<'a, T: Deserialize<'a>>(
    object: &Object<'a>,
    key: &'static str,
) -> Result<Option<T>, Error> {
    let decode = |raw: &'a RawValue| serde_json::from_str(raw.get());
    let value = object.get_any_case(key).map(decode).transpose();
    value.map_err(|_| Error::WrongKind { key })
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// The white space behind the last line break.
fn indentation(lead: &str) -> &str {
    lead.rsplit_once('\n').map_or("", |(_, spaces)| spaces)
}
