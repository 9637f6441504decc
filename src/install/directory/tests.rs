//! The configuration of a node in memory: every plan is carried out step by step, and after
//! each step the runtime's own rules say which network it would load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{ORIGINAL_SUFFIX, list_name, original_name};
use crate::install::disk::Owner;
use crate::install::flags;
use crate::install::observe::{Held, NetFile, Observed, State, Unheld};
use crate::install::plan::{self, Action, Cause, Plan};
use crate::install::settings::Settings;
use crate::names::is_network_configuration;
use crate::process::Vars;

#[path = "../../../tests/installer/runtime.rs"]
mod runtime;

use runtime::{Network, Runtime};

const LIST: &str = r#"{"name":"l","cniVersion":"1.0.0","plugins":[{"type":"calico"}]}"#;
const OTHER_LIST: &str = "{\n  \"name\": \"o\",\n  \"plugins\": [\n    {\"type\": \"a\"},\n    {\"type\": \"b\"}\n  ]\n}\n";
const SINGLE: &str = r#"{"name":"s","cniVersion":"0.3.1","type":"bridge"}"#;
const OTHER_SINGLE: &str = "{\n  \"name\": \"t\",\n  \"type\": \"flannel\"\n}\n";
const THIRD_SINGLE: &str = r#"{"name":"u","cniVersion":"1.0.0","type":"ptp"}"#;
const OURS: &str = r#"{"name":"msm-cni","type":"msm-cni"}"#;

const FIRST_TOKEN: &str = "first.token";
const OWNER: Owner = Owner { uid: 0, gid: 0 };

#[derive(Clone)]
struct Node {
    flags: Vec<String>,
    files: BTreeMap<String, Result<Held, Unheld>>,
    token: &'static str,
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self {
            content: self.content.clone(),
            ..*self
        }
    }
}

