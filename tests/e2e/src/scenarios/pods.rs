//! Who is redirected, shown by where connections land.

use super::{Camera, IMAGE, rtsp_of, rtsp_server};
use crate::Stage;
use crate::cri::EXITED;
use crate::node::{self, FAR, becomes_true};
use crate::pod::{ContainerSpec, Wish, lands_from_node};
use crate::report::Report;

/// Leaves the redirected pod running.
pub fn who_is_redirected<'a>(stage: &'a Stage, report: &mut Report) -> Camera<'a> {
    report.chapter("Pods, and where their connections land");
    let wish = Wish {
        port: Some((9554, 15554)),
        ..Wish::new("camera", Some("true"))
    };
    let camera = Camera::start(stage, wish).unwrap_or_else(|error| panic!("camera: {error}"));
    let Camera { pod, app, stub } = &camera;
    let from = format!("from {}", pod.address);
    report.is(
        "labelled pod: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.is(
        "labelled pod: stub to an RTSP server",
        camera.server(),
        pod.lands(stub, &rtsp_server()),
    );
    report.is(
        "labelled pod: application to port 80",
        format!("server@80 {from}"),
        pod.lands(app, &format!("{FAR}:80")),
    );
    report.is(
        "labelled pod: application to 127.0.0.1:554",
        "refused",
        pod.lands(app, "127.0.0.1:554"),
    );
    report.is(
        "labelled pod: the node to it, by a port of the node",
        format!("app@9554 from {FAR}"),
        Ok(lands_from_node(&format!("{FAR}:15554"))),
    );
    for (what, wish) in [
        ("pod without label", Wish::new("plain", None)),
        ("pod with label false", Wish::new("declined", Some("false"))),
        (
            "labelled pod, namespace excluded",
            Wish {
                namespace: "kube-system",
                ..Wish::new("dns", Some("true"))
            },
        ),
    ] {
        report.is(
            &format!("{what}: application to an RTSP server"),
            "server@554 from the pod",
            rtsp_of(stage, wish),
        );
    }
    let questions = [
        ("media", "camera"),
        ("media", "plain"),
        ("kube-system", "dns"),
    ]
    .map(|(namespace, name)| stage.cluster.questions_about(namespace, name).to_string());
    report.is(
        "questions to the API server: camera, plain, excluded",
        "1 1 0",
        Ok(questions.join(" ")),
    );
    by_hand(stage, report);
    report.is(
        "addresses, when all pods but one are gone",
        format!("1 addresses in use {}", pod.address),
        Ok(node::addresses_in_use()),
    );
    camera
}

/// `msm-iptables` as an init container would run it.
fn by_hand(stage: &Stage, report: &mut Report) {
    let camera = Camera::start(stage, Wish::new("by-hand", None));
    let camera = camera.unwrap_or_else(|error| panic!("by-hand: {error}"));
    let spec = ContainerSpec {
        name: "msm-iptables",
        image: IMAGE,
        command: &["msm-iptables"],
        capabilities: &["NET_ADMIN"],
        ..ContainerSpec::default()
    };
    let runtime = &stage.node.runtime;
    let ended = camera.pod.container(spec.config()).and_then(|container| {
        let status = || runtime.container(&container);
        becomes_true(|| status().is_ok_and(|(status, _)| status.state == EXITED));
        Ok(format!("exit code {}", status()?.0.exit_code))
    });
    report.is(
        "by hand: msm-iptables in a container with NET_ADMIN",
        "exit code 0",
        ended,
    );
    report.is(
        "by hand: application to an RTSP server",
        camera.stub(),
        camera.rtsp(),
    );
    report.is("by hand: the pod's end", "gone", camera.pod.end());
}
