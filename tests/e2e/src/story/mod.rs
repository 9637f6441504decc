//! The chapters, in the order in which they happen to a node.

mod install; // a node without a network, and its installer
mod measure; // what a pod's start costs, and what the installer needs
mod pods; // who is redirected
mod removal; // the DaemonSet goes
mod trouble; // the API server refuses, or is not there
mod upgrade; // another version of the installer

use std::fs;
use std::path::Path;

use msm_cni_e2e::traffic;

use crate::Stage;
use crate::installer::mount_token;
use crate::node::FAR;
use crate::pod::{APP, Pod, STUB, Wish, guest};
use crate::report::Report;

/// Images, as people name them.
const IMAGE: &str = "msm-cni:e2e";
const NEWER_IMAGE: &str = "msm-cni:e2e-newer";

/// Tells all of it.
pub fn tell(stage: &Stage, report: &mut Report) {
    for port in [554, 80] {
        std::thread::spawn(move || traffic::serve("server", port));
    }
    mount_token(&stage.cluster, "token-1");
    let version = stage.node.runtime.version();
    println!("runtime: {}", version.unwrap_or_else(|error| error));

    let installer = install::fresh_node(stage, report);
    let camera = pods::who_is_redirected(stage, report);
    trouble::refusals_and_outages(stage, report);
    trouble::token_rotation(stage, report);
    let (installer, ready) = upgrade::newer_installer(stage, report, installer, &camera);
    measure::pods(stage, report);
    measure::installer(stage, &installer, ready);
    removal::daemon_set_goes(stage, report, installer, camera);
}

/// A camera's pod: an application that speaks RTSP, and the stub beside it.
struct Camera<'a> {
    pod: Pod<'a>,
    app: String,
    stub: String,
}

impl<'a> Camera<'a> {
    /// Starts the pod, then the two.
    fn start(stage: &'a Stage, wish: Wish) -> Result<Self, String> {
        let pod = Pod::start(stage, wish)?;
        let stub = pod.server("stub", 8554, STUB)?;
        let app = pod.server("app", 9554, APP)?;
        Ok(Self { pod, app, stub })
    }

    /// Where the application's connection to an RTSP server outside lands.
    fn rtsp(&self) -> Result<String, String> {
        self.pod.lands(&self.app, &rtsp_server())
    }

    /// What `rtsp` says of a redirected pod.
    fn stub(&self) -> String {
        format!("stub@8554 from {}", self.pod.address)
    }

    /// What `rtsp` says of another one.
    fn server(&self) -> String {
        format!("server@554 from {}", self.pod.address)
    }
}

/// Starts a pod with an application alone and tells where its RTSP connections land; it
/// ends again.
fn rtsp_of(stage: &Stage, wish: Wish) -> Result<String, String> {
    let pod = Pod::start(stage, wish)?;
    let app = pod.container(guest("app", &["pause"], APP))?;
    let landed = pod.lands(&app, &rtsp_server())?;
    let landed = landed.replace(&pod.address, "the pod");
    pod.end()?;
    Ok(landed)
}

fn rtsp_server() -> String {
    format!("{FAR}:554")
}

/// The names in a directory, sorted.
fn names(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.join(" ")
}

/// Waits for the runtime to have loaded a chain; the chain that it has.
fn loads(stage: &Stage, chain: &str) -> Result<String, String> {
    let loaded = || crate::node::loaded(&stage.node.runtime);
    crate::node::becomes_true(|| loaded().is_ok_and(|it| it == chain));
    loaded()
}

/// With msm-cni, and without.
const CHAIN: &str = "loopback, bridge, portmap, msm-cni";
const CHAIN_WITHOUT: &str = "loopback, bridge, portmap";
