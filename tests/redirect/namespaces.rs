//! `--netns`: the current namespace, the paths that runtimes hand out, and everything that
//! is no network namespace.

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
fn the_current_namespace_is_the_default() {
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
fn the_callers_own_namespace_is_left_as_it_was() {
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
fn what_is_no_network_namespace_is_refused_by_name() {
    let scratch = Scratch::new();
    let own = |name: &str| scratch.path().join(name);
    fs::write(own("file"), "").unwrap();
    fs::create_dir(own("directory")).unwrap();
    mkfifo(&own("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(own("socket")).unwrap();
    symlink(own("nowhere"), own("dangling")).unwrap();
    symlink(own("loop"), own("loop")).unwrap();
    symlink("/proc/self/ns/uts", own("link-to-uts")).unwrap();

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
    let paths = names.map(|name| own(name).into_os_string().into_string().unwrap());
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
        "an empty path was taken for the current namespace\n{empty}"
    );
}

/// Runtimes hand out a file that the namespace is mounted on, not a process's descriptor.
#[test]
fn a_bind_mounted_namespace_is_taken() {
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
fn a_bind_mounted_namespace_of_another_kind_is_refused() {
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

/// Runs the program on a file that `namespace` is mounted on.
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
