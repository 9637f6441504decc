//! The installer is replaced by another version while pods run and start.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::{Camera, NEWER_IMAGE};
use crate::Env;
use crate::installer::Installer;
use crate::node::{self, wait_or_panic};
use crate::pod::{Pod, PodRequest};
use crate::report::Report;

/// Counts what happens during the upgrade.
#[derive(Default)]
struct Observer {
    is_stopped: AtomicBool,
    /// Checks of the entry and the plugin.
    checks: AtomicUsize,
    missing: AtomicUsize,
    pods: AtomicUsize,
}

impl Observer {
    /// Checks continuously that the entry and the plugin exist.
    fn watch(&self) {
        let conf = node::net_dir().join("10-cluster.conflist");
        while !self.is_stopped() {
            let text = fs::read(&conf).unwrap_or_default();
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            let exists = value["plugins"][2]["type"] == "msm-cni"
                && node::bin_dir().join("msm-cni").exists();
            self.checks.fetch_add(1, Ordering::SeqCst);
            self.missing
                .fetch_add(usize::from(!exists), Ordering::SeqCst);
            thread::yield_now();
        }
    }

    /// Starts and removes pods continuously.
    fn start_pods(&self, env: &Env) -> Result<(), String> {
        while !self.is_stopped() {
            let pod = Pod::start(env, PodRequest::new("doorbell", Some("true")))?;
            check_redirect(&pod)?;
            pod.remove()?;
            self.pods.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Waits until `count` more pods were started and removed.
    fn wait_for_pods(&self, count: usize) {
        let until = self.pods.load(Ordering::SeqCst) + count;
        wait_or_panic("pods start during the upgrade", || {
            self.is_stopped() || self.pods.load(Ordering::SeqCst) >= until
        });
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }
}

struct StopOnDrop<'a>(&'a Observer);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_stopped.store(true, Ordering::SeqCst);
    }
}

/// Stops the old installer and starts a newer one, as a rolling update of the `DaemonSet` does.
/// Returns the newer one and the time until it was ready.
pub fn newer_installer<'a>(
    env: &'a Env,
    report: &mut Report,
    old: Installer<'a>,
    camera: &Camera,
) -> (Installer<'a>, Duration) {
    report.section("An upgrade of the installer while pods run and start");
    let observer = Observer::default();
    let (old, newer, pods) = thread::scope(|scope| {
        // Also stops the threads after a panic: the scope waits for them.
        let stop = StopOnDrop(&observer);
        scope.spawn(|| observer.watch());
        let pods = scope.spawn(|| {
            let _stop = StopOnDrop(&observer);
            observer.start_pods(env)
        });
        observer.wait_for_pods(1);
        let old = (old.terminate(), old.log(), old.remove());
        // The first one may have started before; the second one starts without an installer.
        observer.wait_for_pods(2);
        let newer = Installer::start(env, "msm-cni-9q4zl", NEWER_IMAGE)
            .unwrap_or_else(|error| panic!("start the newer installer: {error}"));
        let ready = newer.becomes_ready();
        let ready = ready.unwrap_or_else(|error| panic!("the newer installer: {error}"));
        observer.wait_for_pods(2);
        drop(stop);
        (old, (newer, ready), pods.join().unwrap())
    });
    let (code, log, removed) = old;
    report.check("SIGTERM to the old installer", "exit code 0", code);
    let reason = "DaemonSet msm-system/msm-cni exists";
    let is_kept = log.contains("leaving the installation in place") && log.contains(reason);
    report.check(
        "its reason in the log",
        reason,
        is_kept.then(|| reason.to_owned()).ok_or(log),
    );
    report.check(
        &format!(
            "entry and plugin, checked {} times",
            observer.checks.load(Ordering::SeqCst)
        ),
        "missing 0 times",
        Ok(format!(
            "missing {} times",
            observer.missing.load(Ordering::SeqCst)
        )),
    );
    report.check(
        &format!(
            "the {} pods that started during the upgrade",
            observer.pods.load(Ordering::SeqCst)
        ),
        "all redirected",
        pods.map(|()| "all redirected".to_owned()),
    );
    let executable = fs::read(node::bin_dir().join("msm")).unwrap();
    let is_newer = executable.ends_with(b"newer");
    report.check(
        "the node's executable",
        "newer",
        Ok(if is_newer { "newer" } else { "old" }.to_owned()),
    );
    report.check(
        "the running pod: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.check("removing the old installer's pod", "removed", removed);
    newer
}

/// Runs `msm-iptables --check` on a pod's network namespace.
fn check_redirect(pod: &Pod) -> Result<(), String> {
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
