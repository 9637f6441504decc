//! Network namespaces, one for each run: created before the clock starts, and removed by the
//! kernel before anything else is measured.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::netns::Namespace;

use crate::cluster::{Call, Cluster};
use crate::launch::run;
use crate::targets::Target;

/// A watchdog for the removal of a namespace.
const DEADLINE: Duration = Duration::from_secs(60);

/// How many foreign rules are written at once.
const PART: usize = 250;

/// The state of the namespace before a run.
#[derive(Clone, Copy)]
pub enum Sandbox<'a> {
    /// No namespace at all.
    None,
    Empty,
    /// With tables of legacy iptables, which makes it the variant in use.
    Legacy,
    /// With a redirect that this executable wrote.
    Redirected(&'a Target),
    /// With this number of foreign rules, and of elements of a foreign set.
    Foreign(usize),
}

impl Sandbox<'_> {
    pub fn make(self, cluster: &Cluster) -> Result<Option<Namespace>, String> {
        if matches!(self, Self::None) {
            return Ok(None);
        }
        let namespace = Namespace::new();
        match self {
            Self::None | Self::Empty | Self::Foreign(0) => {}
            Self::Legacy => {
                for tool in ["iptables-legacy", "ip6tables-legacy"] {
                    for table in ["nat", "filter"] {
                        let args = ["-t", table, "-n", "-L"];
                        namespace.tool(tool, &args, "").succeeded();
                    }
                }
            }
            Self::Redirected(target) => {
                let add = cluster.call(target, Call::ADD, Some(&namespace));
                run(&mut [add], &cluster.log)?;
            }
            Self::Foreign(count) => add_foreign_rules(&namespace, count),
        }
        Ok(Some(namespace))
    }
}

/// In parts, because a message of an ordinary user must fit in the socket's buffer.
fn add_foreign_rules(namespace: &Namespace, count: usize) {
    namespace.load(
        "table inet foreign {
             set known { type ipv4_addr . inet_service; }
             chain output { type filter hook output priority 0; }
         }",
    );
    let address = |n: usize| format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
    for from in (0..count).step_by(PART) {
        let mut commands = String::new();
        for n in from..count.min(from + PART) {
            let address = address(n);
            let _ = write!(
                commands,
                "add element inet foreign known {{ {address} . 443 }}
                 add rule inet foreign output ip daddr {address} tcp dport 443 counter accept\n"
            );
        }
        namespace.load(&commands);
    }
}

/// Drops namespaces and waits until the kernel has removed them: it does so in the background,
/// one after the other, which would disturb the next measurement.
pub fn remove<T>(namespaces: T) {
    drop(namespaces);
    let watch = Namespace::new();
    // The first marker may be removed in one batch with the others, before their tables.
    for _ in 0..2 {
        let marker = Namespace::new();
        watch.ip(&format!(
            "link add marker type veth peer name marker netns {}",
            marker.path().display()
        ));
        drop(marker);
        let start = Instant::now();
        watch.run(|| {
            let links = || fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
            while links().contains("marker") {
                assert!(
                    start.elapsed() < DEADLINE,
                    "the kernel did not remove a network namespace within {DEADLINE:?}"
                );
                thread::yield_now();
            }
        });
    }
}
