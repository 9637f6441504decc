//! Property tests with a real kernel: a rule set is listed unchanged by msm-cni and by
//! `nft` or `iptables-save`, whether msm-cni programmed it or `nft` or `iptables-restore`
//! loaded its text.
//!
//! The cases are always the same unless `PROPTEST_CASES` or `PROPTEST_RNG_SEED` is set.

use std::collections::HashSet;
use std::env;
use std::fmt::{self, Debug};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::names::TABLE;
use crate::redirect::Change;
use crate::redirect::id::{Id, Variant};
use crate::redirect::iptables;
use crate::redirect::iptables::script;
use crate::redirect::nft;
use crate::redirect::nft::compile::decompile;
use crate::redirect::nft::list;
use crate::redirect::nft::netlink::Socket;
use crate::redirect::parameters::LIST_LIMIT;
use crate::redirect::policy::{Cidr, Family, Ipv6Mode, Port, Uid};
use crate::redirect::rules::{Chain, Redirect, Role, RuleSet, Scope};

const CASES: u32 = 24;
const SEED: u64 = 554;
const ROLES: [Role; 4] = [
    Role::Output,
    Role::Prerouting,
    Role::RejectOutput,
    Role::RejectInput,
];

#[test]
fn nftables_lists_rules_unchanged() {
    if can_run(&["nft"]) {
        for_any_redirect(check_nftables);
    }
}

#[test]
fn iptables_nft_lists_rules_unchanged() {
    if can_run(&["iptables-nft-restore", "ip6tables-nft-restore"]) {
        for_any_redirect(|redirect| check_iptables(redirect, Variant::Nft));
    }
}

#[test]
fn iptables_legacy_lists_rules_unchanged() {
    if can_run(&["iptables-legacy-restore", "ip6tables-legacy-restore"]) {
        for_any_redirect(|redirect| check_iptables(redirect, Variant::Legacy));
    }
}

#[test]
fn longest_lists_fit_every_backend() {
    let tools = ["nft", "iptables-nft-restore", "iptables-legacy-restore"];
    if !can_run(&tools) {
        return;
    }
    for ipv6 in [Ipv6Mode::Bypass, Ipv6Mode::Redirect, Ipv6Mode::Reject] {
        for family in Family::ALL {
            check_nftables(&longest(ipv6, family)).unwrap();
        }
    }
    for (ipv6, family) in [
        (Ipv6Mode::Redirect, Family::Ipv4),
        (Ipv6Mode::Reject, Family::Ipv6),
    ] {
        for variant in [Variant::Nft, Variant::Legacy] {
            check_iptables(&longest(ipv6, family), variant).unwrap();
        }
    }
}

fn check_nftables(redirect: &Redirect) -> Result<(), TestCaseError> {
    let set = RuleSet::new(redirect, Scope::Inet).unwrap();
    let text = set.to_string();
    let list = [
        "--stateless",
        "--numeric-priority",
        "list",
        "table",
        "inet",
        TABLE,
    ];
    in_new_namespace(|| {
        same(&nft::apply(redirect)?.change, &Change::Created)?;
        nftables_reads_as_expected(redirect)?;
        same(&read(Scope::Inet).unwrap(), &set)?;
        same_lines(&normalize(&run("nft", &list, "")), &normalize(&text))?;
        same(&nft::apply(redirect)?.change, &Change::None)
    })?;
    in_new_namespace(|| {
        run("nft", &["-f", "-"], &text);
        same(&read(Scope::Inet).unwrap(), &set)?;
        same(&nft::apply(redirect)?.change, &Change::None)
    })?;
    in_new_namespace(|| {
        let sets = Family::ALL.map(|family| RuleSet::new(redirect, Scope::Only(family)));
        for set in sets.into_iter().flatten() {
            run("nft", &["-f", "-"], &set.to_string());
            same(&read(set.scope).unwrap(), &set)?;
        }
        nftables_reads_as_expected(redirect)
    })
}

fn nftables_reads_as_expected(redirect: &Redirect) -> Result<(), TestCaseError> {
    let actual = nft::read()?.listing;
    same(&actual, &nft::expected(redirect, &actual))
}

