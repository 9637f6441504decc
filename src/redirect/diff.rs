//! What our tables and chains hold, as text, and the first place where two such listings
//! differ. Pure; both backends bring what they want and what they found into this form.

use std::fmt;

/// Our tables and chains, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(pub Vec<Listed>);

/// One table or chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which one it is and where, as a person would look for it.
    pub name: String,
    /// A table's flags; how a chain is attached to the kernel, empty if it is not.
    pub heading: String,
    /// A chain's rules, in order.
    pub rules: Vec<String>,
}

/// Where what was found first differs from what was wanted. A `number` counts from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// There is nothing, not even the first that was wanted.
    Nothing {
        first: String,
    },
    Missing {
        name: String,
    },
    Extra {
        name: String,
    },
    Heading {
        name: String,
        wanted: String,
        found: String,
    },
    Rule {
        name: String,
        number: usize,
        wanted: String,
        found: String,
    },
    MissingRule {
        name: String,
        number: usize,
        wanted: String,
    },
    ExtraRule {
        name: String,
        number: usize,
        found: String,
    },
}

impl Listing {
    /// Whether there is nothing of ours.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first difference; `None` when both hold the same chains with the same rules in
    /// the same order.
    pub fn first_difference(&self, found: &Self) -> Option<Difference> {
        if let ([first, ..], []) = (self.0.as_slice(), found.0.as_slice()) {
            let first = first.name.clone();
            return Some(Difference::Nothing { first });
        }
        let difference = |wanted: &Listed| match found.named(&wanted.name) {
            None => Some(Difference::Missing {
                name: wanted.name.clone(),
            }),
            Some(found) => wanted.first_difference(found),
        };
        let extra = || {
            let is_extra = |found: &&Listed| self.named(&found.name).is_none();
            let name = found.0.iter().find(is_extra)?.name.clone();
            Some(Difference::Extra { name })
        };
        self.0.iter().find_map(difference).or_else(extra)
    }

    /// The table or chain of that name.
    pub fn named(&self, name: &str) -> Option<&Listed> {
        self.0.iter().find(|listed| listed.name == name)
    }
}

impl Listed {
    fn first_difference(&self, found: &Self) -> Option<Difference> {
        let name = self.name.clone();
        if self.heading != found.heading {
            return Some(Difference::Heading {
                name,
                wanted: self.heading.clone(),
                found: found.heading.clone(),
            });
        }
        let length = self.rules.len().max(found.rules.len());
        let index = (0..length).find(|index| self.rules.get(*index) != found.rules.get(*index))?;
        let number = index + 1;
        let rule = |of: &Self| of.rules.get(index).cloned();
        match (rule(self), rule(found)) {
            (Some(wanted), Some(found)) => Some(Difference::Rule {
                name,
                number,
                wanted,
                found,
            }),
            (Some(wanted), None) => Some(Difference::MissingRule {
                name,
                number,
                wanted,
            }),
            (None, found) => found.map(|found| Difference::ExtraRule {
                name,
                number,
                found,
            }),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Nothing { first } => {
                write!(f, "there is no redirect at all: {first} is missing")
            }
            Self::Missing { name } => write!(f, "{name} is missing"),
            Self::Extra { name } => write!(f, "{name} should not be there"),
            Self::Heading {
                name,
                wanted,
                found,
            } if found.is_empty() => {
                write!(f, "{name} is attached nowhere: `{wanted}` is missing")
            }
            Self::Heading {
                name,
                wanted,
                found,
            } => write!(f, "{name} has `{found}` instead of `{wanted}`"),
            Self::Rule {
                name,
                number,
                wanted,
                found,
            } => write!(
                f,
                "rule {number} of {name} is `{found}` instead of `{wanted}`"
            ),
            Self::MissingRule {
                name,
                number,
                wanted,
            } => write!(f, "rule {number} of {name} is missing: `{wanted}`"),
            Self::ExtraRule {
                name,
                number,
                found,
            } => write!(f, "rule {number} of {name} should not be there: `{found}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, heading: &str, rules: &[&str]) -> Listed {
        Listed {
            name: name.into(),
            heading: heading.into(),
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        }
    }

    fn listing(rules: &[&str]) -> Listing {
        Listing(vec![chain("chain output", "nat", rules)])
    }

    #[test]
    fn the_first_difference_is_named() {
        let wanted = listing(&["a", "b", "c"]);
        let two = |other| {
            let mut two = wanted.clone();
            two.0.insert(0, chain(other, "", &[]));
            two
        };
        for (found, sentence) in [
            (
                Listing::default(),
                "there is no redirect at all: chain output is missing",
            ),
            (
                Listing(vec![chain("chain input", "nat", &[])]),
                "chain output is missing",
            ),
            (two("chain input"), "chain input should not be there"),
            (
                Listing(vec![chain("chain output", "filter", &[])]),
                "chain output has `filter` instead of `nat`",
            ),
            (
                Listing(vec![chain("chain output", "", &[])]),
                "chain output is attached nowhere: `nat` is missing",
            ),
            (
                listing(&["a", "c"]),
                "rule 2 of chain output is `c` instead of `b`",
            ),
            (
                listing(&["b", "a", "c"]),
                "rule 1 of chain output is `b` instead of `a`",
            ),
            (
                listing(&["a", "b"]),
                "rule 3 of chain output is missing: `c`",
            ),
            (
                listing(&["a", "b", "c", "d"]),
                "rule 4 of chain output should not be there: `d`",
            ),
        ] {
            let difference = wanted.first_difference(&found);
            let said = difference.map(|difference| difference.to_string());
            assert_eq!(said.as_deref(), Some(sentence));
        }
        assert_eq!(wanted.first_difference(&wanted), None);
        let nothing = Listing::default();
        assert_eq!(nothing.first_difference(&nothing), None);
        assert!(nothing.first_difference(&wanted).is_some());
    }
}
