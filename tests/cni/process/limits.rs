//! Unusual arguments, environments, resource limits and directories: the plugin works, or it
//! fails with an error.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{Write, pipe};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use msm_testkit::cluster::{Cluster, LABELLED, intercept_name, request};
use msm_testkit::command::{Outcome, run, run_with_input};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run, executable};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::execve;
use serde_json::{Value, json};

use super::helpers::{
    assert_failed, configuration, document, end, excluded, read_to_end, start, under, wait_for,
};

/// Peak memory of an ADD, most of it pages of the executable, which all processes share. The
/// shipped executable needs most with a static glibc; debug builds are larger.
const PEAK_KIB: u64 = 4 * 1024;
const DEBUG_PEAK_KIB: u64 = 12 * 1024;
/// Private memory of an ADD.
const PRIVATE_KIB: u64 = 1024;
const POD: &str = "K8S_POD_NAMESPACE=media;K8S_POD_NAME=camera";
/// Makes the test's process replace itself by the executable.
const EXEC: &str = "MSM_TEST_EXEC";

#[test]
fn unknown_argv0_is_a_usage_error() {
    let long = vec![b'a'; 100_000];
    let names: [&[u8]; 9] = [
        b"",
        b"sh",
        b"msm-cn",
        b"\xff",
        b"msm-cni\xff",
        b"\n",
        b"/",
        b"..",
        &long,
    ];
    for name in names {
        for words in [&[][..], &["msm-cni"], &["--help"]] {
            let mut command = Command::new(executable());
            command
                .arg0(OsStr::from_bytes(name))
                .env_clear()
                .args(words);
            run(command.env("CNI_COMMAND", "VERSION"))
                .exited(2)
                .complains_about("msm: unknown applet")
                .complains_about("msm-iptables");
        }
    }
    run(applet("msm-iptables").arg(OsStr::from_bytes(b"--\xff"))).exited(2);
    run(applet("msm").arg(OsStr::from_bytes(b"\xff"))).exited(2);
    run(&mut applet("msm"))
        .exited(2)
        .complains_about("msm: no applet given")
        .complains_about("msm-iptables");
    run(applet("msm").arg("--help")).succeeded();
}

#[test]
fn empty_argv_is_a_usage_error() {
    if std::env::var_os(EXEC).is_some() {
        let path = CString::new(executable().into_os_string().into_vec()).unwrap();
        let Err(errno) = execve::<CString, _>(&path, &[], &[c"CNI_COMMAND=VERSION"]);
        panic!("execute {path:?}: {errno}");
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "process::limits::empty_argv_is_a_usage_error",
        "--nocapture",
    ]);
    run(command.env(EXEC, "1"))
        .exited(2)
        .complains_about("unknown applet \"\"");
}

#[test]
fn environment_of_any_size_is_accepted() {
    let mut plugin = excluded(applet("msm-cni"), "ADD");
    plugin.envs((0..5000).map(|number| (format!("V{number}"), "x".repeat(100))));
    let outcome = run_with_input(&mut plugin, &configuration(0).to_string());
    assert_eq!(
        document(&outcome.succeeded()),
        configuration(0)["prevResult"]
    );

    let args = |more: &str| format!("{POD};{more}").into_bytes();
    for (variable, value) in [
        // The kernel's limit for one variable is 128 KiB.
        ("HUGE", vec![b'x'; 131_000]),
        ("NOT_UTF8", vec![0xff; 1000]),
        ("CNI_PATH", b"/a:".repeat(33_000)),
        ("CNI_ARGS", args(&"a=b;".repeat(25_000))),
        ("CNI_ARGS", args(&format!("A={}", "b".repeat(100_000)))),
        ("CNI_ARGS", b";".repeat(100_000)),
    ] {
        let outcome = ask_with(variable, &value).succeeded();
        assert_eq!(
            document(&outcome),
            configuration(0)["prevResult"],
            "{variable}"
        );
    }
    for value in [
        b"a".repeat(100_000),
        b"=".repeat(100_000),
        b"a;".repeat(50_000),
        vec![0xff; 100_000],
        args(&"b".repeat(100_000)),
        args(&format!("K8S_POD_NAME={}", "a".repeat(100_000))),
        args(&format!("K8S_POD_NAMESPACE={}", "../".repeat(30_000))),
    ] {
        let outcome = ask_with("CNI_ARGS", &value).exited(1);
        assert_eq!(document(&outcome)["code"], 4);
        assert!(outcome.stdout.len() < 2000, "{}", outcome.stdout.len());
    }
}

