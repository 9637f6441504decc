//! The address of a server: parsed from a setting, shown in messages, and listened on.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// All IPv6 and IPv4 addresses, or all IPv4 addresses on a node without IPv6.
    Any {
        port: u16,
    },
    At(SocketAddr),
}

impl Address {
    /// Parses `PORT`, `:PORT`, `IPV4:PORT` or `[IPV6]:PORT`. The error is the reason for a message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
            return Ok(Self::Any { port });
        }
        let address: Option<SocketAddr> = text.parse().ok();
        match address.filter(|address| address.port() > 0) {
            Some(address) if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                let port = address.port();
                Ok(Self::Any { port })
            }
            Some(address) => Ok(Self::At(address)),
            None => Err("expected PORT, :PORT, IPV4:PORT or [IPV6]:PORT".into()),
        }
    }

    /// Listens on the first candidate that the node has.
    pub fn listen(self) -> io::Result<TcpListener> {
        let mut outcome = Err(io::Error::from(ErrorKind::AddrNotAvailable));
        for candidate in self.candidates() {
            outcome = listener(candidate);
            if !outcome.as_ref().is_err_and(is_missing_family) {
                break;
            }
        }
        outcome
    }

    /// In order of preference.
    fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Any { port } => vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ],
            Self::At(address) => vec![address],
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, "port {port} on all addresses"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Whether the node has no addresses of that family, as opposed to a port in use.
fn is_missing_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// An IPv6 socket accepts IPv4 too, regardless of the node's default (`net.ipv6.bindv6only`).
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let fd = socket(
        family,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    // Limited by `net.core.somaxconn`.
    listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(fd.into())
}
