//! `--netns`: the current network namespace, paths as runtimes pass them, and paths that are
//! not network namespaces.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use msm_testkit::command::{Outcome, run};
use msm_testkit::endpoints::{RTSP, STUB};
use msm_testkit::pod::Pod;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run, executable};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

#[test]
fn current_namespace_is_the_default() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let pod = Pod::new();
    pod.inside.command(&mut applet("msm-iptables")).succeeded();
    assert_eq!(pod.connect(RTSP), STUB);
    pod.inside
        .command(applet("msm-iptables").arg("--check"))
        .succeeded();
    pod.inside
        .command(applet("msm-iptables").args(["--netns", "/proc/self/ns/net", "--check"]))
        .succeeded();
    pod.inside
        .command(applet("msm-iptables").arg("--cleanup"))
        .succeeded();
    assert_eq!(pod.inside.nft_rules(), "");
}

#[test]
fn namespace_of_the_caller_is_unchanged() {
    if cannot_run(&["ip", "nft"]) {
        return;
    }
    let (caller, pod) = (Pod::new(), Pod::new());
    let before = caller.inside.rules();
    let mut apply = applet("msm-iptables");
    caller
        .inside
        .command(apply.arg("--netns").arg(pod.inside.path()))
        .succeeded();
    assert_eq!(caller.inside.rules(), before);
    assert_eq!(pod.connect(RTSP), STUB);
}

#[test]
fn path_that_is_not_a_network_namespace_is_refused() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.path().join(name);
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("directory")).unwrap();
    mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(path("socket")).unwrap();
    symlink(path("nowhere"), path("dangling")).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    symlink("/proc/self/ns/uts", path("link-to-uts")).unwrap();

    let names = [
        "missing",
        "file",
        "directory",
        "fifo",
        "socket",
        "dangling",
        "loop",
        "link-to-uts",
        "file/below",
    ];
    let paths = names.map(|name| path(name).into_os_string().into_string().unwrap());
    let elsewhere = [
        "/dev/null",
        "/proc/self/ns/mnt",
        "/proc/self/ns/user",
        "/proc/self/mem",
    ];
    for path in paths.iter().map(String::as_str).chain(elsewhere) {
        for verb in [&[][..], &["--check"], &["--cleanup"]] {
            let outcome = run(applet("msm-iptables").args(["--netns", path]).args(verb));
            outcome
                .exited(1)
                .complains_about(path)
                .complains_about("network namespace");
        }
    }
    let empty = run(applet("msm-iptables").args(["--netns", ""]));
    assert_ne!(
        empty.code,
        Some(0),
        "an empty path is not the current namespace\n{empty}"
    );
}

/// Runtimes pass a file on which the namespace is mounted.
#[test]
fn bind_mounted_namespace_is_accepted() {
    if cannot_run(&["ip", "nft", "unshare", "mount", "sh"]) {
        return;
    }
    let pod = Pod::new();
    bind_mounted(&pod.inside.path(), &[]).succeeded();
    assert_eq!(pod.connect(RTSP), STUB);
    bind_mounted(&pod.inside.path(), &["--check"]).succeeded();
    bind_mounted(&pod.inside.path(), &["--cleanup"]).succeeded();
    assert_eq!(pod.inside.nft_rules(), "");
}

#[test]
fn bind_mounted_namespace_of_another_type_is_refused() {
    if cannot_run(&["nft", "unshare", "mount", "sh"]) {
        return;
    }
    for kind in ["uts", "user", "ipc"] {
        let path = format!("/proc/self/ns/{kind}");
        bind_mounted(Path::new(&path), &[])
            .exited(1)
            .complains_about("not a network namespace");
    }
}

/// Runs `msm-iptables` on a file on which `namespace` is mounted.
fn bind_mounted(namespace: &Path, args: &[&str]) -> Outcome {
    let scratch = Scratch::new();
    let file = scratch.path().join("netns");
    File::create(&file).unwrap();
    let script = r#"mount --bind "$1" "$2" && shift && file=$1 program=$2 && shift 2 && exec "$program" msm-iptables --netns "$file" "$@""#;
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "--", "/bin/sh", "-c", script, "sh"]);
    command.args([namespace, &file, &executable()]).args(args);
    run(command.env_clear().env("PATH", "/usr/bin:/bin"))
}
