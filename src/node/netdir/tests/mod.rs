//! A configuration directory in memory. Plans are executed step by step, and after each step a
//! model of the runtimes decides which network they would load.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use msm_testkit::runtime::{Network, Runtime};

use super::conflist::is_network_configuration;
use super::model::{backup_name, list_name};
use crate::fs::Owner;
use crate::names::ORIGINAL_SUFFIX;
use crate::node::flags;
use crate::node::inputs::Inputs;
use crate::node::lock::Holder;
use crate::node::observe::{FileSnapshot, FileState, NetFile, Observed, Unreadable};
use crate::node::plan::{self, RemovalPlan};
use crate::node::settings::Settings;
use crate::node::step::{Action, Cause, Plan};
use crate::process::Vars;

mod cases;
mod properties;

const LIST: &str = r#"{"name":"l","cniVersion":"1.0.0","plugins":[{"type":"calico"}]}"#;
const OTHER_LIST: &str = "{\n  \"name\": \"o\",\n  \"plugins\": [\n    {\"type\": \"a\"},\n    {\"type\": \"b\"}\n  ]\n}\n";
const SINGLE: &str = r#"{"name":"s","cniVersion":"0.3.1","type":"bridge"}"#;
const OTHER_SINGLE: &str = "{\n  \"name\": \"t\",\n  \"type\": \"flannel\"\n}\n";
const OURS: &str = r#"{"name":"msm-cni","type":"msm-cni"}"#;

const FIRST_TOKEN: &str = "first.token";
const OWNER: Owner = Owner { uid: 0, gid: 0 };

#[derive(Clone)]
struct Node {
    flags: Vec<String>,
    files: BTreeMap<String, Result<FileSnapshot, Unreadable>>,
    token: &'static str,
}

impl Clone for FileSnapshot {
    fn clone(&self) -> Self {
        Self {
            content: self.content.clone(),
            ..*self
        }
    }
}

