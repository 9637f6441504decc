//! Directories that come late, go, or are replaced; a service account that is not what it
//! should be; and what cannot be watched.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use msm_testkit::command::run;
use msm_testkit::node::{
    BIN_DIR, CALICO, CONF, CONF_PATH, Installer, KUBECONFIG, NET_DIR, Node, SERVICE_ACCOUNT,
};
use msm_testkit::{cannot_run, find_tool};
use nix::sys::signal::Signal;

fn entry_comes(installer: &Installer, conf: &str) {
    installer.wait_until("our entry", || {
        fs::read_to_string(installer.node.path(conf)).is_ok_and(|conf| conf.contains("\"msm-cni\""))
    });
}

/// Takes the entry out, which only a watch notices before long.
fn is_watched(installer: &Installer, conf: &str) {
    let mended = installer.mended();
    installer.node.write(conf, CALICO);
    entry_comes(installer, conf);
    installer.wait_until("counted", || installer.mended() == mended + 1);
}

#[test]
fn directories_that_come_late_are_waited_for_and_watched() {
    for late in [NET_DIR, BIN_DIR] {
        let node = Node::with_conf(CONF, CALICO);
        let elsewhere = node.path("elsewhere");
        fs::rename(node.path(late), &elsewhere).unwrap();
        let installer = node.start(&[]);
        installer.becomes_unready(&format!("{late} cannot be"));
        if late == BIN_DIR {
            assert_eq!(node.conf(CONF), CALICO, "nothing would run it");
        }
        fs::rename(&elsewhere, node.path(late)).unwrap();
        installer.becomes_ready();
        is_watched(&installer, CONF_PATH);
    }
}

