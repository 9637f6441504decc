//! The nftables backend: our one table, written in one transaction and read back from the
//! kernel's own listing. No other table is read or touched.
//! Formats: `linux/netfilter/nf_tables.h`.

use nix::errno::Errno;

use super::Change;
use super::expression::{compile, decode, decompile, encode};
use super::listing::{Difference, ListedChain, Listing};
use super::netlink::{
    self, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Socket, attribute, attributes,
};
use super::rules::{Chain, Redirect, Role, Rule, RuleSet, Scope};
use super::value::Family;
use crate::names::TABLE;

const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_IS_DORMANT: u32 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const POLICY_ACCEPT: u32 = 1;
/// Hooks by their number in the IP families.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Why the rules are not in the kernel, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this kernel offers no nftables NAT in the pod's network namespace; load nf_tables and nft_chain_nat, or set interceptName to iptables"
    )]
    Unsupported { source: netlink::Error },
    #[error("the kernel refused {what} of nftables table {table}")]
    Refused {
        what: String,
        table: String,
        source: Errno,
    },
    #[error("talking to nftables")]
    Netlink { source: netlink::Error },
}

/// How our rules are spread over tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One table for both families.
    Inet,
    /// One for each: kernels before 5.2 have no NAT for both.
    Split,
}

impl Layout {
    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Inet => &[Scope::Inet],
            Self::Split => &[Scope::Only(Family::Ipv4), Scope::Only(Family::Ipv6)],
        }
    }
}

const EVERY_SCOPE: [Scope; 3] = [
    Scope::Inet,
    Scope::Only(Family::Ipv4),
    Scope::Only(Family::Ipv6),
];

/// Brings the calling thread's namespace to hold exactly the rules of `redirect`.
pub fn apply(redirect: &Redirect) -> Result<Change, Error> {
    let socket = open()?;
    match apply_as(&socket, redirect, Layout::Inet) {
        Err(Error::Unsupported { .. }) => apply_as(&socket, redirect, Layout::Split),
        outcome => outcome,
    }
}

/// The first difference between the kernel's listing and `redirect`.
pub fn check(redirect: &Redirect) -> Result<Option<Difference>, Error> {
    let socket = open()?;
    let split =
        !table_exists(&socket, Scope::Inet)? && table_exists(&socket, Scope::Only(Family::Ipv4))?;
    let layout = if split { Layout::Split } else { Layout::Inet };
    Ok(wanted(redirect, layout).first_difference(&found(&socket)?))
}

/// Whether any table of ours is there.
pub fn exists() -> Result<bool, Error> {
    let socket = open()?;
    for scope in EVERY_SCOPE {
        if table_exists(&socket, scope)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes our tables; says whether there was one.
pub fn remove() -> Result<bool, Error> {
    let socket = open()?;
    let mut batch = Batch::default();
    for scope in EVERY_SCOPE {
        if table_exists(&socket, scope)? {
            batch.remove(scope);
        }
    }
    let removed = !batch.messages.is_empty();
    batch.commit(&socket)?;
    Ok(removed)
}

/// Whether a chain of that name is in that table: iptables-nft keeps its rules in tables
/// named as legacy iptables names them.
pub fn chain_exists(family: Family, table: &str, chain: &str) -> Result<bool, Error> {
    let question = Message::new(GET_CHAIN, number(Scope::Only(family)), 0).with(|attributes| {
        attributes.string(CHAIN_TABLE, table);
        attributes.string(CHAIN_NAME, chain);
    });
    Ok(open()?.get(&question).map_err(asking)?.is_some())
}

fn open() -> Result<Socket, Error> {
    Socket::open().map_err(|source| match &source {
        netlink::Error::Socket { source: cause } if no_such_protocol(cause) => {
            Error::Unsupported { source }
        }
        _ => Error::Netlink { source },
    })
}

/// Whether the kernel has no netlink for netfilter at all, as opposed to no memory or no
/// permission for it now.
fn no_such_protocol(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT))
}

fn asking(source: netlink::Error) -> Error {
    match source {
        netlink::Error::Refused {
            source: Errno::EOPNOTSUPP | Errno::EINVAL,
            ..
        } => Error::Unsupported { source },
        source => Error::Netlink { source },
    }
}

