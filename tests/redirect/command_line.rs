//! The command line of `msm-iptables`: exit codes, usage errors, help.

use msm_testkit::applet;
use msm_testkit::command::{Outcome, run};

fn msm_iptables(args: &[&str]) -> Outcome {
    run(applet("msm-iptables").args(args))
}

#[test]
fn invalid_value_is_a_usage_error_that_names_it() {
    for args in [
        ["-p", "0"],
        ["-p", "65536"],
        ["-p", "+554"],
        ["-p", ""],
        ["-p", "rtsp"],
        ["-u", "-1"],
        ["-u", "4294967295"],
        ["-u", "root"],
        ["-d", "10.0.0.0/33"],
        ["-d", "10.0.0"],
        ["-d", "fd00::/129"],
        ["-d", "localhost"],
        ["-d", ""],
        ["--redirect-ports", "554,"],
        ["--redirect-ports", "554,0"],
        ["--redirect-ports", ""],
        ["--inbound-ports", "http"],
        ["--ipv6", "maybe"],
        ["--backend", "ebtables"],
        ["-m", "TPROXY"],
        ["--frobnicate", "1"],
    ] {
        // --dry-run: no rules are written if the value is accepted by mistake.
        let joined = format!("{}={}", args[0], args[1]);
        let outcome = msm_iptables(&["--dry-run", &joined]).exited(2);
        let value = if args[1].is_empty() { args[0] } else { args[1] };
        let named = outcome.stderr.contains(value) || outcome.stderr.contains(args[0]);
        assert!(named, "{args:?} is not named\n{outcome}");
        assert_eq!(outcome.stdout, "", "{outcome}");
    }
}

#[test]
fn lists_are_limited_and_deduplicated_as_in_the_plugin() {
    let many = |count: u16| {
        let items: Vec<String> = (1..=count).map(|port| port.to_string()).collect();
        items.join(",")
    };
    for flag in ["--redirect-ports", "--inbound-ports"] {
        msm_iptables(&["--dry-run", flag, &many(64)]).succeeded();
        msm_iptables(&["--dry-run", flag, &many(65)])
            .exited(2)
            .complains_about(&format!("'{flag}': more than 64 different values"));
    }
    let repeated = ["554,322,554", "-d", "10.0.0.0/8", "-d", "10.1.2.3/8"];
    let args = [&["--dry-run", "--redirect-ports"][..], &repeated].concat();
    let text = msm_iptables(&args).succeeded().stdout;
    for rule in ["tcp dport 554 ", "tcp dport 322 ", "ip daddr 10.0.0.0/8 "] {
        assert_eq!(text.matches(rule).count(), 1, "{rule}\n{text}");
    }
}

#[test]
fn unwritable_output_is_reported_on_standard_error() {
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for (name, args) in [
        ("msm-iptables", &["--help"][..]),
        ("installer", &["--help"]),
        ("msm", &["--version"]),
    ] {
        let output = applet(name).args(args).stdout(full()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains("cannot write to standard output: No space"),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn modes_exclude_each_other() {
    for modes in [
        ["--check", "--cleanup"],
        ["--dry-run", "--check"],
        ["--cleanup", "--dry-run"],
    ] {
        msm_iptables(&modes).exited(2);
    }
}

#[test]
fn positional_argument_is_a_usage_error() {
    msm_iptables(&["--dry-run", "554"]).exited(2);
}

#[test]
fn help_names_every_flag_key_and_annotation() {
    let help = msm_iptables(&["--help"]).succeeded().stdout;
    for flag in [
        "-p",
        "--msm-proxy-port",
        "-u",
        "--proxy-uid",
        "-d",
        "--redir-dest-addr",
        "-m",
        "--inbound-intercept-mode",
        "--redirect-ports",
        "--inbound-ports",
        "--ipv6",
        "--backend",
        "--netns",
        "--dry-run",
        "--check",
        "--cleanup",
        "redirect.excludeCIDRs",
        "sidecar.mediastreamingmesh.io/exclude-outbound-cidrs",
    ] {
        assert!(help.contains(flag), "no {flag} in\n{help}");
    }
}

#[test]
fn flags_of_the_earlier_implementation_are_accepted_together() {
    let args = [
        "--dry-run",
        "-p",
        "8555",
        "-u",
        "1338",
        "-d",
        "127.0.0.1/32",
        "-m",
        "REDIRECT",
    ];
    let text = msm_iptables(&args).succeeded().stdout;
    for part in [
        "redirect to :8555",
        "skuid 1338",
        "ip daddr 127.0.0.1 return",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}
