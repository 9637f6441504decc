//! `CNI_NETNS`: a network namespace and not the plugin's own, found out before anything is
//! done or asked.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use msm_testkit::command::run_with_input;
use msm_testkit::scratch::Scratch;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::plugin::{assert_error, configuration, plugin};

/// Of a pod whose labels decide.
fn asked_about() -> Value {
    let mut configuration = configuration("1.0.0");
    configuration["kubernetes"]["excludeNamespaces"] = json!([]);
    configuration
}

#[test]
fn what_is_no_network_namespace_is_error_8() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    std::fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", path("dangling")).unwrap();
    nix::unistd::mkfifo(&scratch.path().join("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    for netns in [
        path("file"),
        path("dangling"),
        path("fifo"),
        path("socket"),
        path("missing"),
        path("file/below"),
        path(""),
        "relative".into(),
        "/dev/null".into(),
        "/proc/self/ns/mnt".into(),
    ] {
        for verb in ["ADD", "CHECK"] {
            let mut plugin = plugin(verb);
            plugin.env("CNI_NETNS", &netns);
            let outcome = run_with_input(&mut plugin, &asked_about().to_string());
            assert_error(outcome, 8, "network namespace");
        }
    }
}

#[test]
fn its_own_namespace_is_refused_before_the_api_server_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let scratch = Scratch::new();
    let path = scratch.path().join("kubeconfig");
    let server = format!("https://{}", listener.local_addr().unwrap());
    let kubeconfig = json!({
        "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": "sesame"}}],
    });
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut configuration = asked_about();
    configuration["kubernetes"]["kubeConfig"] = json!(path);
    for verb in ["ADD", "CHECK"] {
        for netns in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            let mut plugin = plugin(verb);
            plugin.env("CNI_NETNS", netns);
            let outcome = run_with_input(&mut plugin, &configuration.to_string());
            assert_error(outcome, 8, "own network namespace");
        }
    }
    let error = listener.accept().expect_err("nobody asked the API server");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn an_override_takes_it_as_far_as_the_kubeconfig() {
    for (value, code) in [
        ("1", 107),
        ("true", 107),
        ("TRUE", 107),
        ("True", 107),
        ("", 8),
        ("0", 8),
        ("2", 8),
        ("false", 8),
        ("yes", 8),
        (" 1", 8),
        ("true ", 8),
    ] {
        for verb in ["ADD", "CHECK"] {
            let mut plugin = plugin(verb);
            plugin
                .env("CNI_NETNS", "/proc/self/ns/net")
                .env("CNI_NETNS_OVERRIDE", value);
            let outcome = run_with_input(&mut plugin, &asked_about().to_string());
            let text = if code == 8 {
                "CNI_NETNS_OVERRIDE"
            } else {
                "/nowhere"
            };
            assert_error(outcome, code, text);
        }
    }
}

#[test]
fn an_override_makes_no_namespace_of_a_file() {
    let mut plugin = plugin("ADD");
    plugin
        .env("CNI_NETNS", "/etc/passwd")
        .env("CNI_NETNS_OVERRIDE", "1");
    assert_error(
        run_with_input(&mut plugin, &asked_about().to_string()),
        8,
        "/etc/passwd",
    );
}
