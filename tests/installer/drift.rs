//! Drift: files of msm-cni that are removed, changed or replaced are repaired and counted, and
//! the log has the reason.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use msm_testkit::node::{BIN_DIR, CALICO, CONF, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A name, the damage to a file, and the reason in the log for the repair.
type Damage = (&'static str, fn(&Path), &'static str);

const ANY_FILE: [Damage; 6] = [
    (
        "removed",
        |path| fs::remove_file(path).unwrap(),
        "it was missing",
    ),
    (
        "a directory",
        |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        "not a",
    ),
    (
        "a pipe",
        |path| {
            fs::remove_file(path).unwrap();
            mkfifo(path, Mode::S_IRUSR).unwrap();
        },
        "not a",
    ),
    (
        "a symlink to nothing",
        |path| {
            fs::remove_file(path).unwrap();
            symlink("/nowhere", path).unwrap();
        },
        "was",
    ),
    ("emptied", |path| drop(File::create(path).unwrap()), "was"),
    (
        "garbage",
        |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, b"\xff\x00").unwrap();
        },
        "was",
    ),
];

const REGULAR_FILE: [Damage; 3] = [
    (
        "readable by all",
        |path| fs::set_permissions(path, Permissions::from_mode(0o646)).unwrap(),
        "its mode was 0646",
    ),
    (
        "readable by none",
        |path| fs::set_permissions(path, Permissions::from_mode(0o000)).unwrap(),
        "its mode was 0000",
    ),
    (
        "owned by another user",
        |path| chown(path, Some(7), None).unwrap(),
        "it belonged to user 7",
    ),
];

fn assert_repaired(file: &str, damages: &[Damage]) {
    for (what, damage, reason) in damages {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let tree = node.tree();
        installer.at_once(|| damage(&node.path(file)));
        installer.reacts(&format!("{file}, {what}, is repaired"), || {
            installer.repairs() == 1 && installer.ready().unwrap().0 == 200
        });
        assert_eq!(node.tree(), tree, "{file}, {what}\n{}", installer.log());
        let (code, log) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0));
        let line = log.lines().rfind(|line| line.contains(file)).unwrap();
        assert!(line.contains(reason), "{file}, {what}\n{log}");
        // The line of the first installation also contains "was".
        assert_eq!(
            line.contains("it was missing"),
            *what == "removed" && file != CONF_PATH,
            "{file}, {what}\n{log}"
        );
    }
}

#[test]
fn kubeconfig_is_repaired() {
    assert_repaired(KUBECONFIG, &ANY_FILE);
    assert_repaired(KUBECONFIG, &REGULAR_FILE);
    assert_repaired(
        KUBECONFIG,
        &[(
            "another server's",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace("127.0.0.1", "192.0.2.1")).unwrap();
            },
            "its content was different",
        )],
    );
}

#[test]
fn executable_is_repaired() {
    let executable = format!("{BIN_DIR}/msm");
    // The installed file is a copy: changing it does not change the running installer.
    assert_repaired(&executable, &ANY_FILE[..5]);
    assert_repaired(&executable, &REGULAR_FILE);
    assert_repaired(
        &executable,
        &[(
            "altered in its last byte",
            |path| {
                let mut bytes = fs::read(path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
            },
            "it was another version",
        )],
    );
}

#[test]
fn symlinks_are_repaired() {
    for link in ["msm-cni", "msm-iptables"] {
        let path = format!("{BIN_DIR}/{link}");
        assert_repaired(&path, &ANY_FILE[..4]);
        assert_repaired(
            &path,
            &[(
                "a copy",
                |path| {
                    let target = fs::read(path).unwrap();
                    fs::remove_file(path).unwrap();
                    fs::write(path, target).unwrap();
                },
                "it was not a symlink",
            )],
        );
    }
}

#[test]
fn entry_is_repaired_and_mode_and_owner_of_the_file_are_kept() {
    let damages: [Damage; 3] = [
        (
            "removed",
            |path| fs::write(path, CALICO).unwrap(),
            "the plugin entry was missing",
        ),
        (
            "altered",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace("\"info\"", "\"trace\"")).unwrap();
            },
            "the plugin entry was different",
        ),
        (
            "repeated",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                let twice = text.replacen("[\n", "[\n    {\"type\": \"msm-cni\"},\n", 1);
                fs::write(path, twice).unwrap();
            },
            "the plugin entry was different",
        ),
    ];
    assert_repaired(CONF_PATH, &damages);
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let path = node.path(CONF_PATH);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(7), Some(8)).unwrap();
    fs::write(&path, CALICO).unwrap();
    installer.wait_until("the repair", || installer.repairs() == 1);
    let tree = node.tree();
    assert!(tree.contains(&format!("{CONF_PATH} 0600\n")), "{tree}");
    assert_eq!(owner(&path), (7, 8));
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata().unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn entry_with_token_is_owner_readable_only() {
    let template = r#"{"name": "m", "type": "msm-cni", "token": "__SERVICEACCOUNT_TOKEN__"}"#;
    for placement in ["--chained-cni-plugin=true", "--chained-cni-plugin=false"] {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[placement, "--cni-network-config", template]);
        let name = if placement.ends_with("true") {
            CONF
        } else {
            "YYY-msm-cni.conf"
        };
        let path = node.path(NET_DIR).join(name);
        assert!(fs::read_to_string(&path).unwrap().contains("first.token.x"));
        let tree = node.tree();
        assert!(tree.contains(&format!("{NET_DIR}/{name} 0600\n")), "{tree}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        installer.wait_until("only the owner can read it", || node.tree() == tree);
        assert_eq!(installer.repairs(), 1, "{}", installer.log());
    }
}

#[test]
fn directory_with_content_is_reported_and_not_removed() {
    for path in [
        KUBECONFIG.to_owned(),
        format!("{BIN_DIR}/msm"),
        format!("{BIN_DIR}/msm-cni"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let directory = node.path(&path);
        fs::create_dir(&directory).unwrap();
        node.write(&format!("{path}/precious"), "");
        let installer = node.start(&[]);
        installer.becomes_unready(&format!("{}: Directory not empty", directory.display()));
        assert!(!node.conf(CONF).contains("msm-cni"), "{}", installer.log());
        // Each signal causes a retry, but no further log line.
        for _ in 0..3 {
            installer.signal(Signal::SIGHUP);
            installer.becomes_unready("Directory not empty");
        }
        fs::rename(&directory, node.path("precious")).unwrap();
        installer.becomes_ready();
        assert_eq!(
            installer.logged("Directory not empty"),
            1,
            "{}",
            installer.log()
        );
        assert!(node.path("precious/precious").exists());
    }
}
