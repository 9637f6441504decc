//! Another version of the installer, while pods run and start.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Camera, NEWER_IMAGE};
use crate::Stage;
use crate::installer::Installer;
use crate::node::{self, wait_until};
use crate::pod::{Pod, Wish};
use crate::report::Report;

/// What happened while somebody looked on.
#[derive(Default)]
struct Meanwhile {
    is_over: AtomicBool,
    /// Of the configuration.
    looks: AtomicUsize,
    misses: AtomicUsize,
    pods: AtomicUsize,
}

impl Meanwhile {
    /// Looks at the configuration, again and again.
    fn watch(&self) {
        let conf = node::net_dir().join("10-cluster.conflist");
        while !self.is_over.load(Ordering::SeqCst) {
            let text = fs::read(&conf).unwrap_or_default();
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            let is_there = value["plugins"][2]["type"] == "msm-cni"
                && node::bin_dir().join("msm-cni").exists();
            self.looks.fetch_add(1, Ordering::SeqCst);
            self.misses
                .fetch_add(usize::from(!is_there), Ordering::SeqCst);
            thread::yield_now();
        }
    }

    /// Starts and ends pods, again and again.
    fn start_pods(&self, stage: &Stage) -> Result<(), String> {
        while !self.is_over.load(Ordering::SeqCst) {
            let pod = Pod::start(stage, Wish::new("doorbell", Some("true")))?;
            check(&pod)?;
            pod.end()?;
            self.pods.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits until a whole pod has come and gone.
    fn wait_for_pods(&self, count: usize) {
        let until = self.pods.load(Ordering::SeqCst) + count;
        wait_until("pods start meanwhile", || {
            self.is_over.load(Ordering::SeqCst) || self.pods.load(Ordering::SeqCst) >= until
        });
    }
}

struct EndOnDrop<'a>(&'a Meanwhile);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Ends the old one and starts a newer one, as a rolling update of the `DaemonSet` does; the
/// newer one, and how long it took until it was ready.
pub fn newer_installer<'a>(
    stage: &'a Stage,
    report: &mut Report,
    old: Installer<'a>,
    camera: &Camera,
) -> (Installer<'a>, Duration) {
    report.chapter("The installer is upgraded while pods run and start");
    let meanwhile = Meanwhile::default();
    let (old, newer, pods) = thread::scope(|scope| {
        // Also when something below panics: the scope waits for its threads.
        let end = EndOnDrop(&meanwhile);
        scope.spawn(|| meanwhile.watch());
        let pods = scope.spawn(|| {
            let _end = EndOnDrop(&meanwhile);
            meanwhile.start_pods(stage)
        });
        meanwhile.wait_for_pods(1);
        let old = (old.terminate(), old.log(), old.remove());
        // One is under way, the next one has seen nothing of the installer.
        meanwhile.wait_for_pods(2);
        let newer = Installer::start(stage, "msm-cni-9q4zl", NEWER_IMAGE)
            .unwrap_or_else(|error| panic!("start the newer installer: {error}"));
        let ready = newer.becomes_ready();
        let ready = ready.unwrap_or_else(|error| panic!("the newer installer: {error}"));
        meanwhile.wait_for_pods(2);
        drop(end);
        (old, (newer, ready), pods.join().unwrap())
    });
    let (code, log, removed) = old;
    report.is("SIGTERM to the old installer", "exit code 0", code);
    let reason = "DaemonSet msm-system/msm-cni exists";
    let stays = log.contains("everything stays as it is") && log.contains(reason);
    report.is(
        "what it says of the DaemonSet",
        reason,
        stays.then(|| reason.to_owned()).ok_or(log),
    );
    report.is(
        &format!(
            "entry and plugin, looked for {} times",
            meanwhile.looks.load(Ordering::SeqCst)
        ),
        "missing 0 times",
        Ok(format!(
            "missing {} times",
            meanwhile.misses.load(Ordering::SeqCst)
        )),
    );
    report.is(
        &format!(
            "the {} pods that started meanwhile",
            meanwhile.pods.load(Ordering::SeqCst)
        ),
        "all redirected",
        pods.map(|()| "all redirected".to_owned()),
    );
    let executable = fs::read(node::bin_dir().join("msm")).unwrap();
    let is_newer = executable.ends_with(b"newer");
    report.is(
        "the node's executable",
        "newer",
        Ok(if is_newer { "newer" } else { "old" }.to_owned()),
    );
    report.is(
        "the pod that ran all the time: application",
        camera.stub(),
        camera.rtsp(),
    );
    report.is("the old installer's pod", "gone", removed);
    newer
}

/// Compares the redirect in a pod's network namespace with the kernel's listing.
fn check(pod: &Pod) -> Result<(), String> {
    let (_, info) = pod.runtime.sandbox(&pod.sandbox)?;
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
    let network = namespaces.into_iter().flatten().find_map(|namespace| {
        (namespace["type"] == "network").then(|| namespace["path"].as_str())?
    });
    let output = Command::new(node::bin_dir().join("msm-iptables"))
        .arg("--check")
        .arg("--netns")
        .arg(network.ok_or("no network namespace")?)
        .output()
        .map_err(|error| format!("msm-iptables: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
