//! A running installer on a node: its log, its health endpoint, signals, and waits for what it
//! does.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;

/// The watchdog of every wait. It is not a promise: a slow machine must not fail a test.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Less than the resync interval of a minute: the installer noticed the change itself.
const REACTION: Duration = Duration::from_secs(45);

/// A running installer; killed when dropped. Dropping it also checks the log for secrets.
pub struct Installer<'a> {
    pub node: &'a Node,
    child: Child,
    health: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl<'a> Installer<'a> {
    pub fn start(node: &'a Node, mut command: Command, health: SocketAddr) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *lines.lock().unwrap() += &(line + "\n");
            }
        });
        Self {
            node,
            child,
            health,
            log,
            reader: Some(reader),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until `condition` is true.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        self.until(what, || condition().then_some(()));
    }

    /// Waits until `condition` is true. Fails the test if that takes as long as a resync, which
    /// repairs everything even if the installer watches nothing.
    #[track_caller]
    pub fn reacts(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        self.wait_until(what, condition);
        let took = start.elapsed();
        assert!(took < REACTION, "{what}: after {took:?}\n{}", self.log());
    }

    /// Waits until `condition` returns a value.
    #[track_caller]
    pub fn until<T>(&self, what: &str, condition: impl Fn() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = condition() {
                return value;
            }
            self.pause(start, what);
        }
    }

    /// Yields the CPU; fails the test after the deadline.
    #[track_caller]
    fn pause(&self, start: Instant, what: &str) {
        assert!(
            start.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}\n--- log\n{}--- node\n{}",
            self.log(),
            self.node.tree()
        );
        thread::yield_now();
    }

    #[track_caller]
    pub fn becomes_ready(&self) {
        self.wait_until("ready", || self.is_ready());
    }

    /// Waits until the installer is not ready for a reason that contains `text`.
    #[track_caller]
    pub fn becomes_unready(&self, text: &str) {
        self.wait_until(&format!("not ready because of {text:?}"), || {
            self.ready()
                .is_some_and(|(code, body)| code == 503 && body.contains(text))
        });
    }

    /// Status and body of `/readyz`; `None` without an answer.
    pub fn ready(&self) -> Option<(u16, String)> {
        self.get("/readyz")
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        Self::get_from(self.health, path)
    }

    /// Status and body; `None` without an answer.
    pub fn get_from(address: SocketAddr, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    pub const fn health(&self) -> SocketAddr {
        self.health
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The number of lines in the log that contain `text`.
    pub fn logged(&self, text: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    /// The number of repairs, as `/readyz` reports it. The bench also starts older builds, which
    /// name the field `mended`.
    pub fn repairs(&self) -> u64 {
        let (_, body) = self.ready().unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let repairs = body.get("repairs").or_else(|| body.get("mended"));
        repairs.and_then(serde_json::Value::as_u64).unwrap()
    }

    /// Does something while the installer is stopped, so that it observes no state in between.
    pub fn at_once(&self, work: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        self.wait_until("stopped", || self.is_stopped());
        work();
        self.signal(Signal::SIGCONT);
    }

    /// Whether a signal has stopped the process (proc(5)).
    pub fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.starts_with('T')
    }

    /// Sends a signal, waits for the exit, and returns the exit code and the log.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let code = self.wait();
        (code, self.log())
    }

    /// Waits until `condition` is true or the installer exits; returns whether it is true.
    #[track_caller]
    pub fn lives_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> bool {
        let start = Instant::now();
        loop {
            if condition(self) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            self.pause(start, what);
        }
    }

    /// Kills it unless it has exited.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    pub fn is_ready(&self) -> bool {
        self.ready().is_some_and(|(code, _)| code == 200)
    }

    /// Waits until it exits by itself; returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.reader.take().map(JoinHandle::join);
                return status.code();
            }
            self.pause(start, "the exit");
        }
    }
}

impl Drop for Installer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.reader.take().map(JoinHandle::join);
        if !thread::panicking() {
            self.node.assert_no_secret(&self.log());
        }
    }
}
