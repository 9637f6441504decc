//! The nftables backend: our one table, written in one transaction and read back from the
//! kernel's own listing. Of other tables no more is asked than their names, and whether
//! iptables-nft holds chains of ours in them; none is touched.
//! Formats: `linux/netfilter/nf_tables.h`.

pub mod expression;
pub mod netlink;

use std::fmt;

use nix::errno::Errno;

use crate::names::TABLE;
use crate::redirect::Change;
use crate::redirect::diff::{Listed, Listing};
use crate::redirect::nft::expression::{Expression, compile, decode, decompile, encode};
use crate::redirect::nft::netlink::{
    Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Object, Socket, attribute, attributes,
};
use crate::redirect::policy::Family;
use crate::redirect::rules::{Action, Chain, Redirect, Role, Rule, RuleSet, Scope};

const NEW_TABLE: u8 = 0;
const GET_TABLE: u8 = 1;
const DELETE_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const GET_CHAIN: u8 = 4;
const NEW_RULE: u8 = 6;
const GET_RULE: u8 = 7;
const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
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
const RULE_USERDATA: u16 = 7;
/// What libnftnl calls a rule's comment in its user data.
const COMMENT: u8 = 0;
const POLICY_ACCEPT: u32 = 1;
/// A name that is no text, which the kernel does not mind.
const UNREADABLE: &str = "?";
/// A table's flags by their bit. Ours has none: the first switches it off, with the second
/// it would go with the process that made it.
const FLAGS: [&str; 3] = ["dormant", "owner", "persist"];
/// Hooks by their number in the IP families.
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Why the rules are not in the kernel, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this kernel's nftables does not support {what}; load nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, or set interceptName to iptables"
    )]
    Unsupported {
        what: String,
        source: netlink::Error,
    },
    #[error(
        "nftables table {table} belongs to another process, which alone may change it (flag owner); end that process"
    )]
    Owned { table: String },
    #[error("nftables needs CAP_NET_ADMIN in the network namespace")]
    NotAllowed { source: Errno },
    #[error("the kernel refused {what} of nftables table {table}")]
    Refused {
        what: String,
        table: String,
        source: Errno,
    },
    #[error("talking to nftables")]
    Netlink { source: netlink::Error },
}

impl Error {
    /// Whether this kernel cannot do it at all, as opposed to not now or not for us.
    pub const fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
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
    const fn other(self) -> Self {
        match self {
            Self::Inet => Self::Split,
            Self::Split => Self::Inet,
        }
    }

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

/// The tables of a network namespace, whoever made them.
#[derive(Debug, Default)]
pub struct Tables(Vec<Object>);

impl Tables {
    fn list(socket: &Socket) -> Result<Self, Error> {
        let every_family = Message::new(GET_TABLE, 0, 0);
        socket.list(&every_family).map(Self).map_err(asking)
    }

    fn find(&self, scope: Scope, table: &str) -> Option<&Object> {
        let mut tables = self.0.iter();
        tables.find(|it| {
            it.family == number(scope) && text_in(&it.attributes, TABLE_NAME) == Some(table)
        })
    }

