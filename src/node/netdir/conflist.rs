//! Parses a file of the runtime's configuration directory as libcni does (`ConfListFromBytes`,
//! `ConfFromBytes`, `ConfListFromConf`), and edits it without changing any byte of other
//! components. Pure.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;
use serde_json::value::RawValue;

use super::error::Error;
use super::plugin::{self, Plugin};
use crate::json::{self, Object, span, string};
use crate::names::CNI_APPLET;

/// The key that marks a list as converted by msm-cni. libcni ignores keys it does not know.
const RECORD: &str = CNI_APPLET;
/// The record's member that names the converted file.
const FROM: &str = "from";

/// Extensions that libcni, containerd and CRI-O load.
const NETWORK_CONFIGURATION_EXTENSIONS: [&str; 3] = [".conf", ".conflist", ".json"];

/// A configuration that a runtime would load.
#[derive(Debug)]
pub enum NetworkConfig<'a> {
    List(List<'a>),
    Single(Single<'a>),
}

/// A `.conflist`: a named list of plugins.
#[derive(Debug)]
pub struct List<'a> {
    text: &'a str,
    plugins: Vec<Plugin<'a>>,
    /// The bytes between the brackets of `plugins`.
    inside: Range<usize>,
    /// The origin that msm-cni recorded when it converted the file.
    recorded_origin: Option<String>,
}

/// A `.conf` or `.json`: one plugin.
#[derive(Debug)]
pub struct Single<'a> {
    text: &'a str,
    plugin_type: String,
    /// A JSON string with its quotes, as is the version.
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> NetworkConfig<'a> {
    /// Parses the content of the file `file_name`, whose extension selects the format.
    pub fn parse(file_name: &str, bytes: &'a [u8]) -> Result<Self, Error> {
        if is_list(file_name) {
            List::parse(bytes).map(Self::List)
        } else {
            Single::parse(bytes).map(Self::Single)
        }
    }

    /// Whether the file has no other plugin than msm-cni.
    pub fn is_our_own(&self) -> bool {
        match self {
            Self::List(list) => list.plugins.iter().all(Plugin::is_ours),
            Self::Single(single) => single.plugin_type == CNI_APPLET,
        }
    }
}

/// Whether a container runtime loads files of this name as network configurations.
pub fn is_network_configuration(file_name: &str) -> bool {
    NETWORK_CONFIGURATION_EXTENSIONS
        .iter()
        .any(|extension| file_name.ends_with(extension))
}

/// Whether a runtime parses a file of this name as a list.
pub fn is_list(file_name: &str) -> bool {
    file_name.ends_with(".conflist")
}

fn parse_object(bytes: &[u8]) -> Result<(&str, Object<'_>), Error> {
    let json = |source| Error::Json { source };
    let object = Object::parse(bytes).map_err(json)?;
    let text = str::from_utf8(bytes).map_err(|source| json(json::Error::NotUtf8 { source }))?;
    Ok((text, object))
}

