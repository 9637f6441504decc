//! The scenarios, in the order in which they happen on the node.

mod conf;
mod install;
mod measure;
mod outages;
mod pods;
mod uninstall;
mod upgrade;

use std::fs;
use std::path::Path;

use msm_cni_e2e::traffic;

use crate::Env;
use crate::installer::{Installer, mount_token};
use crate::node::{FAR, addresses_in_use, net_dir};
use crate::pod::{APP, Pod, PodRequest, STUB, guest};
use crate::report::Report;

/// Image names without a registry, as users write them.
const IMAGE: &str = "msm-cni:e2e";
const NEWER_IMAGE: &str = "msm-cni:e2e-newer";
/// The plugins that the runtime calls, with msm-cni and without it.
const PLUGINS: &str = "loopback, bridge, portmap, msm-cni";
const PLUGINS_WITHOUT: &str = "loopback, bridge, portmap";

/// Runs all scenarios; a failed step does not stop them.
pub fn run(env: &Env, report: &mut Report) {
    for port in [554, 80] {
        std::thread::spawn(move || traffic::serve("server", port));
    }
    mount_token(&env.cluster, "token-1");
    let version = env.node.runtime.version();
    println!("runtime: {}", version.unwrap_or_else(|error| error));

    let installer = install::fresh_node(env, report);
    let camera = pods::redirected_pods(env, report);
    outages::refusals_and_outages(env, report);
    outages::token_rotation(env, report);
    let (installer, ready) = upgrade::newer_installer(env, report, installer, &camera);
    measure::pods(env, report);
    measure::installer(env, &installer, ready);
    uninstall::daemon_set_is_deleted(env, report, installer, camera);
    conf::single_plugin_network(env, report);
}

/// A pod with an RTSP application and the stub as its sidecar.
struct Camera<'a> {
    pod: Pod<'a>,
    app: String,
    stub: String,
}

impl<'a> Camera<'a> {
    fn start(env: &'a Env, request: PodRequest) -> Result<Self, String> {
        let pod = Pod::start(env, request)?;
        let stub = pod.server("stub", 8554, STUB)?;
        let app = pod.server("app", 9554, APP)?;
        Ok(Self { pod, app, stub })
    }

    /// Connects the application to an RTSP server outside of the pod; returns the answer.
    fn rtsp(&self) -> Result<String, String> {
        self.pod.connect(&self.app, &rtsp_server())
    }

    /// The answer if the pod is redirected.
    fn stub(&self) -> String {
        format!("stub@8554 from {}", self.pod.address)
    }

    /// The answer if the pod is not redirected.
    fn server(&self) -> String {
        format!("server@554 from {}", self.pod.address)
    }
}

/// Starts a pod with only an application, connects it to an RTSP server and removes it; returns
/// the answer.
fn rtsp_of(env: &Env, request: PodRequest) -> Result<String, String> {
    let pod = Pod::start(env, request)?;
    let app = pod.container(guest("app", &["pause"], APP))?;
    let answer = pod.connect(&app, &rtsp_server())?;
    let answer = answer.replace(&pod.address, "the pod");
    pod.remove()?;
    Ok(answer)
}

fn rtsp_server() -> String {
    format!("{FAR}:554")
}

/// Returns the sorted file names of a directory.
fn names(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.join(" ")
}

/// Checks that new pods are not redirected after an uninstallation, and that removed pods and the
/// removed installer occupy no address.
fn check_nothing_remains(env: &Env, report: &mut Report, installer: Installer) {
    report.check(
        "a new labelled pod: application to an RTSP server",
        "server@554 from the pod",
        rtsp_of(env, PodRequest::new("camera", Some("true"))),
    );
    report.check(
        "removing the installer's pod",
        "removed",
        installer.remove(),
    );
    report.check(
        "addresses, after all pods were removed",
        "0 addresses in use",
        Ok(addresses_in_use()),
    );
}

/// Checks the plugins that the runtime has loaded.
fn check_plugins(env: &Env, report: &mut Report, expected: &str) {
    report.check(
        "the plugins that the runtime calls",
        expected,
        loaded_plugins(env, expected),
    );
}

/// Checks the content of the network's configuration after an uninstallation.
fn check_restored(report: &mut Report, file: &str, expected: &str) {
    let text = fs::read_to_string(net_dir().join(file)).unwrap_or_else(|error| error.to_string());
    let is_restored = text == expected;
    report.check(
        "the network's configuration",
        "restored",
        is_restored.then(|| "restored".to_owned()).ok_or(text),
    );
}

/// Waits until the runtime has loaded exactly these plugins; returns the loaded ones.
fn loaded_plugins(env: &Env, expected: &str) -> Result<String, String> {
    let loaded = || crate::node::loaded_plugins(&env.node.runtime);
    crate::node::wait_for(|| loaded().is_ok_and(|it| it == expected));
    loaded()
}
