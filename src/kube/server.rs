//! The address of an API server, parsed from a URL: https only, without user name, query or
//! fragment, so that a request always goes to the server that the URL seems to name. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rustls::pki_types::DnsName;

/// `https://HOST[:PORT][/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub host: Host,
    /// 443 by default.
    pub port: u16,
    /// The path below which the API is served: empty, or with a leading slash and without a
    /// trailing one.
    pub prefix: String,
}

/// The host in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Address(IpAddr),
    /// A DNS name in lower case.
    Name(String),
}

/// Why a URL cannot be used. The URL is not quoted, because it may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServer {
    /// Plain HTTP would disclose the token.
    #[error("URL must begin with https://")]
    NotHttps,
    /// `user:password@`.
    #[error("URL contains a user name, which is not supported")]
    UserInfo,
    #[error("URL contains a query or a fragment")]
    Query,
    #[error("host is neither an IPv4 address, an IPv6 address in brackets nor a DNS name")]
    Host,
    #[error("port is not a number from 1 to 65535")]
    Port,
    #[error("path contains characters that are not allowed in a URL")]
    Path,
}

impl Server {
    /// Parses a URL. Accepts IPv4 addresses in brackets: the earlier Go installer wrote them.
    pub fn parse(url: &str) -> Result<Self, InvalidServer> {
        let (scheme, rest) = url
            .trim()
            .split_once("://")
            .ok_or(InvalidServer::NotHttps)?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(InvalidServer::NotHttps);
        }
        if rest.contains(['?', '#']) {
            return Err(InvalidServer::Query);
        }
        let (authority, prefix) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(InvalidServer::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        if !prefix.bytes().all(is_path_byte) {
            return Err(InvalidServer::Path);
        }
        Ok(Self {
            host: Host::parse(host)?,
            port: match port {
                None | Some("") => 443,
                Some(port) => parse_port(port)?,
            },
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }

    /// Host and port as in a URL and in the header `Host`: without the default port.
    pub fn authority(&self) -> String {
        match self.port {
            443 => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.prefix)
    }
}

impl Host {
    /// Parses an address, with or without brackets, or a DNS name.
    pub fn parse(text: &str) -> Result<Self, InvalidServer> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse() {
            return Ok(Self::Address(address));
        }
        // A name whose last label is numeric is a mistyped address (RFC 1123, section 2.1).
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or(name);
        if DnsName::try_from(name).is_err() || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidServer::Host);
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), InvalidServer> {
    if let Some(end) = authority.find(']') {
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(InvalidServer::Host),
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(InvalidServer::Host);
    }
    Ok(match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn parse_port(text: &str) -> Result<u16, InvalidServer> {
    match text.parse() {
        Ok(0) | Err(_) => Err(InvalidServer::Port),
        Ok(port) => Ok(port),
    }
}

/// RFC 3986, section 3.3.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_urls_are_normalized() {
        let table = [
            ("https://10.96.0.1:443", "https://10.96.0.1"),
            ("https://[10.96.0.1]:443", "https://10.96.0.1"),
            ("https://[10.96.0.1]:6443/", "https://10.96.0.1:6443"),
            ("https://[fd00::1]", "https://[fd00::1]"),
            ("https://[::1]:6443", "https://[::1]:6443"),
            ("HTTPS://API.example.com", "https://api.example.com"),
            (
                "https://api.example.com.:6443",
                "https://api.example.com:6443",
            ),
            ("https://localhost:", "https://localhost"),
            (
                "https://rancher.example/k8s/clusters/c-1/",
                "https://rancher.example/k8s/clusters/c-1",
            ),
            (" https://10.0.0.1:6443\n", "https://10.0.0.1:6443"),
        ];
        for (url, normalized) in table {
            let server = Server::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(server.to_string(), normalized, "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        let table = [
            ("", InvalidServer::NotHttps),
            ("10.0.0.1:6443", InvalidServer::NotHttps),
            ("http://10.0.0.1", InvalidServer::NotHttps),
            ("https://", InvalidServer::Host),
            ("https://:443", InvalidServer::Host),
            ("https://::1", InvalidServer::Host),
            ("https://fd00::1:6443", InvalidServer::Host),
            ("https://[::1", InvalidServer::Host),
            ("https://[::1]6443", InvalidServer::Host),
            ("https://[fe80::1%25eth0]", InvalidServer::Host),
            ("https://[example.com]", InvalidServer::Host),
            ("https://10.0.0.256", InvalidServer::Host),
            ("https://exa mple.com", InvalidServer::Host),
            ("https://user:pass@10.0.0.1", InvalidServer::UserInfo),
            ("https://10.0.0.1:0", InvalidServer::Port),
            ("https://10.0.0.1:65536", InvalidServer::Port),
            ("https://10.0.0.1:https", InvalidServer::Port),
            ("https://10.0.0.1/?a=b", InvalidServer::Query),
            ("https://10.0.0.1/#x", InvalidServer::Query),
            ("https://10.0.0.1/a b", InvalidServer::Path),
            ("https://10.0.0.1/a\r\nb", InvalidServer::Path),
        ];
        for (url, reason) in table {
            assert_eq!(Server::parse(url), Err(reason), "{url}");
        }
    }
}