fn ask_with(variable: &str, value: &[u8]) -> Outcome {
    let mut plugin = excluded(applet("msm-cni"), "ADD");
    plugin.env(variable, OsStr::from_bytes(value));
    run_with_input(&mut plugin, &configuration(0).to_string())
}

/// Runs VERSION, and ADD with each backend. Each must do all that its reply claims, or fail.
/// Returns whether all succeeded.
#[track_caller]
fn succeeds_or_fails_cleanly(wrapper: &[&str]) -> bool {
    let mut version = under(wrapper, "msm-cni");
    let outcome = run(version.env("CNI_COMMAND", "VERSION"));
    let mut works = true;
    let mut expect = |outcome: &Outcome, is_done: &dyn Fn() -> bool| {
        if outcome.code == Some(0) {
            assert!(is_done(), "{outcome}");
        } else {
            works = false;
            assert_failed(outcome);
        }
    };
    expect(&outcome, &|| {
        document(&outcome)["supportedVersions"].is_array()
    });

    let relayed = configuration(100_000);
    let mut plugin = excluded(under(wrapper, "msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &relayed.to_string());
    expect(&outcome, &|| document(&outcome) == relayed["prevResult"]);

    let (cluster, sandbox) = (Cluster::new(LABELLED, &[]), Namespace::new());
    let redirected = cluster.configuration(&json!({}));
    let mut plugin = request(under(wrapper, "msm-cni"), "ADD", &sandbox.path());
    let outcome = run_with_input(&mut plugin, &redirected.to_string());
    let is_redirected = || sandbox.nft_rules().contains("table inet msm_cni");
    expect(&outcome, &|| {
        document(&outcome) == redirected["prevResult"] && is_redirected()
    });

    let sandbox = Namespace::new();
    let redirected = cluster.configuration(&intercept_name("iptables"));
    let mut plugin = request(under(wrapper, "msm-cni"), "ADD", &sandbox.path());
    let outcome = run_with_input(&mut plugin, &redirected.to_string());
    let is_redirected = || sandbox.iptables_rules().contains("-A MSM_CNI_OUTPUT");
    expect(&outcome, &|| {
        document(&outcome) == redirected["prevResult"] && is_redirected()
    });
    works
}

#[test]
fn resource_limit_is_met_or_reported() {
    if cannot_run(&[
        "prlimit",
        "nft",
        "iptables-nft-restore",
        "iptables-nft-save",
    ]) {
        return;
    }
    for (resource, limits) in [
        ("nofile", &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 1024][..]),
        (
            "as",
            &[
                1 << 20,
                2 << 20,
                4 << 20,
                8 << 20,
                16 << 20,
                64 << 20,
                1 << 30,
            ],
        ),
        ("data", &[4096, 1 << 18, 1 << 19, 1 << 20, 2 << 20, 1 << 30]),
        ("stack", &[8192, 1 << 15, 1 << 17, 1 << 20]),
        ("fsize", &[0, 1024]),
        ("memlock", &[0]),
        ("core", &[0]),
        ("sigpending", &[0]),
    ] {
        let works = limits.iter().map(|limit| {
            let limit = format!("--{resource}={limit}");
            succeeds_or_fails_cleanly(&["prlimit", &limit])
        });
        let works: Vec<bool> = works.collect();
        assert_eq!(works.last(), Some(&true), "{resource}: {works:?}");
    }
}

#[test]
fn file_size_limit_of_stdout_is_a_failure() {
    if cannot_run(&["prlimit", "sh"]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.path().join("reply");
    // SIGXFSZ ends the plugin; if it is ignored, the write fails.
    for ignore in ["", "trap '' XFSZ;"] {
        for size in ["0", "10", "1000"] {
            let script = format!("{ignore} exec \"$@\" >{}", file.display());
            let limit = format!("--fsize={size}");
            let wrapper = ["prlimit", &limit, "sh", "-c", &script, "sh"];
            let mut plugin = excluded(under(&wrapper, "msm-cni"), "ADD");
            let outcome = run_with_input(&mut plugin, &configuration(100_000).to_string());
            assert_ne!(outcome.code, Some(0), "{outcome}");
            assert_eq!(outcome.code.is_some(), !ignore.is_empty(), "{outcome}");
        }
    }
}

#[test]
fn missing_and_read_only_directories_are_tolerated() {
    if cannot_run(&["unshare", "mount", "sh", "nft", "iptables-nft-restore"]) {
        return;
    }
    let scratch = Scratch::new();
    let deleted = scratch.path().join("deleted");
    let in_deleted = format!(
        "mkdir {0} && cd {0} && rmdir {0} && exec \"$@\"",
        deleted.display()
    );
    let read_only = "mount --bind /proc /proc &&
        mount -o remount,bind,ro,nosuid,nodev,noexec /proc && exec \"$@\"";
    let empty_host = "for directory in /tmp /var /etc /home /opt; do
            test ! -d $directory || test $directory = \"$0\" ||
                mount -t tmpfs -o ro none $directory || exit 99
        done
        exec \"$@\"";
    for (script, kept) in [
        (in_deleted.as_str(), ""),
        (read_only, ""),
        // The directory of the test's files is kept.
        (empty_host, top(scratch.path()).to_str().unwrap()),
    ] {
        assert!(succeeds_or_fails_cleanly(&[
            "unshare", "--mount", "sh", "-c", script, kept
        ]));
    }
}

/// The first directory of a path: `/tmp` for `/tmp/a/b`.
fn top(path: &Path) -> &Path {
    path.ancestors()
        .filter(|path| path.parent() == Some(Path::new("/")))
        .last()
        .unwrap()
}

/// Without /dev/null, Rust's runtime cannot replace a closed stream and aborts.
#[test]
fn closed_stream_without_dev_is_a_failure() {
    if cannot_run(&["unshare", "mount", "sh"]) {
        return;
    }
    for redirections in [">&-", "<&- >&- 2>&-"] {
        let script = format!("mount -t tmpfs none /dev && exec \"$@\" {redirections}");
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        for verb in ["ADD", "VERSION"] {
            let mut plugin = excluded(under(&wrapper, "msm-cni"), verb);
            assert_failed(&run_with_input(&mut plugin, &configuration(0).to_string()));
        }
    }
}

/// Measured while the plugin blocks on the last bytes of its reply.
#[test]
fn add_needs_little_memory() {
    if cannot_run(&["nft"]) {
        return;
    }
    let (cluster, sandbox) = (Cluster::new(LABELLED, &[]), Namespace::new());
    let mut configuration = cluster.configuration(&json!({}));
    configuration["prevResult"]["x-long"] = json!("x".repeat(6000));
    let (mut reader, writer) = pipe().unwrap();
    let page = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    assert!(page < 6000, "the reply fits into {page} bytes");
    let (stdin, mut input) = pipe().unwrap();
    let mut command = request(applet("msm-cni"), "ADD", &sandbox.path());
    let plugin = start(&mut command, stdin, writer);
    drop(command);
    input
        .write_all(configuration.to_string().as_bytes())
        .unwrap();
    drop(input);
    wait_for(&reader);
    let status = fs::read_to_string(format!("/proc/{}/status", plugin.id())).unwrap();
    let reply: Value = serde_json::from_str(&read_to_end(&mut reader)).unwrap();
    assert_eq!(reply, configuration["prevResult"]);
    assert!(end(plugin).0.success());
    assert!(sandbox.nft_rules().contains("msm_cni"), "no redirect");
    let kib = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.unwrap().parse().unwrap()
    };
    let is_shipped = std::env::var_os("MSM_EXECUTABLE").is_some();
    let limit = if is_shipped { PEAK_KIB } else { DEBUG_PEAK_KIB };
    assert!(kib("VmHWM:") < limit, "{status}");
    assert!(kib("RssAnon:") < PRIVATE_KIB, "{status}");
}