fn snapshot(content: &[u8]) -> FileSnapshot {
    FileSnapshot {
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
            .insert(name.to_owned(), Ok(snapshot(content.as_bytes())));
    }

    fn content(&self, name: &str) -> Option<&str> {
        let snapshot = self.files.get(name)?.as_ref().ok()?;
        std::str::from_utf8(&snapshot.content).ok()
    }

    fn mode(&self, name: &str) -> u32 {
        self.files[name].as_ref().unwrap().mode
    }

    fn settings(&self) -> Settings {
        let args = ["--mounted-cni-net-dir=/net.d", "--skip-tls-verify"]
            .into_iter()
            .chain(self.flags.iter().map(String::as_str));
        let vars: Vars = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_NODE_NAME", "node-1"),
        ]
        .into_iter()
        .collect();
        let values = flags::command_line().parse(args.map(Into::into)).unwrap();
        let inputs = Inputs {
            flags: flags::given(&values),
            vars: &vars,
        };
        Settings::new(&inputs, "host").unwrap()
    }

    fn observed(&self, settings: &Settings) -> Observed {
        let kubeconfig = self.files.get(&settings.kubeconfig_name);
        let net_files = self
            .files
            .iter()
            .filter(|(name, _)| is_network_configuration(name) || name.ends_with(ORIGINAL_SUFFIX))
            .map(|(name, snapshot)| NetFile {
                name: name.clone(),
                path: settings.net_dir.join(name),
                snapshot: snapshot.clone(),
            });
        Observed {
            bin_dirs: Vec::new(),
            bin_dir_error: None,
            holder: Holder::Us,
            kubeconfig: match kubeconfig {
                Some(Ok(snapshot)) => FileState::Present(snapshot.clone()),
                Some(Err(_)) => FileState::Unreadable("no".into()),
                None => FileState::Missing,
            },
            token: Ok(self.token.to_owned()),
            ca_bundle: Ok(None),
            net_files: Ok(net_files.collect()),
            linked_dirs: BTreeSet::new(),
            temporaries: Vec::new(),
            unsynced: BTreeSet::new(),
            own_uid: 0,
            is_renewed: self.token != FIRST_TOKEN,
        }
    }

    fn plan(&self) -> Plan {
        let settings = self.settings();
        plan::install(&settings, &self.observed(&settings)).plan
    }

    fn removal(&self) -> RemovalPlan {
        let settings = self.settings();
        plan::remove(&settings, &self.observed(&settings))
    }

    fn execute(&mut self, action: &Action) {
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
                instead_of,
            } => {
                if let Some(expected) = instead_of {
                    let found = self.files[&name(path)].as_ref().unwrap();
                    assert_eq!(&found.content, expected, "{action}");
                }
                let file = FileSnapshot {
                    content: content.clone(),
                    mode: *mode,
                    owner: owner.unwrap_or(OWNER),
                };
                self.files.insert(name(path), Ok(file));
            }
            Action::BackUp {
                path,
                backup,
                content,
            } => {
                let file = self.files.remove(&name(path)).unwrap();
                assert_eq!(&file.as_ref().unwrap().content, content, "{action}");
                self.files.insert(name(backup), file);
            }
            Action::Restore { path, backup } => {
                let file = self.files.remove(&name(backup)).unwrap();
                assert!(self.files.insert(name(path), file).is_none(), "{action}");
            }
            Action::Remove { path } => {
                assert!(self.files.remove(&name(path)).is_some(), "{action}");
            }
            Action::CopyExecutable { .. } | Action::Link { .. } | Action::Sync { .. } => {
                panic!("{action}")
            }
        }
    }

    /// Executes plans until one has no steps; returns the reasons to wait.
    #[track_caller]
    fn settle(&mut self) -> Vec<String> {
        self.execute_all(Self::plan).waiting
    }

    #[track_caller]
    fn uninstall(&mut self) -> RemovalPlan {
        self.execute_all(|node| node.removal().plan);
        self.removal()
    }

    /// Executes plans until one has no steps. Fails if a runtime would load, after any step, a
    /// network other than the first or the final one.
    #[track_caller]
    fn execute_all(&mut self, plan: impl Fn(&Self) -> Plan) -> Plan {
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
                self.execute(&step.action);
                between.push((step.action.to_string(), self.networks()));
            }
        }
        panic!("plans do not converge: {:?}\n{self}", plan(self));
    }

    fn network(&self, runtime: Runtime) -> Option<Network> {
        runtime.loads(self.files.iter().map(|(name, snapshot)| {
            let snapshot = snapshot.as_ref().ok();
            (
                name.as_str(),
                snapshot.map(|snapshot| snapshot.content.as_slice()),
            )
        }))
    }

    /// The network of each runtime, without msm-cni.
    fn networks(&self) -> [Option<Network>; 2] {
        Runtime::ALL.map(|runtime| self.network(runtime).map(Network::without_us))
    }

    #[track_caller]
    fn assert_chained(&self) {
        let network = self.network(Runtime::Crio);
        let is_chained = network.as_ref().is_some_and(Network::ends_with_us);
        assert!(is_chained, "{network:?}\n{self}");
    }

    #[track_caller]
    fn settle_chained(&mut self) {
        assert_eq!(self.settle(), Vec::<String>::new(), "{self}");
        self.assert_chained();
    }

    /// Names and contents of all files but the kubeconfig.
    fn tree(&self) -> BTreeMap<String, String> {
        let kubeconfig = self.settings().kubeconfig_name;
        self.files
            .iter()
            .filter(|(name, _)| **name != kubeconfig)
            .map(|(name, snapshot)| {
                let content = snapshot.as_ref().map_or("?".into(), FileSnapshot::text);
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
fn assert_one_reason(reasons: &[String], parts: &[&str]) {
    let [reason] = reasons else {
        panic!("{reasons:?}");
    };
    for part in parts {
        assert!(reason.contains(part), "{part} in {reason}");
    }
}