impl<'a> List<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (text, object) = parse_object(bytes)?;
        check_list_keys(&object)?;
        let raw = object.get("plugins").ok_or(Error::NoPlugins)?;
        let items: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| Error::NoPlugins)?;
        let plugins = items
            .into_iter()
            .map(|item| Plugin::parse(text, item))
            .collect::<Result<Vec<_>, Error>>()?;
        if plugins.is_empty() {
            return Err(Error::NoPlugins);
        }
        let array = span(text, raw.get());
        Ok(Self {
            text,
            plugins,
            inside: array.start + 1..array.end - 1,
            recorded_origin: object.get(RECORD).and_then(parse_record),
        })
    }

    /// The name of the file that msm-cni converted to this list, if the list records it.
    pub fn recorded_origin(&self) -> Option<&str> {
        self.recorded_origin.as_deref()
    }

    pub fn has_entry(&self) -> bool {
        self.plugins.iter().any(Plugin::is_ours)
    }

    /// The text with `entry` as the last plugin and no other entry of msm-cni; `None` if the
    /// list already equals that.
    pub fn with_entry(&self, entry: &str) -> Option<String> {
        let entries = self.plugins.iter().filter(|plugin| plugin.is_ours());
        let is_last = self
            .plugins
            .last()
            .is_some_and(|last| last.is_ours() && json::same(last.text, entry));
        if is_last && entries.count() == 1 {
            return None;
        }
        let others = self.others();
        let separator = self.separator();
        let indented = entry.replace('\n', &format!("\n{}", indentation(&separator)));
        let lead = if others.is_empty() {
            self.lead(0)
        } else {
            &separator
        };
        Some(self.with_plugins(&format!("{others}{lead}{indented}")))
    }

    /// The text without msm-cni's entries and record; `None` if there are none.
    pub fn without_us(&self) -> Option<String> {
        let without_entry = self.has_entry().then(|| self.with_plugins(&self.others()));
        let without_record = without_record(without_entry.as_deref().unwrap_or(self.text));
        without_record.or(without_entry)
    }

    /// Whether the list equals `text` as JSON.
    pub fn equals(&self, text: &str) -> bool {
        json::same(self.text, text)
    }

    /// Whether the list, without msm-cni's entry and record, equals the converted `single`.
    pub fn is_converted_from(&self, single: &Single) -> bool {
        let without_us = self.without_us();
        json::same(
            without_us.as_deref().unwrap_or(self.text),
            &single.to_list(),
        )
    }

    /// Whether the list equals the conversion of the plugin in it: it has no other plugin and
    /// no other top-level key.
    pub fn is_unedited_conversion(&self) -> bool {
        let mut others = self.plugins.iter().filter(|plugin| !plugin.is_ours());
        match (others.next(), others.next()) {
            (Some(plugin), None) => Single::parse(plugin.text.as_bytes())
                .is_ok_and(|single| self.is_converted_from(&single)),
            _ => false,
        }
    }

    /// Whether one of the plugins equals `single`.
    pub fn contains(&self, single: &Single) -> bool {
        self.plugins
            .iter()
            .any(|plugin| json::same(plugin.text, single.text))
    }

    fn with_plugins(&self, plugins: &str) -> String {
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

    /// The plugins of other components, each with the bytes that precede it.
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

    /// The bytes between a plugin and the previous one, or the opening bracket.
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

    /// The bytes between two plugins, in the style of this file.
    fn separator(&self) -> String {
        match self.plugins.len() {
            0 | 1 => format!(",{}", self.lead(0)),
            _ => self.lead(1).to_owned(),
        }
    }
}

/// Checks the list's own keys, which libcni decodes even if they are `null`.
fn check_list_keys(object: &Object) -> Result<(), Error> {
    let name = object.get_nullable("name").ok_or(Error::NoName)?;
    if string(name)
        .ok_or(Error::WrongType { key: "name" })?
        .is_empty()
    {
        return Err(Error::EmptyName);
    }
    let check = |key, is_valid: fn(&RawValue) -> bool| match object.get_nullable(key) {
        Some(value) if !is_valid(value) => Err(Error::WrongType { key }),
        _ => Ok(()),
    };
    check("cniVersion", |value| string(value).is_some())?;
    for key in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
        check(key, is_switch)?;
    }
    Ok(())
}

/// Whether libcni accepts the value as a boolean: `true`, `"True"`.
fn is_switch(raw: &RawValue) -> bool {
    let text = string(raw).unwrap_or(Cow::Borrowed(raw.get()));
    ["true", "false"].contains(&text.to_lowercase().as_str())
}

