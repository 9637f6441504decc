//! Files of the runtime's configuration directory that are invalid, incomplete, symlinks or
//! being written by another component; and the template of the plugin entry.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use msm_testkit::cannot_run;
use msm_testkit::command::run;
use msm_testkit::installer::{DEADLINE, Installer};
use msm_testkit::node::{CALICO, CONF, CONF_PATH, KUBECONFIG, NET_DIR, Node};
use msm_testkit::runtime::{Network, Runtime};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const SINGLE: &str =
    "{\n  \"cniVersion\": \"0.4.0\",\n  \"name\": \"mynet\",\n  \"type\": \"bridge\"\n}\n";
/// How long an uninstallation waits for a file to be completed.
const RETRY_PERIOD: Duration = Duration::from_millis(500);

/// The network that CRI-O would load; containerd loads the same if all files are valid.
fn network(node: &Node) -> Option<Network> {
    Runtime::Crio.loads_from(&node.path(NET_DIR))
}

fn is_chained(node: &Node) -> bool {
    network(node).is_some_and(|network| network.ends_with_us())
}

#[track_caller]
fn uninstall(installer: Installer) {
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn file_that_no_runtime_loads_is_not_touched() {
    type Make = fn(&Path) -> io::Result<()>;
    let kinds: [(&str, Make); 7] = [
        ("05-x.conflist", |path| fs::create_dir(path)),
        ("05-x.conf", |path| Ok(mkfifo(path, Mode::S_IRWXU)?)),
        ("05-x.json", |path| symlink("nothing", path)),
        // A symlink to a directory.
        ("05-x.conf", |path| symlink(".", path)),
        ("05-x.conflist", |path| fs::write(path, "")),
        ("05-x.conflist", |path| {
            fs::write(path, "{\"name\": \"h\", \"plu")
        }),
        ("05-x.conflist", |path| fs::write(path, "{\"name\": \"h\"}")),
    ];
    for (name, make) in kinds {
        // As the only file, it is the reason to wait.
        let node = Node::new();
        let path = node.path(NET_DIR).join(name);
        make(&path).unwrap();
        let metadata = path.symlink_metadata().unwrap();
        let (what, inode) = (metadata.file_type(), metadata.ino());
        let installer = node.start(&["--cleanup-on-exit=always"]);
        installer.becomes_unready(&format!("{name} cannot be used"));
        assert_eq!(installer.get("/healthz").unwrap().0, 200, "{what:?}");
        // Beside a valid file, it is ignored.
        node.write(CONF_PATH, CALICO);
        installer.becomes_ready();
        assert!(is_chained(&node), "{what:?}\n{}", installer.log());
        let (code, log) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{what:?}\n{log}");
        assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "{what:?}");
        assert_eq!(node.conf(CONF), CALICO, "{what:?}");
    }
}

#[test]
fn file_that_only_the_runtime_may_load_is_reported() {
    type Make = fn(&Path) -> io::Result<()>;
    let kinds: [Make; 4] = [
        // The target may exist on the host.
        |dir| symlink("/nowhere/x.conflist", dir.join("05-x.conflist")),
        |dir| File::create(dir.join("05-x.conflist"))?.set_len(5 << 20),
        |dir| fs::write(dir.join(OsStr::from_bytes(b"05-\xff.conflist")), CALICO),
        |dir| {
            fs::write(
                dir.join("05-x.conf"),
                b"{\"name\": \"\xe4\", \"type\": \"a\"}",
            )
        },
    ];
    for make in kinds {
        let node = Node::with_conf(CONF, CALICO);
        make(&node.path(NET_DIR)).unwrap();
        let installer = node.start(&[]);
        installer.becomes_unready("the container runtime may load it, but msm-cni cannot");
        let (_, body) = installer.ready().unwrap();
        assert!(body.contains(&format!(" sorts before {CONF}")), "{body}");
        // If the runtime loads the other file, the entry is in it.
        assert!(node.conf(CONF).contains("\"msm-cni\""), "{body}");
    }
}

