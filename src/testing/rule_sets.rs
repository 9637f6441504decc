//! Any rule set is the same after it went through a real kernel: written by our own
//! messages or loaded from its text by other people's tools, it is listed as what it was,
//! by us and by them.
//!
//! Always the same cases, unless `PROPTEST_CASES` or `PROPTEST_RNG_SEED` say otherwise.

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
use crate::redirect::iptables;
use crate::redirect::iptables::Variant;
use crate::redirect::iptables::script;
use crate::redirect::nft;
use crate::redirect::parameters::LIST_LIMIT;
use crate::redirect::policy::{Cidr, Family, Ipv6Mode, Port, Uid};
use crate::redirect::rules::{Redirect, RuleSet, Scope};

const CASES: u32 = 24;
const SEED: u64 = 554;

#[test]
fn nftables_lists_what_was_written_and_what_its_text_says() {
    if can_run(&["nft"]) {
        for_any_redirect(nftables_holds);
    }
}

#[test]
fn iptables_nft_lists_what_was_written_and_what_its_text_says() {
    if can_run(&["iptables-nft-restore", "ip6tables-nft-restore"]) {
        for_any_redirect(|redirect| iptables_holds(redirect, Variant::Nft));
    }
}

#[test]
fn iptables_legacy_lists_what_was_written_and_what_its_text_says() {
    if can_run(&["iptables-legacy-restore", "ip6tables-legacy-restore"]) {
        for_any_redirect(|redirect| iptables_holds(redirect, Variant::Legacy));
    }
}

#[test]
fn the_longest_lists_fit_every_backend() {
    let tools = ["nft", "iptables-nft-restore", "iptables-legacy-restore"];
    if !can_run(&tools) {
        return;
    }
    for ipv6 in [Ipv6Mode::Bypass, Ipv6Mode::Redirect, Ipv6Mode::Reject] {
        for family in [Family::Ipv4, Family::Ipv6] {
            nftables_holds(&longest(ipv6, family)).unwrap();
        }
    }
    for (ipv6, family) in [
        (Ipv6Mode::Redirect, Family::Ipv4),
        (Ipv6Mode::Reject, Family::Ipv6),
    ] {
        for variant in [Variant::Nft, Variant::Legacy] {
            iptables_holds(&longest(ipv6, family), variant).unwrap();
        }
    }
}

fn nftables_holds(redirect: &Redirect) -> Result<(), TestCaseError> {
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
    in_fresh_namespace(|| {
        same(&nft::apply(redirect)?.0, &Change::Created)?;
        let (found, _) = nft::found()?;
        same(&found, &nft::wanted(redirect, &found))?;
        same(&nft::read(Scope::Inet).unwrap(), &set)?;
        same_lines(&normal(&run("nft", &list, "")), &normal(&text))?;
        same(&nft::apply(redirect)?.0, &Change::None)
    })?;
    in_fresh_namespace(|| {
        run("nft", &["-f", "-"], &text);
        same(&nft::read(Scope::Inet).unwrap(), &set)?;
        same(&nft::apply(redirect)?.0, &Change::None)
    })?;
    in_fresh_namespace(|| {
        let scopes = [Family::Ipv4, Family::Ipv6].map(Scope::Only);
        for set in scopes
            .iter()
            .filter_map(|scope| RuleSet::new(redirect, *scope))
        {
            run("nft", &["-f", "-"], &set.to_string());
            same(&nft::read(set.scope).unwrap(), &set)?;
        }
        let (found, _) = nft::found()?;
        same(&found, &nft::wanted(redirect, &found))
    })
}

fn iptables_holds(redirect: &Redirect, variant: Variant) -> Result<(), TestCaseError> {
    let [tool4, tool6] = variant.tools();
    let families = [(tool4, Family::Ipv4), (tool6, Family::Ipv6)];
    let scripts = families.map(|(tool, family)| {
        let set = RuleSet::new(redirect, Scope::Only(family));
        (
            tool,
            set.map_or_else(String::new, |set| script::create(&set)),
        )
    });
    let holds = || {
        let (found, holder) = iptables::found(&nft::tables()?)?;
        same(&holder, &Some(variant))?;
        let wanted = iptables::wanted(redirect, holder)?;
        same(&wanted.first_difference(&found), &None)?;
        for (tool, script) in &scripts {
            let saved = normal(&run(&format!("{tool}-save"), &[], ""));
            let saved: HashSet<_> = saved.lines().collect();
            let script = normal(script);
            let mut rules = script.lines().filter(|line| line.starts_with("-A"));
            let missing = rules.find(|line| !saved.contains(line));
            same(&missing, &None)?;
        }
        Ok::<_, TestCaseError>(())
    };
    in_fresh_namespace(|| {
        if variant == Variant::Legacy {
            run("iptables-legacy", &["-t", "nat", "-S"], "");
        }
        same(&iptables::apply(redirect)?, &Change::Created)?;
        holds()?;
        same(&iptables::apply(redirect)?, &Change::None)
    })?;
    in_fresh_namespace(|| {
        for (tool, script) in scripts.iter().filter(|(_, script)| !script.is_empty()) {
            run(&format!("{tool}-restore"), &["--noflush"], script);
        }
        holds()?;
        same(&iptables::apply(redirect)?, &Change::None)
    })
}

/// Every list as long as it may be, with ranges of one family, and of the longest text.
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

/// The kernel's owner match knows only users that the namespace's own users can be.
fn highest_uid() -> u32 {
    match fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if !map.contains(&u32::MAX.to_string()) => 65_535,
        _ => u32::MAX - 1,
    }
}

fn for_any_redirect(holds: impl Fn(&Redirect) -> Result<(), TestCaseError>) {
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
    let again = format!(
        "again: PROPTEST_RNG_SEED={} PROPTEST_CASES={}",
        config.rng_seed, config.cases
    );
    let outcome = TestRunner::new(config).run(&redirects().prop_map(Short), |Short(redirect)| {
        holds(&redirect)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}\n{again}"));
}

/// A redirect in one line, however it is asked to print.
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

/// Every prefix of every kind of address, those that are written in two ways included.
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

/// The text in our spelling: some print `::192.0.2.1` for `::c000:201`, and newer nft
/// another form of what flags are compared with, which older ones cannot read.
fn normal(text: &str) -> String {
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

fn same_lines(found: &str, wanted: &str) -> Result<(), TestCaseError> {
    let mut pairs = found.lines().zip(wanted.lines());
    if let Some((found, wanted)) = pairs.find(|(found, wanted)| found != wanted) {
        same(&found, &wanted)?;
    }
    same(&found.lines().count(), &wanted.lines().count())
}

fn same<T: PartialEq + Debug>(found: &T, wanted: &T) -> Result<(), TestCaseError> {
    if found == wanted {
        Ok(())
    } else {
        Err(TestCaseError::fail(format!(
            "found {found:?}\nwanted {wanted:?}"
        )))
    }
}

/// Runs `work` in a network namespace that ends with it.
fn in_fresh_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join().expect("the namespace's thread"))
}

/// Runs a tool in the calling thread's namespace; what it prints.
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

/// Whether this machine has what it takes. Elsewhere the black-box tests say what is
/// missing; where `CI` is set, nothing may be.
fn can_run(tools: &[&str]) -> bool {
    let can = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join();
    let can = can.is_ok_and(|can| can) && tools.iter().all(|tool| find(tool).is_some());
    assert!(
        can || env::var_os("CI").is_none(),
        "no namespaces, or one of {tools:?} is missing"
    );
    can
}
