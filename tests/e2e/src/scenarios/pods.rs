//! Which pods are redirected, shown by the servers that their connections reach.

use super::{Camera, IMAGE, rtsp_of, rtsp_server};
use crate::Env;
use crate::cri::EXITED;
use crate::node::{self, FAR, wait_for};
use crate::pod::{ContainerSpec, PodRequest, connect_from_node};
use crate::report::Report;

/// Returns the redirected pod, which keeps running.
pub fn redirected_pods<'a>(env: &'a Env, report: &mut Report) -> Camera<'a> {
    report.section("Pods and their connections");
    let request = PodRequest {
        port: Some((9554, 15554)),
        ..PodRequest::new("camera", Some("true"))
    };
    let camera = Camera::start(env, request).unwrap_or_else(|error| panic!("camera: {error}"));
    let Camera { pod, app, stub } = &camera;
    let from = format!("from {}", pod.address);
    report.check(
        "labelled pod: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.check(
        "labelled pod: stub to an RTSP server",
        camera.server(),
        pod.connect(stub, &rtsp_server()),
    );
    report.check(
        "labelled pod: application to port 80",
        format!("server@80 {from}"),
        pod.connect(app, &format!("{FAR}:80")),
    );
    report.check(
        "labelled pod: application to 127.0.0.1:554",
        "refused",
        pod.connect(app, "127.0.0.1:554"),
    );
    report.check(
        "labelled pod: the node to the application, by hostPort",
        format!("app@9554 from {FAR}"),
        Ok(connect_from_node(&format!("{FAR}:15554"))),
    );
    for (what, request) in [
        ("pod without label", PodRequest::new("plain", None)),
        (
            "pod with label false",
            PodRequest::new("declined", Some("false")),
        ),
        (
            "labelled pod, namespace excluded",
            PodRequest {
                namespace: "kube-system",
                ..PodRequest::new("dns", Some("true"))
            },
        ),
    ] {
        report.check(
            &format!("{what}: application to an RTSP server"),
            "server@554 from the pod",
            rtsp_of(env, request),
        );
    }
    let requests = [
        ("media", "camera"),
        ("media", "plain"),
        ("kube-system", "dns"),
    ]
    .map(|(namespace, name)| env.cluster.requests_for(namespace, name).to_string());
    report.check(
        "API requests for: camera, plain, excluded",
        "1 1 0",
        Ok(requests.join(" ")),
    );
    manual_redirect(env, report);
    report.check(
        "addresses, after all other pods were removed",
        format!("1 addresses in use {}", pod.address),
        Ok(node::addresses_in_use()),
    );
    camera
}

/// Runs `msm-iptables` as an init container would.
fn manual_redirect(env: &Env, report: &mut Report) {
    let camera = Camera::start(env, PodRequest::new("manual", None));
    let camera = camera.unwrap_or_else(|error| panic!("manual: {error}"));
    let spec = ContainerSpec {
        name: "msm-iptables",
        image: IMAGE,
        command: &["msm-iptables"],
        capabilities: &["NET_ADMIN"],
        ..ContainerSpec::default()
    };
    let runtime = &env.node.runtime;
    let ended = camera.pod.container(spec.config()).and_then(|container| {
        let status = || runtime.container(&container);
        wait_for(|| status().is_ok_and(|(status, _)| status.state == EXITED));
        Ok(format!("exit code {}", status()?.0.exit_code))
    });
    report.check(
        "manual: msm-iptables in a container with NET_ADMIN",
        "exit code 0",
        ended,
    );
    report.check(
        "manual: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.check("manual: removing the pod", "removed", camera.pod.remove());
}
