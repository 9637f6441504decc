//! The nftables backend: programs the table of msm-cni in one transaction and reads it back
//! from the kernel. Of other tables it reads only the names, and whether iptables-nft has
//! chains of msm-cni in them; it changes none.

pub mod attributes;
pub mod compile;
mod error;
pub mod expression;
pub mod list;
pub mod netlink;
mod wire;

use nix::errno::Errno;

use super::diff::{Change, Listed, Listing};
use super::id::Id;
use super::policy::Family;
use super::rules::{Chain, Redirect, Rule, RuleSet, Scope};
use crate::names::TABLE;
use list::{chains, listed_table};
use netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, Socket};
use wire::{Batch, CHAIN_NAME, CHAIN_TABLE, GET_CHAIN, protocol};

pub use error::Error;
pub use list::Tables;

/// The result of `apply`.
#[derive(Debug)]
pub struct Applied {
    pub change: Change,
    pub tables: Tables,
}

/// The nftables tables in a network namespace.
#[derive(Debug, Default)]
pub struct State {
    /// The tables and chains of msm-cni.
    pub listing: Listing,
    pub tables: Tables,
}

/// How the rules are distributed over tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One table for both families.
    Inet,
    /// A table per family: kernels before 5.2 have no NAT chains in `inet` tables.
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

    fn rule_sets(self, redirect: &Redirect) -> impl Iterator<Item = RuleSet> {
        let scopes = self.scopes().iter();
        scopes.filter_map(|scope| RuleSet::new(redirect, *scope))
    }
}

/// Programs exactly the rules of `redirect` in the calling thread's network namespace.
pub fn apply(redirect: &Redirect) -> Result<Applied, Error> {
    let socket = open()?;
    match apply_as(&socket, redirect, Layout::Inet) {
        Err(Error::Unsupported { .. }) => apply_as(&socket, redirect, Layout::Split),
        outcome => outcome,
    }
}

/// Reads the tables of msm-cni in both layouts.
pub fn read() -> Result<State, Error> {
    let socket = open()?;
    let tables = Tables::read(&socket)?;
    let listing = listing(&tables, &socket)?;
    Ok(State { listing, tables })
}

/// The tables and chains of `redirect`, in the layout of the actual ones.
pub fn expected(redirect: &Redirect, actual: &Listing) -> Listing {
    let has = |scope| actual.get(&Id::Table(scope)).is_some();
    let is_split = !has(Scope::Inet) && has(Scope::Only(Family::Ipv4));
    expected_as(
        redirect,
        if is_split {
            Layout::Split
        } else {
            Layout::Inet
        },
    )
}

/// The tables of the calling thread's network namespace; none if the kernel has no nftables.
pub fn tables() -> Result<Tables, Error> {
    match open().and_then(|socket| Tables::read(&socket)) {
        Err(Error::Unsupported { .. }) => Ok(Tables::default()),
        tables => tables,
    }
}

/// Removes the tables of msm-cni; returns all tables from before the removal.
pub fn remove() -> Result<Tables, Error> {
    let socket = open()?;
    let tables = Tables::read(&socket)?;
    remove_from(&socket, &Scope::ALL, &tables)?;
    Ok(tables)
}

/// Whether `tables` include one of msm-cni.
pub fn has_redirect(tables: &Tables) -> bool {
    Scope::ALL
        .iter()
        .any(|scope| tables.contains(*scope, TABLE))
}

