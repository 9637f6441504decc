//! The trees of tests/fixtures/installer, each a configuration directory as network plugins
//! leave it: `in`, with the installer's `flags`; `expected`, and what it is `waiting` for;
//! `left`, where that is not `in` again. Everything about them is in the fixtures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use msm_testkit::node::{Installer, NET_DIR, Node};
use msm_testkit::runtime::{Network, Runtime};
use nix::sys::signal::Signal;

/// Names and contents of what a directory holds.
type Files = BTreeMap<String, Vec<u8>>;

struct Case {
    path: PathBuf,
    flags: Vec<String>,
    waiting: String,
}

fn cases() -> Vec<Case> {
    let fixtures = std::env::var_os("MSM_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let cases = fs::read_dir(fixtures.join("installer")).unwrap();
    let text = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    cases
        .map(|case| case.unwrap().path())
        .map(|path| Case {
            flags: text(path.join("flags"))
                .lines()
                .map(str::to_owned)
                .collect(),
            waiting: text(path.join("waiting")).trim().to_owned(),
            path,
        })
        .collect()
}

fn files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let files = entries.map(|file| file.unwrap().path()).map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    files
        .filter(|(name, _)| !name.to_lowercase().starts_with("zzz-"))
        .collect()
}

fn networks(files: &Files) -> [Option<Network>; 2] {
    Runtime::ALL.map(|runtime| {
        runtime.loads(
            files
                .iter()
                .map(|(name, content)| (name.as_str(), Some(content.as_slice()))),
        )
    })
}

impl Case {
    fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    }

    fn is_as(&self, tree: &str, node: &Node, when: &str) {
        let (found, expected) = (files(&node.path(NET_DIR)), files(&self.path.join(tree)));
        let shown = |files: &Files| {
            let files = files.iter().map(|(name, content)| {
                format!("--- {name}\n{}\n", String::from_utf8_lossy(content))
            });
            files.collect::<String>()
        };
        assert!(
            found == expected,
            "{} is not as {tree} {when}\n{}=== expected\n{}",
            self.name(),
            shown(&found),
            shown(&expected)
        );
    }

    fn start<'a>(&self, node: &'a Node, cleanup: &str) -> Installer<'a> {
        let cleanup = format!("--cleanup-on-exit={cleanup}");
        // To copy the executable for each of them takes time.
        let mut flags = vec![cleanup.as_str(), "--skip-cni-binaries=msm-cni,msm-iptables"];
        flags.extend(self.flags.iter().map(String::as_str));
        let installer = node.start(&flags);
        if self.waiting.is_empty() {
            installer.becomes_ready();
        } else {
            installer.becomes_unready(&self.waiting);
        }
        installer
    }

    fn run(&self) {
        let node = Node::new();
        let start = files(&self.path.join("in"));
        for (name, content) in &start {
            fs::write(node.path(NET_DIR).join(name), content).unwrap();
        }
        let installer = self.start(&node, "never");
        self.is_as("expected", &node, "at first");
        installer.end(Signal::SIGTERM);

        // Another one finds nothing to do.
        let stamps = node.stamps();
        let installer = self.start(&node, "always");
        assert_eq!(
            node.stamps(),
            stamps,
            "{}\n{}",
            self.name(),
            installer.log()
        );
        let with = networks(&files(&node.path(NET_DIR)));

        let (code, log, _) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{}\n{log}", self.name());
        let left = if self.path.join("left").exists() {
            "left"
        } else {
            "in"
        };
        self.is_as(left, &node, "at last");

        let without = networks(&files(&node.path(NET_DIR)));
        let is_chained =
            self.waiting.is_empty() && !self.flags.iter().any(|flag| flag.ends_with("=false"));
        for (with, without) in with.into_iter().zip(without) {
            let is_last = with.as_ref().is_none_or(Network::ends_with_us);
            let is_named = self.flags.iter().any(|flag| flag.contains("conf-name"));
            assert!(
                is_last || !is_chained || is_named,
                "{}: {with:?}",
                self.name()
            );
            assert_eq!(with.map(Network::without_us), without, "{}", self.name());
        }
    }
}

#[test]
fn every_configuration_gets_our_entry_once_and_is_as_it_was_when_we_leave() {
    let cases = cases();
    assert!(cases.len() > 40, "{} fixtures", cases.len());
    for case in cases {
        case.run();
    }
}
