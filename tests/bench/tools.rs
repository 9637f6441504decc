//! Writes the same rules by command-line tools, as other plugins do: `nsenter`, and in it
//! `iptables` for each rule, or `iptables-restore` for each family.

use std::process::Command;

use msm_testkit::command::run;
use msm_testkit::netns::Namespace;
use msm_testkit::{TOOL_DIRECTORIES, find_tool};

use crate::launch::{Expected, Launch};
use crate::targets::Target;

/// The rules to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleSet {
    Default,
    /// IPv6 as well.
    Both,
}

impl RuleSet {
    pub const ALL: [Self; 2] = [Self::Default, Self::Both];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "IPv4",
            Self::Both => "both families",
        }
    }

    /// The flags of `msm-iptables`.
    pub const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Both => &["--ipv6", "redirect"],
        }
    }
}

/// The rules of one table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    is_ipv6: bool,
    name: String,
    /// Each as the arguments of `iptables`.
    rules: Vec<Vec<String>>,
    /// The input of `iptables-restore`.
    text: String,
}

/// The rules, as the executable prints them.
pub fn rules(ours: &Target, set: RuleSet) -> Result<Vec<Table>, String> {
    let mut command = ours.applet("msm-iptables");
    command
        .args(["--dry-run", "--backend", "iptables"])
        .args(set.flags());
    let text = run(&mut command).succeeded().stdout;
    let tables = parse(&text);
    if tables.is_empty() {
        return Err(format!("msm-iptables --dry-run printed no rules: {text}"));
    }
    Ok(tables)
}

fn parse(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut is_ipv6 = false;
    for line in text.lines() {
        if let Some(tool) = line.strip_prefix("# ") {
            is_ipv6 = tool.starts_with("ip6");
        } else if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                is_ipv6,
                name: name.to_owned(),
                rules: Vec::new(),
                text: format!("{line}\n"),
            });
        } else if let Some(table) = tables.last_mut() {
            table.text.extend([line, "\n"]);
            if line != "COMMIT" {
                let words = line.split_whitespace().map(str::to_owned);
                table.rules.push(words.collect());
            }
        }
    }
    tables
}

pub fn rule_by_rule(tables: &[Table], variant: &str, netns: Option<&Namespace>) -> Vec<Launch> {
    let each = tables.iter().flat_map(|table| {
        let rules = table.rules.iter();
        rules.map(move |rule| {
            let mut command = enter(table, &format!("tables-{variant}"), netns);
            command.args(["-w", "-t", &table.name]).args(rule);
            Launch::new(command)
        })
    });
    each.collect()
}

pub fn restore(tables: &[Table], variant: &str, netns: Option<&Namespace>) -> Vec<Launch> {
    let families = [false, true].map(|is_ipv6| {
        let of_family: Vec<_> = tables.iter().filter(|it| it.is_ipv6 == is_ipv6).collect();
        let first = of_family.first()?;
        let mut command = enter(first, &format!("tables-{variant}-restore"), netns);
        command.args(["--noflush", "-w"]);
        Some(Launch {
            command,
            input: of_family
                .iter()
                .map(|it| it.text.as_str())
                .collect::<String>()
                .into(),
            expected: Expected::Anything,
        })
    });
    families.into_iter().flatten().collect()
}

/// Runs a tool in the namespace.
fn enter(table: &Table, tool: &str, netns: Option<&Namespace>) -> Command {
    let path = |name: &str| find_tool(name).unwrap_or_else(|| panic!("{name} is not installed"));
    let family = if table.is_ipv6 { "ip6" } else { "ip" };
    let mut command = Command::new(path("nsenter"));
    command
        .env_clear()
        .env("PATH", TOOL_DIRECTORIES.join(":"))
        // The default path is writable for root only.
        .env("XTABLES_LOCKFILE", "/dev/null");
    if let Some(netns) = netns {
        command.arg(format!("--net={}", netns.path().display()));
    }
    command.arg("--").arg(path(&format!("{family}{tool}")));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_grouped_by_family_and_table() {
        let text = "# iptables-restore --noflush\n*nat\n-N A\n-A A -j RETURN\nCOMMIT\n\
                    # ip6tables-restore --noflush\n*filter\n-N B\nCOMMIT\n";
        let tables = parse(text);
        let shown: Vec<_> = tables
            .iter()
            .map(|it| {
                (
                    it.is_ipv6,
                    it.name.as_str(),
                    it.rules.len(),
                    it.text.as_str(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (false, "nat", 2, "*nat\n-N A\n-A A -j RETURN\nCOMMIT\n"),
                (true, "filter", 1, "*filter\n-N B\nCOMMIT\n"),
            ]
        );
        assert_eq!(tables[0].rules[1], ["-A", "A", "-j", "RETURN"]);
    }
}
