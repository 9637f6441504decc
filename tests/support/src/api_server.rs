//! A fake Kubernetes API server with real sockets and real TLS. A handler decides how each
//! request is answered, or how the server misbehaves. The server binds in the network namespace
//! of the thread that starts it, records all requests, and stops when dropped. It is independent
//! of the executable under test.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::certificates::Identity;

/// The TLS versions that the server offers.
#[derive(Debug, Clone, Copy)]
pub enum Tls {
    Both,
    Only12,
    Only13,
}

/// How a new connection is treated.
#[derive(Debug, Clone, Copy)]
pub enum Greeting {
    Handshake,
    /// Stays open, but nothing is sent.
    Silence,
    /// Bytes that are not TLS.
    Garbage,
    Close,
    /// The first connection is closed, the others get TLS.
    CloseOnce,
}

/// The settings of a server.
pub struct Options {
    /// With port 0 the kernel chooses a free one.
    pub address: SocketAddr,
    pub identity: Identity,
    pub tls: Tls,
    pub greeting: Greeting,
    /// PEM. If set, clients need a certificate that this certificate authority has signed.
    pub client_ca: Option<String>,
    /// The number of session tickets that a TLS 1.3 client gets.
    pub tickets: usize,
}

impl Options {
    /// A free port of 127.0.0.1, all TLS versions, no client certificate.
    pub fn new(identity: Identity) -> Self {
        Self {
            address: ([127, 0, 0, 1], 0).into(),
            identity,
            tls: Tls::Both,
            greeting: Greeting::Handshake,
            client_ca: None,
            tickets: 2,
        }
    }

    pub fn tls_config(&self) -> ServerConfig {
        let versions: &[_] = match self.tls {
            Tls::Both => rustls::ALL_VERSIONS,
            Tls::Only12 => &[&rustls::version::TLS12],
            Tls::Only13 => &[&rustls::version::TLS13],
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .unwrap();
        let chain = CertificateDer::pem_slice_iter(self.identity.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.identity.key_pem.as_bytes()).unwrap();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                    .unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.send_tls13_tickets = self.tickets;
        config
    }
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The number of its connection, counted from 1.
    pub connection: usize,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Behaviour {
    Answer(Answer),
    /// No response, but the connection stays open.
    Silence,
    /// The head of the answer, then its body at one byte per second.
    Drip(Answer),
    /// A response with an infinite body.
    Endless,
    /// The connection is closed after half of the answer's body.
    CutOff(Answer),
    /// Bytes that are not HTTP.
    Garbage,
    Close,
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// Status 200 with an object in JSON.
    pub fn object(object: &Value) -> Self {
        Self {
            status: 200,
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body: object.to_string().into_bytes(),
        }
    }

    /// An error with a Kubernetes Status object.
    pub fn error(code: u16, message: &str) -> Self {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "code": code,
        });
        Self {
            status: code,
            ..Self::object(&status)
        }
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn head(&self) -> Vec<u8> {
        let length = ("Content-Length".to_owned(), self.body.len().to_string());
        let fields = self.headers.iter().chain([&length]);
        let lines: Vec<_> = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "HTTP/1.1 {} Scripted\r\n{}\r\n",
            self.status,
            lines.concat()
        );
        head.into_bytes()
    }
}

/// A handler that answers each request with the next one of `steps`, and repeats the last one.
pub fn script(steps: Vec<Behaviour>) -> impl Fn(&Request) -> Behaviour + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |_| {
        let step = next.fetch_add(1, Ordering::SeqCst);
        steps[step.min(steps.len() - 1)].clone()
    }
}

type Handler = dyn Fn(&Request) -> Behaviour + Send + Sync;

