//! Other programs that write the node's network configuration, once or repeatedly, in every way
//! that a file can be rewritten.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::installer::Installer;
use msm_testkit::node::{CALICO, CONF, NET_DIR, Node};
use nix::sys::signal::Signal;

const FLAPPING: &str = "keeps being overwritten (the plugin entry was missing)";

/// How a file is rewritten.
#[derive(Debug, Clone, Copy)]
enum Method {
    InPlace,
    Slowly,
    Rename,
    DeleteAndCreate,
}

const METHODS: [Method; 4] = [
    Method::InPlace,
    Method::Slowly,
    Method::Rename,
    Method::DeleteAndCreate,
];

fn rewrite(method: Method, path: &Path, content: &str) {
    match method {
        Method::InPlace => fs::write(path, content).unwrap(),
        Method::Slowly => {
            let mut file = fs::File::create(path).unwrap();
            for byte in content.bytes() {
                file.write_all(&[byte]).unwrap();
            }
        }
        Method::Rename => {
            let temporary = path.with_extension("tmp");
            fs::write(&temporary, content).unwrap();
            fs::rename(temporary, path).unwrap();
        }
        Method::DeleteAndCreate => {
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

fn has_entry(node: &Node, name: &str) -> bool {
    // The file may be missing while it is rewritten.
    fs::read_to_string(node.path(NET_DIR).join(name))
        .is_ok_and(|conf| conf.contains("\"msm-cni\"") && conf.ends_with("}\n"))
}

/// The number of repairs, from the log.
fn repairs(installer: &Installer) -> usize {
    installer.logged(": the plugin entry was missing")
}

#[test]
fn entry_is_restored_and_counted_after_one_rewrite() {
    for method in METHODS {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let content = CALICO.replace("1440", "1500");
        rewrite(method, &node.path(NET_DIR).join(CONF), &content);
        installer.reacts(&format!("the entry after {method:?}"), || {
            let conf = node.conf(CONF);
            conf.contains("1500") && has_entry(&node, CONF)
        });
        installer.wait_until("ready and counted", || {
            installer.repairs() == 1 && installer.ready().unwrap().0 == 200
        });
        let (head, tail) = content.split_at(content.find("\n  ]").unwrap());
        let conf = node.conf(CONF);
        assert!(conf.starts_with(head) && conf.ends_with(tail), "{conf}");
        let (_, log) = installer.end(Signal::SIGTERM);
        assert!(
            log.contains(&format!(
                "{CONF} with mode 0644: the plugin entry was missing"
            )),
            "{log}"
        );
    }
}

#[test]
fn entry_moves_to_the_file_of_a_plugin_that_takes_over() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    // As Cilium does it with cni.exclusive.
    let cilium = CALICO.replace("calico", "cilium-cni");
    rewrite(
        Method::Rename,
        &node.path(NET_DIR).join("05-cilium.conflist"),
        &cilium,
    );
    let old = node.path(NET_DIR).join(CONF);
    fs::rename(&old, old.with_extension("conflist.cilium_bak")).unwrap();
    installer.reacts("the entry in the new file", || {
        has_entry(&node, "05-cilium.conflist")
    });
    installer.becomes_ready();
}

/// Removes the entry as soon as it exists, until `stop` is set.
fn keep_overwriting(node: &Node, method: Method, stop: &AtomicBool) {
    let path = node.path(NET_DIR).join(CONF);
    while !stop.load(Ordering::Relaxed) {
        if has_entry(node, CONF) {
            rewrite(method, &path, CALICO);
        }
        thread::yield_now();
    }
}

#[test]
fn repeated_overwrites_are_repaired_with_delays_and_reported_until_they_stop() {
    thread::scope(|scope| {
        for method in METHODS {
            scope.spawn(move || {
                let node = Node::with_conf(CONF, CALICO);
                let installer = node.installed(&[]);
                outlast(&installer, |node, stop| {
                    keep_overwriting(node, method, stop);
                });
                assert_eq!(installer.logged(FLAPPING), 1, "{}", installer.log());
                assert!(installer.ready().unwrap().1.contains("\"reasons\":[]"));
            });
        }
    });
}

/// Runs `overwrite` for some time, stops it and waits until the node is ready.
fn outlast(installer: &Installer, overwrite: impl Fn(&Node, &AtomicBool) + Sync) {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopOnDrop(stop);
        let start = Instant::now();
        scope.spawn(|| overwrite(installer.node, stop));
        installer.becomes_unready(FLAPPING);
        installer.becomes_unready("cni.exclusive");
        installer.wait_until("a delayed repair", || {
            let (code, body) = installer.ready().unwrap();
            assert_eq!(code, 503, "{body}\n{}", installer.log());
            repairs(installer) >= 7
        });
        // Six without a delay, and the seventh a second later.
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(1),
            "{took:?}\n{}",
            installer.log()
        );
    });
    installer.becomes_ready();
    assert!(has_entry(installer.node, CONF));
}

/// Stops threads, also if the test fails.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn stand_alone_file_that_is_moved_repeatedly_is_reported() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--chained-cni-plugin=false"]);
    let file = node.path(NET_DIR).join("YYY-msm-cni.conf");
    let move_away = || fs::rename(&file, file.with_extension("conf.cilium_bak")).unwrap();
    for time in 1..=3 {
        move_away();
        installer.wait_until("the file is restored", || installer.repairs() == time);
        assert_eq!(installer.ready().unwrap().0, 200, "{}", installer.log());
    }
    let unready = installer.until("not ready", || {
        if file.exists() {
            move_away();
        }
        installer.ready().filter(|(code, _)| *code == 503)
    });
    assert!(
        unready
            .1
            .contains("YYY-msm-cni.conf keeps being overwritten (it was missing)")
            && unready.1.contains("cni.exclusive"),
        "{unready:?}"
    );
}