/// Creates first: on the fresh path nothing is read, and nothing deleted, for which the
/// kernel would make us wait.
fn apply_as(socket: &Socket, redirect: &Redirect, layout: Layout) -> Result<Change, Error> {
    let sets = || {
        layout
            .scopes()
            .iter()
            .filter_map(|scope| RuleSet::new(redirect, *scope))
    };
    let mut fresh = Batch::default();
    sets().for_each(|set| fresh.create(&set, NLM_F_CREATE | NLM_F_EXCL));
    match fresh.commit(socket) {
        Ok(()) => return Ok(Change::Created),
        Err(Error::Refused {
            source: Errno::EEXIST,
            ..
        }) => {}
        Err(error) => return Err(error),
    }
    if wanted(redirect, layout)
        .first_difference(&found(socket)?)
        .is_none()
    {
        return Ok(Change::None);
    }
    let mut replacement = Batch::default();
    for scope in EVERY_SCOPE {
        // One of a layout that this kernel may not know is removed only if it is there.
        if layout.scopes().contains(&scope) || table_exists(socket, scope)? {
            replacement.remove(scope);
        }
    }
    sets().for_each(|set| replacement.create(&set, NLM_F_CREATE));
    replacement.commit(socket)?;
    Ok(Change::Replaced)
}

/// Messages, and what each of them is about.
#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    subjects: Vec<(Scope, Subject)>,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Table,
    Chain(Role),
    Rule(Role, usize),
}

impl Batch {
    fn push(&mut self, scope: Scope, subject: Subject, message: Message) {
        self.messages.push(message);
        self.subjects.push((scope, subject));
    }

    fn create(&mut self, set: &RuleSet, flags: u16) {
        let scope = set.scope;
        self.push(
            scope,
            Subject::Table,
            table_message(NEW_TABLE, scope, flags),
        );
        for chain in &set.chains {
            self.push(
                scope,
                Subject::Chain(chain.role),
                chain_message(scope, chain),
            );
            for (index, rule) in chain.rules.iter().enumerate() {
                self.push(
                    scope,
                    Subject::Rule(chain.role, index + 1),
                    rule_message(scope, chain.role, rule),
                );
            }
        }
    }

    /// Created before it is deleted, so that it need not exist.
    fn remove(&mut self, scope: Scope) {
        self.push(
            scope,
            Subject::Table,
            table_message(NEW_TABLE, scope, NLM_F_CREATE),
        );
        self.push(scope, Subject::Table, table_message(DELETE_TABLE, scope, 0));
    }

    fn commit(&self, socket: &Socket) -> Result<(), Error> {
        socket
            .transact(&self.messages)
            .map_err(|source| self.explain(source))
    }

    fn explain(&self, source: netlink::Error) -> Error {
        let netlink::Error::Refused {
            request,
            source: errno,
        } = source
        else {
            return Error::Netlink { source };
        };
        // No such chain type, expression or family: compiled out, or its module missing.
        let unsupported = matches!(
            errno,
            Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT
        );
        if unsupported {
            return Error::Unsupported { source };
        }
        let subject = request.and_then(|request| self.subjects.get(request));
        let (what, scope) = match subject {
            Some((scope, Subject::Table)) => ("the creation".to_owned(), *scope),
            Some((scope, Subject::Chain(role))) => (format!("chain {}", role.name()), *scope),
            Some((scope, Subject::Rule(role, number))) => {
                (format!("rule {number} of chain {}", role.name()), *scope)
            }
            None => ("the transaction".to_owned(), Scope::Inet),
        };
        Error::Refused {
            what,
            table: table_name(scope),
            source: errno,
        }
    }
}

fn table_message(kind: u8, scope: Scope, flags: u16) -> Message {
    Message::new(kind, number(scope), flags).with(|attributes| attributes.string(TABLE_NAME, TABLE))
}

fn chain_message(scope: Scope, chain: &Chain) -> Message {
    Message::new(NEW_CHAIN, number(scope), NLM_F_CREATE).with(|attributes| {
        let role = chain.role;
        let hook = HOOKS
            .iter()
            .zip(0u32..)
            .find(|(name, _)| **name == role.hook());
        attributes.string(CHAIN_TABLE, TABLE);
        attributes.string(CHAIN_NAME, role.name());
        attributes.nest(CHAIN_HOOK, |nested| {
            nested.be32(HOOK_NUMBER, hook.map_or(u32::MAX, |(_, number)| number));
            nested.be32(HOOK_PRIORITY, role.priority().cast_unsigned());
        });
        attributes.be32(CHAIN_POLICY, POLICY_ACCEPT);
        attributes.string(CHAIN_TYPE, role.kind());
    })
}