    fn have(&self, scope: Scope, table: &str) -> bool {
        self.find(scope, table).is_some()
    }
}

/// Brings the calling thread's namespace to hold exactly the rules of `redirect`; says what
/// that took, and which tables there are.
pub fn apply(redirect: &Redirect) -> Result<(Change, Tables), Error> {
    let socket = open()?;
    match apply_as(&socket, redirect, Layout::Inet) {
        Err(Error::Unsupported { .. }) => apply_as(&socket, redirect, Layout::Split),
        outcome => outcome,
    }
}

/// What the kernel holds in our tables, those of both layouts; and which tables there are.
pub fn found() -> Result<(Listing, Tables), Error> {
    let socket = open()?;
    let tables = Tables::list(&socket)?;
    Ok((found_in(&tables, &socket)?, tables))
}

/// What it should hold for `redirect`, in the layout of what was found.
pub fn wanted(redirect: &Redirect, found: &Listing) -> Listing {
    let has = |scope| found.named(&listed_table(scope, 0).name).is_some();
    let split = !has(Scope::Inet) && has(Scope::Only(Family::Ipv4));
    wanted_as(redirect, if split { Layout::Split } else { Layout::Inet })
}

/// The tables of the calling thread's namespace; none where the kernel has no nftables.
pub fn tables() -> Result<Tables, Error> {
    match open().and_then(|socket| Tables::list(&socket)) {
        Err(Error::Unsupported { .. }) => Ok(Tables::default()),
        tables => tables,
    }
}

/// Removes our tables; says whether there was one, and which tables there were.
pub fn remove() -> Result<(bool, Tables), Error> {
    let socket = open()?;
    let tables = Tables::list(&socket)?;
    Ok((remove_from(&socket, &EVERY_SCOPE, &tables)?, tables))
}

fn remove_from(socket: &Socket, scopes: &[Scope], tables: &Tables) -> Result<bool, Error> {
    let mut batch = Batch::default();
    for scope in scopes.iter().filter(|scope| tables.have(**scope, TABLE)) {
        batch.remove(*scope);
    }
    let removed = !batch.messages.is_empty();
    batch.commit(socket)?;
    Ok(removed)
}

/// Whether any of these chains, each with its family and table, is there: iptables-nft
/// keeps its rules in tables named as legacy iptables names them.
pub fn any_chain_exists<'a>(
    chains: impl IntoIterator<Item = (Family, &'a str, &'a str)>,
    tables: &Tables,
) -> Result<bool, Error> {
    let mut chains = chains
        .into_iter()
        .filter(|(family, table, _)| tables.have(Scope::Only(*family), table))
        .peekable();
    // Most pods have no such table, and are asked no more.
    if chains.peek().is_none() {
        return Ok(false);
    }
    let socket = open()?;
    for (family, table, chain) in chains {
        let question = Message::new(GET_CHAIN, number(Scope::Only(family)), 0);
        let question = question.with(|attributes| {
            attributes.string(CHAIN_TABLE, table);
            attributes.string(CHAIN_NAME, chain);
        });
        if get(&socket, &question)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open() -> Result<Socket, Error> {
    Socket::open().map_err(|source| match &source {
        netlink::Error::Socket { source: cause } if no_such_protocol(cause) => {
            let what = "netlink".to_owned();
            Error::Unsupported { what, source }
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
        } => Error::Unsupported {
            what: "listing".to_owned(),
            source,
        },
        netlink::Error::Refused {
            source: source @ Errno::EPERM,
            ..
        } => Error::NotAllowed { source },
        source => Error::Netlink { source },
    }
}

/// Creates first: on the fresh path nothing of ours is read, and nothing deleted, for which
/// the kernel would make us wait. Only then the other layout's tables are looked for, so
/// that the pod is never without a redirect.
fn apply_as(
    socket: &Socket,
    redirect: &Redirect,
    layout: Layout,
) -> Result<(Change, Tables), Error> {
    let sets = || {
        layout
            .scopes()
            .iter()
            .filter_map(|scope| RuleSet::new(redirect, *scope))
    };
    let mut fresh = Batch::default();
    sets().for_each(|set| fresh.create(&set, NLM_F_CREATE | NLM_F_EXCL));
    let is_new = match fresh.commit(socket) {
        Ok(()) => true,
        Err(Error::Refused {
            source: Errno::EEXIST,
            ..
        }) => false,
        Err(error) => return Err(error),
    };
    let tables = Tables::list(socket)?;
    let change = if is_new {
        if remove_from(socket, layout.other().scopes(), &tables)? {
            Change::Replaced
        } else {
            Change::Created
        }
    } else if wanted_as(redirect, layout)
        .first_difference(&found_in(&tables, socket)?)
        .is_none()
    {
        Change::None
    } else {
        let mut replacement = Batch::default();
        for scope in EVERY_SCOPE {
            // One of a layout that this kernel may not know is removed only if it is there.
            if layout.scopes().contains(&scope) || tables.have(scope, TABLE) {
                replacement.remove(scope);
            }
        }
        sets().for_each(|set| replacement.create(&set, NLM_F_CREATE));
        replacement.commit(socket)?;
        Change::Replaced
    };
    Ok((change, tables))
}

/// Messages, and what each of them is about.
#[derive(Default)]
struct Batch {
    messages: Vec<Message>,
    subjects: Vec<(Scope, Subject)>,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Creation,
    Removal,
    Chain(Role),
    Rule(Role, usize, Action),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Creation => write!(f, "the creation"),
            Self::Removal => write!(f, "the removal"),
            Self::Chain(role) => write!(f, "{} chain {}", role.kind(), role.name()),
            Self::Rule(role, number, action) => {
                write!(f, "rule {number} (`{action}`) of chain {}", role.name())
            }
        }
    }
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
            Subject::Creation,
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
                    Subject::Rule(chain.role, index + 1, rule.action),
                    rule_message(scope, chain.role, rule),
                );
            }
        }
    }

    /// Created before it is deleted, so that it need not exist.
    fn remove(&mut self, scope: Scope) {
        self.push(
            scope,
            Subject::Removal,
            table_message(NEW_TABLE, scope, NLM_F_CREATE),
        );
        self.push(
            scope,
            Subject::Removal,
            table_message(DELETE_TABLE, scope, 0),
        );
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
        let subject = request.and_then(|request| self.subjects.get(request));
        let (what, table) = match subject {
            Some((scope, subject)) => (subject.to_string(), table_name(*scope)),
            None => ("the transaction".to_owned(), TABLE.to_owned()),
        };
        match errno {
            // No such chain type, expression or family: compiled out, or its module missing.
            Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
                let what = format!("{what} of table {table}");
                Error::Unsupported { what, source }
            }
            // Who may not write at all is told so of the transaction.
            Errno::EPERM if subject.is_some() => Error::Owned { table },
            Errno::EPERM => Error::NotAllowed { source: errno },
            errno => Error::Refused {
                what,
                table,
                source: errno,
            },
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

/// One object; a kernel that does not know its family, as older ones do not before its
/// first use, has none.
fn get(socket: &Socket, question: &Message) -> Result<Option<Vec<u8>>, Error> {
    match socket.get(question) {
        Err(netlink::Error::Refused {
            source: Errno::EAFNOSUPPORT,
            ..
        }) => Ok(None),
        answer => answer.map_err(asking),
    }
}

fn wanted_as(redirect: &Redirect, layout: Layout) -> Listing {
    let sets = layout
        .scopes()
        .iter()
        .filter_map(|scope| RuleSet::new(redirect, *scope));
    let listed = |set: RuleSet| {
        let table = listed_table(set.scope, 0);
        let chain = |chain: &Chain| Listed {
            name: chain_name(set.scope, chain.role.name()),
            heading: chain.role.to_string(),
            rules: chain.rules.iter().map(Rule::to_string).collect(),
        };
        let chains = set.chains.iter().map(chain);
        std::iter::once(table).chain(chains).collect::<Vec<_>>()
    };
    Listing(sets.flat_map(listed).collect())
}

fn found_in(tables: &Tables, socket: &Socket) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for scope in EVERY_SCOPE {
        if let Some(table) = tables.find(scope, TABLE) {
            let flags = number_in(&table.attributes, TABLE_FLAGS).unwrap_or(0);
            listing.0.push(listed_table(scope, flags));
            listing.0.extend(chains(socket, scope)?);
        }
    }
    Ok(listing)
}

