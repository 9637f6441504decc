//! The runtime's configuration directory with what is no configuration, or one only for a
//! moment, or somewhere else; and the template of what goes into it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use msm_testkit::cannot_run;
use msm_testkit::command::run;
use msm_testkit::node::{CALICO, CONF, CONF_PATH, Installer, KUBECONFIG, NET_DIR, Node};
use msm_testkit::runtime::{Network, Runtime};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const SINGLE: &str =
    "{\n  \"cniVersion\": \"0.4.0\",\n  \"name\": \"mynet\",\n  \"type\": \"bridge\"\n}\n";
/// Changes are noticed at once; the slow clock takes a minute.
const AT_ONCE: Duration = Duration::from_secs(5);

/// What CRI-O would load; containerd does the same where everything is valid.
fn network(node: &Node) -> Option<Network> {
    let entries = fs::read_dir(node.path(NET_DIR)).unwrap();
    // Of what is being replaced, some may be gone by now.
    let files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, fs::read(&path).ok()?))
        })
        .collect();
    Runtime::Crio.loads(
        files
            .iter()
            .map(|(name, content)| (name.as_str(), Some(content.as_slice()))),
    )
}

fn is_chained(node: &Node) -> bool {
    network(node).is_some_and(|network| network.ends_with_us())
}

#[track_caller]
fn leaves(installer: Installer) {
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn what_no_runtime_loads_is_left_alone() {
    type Make = fn(&Path) -> io::Result<()>;
    let kinds: [(&str, Make); 7] = [
        ("05-x.conflist", |path| fs::create_dir(path)),
        ("05-x.conf", |path| Ok(mkfifo(path, Mode::S_IRWXU)?)),
        ("05-x.json", |path| symlink("nothing", path)),
        // A directory.
        ("05-x.conf", |path| symlink(".", path)),
        ("05-x.conflist", |path| fs::write(path, "")),
        ("05-x.conflist", |path| {
            fs::write(path, "{\"name\": \"h\", \"plu")
        }),
        ("05-x.conflist", |path| fs::write(path, "{\"name\": \"h\"}")),
    ];
    for (name, make) in kinds {
        // Alone, it is waited for by name.
        let node = Node::new();
        let path = node.path(NET_DIR).join(name);
        make(&path).unwrap();
        let metadata = path.symlink_metadata().unwrap();
        let (what, inode) = (metadata.file_type(), metadata.ino());
        let installer = node.start(&["--cleanup-on-exit=always"]);
        installer.becomes_unready(&format!("{name} cannot be used"));
        assert_eq!(installer.get("/healthz").unwrap().0, 200, "{what:?}");
        // Beside another one it is in nobody's way.
        node.write(CONF_PATH, CALICO);
        installer.becomes_ready();
        assert!(is_chained(&node), "{what:?}\n{}", installer.log());
        let (code, log, _) = installer.end(Signal::SIGTERM);
        assert_eq!(code, Some(0), "{what:?}\n{log}");
        assert_eq!(path.symlink_metadata().unwrap().ino(), inode, "{what:?}");
        assert_eq!(node.conf(CONF), CALICO, "{what:?}");
    }
}

#[test]
fn what_the_runtime_may_load_though_we_cannot_makes_us_unready() {
    type Make = fn(&Path) -> io::Result<()>;
    let kinds: [Make; 4] = [
        // On the host it may lead somewhere.
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
        installer.becomes_unready("the runtime may use 05-");
        let (_, body) = installer.ready().unwrap();
        assert!(body.contains(&format!("comes before {CONF}")), "{body}");
        // All the same: if it uses the other one, our entry is there.
        assert!(node.conf(CONF).contains("\"msm-cni\""), "{body}");
    }
}

#[test]
fn a_file_that_is_complete_at_last_gets_the_entry() {
    let node = Node::with_conf(CONF, &CALICO[..CALICO.len() / 2]);
    let installer = node.start(&[]);
    installer.becomes_unready(&format!("{CONF} cannot be used"));
    assert_eq!(node.conf(CONF), &CALICO[..CALICO.len() / 2]);
    let start = Instant::now();
    node.write(CONF_PATH, CALICO);
    installer.becomes_ready();
    assert!(start.elapsed() < AT_ONCE && is_chained(&node));
}

#[test]
fn a_symlinked_configuration_is_written_where_it_really_is() {
    let node = Node::new();
    let target = node.path("host/elsewhere");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("real"), CALICO).unwrap();
    fs::set_permissions(target.join("real"), Permissions::from_mode(0o640)).unwrap();
    let link = node.path(NET_DIR).join(CONF);
    symlink("../../../elsewhere/real", &link).unwrap();
    // A second name for it is no second configuration.
    symlink(CONF, node.path(NET_DIR).join("20-alias.conflist")).unwrap();
    // What an interrupted run has left there.
    fs::write(target.join(".msm-cni-temporary-0"), "").unwrap();

    let installer = node.installed(&["--cleanup-on-exit=always"]);
    assert!(link.is_symlink() && is_chained(&node), "{}", node.tree());
    let metadata = target.join("real").metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o640);
    assert!(!target.join(".msm-cni-temporary-0").exists());
    assert_eq!(installer.logged("real with mode"), 1, "{}", installer.log());
    // Its owner changes it there.
    let start = Instant::now();
    fs::write(target.join("real"), CALICO).unwrap();
    installer.wait_until("our entry is back", || is_chained(&node));
    assert!(start.elapsed() < AT_ONCE);
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("real with mode").count(), 3, "{log}");
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(target.join("real")).unwrap(), CALICO);
}