impl<'a> Single<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (text, object) = parse_object(bytes)?;
        let plugin_type = plugin::plugin_type(&object)?;
        let name = object.get_any_case("name").ok_or(Error::EmptyName)?;
        if string(name).is_none_or(|name| name.is_empty()) {
            return Err(Error::EmptyName);
        }
        let single = Self {
            text: text.trim(),
            plugin_type,
            name: name.get(),
            version: object.get_any_case("cniVersion").map(RawValue::get),
        };
        // In a list the plugin is nested two levels deeper, and msm-cni must be able to read
        // the list again.
        List::parse(single.to_list().as_bytes())?;
        Ok(single)
    }

    /// A list of the same name and version, with this plugin and `entry`, that records
    /// `origin`, the name of this file.
    pub fn converted(&self, origin: &str, entry: &str) -> String {
        let origin = Value::from(origin);
        self.list_of(
            &format!("  \"{RECORD}\": {{\"{FROM}\": {origin}}},\n"),
            &[self.text, entry],
        )
    }

    /// A list of the same name and version, with this plugin alone.
    pub fn to_list(&self) -> String {
        self.list_of("", &[self.text])
    }

    fn list_of(&self, record: &str, plugins: &[&str]) -> String {
        let version = self
            .version
            .map(|version| format!("  \"cniVersion\": {version},\n"))
            .unwrap_or_default();
        let plugins: Vec<_> = plugins
            .iter()
            .map(|plugin| plugin.replace('\n', "\n    "))
            .collect();
        format!(
            "{{\n{version}  \"name\": {},\n{record}  \"plugins\": [\n    {}\n  ]\n}}\n",
            self.name,
            plugins.join(",\n    "),
        )
    }
}

fn parse_record(raw: &RawValue) -> Option<String> {
    let record = Object::from_raw(raw).ok()?;
    string(record.get(FROM)?).map(Cow::into_owned)
}

/// The text without records of an origin; `None` if there are none.
fn without_record(text: &str) -> Option<String> {
    let object = Object::parse(text.as_bytes()).ok()?;
    let raw = object.get(RECORD)?;
    parse_record(raw)?;
    let shorter = without_member(text, span(text, raw.get()))?;
    // The key may be repeated.
    Some(without_record(&shorter).unwrap_or(shorter))
}

/// The text of an object without the member that has the value `value`.
fn without_member(text: &str, value: Range<usize>) -> Option<String> {
    let before = text.get(..value.start)?.trim_end().strip_suffix(':')?;
    // The key contains no quote, however it is escaped.
    let (before, _) = before.trim_end().strip_suffix('"')?.rsplit_once('"')?;
    let before = before.trim_end();
    let after = text.get(value.end..)?;
    if let Some(before) = before.strip_suffix(',') {
        return Some([before, after].concat());
    }
    // The first member: the comma after it is removed.
    let after = after.trim_start();
    Some([before, after.strip_prefix(',').unwrap_or(after)].concat())
}

