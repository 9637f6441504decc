//! A JSON object as it was written: order, spellings and values untouched. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper nesting than any configuration has, and shallow enough for every reader behind us.
const DEPTH_LIMIT: usize = 128;

/// Members in order; where a key is repeated, the last one counts.
#[derive(Debug, Clone)]
pub struct Object<'a>(Vec<(String, &'a RawValue)>);

/// Why bytes are not a JSON object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("it is not a JSON object")]
    Syntax { source: serde_json::Error },
}

impl<'a> Object<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        if depth(bytes) > DEPTH_LIMIT {
            return Err(Error::TooDeep);
        }
        serde_json::from_slice(bytes).map_err(|source| Error::Syntax { source })
    }

    pub fn from_raw(raw: &'a RawValue) -> Result<Self, Error> {
        serde_json::from_str(raw.get()).map_err(|source| Error::Syntax { source })
    }

    /// The value of exactly this key; `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.written(key).filter(|value| !is_null(value))
    }

    /// The same, `null` included.
    pub fn written(&self, key: &str) -> Option<&'a RawValue> {
        self.last(|name| name == key)
    }

    /// The same without regard to case, as Go's decoder has always matched our keys.
    pub fn get_any_case(&self, key: &str) -> Option<&'a RawValue> {
        self.last(|name| name.eq_ignore_ascii_case(key))
            .filter(|value| !is_null(value))
    }

    fn last(&self, matches: impl Fn(&str) -> bool) -> Option<&'a RawValue> {
        let member = self.0.iter().rev().find(|(name, _)| matches(name));
        member.map(|(_, value)| *value)
    }

    /// The object's text with `key` set to the JSON text `value`, all else as it came.
    pub fn with(&self, key: &str, value: &str) -> String {
        let quoted = |name: &str| serde_json::Value::from(name).to_string();
        let mut members: Vec<String> = Vec::with_capacity(self.0.len() + 1);
        if self.0.iter().all(|(name, _)| name != key) {
            members.push(format!("{}:{value}", quoted(key)));
        }
        members.extend(self.0.iter().map(|(name, old)| {
            let text = if name == key { value } else { old.get() };
            format!("{}:{text}", quoted(name))
        }));
        format!("{{{}}}", members.join(","))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// Whether two JSON texts say the same: members in any order, the last of repeated keys,
/// white space and escapes as they like. Numbers are compared by their spelling, so that
/// none is too large.
pub fn same(one: &str, other: &str) -> bool {
    type Members<'a> = BTreeMap<String, &'a RawValue>;

    let (one, other) = (one.trim(), other.trim());
    if one == other {
        return true;
    }
    let kinds = [one, other].map(|text| text.bytes().next());
    match kinds {
        [Some(b'{'), Some(b'{')] => both::<Members>(one, other).is_some_and(|(one, other)| {
            one.len() == other.len()
                && one.iter().zip(&other).all(|((key, value), (name, held))| {
                    key == name && same(value.get(), held.get())
                })
        }),
        [Some(b'['), Some(b'[')] => {
            both::<Vec<&RawValue>>(one, other).is_some_and(|(one, other)| {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(&other)
                        .all(|(item, held)| same(item.get(), held.get()))
            })
        }
        [Some(b'"'), Some(b'"')] => {
            both::<String>(one, other).is_some_and(|(one, other)| one == other)
        }
        _ => false,
    }
}

fn both<'a, T: Deserialize<'a>>(one: &'a str, other: &'a str) -> Option<(T, T)> {
    serde_json::from_str(one)
        .ok()
        .zip(serde_json::from_str(other).ok())
}

/// Where `inner`, a part of `outer`, stands in it.
pub fn span(outer: &str, inner: &str) -> Range<usize> {
    let start = inner.as_ptr().addr().saturating_sub(outer.as_ptr().addr());
    start..start + inner.len()
}

/// How deep arrays and objects are nested; brackets in strings are text.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_replaced_and_all_else_stays_as_it_was_written() {
        let object = Object::parse(
            br#"{"b": 1.50e3, "cniVersion":"0.3.1", "a":{"z": 12345678901234567890} }"#,
        )
        .unwrap();
        assert_eq!(
            object.with("cniVersion", "\"0.4.0\""),
            r#"{"b":1.50e3,"cniVersion":"0.4.0","a":{"z": 12345678901234567890}}"#
        );
        let object = Object::parse(b"{}").unwrap();
        assert_eq!(
            object.with("cniVersion", "\"0.4.0\""),
            r#"{"cniVersion":"0.4.0"}"#
        );
    }

    #[test]
    fn the_last_of_repeated_keys_counts() {
        let object = Object::parse(br#"{"a":1,"A":2,"a":3,"n":null}"#).unwrap();
        assert_eq!(object.get("a").unwrap().get(), "3");
        assert_eq!(object.get("A").unwrap().get(), "2");
        assert_eq!(object.get_any_case("A").unwrap().get(), "3");
        assert!(object.get("n").is_none());
        assert_eq!(object.written("n").unwrap().get(), "null");
    }

    #[test]
    fn json_is_compared_by_what_it_says() {
        for (one, other, expected) in [
            (
                r#"{"a": 1, "b": [true, null]}"#,
                r#" {"b":[true,null],"a":1}"#,
                true,
            ),
            (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#, true),
            (r#"{"a\u0062": "\u00e9"}"#, r#"{"ab": "é"}"#, true),
            (r#"{"a": 1}"#, r#"{"a": 1.0}"#, false),
            (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, false),
            (r#"{"a": 1}"#, r#"{"b": 1}"#, false),
            ("[1, 2]", "[2, 1]", false),
            ("[1, 2]", "[1, 2, 3]", false),
            ("[[1]]", "[1]", false),
            ("[36893488147419103233]", "[36893488147419103234]", false),
            ("[1e999]", "[ 1e999 ]", true),
            (r#"["\ud800"]"#, r#"[ "\ud800" ]"#, true),
            (r#"["\ud800"]"#, r#"["\ud801"]"#, false),
            ("{", "{ ", true),
            ("{", "[", false),
            ("", "{}", false),
        ] {
            assert_eq!(same(one, other), expected, "{one} {other}");
            assert_eq!(same(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(Object::parse(nested(127).as_bytes()).is_ok());
        assert!(matches!(
            Object::parse(nested(128).as_bytes()),
            Err(Error::TooDeep)
        ));
        assert!(matches!(
            Object::parse(nested(1_000_000).as_bytes()),
            Err(Error::TooDeep)
        ));
        assert_eq!(depth(br#"{"[[[\"[[[":1}"#), 1);
    }
}
