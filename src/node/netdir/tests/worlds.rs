//! Whatever others do, and wherever we are cut off: the network is the one without us.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::testing::properties::fixed_seed_config;

use super::*;

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
                // As long as it is no network, what it was before stays in use.
                if self.has_its_list(name) && !is_network(name, content) {
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
        let backup = tree.len();
        tree.retain(|name, _| is_network_configuration(name));
        prop_assert_eq!(
            backup - tree.len(),
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
    #![proptest_config(ProptestConfig { cases: 1000, ..fixed_seed_config() })]
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
