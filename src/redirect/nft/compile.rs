//! Compiles rules to expressions of `nf_tables`, and decompiles expressions to rules. Pure.
//! Formats: `linux/netfilter/nf_tables.h`.

use super::expression::Expression;
use crate::redirect::policy::{Cidr, Family, Port, Uid};
use crate::redirect::rules::{Action, Match, Rule, Scope};

const META_IIF: u32 = 4;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
// Offsets in the network header.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The loopback interface is the first one of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

/// The expressions of `rule` in a table of `scope`.
pub fn compile(rule: &Rule, scope: Scope) -> Vec<Expression> {
    let mut expressions = Vec::with_capacity(8);
    let mut transport_known = false;
    for condition in &rule.matches {
        if matches!(condition, Match::TcpPort(_)) {
            expressions.extend(is_tcp());
            transport_known = true;
        } else if matches!(condition, Match::TcpSyn) && !transport_known {
            expressions.extend(is_tcp());
        }
        expressions.extend(condition_expressions(*condition, scope));
    }
    match rule.action {
        Action::Return => expressions.push(Expression::Return),
        Action::Redirect(port) => expressions.extend([
            Expression::Counter,
            Expression::Load(port.get().to_be_bytes().to_vec()),
            Expression::Redirect,
        ]),
        Action::Reject => expressions.extend([Expression::Counter, Expression::Reset]),
    }
    expressions
}

fn is_tcp() -> [Expression; 2] {
    [
        Expression::Meta { key: META_L4PROTO },
        Expression::Equal(vec![IPPROTO_TCP]),
    ]
}

fn is_family(family: Family) -> [Expression; 2] {
    let number = match family {
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Ipv6 => NFPROTO_IPV6,
    };
    [
        Expression::Meta { key: META_NFPROTO },
        Expression::Equal(vec![number]),
    ]
}

fn condition_expressions(condition: Match, scope: Scope) -> Vec<Expression> {
    match condition {
        Match::Family(family) => is_family(family).into(),
        Match::Loopback => vec![
            Expression::Meta { key: META_IIF },
            Expression::Equal(LOOPBACK_INDEX.to_ne_bytes().to_vec()),
        ],
        Match::Destination(cidr) => destination(&cidr, scope),
        // Not from a packet, so in host byte order.
        Match::Uid(uid) => vec![
            Expression::Meta { key: META_SKUID },
            Expression::Equal(uid.get().to_ne_bytes().to_vec()),
        ],
        Match::TcpPort(port) => vec![
            Expression::Payload {
                base: TRANSPORT_HEADER,
                offset: 2,
                length: 2,
            },
            Expression::Equal(port.get().to_be_bytes().to_vec()),
        ],
        Match::TcpSyn => vec![
            Expression::Payload {
                base: TRANSPORT_HEADER,
                offset: 13,
                length: 1,
            },
            Expression::Mask(vec![FIN_SYN_RST_ACK]),
            Expression::Equal(vec![SYN]),
        ],
    }
}

fn destination(cidr: &Cidr, scope: Scope) -> Vec<Expression> {
    let mut expressions = Vec::with_capacity(5);
    if scope == Scope::Inet {
        expressions.extend(is_family(cidr.family()));
    }
    let (offset, length) = match cidr.family() {
        Family::Ipv4 => (IPV4_DESTINATION, 4),
        Family::Ipv6 => (IPV6_DESTINATION, 16),
    };
    let prefix_bytes = u32::from(cidr.prefix() / 8);
    let (octets, base) = (cidr.octets(), NETWORK_HEADER);
    // Like nft: a prefix of whole bytes needs no mask.
    if cidr.prefix() > 0 && cidr.prefix().is_multiple_of(8) {
        expressions.push(Expression::Payload {
            base,
            offset,
            length: prefix_bytes,
        });
        let prefix = octets.into_iter().zip(0..prefix_bytes);
        expressions.push(Expression::Equal(prefix.map(|(octet, _)| octet).collect()));
    } else {
        expressions.push(Expression::Payload {
            base,
            offset,
            length,
        });
        expressions.push(Expression::Mask(cidr.mask_octets()));
        expressions.push(Expression::Equal(octets));
    }
    expressions
}

/// The rule that compiles to exactly these expressions, if there is one.
pub fn decompile(expressions: &[Expression], scope: Scope) -> Option<Rule> {
    let mut matches = Vec::new();
    let mut rest = expressions;
    let action = loop {
        rest = match rest {
            [Expression::Return] => break Action::Return,
            [
                Expression::Counter,
                Expression::Load(port),
                Expression::Redirect,
            ] => {
                break Action::Redirect(port_of(port)?);
            }
            [Expression::Counter, Expression::Reset] => break Action::Reject,
            // Implied by the condition that follows; compiling the rule again checks them.
            [
                Expression::Meta { key: META_L4PROTO },
                Expression::Equal(_),
                rest @ ..,
            ] => rest,
            [
                Expression::Meta { key: META_NFPROTO },
                Expression::Equal(_),
                rest @ ..,
            ] if matches!(
                rest,
                [
                    Expression::Payload {
                        base: NETWORK_HEADER,
                        ..
                    },
                    ..
                ]
            ) =>
            {
                rest
            }
            rest => {
                let (condition, remaining) = decompile_condition(rest)?;
                matches.push(condition);
                remaining
            }
        };
    };
    let rule = Rule { matches, action };
    (compile(&rule, scope) == expressions).then_some(rule)
}

