//! A redirect as a rule set: which chains, which rules, in which order. The values print as
//! nftables' own syntax. Pure; the backends program them into the kernel.

use std::fmt;

use super::policy::{Cidr, Family, Ipv6Mode, Port, Uid};
use crate::names;

/// Which traffic of a pod is redirected to its stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Destination ports of the pod's outgoing connections; never empty.
    pub ports: Vec<Port>,
    /// Port that the stub listens on.
    pub proxy_port: Port,
    /// User that the stub runs as; its own connections are not redirected.
    pub proxy_uid: Uid,
    /// Destinations that are not redirected.
    pub exclude_cidrs: Vec<Cidr>,
    pub ipv6: Ipv6Mode,
    /// Destination ports of connections from outside the pod.
    pub inbound_ports: Vec<Port>,
}

impl Default for Redirect {
    fn default() -> Self {
        const PORT: Port = Port::new(names::RTSP_PORT).expect("a port");
        const PROXY_PORT: Port = Port::new(names::PROXY_PORT).expect("a port");
        const PROXY_UID: Uid = Uid::new(names::PROXY_UID).expect("a user ID");
        Self {
            ports: vec![PORT],
            proxy_port: PROXY_PORT,
            proxy_uid: PROXY_UID,
            exclude_cidrs: vec![Cidr::LOOPBACK],
            ipv6: Ipv6Mode::default(),
            inbound_ports: Vec::new(),
        }
    }
}

/// The address families that a table covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Both families in one table (nftables' `inet`).
    Inet,
    /// One family: iptables, and nftables before Linux 5.2.
    Only(Family),
}

/// The rules of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    pub scope: Scope,
    pub chains: Vec<Chain>,
}

/// A base chain with its rules, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub role: Role,
    pub rules: Vec<Rule>,
}

/// The purpose of a chain, which determines its type, hook and priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Redirects connections that the pod opens.
    Output,
    /// Redirects connections from outside the pod.
    Prerouting,
    /// Rejects connections that the pod opens over IPv6.
    RejectOutput,
    /// Rejects connections from outside the pod over IPv6.
    RejectInput,
}

/// A netfilter hook of the IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// A rule: its action applies to packets that meet all matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
}

/// A condition on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Family(Family),
    /// Received on the loopback interface.
    Loopback,
    Destination(Cidr),
    /// Owner of the sending socket.
    Uid(Uid),
    TcpPort(Port),
    /// The first packet of a TCP connection. Replies of an established connection can have
    /// the same destination port and must not match.
    TcpSyn,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the chain: the packet is not changed.
    Return,
    /// Count the packet and redirect it to this port of the pod.
    Redirect(Port),
    /// Count the packet and reply with a TCP reset.
    Reject,
}

impl RuleSet {
    /// The rules of `redirect` for `scope`; `None` if it needs no rules there.
    pub fn new(redirect: &Redirect, scope: Scope) -> Option<Self> {
        let chains = match (scope, redirect.ipv6) {
            (Scope::Only(Family::Ipv6), Ipv6Mode::Bypass) => Vec::new(),
            (Scope::Only(Family::Ipv6), Ipv6Mode::Reject) => reject_chains(redirect, scope),
            (Scope::Only(_), _) | (Scope::Inet, Ipv6Mode::Bypass | Ipv6Mode::Redirect) => {
                redirect_chains(redirect, scope)
            }
            (Scope::Inet, Ipv6Mode::Reject) => {
                let mut chains = redirect_chains(redirect, scope);
                chains.extend(reject_chains(redirect, scope));
                chains
            }
        };
        (!chains.is_empty()).then_some(Self { scope, chains })
    }
}

fn redirect_chains(redirect: &Redirect, scope: Scope) -> Vec<Chain> {
    // In the bypass and reject modes IPv6 packets must not reach a redirect rule.
    let guard = match redirect.ipv6 {
        Ipv6Mode::Redirect => None,
        Ipv6Mode::Bypass | Ipv6Mode::Reject => skip_family(Family::Ipv6, scope),
    };
    let excluded = match redirect.ipv6 {
        Ipv6Mode::Redirect => exclusions(redirect, scope),
        Ipv6Mode::Bypass | Ipv6Mode::Reject => exclusions(redirect, Scope::Only(Family::Ipv4)),
    };
    let to_stub = |ports: &[Port]| -> Vec<Rule> {
        let rule = |port: &Port| Rule {
            matches: vec![Match::TcpPort(*port)],
            action: Action::Redirect(redirect.proxy_port),
        };
        ports.iter().map(rule).collect()
    };

    let mut output: Vec<Rule> = guard.clone().into_iter().collect();
    output.extend(excluded);
    output.push(skip(Match::Uid(redirect.proxy_uid)));
    output.extend(to_stub(&redirect.ports));
    let mut chains = vec![Chain {
        role: Role::Output,
        rules: output,
    }];
    if !redirect.inbound_ports.is_empty() {
        let mut inbound: Vec<Rule> = guard.into_iter().collect();
        inbound.extend(to_stub(&redirect.inbound_ports));
        chains.push(Chain {
            role: Role::Prerouting,
            rules: inbound,
        });
    }
    chains
}