fn listed_table(scope: Scope, flags: u32) -> Listed {
    let is_set = |(bit, _): &(usize, &str)| flags >> bit & 1 == 1;
    let flags = FLAGS.into_iter().enumerate().filter(is_set);
    let flags: Vec<_> = flags.map(|(_, flag)| flag).collect();
    Listed {
        name: format!("table {}", table_name(scope)),
        heading: if flags.is_empty() {
            "no flags".into()
        } else {
            format!("flags {}", flags.join(","))
        },
        rules: Vec::new(),
    }
}

fn chain_name(scope: Scope, chain: &str) -> String {
    format!("chain {} {chain}", table_name(scope))
}

fn chains(socket: &Socket, scope: Scope) -> Result<Vec<Listed>, Error> {
    let rules = rules(socket, scope)?;
    let question = Message::new(GET_CHAIN, number(scope), 0);
    let chains = socket.list(&question).map_err(asking)?;
    let listed = |chain: &Object| {
        let chain = &chain.attributes;
        let name = text_in(chain, CHAIN_NAME).unwrap_or(UNREADABLE);
        let of_chain = rules.iter().filter(|rule| rule.chain == name);
        (text_in(chain, CHAIN_TABLE)? == TABLE).then(|| Listed {
            name: chain_name(scope, name),
            heading: heading(chain),
            rules: of_chain.map(|rule| rule.text(scope)).collect(),
        })
    };
    Ok(chains.iter().filter_map(listed).collect())
}

/// A rule as the kernel lists it.
struct ListedRule {
    chain: String,
    expressions: Vec<Expression>,
    comment: Option<String>,
}

/// Every rule of our table.
fn rules(socket: &Socket, scope: Scope) -> Result<Vec<ListedRule>, Error> {
    let question = Message::new(GET_RULE, number(scope), 0)
        .with(|attributes| attributes.string(RULE_TABLE, TABLE));
    let rules = socket.list(&question).map_err(asking)?;
    let listed = |rule: &Object| {
        let rule = &rule.attributes;
        // Older kernels do not filter for us.
        let ours = text_in(rule, RULE_TABLE)? == TABLE;
        let chain = text_in(rule, RULE_CHAIN).unwrap_or(UNREADABLE).to_owned();
        ours.then(|| ListedRule {
            chain,
            expressions: decode(attribute(rule, RULE_EXPRESSIONS).unwrap_or_default()),
            comment: attribute(rule, RULE_USERDATA).and_then(comment),
        })
    };
    Ok(rules.iter().filter_map(listed).collect())
}

impl ListedRule {
    fn text(&self, scope: Scope) -> String {
        let raw = || {
            let expressions = self.expressions.iter().map(ToString::to_string);
            expressions.collect::<Vec<_>>().join(" ")
        };
        let rule = decompile(&self.expressions, scope);
        let text = rule.map_or_else(raw, |rule| rule.to_string());
        match &self.comment {
            Some(comment) => format!("{text} comment {comment:?}"),
            None => text,
        }
    }
}

