//! Directories that appear late, are removed or replaced; invalid service accounts; and
//! systems without inotify.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::command::run;
use msm_testkit::installer::Installer;
use msm_testkit::node::{
    BIN_DIR, CALICO, CONF, CONF_PATH, KUBECONFIG, NET_DIR, Node, SERVICE_ACCOUNT,
};
use msm_testkit::{cannot_run, find_tool};
use nix::sys::signal::Signal;

#[track_caller]
fn wait_for_entry(installer: &Installer, conf: &str) {
    installer.reacts("the entry", || {
        fs::read_to_string(installer.node.path(conf)).is_ok_and(|conf| conf.contains("\"msm-cni\""))
    });
}

/// Removes the entry, and waits until the installer has noticed and restored it.
#[track_caller]
fn assert_watched(installer: &Installer, conf: &str) {
    let repairs = installer.repairs();
    installer.node.write(conf, CALICO);
    wait_for_entry(installer, conf);
    installer.wait_until("the repair is counted", || {
        installer.repairs() == repairs + 1
    });
}

#[test]
fn missing_directories_are_waited_for_and_watched() {
    for late in [NET_DIR, BIN_DIR] {
        let node = Node::with_conf(CONF, CALICO);
        let elsewhere = node.path("elsewhere");
        fs::rename(node.path(late), &elsewhere).unwrap();
        let installer = node.start(&[]);
        installer.becomes_unready(&format!("{late} cannot be"));
        if late == BIN_DIR {
            assert_eq!(node.conf(CONF), CALICO, "an entry without an executable");
        }
        fs::rename(&elsewhere, node.path(late)).unwrap();
        installer.becomes_ready();
        assert_watched(&installer, CONF_PATH);
    }
}

#[test]
fn replaced_directories_are_filled_and_watched_again() {
    for replaced in [NET_DIR, BIN_DIR] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let tree = node.tree();
        let directory = node.path(replaced);
        for how in ["removed and created", "renamed and created"] {
            installer.at_once(|| {
                if how == "renamed and created" {
                    fs::rename(&directory, node.path("old")).unwrap();
                } else {
                    fs::remove_dir_all(&directory).unwrap();
                }
                fs::create_dir(&directory).unwrap();
                if replaced == NET_DIR {
                    node.write(CONF_PATH, CALICO);
                }
            });
            installer.wait_until(&format!("{replaced}, {how}, is filled"), || {
                node.tree() == tree
            });
            installer.becomes_ready();
            assert_watched(&installer, CONF_PATH);
        }
    }
}

#[test]
fn removed_directory_is_reported() {
    for (removed, text) in [
        (
            NET_DIR,
            "mount the host's CNI configuration directory there",
        ),
        (BIN_DIR, "mount the host's CNI plugin directory there"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        installer.at_once(|| fs::remove_dir_all(node.path(removed)).unwrap());
        installer.becomes_unready(text);
        assert_eq!(installer.get("/healthz").unwrap().0, 200);
    }
}

#[test]
fn second_executable_directory_is_filled_if_it_exists() {
    let second = "host/secondary-bin-dir";
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    assert!(!node.path(second).exists());
    fs::create_dir(node.path(second)).unwrap();
    installer.signal(Signal::SIGHUP);
    installer.wait_until("the directory is filled", || {
        fs::read_link(node.path(second).join("msm-cni")).is_ok()
            && fs::read_link(node.path(second).join("msm-iptables")).is_ok()
    });
    fs::remove_file(node.path(second).join("msm")).unwrap();
    installer.reacts("the executable is restored", || {
        node.path(second).join("msm").exists()
    });
}

#[test]
fn mount_over_a_directory_is_noticed_after_sighup() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // In a pod, the directory is a mount from the start.
    fs::rename(node.path(NET_DIR), node.path("below")).unwrap();
    fs::create_dir(node.path(NET_DIR)).unwrap();
    let _first = Mount::bind(&node.path("below"), &node.path(NET_DIR));
    let installer = node.installed(&[]);
    assert_watched(&installer, CONF_PATH);
    fs::create_dir(node.path("above")).unwrap();
    node.write(&format!("above/{CONF}"), CALICO);
    let _second = Mount::bind(&node.path("above"), &node.path(NET_DIR));
    installer.signal(Signal::SIGHUP);
    wait_for_entry(&installer, CONF_PATH);
    installer.becomes_ready();
    assert_watched(&installer, CONF_PATH);
}

/// A mount that is removed on drop.
pub struct Mount(PathBuf);

impl Mount {
    pub fn bind(what: &Path, onto: &Path) -> Self {
        mount(&["--bind".as_ref(), what.as_os_str(), onto.as_os_str()]);
        Self(onto.to_owned())
    }

    /// Makes a directory read-only.
    pub fn read_only(directory: &Path) -> Self {
        let mount_point = Self::bind(directory, directory);
        let options = ["-o", "remount,bind,ro"].map(OsStr::new);
        mount(&[options[0], options[1], directory.as_os_str()]);
        mount_point
    }

    /// Mounts an empty file system of that size, in bytes.
    pub fn tmpfs(onto: &Path, size: u64) -> Self {
        let options = format!("size={size}");
        let args = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new);
        mount(&[&args[..], &[onto.as_os_str()]].concat());
        Self(onto.to_owned())
    }

    pub fn resize(&self, size: u64) {
        let options = format!("remount,size={size}");
        mount(&["-o".as_ref(), options.as_ref(), self.0.as_os_str()]);
    }
}

fn mount(args: &[&OsStr]) {
    run(Command::new(find_tool("mount").unwrap()).args(args)).succeeded();
}