/// The table of msm-cni in the kernel; `None` if it has an unknown chain or rule.
fn read(scope: Scope) -> Option<RuleSet> {
    let socket = Socket::open().ok()?;
    let rules = list::rules(&socket, scope).ok()?;
    let chains = list::chains(&socket, scope).ok()?;
    let chains = chains.iter().map(|listed| {
        let id = |role: &Role| Id::Chain {
            scope,
            chain: role.name().to_owned(),
        };
        let role = ROLES.into_iter().find(|role| id(role) == listed.id)?;
        let rules = rules.iter().filter(|rule| rule.chain == role.name());
        let rules = rules.map(|rule| decompile(&rule.expressions, scope));
        let rules = rules.collect::<Option<_>>()?;
        (role.to_string() == listed.heading).then_some(Chain { role, rules })
    });
    let chains = chains.collect::<Option<_>>()?;
    Some(RuleSet { scope, chains })
}

fn check_iptables(redirect: &Redirect, variant: Variant) -> Result<(), TestCaseError> {
    let scripts = Family::ALL.map(|family| {
        let set = RuleSet::new(redirect, Scope::Only(family));
        let script = set.map_or_else(String::new, |set| script::create(&set));
        (variant.command(family), script)
    });
    let reads_as_expected = || {
        let actual = iptables::read(&nft::tables()?)?;
        same(&actual.holder, &Some(variant))?;
        let expected = iptables::expected(redirect, actual.holder)?;
        same(&expected.diff(&actual.listing), &None)?;
        for (command, script) in &scripts {
            let saved = normalize(&run(&format!("{command}-save"), &[], ""));
            let saved: HashSet<_> = saved.lines().collect();
            let script = normalize(script);
            let mut rules = script.lines().filter(|line| line.starts_with("-A"));
            let missing = rules.find(|line| !saved.contains(line));
            same(&missing, &None)?;
        }
        Ok::<_, TestCaseError>(())
    };
    in_new_namespace(|| {
        if variant == Variant::Legacy {
            run("iptables-legacy", &["-t", "nat", "-S"], "");
        }
        same(&iptables::apply(redirect)?, &Change::Created)?;
        reads_as_expected()?;
        same(&iptables::apply(redirect)?, &Change::None)
    })?;
    in_new_namespace(|| {
        for (command, script) in scripts.iter().filter(|(_, script)| !script.is_empty()) {
            run(&format!("{command}-restore"), &["--noflush"], script);
        }
        reads_as_expected()?;
        same(&iptables::apply(redirect)?, &Change::None)
    })
}

/// All lists have their maximum length, with the longest ranges of one family.
fn longest(ipv6: Ipv6Mode, family: Family) -> Redirect {
    let ports = |first: u16| (first..).take(LIST_LIMIT).filter_map(Port::new).collect();
    let address = |number: u128| match family {
        Family::Ipv4 => IpAddr::from(
            (0xc0a8_0001 + number * 512)
                .try_into()
                .map(u32::to_be_bytes)
                .unwrap(),
        ),
        Family::Ipv6 => IpAddr::from((u128::MAX - 1 - number * 512).to_be_bytes()),
    };
    let prefix = match family {
        Family::Ipv4 => 31,
        Family::Ipv6 => 127,
    };
    let range = |number: usize| Cidr::new(address(number.try_into().ok()?), prefix);
    Redirect {
        ports: ports(60_000),
        proxy_port: Port::new(65_535).unwrap(),
        proxy_uid: Uid::new(highest_uid()).unwrap(),
        exclude_cidrs: (0..LIST_LIMIT).filter_map(range).collect(),
        ipv6,
        inbound_ports: ports(61_000),
    }
}

/// The kernel's owner match accepts only users that exist in the user namespace.
fn highest_uid() -> u32 {
    match fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if !map.contains(&u32::MAX.to_string()) => 65_535,
        _ => u32::MAX - 1,
    }
}

fn for_any_redirect(property: impl Fn(&Redirect) -> Result<(), TestCaseError>) {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 100,
        ..Config::default()
    };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    let repeat = format!(
        "repeat with PROPTEST_RNG_SEED={} PROPTEST_CASES={}",
        config.rng_seed, config.cases
    );
    let outcome = TestRunner::new(config).run(&redirects().prop_map(Short), |Short(redirect)| {
        property(&redirect)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}\n{repeat}"));
}

