//! A redirect as a rule set: which chains, which rules, in which order. Plain values with
//! nftables' own text as their readable form; writing them into a kernel is for others.

use std::fmt;

use crate::names;
use crate::redirect::policy::{Cidr, Family, Ipv6Mode, Port, Uid};

/// What is to be redirected, and what is to be left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Destination ports of the pod's connections that belong to the stub; never empty.
    pub ports: Vec<Port>,
    /// Where the stub listens.
    pub proxy_port: Port,
    /// Who the stub is: its own connections are left alone.
    pub proxy_uid: Uid,
    /// Destinations that are left alone.
    pub exclude_cidrs: Vec<Cidr>,
    /// What happens to IPv6.
    pub ipv6: Ipv6Mode,
    /// Ports whose connections from outside the pod belong to the stub as well.
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

/// Which packets a rule set sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Both families in one table (nftables' `inet`).
    Inet,
    /// One family only: iptables, and nftables before Linux 5.2.
    Only(Family),
}

/// All rules of one table of ours.
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

/// What a chain is for; says where it hooks into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Redirects what the pod's processes open.
    Output,
    /// Redirects what arrives from outside.
    Prerouting,
    /// Refuses what the pod's processes open over IPv6.
    RejectOutput,
    /// Refuses what arrives over IPv6.
    RejectInput,
}

/// A rule: all matches must hold for the action to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
}

/// A condition on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    Family(Family),
    /// Came over the loopback interface.
    Loopback,
    Destination(Cidr),
    /// The sending socket's owner.
    Uid(Uid),
    TcpPort(Port),
    /// The first packet of a TCP connection: replies of an existing one, which may have
    /// the port as their destination too, are none.
    TcpSyn,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave the packet alone.
    Return,
    /// Count it, and send it to this port of the pod.
    Redirect(Port),
    /// Count it, and answer with a TCP reset.
    Reject,
}

impl RuleSet {
    /// The rules of `redirect` for the packets of `scope`; `None` when there is nothing
    /// to do for that family.
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
    // In the bypass and reject modes no packet over IPv6 may reach a redirecting rule.
    let guard = match redirect.ipv6 {
        Ipv6Mode::Redirect => None,
        Ipv6Mode::Bypass | Ipv6Mode::Reject => leave(Family::Ipv6, scope),
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
    output.push(Rule {
        matches: vec![Match::Uid(redirect.proxy_uid)],
        action: Action::Return,
    });
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
    let guard = leave(Family::Ipv4, scope);
    let refuse = |ports: &[Port]| -> Vec<Rule> {
        let rule = |port: &Port| Rule {
            matches: vec![Match::TcpPort(*port), Match::TcpSyn],
            action: Action::Reject,
        };
        ports.iter().map(rule).collect()
    };

    let mut output: Vec<Rule> = guard.clone().into_iter().collect();
    output.extend(exclusions(redirect, Scope::Only(Family::Ipv6)));
    output.push(Rule {
        matches: vec![Match::Uid(redirect.proxy_uid)],
        action: Action::Return,
    });
    output.extend(refuse(&redirect.ports));
    let mut chains = vec![Chain {
        role: Role::RejectOutput,
        rules: output,
    }];
    if !redirect.inbound_ports.is_empty() {
        let mut inbound: Vec<Rule> = guard.into_iter().collect();
        inbound.push(Rule {
            matches: vec![Match::Loopback],
            action: Action::Return,
        });
        inbound.extend(refuse(&redirect.inbound_ports));
        chains.push(Chain {
            role: Role::RejectInput,
            rules: inbound,
        });
    }
    chains
}

/// A rule that leaves a whole family alone, needed only where both are seen.
fn leave(family: Family, scope: Scope) -> Option<Rule> {
    (scope == Scope::Inet).then(|| Rule {
        matches: vec![Match::Family(family)],
        action: Action::Return,
    })
}

/// A rule for each excluded range of the scope's families; the IPv6 loopback address is
/// always excluded, so that asking for IPv6 does not need another list.
fn exclusions(redirect: &Redirect, scope: Scope) -> impl Iterator<Item = Rule> {
    let loopback6 = Some(Cidr::LOOPBACK6).filter(|own| !redirect.exclude_cidrs.contains(own));
    redirect
        .exclude_cidrs
        .iter()
        .copied()
        .chain(loopback6)
        .filter(move |cidr| scope == Scope::Inet || scope == Scope::Only(cidr.family()))
        .map(|cidr| Rule {
            matches: vec![Match::Destination(cidr)],
            action: Action::Return,
        })
}

impl Role {
    #[cfg(test)]
    pub const ALL: [Self; 4] = [
        Self::Output,
        Self::Prerouting,
        Self::RejectOutput,
        Self::RejectInput,
    ];

    /// The chain's name in nftables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Output => "output",
            Self::Prerouting => "prerouting",
            Self::RejectOutput => "reject_output",
            Self::RejectInput => "reject_input",
        }
    }

    /// nftables' chain type.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Output | Self::Prerouting => "nat",
            Self::RejectOutput | Self::RejectInput => "filter",
        }
    }

    /// The hook's name.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::Output | Self::RejectOutput => "output",
            Self::Prerouting => "prerouting",
            Self::RejectInput => "input",
        }
    }

    /// Translates before everybody else at that hook, so that the order does not depend on
    /// who registered first: others translate destinations at -100. For a filter the
    /// order does not matter, a refusal by any chain is final.
    pub const fn priority(self) -> i32 {
        match self {
            Self::Output | Self::Prerouting => -101,
            Self::RejectOutput | Self::RejectInput => 0,
        }
    }
}

impl Scope {
    /// nftables' name of the address family.
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
        let (kind, hook, priority) = (self.kind(), self.hook(), self.priority());
        write!(
            f,
            "type {kind} hook {hook} priority {priority}; policy accept;"
        )
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