fn reject_chains(redirect: &Redirect, scope: Scope) -> Vec<Chain> {
    let guard = skip_family(Family::Ipv4, scope);
    let reject = |ports: &[Port]| -> Vec<Rule> {
        let rule = |port: &Port| Rule {
            matches: vec![Match::TcpPort(*port), Match::TcpSyn],
            action: Action::Reject,
        };
        ports.iter().map(rule).collect()
    };

    let mut output: Vec<Rule> = guard.clone().into_iter().collect();
    output.extend(exclusions(redirect, Scope::Only(Family::Ipv6)));
    output.push(skip(Match::Uid(redirect.proxy_uid)));
    output.extend(reject(&redirect.ports));
    let mut chains = vec![Chain {
        role: Role::RejectOutput,
        rules: output,
    }];
    if !redirect.inbound_ports.is_empty() {
        let mut inbound: Vec<Rule> = guard.into_iter().collect();
        inbound.push(skip(Match::Loopback));
        inbound.extend(reject(&redirect.inbound_ports));
        chains.push(Chain {
            role: Role::RejectInput,
            rules: inbound,
        });
    }
    chains
}

/// A rule that exempts matching packets from the rest of its chain.
fn skip(condition: Match) -> Rule {
    Rule {
        matches: vec![condition],
        action: Action::Return,
    }
}

/// Needed only in a table that covers both families.
fn skip_family(family: Family, scope: Scope) -> Option<Rule> {
    (scope == Scope::Inet).then(|| skip(Match::Family(family)))
}

/// A rule for each excluded range of the scope's families. The IPv6 loopback address is
/// always excluded, so that enabling IPv6 does not require a longer list.
fn exclusions(redirect: &Redirect, scope: Scope) -> impl Iterator<Item = Rule> {
    let loopback6 = Some(Cidr::LOOPBACK6).filter(|cidr| !redirect.exclude_cidrs.contains(cidr));
    redirect
        .exclude_cidrs
        .iter()
        .copied()
        .chain(loopback6)
        .filter(move |cidr| scope == Scope::Inet || scope == Scope::Only(cidr.family()))
        .map(|cidr| skip(Match::Destination(cidr)))
}

impl Role {
    /// The chain's name in nftables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
            Self::RejectOutput => "reject_output",
            Self::RejectInput => "reject_input",
        }
    }

    /// The nftables chain type; iptables has a table of the same name.
    pub const fn chain_type(self) -> &'static str {
        match self {
            Self::Output | Self::Prerouting => "nat",
            Self::RejectOutput | Self::RejectInput => "filter",
        }
    }

    pub const fn hook(self) -> Hook {
        match self {
            Self::Output | Self::RejectOutput => Hook::Output,
            Self::Prerouting => Hook::Prerouting,
            Self::RejectInput => Hook::Input,
        }
    }

    /// The priority at the hook. Other components translate destinations at -100; at an equal
    /// priority, the order of the chains would depend on the order of their registration. For a
    /// filter the order does not matter: a rejection by any chain is final.
    pub const fn priority(self) -> i32 {
        match self {
            Self::Output | Self::Prerouting => -101,
            Self::RejectOutput | Self::RejectInput => 0,
        }
    }
}

impl Hook {
    /// All hooks, in the order of their numbers.
    const ALL: [Self; 5] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
    ];

    /// The kernel's number (`enum nf_inet_hooks` in `linux/netfilter.h`).
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.number() == number)
    }
}

impl Scope {
    pub const ALL: [Self; 3] = [
        Self::Inet,
        Self::Only(Family::Ipv4),
        Self::Only(Family::Ipv6),
    ];

    /// The name of the nftables address family.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Only(Family::Ipv4) => "ip",
            Self::Only(Family::Ipv6) => "ip6",
        }
    }
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.scope.name(), names::TABLE)?;
        for (index, chain) in self.chains.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            writeln!(
                f,
                "{separator}\tchain {} {{\n\t\t{}",
                chain.role.name(),
                chain.role
            )?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (chain_type, hook, priority) = (self.chain_type(), self.hook(), self.priority());
        write!(
            f,
            "type {chain_type} hook {hook} priority {priority}; policy accept;"
        )
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        self.action.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Family(Family::Ipv4) => write!(f, "meta nfproto ipv4"),
            Self::Family(Family::Ipv6) => write!(f, "meta nfproto ipv6"),
            Self::Loopback => write!(f, "iif \"lo\""),
            Self::Destination(cidr) => {
                let family = Scope::Only(cidr.family()).name();
                if cidr.is_host() {
                    write!(f, "{family} daddr {}", cidr.network())
                } else {
                    write!(f, "{family} daddr {cidr}")
                }
            }
            Self::Uid(uid) => write!(f, "meta skuid {uid}"),
            Self::TcpPort(port) => write!(f, "tcp dport {port}"),
            Self::TcpSyn => write!(f, "tcp flags & (fin | syn | rst | ack) == syn"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Return => write!(f, "return"),
            Self::Redirect(port) => write!(f, "counter redirect to :{port}"),
            Self::Reject => write!(f, "counter reject with tcp reset"),
        }
    }
}
