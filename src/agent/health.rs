//! `/healthz` and `/readyz`: an HTTP server inside the loop, so that an answer means that
//! the loop turns. Never blocks; slow clients wait in a few places, the oldest goes first.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Request, Status};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use serde_json::json;

use crate::node::settings::HealthAddress;

/// Who may be in the middle of a request at the same time.
const PLACES: usize = 128;
/// In bytes; a probe has some 100.
const LARGEST_REQUEST: usize = 4096;
/// A client that has not asked its question by then is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections taken in one turn of the loop.
const TURN: usize = 64;
/// Before another try when no connection can be taken.
const PAUSE: Duration = Duration::from_secs(1);
/// Read in one go, and twice that of what comes behind a request.
const PORTION: usize = 1024;

/// Why health cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "serving health on {address}, which another process of this node has taken; choose another --health-address"
    )]
    Taken {
        address: HealthAddress,
        source: io::Error,
    },
    #[error(
        "serving health on {address}, which is no address of this node; choose another --health-address"
    )]
    NotOurs {
        address: HealthAddress,
        source: io::Error,
    },
    #[error("serving health on {address}; perhaps another --health-address is allowed")]
    Listen {
        address: HealthAddress,
        source: io::Error,
    },
}

impl Error {
    fn new(address: HealthAddress, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::Taken { address, source },
            ErrorKind::AddrNotAvailable => Self::NotOurs { address, source },
            _ => Self::Listen { address, source },
        }
    }
}

/// What `/readyz` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty: ready.
    pub reasons: Vec<String>,
    /// How often something of ours was mended after others had changed it.
    pub mended: u64,
}

/// The server.
pub struct Health {
    listener: TcpListener,
    clients: VecDeque<Client>,
    /// No connection is taken before.
    paused_until: Option<Instant>,
    /// Why the last one could not be taken.
    trouble: Option<ErrorKind>,
    pub readiness: Readiness,
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    deadline: Instant,
}

impl Health {
    pub fn serve_on(address: HealthAddress) -> Result<Self, Error> {
        let mut outcome = Err(io::Error::from(ErrorKind::AddrNotAvailable));
        for candidate in address.candidates() {
            outcome = listener(candidate);
            if !outcome.as_ref().is_err_and(no_such_family) {
                break;
            }
        }
        Ok(Self {
            listener: outcome.map_err(|source| Error::new(address, source))?,
            clients: VecDeque::new(),
            paused_until: None,
            trouble: None,
            readiness: Readiness {
                reasons: vec!["the installer has just started".into()],
                mended: 0,
            },
        })
    }

    /// What to wait for.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let listener = self.paused_until.is_none().then(|| self.listener.as_fd());
        listener
            .into_iter()
            .chain(self.clients.iter().map(|client| client.stream.as_fd()))
            .collect()
    }

    /// When to look again, whatever happens.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self.clients.front().map(|client| client.deadline);
        oldest.into_iter().chain(self.paused_until).min()
    }

    /// Does what can be done without waiting.
    pub fn turn(&mut self) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.paused_until.is_none() {
            self.accept(now);
        }
        let readiness = &self.readiness;
        self.clients
            .retain_mut(|client| client.deadline > now && client.go_on(readiness));
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error)
                    if [ErrorKind::ConnectionAborted, ErrorKind::Interrupted]
                        .contains(&error.kind()) => {}
                Err(error) => {
                    if self.trouble != Some(error.kind()) {
                        log::warn!("no connection to the health address can be taken: {error}");
                    }
                    self.trouble = Some(error.kind());
                    self.clients.clear();
                    self.paused_until = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, now: Instant) {
        self.trouble = None;
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut client = Client {
            stream,
            request: Vec::new(),
            deadline: now + PATIENCE,
        };
        if !client.go_on(&self.readiness) {
            return;
        }
        if self.clients.len() >= PLACES
            && let Some(mut oldest) = self.clients.pop_front()
        {
            // What it had no time to say yet may have come by now.
            oldest.go_on(&self.readiness);
        }
        self.clients.push_back(client);
    }
}

impl Client {
    /// Reads on and answers; whether there is more to come.
    fn go_on(&mut self, readiness: &Readiness) -> bool {
        let mut buffer = [0; PORTION];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    let read = buffer.get(..length).unwrap_or_default();
                    self.request.extend_from_slice(read);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            }
            if let Some(answer) = answer(&self.request, readiness) {
                // It fits the socket's buffer; who does not take it has gone.
                let _ = self.stream.write(answer.as_bytes());
                let _ = self.stream.shutdown(Shutdown::Write);
                // What is left unread would turn the end into a reset, which can overtake
                // the answer.
                let _ = self.stream.read(&mut buffer);
                let _ = self.stream.read(&mut buffer);
                return false;
            }
        }
    }
}

/// The answer to a request; `None` as long as it is not complete.
fn answer(request: &[u8], readiness: &Readiness) -> Option<String> {
    let mut headers = [EMPTY_HEADER; 32];
    let mut parsed = Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if request.len() < LARGEST_REQUEST => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(response("431 Request Header Fields Too Large", ""));
        }
        Err(_) => return Some(response("400 Bad Request", "")),
    }
    let path = parsed.path.unwrap_or_default().split('?').next();
    let response = match (parsed.method, path) {
        (Some("GET" | "HEAD"), Some("/healthz")) => response("200 OK", "{\"alive\":true}\n"),
        (Some("GET" | "HEAD"), Some("/readyz")) => {
            let ready = readiness.reasons.is_empty();
            let status = if ready {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let body = json!({
                "ready": ready, "reasons": readiness.reasons, "mended": readiness.mended,
            });
            response(status, &format!("{body}\n"))
        }
        (Some("GET" | "HEAD"), _) => response("404 Not Found", ""),
        _ => response("405 Method Not Allowed", ""),
    };
    let head = response.split_inclusive("\r\n\r\n").next();
    Some(match parsed.method {
        Some("HEAD") => head.unwrap_or_default().to_owned(),
        _ => response,
    })
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Whether the node has no addresses of that kind, as opposed to a port that is taken.
fn no_such_family(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// On an IPv6 address it takes IPv4 as well, whatever the node's own default is.
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
    // As many may wait to be taken as `net.core.somaxconn` says.
    listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(fd.into())
}
