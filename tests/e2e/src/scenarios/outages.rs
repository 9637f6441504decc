//! The API server refuses, is not there, or changes its mind about tokens.

use std::fs;
use std::thread;

use super::{Camera, rtsp_of};
use crate::Stage;
use crate::installer::mount_token;
use crate::node::{self, becomes_true, wait_until};
use crate::pod::{Pod, Wish};
use crate::report::Report;

/// Pods that cannot be decided about do not start, and start once they can.
pub fn refusals_and_outages(stage: &Stage, report: &mut Report) {
    report.chapter("The API server refuses, or is not there");
    let before = node::addresses_in_use();
    let wish = Wish::new("doorbell", Some("true"));
    let start = || Pod::start(stage, wish).map(|_| "started".to_owned());

    stage.cluster.give_role(false);
    report.fails(
        "403: the pod",
        &["msm-cni", "pods/doorbell", "403"],
        start(),
    );
    report.is("403: addresses", &before, Ok(node::addresses_in_use()));
    stage.cluster.give_role(true);
    report.is(
        "the role is given: the same pod's application",
        "stub",
        redirected(stage, wish),
    );

    stage.cluster.down();
    report.fails(
        "down: the pod",
        &["msm-cni", "pods/doorbell", "refused"],
        start(),
    );
    report.is(
        "down: a pod in an excluded namespace",
        "server@554 from the pod",
        rtsp_of(
            stage,
            Wish {
                namespace: "kube-system",
                ..Wish::new("dns", Some("true"))
            },
        ),
    );
    report.is("down: addresses", &before, Ok(node::addresses_in_use()));
    let landed = thread::scope(|scope| {
        let waiting = scope.spawn(|| redirected(stage, wish));
        wait_until("the plugin runs", plugin_runs);
        stage.cluster.up();
        waiting.join().unwrap()
    });
    report.is("back while a pod waits: its application", "stub", landed);
    report.is("back: addresses", &before, Ok(node::addresses_in_use()));
}

/// The kubeconfig follows the token.
pub fn token_rotation(stage: &Stage, report: &mut Report) {
    stage.cluster.let_in("token-2");
    mount_token(&stage.cluster, "token-2");
    let kubeconfig = node::net_dir().join("ZZZ-msm-cni-kubeconfig");
    let has_token = || fs::read_to_string(&kubeconfig).is_ok_and(|text| text.contains("token-2"));
    let follows = becomes_true(has_token).map(|_| "token-2".to_owned());
    report.is(
        "new token: the kubeconfig's",
        "token-2",
        follows.ok_or("token-1".to_owned()),
    );
    report.is(
        "new token: the next pod's application",
        "stub",
        redirected(stage, Wish::new("doorbell", Some("true"))),
    );
}

/// Starts a pod and ends it; `stub` if its application is redirected.
fn redirected(stage: &Stage, wish: Wish) -> Result<String, String> {
    let camera = Camera::start(stage, wish)?;
    let landed = camera.rtsp()?;
    let is_right = landed == camera.stub();
    camera.pod.end()?;
    Ok(if is_right { "stub".to_owned() } else { landed })
}

/// Whether the plugin's executable runs; in this process namespace, nobody else's does.
fn plugin_runs() -> bool {
    let executable = node::bin_dir().join("msm");
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| {
        fs::read_link(process.path().join("exe")).is_ok_and(|running| running == executable)
    })
}
