//! The options of a redirect, each defined once: its names, its default and its parser.
//! The network configuration, the annotations of pods and the flags of `msm-iptables` are
//! read through this table; where the values come from is up to the caller. Pure.

use std::str::FromStr;

use super::policy::ParseError;
use super::rules::Redirect;
use crate::names;

/// Maximum number of entries in a list. Each becomes a rule, and all rules are written in one
/// transaction that has to fit a netlink socket's buffer.
pub const LIST_LIMIT: usize = 64;

/// One option of a redirect.
pub struct Parameter {
    /// Key in the object `redirect` of the network configuration.
    pub key: &'static str,
    /// Pod annotation, with its prefix.
    pub annotation: &'static str,
    /// Flag of `msm-iptables`, without dashes.
    pub flag: &'static str,
    pub short_flag: Option<char>,
    /// Placeholder of the value in help texts.
    pub value_name: &'static str,
    /// In the syntax of the flag's value; `None` is an empty list.
    pub default: Option<&'static str>,
    pub help: &'static str,
    pub setter: Setter,
}

/// The type of an option's value, and the function that parses and stores it.
#[derive(Clone, Copy)]
pub enum Setter {
    /// A JSON number or string.
    Number(fn(&mut Redirect, &str) -> Result<(), ParseError>),
    /// A JSON string.
    Keyword(fn(&mut Redirect, &str) -> Result<(), ParseError>),
    /// A JSON array of numbers or strings. Replaces the list, without duplicates.
    List(fn(&mut Redirect, &[&str]) -> Result<(), ParseError>),
}

pub static PARAMETERS: [Parameter; 6] = [
    Parameter {
        key: "ports",
        annotation: names::PORTS_ANNOTATION,
        flag: "redirect-ports",
        short_flag: None,
        value_name: "PORTS",
        default: Some("554"),
        help: "Redirect outgoing TCP connections to these ports, separated by commas",
        setter: Setter::List(|redirect, items| {
            if items.is_empty() {
                return Err(ParseError::NoPort);
            }
            redirect.ports = list(items)?;
            Ok(())
        }),
    },
    Parameter {
        key: "proxyPort",
        annotation: names::PROXY_PORT_ANNOTATION,
        flag: "msm-proxy-port",
        short_flag: Some('p'),
        value_name: "PORT",
        default: Some("8554"),
        help: "TCP port that the stub listens on",
        setter: Setter::Number(|redirect, text| {
            redirect.proxy_port = text.parse()?;
            Ok(())
        }),
    },
    Parameter {
        key: "proxyUID",
        annotation: names::PROXY_UID_ANNOTATION,
        flag: "proxy-uid",
        short_flag: Some('u'),
        value_name: "UID",
        default: Some("1337"),
        help: "User ID of the stub, whose connections are not redirected",
        setter: Setter::Number(|redirect, text| {
            redirect.proxy_uid = text.parse()?;
            Ok(())
        }),
    },
    Parameter {
        key: "excludeCIDRs",
        annotation: names::EXCLUDE_CIDRS_ANNOTATION,
        flag: "redir-dest-addr",
        short_flag: Some('d'),
        value_name: "CIDR",
        default: Some("127.0.0.0/8"),
        help: "Do not redirect connections to these addresses, separated by commas",
        setter: Setter::List(|redirect, items| {
            redirect.exclude_cidrs = list(items)?;
            Ok(())
        }),
    },
    Parameter {
        key: "ipv6",
        annotation: names::IPV6_ANNOTATION,
        flag: "ipv6",
        short_flag: None,
        value_name: "MODE",
        default: Some("bypass"),
        help: "What happens to IPv6 connections to the ports: bypass, redirect or reject",
        setter: Setter::Keyword(|redirect, text| {
            redirect.ipv6 = text.parse()?;
            Ok(())
        }),
    },
    Parameter {
        key: "inboundPorts",
        annotation: names::INBOUND_PORTS_ANNOTATION,
        flag: "inbound-ports",
        short_flag: None,
        value_name: "PORTS",
        default: None,
        help: "Redirect incoming TCP connections to these ports, separated by commas",
        setter: Setter::List(|redirect, items| {
            redirect.inbound_ports = list(items)?;
            Ok(())
        }),
    },
];

impl Parameter {
    /// Sets the option from the value of an annotation or a flag. Items of a list are separated
    /// by commas and trimmed; an empty text is an empty list.
    pub fn set(&self, redirect: &mut Redirect, text: &str) -> Result<(), ParseError> {
        let text = text.trim();
        match self.setter {
            Setter::Number(set) | Setter::Keyword(set) => set(redirect, text),
            Setter::List(set) if text.is_empty() => set(redirect, &[]),
            Setter::List(set) => {
                let items: Vec<&str> = text.split(',').map(str::trim).collect();
                set(redirect, &items)
            }
        }
    }
}

/// Parses a list. Only distinct items count towards the limit.
fn list<T>(items: &[&str]) -> Result<Vec<T>, ParseError>
where
    T: FromStr<Err = ParseError> + PartialEq,
{
    let mut list = Vec::new();
    for item in items {
        let item = item.parse()?;
        if list.contains(&item) {
            continue;
        }
        if list.len() >= LIST_LIMIT {
            return Err(ParseError::TooManyItems { limit: LIST_LIMIT });
        }
        list.push(item);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_redirect() {
        let mut redirect = Redirect::default();
        for parameter in &PARAMETERS {
            let text = parameter.default.unwrap_or_default();
            parameter.set(&mut redirect, text).unwrap();
            assert_eq!(redirect, Redirect::default(), "{}", parameter.key);
        }
    }

    #[test]
    fn lists_are_limited_and_without_duplicates() {
        let ports = |last: u16| {
            let items: Vec<String> = (1..=last).map(|port| port.to_string()).collect();
            items.join(",")
        };
        let mut redirect = Redirect::default();
        for parameter in PARAMETERS.iter().filter(|it| it.value_name == "PORTS") {
            parameter.set(&mut redirect, &ports(64)).unwrap();
            let repeated = format!("{}, 1 ,064", ports(64));
            parameter.set(&mut redirect, &repeated).unwrap();
            let error = parameter.set(&mut redirect, &ports(65));
            assert_eq!(error, Err(ParseError::TooManyItems { limit: 64 }));
        }
        assert_eq!(redirect.ports.len(), 64);
        assert_eq!(redirect.inbound_ports, redirect.ports);
    }

    #[test]
    fn every_annotation_is_kept_by_the_pod_lookup() {
        for parameter in &PARAMETERS {
            assert!(
                names::POD_METADATA_KEYS.contains(&parameter.annotation),
                "{}",
                parameter.annotation
            );
        }
    }
}
