//! Network namespaces for one run each: made before the clock starts, given up together, and
//! gone before anything else is measured. What is measured in them is not its business.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::netns::Namespace;

use crate::contenders::Contender;
use crate::launch::run;
use crate::site::{Call, Site};

/// When a namespace that is given up counts as stuck.
const DEADLINE: Duration = Duration::from_secs(30);

/// How many rules of others are written in one go.
const PART: usize = 250;

/// What a run finds.
#[derive(Clone, Copy)]
pub enum Sandbox<'a> {
    /// No namespace at all.
    None,
    Empty,
    /// The tables of legacy iptables, which is therefore the variant to be used.
    Legacy,
    /// Our redirect.
    Redirected(&'a Contender),
    /// So many rules of others, and as many elements of a set.
    Crowded(usize),
}

impl Sandbox<'_> {
    pub fn make(self, site: &Site) -> Result<Option<Namespace>, String> {
        if matches!(self, Self::None) {
            return Ok(None);
        }
        let namespace = Namespace::new();
        match self {
            Self::None | Self::Empty | Self::Crowded(0) => {}
            Self::Legacy => {
                for tool in ["iptables-legacy", "ip6tables-legacy"] {
                    for table in ["nat", "filter"] {
                        let args = ["-t", table, "-n", "-L"];
                        namespace.tool(tool, &args, "").succeeded();
                    }
                }
            }
            Self::Redirected(who) => {
                let add = site.call(who, Call::ADD, Some(&namespace));
                run(&mut [add], &site.log)?;
            }
            Self::Crowded(count) => crowd(&namespace, count),
        }
        Ok(Some(namespace))
    }
}

/// In parts: what an ordinary user sends in one go has to fit into a socket's buffer.
fn crowd(namespace: &Namespace, count: usize) {
    namespace.load(
        "table inet others {
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
                "add element inet others known {{ {address} . 443 }}
                 add rule inet others output ip daddr {address} tcp dport 443 counter accept\n"
            );
        }
        namespace.load(&commands);
    }
}

/// Gives namespaces up and waits until the kernel is done with them. It does that later, in
/// one thread, in order: what it has left would fall into what is measured next.
pub fn give_up<T>(namespaces: T) {
    drop(namespaces);
    let watch = Namespace::new();
    // The first may go in one batch with the others, and its cable before their tables.
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
                    "the kernel does not remove a network namespace within {DEADLINE:?}"
                );
                thread::yield_now();
            }
        });
    }
}