impl Drop for Mount {
    fn drop(&mut self) {
        let umount = find_tool("umount").unwrap();
        let _ = Command::new(umount).arg("--lazy").arg(&self.0).status();
    }
}

/// A description, a damage to a service account, and a part of the reason reported.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: [Damage; 9] = [
    (
        "token missing",
        |it| fs::remove_file(it.join("token")).unwrap(),
        "token cannot be read",
    ),
    (
        "token empty",
        |it| replace(&it.join("token"), b"\n"),
        "token is empty",
    ),
    (
        "token not text",
        |it| replace(&it.join("token"), b"\xff\x00"),
        "characters other than printable ASCII",
    ),
    (
        "token of two lines",
        |it| replace(&it.join("token"), b"a\nb"),
        "characters other than printable ASCII",
    ),
    (
        "token a directory",
        |it| {
            fs::remove_file(it.join("token")).unwrap();
            fs::create_dir(it.join("token")).unwrap();
        },
        "not a regular file",
    ),
    (
        "CA bundle missing",
        |it| fs::remove_file(it.join("ca.crt")).unwrap(),
        "ca.crt cannot be read",
    ),
    (
        "CA bundle empty",
        |it| replace(&it.join("ca.crt"), b""),
        "ca.crt cannot be used",
    ),
    (
        "CA bundle without a certificate",
        |it| {
            replace(
                &it.join("ca.crt"),
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            );
        },
        "ca.crt cannot be used",
    ),
    (
        "service account missing",
        |it| {
            fs::rename(it, it.with_file_name("elsewhere")).unwrap();
        },
        "token cannot be read",
    ),
];

fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// Mounts the service account again, like the kubelet.
fn repair(node: &Node) {
    let account = node.path(SERVICE_ACCOUNT);
    if !account.exists() {
        fs::rename(account.with_file_name("elsewhere"), &account).unwrap();
        return;
    }
    for file in ["token", "ca.crt"] {
        let path = account.join(file);
        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
        symlink(format!("..data/{file}"), &path).unwrap();
    }
}

#[test]
fn nothing_is_installed_without_a_valid_service_account() {
    for (what, damage, reason) in DAMAGES {
        let node = Node::with_conf(CONF, CALICO);
        damage(&node.path(SERVICE_ACCOUNT));
        let installer = node.start(&[]);
        installer.becomes_unready(reason);
        assert_eq!(node.conf(CONF), CALICO, "{what}\n{}", installer.log());
        assert!(!node.path(KUBECONFIG).exists(), "{what}");
        repair(&node);
        installer.becomes_ready();
        assert!(node.conf(CONF).contains("msm-cni"), "{what}");
        let (_, log) = installer.end(Signal::SIGTERM);
        let lines = log.lines().filter(|line| line.contains(reason));
        assert_eq!(lines.count(), 1, "{what}\n{log}");
    }
}

#[test]
fn installation_is_kept_when_the_service_account_becomes_invalid() {
    for (what, damage, reason) in DAMAGES {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let stamps = node.stamps();
        damage(&node.path(SERVICE_ACCOUNT));
        installer.becomes_unready(reason);
        assert_eq!(node.stamps(), stamps, "{what}\n{}", installer.log());
        // A removed entry is restored.
        node.write(CONF_PATH, CALICO);
        wait_for_entry(&installer, CONF_PATH);
        repair(&node);
        installer.becomes_ready();
    }
}

#[test]
fn lost_inotify_events_cause_a_reconciliation() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    installer.at_once(|| {
        // Two names in turn, because inotify merges equal events; both are ignored.
        let names = ["a", "b"].map(|name| {
            node.path(NET_DIR)
                .join(format!(".msm-cni-temporary-{name}"))
        });
        for _ in 0..limit / 4 {
            for name in &names {
                symlink("x", name).unwrap();
            }
            for name in &names {
                fs::remove_file(name).unwrap();
            }
        }
        symlink("x", &names[0]).unwrap();
        fs::remove_file(&names[0]).unwrap();
        node.write(CONF_PATH, CALICO);
    });
    wait_for_entry(&installer, CONF_PATH);
    assert_eq!(installer.logged("polling"), 0, "{}", installer.log());
}

#[test]
fn installer_polls_when_inotify_is_unavailable() {
    if cannot_run(&["unshare", "nsenter"]) {
        return;
    }
    for (limit, reason) in [
        (
            "max_inotify_instances",
            "creating an inotify instance: EMFILE",
        ),
        ("max_inotify_watches", ": ENOSPC"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        // The limits apply in the user namespace only.
        let lower = format!("echo 0 >/proc/sys/user/{limit}; exec \"$0\" \"$@\"");
        let tool = ["unshare", "--user", "--map-root-user", "sh", "-c", &lower];
        let (command, health) = node.command_by(&tool, &[]);
        let installer = Installer::start(&node, command, health);
        installer.becomes_ready();
        assert_watched(&installer, CONF_PATH);
        let users = format!("--user=/proc/{}/ns/user", installer.pid());
        let raise = format!("echo 128 >/proc/sys/user/{limit}");
        let mut nsenter = Command::new(find_tool("nsenter").unwrap());
        run(nsenter.args([&users, "sh", "-c", &raise])).succeeded();
        installer.wait_until("inotify is available again", || {
            installer.logged("inotify restored") == 1
        });
        let (code, log) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{log}");
        let lines = log
            .lines()
            .filter(|line| line.contains("falling back to polling"));
        let lines: Vec<_> = lines.collect();
        assert!(lines.len() == 1 && lines[0].contains(reason), "{log}");
        assert!(lines[0].contains("fs.inotify.max_user_instances"), "{log}");
    }
}
