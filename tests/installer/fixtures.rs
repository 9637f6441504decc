//! The cases of tests/fixtures/installer. Each has three versions of the configuration directory:
//! `in`, as network plugins write it; `expected` after the installation; and `left` after the
//! uninstallation, if that differs from `in`. `flags` are the installer's, and `waiting` is the
//! reason if it does not become ready.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use msm_testkit::installer::Installer;
use msm_testkit::node::{NET_DIR, Node};
use msm_testkit::runtime::{Network, Runtime};
use nix::sys::signal::Signal;

/// Names and contents of the files of a directory.
type Files = BTreeMap<String, Vec<u8>>;

struct Case {
    path: PathBuf,
    name: String,
    flags: Vec<String>,
    waiting: String,
}

impl Case {
    fn read(path: PathBuf) -> Self {
        let text = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
        Self {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            flags: text("flags").lines().map(str::to_owned).collect(),
            waiting: text("waiting").trim().to_owned(),
            path,
        }
    }

    fn run(&self) {
        let node = Node::new();
        for (name, content) in files(&self.path.join("in")) {
            fs::write(node.path(NET_DIR).join(name), content).unwrap();
        }
        let installer = self.start(&node, "never");
        self.assert_tree(&node, "expected");
        installer.end(Signal::SIGTERM);

        // A second installer changes nothing.
        let stamps = node.stamps();
        let installer = self.start(&node, "always");
        let log = installer.log();
        assert_eq!(node.stamps(), stamps, "{}\n{log}", self.name);
        let with = networks(&node);

        let (code, log) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{}\n{log}", self.name);
        let has_left = self.path.join("left").exists();
        self.assert_tree(&node, if has_left { "left" } else { "in" });
        self.assert_networks(with, networks(&node));
    }

    fn start<'a>(&self, node: &'a Node, cleanup: &str) -> Installer<'a> {
        let cleanup = format!("--cleanup-on-exit={cleanup}");
        // Copying the executable in every case would take too long.
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

    fn assert_tree(&self, node: &Node, tree: &str) {
        let (actual, expected) = (files(&node.path(NET_DIR)), files(&self.path.join(tree)));
        let listing = |files: &Files| {
            let files = files.iter().map(|(name, content)| {
                format!("--- {name}\n{}\n", String::from_utf8_lossy(content))
            });
            files.collect::<String>()
        };
        assert!(
            actual == expected,
            "{}: the directory differs from {tree}\n{}=== expected\n{}",
            self.name,
            listing(&actual),
            listing(&expected)
        );
    }

    /// The installation adds msm-cni as the last plugin, and changes nothing else.
    fn assert_networks(&self, with: [Option<Network>; 2], without: [Option<Network>; 2]) {
        let has_flag = |part: &str| self.flags.iter().any(|flag| flag.contains(part));
        let is_chained = self.waiting.is_empty() && !has_flag("=false") && !has_flag("conf-name");
        for (with, without) in with.into_iter().zip(without) {
            let is_last = with.as_ref().is_none_or(Network::ends_with_us);
            assert!(is_last || !is_chained, "{}: {with:?}", self.name);
            assert_eq!(with.map(Network::without_us), without, "{}", self.name);
        }
    }
}

/// The files of a directory, without kubeconfigs.
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

fn networks(node: &Node) -> [Option<Network>; 2] {
    Runtime::ALL.map(|runtime| runtime.loads_from(&node.path(NET_DIR)))
}

#[test]
fn every_fixture_is_chained_and_restored() {
    let fixtures = std::env::var_os("MSM_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let cases: Vec<_> = fs::read_dir(fixtures.join("installer")).unwrap().collect();
    assert!(cases.len() > 40, "{} fixtures", cases.len());
    for case in cases {
        Case::read(case.unwrap().path()).run();
    }
}
