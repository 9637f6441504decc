//! Rules in the text format of `iptables-restore` and `iptables-save`. Pure.

use std::fmt::Write as _;

use crate::redirect::diff::Listed;
use crate::redirect::id::{Id, Variant};
use crate::redirect::policy::{Cidr, Family};
use crate::redirect::rules::{Action, Chain, Match, Role, Rule, RuleSet};

/// Prefix of the names of msm-cni's chains.
const PREFIX: &str = "MSM_CNI_";

/// The tables that can have chains of msm-cni.
const TABLES: [&str; 2] = ["nat", "filter"];

/// Every chain that msm-cni writes: table and name.
pub const CHAINS: [(&str, &str); 4] = [
    ("nat", name(Role::Output)),
    ("nat", name(Role::Prerouting)),
    ("filter", name(Role::RejectOutput)),
    ("filter", name(Role::RejectInput)),
];

/// The part of `iptables-save`'s output that concerns msm-cni, for one family.
#[derive(Debug, PartialEq, Eq)]
pub struct Saved {
    pub family: Family,
    /// Names of msm-cni's chains, in order of appearance.
    chains: Vec<Line>,
    /// Rules in msm-cni's chains.
    rules: Vec<Line>,
    /// Rules in other chains that jump to msm-cni's chains.
    jumps: Vec<Line>,
}

/// A line of one table.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    table: String,
    text: String,
}

/// Creates the chains of `set`. Fails if one of them exists, so that a new pod needs no
/// listing.
pub fn create(set: &RuleSet) -> String {
    let mut script = String::new();
    for table in TABLES {
        let chains = chains_in(Some(set), table);
        if chains.is_empty() {
            continue;
        }
        let _ = writeln!(script, "*{table}");
        for chain in &chains {
            let _ = writeln!(script, "-N {}", name(chain.role));
        }
        fill(&mut script, &chains);
        script.push_str("COMMIT\n");
    }
    script
}

/// Replaces the chains in `saved` by those of `set`; without a `set` it removes them. Each
/// table is one transaction.
pub fn replace(set: Option<&RuleSet>, saved: &Saved) -> String {
    let mut script = String::new();
    for table in TABLES {
        let chains = chains_in(set, table);
        let old: Vec<&str> = in_table(&saved.chains, table).collect();
        if chains.is_empty() && old.is_empty() {
            continue;
        }
        let _ = writeln!(script, "*{table}");
        // A declaration creates a chain or empties it.
        let names = || chains.iter().map(|chain| name(chain.role));
        let new = names().filter(|name| !old.contains(name));
        for name in old.iter().copied().chain(new) {
            let _ = writeln!(script, ":{name} - [0:0]");
        }
        for jump in in_table(&saved.jumps, table) {
            let _ = writeln!(script, "{}", jump.replacen("-A", "-D", 1));
        }
        fill(&mut script, &chains);
        for name in old.iter().filter(|old| !names().any(|name| name == **old)) {
            let _ = writeln!(script, "-X {name}");
        }
        script.push_str("COMMIT\n");
    }
    script
}

/// The chains of `set` in the form that `Saved::chains` returns.
pub fn expected(set: &RuleSet, variant: Variant, family: Family) -> Vec<Listed> {
    let listed = |chain: &Chain| {
        let role = chain.role;
        Listed {
            id: Id::IptablesChain {
                variant,
                family,
                table: role.chain_type().to_owned(),
                chain: name(role).to_owned(),
            },
            heading: format!("-A {} -j {}", builtin(role), name(role)),
            rules: chain.rules.iter().map(|rule| line(role, rule)).collect(),
        }
    };
    set.chains.iter().map(listed).collect()
}

impl Saved {
    /// Parses the output of `iptables-save`.
    pub fn parse(family: Family, output: &str) -> Self {
        let mut saved = Self {
            family,
            chains: Vec::new(),
            rules: Vec::new(),
            jumps: Vec::new(),
        };
        let mut table = "";
        for text in output.lines() {
            let line = |text: &str| Line {
                table: table.to_owned(),
                text: text.to_owned(),
            };
            if let Some(name) = text.strip_prefix('*') {
                table = name;
            } else if !TABLES.contains(&table) {
                // A table that msm-cni does not write to.
            } else if let Some(declaration) = text.strip_prefix(':') {
                let name = declaration.split(' ').next().unwrap_or_default();
                if name.starts_with(PREFIX) {
                    saved.chains.push(line(name));
                }
            } else if text
                .strip_prefix("-A ")
                .is_some_and(|rule| rule.starts_with(PREFIX))
            {
                saved.rules.push(line(&normalize(text)));
            } else if target(text).is_some_and(|chain| chain.starts_with(PREFIX)) {
                saved.jumps.push(line(text));
            }
        }
        saved
    }

