//! Reads tables, chains and rules from the kernel's listings and converts them to text.
//! Formats: `linux/netfilter/nf_tables.h`.

use super::attributes::{attribute, be32_attribute, string_attribute};
use super::compile::decompile;
use super::error::Error;
use super::expression::{Expression, decode};
use super::netlink::{Message, Object, Socket};
use super::wire::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, GET_CHAIN, GET_RULE, GET_TABLE,
    HOOK_NUMBER, HOOK_PRIORITY, POLICY_ACCEPT, RULE_CHAIN, RULE_EXPRESSIONS, RULE_TABLE,
    RULE_USERDATA, TABLE_FLAGS, TABLE_NAME, protocol,
};
use crate::names::TABLE;
use crate::redirect::diff::Listed;
use crate::redirect::id::Id;
use crate::redirect::rules::{Hook, Scope};

/// The type of a rule's comment in its user data (libnftnl's `NFTNL_UDATA_RULE_COMMENT`).
const COMMENT: u8 = 0;
/// Replaces a name that is not UTF-8, which the kernel accepts.
const UNREADABLE: &str = "?";
/// Table flags by bit. msm-cni sets none: `dormant` disables a table, `owner` removes it
/// when the process that created it exits.
const FLAGS: [&str; 3] = ["dormant", "owner", "persist"];

/// The tables of a network namespace, including those of other components.
#[derive(Debug, Default)]
pub struct Tables(Vec<Table>);

#[derive(Debug)]
struct Table {
    /// `NFPROTO_*`.
    protocol: u8,
    name: String,
    flags: u32,
}

/// A rule as the kernel lists it.
pub struct ListedRule {
    pub chain: String,
    pub expressions: Vec<Expression>,
    comment: Option<String>,
}

impl Tables {
    pub fn read(socket: &Socket) -> Result<Self, Error> {
        let every_family = Message::new(GET_TABLE, 0, 0);
        let tables = socket.list(&every_family).map_err(Error::listing)?;
        let table = |object: &Object| {
            Some(Table {
                protocol: object.family,
                name: string_attribute(&object.attributes, TABLE_NAME)?.to_owned(),
                flags: be32_attribute(&object.attributes, TABLE_FLAGS).unwrap_or(0),
            })
        };
        Ok(Self(tables.iter().filter_map(table).collect()))
    }

    pub fn contains(&self, scope: Scope, name: &str) -> bool {
        self.get(scope, name).is_some()
    }

    /// The table of msm-cni in that family.
    pub fn ours(&self, scope: Scope) -> Option<Listed> {
        self.get(scope, TABLE)
            .map(|table| listed_table(scope, table.flags))
    }

    fn get(&self, scope: Scope, name: &str) -> Option<&Table> {
        let mut tables = self.0.iter();
        tables.find(|table| table.protocol == protocol(scope) && table.name == name)
    }
}

/// A table of msm-cni with these flags.
pub fn listed_table(scope: Scope, flags: u32) -> Listed {
    let is_set = |(bit, _): &(usize, &str)| flags >> bit & 1 == 1;
    let flags = FLAGS.into_iter().enumerate().filter(is_set);
    let flags: Vec<_> = flags.map(|(_, flag)| flag).collect();
    Listed {
        id: Id::Table(scope),
        heading: if flags.is_empty() {
            "no flags".into()
        } else {
            format!("flags {}", flags.join(","))
        },
        rules: Vec::new(),
    }
}

/// The chains of msm-cni's table in that family, with their rules.
pub fn chains(socket: &Socket, scope: Scope) -> Result<Vec<Listed>, Error> {
    let rules = rules(socket, scope)?;
    let request = Message::new(GET_CHAIN, protocol(scope), 0);
    let chains = socket.list(&request).map_err(Error::listing)?;
    let listed = |object: &Object| {
        let object = &object.attributes;
        if string_attribute(object, CHAIN_TABLE)? != TABLE {
            return None;
        }
        let chain = string_attribute(object, CHAIN_NAME).unwrap_or(UNREADABLE);
        let rules = rules.iter().filter(|rule| rule.chain == chain);
        Some(Listed {
            id: Id::Chain {
                scope,
                chain: chain.to_owned(),
            },
            heading: heading(object),
            rules: rules.map(|rule| rule.text(scope)).collect(),
        })
    };
    Ok(chains.iter().filter_map(listed).collect())
}

/// The rules of msm-cni's table in that family.
pub fn rules(socket: &Socket, scope: Scope) -> Result<Vec<ListedRule>, Error> {
    let request = Message::new(GET_RULE, protocol(scope), 0)
        .with(|attributes| attributes.string(RULE_TABLE, TABLE));
    let rules = socket.list(&request).map_err(Error::listing)?;
    let listed = |object: &Object| {
        let object = &object.attributes;
        // Older kernels ignore the filter of the request.
        if string_attribute(object, RULE_TABLE)? != TABLE {
            return None;
        }
        let chain = string_attribute(object, RULE_CHAIN).unwrap_or(UNREADABLE);
        Some(ListedRule {
            chain: chain.to_owned(),
            expressions: decode(attribute(object, RULE_EXPRESSIONS).unwrap_or_default()),
            comment: attribute(object, RULE_USERDATA).and_then(comment),
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

/// The comment in a rule's user data: type, length, text and a zero byte.
fn comment(userdata: &[u8]) -> Option<String> {
    match userdata {
        [COMMENT, _, text @ .., 0] => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// The type, hook, priority and policy of a chain as `nft` prints them; empty if it is not a
/// base chain. `chain`: its attributes.
pub fn heading(chain: &[u8]) -> String {
    let Some(hook) = attribute(chain, CHAIN_HOOK) else {
        return String::new();
    };
    let heading = || {
        let chain_type = string_attribute(chain, CHAIN_TYPE)?;
        let priority = be32_attribute(hook, HOOK_PRIORITY)?.cast_signed();
        let hook = Hook::from_number(be32_attribute(hook, HOOK_NUMBER)?)?;
        let policy = match be32_attribute(chain, CHAIN_POLICY)? {
            POLICY_ACCEPT => "accept",
            _ => "drop",
        };
        Some(format!(
            "type {chain_type} hook {hook} priority {priority}; policy {policy};"
        ))
    };
    heading().unwrap_or_else(|| "unknown hook".into())
}
