//! A model of how container runtimes load their configuration directory. It follows libcni
//! (`ConfFiles`, `ConfListFromBytes`, `ConfFromBytes`, `ConfListFromConf`), containerd's go-cni
//! and CRI-O's ocicni, and shares no code with msm-cni.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use Runtime::{Containerd, Crio};

/// The runtimes, which differ in how they treat an invalid file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Reports that there is no network.
    Containerd,
    /// Tries the next file.
    Crio,
}

/// The network that pods are attached to.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub name: String,
    /// Empty if the configuration has none.
    pub version: String,
    pub plugins: Vec<Value>,
}

impl Runtime {
    pub const ALL: [Self; 2] = [Containerd, Crio];

    /// The network of a directory.
    pub fn loads_from(self, directory: &Path) -> Option<Network> {
        let entries = fs::read_dir(directory).unwrap();
        let mut files = Vec::new();
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.is_file().then(|| fs::read(&path)) {
                // The installer may be replacing it.
                Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                content => files.push((name, content.and_then(Result::ok))),
            }
        }
        let files = files.iter();
        self.loads(files.map(|(name, content)| (name.as_str(), content.as_deref())))
    }

    /// The network of files with these names and contents; `None` as content is a file that
    /// cannot be read.
    pub fn loads<'a>(
        self,
        files: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Option<Network> {
        let mut files: Vec<_> = files
            .into_iter()
            .filter(|(name, _)| {
                [".conf", ".conflist", ".json"]
                    .iter()
                    .any(|extension| name.ends_with(extension))
            })
            .collect();
        files.sort_unstable();
        let mut networks = files
            .iter()
            .map(|(name, content)| content.and_then(|content| self.load(name, content)));
        match self {
            Containerd => networks.next().flatten(),
            Crio => networks.flatten().next(),
        }
    }

    fn load(self, file: &str, content: &[u8]) -> Option<Network> {
        // Go replaces bytes that are not UTF-8.
        let text = String::from_utf8_lossy(content);
        let mut network = if file.ends_with(".conflist") {
            list(serde_json::from_str(&text).ok()?)
        } else {
            single(serde_json::from_str(&text).ok()?)
        }?;
        match self {
            // containerd loads it, but cannot attach a pod to it.
            Containerd if network.name.is_empty() => return None,
            Crio if network.name.is_empty() => file.clone_into(&mut network.name),
            _ => {}
        }
        Some(network)
    }
}

impl Network {
    /// The same network without msm-cni.
    pub fn without_us(mut self) -> Self {
        self.plugins.retain(|plugin| !is_ours(plugin));
        self
    }

    /// Whether msm-cni is its last plugin, and is in it once.
    pub fn ends_with_us(&self) -> bool {
        self.plugins.iter().filter(|plugin| is_ours(plugin)).count() == 1
            && self.plugins.last().is_some_and(is_ours)
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin.as_object().and_then(|it| string_of(it, "type")) == Some("msm-cni")
}

fn list(mut list: Map<String, Value>) -> Option<Network> {
    let name = list.get("name")?.as_str()?.to_owned();
    let version = list.get("cniVersion").map_or(Some(""), Value::as_str)?;
    for key in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
        match list.get(key) {
            None | Some(Value::Bool(_)) => {}
            Some(value) => {
                let text = value.as_str()?.to_lowercase();
                ["true", "false"].contains(&text.as_str()).then_some(())?;
            }
        }
    }
    let version = version.to_owned();
    let plugins = list.get_mut("plugins")?.as_array_mut()?;
    let is_valid = !plugins.is_empty() && plugins.iter().all(is_plugin);
    is_valid.then(|| Network {
        name,
        version,
        plugins: std::mem::take(plugins),
    })
}

fn single(plugin: Map<String, Value>) -> Option<Network> {
    let of = |key| string_of(&plugin, key).unwrap_or_default().to_owned();
    let (name, version) = (of("name"), of("cniVersion"));
    let plugin = Value::Object(plugin);
    is_plugin(&plugin).then(|| Network {
        name,
        version,
        plugins: vec![plugin],
    })
}