#[test]
fn a_symlinked_conf_steps_aside_and_comes_back_as_a_symlink() {
    let node = Node::new();
    let link = node.path(NET_DIR).join("10-x.conf");
    node.write("host/real", SINGLE);
    symlink("../../../real", &link).unwrap();
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    assert!(is_chained(&node) && !link.is_symlink(), "{}", node.tree());
    assert_eq!(node.read("host/real"), SINGLE);
    leaves(installer);
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../../../real"));
    assert_eq!(node.read("host/real"), SINGLE);
    assert!(!node.path(NET_DIR).join("10-x.conflist").exists());
}

#[test]
fn a_conf_that_its_owner_writes_again_and_again_is_converted_each_time() {
    for name in ["10-x.conf", "10-x.json"] {
        let node = Node::with_conf(name, SINGLE);
        fs::set_permissions(node.path(NET_DIR).join(name), Permissions::from_mode(0o600)).unwrap();
        let installer = node.installed(&["--cleanup-on-exit=always"]);
        let list = node.path(NET_DIR).join("10-x.conflist");
        assert_eq!(list.metadata().unwrap().mode() & 0o7777, 0o600);
        for mtu in [1400, 1450] {
            let anew = SINGLE.replace("\"bridge\"", &format!("\"bridge\", \"mtu\": {mtu}"));
            node.write(&format!("{NET_DIR}/{name}"), &anew);
            installer.wait_until("its new version is in use", || {
                network(&node).is_some_and(|network| {
                    network.ends_with_us() && network.plugins[0]["mtu"] == mtu
                }) && !node.path(NET_DIR).join(name).exists()
            });
        }
        leaves(installer);
        assert_eq!(
            node.conf(name),
            SINGLE.replace("\"bridge\"", "\"bridge\", \"mtu\": 1450")
        );
        let names = fs::read_dir(node.path(NET_DIR)).unwrap().count();
        assert_eq!(names, 1, "{}", node.tree());
    }
}

#[test]
fn what_becomes_of_a_changed_list_is_in_the_log() {
    let node = Node::with_conf("10-x.conf", SINGLE);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let list = node.conf("10-x.conflist");
    let changed = list.replacen("\n  ]", ",\n    {\"type\": \"portmap\"}\n  ]", 1);
    node.write(&format!("{NET_DIR}/10-x.conflist"), &changed);
    installer.wait_until("our entry is the last", || is_chained(&node));
    let (code, log, _) = installer.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("10-x.conf.msm-cni-original stays"), "{log}");
    assert_eq!(network(&node).unwrap().plugins.len(), 2);
    assert_eq!(node.conf("10-x.conf.msm-cni-original"), SINGLE);
}

#[test]
fn a_template_is_a_flag_or_a_variable_or_a_file() {
    const TEMPLATE: &str = r#"{"type": "msm-cni", "from": "X", "on": "__KUBERNETES_NODE_NAME__"}"#;
    let of = |from: &str| TEMPLATE.replace('X', from);
    let flag = format!("--cni-network-config={}", of("flag"));
    for (args, variable, file, from) in [
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
        node.write("template", &of("file"));
        let (mut command, health) = node.command(args);
        if variable {
            command.env("CNI_NETWORK_CONFIG", of("variable"));
        }
        command.env("CNI_NETWORK_CONFIG_FILE", file);
        command.env("KUBERNETES_NODE_NAME", "node \"1\"\\");
        let installer = Installer::start(&node, command, health);
        installer.becomes_ready();
        let network = network(&node).unwrap();
        let entry = network.plugins.last().unwrap();
        assert_eq!(
            (&entry["from"], &entry["on"]),
            (&from.into(), &"node \"1\"\\".into())
        );
    }
}

