//! Rules as iptables knows them: the text that `iptables-restore` reads and that
//! `iptables-save` prints. Pure; running the tools is for `iptables.rs`.

use std::fmt::Write as _;

use crate::redirect::diff::{Listed, Listing};
use crate::redirect::policy::{Cidr, Family};
use crate::redirect::rules::{Action, Chain, Match, Role, Rule, RuleSet};

/// Every chain of ours begins with this.
const PREFIX: &str = "MSM_CNI_";

/// The tables that can hold chains of ours.
const TABLES: [&str; 2] = ["nat", "filter"];

/// Every chain that we write: table and name.
pub const CHAINS: [(&str, &str); 4] = [
    ("nat", name(Role::Output)),
    ("nat", name(Role::Prerouting)),
    ("filter", name(Role::RejectOutput)),
    ("filter", name(Role::RejectInput)),
];

/// What `iptables-save` says of our chains, for one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Table and chain, in order of appearance.
    chains: Vec<(String, String)>,
    /// Table and line: the rules in our chains.
    rules: Vec<(String, String)>,
    /// Table and line: the jumps from elsewhere to our chains.
    jumps: Vec<(String, String)>,
}

/// Creates the chains of `set`, and fails where one exists already: the fresh path, on
/// which nothing needs to be read first.
pub fn create(set: &RuleSet) -> String {
    let mut script = String::new();
    for table in TABLES {
        let chains: Vec<&Chain> = set
            .chains
            .iter()
            .filter(|chain| chain.role.kind() == table)
            .collect();
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

/// Turns what `saved` found into the rules of `set` (none: removes everything of ours).
/// Each table is one transaction.
pub fn replace(set: Option<&RuleSet>, saved: &Saved) -> String {
    let mut script = String::new();
    for table in TABLES {
        let chains: Vec<&Chain> = set
            .iter()
            .flat_map(|set| &set.chains)
            .filter(|chain| chain.role.kind() == table)
            .collect();
        let old: Vec<&str> = saved
            .chains
            .iter()
            .filter(|(of, _)| of == table)
            .map(|(_, name)| name.as_str())
            .collect();
        if chains.is_empty() && old.is_empty() {
            continue;
        }
        let _ = writeln!(script, "*{table}");
        // A declaration creates a chain or empties it.
        let new = chains
            .iter()
            .map(|chain| name(chain.role))
            .filter(|name| !old.contains(name));
        for name in old.iter().copied().chain(new) {
            let _ = writeln!(script, ":{name} - [0:0]");
        }
        for (_, jump) in saved.jumps.iter().filter(|(of, _)| of == table) {
            let _ = writeln!(script, "{}", jump.replacen("-A", "-D", 1));
        }
        fill(&mut script, &chains);
        for name in old
            .iter()
            .filter(|old| !chains.iter().any(|chain| name(chain.role) == **old))
        {
            let _ = writeln!(script, "-X {name}");
        }
        script.push_str("COMMIT\n");
    }
    script
}

fn fill(script: &mut String, chains: &[&Chain]) {
    for chain in chains {
        for rule in &chain.rules {
            let _ = writeln!(script, "{}", line(chain.role, rule));
        }
    }
    // Last, so that no packet meets a chain half filled; first in its chain, so that ours
    // comes before other translations.
    for chain in chains {
        let _ = writeln!(
            script,
            "-I {} 1 -j {}",
            builtin(chain.role),
            name(chain.role)
        );
    }
}

/// The rules of `set` in the form that `listing` brings `iptables-save`'s into; `tool`
/// is the one that shows them.
pub fn wanted(set: &RuleSet, tool: &str) -> Listing {
    let listed = |chain: &Chain| Listed {
        name: listed_name(tool, chain.role.kind(), name(chain.role)),
        heading: format!("-A {} -j {}", builtin(chain.role), name(chain.role)),
        rules: chain
            .rules
            .iter()
            .map(|rule| line(chain.role, rule))
            .collect(),
    };
    Listing(set.chains.iter().map(listed).collect())
}

impl Saved {
    /// Reads what `iptables-save` printed.
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = String::new();
        for text in text.lines() {
            if let Some(name) = text.strip_prefix('*') {
                name.clone_into(&mut table);
            } else if !TABLES.contains(&table.as_str()) {
                // We write to no other, so that nothing in it is ours.
            } else if let Some(declaration) = text.strip_prefix(':') {
                let name = declaration.split(' ').next().unwrap_or_default();
                if name.starts_with(PREFIX) {
                    saved.chains.push((table.clone(), name.to_owned()));
                }
            } else if text
                .strip_prefix("-A ")
                .is_some_and(|rule| rule.starts_with(PREFIX))
            {
                saved.rules.push((table.clone(), normal(text)));
            } else if target(text).is_some_and(|chain| chain.starts_with(PREFIX)) {
                saved.jumps.push((table.clone(), text.to_owned()));
            }
        }
        saved
    }

    /// Whether there is nothing of ours.
    pub const fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Our chains, to be compared with `wanted`.
    pub fn listing(&self, tool: &str) -> Listing {
        let of = |lines: &[(String, String)],
                  table: &str,
                  belongs: &dyn Fn(&str) -> bool|
         -> Vec<String> {
            lines
                .iter()
                .filter(|(of, line)| of == table && belongs(line))
                .map(|(_, line)| line.clone())
                .collect()
        };
        let listed = |(table, name): &(String, String)| {
            let jumps = of(&self.jumps, table, &|jump| target(jump) == Some(name));
            Listed {
                name: listed_name(tool, table, name),
                heading: jumps.join("` and `"),
                rules: of(&self.rules, table, &|rule| {
                    rule.starts_with(&format!("-A {name} "))
                }),
            }
        };
        Listing(self.chains.iter().map(listed).collect())
    }
}

fn listed_name(tool: &str, table: &str, name: &str) -> String {
    format!("chain {name} of {tool}'s table {table}")
}

/// The chain that a rule sends its packets to. It is the last word; a comment or a log
/// prefix that merely names a chain ends in a quotation mark.
fn target(line: &str) -> Option<&str> {
    let (before, chain) = line.rsplit_once(' ')?;
    let jumps = before.ends_with(" -j") || before.ends_with(" -g");
    (jumps && !chain.ends_with('"')).then_some(chain)
}

/// Brings an address into our spelling of it.
fn normal(line: &str) -> String {
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

/// The rule as `iptables-save` would print it.
fn line(role: Role, rule: &Rule) -> String {
    let mut line = format!("-A {}", name(role));
    for condition in &rule.matches {
        match condition {
            // One family's tool sees no other.
            Match::Family(Family::Ipv4 | Family::Ipv6) => {}
            Match::Loopback => line.push_str(" -i lo"),
            // Everything is no condition, and not printed as one.
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
    const IPV6: Scope = Scope::Only(Family::Ipv6);

    #[test]
    fn the_fresh_script_creates_fills_and_then_jumps() {
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
    fn what_was_saved_is_what_was_wanted() {
        let redirect = Redirect {
            ipv6: Ipv6Mode::Reject,
            inbound_ports: vec!["322".parse().unwrap()],
            ..Redirect::default()
        };
        for scope in [IPV4, IPV6] {
            let set = RuleSet::new(&redirect, scope).unwrap();
            let script = create(&set)
                .replace("-N", ":")
                .replace(": ", ":")
                .replace("-I OUTPUT 1", "-A OUTPUT")
                .replace("-I INPUT 1", "-A INPUT")
                .replace("-I PREROUTING 1", "-A PREROUTING");
            assert_eq!(
                wanted(&set, "x").first_difference(&Saved::parse(&script).listing("x")),
                None
            );
        }
    }

    #[test]
    fn replacing_removes_every_jump_and_every_chain_that_is_not_wanted() {
        let saved = Saved::parse(
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
    fn a_comment_that_names_our_chain_is_no_jump() {
        let saved = Saved::parse(
            "*nat\n:MSM_CNI_OUTPUT - [0:0]\n\
             -A OUTPUT -m comment --comment \"before MSM_CNI_OUTPUT\" -j LOG\n\
             -A OUTPUT -j LOG --log-prefix \"-j MSM_CNI_OUTPUT\"\n",
        );
        assert!(!replace(None, &saved).contains("LOG"));
    }

    #[test]
    fn others_rules_are_not_ours() {
        let saved = Saved::parse(
            "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n",
        );
        assert!(saved.is_empty());
        assert_eq!(replace(None, &saved), "");
    }
}