/// A running server.
pub struct ApiServer {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

impl ApiServer {
    /// Binds in the network namespace of the calling thread.
    pub fn start(
        options: &Options,
        handler: impl Fn(&Request) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(TcpListener::bind(options.address).unwrap());
        let shared = Arc::<Shared>::default();
        let tls = Arc::new(options.tls_config());
        let greeting = options.greeting;
        let handler: Arc<Handler> = Arc::new(handler);
        let acceptor = thread::spawn({
            let (listener, shared) = (listener.clone(), shared.clone());
            move || accept(&listener, &shared, &tls, greeting, &handler)
        });
        Self {
            address: listener.local_addr().unwrap(),
            listener,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The number of connections so far, with or without a request.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stopping.notify_all();
        // Ends accept(2). Connecting to the listener would require its network namespace.
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = self.acceptor.take().map(JoinHandle::join);
    }
}

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    tls: &Arc<ServerConfig>,
    greeting: Greeting,
    handler: &Arc<Handler>,
) {
    let mut workers = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        let number = {
            let mut connections = shared.connections.lock().unwrap();
            connections.push(stream.try_clone().unwrap());
            connections.len()
        };
        let (shared, tls, handler) = (shared.clone(), tls.clone(), handler.clone());
        workers.push(thread::spawn(move || {
            // A client may close the connection at any time.
            let _ = greet(stream, number, greeting, &shared, tls, &*handler);
        }));
    }
    for stream in shared.connections.lock().unwrap().iter() {
        let _ = stream.shutdown(Shutdown::Both);
    }
    for worker in workers {
        let _ = worker.join();
    }
}

fn greet(
    mut stream: TcpStream,
    number: usize,
    greeting: Greeting,
    shared: &Shared,
    tls: Arc<ServerConfig>,
    handler: &Handler,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let result = match greeting {
        Greeting::Silence => {
            shared.wait(Duration::MAX);
            Ok(())
        }
        Greeting::Garbage => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"),
        Greeting::Close => Ok(()),
        Greeting::CloseOnce if number == 1 => Ok(()),
        Greeting::Handshake | Greeting::CloseOnce => {
            let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
            let mut secured = StreamOwned::new(connection, stream.try_clone()?);
            serve(&mut secured, number, shared, handler)
        }
    };
    // The clone in `connections` keeps the socket open, so it is shut down. Unread bytes would
    // turn that into a reset, and the client might lose a TLS alert.
    let _ = stream.shutdown(Shutdown::Write);
    let _ = io::copy(&mut stream, &mut io::sink());
    result
}

fn serve(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    number: usize,
    shared: &Shared,
    handler: &Handler,
) -> io::Result<()> {
    while let Some(request) = read_request(stream, number)? {
        let behaviour = handler(&request);
        shared.requests.lock().unwrap().push(request);
        match behaviour {
            Behaviour::Answer(answer) => {
                stream.write_all(&[answer.head(), answer.body].concat())?;
            }
            Behaviour::Silence => shared.wait(Duration::MAX),
            Behaviour::Drip(answer) => {
                stream.write_all(&answer.head())?;
                for byte in answer.body {
                    shared.wait(Duration::from_secs(1));
                    stream.write_all(&[byte])?;
                }
            }
            Behaviour::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")?;
                while !*shared.stopped.lock().unwrap() {
                    stream.write_all(&[b' '; 16 << 10])?;
                }
            }
            Behaviour::CutOff(answer) => {
                let half = answer.body.len() / 2;
                stream.write_all(&[&answer.head(), &answer.body[..half]].concat())?;
                return Ok(());
            }
            Behaviour::Garbage => return stream.write_all(b"\x00\x01garbage\xff\r\n\r\n"),
            Behaviour::Close => return Ok(()),
        }
    }
    Ok(())
}

impl Shared {
    /// Waits until the server is stopped, for `limit` at most.
    fn wait(&self, limit: Duration) {
        let stopped = self.stopped.lock().unwrap();
        let limit = limit.min(Duration::from_secs(600));
        drop(
            self.stopping
                .wait_timeout_while(stopped, limit, |stopped| !*stopped),
        );
    }
}

fn read_request(stream: &mut impl Read, connection: usize) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (method, target) = (word(), word());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        connection,
    }))
}
