//! The cases that are timed: each verb, backend, key and pod of each executable, and what they
//! are compared with. Nothing is timed here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use msm_testkit::certificates::KeyKind;
use msm_testkit::find_tool;
use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;

use crate::cluster::{Call, Cluster, POD, PodKind};
use crate::launch::Launch;
use crate::sandbox::Sandbox;
use crate::targets::{OURS, Target};
use crate::tools::{self, RuleSet};

/// Labels of rows without an executable under test.
pub const FLOOR: &str = "floor";
pub const TOOLS: &str = "tools";
/// The base of the first ratio.
pub const STATIC_TRUE: &str = "true, static";
/// The base of limits of short calls.
pub const DYNAMIC_TRUE: &str = "/bin/true, dynamic";
const RESTORE_OF_BOTH: &str = "iptables-nft-restore per family, both families";
const LARGE: PodKind = PodKind::Labelled(200_000);

/// One row of the table.
pub struct Case<'a> {
    pub what: String,
    pub target: &'a str,
    pub sandbox: Sandbox<'a>,
    pub work: Work<'a>,
    /// The row of the shipped executable that it is compared with.
    pub baseline: String,
    pub limit: Option<Limit>,
    /// The rules that must be in the kernel afterwards.
    pub rules: Rules,
    /// Runs before each run, untimed.
    pub before: Option<Box<dyn Fn() -> Result<(), String> + 'a>>,
}

/// Creates the processes of one run in a namespace.
type Launches<'a> = dyn Fn(Option<&Namespace>) -> Vec<Launch> + 'a;

/// What is timed.
pub enum Work<'a> {
    /// Processes, one after the other.
    Processes(Box<Launches<'a>>),
    /// A GET of the pod, without a process.
    Exchange(KeyKind, PodKind),
}

/// What a run leaves in the kernel.
#[derive(Debug, Clone)]
pub enum Rules {
    /// Not checked.
    Any,
    /// `msm-iptables --check` succeeds with these flags.
    Redirect(Vec<&'static str>),
    /// Some redirect.
    Some,
}

/// The project's limits of time.
#[derive(Debug, Clone)]
pub enum Limit {
    Wall(Duration),
    /// A share of the time of `/bin/true`: 0.7 with musl, 1.1 with glibc.
    OfTrue(Libc),
    /// An eighth of the time of another row.
    EighthOf(&'static str),
}

impl<'a> Case<'a> {
    /// A row without a limit, compared with the row of the shipped executable of that name.
    pub fn new(what: &str, target: &'a str, sandbox: Sandbox<'a>, work: Work<'a>) -> Self {
        Self {
            what: what.to_owned(),
            target,
            sandbox,
            work,
            baseline: what.to_owned(),
            limit: None,
            rules: Rules::Any,
            before: None,
        }
    }

    /// One call of a plugin.
    pub fn call(
        cluster: &'a Cluster,
        target: &'a Target,
        what: &str,
        sandbox: Sandbox<'a>,
        call: Call,
    ) -> Self {
        let launches = move |netns: Option<&Namespace>| vec![cluster.call(target, call, netns)];
        let mut case = Self::new(
            what,
            &target.label,
            sandbox,
            Work::Processes(Box::new(launches)),
        );
        if call.verb == "ADD" && matches!(call.pod, PodKind::Labelled(_)) {
            case.rules = if target.is_build() {
                Rules::Redirect(vec!["--backend", call.backend])
            } else {
                Rules::Some
            };
        }
        case
    }

    pub const fn limited(mut self, limit: Option<Limit>) -> Self {
        self.limit = limit;
        self
    }

    pub fn is_ours(&self) -> bool {
        self.target == OURS
    }
}

/// A program without input.
pub fn floor<'a>(what: &str, path: &'a Path) -> Case<'a> {
    let launches = move |_: Option<&Namespace>| vec![Launch::new(Command::new(path))];
    Case::new(
        what,
        FLOOR,
        Sandbox::None,
        Work::Processes(Box::new(launches)),
    )
}

fn name_of(backend: &str, key: KeyKind, pod: PodKind) -> String {
    let key = match key {
        KeyKind::Ecdsa => "ECDSA",
        KeyKind::Rsa => "RSA",
    };
    let size = if pod == LARGE { 200 } else { 8 };
    format!("{backend}, {key}, {size} kB pod")
}

/// The most important row.
pub fn main_row() -> String {
    name_of("ADD, nftables", KeyKind::Ecdsa, POD)
}

/// All cases.
pub fn all<'a>(cluster: &'a Cluster, targets: &'a [Target]) -> Result<Vec<Case<'a>>, String> {
    let ours = targets.first().ok_or("no executable")?;
    let mut cases = vec![
        floor(STATIC_TRUE, &cluster.static_true),
        floor(DYNAMIC_TRUE, Path::new("/bin/true")),
    ];
    for target in targets {
        cases.extend(without_api_server(cluster, ours, target));
    }
    for target in targets {
        cases.extend(adds(cluster, target));
    }
    for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
        for pod in [POD, LARGE] {
            let what = name_of("TLS exchange alone", key, pod);
            let exchange = Case::new(&what, FLOOR, Sandbox::None, Work::Exchange(key, pod));
            cases.push(Case {
                baseline: name_of("ADD, nftables", key, pod),
                ..exchange
            });
        }
    }
    for target in targets.iter().filter(|target| target.is_build()) {
        cases.extend(iptables_applet(target));
    }
    cases.extend(by_tools(ours)?);
    Ok(cases)
}

