//! JSON objects and arrays as raw text: the order, spelling and value of each member are
//! preserved, and only keys are copied. Nesting and the number of stored members are bounded.
//! Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Deeper than any configuration, and shallow enough for every program that reads it later.
const DEPTH_LIMIT: usize = 128;
/// More than any object of a configuration has.
const MEMBER_LIMIT: usize = 1024;
/// In bytes; longer than every key that callers look up.
const LONGEST_KEY: usize = 64;

/// The members of an object, in order. The last of repeated keys counts.
#[derive(Debug, Clone)]
pub struct Object<'a>(Vec<(String, &'a RawValue)>);

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

/// Why bytes are not a JSON object. The texts name no subject: they follow the file or key
/// that was parsed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("empty")]
    Empty,
    #[error("{encoding}, expected UTF-8 without a byte order mark")]
    Encoding { encoding: &'static str },
    #[error("not UTF-8")]
    NotUtf8 { source: std::str::Utf8Error },
    #[error("nested deeper than {DEPTH_LIMIT} levels")]
    TooDeep,
    #[error("more than {MEMBER_LIMIT} members")]
    TooManyMembers,
    #[error("{}, not an object", .found.name())]
    NotAnObject { found: Kind },
    #[error("not valid JSON")]
    Syntax { source: serde_json::Error },
}

impl<'a> Object<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::from_text(checked_text(bytes)?)
    }

    pub fn from_raw(raw: &'a RawValue) -> Result<Self, Error> {
        Self::from_text(raw.get())
    }

    fn from_text(text: &'a str) -> Result<Self, Error> {
        let (mut kept, mut count) = (Vec::new(), 0);
        members(text, |key, value| {
            count += 1;
            if count <= MEMBER_LIMIT {
                kept.push((key.to_owned(), value));
            }
        })?;
        if count > MEMBER_LIMIT {
            return Err(Error::TooManyMembers);
        }
        Ok(Self(kept))
    }

    /// The value of `key`. `null` counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.get_nullable(key).filter(|value| !is_null(value))
    }

    /// The value of `key`, which may be `null`.
    pub fn get_nullable(&self, key: &str) -> Option<&'a RawValue> {
        self.last(|name| name == key)
    }

    /// Like `get`, but ignores case, as Go's decoder does for the keys of a configuration.
    pub fn get_any_case(&self, key: &str) -> Option<&'a RawValue> {
        self.last(|name| name.eq_ignore_ascii_case(key))
            .filter(|value| !is_null(value))
    }

    fn last(&self, matches: impl Fn(&str) -> bool) -> Option<&'a RawValue> {
        let member = self.0.iter().rev().find(|(name, _)| matches(name));
        member.map(|(_, value)| *value)
    }
}

impl Kind {
    pub fn of(raw: &RawValue) -> Self {
        match raw.get().as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b'"') => Self::String,
            Some(b't' | b'f') => Self::Boolean,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// Checks encoding and nesting, and that there is any text, before it is parsed.
fn checked_text(bytes: &[u8]) -> Result<&str, Error> {
    let encoding = match bytes {
        [0xef, 0xbb, 0xbf, ..] => Some("UTF-8 with a byte order mark"),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, _, ..] | [_, 0, ..] => Some("UTF-16"),
        _ => None,
    };
    if let Some(encoding) = encoding {
        return Err(Error::Encoding { encoding });
    }
    if bytes.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    if depth(bytes) > DEPTH_LIMIT {
        return Err(Error::TooDeep);
    }
    str::from_utf8(bytes).map_err(|source| Error::NotUtf8 { source })
}

/// The decoded value of a JSON string. `None` if `raw` is not a string or contains an
/// unpaired surrogate.
pub fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw.get()).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn is_null(value: &RawValue) -> bool {
    Kind::of(value) == Kind::Null
}

/// Whether two JSON texts have the same value. The order of members, white space and escapes
/// do not matter, and the last of repeated keys counts. Numbers are compared as text, so
/// that no number is too large.
pub fn same(one: &str, other: &str) -> bool {
    type Members<'a> = BTreeMap<String, &'a RawValue>;

    let (one, other) = (one.trim(), other.trim());
    if one == other {
        return true;
    }
    let kinds = [one, other].map(|text| text.bytes().next());
    match kinds {
        [Some(b'{'), Some(b'{')] => {
            parse_both::<Members>(one, other).is_some_and(|(one, other)| {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(&other)
                        .all(|(one, other)| one.0 == other.0 && same(one.1.get(), other.1.get()))
            })
        }
        [Some(b'['), Some(b'[')] => {
            parse_both::<Vec<&RawValue>>(one, other).is_some_and(|(one, other)| {
                one.len() == other.len()
                    && one
                        .iter()
                        .zip(&other)
                        .all(|(one, other)| same(one.get(), other.get()))
            })
        }
        [Some(b'"'), Some(b'"')] => {
            parse_both::<String>(one, other).is_some_and(|(one, other)| one == other)
        }
        _ => false,
    }
}

fn parse_both<'a, T: Deserialize<'a>>(one: &'a str, other: &'a str) -> Option<(T, T)> {
    serde_json::from_str(one)
        .ok()
        .zip(serde_json::from_str(other).ok())
}

/// The byte range of `inner` within `outer`. `inner` must be a slice of `outer`.
pub fn span(outer: &str, inner: &str) -> Range<usize> {
    let start = inner.as_ptr().addr().saturating_sub(outer.as_ptr().addr());
    start..start + inner.len()
}

