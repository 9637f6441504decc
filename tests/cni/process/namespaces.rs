//! Values of `CNI_NETNS` and `--netns` that are not network namespaces: each is reported as an
//! error, without waiting for anything (the watchdog of `run` ends what blocks).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::cluster::{Cluster, LABELLED, request};
use msm_testkit::command::{Outcome, run, run_with_input};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::helpers::{document, under};

/// A cluster whose pod has the label.
fn labelled() -> Cluster {
    Cluster::new(LABELLED, &[])
}

fn ask(cluster: &Cluster, plugin: Command, verb: &str, path: &OsStr) -> Outcome {
    let mut request = request(plugin, verb, Path::new(path));
    run_with_input(&mut request, &cluster.configuration(&json!({})).to_string())
}

/// Returns the message and the details.
#[track_caller]
fn assert_error_8(outcome: Outcome) -> String {
    let outcome = outcome.exited(1);
    let error = document(&outcome);
    assert_eq!(error["code"], 8, "{outcome}");
    let text = format!("{} {}", error["msg"], error["details"]);
    assert!(text.contains("network namespace"), "{outcome}");
    assert!(text.len() < 5000, "longer than any path\n{outcome}");
    text
}

#[track_caller]
fn assert_rejected(iptables: &mut Command) {
    run(iptables).exited(1).complains_about("network namespace");
}

/// Paths of every kind, some of them in `directory`.
fn paths(directory: &Path) -> Vec<OsString> {
    let own = |name: &str| directory.join(name);
    File::create(own("file")).unwrap();
    fs::create_dir(own("directory")).unwrap();
    mkfifo(&own("fifo"), Mode::S_IRWXU).unwrap();
    for (link, target) in [
        ("dangling", "nowhere"),
        ("loop", "loop"),
        ("one", "other"),
        ("other", "one"),
        ("to-fifo", "fifo"),
        ("to-user", "/proc/self/ns/user"),
        ("to-null", "/dev/null"),
    ] {
        symlink(target, own(link)).unwrap();
    }
    let below = [
        "file",
        "directory",
        "fifo",
        "socket",
        "dangling",
        "loop",
        "one",
        "to-fifo",
        "to-user",
        "to-null",
        "missing",
        "missing/below",
        "file/below",
        "directory/",
        "file/",
    ];
    let elsewhere = [
        "/",
        ".",
        "relative",
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/proc",
        "/proc/self",
        "/proc/self/mem",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/999999",
        "/proc/self/exe",
        "/proc/self/net",
        "/proc/self/ns",
        "/proc/self/ns/cgroup",
        "/proc/self/ns/ipc",
        "/proc/self/ns/mnt",
        "/proc/self/ns/pid",
        "/proc/self/ns/pid_for_children",
        "/proc/self/ns/time",
        "/proc/self/ns/user",
        "/proc/self/ns/uts",
        "/proc/999999999/ns/net",
        "/run/netns/gone",
        "/var/run/netns/cni-0a1b2c",
        "net:[4026531840]",
        "\n",
        "\t/x",
        "/\u{202e}/ä",
        "//////",
        "/proc/../proc/self/ns/../ns/uts",
    ];
    let odd: [&[u8]; 4] = [
        b"/\xff\xfe",
        b"\xff",
        b"/a\nb\rc\x1b[1m",
        b"/proc/self/ns/net\n",
    ];
    let mut paths: Vec<OsString> = below.map(|name| own(name).into_os_string()).into();
    paths.extend(elsewhere.map(Into::into));
    paths.extend(odd.map(|bytes| OsStr::from_bytes(bytes).to_owned()));
    // The longest path that the kernel accepts, and a name that is too long.
    paths.push(format!("/{}", "a/".repeat(2047)).into());
    paths.push(format!("/{}", "a".repeat(300)).into());
    paths
}

#[test]
fn path_that_is_no_network_namespace_is_error_8() {
    let (cluster, scratch) = (labelled(), Scratch::new());
    let _socket = UnixListener::bind(scratch.path().join("socket")).unwrap();
    for path in paths(scratch.path()) {
        for verb in ["ADD", "CHECK"] {
            assert_error_8(ask(&cluster, applet("msm-cni"), verb, &path));
        }
        ask(&cluster, applet("msm-cni"), "DEL", &path).succeeded();
        assert_rejected(applet("msm-iptables").arg("--netns").arg(&path));
    }
    assert_eq!(cluster.server.connections(), 0, "the API server was asked");
}