fn held(content: &[u8]) -> Held {
    Held {
        content: content.to_owned(),
        mode: 0o644,
        owner: OWNER,
    }
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut node = Self {
            flags: Vec::new(),
            files: BTreeMap::new(),
            token: FIRST_TOKEN,
        };
        for (name, content) in files {
            node.write(name, content);
        }
        node
    }

    fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }

    fn write(&mut self, name: &str, content: &str) {
        self.files
            .insert(name.to_owned(), Ok(held(content.as_bytes())));
    }

    fn content(&self, name: &str) -> Option<&str> {
        let held = self.files.get(name)?.as_ref().ok()?;
        std::str::from_utf8(&held.content).ok()
    }

    fn mode(&self, name: &str) -> u32 {
        self.files[name].as_ref().unwrap().mode
    }

    fn settings(&self) -> Settings {
        let fixed = [
            "installer",
            "--mounted-cni-net-dir=/net.d",
            "--skip-tls-verify",
        ];
        let flags = fixed
            .into_iter()
            .chain(self.flags.iter().map(String::as_str));
        let vars: Vars = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_NODE_NAME", "node-1"),
        ]
        .into_iter()
        .collect();
        let matches = flags::command().try_get_matches_from(flags).unwrap();
        Settings::new(&matches, &vars, "host").unwrap()
    }

    fn found(&self, settings: &Settings) -> Observed {
        let kubeconfig = self.files.get(&settings.kubeconfig_name);
        let net_files = self
            .files
            .iter()
            .filter(|(name, _)| is_network_configuration(name) || name.ends_with(ORIGINAL_SUFFIX))
            .map(|(name, held)| NetFile {
                name: name.clone(),
                path: settings.net_dir.join(name),
                held: held.clone(),
            });
        Observed {
            bin_dirs: Vec::new(),
            bin_dir_trouble: None,
            kubeconfig: match kubeconfig {
                Some(Ok(held)) => State::There(held.clone()),
                Some(Err(_)) => State::Unreadable("no".into()),
                None => State::Missing,
            },
            token: Ok(self.token.to_owned()),
            authority: Ok(None),
            net_files: Ok(net_files.collect()),
            linked_dirs: BTreeSet::new(),
            temporaries: Vec::new(),
            own_uid: 0,
            is_renewed: self.token != FIRST_TOKEN,
        }
    }

    fn plan(&self) -> Plan {
        let settings = self.settings();
        plan::plan(&settings, &self.found(&settings))
    }

    fn removal(&self) -> Plan {
        let settings = self.settings();
        plan::removal(&settings, &self.found(&settings))
    }

    fn take(&mut self, action: &Action) {
        let name = |path: &Path| {
            assert_eq!(path.parent(), Some(Path::new("/net.d")), "{action}");
            path.file_name().unwrap().to_str().unwrap().to_owned()
        };
        match action {
            Action::Write {
                path,
                content,
                mode,
                owner,
            } => {
                let file = Held {
                    content: content.clone(),
                    mode: *mode,
                    owner: owner.unwrap_or(OWNER),
                };
                self.files.insert(name(path), Ok(file));
            }
            Action::Rename { from, to } => {
                let file = self.files.remove(&name(from)).unwrap();
                self.files.insert(name(to), file);
            }
            Action::Remove { path } => {
                assert!(self.files.remove(&name(path)).is_some(), "{action}");
            }
            Action::CopyExecutable { .. } | Action::Link { .. } => panic!("{action}"),
        }
    }

    /// Carries out plans until one is empty; returns what is waited for. What a runtime
    /// loads meanwhile is what it loaded before, or what it loads in the end.
    #[track_caller]
    fn settle(&mut self) -> Vec<String> {
        self.carry_out(Self::plan).waiting
    }

    /// The notes of those who leave.
    #[track_caller]
    fn leave(&mut self) -> Plan {
        self.carry_out(Self::removal)
    }

    #[track_caller]
    fn carry_out(&mut self, plan: impl Fn(&Self) -> Plan) -> Plan {
        let start = self.networks();
        let mut between: Vec<(String, [Option<Network>; 2])> = Vec::new();
        for _ in 0..4 {
            let Plan { steps, .. } = plan(self);
            if steps.is_empty() {
                let end = self.networks();
                for (action, networks) in &between {
                    let known = |index: usize| [&start[index], &end[index]];
                    let is_known = |index: usize| known(index).contains(&&networks[index]);
                    assert!(
                        (0..networks.len()).all(is_known),
                        "{action}: {networks:?}\n{self}"
                    );
                }
                return plan(self);
            }
            for step in steps {
                self.take(&step.action);
                between.push((step.action.to_string(), self.networks()));
            }
        }
        panic!("no end to it: {:?}\n{self}", plan(self));
    }

    fn network(&self, runtime: Runtime) -> Option<Network> {
        runtime.loads(self.files.iter().map(|(name, held)| {
            let held = held.as_ref().ok();
            (name.as_str(), held.map(|held| held.content.as_slice()))
        }))
    }

    /// Of all runtimes, without us.
    fn networks(&self) -> [Option<Network>; 2] {
        Runtime::ALL.map(|runtime| self.network(runtime).map(Network::without_us))
    }

    #[track_caller]
    fn is_chained(&self) {
        let network = self.network(Runtime::Crio);
        let is_chained = network.as_ref().is_some_and(Network::ends_with_us);
        assert!(is_chained, "{network:?}\n{self}");
    }

    #[track_caller]
    fn is_settled(&mut self) {
        assert_eq!(self.settle(), Vec::<String>::new(), "{self}");
        self.is_chained();
    }

    /// Names and contents of all but the kubeconfig.
    fn tree(&self) -> BTreeMap<String, String> {
        let kubeconfig = self.settings().kubeconfig_name;
        self.files
            .iter()
            .filter(|(name, _)| **name != kubeconfig)
            .map(|(name, held)| {
                let content = held.as_ref().map_or("?".into(), Held::text);
                (name.clone(), content.into_owned())
            })
            .collect()
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        for (name, content) in self.tree() {
            writeln!(f, "--- {name}\n{content}")?;
        }
        Ok(())
    }
}

fn tree(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    Node::new(files).tree()
}

fn names(node: &Node) -> Vec<String> {
    node.tree().into_keys().collect()
}

#[track_caller]
fn one_reason(reasons: &[String], parts: &[&str]) {
    let [reason] = reasons else {
        panic!("{reasons:?}");
    };
    for part in parts {
        assert!(reason.contains(part), "{part} in {reason}");
    }
}

// The first file.

#[test]
fn the_first_valid_file_gets_the_entry_and_no_other() {
    for (files, expected) in [
        (
            &[("10-a.conflist", LIST), ("20-b.conflist", LIST)][..],
            "10-a.conflist",
        ),
        (
            &[("10-a.conflist", "{"), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", SINGLE), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist", ""), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conflist.bak", LIST), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (
            &[("10-a.conf", OURS), ("20-b.conflist", LIST)],
            "20-b.conflist",
        ),
        (&[("Z.conflist", LIST), ("a.conflist", LIST)], "Z.conflist"),
        (
            &[(".a.conflist", LIST), ("10-a.conflist", LIST)],
            ".a.conflist",
        ),
    ] {
        let mut node = Node::new(files);
        node.is_settled();
        for (name, content) in files.iter().filter(|(name, _)| *name != "10-a.conf") {
            let is_changed = node.content(name) != Some(content);
            assert_eq!(is_changed, *name == expected, "{name}\n{node}");
        }
    }
}

#[test]
fn a_new_first_file_gets_the_entry_and_the_old_one_is_as_it_was() {
    for old in [
        ("10-x.conflist", LIST),
        ("10-x.conf", SINGLE),
        ("10-x.json", SINGLE),
    ] {
        let mut node = Node::new(&[old]);
        node.is_settled();
        node.write("05-new.conflist", OTHER_LIST);
        node.is_settled();
        assert_eq!(node.content(old.0), Some(old.1), "{node}");
        assert_eq!(names(&node), ["05-new.conflist", old.0]);
        node.files.remove("05-new.conflist");
        node.is_settled();
        node.leave();
        assert_eq!(node.tree(), tree(&[old]));
    }
}

