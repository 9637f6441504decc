//! The `DaemonSet` goes: what the installer leaves behind, and pods after it.

use std::fs;

use super::{CHAIN_WITHOUT, Camera, loads, names, rtsp_of};
use crate::Stage;
use crate::installer::Installer;
use crate::node;
use crate::pod::Wish;
use crate::report::Report;

/// Ends everything that still runs.
pub fn daemon_set_goes(stage: &Stage, report: &mut Report, installer: Installer, camera: Camera) {
    report.chapter("The DaemonSet is deleted");
    stage.cluster.delete_daemon_set();
    report.is(
        "SIGTERM to the installer",
        "exit code 0",
        installer.terminate(),
    );
    report.is(
        "the configuration directory",
        "10-cluster.conflist",
        Ok(names(&node::net_dir())),
    );
    let text = fs::read_to_string(node::net_dir().join("10-cluster.conflist"));
    let text = text.unwrap_or_else(|error| error.to_string());
    let is_as_before = text == node::network();
    report.is(
        "the network's configuration",
        "every byte as before",
        is_as_before
            .then(|| "every byte as before".to_owned())
            .ok_or(text),
    );
    report.is(
        "the plugins' directory",
        "bridge host-local loopback msm portmap",
        Ok(names(&node::bin_dir())),
    );
    report.is(
        "the chain that the runtime loads",
        CHAIN_WITHOUT,
        loads(stage, CHAIN_WITHOUT),
    );
    report.is(
        "the pod that still runs: application",
        camera.stub(),
        camera.rtsp(),
    );
    report.is("the pod that still runs: its end", "gone", camera.pod.end());
    report.is(
        "a new pod with the label",
        "server@554 from the pod",
        rtsp_of(stage, Wish::new("camera", Some("true"))),
    );
    report.is("the installer's pod", "gone", installer.remove());
    report.is(
        "addresses, when all pods are gone",
        "0 addresses in use",
        Ok(node::addresses_in_use()),
    );
    report.is(
        "port mappings, when all pods are gone",
        "0 rules of port mappings",
        Ok(node::port_rules()),
    );
}