/// The white space at the start of the last line.
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
    fn file_that_is_nested_too_deeply_for_a_list_is_not_converted() {
        let nested = |levels| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"name":"n","type":"a","b":{open}{close}}}"#)
        };
        // The plugin itself is one level, and two more surround it in a list.
        let text = nested(125);
        assert!(list_is_valid(&single(&text).to_list()));
        let text = nested(126);
        let error = NetworkConfig::parse("10-x.conf", text.as_bytes()).unwrap_err();
        assert!(!error.is_certain(), "{error:?}");
    }

    fn list_is_valid(text: &str) -> bool {
        NetworkConfig::parse("10-x.conflist", text.as_bytes()).is_ok()
    }

    #[test]
    fn entry_is_added_last_and_removed_without_changing_other_bytes() {
        for (text, expected) in [
            // Compact, and in the other styles in use.
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
            // Numbers and escapes that Go would change; JSON within a string.
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
            assert_eq!(list(&with).without_us().unwrap(), text);
            assert_eq!(list(text).without_us(), None, "{text}");
        }
    }

    #[test]
    fn misplaced_repeated_or_different_entry_is_replaced_by_one_at_the_end() {
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
            assert_eq!(list.without_us().as_deref(), Some(without), "{text}");
        }
    }

    #[test]
    fn equal_entry_in_another_format_is_kept() {
        for entry in [
            r#"{"a":1,"type":"msm-cni"}"#,
            "{\"type\":\n\t\"msm-cni\", \"a\":1}",
            r#"{"a":2,"type":"msm\u002dcni","a":1}"#,
        ] {
            let text = format!(r#"{{"name":"n","plugins":[{{"type":"a"}}, {entry}]}}"#);
            assert_eq!(list(&text).with_entry(ENTRY), None, "{text}");
        }
        // Values that Go and Rust cannot represent are equal to themselves.
        let odd = r#"{"type":"msm-cni","a":1e999,"b":"\ud800"}"#;
        let text = format!(r#"{{"name":"n","plugins":[{{"type":"a"}},{odd}]}}"#);
        assert_eq!(list(&text).with_entry(odd), None);
    }

    #[test]
    fn list_of_entries_only_is_our_own() {
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
    fn converted_conf_keeps_its_name_and_version() {
        for (text, expected) in [
            (
                "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"n\\u00fc\",\n  \"type\": \"a\"\n}\n",
                "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"n\\u00fc\",\n  \"msm-cni\": {\"from\": \"10-x.conf\"},\n  \"plugins\": [\n    {\n      \"cniVersion\": \"0.3.1\",\n      \"name\": \"n\\u00fc\",\n      \"type\": \"a\"\n    },\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
            (
                r#"{"name":"n","type":"a"}"#,
                "{\n  \"name\": \"n\",\n  \"msm-cni\": {\"from\": \"10-x.conf\"},\n  \"plugins\": [\n    {\"name\":\"n\",\"type\":\"a\"},\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
            (
                r#"{"NAME":"n","cniversion":"1.0.0","type":"a"}"#,
                "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"n\",\n  \"msm-cni\": {\"from\": \"10-x.conf\"},\n  \"plugins\": [\n    {\"NAME\":\"n\",\"cniversion\":\"1.0.0\",\"type\":\"a\"},\n    {\n      \"type\": \"msm-cni\",\n      \"a\": 1\n    }\n  ]\n}\n",
            ),
        ] {
            let single = single(text);
            let converted = single.converted("10-x.conf", ENTRY);
            assert_eq!(converted, expected);
            let converted = list(&converted);
            assert_eq!(converted.recorded_origin(), Some("10-x.conf"));
            assert_eq!(converted.with_entry(ENTRY), None);
            assert_eq!(converted.without_us().unwrap(), single.to_list());
            assert!(converted.is_converted_from(&single) && converted.contains(&single));
            assert!(converted.is_unedited_conversion());
        }
    }

    #[test]
    fn edited_list_is_no_conversion() {
        let single = single(r#"{"name":"n","cniVersion":"0.3.1","type":"a","mtu":1}"#);
        for (list_text, is_converted, contains) in [
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
            assert_eq!(list.is_converted_from(&single), is_converted, "{list_text}");
            assert_eq!(list.contains(&single), contains, "{list_text}");
        }
    }

    #[test]
    fn conversion_is_unedited_until_a_plugin_or_top_level_key_is_added() {
        let single = single("{\n  \"name\":\"n\",\n  \"type\":\"a\"\n}");
        let converted = single.converted("10-x.conf", ENTRY);
        for (from, to, is_unedited) in [
            ("\"a\"", "\"b\"", true),
            ("\"a\"", "\"a\", \"mtu\": 1400", true),
            ("\"a\": 1", "\"a\": 2", true),
            ("  \"name\": \"n\"", "  \"name\":  \"n\"", true),
            ("\n  ]", ",\n    {\"type\": \"b\"}\n  ]", false),
            ("\"msm-cni\",\n", "\"portmap\",\n", false),
            ("  \"name\": \"n\"", "  \"name\": \"m\"", false),
            ("  \"name\": \"n\"", "  \"x\": 1, \"name\": \"n\"", false),
            ("\"name\":\"n\",\n", "", false),
        ] {
            let text = converted.replacen(from, to, 1);
            assert_ne!(text, converted);
            assert_eq!(list(&text).is_unedited_conversion(), is_unedited, "{text}");
        }
    }

    #[test]
    fn record_is_removed_without_changing_other_bytes() {
        let record = r#""msm-cni": {"from": "10-x.conf"}"#;
        for (with, without) in [
            // First, in the middle, last.
            (
                "{\n  RECORD,\n  \"name\": \"n\",\n  \"plugins\": [{\"type\":\"a\"}]\n}\n",
                "{\n  \"name\": \"n\",\n  \"plugins\": [{\"type\":\"a\"}]\n}\n",
            ),
            (
                "{\n  \"name\": \"n\",\n  RECORD,\n  \"plugins\": [{\"type\":\"a\"}]\n}\n",
                "{\n  \"name\": \"n\",\n  \"plugins\": [{\"type\":\"a\"}]\n}\n",
            ),
            (
                "{\n  \"name\": \"n\",\n  \"plugins\": [{\"type\":\"a\"}],\n  RECORD\n}\n",
                "{\n  \"name\": \"n\",\n  \"plugins\": [{\"type\":\"a\"}]\n}\n",
            ),
            (
                r#"{"name":"n" , RECORD , "plugins":[{"type":"a"}]}"#,
                r#"{"name":"n"  , "plugins":[{"type":"a"}]}"#,
            ),
            // Repeated.
            (
                r#"{RECORD,"name":"n",RECORD,"plugins":[{"type":"a"}],RECORD}"#,
                r#"{"name":"n","plugins":[{"type":"a"}]}"#,
            ),
        ] {
            let with = with.replace("RECORD", record);
            let parsed = list(&with);
            assert_eq!(parsed.recorded_origin(), Some("10-x.conf"), "{with}");
            assert_eq!(parsed.without_us().as_deref(), Some(without), "{with}");
        }
        // As another component may write it.
        let text = r#"{"msm\u002dcni" :{"from":"\u0031.conf"},"name":"n","plugins":[{"type":"a"},{"type":"msm-cni"}]}"#;
        assert_eq!(list(text).recorded_origin(), Some("1.conf"));
        assert_eq!(
            list(text).without_us().as_deref(),
            Some(r#"{"name":"n","plugins":[{"type":"a"}]}"#)
        );
    }

    #[test]
    fn record_of_another_form_is_ignored_and_kept() {
        for value in [
            "null",
            "7",
            "{}",
            r#"{"from":7}"#,
            r#"{"From":"x"}"#,
            r#"["from"]"#,
        ] {
            let text = format!(r#"{{"msm-cni":{value},"name":"n","plugins":[{{"type":"a"}}]}}"#);
            assert_eq!(list(&text).recorded_origin(), None, "{text}");
            assert_eq!(list(&text).without_us(), None, "{text}");
        }
    }

    /// Contents of a `.conflist`, each with a part of the reason why it is refused.
    const INVALID_LISTS: [(&str, &str); 22] = [
        ("", "empty"),
        (r#"{"name": "n", "plugins": [{"ty"#, "not valid JSON"),
        ("[]", "not an object"),
        ("\u{feff}{}", "byte order mark"),
        (r#"{"plugins":[{"type":"a"}]}"#, "name is missing"),
        (
            r#"{"NAME":"n","plugins":[{"type":"a"}]}"#,
            "name is missing",
        ),
        (
            r#"{"name":null,"plugins":[{"type":"a"}]}"#,
            "name has the wrong JSON type",
        ),
        (
            r#"{"name":7,"plugins":[{"type":"a"}]}"#,
            "name has the wrong JSON type",
        ),
        (r#"{"name":"","plugins":[{"type":"a"}]}"#, EMPTY_NAME),
        (r#"{"name":"n"}"#, "plugins is missing"),
        (r#"{"name":"n","type":"a"}"#, "plugins is missing"),
        (r#"{"name":"n","plugins":{}}"#, "plugins is missing"),
        (r#"{"name":"n","plugins":[]}"#, "plugins is missing"),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"plugins":null}"#,
            "plugins is missing",
        ),
        (r#"{"name":"n","plugins":["a"]}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":"a"},{}]}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":""}]}"#, "no type"),
        (
            r#"{"name":"n","plugins":[{"type":[]}]}"#,
            "type has the wrong JSON type",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a","ipam":[]}]}"#,
            "ipam has the wrong JSON type",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"cniVersion":1.0}"#,
            "cniVersion has the wrong JSON type",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"cniVersion":null}"#,
            "cniVersion has the wrong JSON type",
        ),
        (
            r#"{"name":"n","plugins":[{"type":"a"}],"disableCheck":"no"}"#,
            "disableCheck has the wrong JSON type",
        ),
    ];
    const INVALID_SINGLES: [(&str, &str); 4] = [
        (r#"{"name":"n"}"#, "no type"),
        (r#"{"name":"n","plugins":[{"type":"a"}]}"#, "no type"),
        (r#"{"name":{},"type":"a"}"#, "name has the wrong JSON type"),
        (r#"{"type":"a"}"#, EMPTY_NAME),
    ];
    const EMPTY_NAME: &str = "name is empty";

    #[test]
    fn configuration_that_runtimes_refuse_is_an_error_with_the_reason() {
        let lists = INVALID_LISTS.iter().map(|row| ("x.conflist", row));
        let singles = INVALID_SINGLES.iter().map(|row| ("x.conf", row));
        for (file, (text, reason)) in lists.chain(singles) {
            let error = NetworkConfig::parse(file, text.as_bytes()).unwrap_err();
            let chain = crate::text::error_chain(&error);
            assert!(chain.contains(reason), "{file} {text}: {chain}");
            assert_eq!(error.is_certain(), *reason != EMPTY_NAME, "{text}");
        }
        let deep = format!("{{\"name\":{}", "[".repeat(1000));
        for bytes in [&b"\xff"[..], deep.as_bytes()] {
            let error = NetworkConfig::parse("x.conf", bytes).unwrap_err();
            assert!(!error.is_certain(), "{error}");
        }
    }

    #[test]
    fn list_with_every_accepted_json_type_is_loaded() {
        for text in [
            r#"{"name":"n","cniVersion":"9","disableCheck":"TRUE","plugins":[{"type":"a","name":null,"capabilities":{"x":true},"ipam":{},"dns":{"search":["a",null]}}]}"#,
            r#"{"name":"n","disableGC":false,"loadOnlyInlinedPlugins":true,"plugins":[{"type":"a"}]}"#,
        ] {
            list(text);
        }
    }

    /// Plugins of other components, as JSON.
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
        let types = select(vec!["bridge", "portmap", "msm-cni-2", "msm", "MSM-CNI"]);
        let plugin = (types, space(), vec(member, 0..3), any::<bool>()).prop_map(
            |(name, space, mut members, first)| {
                let member = format!(r#""type":{space}"{name}""#);
                members.insert(if first { 0 } else { members.len() }, member);
                format!("{{{space}{}{space}}}", members.join(&format!(",{space}")))
            },
        );
        vec(plugin, 1..5)
    }

    fn space() -> impl Strategy<Value = String> {
        let piece = select(vec![" ", "\n", "\r\n", "\t", "    "]);
        vec(piece, 0..3).prop_map(|pieces| pieces.concat())
    }

    /// White space and order of a list.
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
        fn added_entry_is_removed_without_a_trace(
            plugins in plugins(),
            layout in layout(),
            entry in select(vec![r#"{"type":"msm-cni"}"#, ENTRY]),
            other in select(vec![r#"{"type":"msm-cni","x":[]}"#, ENTRY]),
        ) {
            let text = layout.text(&plugins);
            let with = list(&text).with_entry(entry).unwrap();
            prop_assert_eq!(list(&with).with_entry(entry), None);
            prop_assert_eq!(list(&with).without_us().unwrap(), text.as_str());
            prop_assert_eq!(parsed(&with)?, values(plugins.iter().map(String::as_str).chain([entry])));
            if let Some(changed) = list(&with).with_entry(other) {
                prop_assert_eq!(list(&changed).with_entry(other), None);
                prop_assert_eq!(list(&changed).without_us().unwrap(), text);
            }
        }

        #[test]
        fn entry_at_any_position_is_removed_and_others_are_kept(
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
            prop_assert_eq!(&parsed(&list(&text).without_us().unwrap())?, &others);
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
