//! What is timed: each verb, backend, key and pod of each executable, and what they are
//! compared with. A table of what to run; nothing is run here but for the rules' text.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use msm_testkit::api_server::KeyKind;
use msm_testkit::find_tool;
use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;

use crate::contenders::{Contender, OURS};
use crate::launch::Launch;
use crate::sandbox::Sandbox;
use crate::site::{Call, POD, PodKind, Site};
use crate::tools::{self, RuleSet};

/// Who is no executable of a contender.
pub const FLOOR: &str = "floor";
pub const TOOLS: &str = "tools";
/// The floor that ratios are to.
pub const STATIC_TRUE: &str = "true, static";
/// What DESIGN.md's targets call `/bin/true`.
pub const DYNAMIC_TRUE: &str = "/bin/true, dynamic";
const RESTORE_OF_BOTH: &str = "iptables-nft-restore per family, both families";
const LARGE: PodKind = PodKind::Labelled(200_000);

/// One row: something that is run again and again.
pub struct Subject<'a> {
    pub what: String,
    pub who: &'a str,
    pub sandbox: Sandbox<'a>,
    pub work: Work<'a>,
    /// Which of our rows its ratio is to.
    pub beside: String,
    pub limit: Option<Limit>,
    /// What has to be in the kernel afterwards.
    pub rules: Rules,
    /// What is done before each run, outside of what is timed.
    pub before: Option<Box<dyn Fn() -> Result<(), String> + 'a>>,
}

/// What is run in a namespace, made anew for each run.
type Launches<'a> = dyn Fn(Option<&Namespace>) -> Vec<Launch> + 'a;

/// What is timed.
pub enum Work<'a> {
    /// Processes, one after the other.
    Processes(Box<Launches<'a>>),
    /// One pod fetched without a process.
    Exchange(KeyKind, PodKind),
}

/// What a run leaves in the kernel.
#[derive(Debug, Clone)]
pub enum Rules {
    /// Nothing that is looked at.
    Any,
    /// What `msm-iptables --check` finds right with these flags.
    Redirect(Vec<&'static str>),
    /// Something, whatever it is.
    Some,
}

/// DESIGN.md's targets of time.
#[derive(Debug, Clone)]
pub enum Limit {
    Wall(Duration),
    /// A share of `/bin/true`, that the libc decides on.
    OfTrue(Libc),
    /// An eighth of another row.
    EighthOf(&'static str),
}

impl<'a> Subject<'a> {
    /// A row without a limit, that is compared with ours of the same name.
    pub fn new(what: &str, who: &'a str, sandbox: Sandbox<'a>, work: Work<'a>) -> Self {
        Self {
            what: what.to_owned(),
            who,
            sandbox,
            work,
            beside: what.to_owned(),
            limit: None,
            rules: Rules::Any,
            before: None,
        }
    }

    /// One call of a contender's plugin.
    pub fn call(
        site: &'a Site,
        who: &'a Contender,
        what: &str,
        sandbox: Sandbox<'a>,
        call: Call,
    ) -> Self {
        let launches = move |netns: Option<&Namespace>| vec![site.call(who, call, netns)];
        let mut subject = Self::new(
            what,
            &who.label,
            sandbox,
            Work::Processes(Box::new(launches)),
        );
        if call.verb == "ADD" && matches!(call.pod, PodKind::Labelled(_)) {
            subject.rules = if who.is_build() {
                Rules::Redirect(vec!["--backend", call.backend])
            } else {
                Rules::Some
            };
        }
        subject
    }

    pub const fn limited(mut self, limit: Option<Limit>) -> Self {
        self.limit = limit;
        self
    }

