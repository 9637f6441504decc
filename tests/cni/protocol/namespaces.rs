//! `CNI_NETNS` must be a network namespace other than the plugin's own; it is checked before
//! the API server is contacted.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use msm_testkit::command::run_with_input;
use msm_testkit::scratch::Scratch;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::plugin::{assert_error, configuration, kubeconfig, plugin};

/// Does not exclude the pod's namespace, so that the pod is looked up.
fn with_lookup() -> Value {
    let mut configuration = configuration("1.0.0");
    configuration["kubernetes"]["excludeNamespaces"] = json!([]);
    configuration
}

#[test]
fn path_without_network_namespace_is_error_8() {
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
            let outcome = run_with_input(&mut plugin, &with_lookup().to_string());
            assert_error(outcome, 8, "network namespace");
        }
    }
}

#[test]
fn own_namespace_is_refused_without_contacting_the_api_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let scratch = Scratch::new();
    let path = scratch.path().join("kubeconfig");
    let server = format!("https://{}", listener.local_addr().unwrap());
    std::fs::write(&path, kubeconfig(&server).to_string()).unwrap();
    let mut configuration = with_lookup();
    configuration["kubernetes"]["kubeConfig"] = json!(path);
    for verb in ["ADD", "CHECK"] {
        for netns in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            let mut plugin = plugin(verb);
            plugin.env("CNI_NETNS", netns);
            let outcome = run_with_input(&mut plugin, &configuration.to_string());
            assert_error(outcome, 8, "own network namespace");
        }
    }
    let error = listener
        .accept()
        .expect_err("no connection to the API server");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn override_allows_the_own_namespace() {
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
            let outcome = run_with_input(&mut plugin, &with_lookup().to_string());
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
fn override_does_not_allow_a_file() {
    let mut plugin = plugin("ADD");
    plugin
        .env("CNI_NETNS", "/etc/passwd")
        .env("CNI_NETNS_OVERRIDE", "1");
    assert_error(
        run_with_input(&mut plugin, &with_lookup().to_string()),
        8,
        "/etc/passwd",
    );
}
