//! Property tests: with any changes by other components, and with an interruption after any
//! step, the runtime loads the network that it would load without msm-cni, and uninstalling
//! restores the directory.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::testing::properties::fixed_seed_config;

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
    Write(&'static str, &'static str),
    Remove(Index),
    /// Another component adds its plugin to the list that the runtime uses.
    Chain,
    /// The lists lose their records, as if release 0.1.0 had made them.
    RemoveRecords,
    /// The installer executes that many steps.
    Interrupt(usize),
    Settle,
}

fn event() -> impl Strategy<Value = Event> {
    let contents = [LIST, OTHER_LIST, SINGLE, OTHER_SINGLE, "{\"name\":", ""];
    let write = (select(&NAMES[..]), select(contents.to_vec()))
        .prop_map(|(name, content)| Event::Write(name, content));
    prop_oneof![
        5 => write,
        1 => any::<Index>().prop_map(Event::Remove),
        1 => Just(Event::Chain),
        1 => Just(Event::RemoveRecords),
        1 => (0..4_usize).prop_map(Event::Interrupt),
        3 => Just(Event::Settle),
    ]
}

fn is_network(name: &str, content: &str) -> bool {
    Runtime::Crio
        .loads([(name, Some(content.as_bytes()))])
        .is_some()
}

/// The same node with and without msm-cni.
struct Model {
    with: Node,
    without: Node,
    /// Converted lists that another component has edited.
    edited: BTreeSet<String>,
}

impl Model {
    fn apply(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Write(name, content) => self.write(name, content),
            Event::Remove(index) => self.remove(*index),
            Event::Chain => self.chain(),
            Event::RemoveRecords => {
                self.settle()?;
                self.remove_records();
            }
            Event::Interrupt(steps) => {
                for step in self.with.plan().steps.iter().take(*steps) {
                    self.with.execute(&step.action);
                }
            }
            Event::Settle => return self.settle(),
        }
        Ok(())
    }

    fn write(&mut self, name: &str, content: &str) {
        // It is unknown whether the edited list or this file is current.
        if self.edited.contains(&list_name(name)) {
            return;
        }
        // While the file is not a network, its previous version remains in use.
        if self.is_converted(name) && !is_network(name, content) {
            return;
        }
        self.forget_origin_of(name);
        self.with.write(name, content);
        self.without.write(name, content);
    }

    fn remove(&mut self, index: Index) {
        let files = names(&self.with);
        let files: Vec<_> = files
            .iter()
            .filter(|it| is_network_configuration(it))
            .collect();
        if files.is_empty() {
            return;
        }
        let name = *index.get(&files);
        // The list may exist in either case, so the removal has no effect.
        if self.is_converted(name) {
            return;
        }
        self.forget_origin_of(name);
        self.with.files.remove(name);
        self.without.files.remove(name);
        self.edited.remove(name);
    }

    /// Whether msm-cni has made a list of the file, or has begun to.
    fn is_converted(&self, name: &str) -> bool {
        let list = list_name(name);
        list != name
            && self.with.files.contains_key(&list)
            && !self.without.files.contains_key(&list)
    }

    /// A component that writes or removes a converted list replaces the network of its origin.
    fn forget_origin_of(&mut self, name: &str) {
        if self.with.files.contains_key(name) && !self.without.files.contains_key(name) {
            let files = names(&self.without);
            let backed_up = files
                .iter()
                .filter(|it| list_name(it) == name && !self.with.files.contains_key(*it));
            for origin in backed_up {
                self.without.files.remove(origin);
            }
        }
    }

    fn chain(&mut self) {
        let lists = names(&self.with);
        let list = lists.iter().find(|name| {
            let content = self.with.content(name).unwrap_or_default();
            name.ends_with(".conflist") && is_network(name, content)
        });
        let Some(name) = list.cloned() else { return };
        // A list whose origin exists is about to be replaced or removed.
        if !self.without.files.contains_key(&name)
            && [".conf", ".json"].iter().any(|extension| {
                let origin = name.replace(".conflist", extension);
                self.with.files.contains_key(&origin)
            })
        {
            return;
        }
        let content = self.with.content(&name).unwrap().to_owned();
        let mut value: serde_json::Value = serde_json::from_str(&content).unwrap();
        let plugins = value["plugins"].as_array_mut().unwrap();
        plugins.push(serde_json::json!({"type": "istio-cni"}));
        let with = value.to_string();
        value.as_object_mut().unwrap().remove("msm-cni");
        value["plugins"]
            .as_array_mut()
            .unwrap()
            .retain(|plugin| plugin["type"] != "msm-cni");
        if !self.without.files.contains_key(&name) {
            self.edited.insert(name.clone());
        }
        self.forget_origin_of(&name);
        self.with.write(&name, &with);
        self.without.write(&name, &value.to_string());
    }

    fn remove_records(&mut self) {
        for name in names(&self.with) {
            let Some(content) = self.with.content(&name) else {
                continue;
            };
            let lines = content.split_inclusive('\n');
            let without: String = lines
                .filter(|line| !line.starts_with("  \"msm-cni\": {\"from\""))
                .collect();
            self.with.write(&name, &without);
        }
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        let waiting = self.with.settle();
        let [mut containerd, crio] = self.without.networks();
        let with = self.with.networks();
        // containerd fails over an invalid file between a list and the `.json` that it was
        // converted from.
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

    fn uninstall(&mut self) -> Result<(), TestCaseError> {
        let RemovalPlan { notes, plan, .. } = self.with.uninstall();
        prop_assert_eq!(plan.waiting, Vec::<String>::new());
        let mut tree = self.with.tree();
        let all = tree.len();
        tree.retain(|name, _| is_network_configuration(name));
        let backups = all - tree.len();
        prop_assert_eq!(backups, notes.len(), "{:?}\n{}", notes, self.with);
        let expected = self.without.tree();
        prop_assert!(
            tree.keys().eq(expected.keys())
                && tree.iter().zip(&expected).all(|((name, one), (_, other))| {
                    // The format of a file that another component has rewritten may differ.
                    one == other
                        || (one.contains("istio")
                            && crate::json::same(one, other)
                            && name.ends_with("list"))
                }),
            "{}\n=== expected\n{}",
            self.with,
            self.without
        );
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..fixed_seed_config() })]
    #[test]
    fn network_is_always_the_one_without_msm_cni(events in vec(event(), 1..10)) {
        let mut model = Model {
            with: Node::new(&[]),
            without: Node::new(&[]),
            edited: BTreeSet::new(),
        };
        for event in &events {
            model.apply(event)?;
        }
        model.settle()?;
        model.uninstall()?;
    }
}
