//! Converts rules to the expressions of `nf_tables`, the kernel's instructions for a rule, and
//! back. An encoder and decoder of bytes without input or output.
//! Formats: `linux/netfilter/nf_tables.h`.

use std::fmt;

use super::netlink::{Attributes, attribute, attributes, be32_attribute, string_attribute};
use crate::redirect::policy::{Cidr, Family, Port, Uid};
use crate::redirect::rules::{Action, Match, Rule, Scope};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
// Verdicts: those of netfilter, and those of `nf_tables`, which are negative.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const JUMP: u32 = 0xffff_fffd;
const GOTO: u32 = 0xffff_fffc;
const RETURN: u32 = 0xffff_fffb;
/// The register that holds a verdict.
const VERDICT_REGISTER: u32 = 0;
/// The only other register that msm-cni's rules use.
const REGISTER: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const META_IIF: u32 = 4;
const META_SKUID: u32 = 10;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
// Offsets in the network header.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;
const NFT_REJECT_TCP_RST: u32 = 1;
/// A flag that newer kernels add if a port is given.
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// The loopback interface is the first one of every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const FIN_SYN_RST_ACK: u8 = 0x17;
const SYN: u8 = 0x02;

/// One instruction of a rule. Values are loaded into register 1 and compared there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    Meta {
        key: u32,
    },
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Mask(Vec<u8>),
    Equal(Vec<u8>),
    Load(Vec<u8>),
    Return,
    Counter,
    Redirect,
    Reset,
    /// A verdict other than `Return`, and the chain to jump to.
    Verdict {
        code: u32,
        chain: Option<String>,
    },
    /// An expression, by name, that msm-cni's rules never contain.
    Other(String),
}

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
            // Implied by the condition that follows; the comparison below checks them.
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

/// Encodes the expressions as the value of a rule's attribute.
pub fn encode(expressions: &[Expression], list: &mut Attributes) {
    for expression in expressions {
        list.nest(NFTA_LIST_ELEM, |element| {
            element.string(NFTA_EXPR_NAME, expression.name());
            element.nest(NFTA_EXPR_DATA, |data| expression.encode(data));
        });
    }
}

/// Decodes such a value from a listing of the kernel.
pub fn decode(list: &[u8]) -> Vec<Expression> {
    attributes(list)
        .map(|element| {
            let name = string_attribute(element.value, NFTA_EXPR_NAME).unwrap_or("?");
            let data = attribute(element.value, NFTA_EXPR_DATA).unwrap_or_default();
            Expression::decode(name, data).unwrap_or_else(|| Expression::Other(name.to_owned()))
        })
        .collect()
}

// Attribute types, by expression.
const META_DREG: u16 = 1;
const META_KEY: u16 = 2;
const META_SREG: u16 = 3;
const PAYLOAD_DREG: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LEN: u16 = 4;
const BITWISE_SREG: u16 = 1;
const BITWISE_DREG: u16 = 2;
const BITWISE_LEN: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const BITWISE_OP: u16 = 6;
const CMP_SREG: u16 = 1;
const CMP_OP: u16 = 2;
const CMP_DATA: u16 = 3;
const IMMEDIATE_DREG: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const REDIR_PROTO_MIN: u16 = 1;
const REDIR_PROTO_MAX: u16 = 2;
const REDIR_FLAGS: u16 = 3;
const REJECT_TYPE: u16 = 1;