fn rule_message(scope: Scope, role: Role, rule: &Rule) -> Message {
    Message::new(NEW_RULE, number(scope), NLM_F_CREATE | NLM_F_APPEND).with(|attributes| {
        attributes.string(RULE_TABLE, TABLE);
        attributes.string(RULE_CHAIN, role.name());
        attributes.nest(RULE_EXPRESSIONS, |list| encode(&compile(rule, scope), list));
    })
}

/// `NFPROTO_*`.
const fn number(scope: Scope) -> u8 {
    match scope {
        Scope::Inet => 1,
        Scope::Only(Family::Ipv4) => 2,
        Scope::Only(Family::Ipv6) => 10,
    }
}

fn table_name(scope: Scope) -> String {
    format!("{} {TABLE}", scope.name())
}

fn table_exists(socket: &Socket, scope: Scope) -> Result<bool, Error> {
    Ok(table(socket, scope)?.is_some())
}

/// Our table of that scope; a kernel that does not know the scope has none.
fn table(socket: &Socket, scope: Scope) -> Result<Option<Vec<u8>>, Error> {
    match socket.get(&table_message(GET_TABLE, scope, 0)) {
        Err(netlink::Error::Refused {
            source: Errno::EAFNOSUPPORT,
            ..
        }) => Ok(None),
        answer => answer.map_err(asking),
    }
}

fn wanted(redirect: &Redirect, layout: Layout) -> Listing {
    let sets = layout
        .scopes()
        .iter()
        .filter_map(|scope| RuleSet::new(redirect, *scope));
    let listed = |scope: Scope, chain: &Chain| ListedChain {
        name: format!("{} {}", table_name(scope), chain.role.name()),
        hook: chain.role.to_string(),
        rules: chain.rules.iter().map(Rule::to_string).collect(),
    };
    Listing(
        sets.flat_map(|set| {
            set.chains
                .iter()
                .map(|chain| listed(set.scope, chain))
                .collect::<Vec<_>>()
        })
        .collect(),
    )
}

/// What the kernel holds in our tables, those of the other layout included.
fn found(socket: &Socket) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for scope in EVERY_SCOPE {
        if let Some(table) = table(socket, scope)? {
            listing.0.extend(chains(socket, scope, &table)?);
        }
    }
    Ok(listing)
}

fn chains(socket: &Socket, scope: Scope, table: &[u8]) -> Result<Vec<ListedChain>, Error> {
    let flags = number_in(table, TABLE_FLAGS).unwrap_or(0);
    let rules = rules(socket, scope)?;
    let question = Message::new(GET_CHAIN, number(scope), 0);
    let chains = socket.list(&question).map_err(asking)?;
    let listed = |chain: &Vec<u8>| {
        let name = text_in(chain, CHAIN_NAME)?;
        (text_in(chain, CHAIN_TABLE)? == TABLE).then(|| ListedChain {
            name: format!("{} {name}", table_name(scope)),
            hook: match flags & TABLE_IS_DORMANT {
                0 => hook(chain),
                _ => "switched off: the table is dormant".into(),
            },
            rules: rules
                .iter()
                .filter(|(chain, _)| chain == name)
                .map(|(_, rule)| rule.clone())
                .collect(),
        })
    };
    Ok(chains.iter().filter_map(listed).collect())
}

/// Every rule of our table as its chain's name and its text.
fn rules(socket: &Socket, scope: Scope) -> Result<Vec<(String, String)>, Error> {
    let question = Message::new(GET_RULE, number(scope), 0)
        .with(|attributes| attributes.string(RULE_TABLE, TABLE));
    let rules = socket.list(&question).map_err(asking)?;
    let listed = |rule: &Vec<u8>| {
        // Older kernels do not filter for us.
        let ours = text_in(rule, RULE_TABLE)? == TABLE;
        let expressions = decode(attribute(rule, RULE_EXPRESSIONS).unwrap_or_default());
        let text = decompile(&expressions, scope).map_or_else(
            || {
                expressions
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            },
            |rule| rule.to_string(),
        );
        ours.then_some((text_in(rule, RULE_CHAIN)?.to_owned(), text))
    };
    Ok(rules.iter().filter_map(listed).collect())
}