    pub fn is_ours(&self) -> bool {
        self.who == OURS
    }
}

/// A program that needs nothing.
pub fn floor<'a>(what: &str, path: &'a Path) -> Subject<'a> {
    let launches = move |_: Option<&Namespace>| vec![Launch::new(Command::new(path))];
    Subject::new(
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

/// The row that most others are compared with.
pub fn main_row() -> String {
    name_of("ADD, nftables", KeyKind::Ecdsa, POD)
}

/// Everything that is timed in turn.
pub fn all<'a>(site: &'a Site, contenders: &'a [Contender]) -> Result<Vec<Subject<'a>>, String> {
    let ours = contenders.first().ok_or("nobody is measured")?;
    let mut subjects = vec![
        floor(STATIC_TRUE, &site.static_true),
        floor(DYNAMIC_TRUE, Path::new("/bin/true")),
    ];
    for who in contenders {
        subjects.extend(without_api_server(site, ours, who));
    }
    for who in contenders {
        subjects.extend(adds(site, who));
    }
    for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
        for pod in [POD, LARGE] {
            let what = name_of("TLS exchange alone", key, pod);
            let exchange = Subject::new(&what, FLOOR, Sandbox::None, Work::Exchange(key, pod));
            subjects.push(Subject {
                beside: name_of("ADD, nftables", key, pod),
                ..exchange
            });
        }
    }
    for who in contenders.iter().filter(|who| who.is_build()) {
        subjects.extend(by_hand(who));
    }
    subjects.extend(by_tools(ours)?);
    Ok(subjects)
}

fn without_api_server<'a>(
    site: &'a Site,
    ours: &'a Contender,
    who: &'a Contender,
) -> [Subject<'a>; 3] {
    let row = |what: &str, sandbox, verb, pod| {
        let call = Call {
            verb,
            pod,
            ..Call::ADD
        };
        Subject::call(site, who, what, sandbox, call).limited(who.libc().map(Limit::OfTrue))
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

fn adds<'a>(site: &'a Site, who: &'a Contender) -> Vec<Subject<'a>> {
    let row = |what: &str, sandbox, call| Subject::call(site, who, what, sandbox, call);
    let add = Call::ADD;
    let five = who
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
    if who.is_build() {
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
    if who.is_build() && find_tool("iptables-legacy-restore").is_some() {
        let what = name_of("ADD, iptables (legacy)", add.key, POD);
        rows.push(row(&what, Sandbox::Legacy, iptables));
    }
    if who.is_build() {
        let what = name_of("CHECK, nftables", add.key, POD);
        let check = Call {
            verb: "CHECK",
            ..add
        };
        rows.push(row(&what, Sandbox::Redirected(who), check));
    }
    rows
}

/// `msm-iptables`: the rules alone, without an API server.
fn by_hand(who: &Contender) -> Vec<Subject<'_>> {
    let mut rows = Vec::new();
    for set in RuleSet::ALL {
        for backend in ["nftables", "iptables"] {
            let mut flags = vec!["--backend", backend];
            flags.extend(set.flags());
            let given = flags.clone();
            let launches = move |netns: Option<&Namespace>| {
                let mut command = who.applet("msm-iptables");
                command
                    .arg("--netns")
                    .args(netns.map(Namespace::path))
                    .args(&given);
                vec![Launch::new(command)]
            };
            let work = Work::Processes(Box::new(launches));
            let what = rules_row(backend, set);
            let is_target = backend == "nftables" && set == RuleSet::Both;
            let mut row = Subject::new(&what, &who.label, Sandbox::Empty, work)
                .limited(is_target.then_some(Limit::EighthOf(RESTORE_OF_BOTH)));
            row.rules = Rules::Redirect(flags);
            rows.push(row);
        }
    }
    rows
}

fn rules_row(backend: &str, set: RuleSet) -> String {
    format!("rules alone, msm-iptables, {backend}, {}", set.name())
}

/// What a plugin that is built on command-line tools does for the same rules.
fn by_tools(ours: &Contender) -> Result<Vec<Subject<'_>>, String> {
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
                // The program finds the variant that is in use.
                let sandbox = if variant == "legacy" {
                    Sandbox::Legacy
                } else {
                    Sandbox::Empty
                };
                let mut row = Subject::new(&what, TOOLS, sandbox, Work::Processes(work));
                row.beside = rules_row("nftables", set);
                row.rules = Rules::Redirect([&["--backend", "iptables"], set.flags()].concat());
                rows.push(row);
            }
        }
    }
    Ok(rows)
}