#[test]
fn symlink_with_an_unusual_name_is_followed() {
    if cannot_run(&[]) {
        return;
    }
    let (cluster, scratch, sandbox) = (labelled(), Scratch::new(), Namespace::new());
    for name in [&b"link"[..], b"\xff\n\x1b", b" ", &[b'a'; 255]] {
        let link = scratch.path().join(OsStr::from_bytes(name));
        symlink(sandbox.path(), &link).unwrap();
        ask(&cluster, applet("msm-cni"), "ADD", link.as_os_str()).succeeded();
        ask(&cluster, applet("msm-cni"), "CHECK", link.as_os_str()).succeeded();
        run(applet("msm-iptables")
            .arg("--netns")
            .arg(link)
            .arg("--check"))
        .succeeded();
    }
}

#[test]
fn error_says_how_to_fix_the_path() {
    let cluster = labelled();
    let full = "a full path such as /run/netns/NAME";
    let quoted = "\\\"/run/netns/gone\\\" in CNI_NETNS";
    for (path, plugin_text, iptables_text) in [
        (
            "/run/netns/gone",
            "the pod was probably deleted",
            "give the full path of a network namespace",
        ),
        ("/run/netns/gone", quoted, "/run/netns/gone"),
        ("h1", full, full),
        ("netns/h1", full, full),
        ("/etc/passwd/", full, full),
    ] {
        let outcome = ask(&cluster, applet("msm-cni"), "ADD", OsStr::new(path)).exited(1);
        let message = document(&outcome)["msg"].to_string();
        assert!(
            message.contains(plugin_text),
            "{plugin_text:?} is missing\n{outcome}"
        );
        run(applet("msm-iptables").args(["--netns", path]))
            .exited(1)
            .complains_about(iptables_text);
    }
}

/// Script: bind-mounts the namespace `$0` at the path `$1` and runs the rest.
const BIND_MOUNT: &str = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";

/// The kind is only detected by setns(2), after the pod lookup.
#[test]
fn bind_mount_of_another_kind_of_namespace_is_error_8() {
    if cannot_run(&["unshare", "mount", "sh"]) {
        return;
    }
    let (cluster, scratch) = (labelled(), Scratch::new());
    let file = scratch.path().join("netns");
    File::create(&file).unwrap();
    for kind in ["cgroup", "ipc", "pid", "user", "uts"] {
        let target = format!("/proc/self/ns/{kind}");
        let path = file.to_str().unwrap();
        let wrapper = ["unshare", "--mount", "sh", "-c", BIND_MOUNT, &target, path];
        for verb in ["ADD", "CHECK"] {
            let plugin = under(&wrapper, "msm-cni");
            assert_error_8(ask(&cluster, plugin, verb, file.as_os_str()));
        }
        let mut iptables = under(&wrapper, "msm-iptables");
        assert_rejected(iptables.arg("--netns").arg(&file));
    }
}

#[test]
fn inaccessible_path_is_error_8() {
    if cannot_run(&["setpriv"]) {
        return;
    }
    let (cluster, scratch) = (labelled(), Scratch::new());
    let closed = scratch.path().join("closed");
    fs::create_dir(&closed).unwrap();
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        &closed,
        Mode::empty(),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )
    .unwrap();
    let unprivileged = [
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ];
    let mut iptables = under(&unprivileged, "msm-iptables");
    run(iptables.args(["--netns", "/proc/1/ns/net"]))
        .exited(1)
        .complains_about("CAP_SYS_PTRACE");
    let paths: [PathBuf; 2] = [closed.join("netns"), "/proc/1/ns/net".into()];
    for path in paths {
        for verb in ["ADD", "CHECK"] {
            let plugin = under(&unprivileged, "msm-cni");
            assert_error_8(ask(&cluster, plugin, verb, path.as_os_str()));
        }
        let mut iptables = under(&unprivileged, "msm-iptables");
        assert_rejected(iptables.arg("--netns").arg(path));
    }
}

#[test]
fn without_proc_no_path_is_accepted() {
    if cannot_run(&["unshare", "mount", "sh"]) {
        return;
    }
    let (cluster, sandbox, scratch) = (labelled(), Namespace::new(), Scratch::new());
    let file = scratch.path().join("netns");
    File::create(&file).unwrap();
    let script = format!(
        "mount --bind {} {} && mount -t tmpfs none /proc && exec \"$@\"",
        sandbox.path().display(),
        file.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let own = Path::new("/proc/self/ns/net");
    for (path, text) in [
        (file.as_path(), "check that /proc is mounted"),
        (&sandbox.path(), "does not exist"),
        (own, "does not exist"),
    ] {
        for verb in ["ADD", "CHECK"] {
            let plugin = under(&wrapper, "msm-cni");
            let message = assert_error_8(ask(&cluster, plugin, verb, path.as_os_str()));
            assert!(message.contains(text), "{message}");
        }
        let mut iptables = under(&wrapper, "msm-iptables");
        assert_rejected(iptables.arg("--netns").arg(path));
    }
}
