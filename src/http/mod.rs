//! A small HTTP/1.1 server for probes and metrics. It is driven by the caller's poll loop and
//! never blocks, so that an answer proves that the loop is running. One request per
//! connection; the caller passes in the routes. No TLS, no request bodies.

mod address;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use httparse::EMPTY_HEADER;
use nix::poll::PollFd;

pub use address::Address;

use crate::event::poll;

/// Connections at the same time. One more closes the oldest.
const MAX_CLIENTS: usize = 128;
/// In bytes; a probe sends about 100.
const MAX_REQUEST: usize = 4096;
const MAX_HEADERS: usize = 32;
/// For a client to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// For a client to read the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections accepted in one call of `poll`.
const ACCEPT_BATCH: usize = 64;
/// Pause after a failed accept: the cause, such as too many open files, lasts.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Bytes per read.
const READ_SIZE: usize = 1024;

/// A GET or HEAD request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Without the query.
    pub path: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Code and reason phrase.
    pub status: &'static str,
    pub content_type: &'static str,
    pub body: String,
}

/// Answers a request.
pub type Routes<'a> = dyn FnMut(&Request) -> Response + 'a;

/// The listening socket and its connections.
pub struct Server {
    listener: TcpListener,
    /// The oldest first.
    clients: VecDeque<Client>,
    /// No connection is accepted before.
    paused_until: Option<Instant>,
    /// Why the last accept failed.
    accept_error: Option<ErrorKind>,
}

struct Client {
    stream: TcpStream,
    /// What was read so far.
    request: Vec<u8>,
    response: Option<WriteBuffer>,
    deadline: Instant,
}

struct WriteBuffer {
    bytes: Vec<u8>,
    written: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The client has to send, or to read, more.
    Pending,
    /// The connection can be closed.
    Finished,
}

impl Response {
    pub fn json(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: body.into(),
        }
    }

    fn head(&self) -> String {
        let Self {
            status,
            content_type,
            body,
        } = self;
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
    }
}

impl Server {
    pub fn bind(address: Address) -> io::Result<Self> {
        Ok(Self {
            listener: address.listen()?,
            clients: VecDeque::new(),
            paused_until: None,
            accept_error: None,
        })
    }

    /// The descriptors to wait for before the next call of `poll`.
    pub fn descriptors(&self) -> Vec<PollFd<'_>> {
        let listener = self.paused_until.is_none().then_some(&self.listener);
        let listener = listener.map(|listener| poll::readable(listener.as_fd()));
        let clients = self.clients.iter().map(Client::descriptor);
        listener.into_iter().chain(clients).collect()
    }

    /// When `poll` has to be called even if no descriptor is ready.
    pub fn deadline(&self) -> Option<Instant> {
        let clients = self.clients.iter().map(|client| client.deadline);
        clients.chain(self.paused_until).min()
    }

    /// Accepts, reads and writes as far as possible without blocking. The error is why
    /// connections cannot be accepted; it is not repeated for later attempts.
    pub fn poll(&mut self, now: Instant, routes: &mut Routes) -> io::Result<()> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let accepted = match self.paused_until {
            None => self.accept(now, routes),
            Some(_) => Ok(()),
        };
        self.clients.retain_mut(|client| {
            client.deadline > now && client.advance(now, routes) == Progress::Pending
        });
        accepted
    }

    fn accept(&mut self, now: Instant, routes: &mut Routes) -> io::Result<()> {
        for _ in 0..ACCEPT_BATCH {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.accept_error = None;
                    self.add(stream, now, routes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error)
                    if [ErrorKind::ConnectionAborted, ErrorKind::Interrupted]
                        .contains(&error.kind()) => {}
                Err(error) => {
                    // Frees descriptors and memory, which may be what is lacking.
                    self.clients.clear();
                    self.paused_until = Some(now + ACCEPT_PAUSE);
                    let is_known = self.accept_error == Some(error.kind());
                    self.accept_error = Some(error.kind());
                    return if is_known { Ok(()) } else { Err(error) };
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, stream: TcpStream, now: Instant, routes: &mut Routes) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut client = Client {
            stream,
            request: Vec::new(),
            response: None,
            deadline: now + REQUEST_TIMEOUT,
        };
        if client.advance(now, routes) == Progress::Finished {
            return;
        }
        if self.clients.len() >= MAX_CLIENTS
            && let Some(mut oldest) = self.clients.pop_front()
        {
            // Its request may have arrived by now.
            oldest.advance(now, routes);
        }
        self.clients.push_back(client);
    }
}

impl Client {
    fn descriptor(&self) -> PollFd<'_> {
        match self.response {
            None => poll::readable(self.stream.as_fd()),
            Some(_) => poll::writable(self.stream.as_fd()),
        }
    }

    /// Reads the request and writes the response as far as possible.
    fn advance(&mut self, now: Instant, routes: &mut Routes) -> Progress {
        if self.response.is_none() {
            if self.read(routes) == Progress::Pending {
                return Progress::Pending;
            }
            self.deadline = now + RESPONSE_TIMEOUT;
        }
        let Some(response) = &mut self.response else {
            return Progress::Finished;
        };
        if response.write(&mut self.stream) == Progress::Pending {
            return Progress::Pending;
        }
        self.end();
        Progress::Finished
    }

    /// Finished with a response, or without one if the connection failed.
    fn read(&mut self, routes: &mut Routes) -> Progress {
        let mut buffer = [0; READ_SIZE];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Progress::Finished,
                Ok(length) => {
                    let read = buffer.get(..length).unwrap_or_default();
                    self.request.extend_from_slice(read);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Finished,
            }
            if let Some(bytes) = respond(&self.request, routes) {
                self.response = Some(WriteBuffer { bytes, written: 0 });
                return Progress::Finished;
            }
        }
    }

    /// Discards what the client sent after its request: closing a socket with unread data sends
    /// a reset, which may overtake the response.
    fn end(&mut self) {
        let mut buffer = [0; READ_SIZE];
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.read(&mut buffer);
        let _ = self.stream.read(&mut buffer);
    }
}

