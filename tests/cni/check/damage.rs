//! Every kind of damage to a redirect: CHECK names the difference, and ADD repairs it. The
//! damage and the differences are in `damage/*.txt`.

use msm_testkit::backend::Backend;
use msm_testkit::netns::Namespace;
use msm_testkit::on_every_backend;
use serde_json::{Value, json};

use super::sandbox::Sandbox;

/// Uses every kind of rule and every chain.
fn everything() -> Value {
    json!({"redirect": {
        "ports": [554, 1554], "inboundPorts": [554], "ipv6": "reject",
        "excludeCIDRs": ["127.0.0.0/8", "10.9.0.0/16", "fd09::/16"],
    }})
}

on_every_backend! {
    damage_is_named_and_repaired,
    missing_redirect_is_named,
    changed_configuration_is_named,
}

fn damage_is_named_and_repaired(backend: Backend) {
    let sandbox = Sandbox::of(backend, everything());
    let fixture = match backend {
        Backend::Nftables => include_str!("damage/nftables.txt"),
        Backend::IptablesNft | Backend::IptablesLegacy => include_str!("damage/iptables.txt"),
    };
    for damage in parse(fixture) {
        sandbox.add();
        damage.apply(backend, &sandbox.inside);
        let difference = for_variant(damage.difference, backend);
        sandbox.differs(&difference);
        // With interceptName auto.
        sandbox.differs_with(&everything(), &difference);
    }
    sandbox.add();
    sandbox.passes();
}

fn missing_redirect_is_named(backend: Backend) {
    let sandbox = Sandbox::of(backend, everything());
    let first = first_of(backend);
    sandbox.differs(&format!("no redirect: {first} is missing"));
    sandbox.differs_with(&json!({}), "no redirect: table inet msm_cni is missing");
}

/// The first table or chain of a redirect.
pub fn first_of(backend: Backend) -> String {
    match backend {
        Backend::Nftables => "table inet msm_cni".to_owned(),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            for_variant("chain MSM_CNI_OUTPUT in table nat of {iptables}", backend)
        }
    }
}

/// A block of a fixture.
struct Damage<'a> {
    commands: Vec<&'a str>,
    difference: &'a str,
}

fn parse(fixture: &str) -> Vec<Damage<'_>> {
    let mut all = Vec::new();
    let mut commands = Vec::new();
    for line in fixture.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            commands.push(command);
        } else if let Some(difference) = line.strip_prefix("= ") {
            let commands = std::mem::take(&mut commands);
            assert!(!commands.is_empty(), "no command for {difference}");
            all.push(Damage {
                commands,
                difference,
            });
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{line}");
        }
    }
    assert!(commands.is_empty(), "no difference for {commands:?}");
    all
}

impl Damage<'_> {
    fn apply(&self, backend: Backend, inside: &Namespace) {
        match backend {
            Backend::Nftables => inside.load(&with_handles(inside, &self.commands.join("\n"))),
            Backend::IptablesNft | Backend::IptablesLegacy => self.restore(backend, inside),
        }
    }

    /// Runs commands of iptables as one transaction of `iptables-restore`.
    fn restore(&self, backend: Backend, inside: &Namespace) {
        let [tool4, tool6] = backend.iptables();
        let mut words = self.commands[0].splitn(4, ' ');
        let (command, table) = (words.next().unwrap(), words.nth(1).unwrap());
        let tool = match command {
            "iptables" => tool4,
            "ip6tables" => tool6,
            command => panic!("unknown command {command}"),
        };
        let start = format!("{command} -t {table} ");
        let mut script = format!("*{table}\n");
        for line in &self.commands {
            let rule = line.strip_prefix(&start);
            let rule = rule.unwrap_or_else(|| panic!("{line} does not start with {start}"));
            script.extend([rule, "\n"]);
        }
        script += "COMMIT\n";
        inside
            .tool(&format!("{tool}-restore"), &["--noflush"], &script)
            .succeeded();
    }
}

fn for_variant(difference: &str, backend: Backend) -> String {
    let [tool4, tool6] = backend.iptables();
    difference
        .replace("{iptables}", tool4)
        .replace("{ip6tables}", tool6)
}

/// Replaces `#N` by the handle of rule N of the chain that precedes it.
fn with_handles(inside: &Namespace, commands: &str) -> String {
    let args = ["--handle", "list", "table", "inet", "msm_cni"];
    let listing = inside.tool("nft", &args, "").succeeded().stdout;
    let handle = |chain: &str, number: usize| {
        let heading = format!("\tchain {chain} {{");
        let rules = listing
            .lines()
            .skip_while(|line| !line.starts_with(&heading));
        // The first two lines are the chain's name and its hook.
        let rule = rules.skip(2).nth(number - 1).unwrap();
        let (_, handle) = rule.rsplit_once(" # ").unwrap();
        handle.to_owned()
    };
    let line = |line: &str| {
        let mut previous = "";
        let mut words = Vec::new();
        for word in line.split(' ') {
            let number = word.strip_prefix('#').map(|number| number.parse().unwrap());
            words.push(number.map_or_else(|| word.to_owned(), |number| handle(previous, number)));
            previous = word;
        }
        words.join(" ") + "\n"
    };
    commands.lines().map(line).collect()
}

fn changed_configuration_is_named(backend: Backend) {
    let sandbox = Sandbox::of(backend, json!({}));
    sandbox.add();
    for (redirect, by_nft, by_iptables) in [
        (
            json!({"ports": [554, 1554]}),
            "rule 5 of chain inet msm_cni output is missing: \
             `tcp dport 1554 counter redirect to :8554`",
            "rule 4 of chain MSM_CNI_OUTPUT in table nat of {iptables} is missing: \
             `-A MSM_CNI_OUTPUT -p tcp -m tcp --dport 1554 -j REDIRECT --to-ports 8554`",
        ),
        (
            json!({"proxyUID": 0}),
            "rule 3 of chain inet msm_cni output is `meta skuid 1337 return` \
             instead of `meta skuid 0 return`",
            "rule 2 of chain MSM_CNI_OUTPUT in table nat of {iptables} is \
             `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN` \
             instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 0 -j RETURN`",
        ),
        (
            json!({"excludeCIDRs": []}),
            "rule 2 of chain inet msm_cni output is `ip daddr 127.0.0.0/8 return` \
             instead of `meta skuid 1337 return`",
            "rule 1 of chain MSM_CNI_OUTPUT in table nat of {iptables} is \
             `-A MSM_CNI_OUTPUT -d 127.0.0.0/8 -j RETURN` \
             instead of `-A MSM_CNI_OUTPUT -m owner --uid-owner 1337 -j RETURN`",
        ),
        (
            json!({"inboundPorts": [554]}),
            "chain inet msm_cni prerouting is missing",
            "chain MSM_CNI_PREROUTING in table nat of {iptables} is missing",
        ),
        (
            json!({"ipv6": "reject"}),
            "chain inet msm_cni reject_output is missing",
            "chain MSM_CNI_REJECT_OUTPUT in table filter of {ip6tables} is missing",
        ),
    ] {
        let mut settings = sandbox.settings.clone();
        settings["redirect"] = redirect;
        let difference = match backend {
            Backend::Nftables => by_nft.to_owned(),
            Backend::IptablesNft | Backend::IptablesLegacy => for_variant(by_iptables, backend),
        };
        sandbox.differs_with(&settings, &difference);
    }
    sandbox.passes();
}
