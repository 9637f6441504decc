//! The members of a JSON object as raw text, parsed independently of `crate::json`, so that
//! tests can check what that module preserves.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members in order, repeated keys included.
pub struct Members<'a>(pub Vec<(Key, &'a RawValue)>);

/// The bytes of a key: one with an unpaired surrogate is not a valid string.
#[derive(Debug, Clone, PartialEq)]
pub struct Key(pub Vec<u8>);

impl<'a> Members<'a> {
    /// The last value of `key`.
    pub fn last(&self, key: &str) -> Option<&'a str> {
        let mut latest_first = self.0.iter().rev();
        latest_first
            .find(|(name, _)| name.0 == key.as_bytes())
            .map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let members = std::iter::from_fn(|| map.next_entry().transpose());
                members.collect::<Result<_, _>>().map(Members)
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
