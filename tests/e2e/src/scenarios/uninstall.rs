//! The `DaemonSet` is deleted: the files that remain on the node, and pods afterwards.

use super::{Camera, PLUGINS_WITHOUT, check_nothing_remains, check_plugins, check_restored, names};
use crate::Env;
use crate::installer::Installer;
use crate::node;
use crate::report::Report;

/// Stops the installer and the camera.
pub fn daemon_set_is_deleted(env: &Env, report: &mut Report, installer: Installer, camera: Camera) {
    report.section("The DaemonSet is deleted");
    env.cluster.delete_daemon_set();
    report.check(
        "SIGTERM to the installer",
        "exit code 0",
        installer.terminate(),
    );
    report.check(
        "the configuration directory",
        "10-cluster.conflist",
        Ok(names(&node::net_dir())),
    );
    check_restored(report, "10-cluster.conflist", &node::network());
    report.check(
        "the plugin directory",
        "bridge host-local loopback msm msm-cni msm-iptables portmap",
        Ok(names(&node::bin_dir())),
    );
    check_plugins(env, report, PLUGINS_WITHOUT);
    report.check(
        "the running pod: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.check(
        "the running pod: removing it",
        "removed",
        camera.pod.remove(),
    );
    check_nothing_remains(env, report, installer);
    report.check(
        "port mappings, after all pods were removed",
        "0 rules of port mappings",
        Ok(node::port_rules()),
    );
}
