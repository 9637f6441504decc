//! A pod: a network namespace with addresses, a stub and an application's server, connected
//! by a veth pair to another namespace with other servers.

use std::time::{Duration, Instant};

use crate::endpoints::{FAR, FAR6, HTTP_SERVER6, HTTP6, NEAR, NEAR6, POD, POD6};
use crate::netns::Namespace;
use crate::traffic::{Server, connect};

const POD_MAC: &str = "02:00:00:00:00:02";
const GATEWAY_MAC: &str = "02:00:00:00:00:01";

/// A watchdog for the veth pair to carry traffic.
const DEADLINE: Duration = Duration::from_secs(60);

/// The user ID of the application.
pub const APP_UID: u32 = 1000;
/// The user ID of the stub.
pub const STUB_UID: u32 = 1337;

/// A pod and the network outside of it. Servers outside: `server@554`, `server@1554` and
/// `server@80`; inside: `stub@8554`, `stub@9554`, `app@554`, and `rival@9999`, the target of
/// another component's redirect.
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

    /// A pod with its own user namespace.
    pub fn in_user_namespace() -> Self {
        Self::around(Namespace::in_user_namespace())
    }

    fn around(inside: Namespace) -> Self {
        let outside = Namespace::new();
        // Without duplicate address detection and neighbour discovery, which would delay IPv6
        // by a second after a link is up.
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
        pod.wait_for_link();
        pod
    }

    /// IPv6 is notified asynchronously that both ends of the veth pair are up, and drops packets
    /// until then.
    fn wait_for_link(&self) {
        let start = Instant::now();
        let outside = || self.connect(HTTP6);
        while outside() != HTTP_SERVER6 {
            assert!(start.elapsed() < DEADLINE, "the link carries no IPv6");
        }
    }

    /// Returns which server answers a connection of the application.
    pub fn connect(&self, to: &str) -> String {
        self.connect_as(APP_UID, to)
    }

    /// Returns which server answers a connection of the pod's user `uid`.
    pub fn connect_as(&self, uid: u32, to: &str) -> String {
        self.inside.run_as(uid, || connect(to))
    }

    /// Returns which server answers a connection from outside.
    pub fn connect_from_outside(&self, to: &str) -> String {
        self.outside.run(|| connect(to))
    }
}

/// Fails the test unless the expected server answers a connection of the application.
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