fn without_api_server<'a>(
    cluster: &'a Cluster,
    ours: &'a Target,
    target: &'a Target,
) -> [Case<'a>; 3] {
    let row = |what: &str, sandbox, verb, pod| {
        let call = Call {
            verb,
            pod,
            ..Call::ADD
        };
        Case::call(cluster, target, what, sandbox, call).limited(target.libc().map(Limit::OfTrue))
    };
    [
        row("VERSION", Sandbox::None, "VERSION", POD),
        row(
            "ADD, excluded namespace",
            Sandbox::Empty,
            "ADD",
            PodKind::Excluded,
        ),
        row("DEL", Sandbox::Redirected(ours), "DEL", POD),
    ]
}

fn adds<'a>(cluster: &'a Cluster, target: &'a Target) -> Vec<Case<'a>> {
    let row = |what: &str, sandbox, call| Case::call(cluster, target, what, sandbox, call);
    let add = Call::ADD;
    let five = target
        .is_build()
        .then_some(Limit::Wall(Duration::from_millis(5)));
    let plain = Call {
        pod: PodKind::Plain,
        ..add
    };
    let iptables = Call {
        backend: "iptables",
        ..add
    };
    let mut rows = vec![
        row(
            &name_of("ADD, no label", add.key, POD),
            Sandbox::Empty,
            plain,
        ),
        row(&main_row(), Sandbox::Empty, add).limited(five.clone()),
    ];
    if target.is_build() {
        for (key, pod) in [
            (KeyKind::Ecdsa, LARGE),
            (KeyKind::Rsa, POD),
            (KeyKind::Rsa, LARGE),
        ] {
            let what = name_of("ADD, nftables", key, pod);
            let call = Call { pod, key, ..add };
            rows.push(row(&what, Sandbox::Empty, call).limited(five.clone()));
        }
    }
    if find_tool("iptables-nft-restore").is_some() {
        let what = name_of("ADD, iptables (nft)", add.key, POD);
        rows.push(row(&what, Sandbox::Empty, iptables));
    }
    if target.is_build() && find_tool("iptables-legacy-restore").is_some() {
        let what = name_of("ADD, iptables (legacy)", add.key, POD);
        rows.push(row(&what, Sandbox::Legacy, iptables));
    }
    if target.is_build() {
        let what = name_of("CHECK, nftables", add.key, POD);
        let check = Call {
            verb: "CHECK",
            ..add
        };
        rows.push(row(&what, Sandbox::Redirected(target), check));
    }
    rows
}

/// `msm-iptables`: the rules alone, without an API server.
fn iptables_applet(target: &Target) -> Vec<Case<'_>> {
    let mut rows = Vec::new();
    for set in RuleSet::ALL {
        for backend in ["nftables", "iptables"] {
            let mut flags = vec!["--backend", backend];
            flags.extend(set.flags());
            let given = flags.clone();
            let launches = move |netns: Option<&Namespace>| {
                let mut command = target.applet("msm-iptables");
                command
                    .arg("--netns")
                    .args(netns.map(Namespace::path))
                    .args(&given);
                vec![Launch::new(command)]
            };
            let work = Work::Processes(Box::new(launches));
            let what = rules_row(backend, set);
            let has_limit = backend == "nftables" && set == RuleSet::Both;
            let mut row = Case::new(&what, &target.label, Sandbox::Empty, work)
                .limited(has_limit.then_some(Limit::EighthOf(RESTORE_OF_BOTH)));
            row.rules = Rules::Redirect(flags);
            rows.push(row);
        }
    }
    rows
}

fn rules_row(backend: &str, set: RuleSet) -> String {
    format!("rules alone, msm-iptables, {backend}, {}", set.name())
}

/// The same rules written by command-line tools, as other plugins do.
fn by_tools(ours: &Target) -> Result<Vec<Case<'_>>, String> {
    let mut rows = Vec::new();
    for variant in ["nft", "legacy"] {
        if find_tool(&format!("iptables-{variant}-restore")).is_none() {
            continue;
        }
        for set in RuleSet::ALL {
            let rules = tools::rules(ours, set)?;
            let each = rules.clone();
            let one_by_one =
                move |netns: Option<&Namespace>| tools::rule_by_rule(&each, variant, netns);
            let at_once = move |netns: Option<&Namespace>| tools::restore(&rules, variant, netns);
            let both: [(_, Box<Launches>); 2] = [
                (format!("iptables-{variant} per rule"), Box::new(one_by_one)),
                (
                    format!("iptables-{variant}-restore per family"),
                    Box::new(at_once),
                ),
            ];
            for (method, work) in both {
                let what = format!("{method}, {}", set.name());
                // The executable detects the variant in use.
                let sandbox = if variant == "legacy" {
                    Sandbox::Legacy
                } else {
                    Sandbox::Empty
                };
                let mut row = Case::new(&what, TOOLS, sandbox, Work::Processes(work));
                row.baseline = rules_row("nftables", set);
                row.rules = Rules::Redirect([&["--backend", "iptables"], set.flags()].concat());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}
