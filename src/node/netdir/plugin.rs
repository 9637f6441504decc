//! One plugin of a network configuration: what libcni decodes of it (`types.PluginConf`), and
//! whether it would refuse it. A runtime refuses the whole list because of one such plugin.
//! Pure.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::Error;
use crate::json::{self, Object, span};
use crate::names::CNI_APPLET;

/// A plugin in a list.
#[derive(Debug)]
pub struct Plugin<'a> {
    pub text: &'a str,
    /// Its bytes in the text of the list.
    pub range: Range<usize>,
    type_name: String,
}

impl<'a> Plugin<'a> {
    /// Parses `raw`, a part of the text `list`.
    pub fn parse(list: &str, raw: &'a RawValue) -> Result<Self, Error> {
        Ok(Self {
            text: raw.get(),
            range: span(list, raw.get()),
            type_name: plugin_type(&parse_object(raw)?)?,
        })
    }

    /// Whether this is an entry of msm-cni.
    pub fn is_ours(&self) -> bool {
        self.type_name == CNI_APPLET
    }
}

fn parse_object(raw: &RawValue) -> Result<Object<'_>, Error> {
    Object::from_raw(raw).map_err(|source| match source {
        json::Error::NotAnObject { .. } => Error::NoType,
        source => Error::Json { source },
    })
}

/// The plugin's type, if every field that libcni decodes has the right type. Go's decoder
/// ignores the case of keys.
pub fn plugin_type(plugin: &Object) -> Result<String, Error> {
    type Strings = Vec<Option<String>>;

    decode::<String>(plugin, "cniVersion")?;
    decode::<String>(plugin, "name")?;
    decode::<HashMap<String, Option<bool>>>(plugin, "capabilities")?;
    object(plugin, "prevResult")?;
    if let Some(ipam) = object(plugin, "ipam")? {
        decode::<String>(&ipam, "type")?;
    }
    if let Some(dns) = object(plugin, "dns")? {
        decode::<String>(&dns, "domain")?;
        for key in ["nameservers", "search", "options"] {
            decode::<Strings>(&dns, key)?;
        }
    }
    let plugin_type = decode::<String>(plugin, "type")?;
    plugin_type
        .filter(|text| !text.is_empty())
        .ok_or(Error::NoType)
}

fn decode<'a, T: Deserialize<'a>>(
    object: &Object<'a>,
    key: &'static str,
) -> Result<Option<T>, Error> {
    let decode = |raw: &'a RawValue| serde_json::from_str(raw.get());
    let value = object.get_any_case(key).map(decode).transpose();
    value.map_err(|_| Error::WrongType { key })
}

fn object<'a>(object: &Object<'a>, key: &'static str) -> Result<Option<Object<'a>>, Error> {
    let value = object.get_any_case(key).map(Object::from_raw).transpose();
    value.map_err(|_| Error::WrongType { key })
}