/// Whether Go decodes it into `types.PluginConf`.
fn is_plugin(plugin: &Value) -> bool {
    let Some(plugin) = plugin.as_object() else {
        return false;
    };
    let is_strings = |value: &Value| {
        value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| item.is_string() || item.is_null()))
    };
    let empty = json!({});
    let ipam = field(plugin, "ipam").unwrap_or(&empty);
    let dns = field(plugin, "dns").unwrap_or(&empty);
    let (Some(ipam), Some(dns)) = (ipam.as_object(), dns.as_object()) else {
        return false;
    };
    let capabilities = field(plugin, "capabilities").unwrap_or(&empty);
    let is_booleans = |value: &Map<String, Value>| {
        value
            .values()
            .all(|value| value.is_boolean() || value.is_null())
    };
    string_of(plugin, "type").is_some_and(|text| !text.is_empty())
        && ["name", "cniVersion"]
            .iter()
            .all(|key| field(plugin, key).is_none_or(Value::is_string))
        && capabilities.as_object().is_some_and(is_booleans)
        && field(plugin, "prevResult").is_none_or(Value::is_object)
        && field(ipam, "type").is_none_or(Value::is_string)
        && field(dns, "domain").is_none_or(Value::is_string)
        && ["nameservers", "search", "options"]
            .iter()
            .all(|key| field(dns, key).is_none_or(is_strings))
}

/// Finds a key in any case; `null` counts as missing.
fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let mut fields = object.iter().rev();
    let (_, value) = fields.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    (!value.is_null()).then_some(value)
}

fn string_of<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    field(object, name)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] =
        br#"{"name": "l", "cniVersion": "1.0.0", "plugins": [{"type": "a"}, {"Type": "b"}]}"#;
    const SINGLE: &[u8] = br#"{"Name": "s", "type": "a", "ipam": {"type": "host-local"}}"#;

    #[test]
    fn first_valid_file_is_loaded() {
        for (files, containerd, crio) in [
            (
                &[("20-s.conf", SINGLE), ("10-l.conflist", LIST)][..],
                "l",
                "l",
            ),
            (&[("10-s.json", SINGLE), ("10-l.conflist", LIST)], "l", "l"),
            (&[("10-x.conflist", LIST), ("10-x.conf", SINGLE)], "s", "s"),
            (&[("00-bad.conf", b"{"), ("10-s.conf", SINGLE)], "", "s"),
            (&[("00-list.conf", LIST), ("10-s.conf", SINGLE)], "", "s"),
            (
                &[("00-single.conflist", SINGLE), ("10-s.conf", SINGLE)],
                "",
                "s",
            ),
            (&[("00-s.conf.bak", SINGLE), ("x", SINGLE)], "", ""),
            (&[], "", ""),
        ] {
            let network = |runtime: Runtime| {
                let files = files.iter().map(|(name, content)| (*name, Some(*content)));
                runtime.loads(files).map(|network| network.name)
            };
            let name = |runtime| network(runtime).unwrap_or_default();
            assert_eq!(
                (name(Containerd).as_str(), name(Crio).as_str()),
                (containerd, crio),
                "{files:?}"
            );
        }
    }

    #[test]
    fn files_are_validated_as_libcni_does() {
        for (file, content, is_valid) in [
            ("a.conf", r#"{"type": "a"}"#, true),
            ("a.conf", r#"{"name": "a", "type": ""}"#, false),
            (
                "a.conf",
                r#"{"name": "a", "type": "a", "ipam": "dhcp"}"#,
                false,
            ),
            (
                "a.conf",
                r#"{"name": "a", "type": "a", "cniVersion": 1.0}"#,
                false,
            ),
            ("a.conflist", r#"{"name": "a", "plugins": []}"#, false),
            ("a.conflist", r#"{"plugins": [{"type": "a"}]}"#, false),
            (
                "a.conflist",
                r#"{"name": "a", "plugins": [{"type": "a"}, {}]}"#,
                false,
            ),
            (
                "a.conflist",
                r#"{"name": "a", "cniVersion": null, "plugins": [{"type": "a"}]}"#,
                false,
            ),
            (
                "a.conflist",
                r#"{"name": "a", "disableCheck": "True", "plugins": [{"type": "a"}]}"#,
                true,
            ),
            (
                "a.conflist",
                r#"{"name": "a", "disableCheck": 1, "plugins": [{"type": "a"}]}"#,
                false,
            ),
        ] {
            let network = Crio.loads([(file, Some(content.as_bytes()))]);
            assert_eq!(network.is_some(), is_valid, "{content}");
        }
        let nameless = [("a.conf", Some(&br#"{"type": "a"}"#[..]))];
        assert_eq!(Crio.loads(nameless).unwrap().name, "a.conf");
        assert_eq!(Containerd.loads(nameless), None);
    }
}
