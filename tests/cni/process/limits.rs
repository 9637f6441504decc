//! Arguments, environment, limits and directories out of the ordinary: the plugin works, or
//! says that it did not.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{Write, pipe};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use msm_testkit::cluster::{Cluster, LABELLED, by, request};
use msm_testkit::command::{Outcome, run, run_with_input};
use msm_testkit::netns::Namespace;
use msm_testkit::scratch::Scratch;
use msm_testkit::{applet, cannot_run, executable};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::execve;
use serde_json::{Value, json};

use super::plugin::{
    configuration, document, end, excluded, read_to_end, refused, start, under, wait_for,
};

/// What an ADD may take at its peak, most of it pages of the executable that all share:
/// of what ships, which is largest with a static glibc, and of what is built for tests.
const PEAK_KIB: u64 = 4 * 1024;
const DEBUG_PEAK_KIB: u64 = 12 * 1024;
/// Its own of that.
const OWN_KIB: u64 = 1024;
const POD: &str = "K8S_POD_NAMESPACE=media;K8S_POD_NAME=camera";
/// Makes a test's own process become the executable.
const BECOME: &str = "MSM_TEST_BECOME";

#[test]
fn a_name_that_is_no_text_is_a_usage_error() {
    let long = vec![b'a'; 100_000];
    let names: [&[u8]; 7] = [b"", b"\xff", b"msm-cni\xff", b"\n", b"/", b"..", &long];
    for name in names {
        for words in [&[][..], &["msm-cni"], &["--help"]] {
            let mut command = Command::new(executable());
            command
                .arg0(OsStr::from_bytes(name))
                .env_clear()
                .args(words);
            run(command.env("CNI_COMMAND", "VERSION"))
                .exited(2)
                .complains_about("is no applet of this program");
        }
    }
    run(applet("msm-iptables").arg(OsStr::from_bytes(b"--\xff"))).exited(2);
    run(applet("msm").arg(OsStr::from_bytes(b"\xff"))).exited(2);
    run(&mut applet("msm"))
        .exited(2)
        .complains_about("msm: say which applet is wanted");
}

#[test]
fn no_arguments_at_all_are_a_usage_error() {
    if std::env::var_os(BECOME).is_some() {
        let path = CString::new(executable().into_os_string().into_vec()).unwrap();
        let Err(errno) = execve::<CString, _>(&path, &[], &[c"CNI_COMMAND=VERSION"]);
        panic!("become {path:?}: {errno}");
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "process::limits::no_arguments_at_all_are_a_usage_error",
        "--nocapture",
    ]);
    run(command.env(BECOME, "1"))
        .exited(2)
        .complains_about("\"\" is no applet of this program");
}

#[test]
fn an_environment_of_any_size_is_taken() {
    let mut plugin = excluded(applet("msm-cni"), "ADD");
    plugin.envs((0..5000).map(|number| (format!("V{number}"), "x".repeat(100))));
    let outcome = run_with_input(&mut plugin, &configuration(0).to_string());
    assert_eq!(
        document(&outcome.succeeded()),
        configuration(0)["prevResult"]
    );

    let args = |more: &str| format!("{POD};{more}").into_bytes();
    for (variable, value) in [
        // The kernel's limit of one variable is 128 KiB.
        ("HUGE", vec![b'x'; 131_000]),
        ("NOT_TEXT", vec![0xff; 1000]),
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

/// Every way to be asked, under a limit: a whole answer and what it claims, or no success.
#[track_caller]
fn works_or_says_so(wrapper: &[&str]) -> bool {
    let mut version = under(wrapper, "msm-cni");
    let outcome = run(version.env("CNI_COMMAND", "VERSION"));
    let mut works = true;
    let mut holds = |outcome: &Outcome, held: &dyn Fn() -> bool| {
        if outcome.code == Some(0) {
            assert!(held(), "{outcome}");
        } else {
            works = false;
            refused(outcome);
        }
    };
    holds(&outcome, &|| {
        document(&outcome)["supportedVersions"].is_array()
    });

    let passed = configuration(100_000);
    let mut plugin = excluded(under(wrapper, "msm-cni"), "ADD");
    let outcome = run_with_input(&mut plugin, &passed.to_string());
    holds(&outcome, &|| document(&outcome) == passed["prevResult"]);

    let (cluster, sandbox) = (Cluster::new(LABELLED, &[]), Namespace::new());
    let redirected = cluster.configuration(&json!({}));
    let mut plugin = request(under(wrapper, "msm-cni"), "ADD", &sandbox.path());
    let outcome = run_with_input(&mut plugin, &redirected.to_string());
    let is_redirected = || sandbox.nft_rules().contains("table inet msm_cni");
    holds(&outcome, &|| {
        document(&outcome) == redirected["prevResult"] && is_redirected()
    });

    let sandbox = Namespace::new();
    let redirected = cluster.configuration(&by("iptables"));
    let mut plugin = request(under(wrapper, "msm-cni"), "ADD", &sandbox.path());
    let outcome = run_with_input(&mut plugin, &redirected.to_string());
    let is_redirected = || sandbox.iptables_rules().contains("-A MSM_CNI_OUTPUT");
    holds(&outcome, &|| {
        document(&outcome) == redirected["prevResult"] && is_redirected()
    });
    works
}

#[test]
fn a_limit_of_the_kernel_is_met_or_told_of() {
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
            works_or_says_so(&["prlimit", &limit])
        });
        let works: Vec<bool> = works.collect();
        assert_eq!(works.last(), Some(&true), "{resource}: {works:?}");
    }
}