/// Prints a redirect in one line, also for `{:#?}`.
struct Short(Redirect);

impl Debug for Short {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn redirects() -> impl Strategy<Value = Redirect> {
    let port = (1..=u16::MAX).prop_map(|port| Port::new(port).unwrap());
    let uid = (0..=highest_uid()).prop_map(|uid| Uid::new(uid).unwrap());
    let mode = prop_oneof![
        Just(Ipv6Mode::Bypass),
        Just(Ipv6Mode::Redirect),
        Just(Ipv6Mode::Reject)
    ];
    (
        vec(port.clone(), 1..=LIST_LIMIT),
        port.clone(),
        uid,
        vec(cidrs(), 0..=LIST_LIMIT),
        mode,
        vec(port, 0..=LIST_LIMIT),
    )
        .prop_map(
            |(ports, proxy_port, proxy_uid, exclude_cidrs, ipv6, inbound_ports)| Redirect {
                ports,
                proxy_port,
                proxy_uid,
                exclude_cidrs,
                ipv6,
                inbound_ports,
            },
        )
}

/// Every prefix length, and every kind of address, including those with two spellings.
fn cidrs() -> impl Strategy<Value = Cidr> {
    let ipv4 = any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
    let ipv6 = prop_oneof![
        any::<u128>(),
        any::<u64>().prop_map(u128::from),
        any::<u32>().prop_map(u128::from),
        any::<u32>().prop_map(|mapped| 0xffff_0000_0000 | u128::from(mapped)),
        any::<u128>().prop_map(|bits| bits & 0xffff_0000_0000_ffff_0000_0000_0000_ffff),
    ];
    let ipv6 = ipv6.prop_map(|bits| IpAddr::from(bits.to_be_bytes()));
    let cidr = |(address, prefix)| Cidr::new(address, prefix).unwrap();
    prop_oneof![
        (ipv4, 0..=32u8).prop_map(cidr),
        (ipv6, 0..=128u8).prop_map(cidr),
    ]
}

/// Rewrites addresses and TCP flags as msm-cni prints them: some tools print `::192.0.2.1`
/// for `::c000:201`, and newer versions of nft print flags in a form that older ones reject.
fn normalize(text: &str) -> String {
    let word = |word: &str| match (word.parse::<Cidr>(), word.contains('/')) {
        (Ok(cidr), true) => cidr.to_string(),
        (Ok(cidr), false) => cidr.network().to_string(),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n";
    let flags = "tcp flags & (fin | syn | rst | ack) == syn";
    let text: String = text.lines().map(line).collect();
    text.replace("tcp flags syn / fin,syn,rst,ack", flags)
}

fn same_lines(actual: &str, expected: &str) -> Result<(), TestCaseError> {
    let mut pairs = actual.lines().zip(expected.lines());
    if let Some((actual, expected)) = pairs.find(|(actual, expected)| actual != expected) {
        same(&actual, &expected)?;
    }
    same(&actual.lines().count(), &expected.lines().count())
}

fn same<T: PartialEq + Debug>(actual: &T, expected: &T) -> Result<(), TestCaseError> {
    if actual == expected {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!(
            "actual {actual:?}\nexpected {expected:?}"
        )))
    }
}

/// Runs `work` in a new network namespace, on a new thread.
fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("create a network namespace");
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join().expect("join the thread"))
}

/// Runs a tool in the calling thread's network namespace and returns its output.
fn run(tool: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(find(tool).unwrap_or_else(|| panic!("{tool} is not installed")))
        .args(args)
        .env_clear()
        .env("XTABLES_LOCKFILE", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{tool} {args:?}: {output:?}\n{input}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn find(tool: &str) -> Option<PathBuf> {
    let directories = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let paths = directories.map(|directory| Path::new(directory).join(tool));
    paths.into_iter().find(|path| path.exists())
}

/// Whether this machine allows network namespaces and has the tools. In CI it must; elsewhere
/// the black-box tests report what is missing.
fn can_run(tools: &[&str]) -> bool {
    let can = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join();
    let can = can.is_ok_and(|can| can) && tools.iter().all(|tool| find(tool).is_some());
    assert!(
        can || env::var_os("CI").is_none(),
        "network namespaces or one of {tools:?} are missing"
    );
    can
}