fn decompile_condition(expressions: &[Expression]) -> Option<(Match, &[Expression])> {
    Some(match expressions {
        [
            Expression::Meta { key: META_NFPROTO },
            Expression::Equal(family),
            rest @ ..,
        ] => match family.as_slice() {
            [NFPROTO_IPV4] => (Match::Family(Family::Ipv4), rest),
            [NFPROTO_IPV6] => (Match::Family(Family::Ipv6), rest),
            _ => return None,
        },
        [
            Expression::Meta { key: META_IIF },
            Expression::Equal(_),
            rest @ ..,
        ] => (Match::Loopback, rest),
        [
            Expression::Meta { key: META_SKUID },
            Expression::Equal(uid),
            rest @ ..,
        ] => {
            let uid = Uid::new(u32::from_ne_bytes(uid.as_slice().try_into().ok()?))?;
            (Match::Uid(uid), rest)
        }
        [
            Expression::Payload {
                base: NETWORK_HEADER,
                ..
            },
            Expression::Mask(mask),
            Expression::Equal(address),
            rest @ ..,
        ] => (Match::Destination(Cidr::from_octets(address, mask)?), rest),
        [
            Expression::Payload {
                base: NETWORK_HEADER,
                offset,
                ..
            },
            Expression::Equal(prefix),
            rest @ ..,
        ] => {
            let length = if *offset == IPV4_DESTINATION { 4 } else { 16 };
            let padded = |fill: u8| -> Vec<u8> {
                let zeros = std::iter::repeat(0);
                let bytes = prefix.iter().map(|byte| byte | fill);
                bytes.chain(zeros).take(length).collect()
            };
            let cidr = Cidr::from_octets(&padded(0), &padded(u8::MAX))?;
            (Match::Destination(cidr), rest)
        }
        [
            Expression::Payload {
                base: TRANSPORT_HEADER,
                offset: 2,
                ..
            },
            Expression::Equal(port),
            rest @ ..,
        ] => (Match::TcpPort(port_of(port)?), rest),
        [
            Expression::Payload {
                base: TRANSPORT_HEADER,
                ..
            },
            Expression::Mask(_),
            Expression::Equal(_),
            rest @ ..,
        ] => (Match::TcpSyn, rest),
        _ => return None,
    })
}

fn port_of(octets: &[u8]) -> Option<Port> {
    Port::new(u16::from_be_bytes(octets.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::nft::attributes::Attributes;
    use crate::redirect::nft::expression::{decode, encode};
    use crate::redirect::nft::tests::redirect;
    use crate::redirect::policy::Ipv6Mode;
    use crate::redirect::rules::RuleSet;

    fn every_rule_set() -> impl Iterator<Item = RuleSet> {
        let modes = [Ipv6Mode::Bypass, Ipv6Mode::Redirect, Ipv6Mode::Reject];
        modes.into_iter().flat_map(|ipv6| {
            let redirect = redirect(ipv6);
            Scope::ALL
                .into_iter()
                .filter_map(move |scope| RuleSet::new(&redirect, scope))
        })
    }

    #[test]
    fn decoded_rules_equal_encoded_rules() {
        for set in every_rule_set() {
            for rule in set.chains.iter().flat_map(|chain| &chain.rules) {
                let expressions = compile(rule, set.scope);
                let mut list = Attributes::default();
                encode(&expressions, &mut list);
                let decoded = decode(list.as_bytes().unwrap());
                assert_eq!(decoded, expressions, "{rule}");
                assert_eq!(
                    decompile(&decoded, set.scope).as_ref(),
                    Some(rule),
                    "{rule}"
                );
            }
        }
    }

    #[test]
    fn changed_rule_is_not_recognised() {
        for set in every_rule_set() {
            for rule in set.chains.iter().flat_map(|chain| &chain.rules) {
                let expressions = compile(rule, set.scope);
                for index in 0..expressions.len() {
                    let mut fewer = expressions.clone();
                    fewer.remove(index);
                    assert_ne!(
                        decompile(&fewer, set.scope).as_ref(),
                        Some(rule),
                        "{rule} without expression {index}"
                    );
                    let mut other = expressions.clone();
                    other[index] = Expression::Other("quota".into());
                    assert_eq!(
                        decompile(&other, set.scope),
                        None,
                        "{rule} with another expression {index}"
                    );
                }
            }
        }
    }
}