/// Calls `visit` for each member of the object `text`, in order, up to the first syntax error.
/// A key that is longer than any known one, or that has an unpaired surrogate, is passed as
/// an empty string.
pub fn members<'a>(text: &'a str, visit: impl FnMut(&str, &'a RawValue)) -> Result<(), Error> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Error::NotAnObject {
                found: Kind::of(raw),
            },
            Err(source) => Error::Syntax { source },
        });
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    reader
        .deserialize_map(Members(visit))
        .and_then(|()| reader.end())
        .map_err(|source| Error::Syntax { source })
}

/// Calls `visit` for each item of the array `raw`, in order. `None` if `raw` is not an array.
pub fn items<'a>(raw: &'a RawValue, visit: impl FnMut(&'a RawValue)) -> Option<()> {
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    reader.deserialize_seq(Items(visit)).ok()
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        let mut key = String::new();
        while map.next_key_seed(Key(&mut key))?.is_some() {
            (self.0)(&key, map.next_value()?);
        }
        Ok(())
    }
}

/// Read as bytes: `serde_json` rejects an unpaired surrogate in a string.
struct Key<'k>(&'k mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        self.0.clear();
        if bytes.len() <= LONGEST_KEY {
            self.0.push_str(str::from_utf8(bytes).unwrap_or_default());
        }
        Ok(())
    }
}

struct Items<F>(F);

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Items<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(mut self, mut items: S) -> Result<(), S::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

/// The deepest nesting of arrays and objects. Brackets in strings do not count.
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
    fn last_of_repeated_keys_counts() {
        let object = Object::parse(br#"{"a":1,"A":2,"a":3,"n":null}"#).unwrap();
        assert_eq!(object.get("a").unwrap().get(), "3");
        assert_eq!(object.get("A").unwrap().get(), "2");
        assert_eq!(object.get_any_case("A").unwrap().get(), "3");
        assert!(object.get("n").is_none());
        assert_eq!(object.get_nullable("n").unwrap().get(), "null");
    }

    #[test]
    fn json_is_compared_by_value() {
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
    fn members_are_visited_as_written() {
        let text =
            r#" { "a" : 1.50e3, "\u0062":[ 12345678901234567890 ],"\ud800":"\ud800", "":{ } } "#;
        let mut visited = Vec::new();
        members(text, |key, value| {
            assert_eq!(&text[span(text, value.get())], value.get());
            visited.push((key.to_owned(), value.get()));
        })
        .unwrap();
        let expected = [
            ("a", "1.50e3"),
            ("b", "[ 12345678901234567890 ]"),
            ("", r#""\ud800""#),
            ("", "{ }"),
        ];
        assert_eq!(
            visited,
            expected.map(|(key, value)| (key.to_owned(), value))
        );
    }

    #[test]
    fn members_before_a_syntax_error_are_visited() {
        let mut keys = Vec::new();
        let result = members(r#"{"a":1,"b":[],"c":tru"#, |key, _| {
            keys.push(key.to_owned());
        });
        assert!(matches!(result, Err(Error::Syntax { .. })));
        assert_eq!(keys, ["a", "b"]);
    }

    #[test]
    fn error_says_what_was_found_instead_of_an_object() {
        for (bytes, text) in [
            (&b""[..], "empty"),
            (b" \n", "empty"),
            (
                b"\xef\xbb\xbf{}",
                "UTF-8 with a byte order mark, expected UTF-8",
            ),
            (b"\xff\xfe{\0}\0", "UTF-16, expected UTF-8"),
            (b"\xfe\xff\0{\0}", "UTF-16, expected UTF-8"),
            (b"{\0}\0", "UTF-16, expected UTF-8"),
            (b"\0{\0}", "UTF-16, expected UTF-8"),
            (b"{\"a\":\"\xff\"}", "not UTF-8"),
            (b" [{}]", "an array, not an object"),
            (b"null", "null, not an object"),
            (b"\"sesame\"", "a string, not an object"),
            (b"true", "a boolean, not an object"),
            (b"-1", "a number, not an object"),
            (b"nothing", "not valid JSON"),
            (b"{", "not valid JSON"),
            (b"{} {}", "not valid JSON"),
            (b"{\"a\":01}", "not valid JSON"),
            (b"{\"a\":1,}", "not valid JSON"),
            (b"{\"a\":\"\t\"}", "not valid JSON"),
            (b"{a:1}", "not valid JSON"),
        ] {
            let error = Object::parse(bytes).unwrap_err().to_string();
            assert!(error.starts_with(text), "{bytes:?}: {error}");
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

    #[test]
    fn members_are_bounded() {
        let object = |members: usize| format!("{{{}}}", vec!["\"a\":0"; members].join(","));
        assert!(Object::parse(object(1024).as_bytes()).is_ok());
        assert!(matches!(
            Object::parse(object(1025).as_bytes()),
            Err(Error::TooManyMembers)
        ));
    }

    #[test]
    fn string_escapes_are_decoded() {
        let decode = |json: &str| {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            string(raw).map(Cow::into_owned)
        };
        assert_eq!(decode(r#""plain ä""#).as_deref(), Some("plain ä"));
        assert_eq!(
            decode(r#""\u0061\n\ud83d\ude00""#).as_deref(),
            Some("a\n😀")
        );
        assert_eq!(decode(r#""\ud83d""#), None);
        assert_eq!(decode("7"), None);
    }
}
