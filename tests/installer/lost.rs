//! Things of ours that somebody removes, alters or replaces: they come back, are counted,
//! and the log says why.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use msm_testkit::node::{BIN_DIR, CALICO, CONF, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// What happens to a file, and the reason that the log gives for its return.
type Loss = (&'static str, fn(&Path), &'static str);

const ANY_FILE: [Loss; 6] = [
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
        "it was",
    ),
    (
        "emptied",
        |path| drop(File::create(path).unwrap()),
        "it was",
    ),
    (
        "garbage",
        |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, b"\xff\x00").unwrap();
        },
        "it was",
    ),
];

const REGULAR_FILE: [Loss; 3] = [
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
        "somebody else's",
        |path| chown(path, Some(7), None).unwrap(),
        "it belonged to user 7",
    ),
];

fn lost(file: &str, losses: &[Loss]) {
    for (what, damage, reason) in losses {
        let node = Node::with_conf(CONF, CALICO);
        let installer = node.installed(&[]);
        let tree = node.tree();
        installer.at_once(|| damage(&node.path(file)));
        installer.wait_until(&format!("{file} is back, which was {what}"), || {
            installer.mended() == 1 && installer.ready().unwrap().0 == 200
        });
        assert_eq!(node.tree(), tree, "{file} was {what}\n{}", installer.log());
        let (code, log, _) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0));
        let line = log.lines().rfind(|line| line.contains(file)).unwrap();
        assert!(line.contains(reason), "{file} was {what}\n{log}");
    }
}

#[test]
fn the_kubeconfig_comes_back() {
    lost(KUBECONFIG, &ANY_FILE);
    lost(KUBECONFIG, &REGULAR_FILE);
    lost(
        KUBECONFIG,
        &[(
            "another server's",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace("127.0.0.1", "192.0.2.1")).unwrap();
            },
            "it was another one",
        )],
    );
}

#[test]
fn the_executable_comes_back() {
    let executable = format!("{BIN_DIR}/msm");
    // What runs is not what is there: it was copied.
    lost(&executable, &ANY_FILE[..5]);
    lost(&executable, &REGULAR_FILE);
    lost(
        &executable,
        &[(
            "altered in its last byte",
            |path| {
                let mut bytes = fs::read(path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
            },
            "it was not this version",
        )],
    );
}

#[test]
fn the_symlinks_come_back() {
    for link in ["msm-cni", "msm-iptables"] {
        let path = format!("{BIN_DIR}/{link}");
        lost(&path, &ANY_FILE[..4]);
        lost(
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
fn the_entry_comes_back_and_the_files_mode_is_its_owners() {
    let altered: [Loss; 3] = [
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
            "the plugin entry was different, repeated or not last",
        ),
        (
            "there twice",
            |path| {
                let text = fs::read_to_string(path).unwrap();
                let twice = text.replacen("[\n", "[\n    {\"type\": \"msm-cni\"},\n", 1);
                fs::write(path, twice).unwrap();
            },
            "the plugin entry was different, repeated or not last",
        ),
    ];
    lost(CONF_PATH, &altered);
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&[]);
    let path = node.path(CONF_PATH);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(7), Some(8)).unwrap();
    fs::write(&path, CALICO).unwrap();
    installer.wait_until("our entry", || installer.mended() == 1);
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
fn an_entry_with_the_token_in_it_is_nobody_elses_to_read() {
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
        installer.wait_until("nobody else can read it", || node.tree() == tree);
        assert_eq!(installer.mended(), 1, "{}", installer.log());
    }
}

#[test]
fn what_is_in_the_way_is_named_and_not_removed() {
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
        // Each is another try; the log has heard of it already.
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