/// Whether any of these chains (family, table, name) exists. iptables-nft keeps its rules in
/// tables with the names of legacy iptables.
pub fn any_chain_exists<'a>(
    chains: impl IntoIterator<Item = (Family, &'a str, &'a str)>,
    tables: &Tables,
) -> Result<bool, Error> {
    let mut chains = chains
        .into_iter()
        .filter(|(family, table, _)| tables.contains(Scope::Only(*family), table))
        .peekable();
    // Most pods have no such table and need no request.
    if chains.peek().is_none() {
        return Ok(false);
    }
    let socket = open()?;
    for (family, table, chain) in chains {
        let request = Message::new(GET_CHAIN, protocol(Scope::Only(family)), 0);
        let request = request.with(|attributes| {
            attributes.string(CHAIN_TABLE, table);
            attributes.string(CHAIN_NAME, chain);
        });
        if exists(&socket, &request)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open() -> Result<Socket, Error> {
    Socket::open().map_err(Error::opening)
}

/// Older kernels do not know a family before its first use, and have no object in it.
fn exists(socket: &Socket, request: &Message) -> Result<bool, Error> {
    match socket.get(request) {
        Err(netlink::Error::Refused {
            source: Errno::EAFNOSUPPORT,
            ..
        }) => Ok(false),
        answer => answer
            .map(|object| object.is_some())
            .map_err(Error::listing),
    }
}

/// Tries to create the tables first: in a new pod that is all, and a deletion would take the
/// kernel milliseconds. The tables of the other layout are removed afterwards, so that the
/// pod always has a redirect.
fn apply_as(socket: &Socket, redirect: &Redirect, layout: Layout) -> Result<Applied, Error> {
    let mut create = Batch::default();
    for set in layout.rule_sets(redirect) {
        create.create(&set, NLM_F_CREATE | NLM_F_EXCL);
    }
    let is_new = match create.commit(socket) {
        Ok(()) => true,
        Err(Error::Rejected {
            source: Errno::EEXIST,
            ..
        }) => false,
        Err(error) => return Err(error),
    };
    let tables = Tables::read(socket)?;
    let change = if is_new {
        if remove_from(socket, layout.other().scopes(), &tables)? {
            Change::Replaced
        } else {
            Change::Created
        }
    } else if expected_as(redirect, layout)
        .diff(&listing(&tables, socket)?)
        .is_none()
    {
        Change::None
    } else {
        replacement(redirect, layout, &tables).commit(socket)?;
        Change::Replaced
    };
    Ok(Applied { change, tables })
}

/// Removes the tables of both layouts and creates those of `layout`.
fn replacement(redirect: &Redirect, layout: Layout, tables: &Tables) -> Batch {
    let mut batch = Batch::default();
    for scope in Scope::ALL {
        // The kernel may not support the other layout, so its tables are only removed if they
        // exist.
        if layout.scopes().contains(&scope) || tables.contains(scope, TABLE) {
            batch.remove(scope);
        }
    }
    for set in layout.rule_sets(redirect) {
        batch.create(&set, NLM_F_CREATE);
    }
    batch
}

/// Returns whether there was a table to remove.
fn remove_from(socket: &Socket, scopes: &[Scope], tables: &Tables) -> Result<bool, Error> {
    let mut batch = Batch::default();
    for scope in scopes {
        if tables.contains(*scope, TABLE) {
            batch.remove(*scope);
        }
    }
    batch.commit(socket)?;
    Ok(!batch.is_empty())
}

fn expected_as(redirect: &Redirect, layout: Layout) -> Listing {
    let mut listing = Listing::default();
    for set in layout.rule_sets(redirect) {
        let scope = set.scope;
        let chain = |chain: &Chain| Listed {
            id: Id::Chain {
                scope,
                chain: chain.role.name().to_owned(),
            },
            heading: chain.role.to_string(),
            rules: chain.rules.iter().map(Rule::to_string).collect(),
        };
        listing.0.push(listed_table(scope, 0));
        listing.0.extend(set.chains.iter().map(chain));
    }
    listing
}

fn listing(tables: &Tables, socket: &Socket) -> Result<Listing, Error> {
    let mut listing = Listing::default();
    for scope in Scope::ALL {
        if let Some(table) = tables.ours(scope) {
            listing.0.push(table);
            listing.0.extend(chains(socket, scope)?);
        }
    }
    Ok(listing)
}

#[cfg(test)]
pub mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::redirect::policy::{Ipv6Mode, Port};
    use wire::{NEW_TABLE, TABLE_FLAGS, table_message};

    /// Runs `work` on a new thread in a new network namespace.
    fn in_new_namespace(work: impl FnOnce(&Socket) + Send + 'static) {
        let thread = std::thread::spawn(move || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(&Socket::open().unwrap()),
            // In CI this is a failure; elsewhere the black-box tests report what is missing.
            Err(errno) => assert!(std::env::var_os("CI").is_none(), "no namespace: {errno}"),
        });
        thread.join().unwrap();
    }

    /// Uses every kind of rule.
    pub fn redirect(ipv6: Ipv6Mode) -> Redirect {
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

    fn change(socket: &Socket, redirect: &Redirect, layout: Layout) -> Change {
        apply_as(socket, redirect, layout).unwrap().change
    }

    #[test]
    fn listed_rules_equal_programmed_rules_in_both_layouts() {
        in_new_namespace(|socket| {
            for layout in [Layout::Inet, Layout::Split] {
                remove().unwrap();
                // Each mode replaces the previous one, and removes chains that it does not need.
                for ipv6 in [Ipv6Mode::Redirect, Ipv6Mode::Reject, Ipv6Mode::Bypass] {
                    let redirect = redirect(ipv6);
                    assert_ne!(change(socket, &redirect, layout), Change::None);
                    let tables = Tables::read(socket).unwrap();
                    let actual = listing(&tables, socket).unwrap();
                    let difference = expected_as(&redirect, layout).diff(&actual);
                    assert_eq!(difference, None, "{ipv6:?} {layout:?}");
                    assert_eq!(change(socket, &redirect, layout), Change::None);
                }
            }
        });
    }

    #[test]
    fn table_of_another_process_is_reported_as_owned() {
        const OWNER: u32 = 2;
        in_new_namespace(|socket| {
            let port = |number| (1..).nth(number).and_then(Port::new).unwrap();
            let long = Redirect {
                ports: (0..600).map(port).collect(),
                ..redirect(Ipv6Mode::Bypass)
            };
            let other = Socket::open().unwrap();
            let table = table_message(NEW_TABLE, Scope::Inet, NLM_F_CREATE)
                .with(|table| table.be32(TABLE_FLAGS, OWNER));
            other.transact(&[table]).unwrap();
            // The kernel refuses every message of the batch, and drops refusals that exceed
            // the socket's buffer.
            for redirect in [redirect(Ipv6Mode::Bypass), long.clone()] {
                let error = apply_as(socket, &redirect, Layout::Inet).unwrap_err();
                assert!(matches!(error, Error::Owned { .. }), "{error:?}");
            }
            drop(other);
            assert_eq!(change(socket, &long, Layout::Inet), Change::Created);
        });
    }

    #[test]
    fn remove_without_a_redirect_succeeds() {
        in_new_namespace(|socket| {
            assert!(!has_redirect(&remove().unwrap()));
            apply_as(socket, &redirect(Ipv6Mode::Reject), Layout::Split).unwrap();
            assert!(has_redirect(&remove().unwrap()));
            let tables = Tables::read(socket).unwrap();
            assert!(listing(&tables, socket).unwrap().is_empty());
        });
    }
}
