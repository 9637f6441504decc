//! On a node in the desired state the installer uses no CPU and no disk.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::installer::{DEADLINE, Installer};
use msm_testkit::node::{CALICO, CONF, Node};

/// How long the installer must do nothing.
const SPAN: Duration = Duration::from_secs(3);

/// Context switches, memory, bytes read and written, CPU time.
#[derive(Debug, PartialEq, Eq)]
struct Usage(Vec<String>);

fn usage(installer: &Installer) -> Usage {
    let proc = |file| fs::read_to_string(format!("/proc/{}/{file}", installer.pid())).unwrap();
    let keys = [
        "voluntary_ctxt_switches",
        "nonvoluntary_ctxt_switches",
        "VmRSS",
        "rchar",
        "wchar",
        "syscr",
        "syscw",
        "read_bytes",
        "write_bytes",
    ];
    let text = proc("status") + &proc("io");
    let lines = text.lines().filter(|line| {
        let key = line.split(':').next().unwrap();
        keys.contains(&key)
    });
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert_eq!(lines.len(), keys.len(), "{text}");
    let stat = proc("stat");
    // After the process name: user and system time (proc(5)).
    let times = stat.rsplit_once(')').unwrap().1.split(' ');
    let times = times.skip(12).take(2).map(str::to_owned);
    Usage(lines.into_iter().chain(times).collect())
}

#[test]
fn ready_installer_sleeps() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let stamps = node.stamps();
    let start = Instant::now();
    let mut before = usage(&installer);
    let mut since = Instant::now();
    // The last inotify events, and the test's own probe, may be handled late.
    loop {
        let is_over = since.elapsed() >= SPAN;
        let now = usage(&installer);
        if now != before {
            assert!(
                start.elapsed() < DEADLINE,
                "{before:#?}\n{now:#?}\n{}",
                installer.log()
            );
            (before, since) = (now, Instant::now());
        } else if is_over {
            break;
        }
        thread::yield_now();
    }
    assert_eq!(node.stamps(), stamps);
}