    /// Whether there is no chain of msm-cni.
    pub const fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// The chains with their rules, in the form that `expected` returns.
    pub fn chains(&self, variant: Variant) -> Vec<Listed> {
        let listed = |chain: &Line| {
            let (table, name) = (&chain.table, &chain.text);
            let jumps = in_table(&self.jumps, table).filter(|jump| target(jump) == Some(name));
            let start = format!("-A {name} ");
            let rules = in_table(&self.rules, table).filter(|rule| rule.starts_with(&start));
            Listed {
                id: Id::IptablesChain {
                    variant,
                    family: self.family,
                    table: table.clone(),
                    chain: name.clone(),
                },
                heading: jumps.collect::<Vec<_>>().join("` and `"),
                rules: rules.map(str::to_owned).collect(),
            }
        };
        self.chains.iter().map(listed).collect()
    }
}

fn chains_in<'a>(set: Option<&'a RuleSet>, table: &str) -> Vec<&'a Chain> {
    let chains = set.into_iter().flat_map(|set| &set.chains);
    chains
        .filter(|chain| chain.role.chain_type() == table)
        .collect()
}

fn in_table<'a>(lines: &'a [Line], table: &str) -> impl Iterator<Item = &'a str> {
    lines
        .iter()
        .filter(move |line| line.table == table)
        .map(|line| line.text.as_str())
}

fn fill(script: &mut String, chains: &[&Chain]) {
    for chain in chains {
        for rule in &chain.rules {
            let _ = writeln!(script, "{}", line(chain.role, rule));
        }
    }
    // The jumps follow the rules, so that no packet enters an incomplete chain. They are the
    // first rules of the built-in chains, so that they precede other translations.
    for chain in chains {
        let _ = writeln!(
            script,
            "-I {} 1 -j {}",
            builtin(chain.role),
            name(chain.role)
        );
    }
}

/// The chain that a rule jumps to: its last word. A comment or a log prefix that contains the
/// name of a chain ends with a quotation mark.
fn target(line: &str) -> Option<&str> {
    let (before, chain) = line.rsplit_once(' ')?;
    let jumps = before.ends_with(" -j") || before.ends_with(" -g");
    (jumps && !chain.ends_with('"')).then_some(chain)
}

