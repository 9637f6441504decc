//! The tables and chains of msm-cni as text, and the first difference between the expected
//! and the actual ones. Pure; both backends convert their rules to this form.

use std::fmt;

use super::id::Id;

/// Tables and chains, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(pub Vec<Listed>);

/// One table or chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: Id,
    /// The flags of a table; the hook of a chain, or the jumps to it. Empty if a chain has
    /// neither.
    pub heading: String,
    /// The rules of a chain, in order.
    pub rules: Vec<String>,
}

/// The first difference between two listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Boxed to keep errors small.
    id: Box<Id>,
    kind: Kind,
}

/// A `number` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// There is no table or chain of msm-cni; this is the first one expected.
    NoRedirect,
    Missing,
    Unexpected,
    Heading {
        expected: String,
        actual: String,
    },
    Rule {
        number: usize,
        expected: String,
        actual: String,
    },
    MissingRule {
        number: usize,
        expected: String,
    },
    UnexpectedRule {
        number: usize,
        actual: String,
    },
}

/// What `apply` changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The rules existed already.
    None,
    Created,
    /// Other rules of msm-cni existed before.
    Replaced,
}

impl Listing {
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first difference; `None` if both have the same tables and chains with the same
    /// rules in the same order. `self` is the expected listing.
    pub fn diff(&self, actual: &Self) -> Option<Difference> {
        if let ([first, ..], []) = (self.0.as_slice(), actual.0.as_slice()) {
            return Some(first.differs(Kind::NoRedirect));
        }
        let difference = |expected: &Listed| match actual.get(&expected.id) {
            None => Some(expected.differs(Kind::Missing)),
            Some(actual) => expected.diff(actual),
        };
        let unexpected = || {
            let mut actual = actual.0.iter();
            let unexpected = actual.find(|actual| self.get(&actual.id).is_none())?;
            Some(unexpected.differs(Kind::Unexpected))
        };
        self.0.iter().find_map(difference).or_else(unexpected)
    }

    pub fn get(&self, id: &Id) -> Option<&Listed> {
        self.0.iter().find(|listed| listed.id == *id)
    }
}

impl Listed {
    fn diff(&self, actual: &Self) -> Option<Difference> {
        if self.heading != actual.heading {
            return Some(self.differs(Kind::Heading {
                expected: self.heading.clone(),
                actual: actual.heading.clone(),
            }));
        }
        let length = self.rules.len().max(actual.rules.len());
        let index = (0..length).find(|index| self.rules.get(*index) != actual.rules.get(*index))?;
        let number = index + 1;
        let rule = |listed: &Self| listed.rules.get(index).cloned();
        let kind = match (rule(self), rule(actual)) {
            (Some(expected), Some(actual)) => Kind::Rule {
                number,
                expected,
                actual,
            },
            (Some(expected), None) => Kind::MissingRule { number, expected },
            (None, actual) => Kind::UnexpectedRule {
                number,
                actual: actual?,
            },
        };
        Some(self.differs(kind))
    }

    fn differs(&self, kind: Kind) -> Difference {
        Difference {
            id: Box::new(self.id.clone()),
            kind,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let id = &self.id;
        match &self.kind {
            Kind::NoRedirect => write!(f, "no redirect: {id} is missing"),
            Kind::Missing => write!(f, "{id} is missing"),
            Kind::Unexpected => write!(f, "unexpected {id}"),
            Kind::Heading { expected, actual } if actual.is_empty() => match **id {
                Id::IptablesChain { .. } => {
                    write!(f, "no rule jumps to {id}: `{expected}` is missing")
                }
                Id::Table(_) | Id::Chain { .. } => {
                    write!(f, "{id} is not a base chain: `{expected}` is missing")
                }
            },
            Kind::Heading { expected, actual } => {
                write!(f, "{id} has `{actual}` instead of `{expected}`")
            }
            Kind::Rule {
                number,
                expected,
                actual,
            } => write!(
                f,
                "rule {number} of {id} is `{actual}` instead of `{expected}`"
            ),
            Kind::MissingRule { number, expected } => {
                write!(f, "rule {number} of {id} is missing: `{expected}`")
            }
            Kind::UnexpectedRule { number, actual } => {
                write!(f, "unexpected rule {number} of {id}: `{actual}`")
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::None => "rules unchanged",
            Self::Created => "rules created",
            Self::Replaced => "rules replaced",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::id::Variant;
    use crate::redirect::policy::Family;
    use crate::redirect::rules::Scope;

    fn chain(chain: &str, heading: &str, rules: &[&str]) -> Listed {
        Listed {
            id: Id::Chain {
                scope: Scope::Inet,
                chain: chain.into(),
            },
            heading: heading.into(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        }
    }

    fn output(rules: &[&str]) -> Listing {
        Listing(vec![chain("output", "nat", rules)])
    }

    fn sentence(expected: &Listing, actual: &Listing) -> Option<String> {
        expected
            .diff(actual)
            .map(|difference| difference.to_string())
    }

    #[test]
    fn first_difference_is_named() {
        let expected = output(&["a", "b", "c"]);
        let with_input = Listing(
            [chain("input", "", &[])]
                .into_iter()
                .chain(expected.0.clone())
                .collect(),
        );
        for (actual, difference) in [
            (
                Listing::default(),
                "no redirect: chain inet msm_cni output is missing",
            ),
            (
                Listing(vec![chain("input", "nat", &[])]),
                "chain inet msm_cni output is missing",
            ),
            (with_input, "unexpected chain inet msm_cni input"),
            (
                Listing(vec![chain("output", "filter", &[])]),
                "chain inet msm_cni output has `filter` instead of `nat`",
            ),
            (
                Listing(vec![chain("output", "", &[])]),
                "chain inet msm_cni output is not a base chain: `nat` is missing",
            ),
            (
                output(&["a", "c"]),
                "rule 2 of chain inet msm_cni output is `c` instead of `b`",
            ),
            (
                output(&["b", "a", "c"]),
                "rule 1 of chain inet msm_cni output is `b` instead of `a`",
            ),
            (
                output(&["a", "b"]),
                "rule 3 of chain inet msm_cni output is missing: `c`",
            ),
            (
                output(&["a", "b", "c", "d"]),
                "unexpected rule 4 of chain inet msm_cni output: `d`",
            ),
        ] {
            assert_eq!(sentence(&expected, &actual).as_deref(), Some(difference));
        }
    }

    #[test]
    fn equal_listings_do_not_differ() {
        let (expected, nothing) = (output(&["a"]), Listing::default());
        assert_eq!(expected.diff(&expected), None);
        assert_eq!(nothing.diff(&nothing), None);
        assert!(nothing.diff(&expected).is_some());
    }

    #[test]
    fn iptables_chain_without_a_jump_is_named() {
        let listing = |heading: &str| {
            Listing(vec![Listed {
                id: Id::IptablesChain {
                    variant: Variant::Legacy,
                    family: Family::Ipv6,
                    table: "nat".into(),
                    chain: "MSM_CNI_OUTPUT".into(),
                },
                heading: heading.into(),
                rules: Vec::new(),
            }])
        };
        assert_eq!(
            sentence(&listing("-A OUTPUT -j MSM_CNI_OUTPUT"), &listing("")).as_deref(),
            Some(
                "no rule jumps to chain MSM_CNI_OUTPUT in table nat of ip6tables-legacy: \
                 `-A OUTPUT -j MSM_CNI_OUTPUT` is missing"
            )
        );
    }
}
