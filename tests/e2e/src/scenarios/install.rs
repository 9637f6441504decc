//! The installer on a node that has no network configuration yet.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{IMAGE, PLUGINS, check_plugins, names};
use crate::Env;
use crate::installer::Installer;
use crate::node::{self, wait_for};
use crate::report::Report;

/// Starts the installer, adds a network and waits until the installer is ready.
pub fn fresh_node<'a>(env: &'a Env, report: &mut Report) -> Installer<'a> {
    report.section("The installer from the release image, on a fresh node");
    let has_image = || env.node.runtime.has_image(IMAGE).unwrap_or_default();
    let imported = wait_for(has_image).map(|_| IMAGE.to_owned());
    report.check(
        "the image",
        IMAGE,
        imported.ok_or("not imported".to_owned()),
    );
    let installer = Installer::start(env, "msm-cni-x7k2p", IMAGE)
        .unwrap_or_else(|error| panic!("start the installer: {error}"));

    let reason = "no valid network configuration";
    let waits = || {
        let (code, body) = Installer::readiness().unwrap_or_default();
        code == 503 && body.contains(reason)
    };
    let reported = wait_for(waits).map(|_| format!("503, {reason}"));
    report.check(
        "no network yet: readiness",
        format!("503, {reason}"),
        reported.ok_or_else(|| format!("{:?}", Installer::readiness())),
    );
    report.check(
        "no network yet: files in the configuration directory",
        "ZZZ-msm-cni-kubeconfig",
        Ok(names(&node::net_dir())),
    );

    let conf = node::net_dir().join("10-cluster.conflist");
    fs::write(conf.with_extension("new"), node::network()).unwrap();
    fs::rename(conf.with_extension("new"), &conf).unwrap();
    let ready = installer.becomes_ready().map(|_| "ready".to_owned());
    report.check("a network appears: readiness", "ready", ready);
    check_plugins(env, report, PLUGINS);
    let (before, after) = network_around_entry();
    let text = fs::read_to_string(&conf).unwrap();
    let is_unchanged = text.starts_with(&before) && text.ends_with(&after);
    report.check(
        "the other plugins' configuration",
        "unchanged",
        is_unchanged.then(|| "unchanged".into()).ok_or(text),
    );
    installed_files(report);
    privileges(report, &installer);
    installer
}

/// Returns the network's configuration before and after the position of the plugin's entry.
fn network_around_entry() -> (String, String) {
    let network = node::network();
    let (before, after) = network.split_at(network.rfind("\n  ]").unwrap());
    (before.to_owned(), after.to_owned())
}

fn installed_files(report: &mut Report) {
    let links = ["msm-cni", "msm-iptables"].map(|name| {
        let target = fs::read_link(node::bin_dir().join(name));
        target.map_or_else(|it| it.to_string(), |it| it.display().to_string())
    });
    report.check("msm-cni and msm-iptables", "msm msm", Ok(links.join(" ")));
    let mode = |directory: &std::path::Path, name: &str| {
        let metadata = fs::metadata(directory.join(name));
        metadata.map_or_else(
            |error| error.to_string(),
            |it| {
                format!(
                    "{name} {:04o} {}:{}",
                    it.mode() & 0o7777,
                    it.uid(),
                    it.gid()
                )
            },
        )
    };
    report.check(
        "the executable",
        "msm 0755 0:0",
        Ok(mode(&node::bin_dir(), "msm")),
    );
    report.check(
        "the kubeconfig",
        "ZZZ-msm-cni-kubeconfig 0600 0:0",
        Ok(mode(&node::net_dir(), "ZZZ-msm-cni-kubeconfig")),
    );
}

/// Checks the process's privileges as the kernel reports them, and the image's executables.
fn privileges(report: &mut Report, installer: &Installer) {
    let status = installer.proc_file("status");
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or("?").trim().trim_start_matches('0');
        if value.is_empty() { "0" } else { value }.to_owned()
    };
    let fields = |text: String| {
        ["CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"]
            .map(|name| name.replace(':', " ") + &field(&text, name))
            .join(" ")
    };
    report.check(
        "its privileges",
        "CapEff 0 CapBnd 0 NoNewPrivs 1 Seccomp 2",
        status.map(fields),
    );
    let root = installer.proc_file("mountinfo").map(|mounts| {
        let root = mounts.lines().find(|line| line.contains(" / / "));
        let options = root.and_then(|line| line.split(' ').nth(5));
        options
            .and_then(|it| it.split(',').next())
            .unwrap_or("?")
            .to_owned()
    });
    report.check("its root file system", "ro", root);
    for (name, argument) in [
        ("install-cni", "--version"),
        ("msm-iptables", "--dry-run"),
        ("msm-cni", "--version"),
    ] {
        report.check(
            &format!("{name} {argument}, found in the image's PATH"),
            "exit code 0",
            installer
                .exec(&[name, argument])
                .map(|outcome| format!("exit code {}", outcome.code)),
        );
    }
}
