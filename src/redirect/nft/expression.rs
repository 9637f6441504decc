//! The expressions of `nf_tables`, which are the kernel's instructions for a rule: encoding,
//! decoding and a readable form. Pure. Formats: `linux/netfilter/nf_tables.h`.

use std::fmt;

use super::attributes::{Attributes, attribute, attributes, be32_attribute, string_attribute};

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
const NFT_REJECT_TCP_RST: u32 = 1;
/// A flag that newer kernels add if a port is given.
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;

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
