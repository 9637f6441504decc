//! Checks the previous plugin's result against the format of its CNI version. Pure. Never
//! stricter than libcni's decoder, which reads the result afterwards: `null` counts as absent,
//! unknown and missing keys are allowed, and an empty gateway is no gateway.

use std::fmt;
use std::net::IpAddr;

use serde_json::value::RawValue;

use super::version::Version;
use crate::json::{self, Kind};
use crate::text::excerpt;

/// The expected type of a value.
enum Shape {
    String,
    /// An IP address, or an empty string.
    Address,
    /// An address with a prefix length.
    Prefix,
    /// A Go `int`.
    Integer,
    Array(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

const RESULT_0_1: Shape = Shape::Object(&[
    ("cniVersion", Shape::String),
    ("ip4", IP_0_1),
    ("ip6", IP_0_1),
    ("dns", DNS),
]);
const RESULT_0_3: Shape = Shape::Object(&[
    ("cniVersion", Shape::String),
    ("interfaces", Shape::Array(&INTERFACE)),
    ("ips", Shape::Array(&IP_0_3)),
    ("routes", Shape::Array(&ROUTE)),
    ("dns", DNS),
]);
const RESULT_1_0: Shape = Shape::Object(&[
    ("cniVersion", Shape::String),
    ("interfaces", Shape::Array(&INTERFACE)),
    ("ips", Shape::Array(&IP_1_0)),
    ("routes", Shape::Array(&ROUTE)),
    ("dns", DNS),
]);
const RESULT_1_1: Shape = Shape::Object(&[
    ("cniVersion", Shape::String),
    ("interfaces", Shape::Array(&INTERFACE_1_1)),
    ("ips", Shape::Array(&IP_1_0)),
    ("routes", Shape::Array(&ROUTE_1_1)),
    ("dns", DNS),
]);
const IP_0_1: Shape = Shape::Object(&[
    ("ip", Shape::Prefix),
    ("gateway", Shape::Address),
    ("routes", Shape::Array(&ROUTE)),
]);
const IP_0_3: Shape = Shape::Object(&[
    ("version", Shape::String),
    ("interface", Shape::Integer),
    ("address", Shape::Prefix),
    ("gateway", Shape::Address),
]);
const IP_1_0: Shape = Shape::Object(&[
    ("interface", Shape::Integer),
    ("address", Shape::Prefix),
    ("gateway", Shape::Address),
]);
const INTERFACE: Shape = Shape::Object(&[
    ("name", Shape::String),
    ("mac", Shape::String),
    ("sandbox", Shape::String),
]);
const INTERFACE_1_1: Shape = Shape::Object(&[
    ("name", Shape::String),
    ("mac", Shape::String),
    ("mtu", Shape::Integer),
    ("sandbox", Shape::String),
    ("socketPath", Shape::String),
    ("pciID", Shape::String),
]);
const ROUTE: Shape = Shape::Object(&[("dst", Shape::Prefix), ("gw", Shape::Address)]);
const ROUTE_1_1: Shape = Shape::Object(&[
    ("dst", Shape::Prefix),
    ("gw", Shape::Address),
    ("mtu", Shape::Integer),
    ("advmss", Shape::Integer),
    ("priority", Shape::Integer),
    ("table", Shape::Integer),
    ("scope", Shape::Integer),
]);
const DNS: Shape = Shape::Object(&[
    ("nameservers", Shape::Array(&Shape::String)),
    ("domain", Shape::String),
    ("search", Shape::Array(&Shape::String)),
    ("options", Shape::Array(&Shape::String)),
]);
/// In bytes. Longer than an address whose characters are all written as escapes.
const LONGEST_ADDRESS: usize = 512;

/// The first value of the wrong type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is {actual}, not {expected}")]
pub struct Violation {
    path: String,
    actual: String,
    expected: &'static str,
}

/// Checks a previous result against the format of `version`.
pub fn check(raw: &RawValue, version: Version) -> Result<(), Violation> {
    let shape = match version {
        version if version < Version::WITH_CHAINING => &RESULT_0_1,
        version if version < Version::V1 => &RESULT_0_3,
        version if version < Version::WITH_GC_AND_STATUS => &RESULT_1_0,
        _ => &RESULT_1_1,
    };
    shape.check(raw, &Path::Result)
}

impl Shape {
    fn check(&self, raw: &RawValue, path: &Path) -> Result<(), Violation> {
        if Kind::of(raw) == Kind::Null || self.matches(raw, path)? {
            return Ok(());
        }
        Err(Violation {
            path: path.to_string(),
            actual: describe(raw),
            expected: self.name(),
        })
    }

    /// Whether the value itself has this type. An item or member of the wrong type is an error.
    fn matches(&self, raw: &RawValue, path: &Path) -> Result<bool, Violation> {
        let mut inner = Ok(());
        let matches = match self {
            Self::String => Kind::of(raw) == Kind::String,
            Self::Address => is_string(raw, |text| {
                text.is_empty() || text.parse::<IpAddr>().is_ok()
            }),
            Self::Prefix => is_string(raw, is_prefix),
            Self::Integer => raw.get().parse::<i64>().is_ok(),
            Self::Array(shape) => {
                let mut index = 0..;
                json::items(raw, |item| {
                    let path = Path::Item(path, index.next().unwrap_or(usize::MAX));
                    if inner.is_ok() {
                        inner = shape.check(item, &path);
                    }
                })
                .is_some()
            }
            Self::Object(fields) => json::members(raw.get(), |key, value| {
                let field = fields.iter().find(|(name, _)| *name == key);
                if let (true, Some((name, shape))) = (inner.is_ok(), field) {
                    inner = shape.check(value, &Path::Member(path, name));
                }
            })
            .is_ok(),
        };
        inner.map(|()| matches)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Address => "an IP address",
            Self::Prefix => "an IP address with a prefix length",
            Self::Integer => "an integer",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

fn is_string(raw: &RawValue, is_valid: impl Fn(&str) -> bool) -> bool {
    raw.get().len() <= LONGEST_ADDRESS && json::string(raw).is_some_and(|text| is_valid(&text))
}

fn is_prefix(text: &str) -> bool {
    let parse = || {
        let (address, length) = text.split_once('/')?;
        let longest = match address.parse().ok()? {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let digits = length.bytes().all(|byte| byte.is_ascii_digit());
        Some(digits && length.parse::<u8>().ok()? <= longest)
    };
    parse().unwrap_or_default()
}

/// An excerpt of a scalar, and only the type of an array or object, which may be large or
/// contain a secret.
fn describe(raw: &RawValue) -> String {
    match (Kind::of(raw), raw.get()) {
        (Kind::String, text) => format!(
            "{:?}",
            excerpt(text.get(1..text.len() - 1).unwrap_or_default())
        ),
        (Kind::Number | Kind::Boolean, text) => excerpt(text),
        (kind, _) => kind.name().to_owned(),
    }
}

/// The path of a value within the result.
enum Path<'p> {
    Result,
    Member(&'p Path<'p>, &'static str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Result => f.write_str("prevResult"),
            Self::Member(parent, key) => write!(f, "{parent}.{key}"),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(version: &str, result: &str) -> Option<String> {
        let raw: &RawValue = serde_json::from_str(result).unwrap();
        let error = check(raw, Version::parse(version).unwrap()).err()?;
        Some(error.to_string())
    }

    #[test]
    fn everything_that_libcni_accepts_is_accepted() {
        for (versions, result) in [
            (
                &["0.1.0", "0.2.0"][..],
                r#"{"ip4":{"ip":"10.0.0.2/24","gateway":"10.0.0.1","routes":[{"dst":"0.0.0.0/0","gw":""},{}]},
                    "ip6":{"ip":"fd00::2/064","gateway":"","routes":null},"ips":"unknown here","dns":null}"#,
            ),
            (
                &["0.3.0", "0.3.1", "0.4.0"],
                r#"{"interfaces":[{"name":"eth0","mac":null,"sandbox":"/run/netns/a","mtu":"unknown here"},null],
                    "ips":[{"version":"4","interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"interface":null},
                           {"version":"6","interface":99,"address":"::ffff:10.0.0.2/128","gateway":""}],
                    "routes":[{"dst":"::/0","gw":"fe80::1","mtu":"unknown here"}],
                    "dns":{"nameservers":["not checked",null],"domain":"a","search":[],"options":[]},"ip4":7,"X":{}}"#,
            ),
            (
                &["1.0.0"],
                r#"{"ips":[{"version":7,"address":"10.0.0.2/24"}],"interfaces":[{"mtu":"unknown here"}],"routes":[{"table":[]}]}"#,
            ),
            (
                &["1.1.0"],
                r#"{"interfaces":[{"name":"eth0","mtu":1500,"socketPath":"/s","pciID":"0000:00:1f.6"}],
                    "routes":[{"dst":"10.0.0.0/8","mtu":-1,"advmss":0,"priority":9223372036854775807,"table":null,"scope":253}]}"#,
            ),
            (&["0.1.0", "0.4.0", "1.0.0", "1.1.0"], "{}"),
            (
                &["1.0.0"],
                r#"{"ips":[{"interface":-0}],"IPS":7,"cniVersion":"\ud800"}"#,
            ),
        ] {
            for version in versions {
                assert_eq!(violation(version, result), None, "{version}: {result}");
            }
        }
    }

    #[test]
    fn violation_names_path_and_value() {
        for (version, result, sentence) in [
            ("1.0.0", "[]", "prevResult is an array, not an object"),
            (
                "1.0.0",
                r#"{"cniVersion":7}"#,
                "prevResult.cniVersion is 7, not a string",
            ),
            (
                "1.0.0",
                r#"{"ips":[{},{"address":"10.0.0.300/24"}]}"#,
                r#"prevResult.ips[1].address is "10.0.0.300/24", not an IP address with a prefix length"#,
            ),
            (
                "1.1.0",
                r#"{"ips":[{"gateway":"10.0.0"}]}"#,
                r#"prevResult.ips[0].gateway is "10.0.0", not an IP address"#,
            ),
            (
                "0.4.0",
                r#"{"ips":{}}"#,
                "prevResult.ips is an object, not an array",
            ),
            (
                "0.4.0",
                r#"{"ips":[{"version":4}]}"#,
                "prevResult.ips[0].version is 4, not a string",
            ),
            (
                "0.3.1",
                r#"{"interfaces":["eth0"]}"#,
                r#"prevResult.interfaces[0] is "eth0", not an object"#,
            ),
            (
                "0.3.1",
                r#"{"dns":{"search":["a",true]}}"#,
                "prevResult.dns.search[1] is true, not a string",
            ),
            (
                "0.2.0",
                r#"{"ip6":{"routes":[{"dst":"::/0"},{"gw":1e400}]}}"#,
                "prevResult.ip6.routes[1].gw is 1e400, not an IP address",
            ),
            (
                "1.1.0",
                r#"{"routes":[{"mtu":"1500"}]}"#,
                r#"prevResult.routes[0].mtu is "1500", not an integer"#,
            ),
        ] {
            let error = violation(version, result).unwrap_or_default();
            assert!(error.starts_with(sentence), "{result}: {error}");
        }
    }

    #[test]
    fn interface_index_must_be_an_integer() {
        for index in [
            "1.0",
            "1e0",
            "\"0\"",
            "9223372036854775808",
            "[0]",
            "{}",
            "true",
            "0.5",
        ] {
            let result = format!(r#"{{"ips":[{{"interface":{index}}}]}}"#);
            assert!(violation("0.4.0", &result).is_some(), "{index}");
        }
    }

    #[test]
    fn addresses_are_parsed_as_by_libcni() {
        for text in [
            "",
            "10.0.0.2",
            "10.0.0.2/",
            "10.0.0.2/33",
            "10.0.0.2/+8",
            "10.0.0.2/-1",
            "10.0.0.2/8/8",
            "10.0.0.02/8",
            "fe80::1%eth0/64",
            "::/129",
            " ::/0",
            "/24",
            "1:2:3:4::5:6:7:8/64",
        ] {
            assert!(!is_prefix(text), "{text:?}");
        }
        for text in [
            "10.0.0.2/0",
            "10.0.0.2/32",
            "10.0.0.2/024",
            "::/128",
            "1:2:3:4:5:6:7::/64",
            "::10.0.0.1/96",
        ] {
            assert!(is_prefix(text), "{text:?}");
        }
        for (gateway, is_valid) in [
            ("10.0.0.1", true),
            ("", true),
            ("10.0.0.1/24", false),
            ("fe80::1%eth0", false),
        ] {
            let result = format!(r#"{{"ips":[{{"gateway":"{gateway}"}}]}}"#);
            assert_eq!(
                violation("1.0.0", &result).is_none(),
                is_valid,
                "{gateway:?}"
            );
        }
    }

    #[test]
    fn violation_quotes_only_short_printable_scalars() {
        let long = "x".repeat(1 << 20);
        let error = violation("1.0.0", &format!(r#"{{"ips":[{{"address":"{long}"}}]}}"#));
        assert!(error.unwrap().len() < 300);
        let error = violation("1.0.0", r#"{"ips":[{"address":{"token":"sesame"}}]}"#).unwrap();
        assert!(!error.contains("sesame"), "{error}");
        let error = violation("1.0.0", "{\"ips\":[{\"address\":\"\u{7f}\u{85}\"}]}").unwrap();
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}