/// A rule's user data: type, length, and a text with a zero at its end.
fn comment(userdata: &[u8]) -> Option<String> {
    match userdata {
        [COMMENT, _, text @ .., 0] => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// What the kernel holds in our table of that scope, if all of it is ours.
#[cfg(test)]
pub fn read(scope: Scope) -> Option<RuleSet> {
    let socket = open().ok()?;
    let rules = rules(&socket, scope).ok()?;
    let chains = chains(&socket, scope).ok()?;
    let chain = |listed: &Listed| {
        let is_listed = |role: &Role| listed.name == chain_name(scope, role.name());
        let role = Role::ALL.into_iter().find(is_listed)?;
        let rules = rules.iter().filter(|rule| rule.chain == role.name());
        let rules = rules.map(|rule| decompile(&rule.expressions, scope));
        let rules = rules.collect::<Option<_>>()?;
        (role.to_string() == listed.heading).then_some(Chain { role, rules })
    };
    let chains = chains.iter().map(chain).collect::<Option<_>>()?;
    Some(RuleSet { scope, chains })
}

/// The chain's heading as nft prints it.
pub fn heading(chain: &[u8]) -> String {
    if attribute(chain, CHAIN_HOOK).is_none() {
        return String::new();
    }
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
    heading().unwrap_or_else(|| "another hook".into())
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
    use crate::redirect::policy::{Ipv6Mode, Port};
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
                    assert_ne!(apply_as(socket, &redirect, layout).unwrap().0, Change::None);
                    let tables = Tables::list(socket).unwrap();
                    let listed = found_in(&tables, socket).unwrap();
                    assert_eq!(
                        wanted_as(&redirect, layout).first_difference(&listed),
                        None,
                        "{ipv6:?} {layout:?}"
                    );
                    assert_eq!(apply_as(socket, &redirect, layout).unwrap().0, Change::None);
                }
            }
        });
    }

    #[test]
    fn a_table_of_another_process_is_said_to_be_one() {
        const OWNER: u32 = 2;
        in_fresh_namespace(|socket| {
            let port = |number| (1..).nth(number).and_then(Port::new).unwrap();
            let long = Redirect {
                ports: (0..600).map(port).collect(),
                ..redirect(Ipv6Mode::Bypass)
            };
            let other = Socket::open().unwrap();
            let table = table_message(NEW_TABLE, Scope::Inet, NLM_F_CREATE)
                .with(|table| table.be32(TABLE_FLAGS, OWNER));
            other.transact(&[table]).unwrap();
            // The kernel refuses every message of a batch, and can tell only so many.
            for redirect in [redirect(Ipv6Mode::Bypass), long.clone()] {
                let refused = apply_as(socket, &redirect, Layout::Inet).unwrap_err();
                assert!(matches!(refused, Error::Owned { .. }), "{refused:?}");
            }
            drop(other);
            assert_eq!(
                apply_as(socket, &long, Layout::Inet).unwrap().0,
                Change::Created
            );
        });
    }

    #[test]
    fn what_the_kernel_does_not_support_is_named() {
        let mut batch = Batch::default();
        let set = RuleSet::new(&redirect(Ipv6Mode::Reject), Scope::Inet).unwrap();
        batch.create(&set, NLM_F_CREATE);
        let named = |subject: &str| {
            let is_subject = |(_, of): &(Scope, Subject)| of.to_string() == subject;
            let request = batch.subjects.iter().position(is_subject);
            assert!(request.is_some(), "{subject}: {:?}", batch.subjects);
            let source = Errno::ENOENT;
            batch
                .explain(netlink::Error::Refused { request, source })
                .to_string()
        };
        for subject in [
            "the creation",
            "nat chain output",
            "rule 3 (`counter redirect to :8554`) of chain prerouting",
            "rule 7 (`counter reject with tcp reset`) of chain reject_output",
        ] {
            let sentence = format!(
                "this kernel's nftables does not support {subject} of table inet msm_cni; \
                 load nf_tables, nft_chain_nat, nft_redir and nft_reject_inet on the node, \
                 or set interceptName to iptables"
            );
            assert_eq!(named(subject), sentence);
        }
    }

    #[test]
    fn removing_needs_nothing_to_be_there() {
        in_fresh_namespace(|socket| {
            assert!(!remove().unwrap().0);
            apply_as(socket, &redirect(Ipv6Mode::Reject), Layout::Split).unwrap();
            assert!(remove().unwrap().0);
            let tables = Tables::list(socket).unwrap();
            assert!(found_in(&tables, socket).unwrap().is_empty());
        });
    }
}
