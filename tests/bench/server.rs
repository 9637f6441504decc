//! A cheap API server that counts its traffic: responses are prepared, and threads started, in
//! advance. Certificates and TLS settings are those of the tests' server.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use msm_testkit::api_server::Options;
use msm_testkit::certificates::{CertificateAuthority, KeyKind};
use nix::sys::socket::{Shutdown, shutdown};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConnection, StreamOwned,
};

/// The maximum number of connections at the same time.
const THREADS: usize = 256;
/// In bytes; a thread only needs it for TLS.
const STACK: usize = 256 << 10;

/// Bodies by path.
pub type Objects = HashMap<String, Vec<u8>>;

/// A running server.
pub struct Server {
    address: SocketAddr,
    authority: String,
    client: Arc<ClientConfig>,
    listener: Arc<TcpListener>,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    ended: AtomicU64,
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handshakes: AtomicU64,
}

/// What the server has counted.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    pub connections: u64,
    pub requests: u64,
    pub received: u64,
    pub sent: u64,
    /// Round trips of TLS handshakes.
    handshakes: u64,
}

impl Traffic {
    pub const fn since(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            requests: self.requests - before.requests,
            received: self.received - before.received,
            sent: self.sent - before.sent,
            handshakes: self.handshakes - before.handshakes,
        }
    }

    /// How often the client waited for the network: TCP handshakes, TLS handshakes, requests.
    pub const fn round_trips(self) -> u64 {
        self.connections + self.handshakes + self.requests
    }
}

impl Server {
    pub fn start(kind: KeyKind, objects: &Arc<Objects>) -> Self {
        let authority = CertificateAuthority::new(kind);
        let options = Options::new(authority.server(&["127.0.0.1"]));
        let listener = Arc::new(TcpListener::bind(options.address).expect("listen on 127.0.0.1"));
        let tls = Arc::new(options.tls_config());
        let counters = Arc::<Counters>::default();
        let threads = (0..THREADS).map(|_| {
            let (listener, tls) = (Arc::clone(&listener), Arc::clone(&tls));
            let (counters, objects) = (Arc::clone(&counters), Arc::clone(objects));
            let work = move || {
                while let Ok((stream, _)) = listener.accept() {
                    let connection = ServerConnection::new(Arc::clone(&tls));
                    let connection = connection.expect("TLS with the tests' certificate");
                    // A client that disconnects is not an error.
                    let _ = serve(connection, stream, &counters, &objects);
                    counters.ended.fetch_add(1, Ordering::SeqCst);
                }
            };
            let builder = thread::Builder::new().stack_size(STACK);
            builder.spawn(work).expect("start a server's thread")
        });
        Self {
            address: listener.local_addr().expect("the server's address"),
            client: Arc::new(client(&authority.pem())),
            authority: authority.pem(),
            threads: threads.collect(),
            listener,
            counters,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// PEM of the certificate authority.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The traffic so far. Waits until no client is connected.
    pub fn traffic(&self) -> Traffic {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        // A client may exit before the thread that served it has counted.
        while count(&self.counters.ended) < count(&self.counters.connections) {
            thread::yield_now();
        }
        Traffic {
            connections: count(&self.counters.connections),
            requests: count(&self.counters.requests),
            received: count(&self.counters.received),
            sent: count(&self.counters.sent),
            handshakes: count(&self.counters.handshakes),
        }
    }

    /// Connects, sends one request and reads the response, in this process.
    pub fn exchange(&self, path: &str) -> io::Result<()> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let connection = ClientConnection::new(Arc::clone(&self.client), name);
        let connection = connection.map_err(io::Error::other)?;
        let mut secured = StreamOwned::new(connection, stream);
        write!(
            secured,
            "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        )?;
        let mut response = BufReader::new(secured);
        let (status, length) = read_head(&mut response)?;
        if !status.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(status));
        }
        io::copy(&mut response.take(length), &mut io::sink())?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the threads in accept(2).
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn client(authority: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(authority.as_bytes()).expect("a certificate");
    roots.add(certificate).expect("an authority's certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring's TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A new process has no session to resume.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

fn serve(
    connection: ServerConnection,
    stream: TcpStream,
    counters: &Counters,
    objects: &Objects,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    counters.connections.fetch_add(1, Ordering::SeqCst);
    let counted = Counted { stream, counters };
    let mut secured = BufReader::new(StreamOwned::new(connection, counted));
    let mut is_first = true;
    loop {
        let (request, _) = read_head(&mut secured)?;
        let Some(target) = request.split(' ').nth(1) else {
            return Ok(());
        };
        counters.requests.fetch_add(1, Ordering::SeqCst);
        if is_first {
            let trips = handshake(&secured.get_ref().conn);
            counters.handshakes.fetch_add(trips, Ordering::SeqCst);
            is_first = false;
        }
        let path = target.split('?').next().unwrap_or_default();
        let (status, body) = match objects.get(path) {
            Some(body) => ("200 OK", body.as_slice()),
            None => ("404 Not Found", &b"{}"[..]),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut response = Vec::with_capacity(head.len() + body.len());
        response.extend_from_slice(head.as_bytes());
        response.extend_from_slice(body);
        secured.get_mut().write_all(&response)?;
    }
}

/// The round trips before the client could send its request (RFC 8446, section 2).
fn handshake(connection: &ServerConnection) -> u64 {
    let is_old = connection.protocol_version() == Some(ProtocolVersion::TLSv1_2);
    let is_retried = connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
    1 + u64::from(is_old) + u64::from(is_retried)
}

/// Reads a head. Returns its first line, which is empty at the end of the stream, and the
/// length of the body.
fn read_head(stream: &mut impl BufRead) -> io::Result<(String, u64)> {
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let mut length = 0;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    Ok((first, length))
}

/// A socket that counts its bytes.
struct Counted<'a> {
    stream: TcpStream,
    counters: &'a Counters,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        add(&self.counters.received, count);
        Ok(count)
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(buffer)?;
        add(&self.counters.sent, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).expect("64 bits"), Ordering::SeqCst);
}
