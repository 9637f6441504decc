//! TCP servers that say who they are and whom they see, and connections to them: enough to
//! tell where a connection landed and from which address.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Every connection stays on the machine; this is far above what it takes.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers each connection to `port` with one line, `NAME@PORT from PEER`; never returns.
pub fn serve(name: &str, port: u16) -> ! {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .unwrap_or_else(|error| panic!("{name} cannot listen on port {port}: {error}"));
    loop {
        if let Ok((mut stream, peer)) = listener.accept() {
            // The client may be gone already; then nobody misses the answer.
            let _ = write!(stream, "{name}@{port} from {}", peer.ip());
        }
    }
}

/// What comes of a connection: the server's answer, or `refused`, `timed out`, …
pub fn connect(address: SocketAddr) -> String {
    let landed = TcpStream::connect_timeout(&address, DEADLINE).and_then(|mut stream| {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    landed.unwrap_or_else(|error| match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "timed out".to_owned(),
        _ => error.to_string(),
    })
}