impl WriteBuffer {
    fn write(&mut self, stream: &mut TcpStream) -> Progress {
        while let Some(rest) = self.bytes.get(self.written..)
            && !rest.is_empty()
        {
            match stream.write(rest) {
                Ok(0) => return Progress::Finished,
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Finished,
            }
        }
        Progress::Finished
    }
}

/// The response to a request; `None` while the request is incomplete.
fn respond(request: &[u8], routes: &mut Routes) -> Option<Vec<u8>> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let response = match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {
            let path = parsed.path.unwrap_or_default();
            let path = path.split_once('?').map_or(path, |(path, _)| path);
            match parsed.method {
                Some("GET" | "HEAD") => routes(&Request { path }),
                _ => Response::json("405 Method Not Allowed", ""),
            }
        }
        Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Response::json("431 Request Header Fields Too Large", "")
        }
        Err(_) => Response::json("400 Bad Request", ""),
    };
    let mut bytes = response.head().into_bytes();
    if parsed.method != Some("HEAD") {
        bytes.extend_from_slice(response.body.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// For a read that should succeed at once.
    const WATCHDOG: Duration = Duration::from_secs(60);
    /// More than the socket buffers of both ends hold (`tcp_wmem`, `tcp_rmem`).
    const LARGE_PAGE: usize = 24 << 20;

    struct Site {
        server: Server,
        /// Advanced by the tests only.
        now: Instant,
        page: String,
        requests: usize,
    }

    impl Site {
        fn new(page: String) -> Self {
            let address = Address::At((Ipv4Addr::LOCALHOST, 0).into());
            Self {
                server: Server::bind(address).unwrap(),
                now: Instant::now(),
                page,
                requests: 0,
            }
        }

        fn poll(&mut self) {
            let (page, requests) = (&self.page, &mut self.requests);
            let mut routes = |_: &Request| {
                *requests += 1;
                Response::json("200 OK", page.as_str())
            };
            self.server.poll(self.now, &mut routes).unwrap();
        }

        /// Data that a client has sent may not have arrived yet.
        fn poll_until(&mut self, is_done: impl Fn(&Self) -> bool) {
            let start = Instant::now();
            while !is_done(self) {
                assert!(start.elapsed() < WATCHDOG);
                self.poll();
            }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.server.listener.local_addr().unwrap()).unwrap();
            stream.set_read_timeout(Some(WATCHDOG)).unwrap();
            stream
        }

        /// A connection that sends nothing.
        fn connect_silently(&mut self) -> TcpStream {
            let stream = self.connect();
            let expected = (self.server.clients.len() + 1).min(MAX_CLIENTS);
            let address = stream.local_addr().unwrap();
            self.poll_until(|site| {
                let newest = site.server.clients.back();
                let newest = newest.map(|client| client.stream.peer_addr().unwrap());
                site.server.clients.len() == expected && newest == Some(address)
            });
            stream
        }

        fn request(&mut self) -> TcpStream {
            let mut stream = self.connect();
            stream.write_all(b"GET /page HTTP/1.1\r\n\r\n").unwrap();
            let expected = self.requests + 1;
            self.poll_until(|site| site.requests == expected);
            stream
        }
    }

    fn read_to_end(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn large_page_reaches_slow_reader_whole() {
        let mut site = Site::new("x".repeat(LARGE_PAGE));
        let mut stream = site.request();
        assert_eq!(site.server.clients.len(), 1, "the page fits the buffers");
        let mut read = Vec::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            site.poll();
            let length = stream.read(&mut buffer).unwrap();
            if length == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..length]);
        }
        let text = String::from_utf8(read).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("Content-Length: {LARGE_PAGE}")),
            "{head}"
        );
        assert_eq!(body.len(), LARGE_PAGE);
        assert!(site.server.clients.is_empty());
    }

    #[test]
    fn client_that_does_not_read_is_closed_and_delays_no_other() {
        let mut site = Site::new("x".repeat(LARGE_PAGE));
        let _stuck = site.request();
        site.page = "short".into();
        let other = site.request();
        assert!(read_to_end(other).ends_with("\r\n\r\nshort"));
        assert_eq!(site.server.deadline(), Some(site.now + RESPONSE_TIMEOUT));
        site.now += RESPONSE_TIMEOUT;
        site.poll();
        assert!(site.server.clients.is_empty());
    }

    #[test]
    fn client_that_sends_no_request_is_closed() {
        let mut site = Site::new(String::new());
        let silent = site.connect_silently();
        assert_eq!(site.server.deadline(), Some(site.now + REQUEST_TIMEOUT));
        site.now += REQUEST_TIMEOUT;
        site.poll();
        assert_eq!(site.server.deadline(), None);
        assert_eq!(read_to_end(silent), "");
    }

    #[test]
    fn connection_beyond_the_maximum_closes_the_oldest() {
        let mut site = Site::new("short".into());
        let mut silent: Vec<TcpStream> =
            (0..MAX_CLIENTS).map(|_| site.connect_silently()).collect();
        silent.push(site.connect_silently());
        assert_eq!(site.server.clients.len(), MAX_CLIENTS);
        assert_eq!(read_to_end(silent.remove(0)), "");
        let late = site.request();
        assert!(read_to_end(late).ends_with("short"));
    }
}
