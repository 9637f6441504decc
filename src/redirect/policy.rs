//! The values of a redirect: ports, user IDs, address ranges, modes. A value of these types
//! is valid: it can only be created by parsing or by a checked constructor. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::text::excerpt;

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// Why a value is invalid. Quotes at most an excerpt of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{text:?} is not a TCP port from 1 to 65535")]
    Port { text: String },
    #[error("{text:?} is not a user ID from 0 to 4294967294")]
    Uid { text: String },
    #[error("{text:?} is not an IPv4 or IPv6 address range such as 10.0.0.0/8")]
    Cidr { text: String },
    #[error("{text:?} is not one of bypass, redirect, reject")]
    Ipv6Mode { text: String },
    #[error("{text:?} is not one of auto, nftables, iptables")]
    Backend { text: String },
    #[error("at least one port is required")]
    NoPort,
    #[error("more than {limit} different values")]
    TooManyItems { limit: usize },
}

impl Port {
    /// `None` for 0.
    pub const fn new(port: u16) -> Option<Self> {
        match NonZeroU16::new(port) {
            Some(port) => Some(Self(port)),
            None => None,
        }
    }

    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for Port {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        digits(text)
            .and_then(|digits| digits.parse().ok())
            .and_then(Self::new)
            .ok_or_else(|| ParseError::Port {
                text: excerpt(text),
            })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user ID in the pod's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uid(u32);

impl Uid {
    /// `None` for 4294967295, which the kernel reserves for "no user".
    pub const fn new(uid: u32) -> Option<Self> {
        if uid == u32::MAX {
            None
        } else {
            Some(Self(uid))
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for Uid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        digits(text)
            .and_then(|digits| digits.parse().ok())
            .and_then(Self::new)
            .ok_or_else(|| ParseError::Uid {
                text: excerpt(text),
            })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `None` for anything but digits: Rust's integer parser accepts a leading `+`.
fn digits(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

/// An address range. Host bits are cleared, and an address without a prefix length is a
/// range of one, as for `iptables -d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Connections inside the pod are not meant for the stub.
    pub const LOOPBACK: Self = Self {
        network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
        prefix: 8,
    };
    /// `::1/128`.
    pub const LOOPBACK6: Self = Self {
        network: IpAddr::V6(Ipv6Addr::LOCALHOST),
        prefix: 128,
    };

    /// The range of `address` and a prefix length in bits; `None` if that is too long.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let network = match address {
            IpAddr::V4(_) if prefix > 32 => return None,
            IpAddr::V6(_) if prefix > 128 => return None,
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        };
        Some(Self { network, prefix })
    }

    pub const fn network(&self) -> IpAddr {
        self.network
    }

    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The network's address in network byte order.
    pub fn octets(&self) -> Vec<u8> {
        match self.network {
            IpAddr::V4(address) => address.octets().into(),
            IpAddr::V6(address) => address.octets().into(),
        }
    }

    /// The netmask in network byte order.
    pub fn mask_octets(&self) -> Vec<u8> {
        let ones = match self.network {
            IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
        };
        Self::new(ones, self.prefix).map_or_else(Vec::new, |mask| mask.octets())
    }

    /// The range of an address and its netmask, both in network byte order.
    pub fn from_octets(address: &[u8], mask: &[u8]) -> Option<Self> {
        let prefix = mask
            .iter()
            .map(|byte| byte.count_ones())
            .sum::<u32>()
            .try_into()
            .ok()?;
        let address = match address.len() {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            _ => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        };
        Self::new(address, prefix)
    }

    /// Whether the range is a single address.
    pub const fn is_host(&self) -> bool {
        self.prefix
            == match self.network {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            }
    }

    pub const fn family(&self) -> Family {
        match self.network {
            IpAddr::V4(_) => Family::Ipv4,
            IpAddr::V6(_) => Family::Ipv6,
        }
    }
}

impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parse = || {
            let (address, prefix) = match text.split_once('/') {
                Some((address, prefix)) => (address, Some(digits(prefix)?.parse().ok()?)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let host = if address.is_ipv4() { 32 } else { 128 };
            Self::new(address, prefix.unwrap_or(host))
        };
        parse().ok_or_else(|| ParseError::Cidr {
            text: excerpt(text),
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];
}

/// The treatment of IPv6 connections that `ports` and `inboundPorts` select.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipv6Mode {
    /// Not redirected.
    #[default]
    Bypass,
    /// Redirected, as IPv4 connections are.
    Redirect,
    /// Rejected with a TCP reset, so that none bypasses the stub.
    Reject,
}

impl FromStr for Ipv6Mode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "bypass" => Ok(Self::Bypass),
            "redirect" => Ok(Self::Redirect),
            "reject" => Ok(Self::Reject),
            _ => Err(ParseError::Ipv6Mode {
                text: excerpt(text),
            }),
        }
    }
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// nftables if the kernel supports it in the network namespace, otherwise iptables.
    #[default]
    Auto,
    Nftables,
    Iptables,
}

impl FromStr for Backend {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "auto" => Ok(Self::Auto),
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            _ => Err(ParseError::Backend {
                text: excerpt(text),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_1_to_65535() {
        for (text, port) in [("1", 1), ("554", 554), ("65535", 65535), ("00554", 554)] {
            assert_eq!(text.parse::<Port>().map(Port::get), Ok(port), "{text}");
        }
        for text in [
            "", "0", "65536", "-1", "+1", " 1", "1 ", "0x1", "rtsp", "1,2",
        ] {
            assert!(text.parse::<Port>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn uid_4294967295_is_invalid() {
        assert_eq!("0".parse::<Uid>().map(Uid::get), Ok(0));
        assert_eq!("4294967294".parse::<Uid>().map(Uid::get), Ok(u32::MAX - 1));
        for text in ["4294967295", "-1", "", "root", "+5"] {
            assert!(text.parse::<Uid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn cidrs_are_normalised_as_by_iptables() {
        for (text, normal) in [
            ("127.0.0.0/8", "127.0.0.0/8"),
            ("127.0.0.1/8", "127.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.255/31", "10.0.0.254/31"),
            ("::1", "::1/128"),
            ("fd00:1::ffff/32", "fd00:1::/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), normal, "{text}");
        }
        for text in [
            "",
            "/8",
            "10/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "a",
            "10.0.0.0/8/8",
            " ::1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
