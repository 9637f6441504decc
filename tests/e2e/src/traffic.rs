//! TCP servers that report their own name and the address of their peer, and connections to
//! them: they show where a connection arrives and from which address.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A watchdog: connections do not leave the machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers each connection to `port` with one line, `NAME@PORT from PEER`; never returns.
pub fn serve(name: &str, port: u16) -> ! {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
        .unwrap_or_else(|error| panic!("{name} cannot listen on port {port}: {error}"));
    loop {
        if let Ok((mut stream, peer)) = listener.accept() {
            // Best effort: the client may have closed the connection.
            let _ = write!(stream, "{name}@{port} from {}", peer.ip());
        }
    }
}

/// Returns the server's answer, or `refused`, `timed out` or another error.
pub fn connect(address: SocketAddr) -> String {
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
