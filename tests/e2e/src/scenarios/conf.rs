//! The installer on a node whose network is a `.conf`, which is converted to a list and restored.

use std::fs;

use serde_json::Value;

use super::{Camera, IMAGE, check_nothing_remains, check_plugins, check_restored, names};
use crate::Env;
use crate::installer::Installer;
use crate::node::{self, wait_for};
use crate::pod::PodRequest;
use crate::report::Report;

const CONF: &str = "10-cluster.conf";
const LIST: &str = "10-cluster.conflist";
const PLUGINS: &str = "loopback, bridge, msm-cni";
const PLUGINS_WITHOUT: &str = "loopback, bridge";

/// Installs and uninstalls msm-cni.
pub fn single_plugin_network(env: &Env, report: &mut Report) {
    report.section("The network is a .conf");
    let net_dir = node::net_dir();
    fs::remove_file(net_dir.join(LIST)).unwrap();
    fs::write(net_dir.join("new"), node::single_plugin_network()).unwrap();
    fs::rename(net_dir.join("new"), net_dir.join(CONF)).unwrap();
    check_plugins(env, report, PLUGINS_WITHOUT);

    let installer = Installer::start(env, "msm-cni-c4n8d", IMAGE)
        .unwrap_or_else(|error| panic!("start the installer: {error}"));
    let ready = installer.becomes_ready().map(|_| "ready".to_owned());
    report.check("the installer: readiness", "ready", ready);
    report.check(
        "the configuration directory",
        format!("{CONF}.msm-cni-original {LIST} ZZZ-msm-cni-kubeconfig"),
        Ok(names(&net_dir)),
    );
    let list = fs::read_to_string(net_dir.join(LIST)).map_err(|error| error.to_string());
    report.check("the list: its origin", CONF, list.and_then(origin));
    check_plugins(env, report, PLUGINS);
    report.check(
        "the list that the runtime loaded: its origin",
        CONF,
        loaded_origin(env),
    );

    let camera = Camera::start(env, PodRequest::new("camera", Some("true")))
        .unwrap_or_else(|error| panic!("start a camera: {error}"));
    report.check(
        "a labelled pod: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.check("the pod: removing it", "removed", camera.pod.remove());

    env.cluster.delete_daemon_set();
    report.check(
        "the DaemonSet is deleted: SIGTERM to the installer",
        "exit code 0",
        installer.terminate(),
    );
    report.check("the configuration directory", CONF, Ok(names(&net_dir)));
    check_restored(report, CONF, &node::single_plugin_network());
    check_plugins(env, report, PLUGINS_WITHOUT);
    check_nothing_remains(env, report, installer);
}

/// Returns the name of the file that a list was converted from.
fn origin(list: String) -> Result<String, String> {
    let value: Value = serde_json::from_str(&list).map_err(|error| format!("{error}: {list}"))?;
    let origin = value["msm-cni"]["from"].as_str();
    origin.map(str::to_owned).ok_or(list)
}

/// Returns the origin in the text of the network that the runtime has loaded.
fn loaded_origin(env: &Env) -> Result<String, String> {
    let source = || -> Result<String, String> {
        let info = env.node.runtime.info()?;
        let text = info.get("cniconfig").cloned().unwrap_or_default();
        let config: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let networks = config["Networks"].as_array().cloned().unwrap_or_default();
        let mut sources = networks
            .iter()
            .filter_map(|network| network["Config"]["Source"].as_str());
        // The first network is the loopback interface.
        let source = sources.find(|source| source.contains("msm-cni"));
        origin(source.ok_or(text.as_str())?.to_owned())
    };
    wait_for(|| source().is_ok());
    source()
}
