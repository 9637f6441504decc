//! Messages of the `nf_tables` netlink protocol, and transactions of them.
//! Formats: `linux/netfilter/nf_tables.h`.

use std::fmt;

use nix::errno::Errno;

use super::compile::compile;
use super::error::Error;
use super::expression::encode;
use super::netlink::{self, Message, NLM_F_APPEND, NLM_F_CREATE, Socket};
use crate::names::TABLE;
use crate::redirect::policy::Family;
use crate::redirect::rules::{Action, Chain, Role, Rule, RuleSet, Scope};

pub const NEW_TABLE: u8 = 0;
pub const GET_TABLE: u8 = 1;
pub const DELETE_TABLE: u8 = 2;
pub const NEW_CHAIN: u8 = 3;
pub const GET_CHAIN: u8 = 4;
pub const NEW_RULE: u8 = 6;
pub const GET_RULE: u8 = 7;
pub const TABLE_NAME: u16 = 1;
pub const TABLE_FLAGS: u16 = 2;
pub const CHAIN_TABLE: u16 = 1;
pub const CHAIN_NAME: u16 = 3;
pub const CHAIN_HOOK: u16 = 4;
pub const CHAIN_POLICY: u16 = 5;
pub const CHAIN_TYPE: u16 = 7;
pub const HOOK_NUMBER: u16 = 1;
pub const HOOK_PRIORITY: u16 = 2;
pub const RULE_TABLE: u16 = 1;
pub const RULE_CHAIN: u16 = 2;
pub const RULE_EXPRESSIONS: u16 = 4;
pub const RULE_USERDATA: u16 = 7;
pub const POLICY_ACCEPT: u32 = 1;

/// Messages that the kernel applies all or none of.
#[derive(Default)]
pub struct Batch {
    messages: Vec<Message>,
    /// The subject of each message, in the same order.
    subjects: Vec<(Scope, Subject)>,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Creation,
    Removal,
    Chain(Role),
    Rule {
        role: Role,
        /// Counts from 1.
        number: usize,
        action: Action,
    },
}

impl Batch {
    pub const fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Creates a table with its chains and rules. `flags`: those of the table's message.
    pub fn create(&mut self, set: &RuleSet, flags: u16) {
        let scope = set.scope;
        let table = table_message(NEW_TABLE, scope, flags);
        self.push(scope, Subject::Creation, table);
        for chain in &set.chains {
            let role = chain.role;
            self.push(scope, Subject::Chain(role), chain_message(scope, chain));
            for (number, rule) in (1..).zip(&chain.rules) {
                let action = rule.action;
                let subject = Subject::Rule {
                    role,
                    number,
                    action,
                };
                self.push(scope, subject, rule_message(scope, role, rule));
            }
        }
    }

    /// Removes a table, which need not exist: it is created first.
    pub fn remove(&mut self, scope: Scope) {
        let create = table_message(NEW_TABLE, scope, NLM_F_CREATE);
        self.push(scope, Subject::Removal, create);
        let delete = table_message(DELETE_TABLE, scope, 0);
        self.push(scope, Subject::Removal, delete);
    }

    pub fn commit(&self, socket: &Socket) -> Result<(), Error> {
        socket
            .transact(&self.messages)
            .map_err(|source| self.explain(source))
    }

    fn push(&mut self, scope: Scope, subject: Subject, message: Message) {
        self.messages.push(message);
        self.subjects.push((scope, subject));
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
            // The chain type, expression or family is unknown: not compiled in, or its module
            // cannot be loaded.
            Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
                let what = format!("{what} of table {table}");
                Error::Unsupported { what, source }
            }
            // Without the capability the kernel refuses the transaction, not one message.
            Errno::EPERM if subject.is_some() => Error::Owned { table },
            Errno::EPERM => Error::NotPermitted { source: errno },
            errno => Error::Rejected {
                what,
                table,
                source: errno,
            },
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Creation => write!(f, "the creation"),
            Self::Removal => write!(f, "the removal"),
            Self::Chain(role) => write!(f, "{} chain {}", role.chain_type(), role.name()),
            Self::Rule {
                role,
                number,
                action,
            } => write!(f, "rule {number} (`{action}`) of chain {}", role.name()),
        }
    }
}

/// `NFPROTO_*`.
pub const fn protocol(scope: Scope) -> u8 {
    match scope {
        Scope::Inet => 1,
        Scope::Only(Family::Ipv4) => 2,
        Scope::Only(Family::Ipv6) => 10,
    }
}

pub fn table_message(kind: u8, scope: Scope, flags: u16) -> Message {
    Message::new(kind, protocol(scope), flags)
        .with(|attributes| attributes.string(TABLE_NAME, TABLE))
}

fn chain_message(scope: Scope, chain: &Chain) -> Message {
    Message::new(NEW_CHAIN, protocol(scope), NLM_F_CREATE).with(|attributes| {
        let role = chain.role;
        attributes.string(CHAIN_TABLE, TABLE);
        attributes.string(CHAIN_NAME, role.name());
        attributes.nest(CHAIN_HOOK, |nested| {
            nested.be32(HOOK_NUMBER, role.hook().number());
            nested.be32(HOOK_PRIORITY, role.priority().cast_unsigned());
        });
        attributes.be32(CHAIN_POLICY, POLICY_ACCEPT);
        attributes.string(CHAIN_TYPE, role.chain_type());
    })
}

fn rule_message(scope: Scope, role: Role, rule: &Rule) -> Message {
    Message::new(NEW_RULE, protocol(scope), NLM_F_CREATE | NLM_F_APPEND).with(|attributes| {
        attributes.string(RULE_TABLE, TABLE);
        attributes.string(RULE_CHAIN, role.name());
        attributes.nest(RULE_EXPRESSIONS, |list| encode(&compile(rule, scope), list));
    })
}

fn table_name(scope: Scope) -> String {
    format!("{} {TABLE}", scope.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::nft::tests::redirect;
    use crate::redirect::policy::Ipv6Mode;

    #[test]
    fn unsupported_part_is_named() {
        let mut batch = Batch::default();
        let set = RuleSet::new(&redirect(Ipv6Mode::Reject), Scope::Inet).unwrap();
        batch.create(&set, NLM_F_CREATE);
        for name in [
            "the creation",
            "nat chain output",
            "rule 3 (`counter redirect to :8554`) of chain prerouting",
            "rule 7 (`counter reject with tcp reset`) of chain reject_output",
        ] {
            let has_name = |(_, subject): &(Scope, Subject)| subject.to_string() == name;
            let request = batch.subjects.iter().position(has_name);
            assert!(request.is_some(), "{name}: {:?}", batch.subjects);
            let source = Errno::ENOENT;
            let error = batch.explain(netlink::Error::Refused { request, source });
            assert!(error.is_unsupported(), "{error:?}");
            assert_eq!(
                error.to_string(),
                format!("the kernel does not support {name} of table inet msm_cni")
            );
        }
    }
}