#[test]
fn a_template_that_would_spoil_the_file_is_refused() {
    for (template, reason) in [
        // As YAML makes it of a version without quotes.
        (
            r#"{"type": "msm-cni", "cniVersion": 1.0}"#,
            "its cniVersion is of a kind",
        ),
        (
            r#"{"type": "msm-cni", "capabilities": ["x"]}"#,
            "its capabilities is of a kind",
        ),
        (
            r#"{"type": "msm-cni", "Type": "bridge"}"#,
            "of type \"bridge\"",
        ),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        let (mut command, _) = node.command(&[&format!("--cni-network-config={template}")]);
        run(&mut command).exited(2).complains_about(reason);
        assert_eq!(node.conf(CONF), CALICO);
    }
}

#[test]
fn a_token_in_the_template_is_renewed_in_the_entry() {
    let node = Node::with_conf(CONF, CALICO);
    let template =
        r#"--cni-network-config={"type": "msm-cni", "token": "__SERVICEACCOUNT_TOKEN__"}"#;
    let installer = node.installed(&[template, "--cleanup-on-exit=always"]);
    for token in ["first.token.x", "second.token.y"] {
        node.rotate_token(token);
        installer.wait_until("the token is in both", || {
            node.conf(CONF).contains(token) && node.read(KUBECONFIG).contains(token)
        });
        let metadata = node.path(NET_DIR).join(CONF).metadata().unwrap();
        assert_eq!(metadata.mode() & 0o7777, 0o600);
    }
    assert_eq!(installer.mended(), 0);
    leaves(installer);
    assert_eq!(node.conf(CONF), CALICO);
}

#[test]
fn what_is_half_written_when_we_leave_is_waited_for() {
    let node = Node::with_conf(CONF, CALICO);
    let installer = node.installed(&["--cleanup-on-exit=always"]);
    let with = node.conf(CONF);
    installer.at_once(|| {
        node.write(CONF_PATH, &with[..with.len() - 9]);
        installer.signal(Signal::SIGTERM);
    });
    node.write(CONF_PATH, &with);
    let (code, log, _) = installer.end(Signal::SIGCONT);
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(node.conf(CONF), CALICO);
    assert!(!node.path(KUBECONFIG).exists());
}

/// Whether our next version of the configuration is written, but not in its place yet.
fn is_being_written(node: &Node) -> bool {
    fs::read_dir(node.path(NET_DIR)).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name();
        name.as_bytes().starts_with(b".msm-cni-temporary-")
            && fs::read_to_string(entry.path()).is_ok_and(|text| text.ends_with("]\n}\n"))
    })
}

#[test]
fn what_its_owner_writes_while_we_do_is_not_lost() {
    if cannot_run(&["strace"]) {
        return;
    }
    // In microseconds, before each file is synced.
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
        installer.wait_until("it is about to replace it", || is_being_written(&node));
        let anew = content.replace(key, &format!("{key}, \"version\": 2"));
        fs::write(node.path("new"), &anew).unwrap();
        fs::rename(node.path("new"), node.path(NET_DIR).join(name)).unwrap();
        installer.wait_until("the new version is in use", || {
            network(&node)
                .is_some_and(|network| network.ends_with_us() && network.plugins[0]["version"] == 2)
        });
        installer.becomes_ready();
        leaves(installer);
        assert_eq!(node.conf(name), anew);
    }
}

#[test]
fn an_owner_that_is_quicker_than_we_are_is_not_overwritten() {
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
            // Somewhere in the middle of what we do about the one before.
            let looks = installer.log().len();
            let start = Instant::now();
            while installer.log().len() == looks && start.elapsed() < Duration::from_millis(9) {
                std::thread::yield_now();
            }
        }
        installer.wait_until("the last version is in use", || {
            network(&node).is_some_and(|network| {
                network.ends_with_us() && network.plugins[0]["version"] == VERSIONS
            })
        });
        installer.wait_until("nothing is left to do", || {
            name == CONF || !node.path(NET_DIR).join(name).exists()
        });
        leaves(installer);
        assert_eq!(node.conf(name), version(VERSIONS));
    }
}
