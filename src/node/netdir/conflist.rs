//! A file of the runtime's configuration directory: what the runtime would make of it, and
//! our entry put in or taken out while every other byte stays. Pure.
//! Rules: libcni's `ConfListFromBytes`, `ConfFromBytes` and `ConfListFromConf`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{self, Object, span, string};
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
        !matches!(
            self,
            // Go's decoder mends bytes that are not UTF-8, and minds sizes far later; CRI-O
            // takes the file's name for the network's.
            Self::Json {
                source: json::Error::NotUtf8 { .. }
                    | json::Error::TooDeep
                    | json::Error::TooManyMembers
            } | Self::EmptyName
        )
    }
}

impl<'a> NetworkConfig<'a> {
    /// Reads what stands in the file `file_name`, as a runtime would.
    pub fn parse(file_name: &str, bytes: &'a [u8]) -> Result<Self, Error> {
        let json = |source| Error::Json { source };
        let object = Object::parse(bytes).map_err(json)?;
        let text = str::from_utf8(bytes).map_err(|source| json(json::Error::NotUtf8 { source }))?;
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
        if string(name)
            .ok_or(Error::WrongKind { key: "name" })?
            .is_empty()
        {
            return Err(Error::EmptyName);
        }
        // Where they are there, `null` included.
        let is_right = |key, check: fn(&RawValue) -> bool| match object.written(key) {
            Some(value) if !check(value) => Err(Error::WrongKind { key }),
            _ => Ok(()),
        };
        is_right("cniVersion", |value| string(value).is_some())?;
        for key in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
            is_right(key, is_switch)?;
        }
        let raw = object.get("plugins").ok_or(Error::NoPlugins)?;
        let items: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| Error::NoPlugins)?;
        let plugins = items
            .into_iter()
            .map(|item| {
                let object = Object::from_raw(item).map_err(|source| match source {
                    json::Error::NotAnObject { .. } => Error::NoType,
                    source => Error::Json { source },
                })?;
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

    /// Whether it looks like what `as_list_with` makes of the plugin in it that is not ours:
    /// then we made it, perhaps of an older version of what is there now.
    pub fn has_our_form(&self) -> bool {
        let [other, ours] = &self.plugins[..] else {
            return false;
        };
        match NetworkConfig::parse("any.conf", other.text.as_bytes()) {
            Ok(NetworkConfig::Single(single)) if ours.is_ours() => {
                self.text == single.list_of(&[other.text, ours.text].join(SEPARATOR))
            }
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
        self.list_of(&[indented(self.text), indented(entry)].join(SEPARATOR))
    }

    /// The same with this plugin alone.
    pub fn as_list(&self) -> String {
        self.list_of(&indented(self.text))
    }

    fn list_of(&self, plugins: &str) -> String {
        let version = self
            .version
            .map(|version| format!("  \"cniVersion\": {version},\n"))
            .unwrap_or_default();
        format!(
            "{{\n{version}  \"name\": {},\n  \"plugins\": [\n    {plugins}\n  ]\n}}\n",
            self.name,
        )
    }
}

/// Between the plugins of a list that we make.
const SEPARATOR: &str = ",\n    ";

/// As it stands in such a list.
fn indented(plugin: &str) -> String {
    plugin.replace('\n', "\n    ")
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

fn is_switch(raw: &RawValue) -> bool {
    let text = string(raw).unwrap_or(Cow::Borrowed(raw.get()));
    ["true", "false"].contains(&text.to_lowercase().as_str())
}

/// The plugin's type, when all that libcni decodes of a plugin is of the right kind. Go's
/// decoder has no regard to case.
fn kind(plugin: &Object) -> Result<String, Error> {
    type Texts = Vec<Option<String>>;

    decoded::<String>(plugin, "cniVersion")?;
    decoded::<String>(plugin, "name")?;
    decoded::<HashMap<String, Option<bool>>>(plugin, "capabilities")?;
    object(plugin, "prevResult")?;
    if let Some(ipam) = object(plugin, "ipam")? {
        decoded::<String>(&ipam, "type")?;
    }
    if let Some(dns) = object(plugin, "dns")? {
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

fn object<'a>(object: &Object<'a>, key: &'static str) -> Result<Option<Object<'a>>, Error> {
    let value = object.get_any_case(key).map(Object::from_raw).transpose();
    value.map_err(|_| Error::WrongKind { key })
}

/// The white space that the last line begins with.
fn indentation(lead: &str) -> &str {
    let line = lead.rsplit_once('\n').map_or("", |(_, line)| line);
    let text = line.trim_start();
    line.strip_suffix(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::Value;

    use super::*;

    const ENTRY: &str = "{\n  \"type\": \"msm-cni\",\n  \"a\": 1\n}";

    fn list(text: &str) -> List<'_> {
        match NetworkConfig::parse("10-x.conflist", text.as_bytes()) {
            Ok(NetworkConfig::List(list)) => list,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn single(text: &str) -> Single<'_> {
        match NetworkConfig::parse("10-x.conf", text.as_bytes()) {
            Ok(NetworkConfig::Single(single)) => single,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_entry_goes_in_last_and_out_again_and_every_other_byte_stays() {
        for (text, expected) in [
            // Compact, and in each other way of writing that is about.
            (
                r#"{"name":"n","plugins":[{"type":"a"}]}"#,
                "{\"name\":\"n\",\"plugins\":[{\"type\":\"a\"},{\n  \"type\": \"msm-cni\",\n  \"a\": 1\n}]}",
            ),
            (
                r#"{"name":"n","plugins":[{"type":"a"},{"type":"b"}],"z":1}"#,
                "{\"name\":\"n\",\"plugins\":[{\"type\":\"a\"},{\"type\":\"b\"},{\n  \"type\": \"msm-cni\",\n  \"a\": 1\n}],\"z\":1}",
            ),
            (
                r#"{ "name": "n", "plugins": [ {"type": "a"} ] }"#,
                "{ \"name\": \"n\", \"plugins\": [ {\"type\": \"a\"}, {\n  \"type\": \"msm-cni\",\n  \"a\": 1\n} ] }",
            ),
            (
                "{\n  \"name\": \"n\",\n  \"plugins\": [\n    {\n      \"type\": \"a\"\n    }\n  ]\n}\n",
                "{\n  \"name\": \"n\",\n  \"plugins\": [\n    {\n      \"type\": \"a\"\n    },\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
            (
                "{\n\t\"name\": \"n\",\n\t\"plugins\": [\n\t\t{\"type\": \"a\"},\n\t\t{\"type\": \"b\"}\n\t]\n}",
                "{\n\t\"name\": \"n\",\n\t\"plugins\": [\n\t\t{\"type\": \"a\"},\n\t\t{\"type\": \"b\"},\n\t\t{\n\t\t  \"type\": \"msm-cni\",\n\t\t  \"a\": 1\n\t\t}\n\t]\n}",
            ),
            (
                "{\r\n  \"name\": \"n\",\r\n  \"plugins\": [\r\n    {\"type\": \"a\"}\r\n  ]\r\n}\r\n",
                "{\r\n  \"name\": \"n\",\r\n  \"plugins\": [\r\n    {\"type\": \"a\"},\r\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\r\n  ]\r\n}\r\n",
            ),
            (
                "  {\"name\" :\"n\" ,\"plugins\"\n:[\n{\"type\":\"a\"}\n  , {\"type\":\"b\"}\t\n\n]}\n\n",
                "  {\"name\" :\"n\" ,\"plugins\"\n:[\n{\"type\":\"a\"}\n  , {\"type\":\"b\"}\n  , {\n    \"type\": \"msm-cni\",\n    \"a\": 1\n  }\t\n\n]}\n\n",
            ),
            // What Go would lose, and what looks like JSON in a string.
            (
                r#"{"name":"\u00fc\/","n":[18446744073709551617,-0,1.50e+3],"plugins":[{"type":"a","x":"]},{\"type\":\"msm-cni\"}\\"}],"name":"n"}"#,
                "{\"name\":\"\\u00fc\\/\",\"n\":[18446744073709551617,-0,1.50e+3],\"plugins\":[{\"type\":\"a\",\"x\":\"]},{\\\"type\\\":\\\"msm-cni\\\"}\\\\\"},{\n  \"type\": \"msm-cni\",\n  \"a\": 1\n}],\"name\":\"n\"}",
            ),
            // The last of repeated keys counts.
            (
                r#"{"name":"n","plugins":[{"type":"x"}],"plugins":[{"type":"a"}]}"#,
                "{\"name\":\"n\",\"plugins\":[{\"type\":\"x\"}],\"plugins\":[{\"type\":\"a\"},{\n  \"type\": \"msm-cni\",\n  \"a\": 1\n}]}",
            ),
        ] {
            let with = list(text).with_entry(ENTRY).unwrap();
            assert_eq!(with, expected);
            assert_eq!(list(&with).with_entry(ENTRY), None, "{with}");
            assert_eq!(list(&with).without_entry().unwrap(), text);
            assert_eq!(list(text).without_entry(), None, "{text}");
        }
    }

    #[test]
    fn an_entry_elsewhere_or_twice_or_another_one_becomes_the_last_one() {
        let with = r#"{"name":"n","plugins":[{"type":"a"},{"type":"b"},{"type":"msm-cni"}]}"#;
        let without = r#"{"name":"n","plugins":[{"type":"a"},{"type":"b"}]}"#;
        for plugins in [
            r#"{"type":"msm-cni"},{"type":"a"},{"type":"b"}"#,
            r#"{"type":"a"},{"type":"msm-cni"},{"type":"b"}"#,
            r#"{"type":"a"},{"type":"b"},{"type":"msm-cni","x":1}"#,
            r#"{"type":"a"},{"type":"b"},{"type":"msm-cni"},{"type":"msm-cni"}"#,
            r#"{"type":"msm-cni"},{"type":"a"},{"type":"msm-cni"},{"type":"b"},{"type":"msm-cni"}"#,
            r#"{"type":"msm-cni"},{"type":"msm-cni"},{"type":"a"},{"type":"b"}"#,
            r#"{"type":"a"},{"TYPE":"msm-cni"},{"type":"b"}"#,
        ] {
            let text = format!(r#"{{"name":"n","plugins":[{plugins}]}}"#);
            let list = list(&text);
            assert_eq!(
                list.with_entry(r#"{"type":"msm-cni"}"#).as_deref(),
                Some(with),
                "{text}"
            );
            assert_eq!(list.without_entry().as_deref(), Some(without), "{text}");
        }
    }

    #[test]
    fn an_entry_that_is_written_another_way_is_the_same() {
        for entry in [
            r#"{"a":1,"type":"msm-cni"}"#,
            "{\"type\":\n\t\"msm-cni\", \"a\":1}",
            r#"{"a":2,"type":"msm\u002dcni","a":1}"#,
        ] {
            let text = format!(r#"{{"name":"n","plugins":[{{"type":"a"}}, {entry}]}}"#);
            assert_eq!(list(&text).with_entry(ENTRY), None, "{text}");
        }
        // Whatever it says, it is not put in for ever.
        let odd = r#"{"type":"msm-cni","a":1e999,"b":"\ud800"}"#;
        let text = format!(r#"{{"name":"n","plugins":[{{"type":"a"}},{odd}]}}"#);
        assert_eq!(list(&text).with_entry(odd), None);
    }

    #[test]
    fn a_list_of_ours_alone_is_ours() {
        for (text, expected) in [
            (r#"{"name":"n","plugins":[{"type":"msm-cni"}]}"#, true),
            (
                r#"{"name":"n","plugins":[{"type":"msm-cni"},{"type":"msm-cni"}]}"#,
                true,
            ),
            (
                r#"{"name":"n","plugins":[{"type":"msm-cni"},{"type":"a"}]}"#,
                false,
            ),
        ] {
            let config = NetworkConfig::parse("x.conflist", text.as_bytes()).unwrap();
            assert_eq!(config.is_our_own(), expected, "{text}");
        }
        let text = r#"{"name":"n","plugins":[ {"type":"msm-cni"} ]}"#;
        assert_eq!(
            list(text)
                .with_entry(r#"{"type":"msm-cni","a":1}"#)
                .unwrap(),
            r#"{"name":"n","plugins":[ {"type":"msm-cni","a":1} ]}"#
        );
    }

    #[test]
    fn a_conf_becomes_a_list_of_its_name_and_version() {
        for (text, expected) in [
            (
                "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"n\\u00fc\",\n  \"type\": \"a\"\n}\n",
                "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"n\\u00fc\",\n  \"plugins\": [\n    {\n      \"cniVersion\": \"0.3.1\",\n      \"name\": \"n\\u00fc\",\n      \"type\": \"a\"\n    },\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
            (
                r#"{"name":"n","type":"a"}"#,
                "{\n  \"name\": \"n\",\n  \"plugins\": [\n    {\"name\":\"n\",\"type\":\"a\"},\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
            (
                r#"{"NAME":"n","cniversion":"1.0.0","type":"a"}"#,
                "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"n\",\n  \"plugins\": [\n    {\"NAME\":\"n\",\"cniversion\":\"1.0.0\",\"type\":\"a\"},\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
        ] {
            let single = single(text);
            let made = single.as_list_with(ENTRY);
            assert_eq!(made, expected);
            let made = list(&made);
            assert_eq!(made.with_entry(ENTRY), None);
            assert_eq!(made.without_entry().unwrap(), single.as_list());
            assert!(made.is_made_of(&single) && made.holds(&single));
            assert!(made.has_our_form());
        }
    }

    #[test]
    fn a_list_that_somebody_has_changed_is_not_made_of_the_conf_any_more() {
        let single = single(r#"{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1}"#);
        for (list_text, is_made_of_it, holds_it) in [
            (
                r#"{"name":"n","cniVersion":"0.3.1","plugins":[{"mtu":1,"type":"a","cniVersion":"0.3.1","name":"n"}]}"#,
                true,
                true,
            ),
            (
                r#"{"name":"n","cniVersion":"0.3.1","plugins":[{"type":"msm-cni"},{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1}]}"#,
                true,
                true,
            ),
            (
                r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1}]}"#,
                false,
                true,
            ),
            (
                r#"{"name":"n","cniVersion":"0.3.1","disableCheck":true,"plugins":[{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1}]}"#,
                false,
                true,
            ),
            (
                r#"{"name":"n","cniVersion":"0.3.1","plugins":[{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1},{"type":"b"},{"type":"msm-cni"}]}"#,
                false,
                true,
            ),
            (
                r#"{"name":"n","cniVersion":"0.3.1","plugins":[{"name":"n","cniVersion":"0.3.1","type":"a","mtu":2},{"type":"msm-cni"}]}"#,
                false,
                false,
            ),
            (
                r#"{"name":"n","cniVersion":"0.3.1","plugins":[{"type":"msm-cni"}]}"#,
                false,
                false,
            ),
        ] {
            let list = list(list_text);
            assert_eq!(list.is_made_of(&single), is_made_of_it, "{list_text}");
            assert_eq!(list.holds(&single), holds_it, "{list_text}");
        }
    }

    #[test]
    fn a_list_of_ours_is_known_by_its_form() {
        let single = single("{\n  \"name\":\"n\",\n  \"type\":\"a\"\n}");
        let made = single.as_list_with(ENTRY);
        for (from, to, is_ours) in [
            ("\"a\"", "\"b\"", true),
            ("\"a\"", "\"a\", \"mtu\": 1400", true),
            ("\"a\": 1", "\"a\": 2", true),
            ("\n  ]", ",\n    {\"type\": \"b\"}\n  ]", false),
            ("\"msm-cni\"", "\"portmap\"", false),
            ("  \"name\": \"n\"", "  \"name\": \"m\"", false),
            ("  \"name\": \"n\"", "  \"x\": 1, \"name\": \"n\"", false),
            ("  \"name\": \"n\"", "  \"name\":  \"n\"", false),
            ("\"name\":\"n\",\n", "", false),
        ] {
            let text = made.replacen(from, to, 1);
            assert_eq!(list(&text).has_our_form(), is_ours, "{text}");
        }
    }

    /// And why not.
    const NO_LISTS: [(&str, &str); 22] = [
        ("", "JSON: empty"),
        (r#"{"name": "n", "plugins": [{"ty"#, "not valid JSON"),
        ("[]", "an array, not an object"),
        ("\u{feff}{}", "byte order mark"),
        (r#"{"plugins":[{"type":"a"}]}"#, "no name"),
        (r#"{"NAME":"n","plugins":[{"type":"a"}]}"#, "no name"),
        (r#"{"name":null,"plugins":[{"type":"a"}]}"#, "its name is"),
        (r#"{"name":7,"plugins":[{"type":"a"}]}"#, "its name is"),
        (
            r#"{"name":"","plugins":[{"type":"a"}]}"#,
            "its name is empty",
        ),
        (r#"{"name":"n"}"#, "no list"),
        (r#"{"name":"n","type":"a"}"#, "no list"),
        (r#"{"name":"n","plugins":{}}"#, "no list"),
        (r#"{"name":"n","plugins":[]}"#, "no list"),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"plugins":null}"#,
            "no list",
        ),
        (r#"{"name":"n","plugins":["a"]}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":""}]}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":[]}]}"#, "its type is"),
        (
            r#"{"name":"n","plugins":[{"type":"a","ipam":[]}]}"#,
            "its ipam is",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"cniVersion":1.0}"#,
            "its cniVersion is",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"cniVersion":null}"#,
            "its cniVersion is",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"disableCheck":"no"}"#,
            "its disableCheck is",
        ),
    ];
    const NO_SINGLES: [(&str, &str); 4] = [
        (r#"{"name":"n"}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":"a"}]}"#, "no type"),
        (r#"{"name":{},"type":"a"}"#, "its name is"),
        (r#"{"type":"a"}"#, "its name is empty"),
    ];

    #[test]
    fn what_is_no_network_is_refused_with_a_reason() {
        let lists = NO_LISTS.iter().map(|row| ("x.conflist", row));
        let singles = NO_SINGLES.iter().map(|row| ("x.conf", row));
        for (file, (text, reason)) in lists.chain(singles) {
            let error = NetworkConfig::parse(file, text.as_bytes()).unwrap_err();
            let chain = crate::text::error_chain(&error);
            assert!(chain.contains(reason), "{file} {text}: {chain}");
            let is_certain = !reason.contains("name is empty");
            assert_eq!(error.is_certain(), is_certain, "{text}");
        }
        let deep = format!("{{\"name\":{}", "[".repeat(1000));
        for bytes in [&b"\xff"[..], deep.as_bytes()] {
            let error = NetworkConfig::parse("x.conf", bytes).unwrap_err();
            assert!(!error.is_certain(), "{error}");
        }
        for text in [
            r#"{"name":"n","cniVersion":"9","disableCheck":"TRUE","plugins":[{"type":"a","name":null,"capabilities":{"x":true},"ipam":{},"dns":{"search":["a",null]}}]}"#,
            r#"{"name":"n","disableGC":false,"loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}"#,
        ] {
            list(text);
        }
    }

    /// Texts of plugins, none of them ours.
    fn plugins() -> impl Strategy<Value = Vec<String>> {
        let value = select(vec![
            "1",
            "-1.50e+3",
            "18446744073709551617",
            "null",
            "[]",
            "{}",
            "[ 1,\t2 ]",
            r#""\u00e4\\\" ]}""#,
            r#"{"type": "msm-cni"}"#,
            r#"[{"type":"msm-cni"}]"#,
        ]);
        let member = (
            select(vec!["a", "b", "Type ", r"\u0061", "plugins"]),
            space(),
            value,
        )
            .prop_map(|(key, space, value)| format!(r#""{key}"{space}:{space}{value}"#));
        let kind = select(vec!["bridge", "portmap", "msm-cni-2", "msm", "MSM-CNI"]);
        let plugin = (kind, space(), vec(member, 0..3), any::<bool>()).prop_map(
            |(kind, space, mut members, first)| {
                let kind = format!(r#""type":{space}"{kind}""#);
                members.insert(if first { 0 } else { members.len() }, kind);
                format!("{{{space}{}{space}}}", members.join(&format!(",{space}")))
            },
        );
        vec(plugin, 1..5)
    }

    fn space() -> impl Strategy<Value = String> {
        let piece = select(vec![" ", "\n", "\r\n", "\t", "    "]);
        vec(piece, 0..3).prop_map(|pieces| pieces.concat())
    }

    /// What stands around and between the plugins of a list.
    #[derive(Debug)]
    struct Layout {
        spaces: Vec<String>,
        name_is_last: bool,
        is_repeated: bool,
    }

    fn layout() -> impl Strategy<Value = Layout> {
        (vec(space(), 12), any::<bool>(), any::<bool>()).prop_map(
            |(spaces, name_is_last, is_repeated)| Layout {
                spaces,
                name_is_last,
                is_repeated,
            },
        )
    }

    impl Layout {
        fn text(&self, plugins: &[String]) -> String {
            let [start, open, key, colon, end, close, last, between @ ..] = &self.spaces[..] else {
                panic!("{self:?}");
            };
            let plugins: Vec<_> = plugins
                .iter()
                .zip(between.iter().cycle())
                .map(|(plugin, space)| format!("{space}{plugin}{end}"))
                .collect();
            let mut members = vec![
                r#""name": "n""#.to_owned(),
                format!("\"plugins\"{key}:{colon}[{}]", plugins.join(",")),
            ];
            if self.name_is_last {
                members.reverse();
            }
            if self.is_repeated {
                members.insert(0, r#""plugins": [{"type": "msm-cni"}]"#.to_owned());
            }
            format!("{start}{{{open}{}{close}}}{last}", members.join(","))
        }
    }

    fn parsed(text: &str) -> Result<Vec<Value>, TestCaseError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        Ok(value["plugins"].as_array().cloned().unwrap_or_default())
    }

    proptest! {
        #![proptest_config(crate::testing::properties::fixed_seed_config())]
        #[test]
        fn whatever_is_put_in_comes_out_again(
            plugins in plugins(),
            layout in layout(),
            entry in select(vec![r#"{"type":"msm-cni"}"#, ENTRY]),
            other in select(vec![r#"{"type":"msm-cni","x":[]}"#, ENTRY]),
        ) {
            let text = layout.text(&plugins);
            let with = list(&text).with_entry(entry).unwrap();
            prop_assert_eq!(list(&with).with_entry(entry), None);
            prop_assert_eq!(list(&with).without_entry().unwrap(), text.as_str());
            prop_assert_eq!(parsed(&with)?, values(plugins.iter().map(String::as_str).chain([entry])));
            if let Some(changed) = list(&with).with_entry(other) {
                prop_assert_eq!(list(&changed).with_entry(other), None);
                prop_assert_eq!(list(&changed).without_entry().unwrap(), text);
            }
        }

        #[test]
        fn an_entry_anywhere_comes_out_and_the_others_stay(
            plugins in plugins(),
            layout in layout(),
            places in vec(any::<Index>(), 1..3),
        ) {
            let mut all = plugins.clone();
            for place in places {
                all.insert(place.index(all.len() + 1), r#"{"type": "msm-cni"}"#.to_owned());
            }
            let text = layout.text(&all);
            let others = values(plugins.iter().map(String::as_str));
            prop_assert_eq!(&parsed(&list(&text).without_entry().unwrap())?, &others);
            let with = parsed(&list(&text).with_entry(ENTRY).unwrap())?;
            prop_assert_eq!(with.split_last().unwrap().1, others);
        }
    }

    fn values<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Value> {
        texts
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    }
}
