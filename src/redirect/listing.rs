//! What our chains hold, as text, and the first place where two such listings differ.
//! Pure; both backends bring what they want and what they found into this form.

use std::fmt;

/// Our chains, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing(pub Vec<ListedChain>);

/// One chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChain {
    /// Its name and where it is, as a person would look for it.
    pub name: String,
    /// How it is attached to the kernel.
    pub hook: String,
    /// Its rules, in order.
    pub rules: Vec<String>,
}

/// Where what was found first differs from what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Missing,
    MissingChain { chain: String },
    ExtraChain { chain: String },
    Hook { chain: String, wanted: String, found: String },
    /// `number` counts from 1.
    Rule { chain: String, number: usize, wanted: String, found: String },
    MissingRule { chain: String, number: usize, wanted: String },
    ExtraRule { chain: String, number: usize, found: String },
}

impl Listing {
    /// The first difference; `None` when both hold the same chains with the same rules in
    /// the same order.
    pub fn first_difference(&self, found: &Self) -> Option<Difference> {
        if found.0.is_empty() && !self.0.is_empty() {
            return Some(Difference::Missing);
        }
        let chain_difference = |wanted: &ListedChain| match found.chain(&wanted.name) {
            None => Some(Difference::MissingChain { chain: wanted.name.clone() }),
            Some(found) => wanted.first_difference(found),
        };
        let extra = || {
            let extra = found.0.iter().find(|chain| self.chain(&chain.name).is_none())?;
            Some(Difference::ExtraChain { chain: extra.name.clone() })
        };
        self.0.iter().find_map(chain_difference).or_else(extra)
    }

    fn chain(&self, name: &str) -> Option<&ListedChain> {
        self.0.iter().find(|chain| chain.name == name)
    }
}

impl ListedChain {
    fn first_difference(&self, found: &Self) -> Option<Difference> {
        let chain = self.name.clone();
        if self.hook != found.hook {
            return Some(Difference::Hook { chain, wanted: self.hook.clone(), found: found.hook.clone() });
        }
        let length = self.rules.len().max(found.rules.len());
        (0..length).find_map(|index| {
            let (chain, number) = (chain.clone(), index + 1);
            match (self.rules.get(index).cloned(), found.rules.get(index).cloned()) {
                (Some(wanted), Some(found)) if wanted != found => {
                    Some(Difference::Rule { chain, number, wanted, found })
                }
                (Some(wanted), None) => Some(Difference::MissingRule { chain, number, wanted }),
                (None, Some(found)) => Some(Difference::ExtraRule { chain, number, found }),
                _ => None,
            }
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "there is no redirect at all"),
            Self::MissingChain { chain } => write!(f, "chain {chain} is missing"),
            Self::ExtraChain { chain } => write!(f, "chain {chain} should not be there"),
            Self::Hook { chain, wanted, found } => {
                write!(f, "chain {chain} is attached as `{found}` instead of `{wanted}`")
            }
            Self::Rule { chain, number, wanted, found } => {
                write!(f, "rule {number} of chain {chain} is `{found}` instead of `{wanted}`")
            }
            Self::MissingRule { chain, number, wanted } => {
                write!(f, "rule {number} of chain {chain} is missing: `{wanted}`")
            }
            Self::ExtraRule { chain, number, found } => {
                write!(f, "rule {number} of chain {chain} should not be there: `{found}`")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(rules: &[&str]) -> Listing {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Listing(vec![ListedChain { name: "output".into(), hook: "nat".into(), rules }])
    }

    #[test]
    fn the_first_difference_is_named() {
        let wanted = listing(&["a", "b", "c"]);
        for (found, sentence) in [
            (Listing::default(), "there is no redirect at all"),
            (listing(&["a", "c"]), "rule 2 of chain output is `c` instead of `b`"),
            (listing(&["b", "a", "c"]), "rule 1 of chain output is `b` instead of `a`"),
            (listing(&["a", "b"]), "rule 3 of chain output is missing: `c`"),
            (listing(&["a", "b", "c", "d"]), "rule 4 of chain output should not be there: `d`"),
        ] {
            let difference = wanted.first_difference(&found).map(|difference| difference.to_string());
            assert_eq!(difference.as_deref(), Some(sentence));
        }
        assert_eq!(wanted.first_difference(&wanted), None);
        assert_eq!(
            Listing::default().first_difference(&wanted),
            Some(Difference::ExtraChain { chain: "output".into() })
        );
    }
}