#[test]
fn a_file_that_may_not_grow_is_no_success() {
    if cannot_run(&["prlimit", "sh"]) {
        return;
    }
    let scratch = Scratch::new();
    let file = scratch.path().join("answer");
    // Without an end by the signal, an error of the call is left.
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
fn directories_that_are_not_there_do_not_matter() {
    if cannot_run(&["unshare", "mount", "sh", "nft", "iptables-nft-restore"]) {
        return;
    }
    let scratch = Scratch::new();
    let gone = scratch.path().join("gone");
    let deleted = format!(
        "mkdir {0} && cd {0} && rmdir {0} && exec \"$@\"",
        gone.display()
    );
    let read_only = "mount --bind /proc /proc &&
        mount -o remount,bind,ro,nosuid,nodev,noexec /proc && exec \"$@\"";
    let nothing_of_the_host = "for directory in /tmp /var /etc /home /opt; do
            test ! -d $directory || test $directory = \"$0\" ||
                mount -t tmpfs -o ro none $directory || exit 99
        done
        exec \"$@\"";
    for (script, spared) in [
        (deleted.as_str(), ""),
        (read_only, ""),
        // The test's own files are there.
        (nothing_of_the_host, top(scratch.path()).to_str().unwrap()),
    ] {
        assert!(works_or_says_so(&[
            "unshare", "--mount", "sh", "-c", script, spared
        ]));
    }
}

/// `/tmp` of `/tmp/a/b`.
fn top(path: &Path) -> &Path {
    path.ancestors()
        .filter(|path| path.parent() == Some(Path::new("/")))
        .last()
        .unwrap()
}

/// Start-up puts the null device in place of what is closed, or ends.
#[test]
fn without_dev_a_closed_stream_is_no_success() {
    if cannot_run(&["unshare", "mount", "sh"]) {
        return;
    }
    for redirections in [">&-", "<&- >&- 2>&-"] {
        let script = format!("mount -t tmpfs none /dev && exec \"$@\" {redirections}");
        let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        for verb in ["ADD", "VERSION"] {
            let mut plugin = excluded(under(&wrapper, "msm-cni"), verb);
            refused(&run_with_input(&mut plugin, &configuration(0).to_string()));
        }
    }
}

/// Measured when all is done but the last bytes of the answer, for which nobody has made
/// room yet.
#[test]
fn an_add_needs_little_memory() {
    if cannot_run(&["nft"]) {
        return;
    }
    let (cluster, sandbox) = (Cluster::new(LABELLED, &[]), Namespace::new());
    let mut ordinary = cluster.configuration(&json!({}));
    ordinary["prevResult"]["x-long"] = json!("x".repeat(6000));
    let (mut reader, writer) = pipe().unwrap();
    let page = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    assert!(page < 6000, "an answer fits into {page} bytes");
    let (stdin, mut input) = pipe().unwrap();
    let mut command = request(applet("msm-cni"), "ADD", &sandbox.path());
    let plugin = start(&mut command, stdin, writer);
    drop(command);
    input.write_all(ordinary.to_string().as_bytes()).unwrap();
    drop(input);
    wait_for(&reader);
    let status = fs::read_to_string(format!("/proc/{}/status", plugin.id())).unwrap();
    let answer: Value = serde_json::from_str(&read_to_end(&mut reader)).unwrap();
    assert_eq!(answer, ordinary["prevResult"]);
    assert!(end(plugin).0.success());
    assert!(
        sandbox.nft_rules().contains("msm_cni"),
        "nothing was redirected"
    );
    let kib = |key: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.unwrap().parse().unwrap()
    };
    let ships = std::env::var_os("MSM_EXECUTABLE").is_some();
    let limit = if ships { PEAK_KIB } else { DEBUG_PEAK_KIB };
    assert!(kib("VmHWM:") < limit, "{status}");
    assert!(kib("RssAnon:") < OWN_KIB, "{status}");
}