#[test]
fn completed_file_gets_the_entry() {
    let node = Node::with_conf(CONF, &CALICO[..CALICO.len() / 2]);
    let installer = node.start(&[]);
    installer.becomes_unready(&format!("{CONF} cannot be used"));
    assert_eq!(node.conf(CONF), &CALICO[..CALICO.len() / 2]);
    node.write(CONF_PATH, CALICO);
    installer.reacts("ready", || installer.is_ready());
    assert!(is_chained(&node), "{}", node.tree());
}

#[test]
fn target_of_symlinked_configuration_is_written() {
    let node = Node::new();
    let target = node.path("host/elsewhere");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("real"), CALICO).unwrap();
    fs::set_permissions(target.join("real"), Permissions::from_mode(0o640)).unwrap();
    let link = node.path(NET_DIR).join(CONF);
    symlink("../../../elsewhere/real", &link).unwrap();
    // A second name of the same file.
    symlink(CONF, node.path(NET_DIR).join("20-alias.conflist")).unwrap();
    // Left over from an interrupted run.
    fs::write(target.join(".msm-cni-temporary-0"), "").unwrap();

    let installer = node.installed(&["--cleanup-on-exit=always"]);
    assert!(link.is_symlink() && is_chained(&node), "{}", node.tree());
    let metadata = target.join("real").metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert!(!target.join(".msm-cni-temporary-0").exists());
    assert_eq!(installer.logged("real with mode"), 1, "{}", installer.log());
    // Its owner changes the target.
    fs::write(target.join("real"), CALICO).unwrap();
    installer.reacts("the entry is restored", || is_chained(&node));
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("real with mode").count(), 3, "{log}");
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(target.join("real")).unwrap(), CALICO);
}

#[test]
fn symlinked_conf_is_restored_as_a_symlink() {
    let node = Node::new();
    let link = node.path(NET_DIR).join("10-x.conf");
    node.write("host/real", SINGLE);
    symlink("../../../real", &link).unwrap();
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    assert!(is_chained(&node) && !link.is_symlink(), "{}", node.tree());
    assert_eq!(node.read("host/real"), SINGLE);
    uninstall(installer);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../../real"));
    assert_eq!(node.read("host/real"), SINGLE);
    assert!(!node.path(NET_DIR).join("10-x.conflist").exists());
}

#[test]
fn conf_is_converted_each_time_its_owner_writes_it() {
    for name in ["10-x.conf", "10-x.json"] {
        let node = Node::with_conf(name, SINGLE);
        fs::set_permissions(node.path(NET_DIR).join(name), Permissions::from_mode(0o600)).unwrap();
        let installer = node.installed(&["--cleanup-on-exit=always"]);
        let list = node.path(NET_DIR).join("10-x.conflist");
        assert_eq!(list.metadata().unwrap().mode() & 0o7777, 0o600);
        for mtu in [1400, 1450] {
            let rewritten = SINGLE.replace("\"bridge\"", &format!("\"bridge\", \"mtu\": {mtu}"));
            node.write(&format!("{NET_DIR}/{name}"), &rewritten);
            installer.wait_until("the new version is in use", || {
                network(&node).is_some_and(|network| {
                    network.ends_with_us() && network.plugins[0]["mtu"] == mtu
                }) && !node.path(NET_DIR).join(name).exists()
            });
        }
        uninstall(installer);
        assert_eq!(
            node.conf(name),
            SINGLE.replace("\"bridge\"", "\"bridge\", \"mtu\": 1450")
        );
        let names = fs::read_dir(node.path(NET_DIR)).unwrap().count();
        assert_eq!(names, 1, "{}", node.tree());
    }
}