impl Expression {
    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Equal(_) => "cmp",
            Self::Load(_) | Self::Return | Self::Verdict { .. } => "immediate",
            Self::Counter => "counter",
            Self::Redirect => "redir",
            Self::Reset => "reject",
            Self::Other(name) => name,
        }
    }

    fn encode(&self, data: &mut Attributes) {
        match self {
            Self::Meta { key } => {
                data.be32(META_KEY, *key);
                data.be32(META_DREG, REGISTER);
            }
            Self::Payload {
                base,
                offset,
                length,
            } => {
                data.be32(PAYLOAD_DREG, REGISTER);
                data.be32(PAYLOAD_BASE, *base);
                data.be32(PAYLOAD_OFFSET, *offset);
                data.be32(PAYLOAD_LEN, *length);
            }
            Self::Mask(mask) => {
                data.be32(BITWISE_SREG, REGISTER);
                data.be32(BITWISE_DREG, REGISTER);
                data.length(BITWISE_LEN, mask.len());
                data.nest(BITWISE_MASK, |value| value.bytes(NFTA_DATA_VALUE, mask));
                data.nest(BITWISE_XOR, |value| {
                    value.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]);
                });
            }
            Self::Equal(bytes) => {
                data.be32(CMP_SREG, REGISTER);
                data.be32(CMP_OP, NFT_CMP_EQ);
                data.nest(CMP_DATA, |value| value.bytes(NFTA_DATA_VALUE, bytes));
            }
            Self::Load(bytes) => {
                data.be32(IMMEDIATE_DREG, REGISTER);
                data.nest(IMMEDIATE_DATA, |value| value.bytes(NFTA_DATA_VALUE, bytes));
            }
            Self::Return => encode_verdict(RETURN, None, data),
            Self::Verdict { code, chain } => encode_verdict(*code, chain.as_deref(), data),
            Self::Redirect => data.be32(REDIR_PROTO_MIN, REGISTER),
            Self::Reset => data.be32(REJECT_TYPE, NFT_REJECT_TCP_RST),
            Self::Counter | Self::Other(_) => {}
        }
    }

    /// `None` for parameters that `encode` never writes.
    fn decode(name: &str, data: &[u8]) -> Option<Self> {
        let number = |kind| be32_attribute(data, kind);
        let value =
            |kind| attribute(data, kind).and_then(|nested| attribute(nested, NFTA_DATA_VALUE));
        let in_register = |kind| (number(kind)? == REGISTER).then_some(());
        match name {
            "meta" if number(META_SREG).is_none() => {
                in_register(META_DREG)?;
                Some(Self::Meta {
                    key: number(META_KEY)?,
                })
            }
            "payload" => {
                in_register(PAYLOAD_DREG)?;
                Some(Self::Payload {
                    base: number(PAYLOAD_BASE)?,
                    offset: number(PAYLOAD_OFFSET)?,
                    length: number(PAYLOAD_LEN)?,
                })
            }
            // Operation 0 is mask-and-xor; kernels before 5.6 have no other and list none.
            "bitwise" if number(BITWISE_OP).unwrap_or(0) == 0 => {
                in_register(BITWISE_SREG)?;
                in_register(BITWISE_DREG)?;
                let plain = value(BITWISE_XOR)?.iter().all(|byte| *byte == 0);
                plain.then_some(Self::Mask(value(BITWISE_MASK)?.to_vec()))
            }
            "cmp" => {
                in_register(CMP_SREG)?;
                let equal = number(CMP_OP)? == NFT_CMP_EQ;
                equal.then_some(Self::Equal(value(CMP_DATA)?.to_vec()))
            }
            "immediate" if number(IMMEDIATE_DREG)? == VERDICT_REGISTER => {
                let verdict = attribute(attribute(data, IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
                Some(match be32_attribute(verdict, NFTA_VERDICT_CODE)? {
                    RETURN => Self::Return,
                    code => Self::Verdict {
                        code,
                        chain: string_attribute(verdict, NFTA_VERDICT_CHAIN).map(str::to_owned),
                    },
                })
            }
            "immediate" => {
                in_register(IMMEDIATE_DREG)?;
                Some(Self::Load(value(IMMEDIATE_DATA)?.to_vec()))
            }
            "counter" => Some(Self::Counter),
            "redir" => {
                in_register(REDIR_PROTO_MIN)?;
                let one_port = number(REDIR_PROTO_MAX).is_none_or(|register| register == REGISTER);
                let flags = number(REDIR_FLAGS).unwrap_or(0);
                let plain = matches!(flags, 0 | NF_NAT_RANGE_PROTO_SPECIFIED);
                (one_port && plain).then_some(Self::Redirect)
            }
            "reject" => (number(REJECT_TYPE)? == NFT_REJECT_TCP_RST).then_some(Self::Reset),
            _ => None,
        }
    }
}

fn encode_verdict(code: u32, chain: Option<&str>, data: &mut Attributes) {
    data.be32(IMMEDIATE_DREG, VERDICT_REGISTER);
    data.nest(IMMEDIATE_DATA, |value| {
        value.nest(NFTA_DATA_VERDICT, |verdict| {
            verdict.be32(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                verdict.string(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

/// Similar to `nft --debug=netlink`; for rules that `decompile` does not know.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(String::from("0x"), |hex, byte| hex + &format!("{byte:02x}"))
        };
        match self {
            Self::Meta { key } => write!(f, "[meta load {key}]"),
            Self::Payload {
                base,
                offset,
                length,
            } => write!(f, "[payload load {length}b @ header {base} + {offset}]"),
            Self::Mask(mask) => write!(f, "[bitwise & {}]", hex(mask)),
            Self::Equal(bytes) => write!(f, "[cmp eq {}]", hex(bytes)),
            Self::Load(bytes) => write!(f, "[immediate {}]", hex(bytes)),
            Self::Return => write!(f, "[return]"),
            Self::Counter | Self::Redirect | Self::Reset => write!(f, "[{}]", self.name()),
            Self::Verdict { code, chain } => {
                let chain = chain.as_deref().unwrap_or_default();
                match *code {
                    JUMP => write!(f, "[jump {chain}]"),
                    GOTO => write!(f, "[goto {chain}]"),
                    DROP => write!(f, "[drop]"),
                    ACCEPT => write!(f, "[accept]"),
                    code => write!(f, "[verdict {}]", code.cast_signed()),
                }
            }
            // A known name with unknown parameters is possible.
            Self::Other(name) => write!(f, "[other {name}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::nft::tests::redirect;
    use crate::redirect::policy::Ipv6Mode;
    use crate::redirect::rules::RuleSet;

    fn every_rule_set() -> impl Iterator<Item = RuleSet> {
        let modes = [Ipv6Mode::Bypass, Ipv6Mode::Redirect, Ipv6Mode::Reject];
        let scopes = [
            Scope::Inet,
            Scope::Only(Family::Ipv4),
            Scope::Only(Family::Ipv6),
        ];
        modes.into_iter().flat_map(move |ipv6| {
            let redirect = redirect(ipv6);
            scopes
                .into_iter()
                .filter_map(move |scope| RuleSet::new(&redirect, scope))
        })
    }

    #[test]
    fn every_rule_survives_encoding_and_decoding() {
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