/// The chain's heading as nft prints it.
fn hook(chain: &[u8]) -> String {
    let heading = || {
        let hook = attribute(chain, CHAIN_HOOK)?;
        let name = HOOKS.get(usize::try_from(number_in(hook, HOOK_NUMBER)?).ok()?)?;
        let priority = number_in(hook, HOOK_PRIORITY)?.cast_signed();
        let policy = if number_in(chain, CHAIN_POLICY)? == POLICY_ACCEPT {
            "accept"
        } else {
            "drop"
        };
        Some(format!(
            "type {} hook {name} priority {priority}; policy {policy};",
            text_in(chain, CHAIN_TYPE)?
        ))
    };
    heading().unwrap_or_else(|| "not attached to any hook".into())
}

fn number_in(bytes: &[u8], kind: u16) -> Option<u32> {
    attributes(bytes)
        .find(|attribute| attribute.kind == kind)?
        .be32()
}

fn text_in(bytes: &[u8], kind: u16) -> Option<&str> {
    attributes(bytes)
        .find(|attribute| attribute.kind == kind)?
        .string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::value::Ipv6Mode;
    use nix::sched::{CloneFlags, unshare};

    /// Runs `work` in a fresh network namespace, on a thread of its own.
    fn in_fresh_namespace(work: impl FnOnce(&Socket) + Send + 'static) {
        let thread = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(&Socket::open().unwrap()),
            // Loud where it counts; elsewhere the black-box tests tell what is missing.
            Err(errno) => assert!(std::env::var_os("CI").is_none(), "no namespace: {errno}"),
        });
        thread.join().unwrap();
    }

    fn redirect(ipv6: Ipv6Mode) -> Redirect {
        let cidrs = [
            "127.0.0.0/8",
            "10.1.2.3",
            "0.0.0.0/0",
            "192.168.128.0/17",
            "fd00::/9",
            "::/0",
            "2001:db8::7",
        ];
        Redirect {
            ports: ["554", "8554", "65535"]
                .map(|port| port.parse().unwrap())
                .into(),
            exclude_cidrs: cidrs.map(|cidr| cidr.parse().unwrap()).into(),
            inbound_ports: ["1", "322"].map(|port| port.parse().unwrap()).into(),
            ipv6,
            ..Redirect::default()
        }
    }

    #[test]
    fn the_kernel_lists_what_was_written_in_either_layout() {
        in_fresh_namespace(|socket| {
            for layout in [Layout::Inet, Layout::Split] {
                remove().unwrap();
                // Each mode replaces the one before, and takes back what it does not need.
                for ipv6 in [Ipv6Mode::Redirect, Ipv6Mode::Reject, Ipv6Mode::Bypass] {
                    let redirect = redirect(ipv6);
                    assert_ne!(apply_as(socket, &redirect, layout).unwrap(), Change::None);
                    let listed = found(socket).unwrap();
                    assert_eq!(
                        wanted(&redirect, layout).first_difference(&listed),
                        None,
                        "{ipv6:?} {layout:?}"
                    );
                    assert_eq!(apply_as(socket, &redirect, layout).unwrap(), Change::None);
                }
            }
        });
    }

    #[test]
    fn a_dormant_table_is_a_difference() {
        in_fresh_namespace(|socket| {
            let redirect = redirect(Ipv6Mode::Bypass);
            apply_as(socket, &redirect, Layout::Inet).unwrap();
            let dormant = table_message(NEW_TABLE, Scope::Inet, 0)
                .with(|table| table.be32(TABLE_FLAGS, TABLE_IS_DORMANT));
            socket.transact(&[dormant]).unwrap();
            let difference =
                wanted(&redirect, Layout::Inet).first_difference(&found(socket).unwrap());
            assert!(
                difference.is_some_and(|difference| difference.to_string().contains("dormant"))
            );
            assert_eq!(
                apply_as(socket, &redirect, Layout::Inet).unwrap(),
                Change::Replaced
            );
        });
    }

    #[test]
    fn removing_needs_nothing_to_be_there() {
        in_fresh_namespace(|socket| {
            assert!(!remove().unwrap());
            apply_as(socket, &redirect(Ipv6Mode::Reject), Layout::Split).unwrap();
            assert!(remove().unwrap());
            assert!(!exists().unwrap());
        });
    }
}
