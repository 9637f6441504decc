//! TCP servers that send their name and the client's address, and connections to them, which
//! show where a connection was redirected.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{self, shutdown};

use crate::netns::Namespace;

/// Watchdog for connections, which never leave the machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that listens until it is dropped.
pub struct Server {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `port` of every address in `namespace`, IPv4 and IPv6, and answers each
    /// connection with one line: `NAME@PORT from PEER`.
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> Self {
        let name = format!("{name}@{port}");
        let bound = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        let listener = Arc::new(bound.unwrap_or_else(|error| panic!("{name}: listening: {error}")));
        let accepting = Arc::clone(&listener);
        let thread = thread::spawn(move || serve(&accepting, &name));
        Self {
            listener,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the thread: accept() fails with EINVAL after shutdown().
        let _ = shutdown(self.listener.as_raw_fd(), socket::Shutdown::Both);
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(listener: &TcpListener, name: &str) {
    loop {
        match listener.accept() {
            Ok((mut stream, peer)) => {
                // The client may have closed the connection.
                let _ = write!(stream, "{name} from {}", peer.ip().to_canonical());
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(_) => {}
        }
    }
}

/// Connects to `address` from the calling thread's network namespace. Returns the server's
/// answer, or `refused`, `timed out`, …
pub fn connect(address: &str) -> String {
    let address: SocketAddr = address
        .parse()
        .unwrap_or_else(|error| panic!("{address}: {error}"));
    let answer = TcpStream::connect_timeout(&address, DEADLINE).and_then(|mut stream| {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    answer.unwrap_or_else(|error| match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".to_owned(),
        _ => error.to_string(),
    })
}
