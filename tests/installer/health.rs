//! `/healthz` and `/readyz`: responses, addresses, and clients that misbehave.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use msm_testkit::cannot_run;
use msm_testkit::command::run;
use msm_testkit::installer::{DEADLINE, Installer};
use msm_testkit::netns::Namespace;
use msm_testkit::node::{CALICO, CONF, CONF_PATH, Node};
use nix::sys::signal::Signal;

/// Sends the bytes and returns the whole response.
fn exchange(installer: &Installer, request: &[u8]) -> String {
    let mut stream = connect(installer);
    // A response to an incomplete request may be followed by a reset.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn connect(installer: &Installer) -> TcpStream {
    let stream = TcpStream::connect(installer.health()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

const READY: &str = "{\"ready\":true,\"reasons\":[],\"repairs\":0}\n";

#[test]
fn requests_are_answered_with_status_and_body() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(3000));
    let longer = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(5000));
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(33));
    for (request, status, body) in [
        (
            "GET /healthz HTTP/1.1\r\n\r\n",
            "200 OK",
            "{\"alive\":true}\n",
        ),
        (
            "GET /healthz HTTP/1.0\r\n\r\n",
            "200 OK",
            "{\"alive\":true}\n",
        ),
        (
            "GET /healthz?verbose HTTP/1.1\r\n\r\n",
            "200 OK",
            "{\"alive\":true}\n",
        ),
        ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", ""),
        ("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", READY),
        (
            "GET /readyz HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n",
            "200 OK",
            READY,
        ),
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found", ""),
        ("GET /readyz/ HTTP/1.1\r\n\r\n", "404 Not Found", ""),
        (
            "POST /readyz HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
            "405 Method Not Allowed",
            "",
        ),
        ("\r\n\r\n\x00\x01", "400 Bad Request", ""),
        ("SSH-2.0-OpenSSH_9.2\r\n", "400 Bad Request", ""),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request", ""),
        (&long, "200 OK", "{\"alive\":true}\n"),
        (&longer, "431 Request Header Fields Too Large", ""),
        (&many, "431 Request Header Fields Too Large", ""),
    ] {
        let answer = exchange(&installer, request.as_bytes());
        let (head, got) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{request:?}: {answer:?}"));
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{request:?}: {answer}"
        );
        assert_eq!(got, body, "{request:?}");
        let length = if request.starts_with("HEAD") {
            15
        } else {
            body.len()
        };
        assert!(
            head.contains(&format!("Content-Length: {length}\r\n")),
            "{answer}"
        );
    }
}

#[test]
fn request_may_arrive_half_closed_or_byte_by_byte() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let request = b"GET /readyz HTTP/1.1\r\nHost: node\r\n\r\n";
    let mut half_closed = connect(&installer);
    half_closed.write_all(request).unwrap();
    half_closed.shutdown(Shutdown::Write).unwrap();
    let mut in_pieces = connect(&installer);
    in_pieces.set_nodelay(true).unwrap();
    for byte in request {
        in_pieces.write_all(&[*byte]).unwrap();
        // Other clients are served meanwhile.
        assert_eq!(installer.get("/healthz").unwrap().0, 200);
    }
    for mut stream in [half_closed, in_pieces] {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    let mut incomplete = connect(&installer);
    incomplete.write_all(b"GET /readyz").unwrap();
    incomplete.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    incomplete.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
}

#[test]
fn unready_node_is_reported_with_reasons_and_503() {
    let node = Node::new();
    let installer = node.start(&[]);
    installer.becomes_unready("no valid network configuration");
    let (_, body) = installer.ready().unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], false);
    assert_eq!(body["reasons"].as_array().unwrap().len(), 1);
    assert_eq!(installer.get("/healthz").unwrap().0, 200);
}

/// Resident memory, in kB.
fn resident(installer: &Installer) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", installer.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time, in hundredths of a second.
fn ticks(installer: &Installer) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", installer.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn descriptors(installer: &Installer) -> usize {
    let directory = format!("/proc/{}/fd", installer.pid());
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn silent_clients_are_closed_and_use_little_cpu_and_memory() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let (before, memory) = (ticks(&installer), resident(&installer));
    let mut silent: Vec<TcpStream> = (0..100).map(|_| connect(&installer)).collect();
    for (number, stream) in silent.iter_mut().enumerate() {
        if number % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
        }
    }
    assert_eq!(installer.get("/healthz").unwrap().0, 200);
    for mut stream in silent {
        // Unlike a single read, retried after an interruption.
        let ended = stream.read_to_end(&mut Vec::new());
        let is_closed = match &ended {
            Ok(length) => *length == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(is_closed, "{ended:?}\n{}", installer.log());
    }
    // The connections were open for five seconds.
    let (spent, grown) = (
        ticks(&installer) - before,
        resident(&installer).saturating_sub(memory),
    );
    assert!(spent < 50, "{spent} hundredths of a second");
    assert!(grown < 2048, "{grown} kB");
}