#[test]
fn backup_of_an_edited_list_is_kept_and_logged() {
    let node = Node::with_conf("10-x.conf", SINGLE);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let list = node.conf("10-x.conflist");
    let edited = list.replacen("\n  ]", ",\n    {\"type\": \"portmap\"}\n  ]", 1);
    node.write(&format!("{NET_DIR}/10-x.conflist"), &edited);
    installer.wait_until("the entry is the last", || is_chained(&node));
    let (code, log) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("10-x.conf.msm-cni-original is kept"), "{log}");
    assert_eq!(network(&node).unwrap().plugins.len(), 2);
    assert_eq!(node.conf("10-x.conf.msm-cni-original"), SINGLE);
}

#[test]
fn template_is_read_from_flag_variable_or_file() {
    const TEMPLATE: &str =
        r#"{"type": "msm-cni", "source": "X", "node": "__KUBERNETES_NODE_NAME__"}"#;
    let template = |source: &str| TEMPLATE.replace('X', source);
    let flag = format!("--cni-network-config={}", template("flag"));
    for (args, variable, file, source) in [
        (&[][..], true, "", "variable"),
        (&[flag.as_str()][..], true, "", "flag"),
        (
            &[flag.as_str(), "--cni-network-config-file=/template"],
            true,
            "",
            "file",
        ),
        (&[flag.as_str()], false, "/template", "file"),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        node.write("template", &template("file"));
        let (mut command, health) = node.command(args);
        if variable {
            command.env("CNI_NETWORK_CONFIG", template("variable"));
        }
        command.env("CNI_NETWORK_CONFIG_FILE", file);
        command.env("KUBERNETES_NODE_NAME", "node \"1\"\\");
        let installer = Installer::start(&node, command, health);
        installer.becomes_ready();
        let network = network(&node).unwrap();
        let entry = network.plugins.last().unwrap();
        assert_eq!(
            (&entry["source"], &entry["node"]),
            (&source.into(), &"node \"1\"\\".into())
        );
    }
}

#[test]
fn template_that_runtimes_would_refuse_is_a_usage_error() {
    for (template, reason) in [
        // YAML parses an unquoted version as a number.
        (
            r#"{"type": "msm-cni", "cniVersion": 1.0}"#,
            "cniVersion has the wrong JSON type",
        ),
        (
            r#"{"type": "msm-cni", "capabilities": ["x"]}"#,
            "capabilities has the wrong JSON type",
        ),
        (
            r#"{"type": "msm-cni", "Type": "bridge"}"#,
            "type is \"bridge\"",
        ),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let (mut command, _) = node.command(&[&format!("--cni-network-config={template}")]);
        run(&mut command).exited(2).complains_about(reason);
        assert_eq!(node.conf(CONF), CALICO);
    }
}

#[test]
fn token_in_the_entry_is_rotated() {
    let node = Node::with_conf(CONF, CALICO);
    let template =
        r#"--cni-network-config={"type": "msm-cni", "token": "__SERVICEACCOUNT_TOKEN__"}"#;
    let installer = node.installed(&[template, "--cleanup-on-exit=always"]);
    for token in ["first.token.x", "second.token.y"] {
        node.rotate_token(token);
        installer.wait_until("entry and kubeconfig have the token", || {
            node.conf(CONF).contains(token) && node.read(KUBECONFIG).contains(token)
        });
        let metadata = node.path(NET_DIR).join(CONF).metadata().unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600);
    }
    assert_eq!(installer.repairs(), 0);
    uninstall(installer);
    assert_eq!(node.conf(CONF), CALICO);
}

#[test]
fn uninstall_waits_for_a_file_that_is_being_written() {
    // On a loaded machine this test may be too slow itself to complete the file in time.
    let start = Instant::now();
    while !is_completed_during_uninstall() {
        assert!(start.elapsed() < DEADLINE, "never completed in time");
    }
}