#[test]
fn without_a_network_there_is_a_reason_that_names_what_is_there() {
    for (files, flags, parts) in [
        (
            &[][..],
            &[][..],
            &["/net.d holds no valid network configuration yet"][..],
        ),
        (
            &[("10-x.conflist", "{")],
            &[],
            &["10-x.conflist cannot be used: it is not"],
        ),
        (
            &[("10-x.conf", LIST)],
            &[],
            &["10-x.conf cannot be used", "no type"],
        ),
        (
            &[("10-x.conflist", LIST), ("30-z.conf", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet", "30-z.conf cannot be used"],
        ),
        (
            &[("10-x.conflist", "{")],
            &["--cni-conf-name=30-z.conf"],
            &["a valid 30-z.conf yet; waiting for the node's network plugin to write it"],
        ),
        (
            &[("10-x.conf.msm-cni-original", SINGLE)],
            &[],
            &["10-x.conflist is gone"],
        ),
    ] {
        let mut node = Node::new(files).with_flags(flags);
        let reasons = node.settle();
        one_reason(&reasons, parts);
        assert_eq!(node.tree(), tree(files));
        node.leave();
        assert_eq!(node.tree(), tree(files));
    }
}

#[test]
fn what_only_the_runtime_may_use_is_waited_for_when_it_comes_first() {
    let elsewhere = Unheld::Elsewhere("it is a symlink to /x, which is not there".into());
    let failed = Unheld::Failed("Input/output error".into());
    let nobody = Unheld::ByAnyone("it is a directory".into());
    let nameless = Ok(held(br#"{"type": "bridge"}"#));
    let latin = Ok(held(b"{\"name\":\"\xe4\",\"type\":\"bridge\"}"));
    for (name, file, is_waited_for) in [
        ("05-a.conflist", Err(elsewhere.clone()), true),
        ("05-a.conf", Err(failed), true),
        ("05-a.conf", nameless, true),
        ("05-a.conf", latin, true),
        ("05-a.conf", Err(nobody), false),
        ("05-a.bak", Err(elsewhere.clone()), false),
        ("30-a.conf", Err(elsewhere.clone()), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.files.insert(name.into(), file.clone());
        let reasons = node.settle();
        assert_eq!(reasons.len(), usize::from(is_waited_for), "{file:?}");
        assert!(
            reasons.iter().all(|reason| reason.contains(name)),
            "{reasons:?}"
        );
        // The first that we can read gets the entry all the same.
        let entry = node.content("10-x.conflist").unwrap();
        assert!(entry.contains("msm-cni"), "{node}");
    }
    // Whoever names the file knows.
    let mut node =
        Node::new(&[("10-x.conflist", LIST)]).with_flags(&["--cni-conf-name=10-x.conflist"]);
    node.files.insert("05-a.conf".into(), Err(elsewhere));
    node.settle();
    assert_eq!(node.plan().waiting, Vec::<String>::new());
}

// A `.conf` becomes a `.conflist` and comes back.

#[test]
fn a_conf_steps_aside_for_a_list_and_comes_back() {
    for name in ["10-x.conf", "10-x.json", "10-x.y.conf", r#"1 "x"\.conf"#] {
        let mut node = Node::new(&[(name, SINGLE)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o600;
        node.is_settled();
        let mut expected = vec![list_name(name), original_name(name)];
        expected.sort();
        assert_eq!(names(&node), expected);
        assert_eq!(node.mode(&list_name(name)), 0o600);
        node.leave();
        assert_eq!(node.tree(), tree(&[(name, SINGLE)]));
        assert_eq!(node.mode(name), 0o600);
    }
}

#[test]
fn a_change_that_is_cut_off_anywhere_comes_to_the_same_end() {
    for start in [
        &[("10-x.conf", SINGLE)][..],
        &[("10-x.json", SINGLE)],
        &[("10-x.conf", SINGLE), ("20-y.conf", OTHER_SINGLE)],
        &[("10-x.conflist", LIST)],
    ] {
        let mut whole = Node::new(start);
        whole.is_settled();
        let mut left = whole.clone();
        left.leave();
        assert_eq!(left.tree(), tree(start));
        for leaves_first in [false, true] {
            let (begin, plan) = if leaves_first {
                (whole.clone(), whole.removal())
            } else {
                (Node::new(start), Node::new(start).plan())
            };
            for cut in 0..=plan.steps.len() {
                let mut node = begin.clone();
                for step in plan.steps.iter().take(cut) {
                    node.take(&step.action);
                }
                let mut again = node.clone();
                again.is_settled();
                assert_eq!(again.tree(), whole.tree(), "{cut} of {plan:?}");
                node.leave();
                assert_eq!(node.tree(), tree(start), "{cut} of {plan:?}");
            }
        }
    }
}

#[test]
fn a_conf_that_is_written_anew_is_converted_anew() {
    for name in ["10-x.conf", "10-x.json"] {
        for anew in [SINGLE, OTHER_SINGLE] {
            let mut node = Node::new(&[(name, SINGLE)]);
            node.is_settled();
            node.write(name, anew);
            // What counts is what its owner says now.
            let removed = {
                let mut node = node.clone();
                node.leave();
                node.tree()
            };
            assert_eq!(removed, tree(&[(name, anew)]));
            let mut expected = Node::new(&[(name, anew)]);
            expected.is_settled();
            node.is_settled();
            assert_eq!(node.tree(), expected.tree());
        }
        let mut node = Node::new(&[(name, SINGLE)]);
        node.is_settled();
        let before = node.clone();
        // Half of it.
        node.write(name, "{\"name\":");
        node.is_settled();
        node.files.remove(name);
        assert_eq!(node.tree(), before.tree());
    }
}

#[test]
fn a_list_of_the_same_name_is_not_overwritten() {
    for files in [
        &[("10-x.conf", SINGLE), ("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE), ("10-x.conflist", "{")],
        &[
            ("10-x.conf", SINGLE),
            ("10-x.conflist", LIST),
            ("10-x.conf.msm-cni-original", OTHER_SINGLE),
        ],
        // Even if it happens to be what the `.conf` would become.
        &[
            ("10-x.conf", SINGLE),
            (
                "10-x.conflist",
                r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"name":"s","cniVersion":"0.3.1","type":"bridge"}]}"#,
            ),
        ],
    ] {
        let mut node = Node::new(files);
        one_reason(
            &node.settle(),
            &["both 10-x.conf and 10-x.conflist are in /net.d"],
        );
        assert_eq!(node.tree(), tree(files));
    }
    // It was the first, and had the entry.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.is_settled();
    node.write("10-x.conf", SINGLE);
    one_reason(&node.settle(), &["both"]);
    node.leave();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", SINGLE), ("10-x.conflist", LIST)])
    );
}

#[test]
fn what_others_have_changed_since_is_never_lost() {
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let list = node.content("10-x.conflist").unwrap();
    let evolved = list.replacen("\n  ]", ",\n    {\"type\": \"istio-cni\"}\n  ]", 1);
    node.write("10-x.conflist", &evolved);
    node.is_settled();
    let settled = node.clone();
    // Its owner writes the same once more: all of it is in the list already.
    node.write("10-x.conf", SINGLE);
    node.is_settled();
    assert_eq!(node.tree(), settled.tree());
    // And something else: nobody knows which of them is meant.
    node.write("10-x.conf", OTHER_SINGLE);
    one_reason(&node.settle(), &["both 10-x.conf and 10-x.conflist"]);
    node.files.remove("10-x.conf");

    let Plan { notes, .. } = node.leave();
    one_reason(
        &notes,
        &["10-x.conf.msm-cni-original stays", "10-x.conflist"],
    );
    assert_eq!(
        names(&node),
        ["10-x.conf.msm-cni-original", "10-x.conflist"]
    );
    let left = node.network(Runtime::Crio).unwrap();
    assert_eq!(left.plugins.len(), 2);
    assert_eq!(left.plugins[1]["type"], "istio-cni");
    assert_eq!(node.content("10-x.conf.msm-cni-original"), Some(SINGLE));
}

#[test]
fn what_others_have_removed_stays_removed() {
    // The original: then the list is all there is.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let networks = node.networks();
    node.files.remove("10-x.conf.msm-cni-original");
    node.is_settled();
    node.leave();
    assert_eq!(names(&node), ["10-x.conflist"]);
    assert_eq!(node.networks(), networks);

    // The list: then the network is gone, and only its owner may bring it back.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    node.files.remove("10-x.conflist");
    one_reason(
        &node.settle(),
        &["10-x.conflist is gone", "10-x.conf.msm-cni-original"],
    );
    let mut left = node.clone();
    one_reason(&left.leave().notes, &["10-x.conf.msm-cni-original stays"]);
    assert_eq!(left.tree(), tree(&[("10-x.conf.msm-cni-original", SINGLE)]));
    node.write("20-y.conflist", LIST);
    node.is_settled();
    node.write("10-x.conf", OTHER_SINGLE);
    node.is_settled();
    node.leave();
    assert_eq!(
        node.tree(),
        tree(&[("10-x.conf", OTHER_SINGLE), ("20-y.conflist", LIST)])
    );

    // Our entry, just before we leave.
    let mut node = Node::new(&[("10-x.conf", SINGLE)]);
    node.is_settled();
    let network = r#"{"name":"s","cniVersion":"0.3.1","plugins":[{"type":"bridge","name":"s","cniVersion":"0.3.1"}]}"#;
    node.write("10-x.conflist", network);
    node.leave();
    assert_eq!(node.tree(), tree(&[("10-x.conf", SINGLE)]));
}

#[test]
fn a_list_that_would_come_too_late_is_not_made() {
    // Between the name of the `.conf` and that of its list.
    let files = [("10-x.conf", SINGLE), ("10-x.conf-b.conflist", LIST)];
    let mut node = Node::new(&files);
    one_reason(
        &node.settle(),
        &["10-x.conf takes one plugin only", "10-x.conf-b.conflist"],
    );
    assert_eq!(node.tree(), tree(&files));
    let mut node = Node::new(&files[..1]);
    node.is_settled();
    node.write(files[1].0, files[1].1);
    one_reason(&node.settle(), &["10-x.conf takes one plugin only"]);
    assert_eq!(node.tree(), tree(&files));

    // A `.json` becomes a list that comes before it; what is between them comes first.
    let files = [("10-x.json", SINGLE), ("10-x.d.conflist", LIST)];
    let mut node = Node::new(&files[..1]);
    node.is_settled();
    node.write(files[1].0, files[1].1);
    node.is_settled();
    assert_eq!(node.content("10-x.json"), Some(SINGLE), "{node}");
    node.leave();
    assert_eq!(node.tree(), tree(&files));
}

// Names, modes, tokens.

#[test]
fn a_file_that_is_named_gets_the_entry() {
    let list = ("10-x.conflist", LIST);
    let single = ("10-x.conf", SINGLE);
    let first = ("00-first.conflist", OTHER_LIST);
    for (files, wanted, expected) in [
        (&[first, list][..], "10-x.conflist", "10-x.conflist"),
        (&[first, single], "10-x.conf", "10-x.conflist"),
        // What it has become, or will become.
        (&[first, list], "10-x.conf", "10-x.conflist"),
        (&[first, single], "10-x.conflist", "10-x.conflist"),
        (
            &[first, ("10-x.json", SINGLE)],
            "10-x.json",
            "10-x.conflist",
        ),
    ] {
        let flag = format!("--cni-conf-name={wanted}");
        let mut node = Node::new(files).with_flags(&[&flag]);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert!(
            node.content(expected).unwrap().contains("msm-cni"),
            "{node}"
        );
        assert_eq!(node.content(first.0), Some(first.1));
        node.leave();
        assert_eq!(node.tree(), tree(files));
    }
    // Written anew by its owner.
    let mut node = Node::new(&[single]).with_flags(&["--cni-conf-name=10-x.conf"]);
    node.is_settled();
    node.write("10-x.conf", OTHER_SINGLE);
    node.is_settled();
    node.leave();
    assert_eq!(node.tree(), tree(&[("10-x.conf", OTHER_SINGLE)]));
    // Another name, later: the entry moves when the file is there.
    let mut node = Node::new(&[first, list]);
    node.is_settled();
    let before = node.tree();
    node.flags = vec!["--cni-conf-name=30-z.conflist".into()];
    one_reason(&node.settle(), &["30-z.conflist"]);
    assert_eq!(node.tree(), before);
    node.write("30-z.conflist", LIST);
    assert_eq!(node.settle(), Vec::<String>::new());
    assert_eq!(node.content(first.0), Some(first.1));
    node.leave();
    assert_eq!(node.tree(), tree(&[first, list, ("30-z.conflist", LIST)]));
}

#[test]
fn stand_alone_is_a_file_of_its_own_beside_all_others() {
    let others = [("10-x.conflist", LIST), ("20-y.conf", SINGLE)];
    for (flags, name) in [
        (&["--chained-cni-plugin=false"][..], "YYY-msm-cni.conf"),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.conf"],
            "30-m.conf",
        ),
        (
            &["--chained-cni-plugin=false", "--cni-conf-name=30-m.json"],
            "30-m.json",
        ),
        (
            &[
                "--chained-cni-plugin=false",
                "--cni-conf-name=00-m.conflist",
            ],
            "00-m.conflist",
        ),
    ] {
        let mut node = Node::new(&others).with_flags(flags);
        assert_eq!(node.settle(), Vec::<String>::new());
        let alone = Node::new(&[(name, node.content(name).unwrap())]);
        for runtime in Runtime::ALL {
            let network = alone.network(runtime).unwrap();
            assert!(
                network.ends_with_us() && network.plugins.len() == 1,
                "{node}"
            );
            assert_eq!(
                (network.name.as_str(), network.version.as_str()),
                ("msm-cni", "1.0.0")
            );
        }
        for (other, content) in others {
            assert_eq!(node.content(other), Some(content));
        }
        // Somebody has changed it, or broken it under the name that is ours.
        let right = node.tree();
        let other = node.content(name).unwrap().replace("info", "trace");
        node.write(name, &other);
        assert_eq!(node.settle(), Vec::<String>::new());
        assert_eq!(node.tree(), right);
        node.files.get_mut(name).unwrap().as_mut().unwrap().mode = 0o666;
        node.settle();
        assert_eq!(node.mode(name), 0o644);
        node.leave();
        assert_eq!(node.tree(), tree(&others));
    }
    let mut node =
        Node::new(&[("YYY-msm-cni.conf", "{")]).with_flags(&["--chained-cni-plugin=false"]);
    assert_eq!(node.settle(), Vec::<String>::new());
}

#[test]
fn stand_alone_never_takes_somebody_elses_file() {
    let flags = [
        "--chained-cni-plugin=false",
        "--cni-conf-name=10-x.conflist",
    ];
    for content in [LIST, "", "{\"name\":", SINGLE] {
        let mut node = Node::new(&[("10-x.conflist", content)]).with_flags(&flags);
        one_reason(
            &node.settle(),
            &["/net.d/10-x.conflist is somebody else's", "--cni-conf-name"],
        );
        assert_eq!(node.content("10-x.conflist"), Some(content));
    }
    let default = ["--chained-cni-plugin=false"];
    let mut node = Node::new(&[("YYY-msm-cni.conf", SINGLE)]).with_flags(&default);
    one_reason(&node.settle(), &["YYY-msm-cni.conf is somebody else's"]);
    assert_eq!(node.content("YYY-msm-cni.conf"), Some(SINGLE));
}

#[test]
fn another_mode_leaves_nothing_of_the_one_before() {
    let alone = ["--chained-cni-plugin=false"];
    for files in [
        &[("10-x.conflist", LIST)][..],
        &[("10-x.conf", SINGLE)],
        &[("10-x.json", SINGLE), ("20-y.conflist", LIST)],
    ] {
        let mut chained = Node::new(files);
        chained.is_settled();
        let expected = chained.tree();
        let mut node = chained.with_flags(&alone);
        assert_eq!(node.settle(), Vec::<String>::new());
        node.files.remove("YYY-msm-cni.conf");
        assert_eq!(node.tree(), tree(files));
        node.settle();
        let mut node = node.with_flags(&[]);
        node.is_settled();
        assert_eq!(node.tree(), expected);
    }
    // Nothing to chain to: a plugin by itself is no network.
    let mut node = Node::new(&[]).with_flags(&alone);
    node.settle();
    let mut node = node.with_flags(&[]);
    one_reason(&node.settle(), &["no valid network configuration"]);
    assert_eq!(names(&node), Vec::<String>::new());
}

#[test]
fn a_token_in_the_entry_is_nobody_elses_business() {
    let template =
        r#"--cni-network-config={"name":"m","type":"msm-cni","token":"__SERVICEACCOUNT_TOKEN__"}"#;
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]).with_flags(&[template]);
        node.is_settled();
        let list = "10-x.conflist";
        assert!(node.content(list).unwrap().contains("first.token"));
        assert_eq!(node.mode(list), 0o600);
        // Rotated: not a fight.
        node.token = "second.token";
        let steps = node.plan().steps;
        assert!(
            !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
            "{steps:?}"
        );
        node.is_settled();
        assert!(node.content(list).unwrap().contains("second.token"));
        // Opened by somebody, which is one.
        node.files.get_mut(list).unwrap().as_mut().unwrap().mode = 0o644;
        node.is_settled();
        assert_eq!(node.mode(list), 0o600);
        node.leave();
        assert_eq!(node.tree(), tree(&[(name, content)]));
    }
    let mut node = Node::new(&[]).with_flags(&[template, "--chained-cni-plugin=false"]);
    node.settle();
    assert_eq!(node.mode("YYY-msm-cni.conf"), 0o600);
    node.token = "second.token";
    let steps = node.plan().steps;
    assert!(
        !steps.is_empty() && steps.iter().all(|step| step.cause == Cause::Renewal),
        "{steps:?}"
    );
    // None in it: as it was.
    let mut node = Node::new(&[("10-x.conflist", LIST)]);
    node.files
        .get_mut("10-x.conflist")
        .unwrap()
        .as_mut()
        .unwrap()
        .mode = 0o664;
    node.is_settled();
    assert_eq!(node.mode("10-x.conflist"), 0o664);
}

#[test]
fn a_file_of_others_keeps_its_owner() {
    let owner = Owner { uid: 7, gid: 8 };
    for name in ["10-x.conflist", "10-x.conf"] {
        let content = if name == "10-x.conf" { SINGLE } else { LIST };
        let mut node = Node::new(&[(name, content)]);
        node.files.get_mut(name).unwrap().as_mut().unwrap().owner = owner;
        node.is_settled();
        assert_eq!(node.files["10-x.conflist"].as_ref().unwrap().owner, owner);
        node.leave();
        assert_eq!(node.files[name].as_ref().unwrap().owner, owner);
    }
}

#[test]
fn as_long_as_an_entry_may_be_left_so_is_what_it_needs() {
    for (name, file, stays) in [
        (
            "20-y.conflist",
            Ok(held(b"{\"plugins\":[{\"type\":\"msm-cni\"")),
            true,
        ),
        (
            "20-y.conf",
            Err(Unheld::Failed("Input/output error".into())),
            true,
        ),
        (
            "20-y.conflist",
            Ok(held(b"{\"plugins\":[{\"type\":\"cal")),
            false,
        ),
        (
            "20-y.conf",
            Err(Unheld::ByAnyone("it is a directory".into())),
            false,
        ),
        (
            "20-y.conf",
            Err(Unheld::Elsewhere("it is a symlink".into())),
            false,
        ),
        ("20-y.conflist.bak", Ok(held(b"msm-cni")), false),
    ] {
        let mut node = Node::new(&[("10-x.conflist", LIST)]);
        node.is_settled();
        node.files.insert(name.into(), file.clone());
        let Plan { waiting, .. } = node.leave();
        assert_eq!(node.content("10-x.conflist"), Some(LIST));
        assert_eq!(waiting.len(), usize::from(stays), "{waiting:?}");
        assert!(
            waiting.iter().all(|reason| reason.contains(name)),
            "{waiting:?}"
        );
        let kubeconfig = node.files.contains_key(crate::names::KUBECONFIG_FILE);
        assert_eq!(kubeconfig, stays, "{file:?}");
    }
}

/// The trees of tests/fixtures/installer, which the black-box tests go through too.
#[test]
fn every_fixture_comes_to_the_tree_that_is_expected() {
    let cases = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/installer");
    let mut count = 0;
    for case in fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        let read = |path: PathBuf| -> Node {
            let mut node = Node::new(&[]);
            for file in fs::read_dir(path).into_iter().flatten() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let content = fs::read(file.path()).unwrap();
                node.files.insert(name, Ok(held(&content)));
            }
            node
        };
        let text = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
        let flags = text("flags");
        let flags: Vec<&str> = flags.lines().collect();
        let start = read(case.join("in"));
        let mut node = start.clone().with_flags(&flags);
        let waiting = node.settle().join("\n");
        let expected = text("waiting");
        assert!(
            waiting.contains(expected.trim()) && waiting.is_empty() == expected.is_empty(),
            "{}: {waiting}",
            case.display()
        );
        assert_eq!(
            node.tree(),
            read(case.join("expected")).tree(),
            "{}",
            case.display()
        );
        let networks = node.networks();
        node.leave();
        let left = case.join("left");
        let left = read(if left.is_dir() { left } else { case.join("in") });
        assert_eq!(node.tree(), left.tree(), "{}", case.display());
        // All the time it was the one that it is without us.
        assert_eq!(networks, left.networks(), "{}", case.display());
        count += 1;
    }
    assert!(count > 20, "{count} cases");
}

