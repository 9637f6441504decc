//! A pod as the tests see it: a network namespace with an address, a stub and an
//! application's own server, joined by a cable to the outside, where other servers are.

use std::time::{Duration, Instant};

use crate::endpoints::{FAR, FAR6, HTTP_SERVER6, HTTP6, NEAR, NEAR6, POD, POD6};
use crate::netns::Namespace;
use crate::traffic::{Server, connect};

const POD_MAC: &str = "02:00:00:00:00:02";
const GATEWAY_MAC: &str = "02:00:00:00:00:01";

/// When a cable counts as cut.
const DEADLINE: Duration = Duration::from_secs(10);

/// The user that the pod's application runs as.
pub const APP_UID: u32 = 1000;
/// The user that the stub runs as.
pub const STUB_UID: u32 = 1337;

/// A pod and its surroundings. Listening: outside `server@554`, `server@1554` and
/// `server@80`; inside `stub@8554`, `stub@9554`, `app@554`, and `rival@9999` for whoever
/// else redirects.
pub struct Pod {
    pub inside: Namespace,
    pub outside: Namespace,
    _servers: Vec<Server>,
}

impl Pod {
    /// A pod in the tests' own user namespace.
    pub fn new() -> Self {
        Self::around(Namespace::new())
    }

    /// A pod with a user namespace of its own.
    pub fn in_user_namespace() -> Self {
        Self::around(Namespace::in_user_namespace())
    }

    fn around(inside: Namespace) -> Self {
        let outside = Namespace::new();
        // Neither duplicate address detection nor the search for neighbours: both begin some
        // time after a link is up and would keep IPv6 waiting for a second.
        inside.ip(&format!(
            "link add eth0 address {POD_MAC} type veth peer name eth0 address {GATEWAY_MAC} netns {}
             address add {POD}/24 dev eth0
             address add {POD6}/64 dev eth0 nodad
             link set eth0 up
             neighbour add {NEAR6} lladdr {GATEWAY_MAC} dev eth0
             route add default via {NEAR}
             route add ::/0 via {NEAR6}",
            outside.path().display()
        ));
        outside.ip(&format!(
            "address add {NEAR}/24 dev eth0
             address add {FAR}/24 dev eth0
             address add {NEAR6}/64 dev eth0 nodad
             address add {FAR6}/64 dev eth0 nodad
             link set eth0 up
             neighbour add {POD6} lladdr {POD_MAC} dev eth0"
        ));
        let servers = [
            (&outside, "server", 554),
            (&outside, "server", 1554),
            (&outside, "server", 80),
            (&inside, "stub", 8554),
            (&inside, "stub", 9554),
            (&inside, "app", 554),
            (&inside, "rival", 9999),
        ];
        let servers = servers.map(|(namespace, name, port)| Server::start(namespace, name, port));
        let pod = Self {
            inside,
            outside,
            _servers: servers.into(),
        };
        pod.wait_for_the_cable();
        pod
    }

    /// The kernel tells IPv6 some time later that the cable is plugged in on both ends; until
    /// then packets get lost.
    fn wait_for_the_cable(&self) {
        let start = Instant::now();
        let outside = || self.connect(HTTP6);
        while outside() != HTTP_SERVER6 {
            assert!(start.elapsed() < DEADLINE, "the cable carries no IPv6");
        }
    }

    /// Where a connection of the application lands.
    pub fn connect(&self, to: &str) -> String {
        self.connect_as(APP_UID, to)
    }

    /// Where a connection of the pod's user `uid` lands.
    pub fn connect_as(&self, uid: u32, to: &str) -> String {
        self.inside.run_as(uid, || connect(to))
    }

    /// Where a connection from outside lands.
    pub fn connect_from_outside(&self, to: &str) -> String {
        self.outside.run(|| connect(to))
    }
}

/// Fails the test unless a connection of the application lands where it should.
#[track_caller]
pub fn lands(pod: &Pod, to: &str, expected: &str) {
    let landed = pod.connect(to);
    assert_eq!(
        landed,
        expected,
        "connection to {to}\n{}",
        pod.inside.rules()
    );
}
