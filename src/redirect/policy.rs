//! What a redirect is made of: ports, user IDs, address ranges. Each type can only hold
//! what the kernel can act upon; parsing is the only way in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::str::FromStr;

/// Lists become rules of one transaction, which has to fit a netlink socket's buffer; a
/// longer one is a mistake.
pub const LONGEST_LIST: usize = 64;

/// Puts an item at the end of a list, unless it is there already.
pub fn add<T: PartialEq>(list: &mut Vec<T>, item: T) -> Result<(), ParseError> {
    if list.contains(&item) {
        return Ok(());
    }
    if list.len() >= LONGEST_LIST {
        return Err(ParseError::List);
    }
    list.push(item);
    Ok(())
}

/// A TCP port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the list is longer than {LONGEST_LIST}")]
    List,
    #[error("{text:?} is not a TCP port from 1 to 65535")]
    Port { text: String },
    #[error("{text:?} is not a user ID from 0 to 4294967294")]
    Uid { text: String },
    #[error("{text:?} is not an IPv4 or IPv6 address range such as 10.0.0.0/8")]
    Cidr { text: String },
    #[error("{text:?} is none of bypass, redirect and reject")]
    Ipv6Mode { text: String },
    #[error("{text:?} is none of auto, nftables and iptables")]
    Backend { text: String },
}

/// As much of a text as fits an error message.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
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
            .ok_or_else(|| ParseError::Port { text: shown(text) })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user ID as the pod's own user namespace counts it.
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
            .ok_or_else(|| ParseError::Uid { text: shown(text) })
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Rust's integer parser takes a leading `+`; ports and user IDs have none.
fn digits(text: &str) -> Option<&str> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(text)
}

/// An address range. Bits behind the prefix are zero, a bare address is a range of one,
/// both as `iptables -d` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// What an application says to itself is not for the stub.
    pub const LOOPBACK: Self = Self {
        network: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)),
        prefix: 8,
    };
    /// The same over IPv6.
    pub const LOOPBACK6: Self = Self {
        network: IpAddr::V6(Ipv6Addr::LOCALHOST),
        prefix: 128,
    };

    /// The range `network/prefix`, host bits cleared; `None` when the prefix is too long.
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

    /// The network's address in network order.
    pub fn octets(&self) -> Vec<u8> {
        match self.network {
            IpAddr::V4(address) => address.octets().into(),
            IpAddr::V6(address) => address.octets().into(),
        }
    }

    /// The netmask in network order.
    pub fn mask_octets(&self) -> Vec<u8> {
        let ones = match self.network {
            IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(u128::MAX).into(),
        };
        Self::new(ones, self.prefix).map_or_else(Vec::new, |mask| mask.octets())
    }

    /// The range of an address and its netmask, both in network order.
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

    /// Whether the range is one address.
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
        parse().ok_or_else(|| ParseError::Cidr { text: shown(text) })
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

/// What happens to connections over IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ipv6Mode {
    /// They are left alone.
    #[default]
    Bypass,
    /// They are redirected as those over IPv4 are.
    Redirect,
    /// Those that would have to be redirected are refused, so that nothing escapes.
    Reject,
}

impl FromStr for Ipv6Mode {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "bypass" => Ok(Self::Bypass),
            "redirect" => Ok(Self::Redirect),
            "reject" => Ok(Self::Reject),
            _ => Err(ParseError::Ipv6Mode { text: shown(text) }),
        }
    }
}

/// By what means rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// nftables where the kernel offers it in that namespace, else iptables.
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
            _ => Err(ParseError::Backend { text: shown(text) }),
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
    fn uids_exclude_the_kernels_no_user() {
        assert_eq!("0".parse::<Uid>().map(Uid::get), Ok(0));
        assert_eq!("4294967294".parse::<Uid>().map(Uid::get), Ok(u32::MAX - 1));
        for text in ["4294967295", "-1", "", "root", "+5"] {
            assert!(text.parse::<Uid>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn cidrs_are_normalised_as_iptables_does() {
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