// Whatever others do.

const NAMES: [&str; 8] = [
    "05-a.conflist",
    "10-x.conf",
    "10-x.conf-b.conflist",
    "10-x.conflist",
    "10-x.d.conf",
    "10-x.json",
    "20-b.conf",
    "20-b.conflist",
];

#[derive(Debug, Clone)]
enum Event {
    Written(&'static str, &'static str),
    Removed(Index),
    /// Somebody else's plugin put into the list that the runtime uses, by its own code.
    Chained,
    /// So many steps, and then the power is cut.
    CutOff(usize),
    Settled,
}

fn event() -> impl Strategy<Value = Event> {
    // Of two that say the same, either may have become the list: a `.json` says something else.
    let contents = [LIST, OTHER_LIST, SINGLE, OTHER_SINGLE, "{\"name\":", ""];
    let written = (select(&NAMES[..]), select(contents.to_vec())).prop_map(|(name, content)| {
        let is_single = [SINGLE, OTHER_SINGLE].contains(&content);
        let content = if is_single && name == "10-x.json" {
            THIRD_SINGLE
        } else {
            content
        };
        Event::Written(name, content)
    });
    prop_oneof![
        5 => written,
        1 => any::<Index>().prop_map(Event::Removed),
        1 => Just(Event::Chained),
        1 => (0..4_usize).prop_map(Event::CutOff),
        3 => Just(Event::Settled),
    ]
}