/// Completes a file while the installer uninstalls. Returns whether it was completed within the
/// retry period, in which case the uninstallation must have succeeded.
fn is_completed_during_uninstall() -> bool {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let with = node.conf(CONF);
    let mut start = Instant::now();
    installer.at_once(|| {
        node.write(CONF_PATH, &with[..with.len() - 9]);
        installer.signal(Signal::SIGTERM);
        start = Instant::now();
    });
    node.write(CONF_PATH, &with);
    let is_in_time = start.elapsed() < RETRY_PERIOD;
    let (code, log) = installer.end(Signal::SIGCONT);
    if is_in_time {
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(node.conf(CONF), CALICO);
        assert!(!node.path(KUBECONFIG).exists());
    }
    is_in_time
}

/// Whether the installer has written a configuration, but not renamed it yet.
fn is_being_written(node: &Node) -> bool {
    fs::read_dir(node.path(NET_DIR)).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name();
        name.as_bytes().starts_with(b".msm-cni-temporary-")
            && fs::read_to_string(entry.path()).is_ok_and(|text| text.ends_with("]\n}\n"))
    })
}

#[test]
fn concurrent_write_of_the_owner_is_not_lost() {
    if cannot_run(&["strace"]) {
        return;
    }
    // In microseconds.
    let slow = "inject=fsync:delay_enter=300000";
    let strace = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync",
        "-e",
        slow,
    ];
    for (name, content, key) in [
        ("10-x.conf", SINGLE, "\"bridge\""),
        ("10-x.json", SINGLE, "\"bridge\""),
        (CONF, CALICO, "\"calico\""),
    ] {
        let node = Node::with_conf(name, content);
        let args = [
            "--cleanup-on-exit=always",
            "--skip-cni-binaries=msm-cni,msm-iptables",
        ];
        let (command, health) = node.command_by(&strace, &args);
        let installer = Installer::start(&node, command, health);
        installer.wait_until("the installer is about to replace the file", || {
            is_being_written(&node)
        });
        let rewritten = content.replace(key, &format!("{key}, \"version\": 2"));
        fs::write(node.path("new"), &rewritten).unwrap();
        fs::rename(node.path("new"), node.path(NET_DIR).join(name)).unwrap();
        installer.wait_until("the new version is in use", || {
            network(&node)
                .is_some_and(|network| network.ends_with_us() && network.plugins[0]["version"] == 2)
        });
        installer.becomes_ready();
        uninstall(installer);
        assert_eq!(node.conf(name), rewritten);
    }
}

#[test]
fn last_of_many_quick_writes_of_the_owner_is_kept() {
    const VERSIONS: u32 = 40;
    for (name, content, key) in [
        ("10-x.conf", SINGLE, "\"bridge\""),
        ("10-x.json", SINGLE, "\"bridge\""),
        (CONF, CALICO, "\"calico\""),
    ] {
        let version = |number| content.replace(key, &format!("{key}, \"version\": {number}"));
        let node = Node::with_conf(name, content);
        let installer = node.start(&["--cleanup-on-exit=always"]);
        let path = node.path(NET_DIR).join(name);
        for number in 1..=VERSIONS {
            if number % 2 == 0 {
                fs::write(&path, version(number)).unwrap();
            } else {
                fs::write(node.path("new"), version(number)).unwrap();
                fs::rename(node.path("new"), &path).unwrap();
            }
            // The next write interrupts the reaction to this one at any point.
            let logged = installer.log().len();
            let start = Instant::now();
            while installer.log().len() == logged && start.elapsed() < Duration::from_millis(9) {
                std::thread::yield_now();
            }
        }
        installer.wait_until("the last version is in use", || {
            network(&node).is_some_and(|network| {
                network.ends_with_us() && network.plugins[0]["version"] == VERSIONS
            })
        });
        installer.wait_until("the file is converted", || {
            name == CONF || !node.path(NET_DIR).join(name).exists()
        });
        uninstall(installer);
        assert_eq!(node.conf(name), version(VERSIONS));
    }
}
