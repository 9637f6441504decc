//! The API server denies access, is down, or accepts a new token only.

use std::fs;
use std::thread;

use super::{Camera, rtsp_of};
use crate::Env;
use crate::installer::mount_token;
use crate::node::{self, wait_for, wait_or_panic};
use crate::pod::{Pod, PodRequest};
use crate::report::Report;

/// A pod does not start while the API server denies access or is down, and starts afterwards.
pub fn refusals_and_outages(env: &Env, report: &mut Report) {
    report.section("The API server denies access, or is down");
    let before = node::addresses_in_use();
    let request = PodRequest::new("doorbell", Some("true"));
    let start = || Pod::start(env, request).map(|_| "started".to_owned());

    env.cluster.revoke_role();
    report.check_error(
        "403: the pod",
        &["msm-cni", "pods/doorbell", "403"],
        start(),
    );
    report.check("403: addresses", &before, Ok(node::addresses_in_use()));
    env.cluster.grant_role();
    report.check(
        "role granted: the same pod's application",
        "stub",
        redirected(env, request),
    );

    env.cluster.down();
    report.check_error(
        "down: the pod",
        &["msm-cni", "pods/doorbell", "refused"],
        start(),
    );
    report.check(
        "down: a pod in an excluded namespace",
        "server@554 from the pod",
        rtsp_of(
            env,
            PodRequest {
                namespace: "kube-system",
                ..PodRequest::new("dns", Some("true"))
            },
        ),
    );
    report.check("down: addresses", &before, Ok(node::addresses_in_use()));
    let answer = thread::scope(|scope| {
        let waiting = scope.spawn(|| redirected(env, request));
        wait_or_panic("the plugin is running", plugin_is_running);
        env.cluster.up();
        waiting.join().unwrap()
    });
    report.check("up again during ADD: the pod's application", "stub", answer);
    report.check("up again: addresses", &before, Ok(node::addresses_in_use()));
}

/// The kubeconfig is rewritten with a new token.
pub fn token_rotation(env: &Env, report: &mut Report) {
    env.cluster.accept_token("token-2");
    mount_token(&env.cluster, "token-2");
    let kubeconfig = node::net_dir().join("ZZZ-msm-cni-kubeconfig");
    let has_token = || fs::read_to_string(&kubeconfig).is_ok_and(|text| text.contains("token-2"));
    let updated = wait_for(has_token).map(|_| "token-2".to_owned());
    report.check(
        "new token: in the kubeconfig",
        "token-2",
        updated.ok_or("token-1".to_owned()),
    );
    report.check(
        "new token: the next pod's application",
        "stub",
        redirected(env, PodRequest::new("doorbell", Some("true"))),
    );
}

/// Starts a pod, connects its application and removes it; returns `stub` if it was redirected.
fn redirected(env: &Env, request: PodRequest) -> Result<String, String> {
    let camera = Camera::start(env, request)?;
    let answer = camera.rtsp()?;
    let is_redirected = answer == camera.stub();
    camera.pod.remove()?;
    Ok(if is_redirected {
        "stub".to_owned()
    } else {
        answer
    })
}

/// Returns whether a process of the plugin exists; this PID namespace contains only the node's.
fn plugin_is_running() -> bool {
    let executable = node::bin_dir().join("msm");
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    processes.any(|process| {
        fs::read_link(process.path().join("exe")).is_ok_and(|running| running == executable)
    })
}
