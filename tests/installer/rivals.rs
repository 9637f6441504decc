//! Other programs that write the node's configuration: once, again and again, in every way
//! that a file can be rewritten; and what is said about it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::node::{CALICO, CONF, Installer, NET_DIR, Node};
use nix::sys::signal::Signal;

const FIGHT: &str = "is changed again and again (the plugin entry was missing)";

/// How a rival writes its file.
#[derive(Debug, Clone, Copy)]
enum Way {
    InPlace,
    Slowly,
    Rename,
    DeleteAndCreate,
}

const WAYS: [Way; 4] = [Way::InPlace, Way::Slowly, Way::Rename, Way::DeleteAndCreate];

fn rewrite(way: Way, path: &Path, content: &str) {
    match way {
        Way::InPlace => fs::write(path, content).unwrap(),
        Way::Slowly => {
            let mut file = fs::File::create(path).unwrap();
            for byte in content.bytes() {
                file.write_all(&[byte]).unwrap();
            }
        }
        Way::Rename => {
            let temporary = path.with_extension("tmp");
            fs::write(&temporary, content).unwrap();
            fs::rename(temporary, path).unwrap();
        }
        Way::DeleteAndCreate => {
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        }
    }
}

fn has_our_entry(node: &Node, name: &str) -> bool {
    // In the middle of being rewritten it may be gone.
    fs::read_to_string(node.path(NET_DIR).join(name))
        .is_ok_and(|conf| conf.contains("\"msm-cni\"") && conf.ends_with("}\n"))
}

/// How often our entry was put back, by the log.
fn times(installer: &Installer) -> usize {
    installer.logged(": the plugin entry was missing")
}

#[test]
fn after_one_rewrite_our_entry_is_back_and_counted() {
    for way in WAYS {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let content = CALICO.replace("1440", "1500");
        rewrite(way, &node.path(NET_DIR).join(CONF), &content);
        installer.wait_until(&format!("our entry after {way:?}"), || {
            let conf = node.conf(CONF);
            conf.contains("1500") && has_our_entry(&node, CONF)
        });
        installer.wait_until("ready and counted", || {
            installer.mended() == 1 && installer.ready().unwrap().0 == 200
        });
        let (head, tail) = content.split_at(content.find("\n  ]").unwrap());
        let conf = node.conf(CONF);
        assert!(conf.starts_with(head) && conf.ends_with(tail), "{conf}");
        let (_, log, _) = installer.end(Signal::SIGTERM);
        assert!(
            log.contains(&format!(
                "{CONF} with mode 0644: the plugin entry was missing"
            )),
            "{log}"
        );
    }
}

#[test]
fn another_plugin_that_takes_over_gets_our_entry() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    // As Cilium does it with cni.exclusive.
    let cilium = CALICO.replace("calico", "cilium-cni");
    rewrite(
        Way::Rename,
        &node.path(NET_DIR).join("05-cilium.conflist"),
        &cilium,
    );
    let old = node.path(NET_DIR).join(CONF);
    fs::rename(&old, old.with_extension("conflist.cilium_bak")).unwrap();
    installer.wait_until("our entry in the new file", || {
        has_our_entry(&node, "05-cilium.conflist")
    });
    installer.becomes_ready();
}

/// Rewrites as soon as our entry is there, until it is told to stop.
fn fight(node: &Node, way: Way, stop: &AtomicBool) {
    let path = node.path(NET_DIR).join(CONF);
    while !stop.load(Ordering::Relaxed) {
        if has_our_entry(node, CONF) {
            rewrite(way, &path, CALICO);
        }
        thread::yield_now();
    }
}

#[test]
fn an_endless_rival_is_met_less_and_less_and_named_until_it_stops() {
    thread::scope(|scope| {
        for way in WAYS {
            scope.spawn(move || {
                let node = Node::with_conf(CONF, CALICO);
                let installer = node.installed(&[]);
                outlast(&installer, |node, stop| fight(node, way, stop));
                assert_eq!(installer.logged(FIGHT), 1, "{}", installer.log());
                assert!(installer.ready().unwrap().1.contains("\"reasons\":[]"));
            });
        }
    });
}

/// Lets the rival fight for some time, and waits until its end is noticed.
fn outlast(installer: &Installer, rival: impl Fn(&Node, &AtomicBool) + Sync) {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let _stopping = Stop(stop);
        let start = Instant::now();
        scope.spawn(|| rival(installer.node, stop));
        installer.becomes_unready(FIGHT);
        installer.becomes_unready("cni.exclusive");
        installer.wait_until("another of our rewrites", || {
            let (code, body) = installer.ready().unwrap();
            assert_eq!(code, 503, "{body}\n{}", installer.log());
            times(installer) >= 7
        });
        // Six at once, and the seventh a second later.
        let took = start.elapsed();
        assert!(
            took >= Duration::from_secs(1),
            "{took:?}\n{}",
            installer.log()
        );
    });
    installer.becomes_ready();
    assert!(has_our_entry(installer.node, CONF));
}

/// Ends a thread's work, also when the test fails.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_rival_that_moves_our_own_file_away_is_told_from_one_that_does_so_once() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--chained-cni-plugin=false"]);
    let ours = node.path(NET_DIR).join("YYY-msm-cni.conf");
    let away = || fs::rename(&ours, ours.with_extension("conf.cilium_bak")).unwrap();
    for time in 1..=3 {
        away();
        installer.wait_until("our file", || installer.mended() == time);
        assert_eq!(installer.ready().unwrap().0, 200, "{}", installer.log());
    }
    let unready = installer.until("not ready", || {
        if ours.exists() {
            away();
        }
        installer.ready().filter(|(code, _)| *code == 503)
    });
    assert!(
        unready
            .1
            .contains("YYY-msm-cni.conf is changed again and again (it was missing)")
            && unready.1.contains("cni.exclusive"),
        "{unready:?}"
    );
}