#[test]
fn misbehaving_clients_delay_neither_probes_nor_repairs() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let (memory, open) = (resident(&installer), descriptors(&installer));
    let stop = &AtomicBool::new(false);
    let misbehaviours: [fn(&Installer, &mut Vec<TcpStream>); 4] = [
        // Closes immediately.
        |installer, _| drop(connect(installer)),
        // Sends nothing, and keeps many connections open.
        |installer, open| {
            open.push(connect(installer));
            if open.len() == 300 {
                open.clear();
            }
        },
        // Sends a request that is too large.
        |installer, _| {
            let _ = connect(installer).write_all(&[b'x'; 16 << 10]);
        },
        // Does not read the response.
        |installer, _| {
            let _ = connect(installer).write_all(b"GET /readyz HTTP/1.1\r\n\r\n");
        },
    ];
    thread::scope(|scope| {
        let installer = &installer;
        for misbehave in misbehaviours {
            scope.spawn(move || {
                let mut open = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    misbehave(installer, &mut open);
                }
            });
        }
        let _stop = crate::conflicting_writers::StopOnDrop(stop);
        for time in 1..=3 {
            // A probe that is slow to send its request may be closed for a newer client.
            for _ in 0..20 {
                installer.wait_until("a probe is answered", || installer.ready().is_some());
            }
            node.write(CONF_PATH, CALICO);
            installer.wait_until("the entry is restored", || {
                node.conf(CONF).contains("\"msm-cni\"")
            });
            installer.wait_until("the repair is counted", || {
                installer
                    .ready()
                    .is_some_and(|(_, body)| body.contains(&format!("\"repairs\":{time}}}")))
            });
        }
    });
    let grown = resident(&installer).saturating_sub(memory);
    assert!(grown < 4096, "{grown} kB");
    installer.wait_until("all connections are closed", || {
        descriptors(&installer) <= open
    });
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert_eq!(
        log.lines().filter(|line| line.starts_with("warn")).count(),
        0,
        "{log}"
    );
}

/// The installer exits with 1 before it changes anything.
fn assert_refused(address: &str, error: &str, advice: &str) {
    let node = Node::with_conf(CONF, CALICO);
    let tree = node.tree();
    let (mut command, _) = node.command(&["--health-address", address]);
    run(&mut command)
        .exited(1)
        .complains_about(error)
        .complains_about(advice);
    assert_eq!(node.tree(), tree);
}

#[test]
fn address_that_cannot_be_served_is_a_fatal_error() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    // The texts of the error numbers differ between glibc and musl.
    let in_use = "; stop the other process on this node, or choose another --health-address";
    let missing = "; choose another --health-address";
    for (address, shown, advice) in [
        (
            format!("127.0.0.1:{port}"),
            format!("127.0.0.1:{port}"),
            in_use,
        ),
        (
            format!(":{port}"),
            format!("port {port} on all addresses"),
            in_use,
        ),
        ("192.0.2.1:8000".into(), "192.0.2.1:8000".into(), missing),
        (
            "[2001:db8::1]:8000".into(),
            "[2001:db8::1]:8000".into(),
            missing,
        ),
    ] {
        let error = format!("cannot serve health on {shown}: ");
        assert_refused(&address, &error, advice);
    }
}

/// Whether the installer answers on the loopback addresses of IPv4 and IPv6.
fn answering(namespace: &Namespace, args: &[&str]) -> [bool; 2] {
    let node = Node::with_conf(CONF, CALICO);
    namespace.run(|| {
        let (command, _) = node.command(args);
        let addresses: [SocketAddr; 2] = [
            (Ipv4Addr::LOCALHOST, 8000).into(),
            (Ipv6Addr::LOCALHOST, 8000).into(),
        ];
        let installer = Installer::start(&node, command, addresses[0]);
        installer.wait_until("one address accepts connections", || {
            addresses
                .iter()
                .any(|address| TcpStream::connect(address).is_ok())
        });
        addresses.map(|address| Installer::get_from(address, "/readyz").is_some())
    })
}

#[test]
fn health_is_served_on_the_addresses_that_the_node_has() {
    if cannot_run(&["ip"]) {
        return;
    }
    let both = Namespace::new();
    for (address, expected) in [
        (":8000", [true, true]),
        ("8000", [true, true]),
        ("[::]:8000", [true, true]),
        ("0.0.0.0:8000", [true, false]),
        ("127.0.0.1:8000", [true, false]),
        ("[::1]:8000", [false, true]),
    ] {
        assert_eq!(
            answering(&both, &["--health-address", address]),
            expected,
            "{address}"
        );
    }
    let without = Namespace::new();
    without.run(|| fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
    assert_eq!(
        answering(&without, &["--health-address", ":8000"]),
        [true, false]
    );
}

#[test]
fn health_is_served_by_ipv4_on_a_kernel_without_ipv6() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    let namespace = Namespace::new();
    namespace.run(|| {
        let health = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        // -D: strace is a grandchild, and the installer is the child.
        let mut tool = vec![
            "strace",
            "-D",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=socket",
        ];
        tool.extend(["-e", "inject=socket:error=EAFNOSUPPORT:when=1"]);
        let (command, _) = node.command_by(&tool, &["--health-address=:8000"]);
        Installer::start(&node, command, health).becomes_ready();
        assert_eq!(
            Installer::get_from((Ipv6Addr::LOCALHOST, 8000).into(), "/readyz"),
            None
        );
    });
}