#[test]
fn directories_that_are_replaced_are_filled_and_watched_again() {
    for replaced in [NET_DIR, BIN_DIR] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let tree = node.tree();
        let directory = node.path(replaced);
        for how in ["removed and made again", "renamed away"] {
            installer.at_once(|| {
                if how == "renamed away" {
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
            is_watched(&installer, CONF_PATH);
        }
    }
}

#[test]
fn a_directory_that_goes_and_stays_away_is_told() {
    for (gone, text) in [
        (NET_DIR, "mount the runtime's configuration directory there"),
        (BIN_DIR, "mount the host's directory of CNI plugins there"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        installer.at_once(|| fs::remove_dir_all(node.path(gone)).unwrap());
        installer.becomes_unready(text);
        assert_eq!(installer.get("/healthz").unwrap().0, 200);
    }
}

#[test]
fn the_second_directory_for_executables_is_filled_where_it_is_there() {
    let second = "host/secondary-bin-dir";
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    assert!(!node.path(second).exists());
    fs::create_dir(node.path(second)).unwrap();
    installer.signal(Signal::SIGHUP);
    installer.wait_until("it is filled", || {
        fs::read_link(node.path(second).join("msm-cni")).is_ok()
            && fs::read_link(node.path(second).join("msm-iptables")).is_ok()
    });
    fs::remove_file(node.path(second).join("msm")).unwrap();
    installer.wait_until("it is watched", || node.path(second).join("msm").exists());
}

#[test]
fn a_mount_over_a_directory_is_found_when_asked_to_look() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // As in a pod, where the directory is a mount from the beginning.
    fs::rename(node.path(NET_DIR), node.path("below")).unwrap();
    fs::create_dir(node.path(NET_DIR)).unwrap();
    let _first = Mount::bind(&node.path("below"), &node.path(NET_DIR));
    let installer = node.installed(&[]);
    is_watched(&installer, CONF_PATH);
    fs::create_dir(node.path("above")).unwrap();
    node.write(&format!("above/{CONF}"), CALICO);
    let _second = Mount::bind(&node.path("above"), &node.path(NET_DIR));
    installer.signal(Signal::SIGHUP);
    entry_comes(&installer, CONF_PATH);
    installer.becomes_ready();
    is_watched(&installer, CONF_PATH);
}

/// A bind mount that goes when dropped.
pub struct Mount(PathBuf);

impl Mount {
    pub fn bind(what: &Path, onto: &Path) -> Self {
        mount(&["--bind".as_ref(), what.as_os_str(), onto.as_os_str()]);
        Self(onto.to_owned())
    }

    /// A directory that cannot be written.
    pub fn read_only(directory: &Path) -> Self {
        let mount_point = Self::bind(directory, directory);
        let options = ["-o", "remount,bind,ro"].map(OsStr::new);
        mount(&[options[0], options[1], directory.as_os_str()]);
        mount_point
    }
}

impl Mount {
    /// An empty file system of that size, in bytes.
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

/// What is wrong with a service account, and what is said about it.
type Trouble = (&'static str, fn(&Path), &'static str);

const TROUBLES: [Trouble; 9] = [
    (
        "no token",
        |it| fs::remove_file(it.join("token")).unwrap(),
        "token cannot be read",
    ),
    (
        "an empty token",
        |it| replace(&it.join("token"), b"\n"),
        "token is empty",
    ),
    (
        "garbage as token",
        |it| replace(&it.join("token"), b"\xff\x00"),
        "characters other than printable ASCII",
    ),
    (
        "two lines",
        |it| replace(&it.join("token"), b"a\nb"),
        "characters other than printable ASCII",
    ),
    (
        "a directory as token",
        |it| {
            fs::remove_file(it.join("token")).unwrap();
            fs::create_dir(it.join("token")).unwrap();
        },
        "it is not a regular file",
    ),
    (
        "no authority",
        |it| fs::remove_file(it.join("ca.crt")).unwrap(),
        "ca.crt cannot be read",
    ),
    (
        "an empty authority",
        |it| replace(&it.join("ca.crt"), b""),
        "ca.crt cannot be used",
    ),
    (
        "no certificate",
        |it| {
            replace(
                &it.join("ca.crt"),
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            );
        },
        "ca.crt cannot be used",
    ),
    (
        "nothing at all",
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

/// As if the kubelet had mounted it anew.
fn mend(node: &Node) {
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
fn without_a_usable_service_account_nothing_is_added() {
    for (what, damage, reason) in TROUBLES {
        let node = Node::with_conf(CONF, CALICO);
        damage(&node.path(SERVICE_ACCOUNT));
        let installer = node.start(&[]);
        installer.becomes_unready(reason);
        assert_eq!(node.conf(CONF), CALICO, "{what}\n{}", installer.log());
        assert!(!node.path(KUBECONFIG).exists(), "{what}");
        mend(&node);
        installer.becomes_ready();
        assert!(node.conf(CONF).contains("msm-cni"), "{what}");
        let (_, log, _) = installer.end(Signal::SIGTERM);
        let told = log.lines().filter(|line| line.contains(reason));
        assert_eq!(told.count(), 1, "{what}\n{log}");
    }
}

#[test]
fn a_service_account_that_breaks_later_leaves_everything_in_place() {
    for (what, damage, reason) in TROUBLES {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let stamps = node.stamps();
        damage(&node.path(SERVICE_ACCOUNT));
        installer.becomes_unready(reason);
        assert_eq!(node.stamps(), stamps, "{what}\n{}", installer.log());
        // An entry that was there is kept there.
        node.write(CONF_PATH, CALICO);
        entry_comes(&installer, CONF_PATH);
        mend(&node);
        installer.becomes_ready();
    }
}

#[test]
fn lost_events_count_as_a_change() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    installer.at_once(|| {
        // Two names in turn, because the same event twice is one; both are nothing that
        // would be looked at.
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
    entry_comes(&installer, CONF_PATH);
    assert_eq!(installer.logged("clock"), 0);
}

#[test]
fn where_nothing_can_be_watched_the_clock_has_to_do() {
    if cannot_run(&["unshare", "nsenter"]) {
        return;
    }
    for (limit, reason) in [
        (
            "max_inotify_instances",
            "no directory can be watched: EMFILE",
        ),
        ("max_inotify_watches", "cannot be watched: ENOSPC"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        // The limits of a user namespace hold for nobody outside.
        let lower = format!("echo 0 >/proc/sys/user/{limit}; exec \"$0\" \"$@\"");
        let tool = ["unshare", "--user", "--map-root-user", "sh", "-c", &lower];
        let (command, health) = node.command_by(&tool, &[]);
        let installer = Installer::start(&node, command, health);
        installer.becomes_ready();
        is_watched(&installer, CONF_PATH);
        let users = format!("--user=/proc/{}/ns/user", installer.pid());
        let raise = format!("echo 128 >/proc/sys/user/{limit}");
        let mut nsenter = Command::new(find_tool("nsenter").unwrap());
        run(nsenter.args([&users, "sh", "-c", &raise])).succeeded();
        installer.wait_until("it sees again", || {
            installer.logged("changes are noticed at once again") == 1
        });
        let (code, log, _) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{log}");
        let told = log.lines().filter(|line| line.contains("by the clock"));
        let told: Vec<_> = told.collect();
        assert!(told.len() == 1 && told[0].contains(reason), "{log}");
        assert!(told[0].contains("fs.inotify.max_user_instances"), "{log}");
    }
}