fn is_network(name: &str, content: &str) -> bool {
    Runtime::Crio
        .loads([(name, Some(content.as_bytes()))])
        .is_some()
}

/// A node with us, and what it would be like without us.
struct Worlds {
    with: Node,
    without: Node,
    /// Names whose list was changed by somebody since we had made it of another file.
    evolved: BTreeSet<String>,
}

impl Worlds {
    fn happens(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Written(name, content) => {
                // Which of the two is meant, nobody knows.
                if self.evolved.contains(&list_name(name)) {
                    return Ok(());
                }
                // As long as it is no network, what it was before stays in use. And where a
                // list comes from that was cut off is seen by comparing the two.
                let is_aside = self.with.files.contains_key(&original_name(name));
                if self.has_its_list(name) && !(is_aside && is_network(name, content)) {
                    return Ok(());
                }
                self.is_taken_over(name);
                self.with.write(name, content);
                self.without.write(name, content);
            }
            Event::Removed(index) => {
                let files = names(&self.with);
                let files: Vec<_> = files
                    .iter()
                    .filter(|it| is_network_configuration(it))
                    .collect();
                if !files.is_empty() {
                    let name = *index.get(&files);
                    // Not seen before or after it: the list is there in any case.
                    if self.has_its_list(name) {
                        return Ok(());
                    }
                    self.is_taken_over(name);
                    self.with.files.remove(name);
                    self.without.files.remove(name);
                    self.evolved.remove(name);
                }
            }
            Event::Chained => self.others_chain(),
            Event::CutOff(steps) => {
                for step in self.with.plan().steps.iter().take(*steps) {
                    self.with.take(&step.action);
                }
            }
            Event::Settled => return self.settle(),
        }
        Ok(())
    }

    /// Whether we have made a list of it, or have begun to.
    fn has_its_list(&self, name: &str) -> bool {
        let list = list_name(name);
        list != name
            && self.with.files.contains_key(&list)
            && !self.without.files.contains_key(&list)
    }

    /// Whoever writes or removes a list that we made means the network that it was made of.
    fn is_taken_over(&mut self, name: &str) {
        if self.with.files.contains_key(name) && !self.without.files.contains_key(name) {
            let files = names(&self.without);
            let hidden = files
                .iter()
                .filter(|it| list_name(it) == name && !self.with.files.contains_key(*it));
            for source in hidden {
                self.without.files.remove(source);
            }
        }
    }

    fn others_chain(&mut self) {
        let lists = names(&self.with);
        let list = lists.iter().find(|name| {
            let content = self.with.content(name).unwrap_or_default();
            name.ends_with(".conflist") && is_network(name, content)
        });
        let Some(name) = list.cloned() else { return };
        // A list that stands for a file that is still there is about to go.
        if !self.without.files.contains_key(&name)
            && [".conf", ".json"].iter().any(|extension| {
                let source = name.replace(".conflist", extension);
                self.with.files.contains_key(&source)
            })
        {
            return;
        }
        let content = self.with.content(&name).unwrap().to_owned();
        let mut value: serde_json::Value = serde_json::from_str(&content).unwrap();
        let plugins = value["plugins"].as_array_mut().unwrap();
        plugins.push(serde_json::json!({"type": "istio-cni"}));
        let with = value.to_string();
        value["plugins"]
            .as_array_mut()
            .unwrap()
            .retain(|plugin| plugin["type"] != "msm-cni");
        if !self.without.files.contains_key(&name) {
            self.evolved.insert(name.clone());
        }
        self.is_taken_over(&name);
        self.with.write(&name, &with);
        self.without.write(&name, &value.to_string());
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let waiting = self.with.settle();
        let [mut containerd, crio] = self.without.networks();
        let with = self.with.networks();
        // It stumbles over what comes between a list and the `.json` that it stands for.
        if containerd.is_none() && with[0] == crio {
            containerd.clone_from(&crio);
        }
        prop_assert_eq!(with, [containerd, crio], "{:?}\n{}", waiting, self.with);
        for runtime in Runtime::ALL {
            if let Some(network) = self.with.network(runtime) {
                let is_right = network.ends_with_us() || !waiting.is_empty();
                prop_assert!(is_right, "{:?}\n{}", runtime, self.with);
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), TestCaseError> {
        let Plan { notes, waiting, .. } = self.with.leave();
        prop_assert_eq!(waiting, Vec::<String>::new());
        let mut tree = self.with.tree();
        let aside = tree.len();
        tree.retain(|name, _| is_network_configuration(name));
        prop_assert_eq!(
            aside - tree.len(),
            notes.len(),
            "{:?}\n{}",
            notes,
            self.with
        );
        let same = |one: &str, other: &str| crate::json::same(one, other);
        let expected = self.without.tree();
        prop_assert!(
            tree.keys().eq(expected.keys())
                && tree.iter().zip(&expected).all(|((name, one), (_, other))| {
                    // What others have written by their own code is not ours to format.
                    one == other
                        || (one.contains("istio") && same(one, other) && name.ends_with("list"))
                }),
            "{}\n=== expected\n{}",
            self.with,
            self.without
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_network_is_never_another_one_than_without_us(events in vec(event(), 1..10)) {
        let mut worlds = Worlds {
            with: Node::new(&[]),
            without: Node::new(&[]),
            evolved: BTreeSet::new(),
        };
        for event in &events {
            worlds.happens(event)?;
        }
        worlds.settle()?;
        worlds.leave()?;
    }
}