/// Writes addresses as `line` does.
fn normalize(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.parse::<Cidr>() {
        Ok(cidr) if word.contains('/') => cidr.to_string(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

const fn name(role: Role) -> &'static str {
    match role {
        Role::Output => "MSM_CNI_OUTPUT",
        Role::Prerouting => "MSM_CNI_PREROUTING",
        Role::RejectOutput => "MSM_CNI_REJECT_OUTPUT",
        Role::RejectInput => "MSM_CNI_REJECT_INPUT",
    }
}

const fn builtin(role: Role) -> &'static str {
    match role {
        Role::Output | Role::RejectOutput => "OUTPUT",
        Role::Prerouting => "PREROUTING",
        Role::RejectInput => "INPUT",
    }
}

/// The rule as `iptables-save` prints it.
fn line(role: Role, rule: &Rule) -> String {
    let mut line = format!("-A {}", name(role));
    for condition in &rule.matches {
        match condition {
            // Each command handles one family only.
            Match::Family(Family::Ipv4 | Family::Ipv6) => {}
            Match::Loopback => line.push_str(" -i lo"),
            // iptables-save does not print a condition that every address meets.
            Match::Destination(cidr) if cidr.prefix() == 0 => {}
            Match::Destination(cidr) => drop(write!(line, " -d {cidr}")),
            Match::Uid(uid) => drop(write!(line, " -m owner --uid-owner {uid}")),
            Match::TcpPort(port) => drop(write!(line, " -p tcp -m tcp --dport {port}")),
            Match::TcpSyn => line.push_str(" --tcp-flags FIN,SYN,RST,ACK SYN"),
        }
    }
    match rule.action {
        Action::Return => line.push_str(" -j RETURN"),
        Action::Redirect(port) => drop(write!(line, " -j REDIRECT --to-ports {port}")),
        Action::Reject => line.push_str(" -j REJECT --reject-with tcp-reset"),
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::policy::Ipv6Mode;
    use crate::redirect::rules::{Redirect, Scope};

    const IPV4: Scope = Scope::Only(Family::Ipv4);

    fn saved(output: &str) -> Saved {
        Saved::parse(Family::Ipv4, output)
    }

    #[test]
    fn create_adds_the_jump_after_the_rules() {
        let set = RuleSet::new(&Redirect::default(), IPV4).unwrap();
        assert_eq!(
            create(&set),
            "*nat\n\
             -N MSM_CNI_OUTPUT\n\
             -A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN\n\
             -A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
             -A MSM_CNI_OUTPUT -p tcp -m tcp --dport 554 -j REDIRECT --to-ports 8554\n\
             -I OUTPUT 1 -j MSM_CNI_OUTPUT\n\
             COMMIT\n"
        );
    }

    #[test]
    fn saved_rules_equal_created_rules() {
        let redirect = Redirect {
            ipv6: Ipv6Mode::Reject,
            inbound_ports: vec!["322".parse().unwrap()],
            ..Redirect::default()
        };
        for family in Family::ALL {
            let set = RuleSet::new(&redirect, Scope::Only(family)).unwrap();
            let output = create(&set)
                .replace("-N", ":")
                .replace(": ", ":")
                .replace("-I OUTPUT 1", "-A OUTPUT")
                .replace("-I INPUT 1", "-A INPUT")
                .replace("-I PREROUTING 1", "-A PREROUTING");
            let actual = Saved::parse(family, &output).chains(Variant::Legacy);
            assert_eq!(expected(&set, Variant::Legacy, family), actual);
        }
    }

    #[test]
    fn replace_removes_every_jump_and_every_other_chain() {
        let saved = saved(
            "*nat\n:OUTPUT ACCEPT [0:0]\n:MSM_CNI_OUTPUT - [0:0]\n:MSM_CNI_PREROUTING - [0:0]\n\
             -A OUTPUT -j MSM_CNI_OUTPUT\n-A OUTPUT -p tcp -j MSM_CNI_OUTPUT\n-A OUTPUT -j OTHER\n\
             -A MSM_CNI_OUTPUT -j RETURN\nCOMMIT\n",
        );
        assert_eq!(
            replace(None, &saved),
            "*nat\n:MSM_CNI_OUTPUT - [0:0]\n:MSM_CNI_PREROUTING - [0:0]\n\
             -D OUTPUT -j MSM_CNI_OUTPUT\n-D OUTPUT -p tcp -j MSM_CNI_OUTPUT\n\
             -X MSM_CNI_OUTPUT\n-X MSM_CNI_PREROUTING\nCOMMIT\n"
        );
        let set = RuleSet::new(&Redirect::default(), IPV4).unwrap();
        let script = replace(Some(&set), &saved);
        assert!(script.contains("-X MSM_CNI_PREROUTING\nCOMMIT"), "{script}");
        assert!(!script.contains("-X MSM_CNI_OUTPUT"), "{script}");
        assert_eq!(
            script.matches("-I OUTPUT 1 -j MSM_CNI_OUTPUT").count(),
            1,
            "{script}"
        );
    }

    #[test]
    fn chain_name_in_a_comment_is_not_a_jump() {
        let saved = saved(
            "*nat\n:MSM_CNI_OUTPUT - [0:0]\n\
             -A OUTPUT -m comment --comment \"before MSM_CNI_OUTPUT\" -j LOG\n\
             -A OUTPUT -j LOG --log-prefix \"-j MSM_CNI_OUTPUT\"\n",
        );
        assert!(!replace(None, &saved).contains("LOG"));
    }

    #[test]
    fn rules_of_other_components_are_ignored() {
        let saved = saved(
            "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n",
        );
        assert!(saved.is_empty());
        assert_eq!(replace(None, &saved), "");
    }
}
