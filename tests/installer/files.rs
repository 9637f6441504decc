//! The installed files: existing files of the same name, files in use, owners, full and
//! read-only disks, durability.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use msm_testkit::executables::write_other_version;
use msm_testkit::installer::Installer;
use msm_testkit::node::{BIN_DIR, CALICO, CONF, KUBECONFIG, NET_DIR, Node};
use msm_testkit::{cannot_run, executable};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::directories::Mount;
use crate::kill::FRESH;
use crate::strace::Traced;
use crate::tree::Tree;

const EXECUTABLES: [&str; 3] = ["msm", "msm-cni", "msm-iptables"];

/// A node with another version of the executable.
fn with_other_version() -> Node {
    let node = Node::with_conf(CONF, CALICO);
    write_other_version(&node.path(BIN_DIR).join("msm"));
    node
}

fn install(node: &Node) {
    drop(node.installed(&[]));
}

#[test]
fn running_executable_is_replaced() {
    let node = with_other_version();
    let mut plugin = Command::new(node.path(BIN_DIR).join("msm"))
        .arg("msm-cni")
        .envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "x"),
            ("CNI_NETNS", "/x"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/x"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    install(&node);
    let installed = fs::read(node.path(BIN_DIR).join("msm")).unwrap();
    assert!(installed == fs::read(executable()).unwrap());
    // The old one still runs: it waits for its configuration.
    assert_eq!(plugin.try_wait().unwrap(), None);
    let mut stdin = plugin.stdin.take().unwrap();
    stdin.write_all(b"nonsense").unwrap();
    drop(stdin);
    let output = plugin.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains("\"code\""), "{answer}");
}

#[test]
fn executable_can_be_run_at_any_time_during_the_update() {
    // Executing a file that is open for writing fails with ETXTBSY.
    let node = with_other_version();
    let plugin = node.path(BIN_DIR).join("msm");
    let installer = node.start(&[]);
    installer.wait_until("ready", || {
        let output = Command::new(&plugin).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        installer.is_ready()
    });
}

#[test]
fn other_files_of_the_same_name_are_replaced() {
    type Obstacle = (&'static str, fn(&Path));
    let obstacles: [Obstacle; 5] = [
        ("a symlink to nothing", |path| {
            symlink("nowhere", path).unwrap();
        }),
        ("a symlink to itself", |path| {
            symlink(path.file_name().unwrap(), path).unwrap();
        }),
        ("a pipe", |path| mkfifo(path, Mode::S_IRWXU).unwrap()),
        ("an empty file", |path| fs::write(path, "").unwrap()),
        ("an empty directory", |path| fs::create_dir(path).unwrap()),
    ];
    let expected = {
        let node = Node::with_conf(CONF, CALICO);
        install(&node);
        Tree::of(&node)
    };
    for (what, put) in obstacles {
        let node = Node::with_conf(CONF, CALICO);
        for name in EXECUTABLES {
            put(&node.path(BIN_DIR).join(name));
        }
        put(&node.path(KUBECONFIG));
        install(&node);
        let tree = Tree::of(&node);
        assert!(tree == expected, "{what}: {tree:#?}");
    }
}

#[test]
fn symlinked_kubeconfig_is_replaced_by_a_file() {
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let elsewhere = node.path("elsewhere");
    fs::rename(node.path(KUBECONFIG), &elsewhere).unwrap();
    symlink(&elsewhere, node.path(KUBECONFIG)).unwrap();
    install(&node);
    assert!(node.path(KUBECONFIG).symlink_metadata().unwrap().is_file());
}

#[test]
fn existing_executables_are_kept_without_update_cni_binaries() {
    let node = Node::with_conf(CONF, CALICO);
    node.write(&format!("{BIN_DIR}/msm"), "another");
    node.write(&format!("{BIN_DIR}/msm-cni"), "another");
    drop(node.installed(&["--update-cni-binaries=false"]));
    assert_eq!(node.read(&format!("{BIN_DIR}/msm")), "another");
    assert_eq!(node.read(&format!("{BIN_DIR}/msm-cni")), "another");
    let link = fs::read_link(node.path(BIN_DIR).join("msm-iptables")).unwrap();
    assert_eq!(link, Path::new("msm"), "a missing one is installed");
}

#[test]
fn skipped_executables_are_not_installed() {
    for (skipped, expected) in [
        ("msm-iptables", vec!["msm", "msm-cni"]),
        ("msm-cni", vec!["msm", "msm-iptables"]),
        ("msm-cni, msm-iptables", vec![]),
    ] {
        let node = Node::with_conf(CONF, CALICO);
        drop(node.installed(&["--skip-cni-binaries", skipped]));
        let entries = fs::read_dir(node.path(BIN_DIR)).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, expected, "without {skipped}");
    }
}

#[test]
fn both_bin_directories_get_the_same_files() {
    let node = Node::with_conf(CONF, CALICO);
    fs::create_dir(node.path("host/secondary-bin-dir")).unwrap();
    install(&node);
    let [first, second] = [BIN_DIR, "host/secondary-bin-dir"].map(|it| Tree::below(&node.path(it)));
    assert_eq!(first, second);
    assert_eq!(first.0.len(), 1 + EXECUTABLES.len());
}

#[test]
fn full_disk_is_reported_and_not_filled_further() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // Also shows that no file is renamed across file systems.
    let size = fs::metadata(executable()).unwrap().len();
    let mount = Mount::tmpfs(&node.path(BIN_DIR), size / 2);
    let installer = node.start(&[]);
    installer.becomes_unready("host/opt/cni/bin/msm: No space left on device");
    assert_untouched(&installer);
    mount.resize(size * 3);
    installer.signal(Signal::SIGHUP);
    installer.becomes_ready();
}

#[test]
fn read_only_disk_is_reported() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    for directory in [BIN_DIR, NET_DIR] {
        let node = Node::with_conf(CONF, CALICO);
        let mount = Mount::read_only(&node.path(directory));
        let installer = node.start(&[]);
        let reason = format!(
            "creating a temporary file for {}/{directory}/",
            node.root().display()
        );
        installer.becomes_unready(&reason);
        installer.becomes_unready("Read-only file system");
        assert_untouched(&installer);
        drop(mount);
        installer.signal(Signal::SIGHUP);
        installer.becomes_ready();
    }
}

/// No entry without a working plugin, and no temporary files.
fn assert_untouched(installer: &Installer) {
    let node = installer.node;
    assert_eq!(node.conf(CONF), CALICO);
    let tree = Tree::of(node);
    assert!(tree.temporaries().is_empty(), "{tree:#?}");
}

#[test]
fn read_only_disk_is_accepted_if_nothing_must_be_written() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let _mounts = [BIN_DIR, NET_DIR].map(|it| Mount::read_only(&node.path(it)));
    install(&node);
}

#[test]
fn token_is_renewed_while_the_executable_cannot_be_updated() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = with_other_version();
    let _mount = Mount::read_only(&node.path(BIN_DIR));
    let installer = node.start(&[]);
    installer.becomes_unready("Read-only file system");
    for token in ["first.token.x", "second.token.y"] {
        node.rotate_token(token);
        installer.wait_until(token, || {
            fs::read_to_string(node.path(KUBECONFIG)).is_ok_and(|text| text.contains(token))
        });
    }
    installer.becomes_unready("Read-only file system");
    assert_untouched(&installer);
}

#[test]
fn owner_is_set_only_where_it_differs() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    let traced = Traced::start_with(&node, &[], None);
    traced.installer.becomes_ready();
    let calls = traced.all_calls();
    assert!(
        calls.iter().all(|call| !call.name.contains("chown")),
        "{calls:#?}"
    );

    let node = FRESH.node();
    let path = node.path(NET_DIR).join(CONF);
    chown(&path, Some(56), Some(78)).unwrap();
    install(&node);
    let metadata = path.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (56, 78));
}

#[test]
fn orphaned_temporary_files_are_removed_and_nothing_else() {
    let node = Node::with_conf(CONF, CALICO);
    let left = |name: &str| format!("{NET_DIR}/.msm-cni-temporary-{name}");
    node.write(&left("file"), "half of a token");
    symlink("msm", node.path(BIN_DIR).join(".msm-cni-temporary-link")).unwrap();
    // msm-cni creates no directories of that name.
    fs::create_dir(node.path(&left("directory"))).unwrap();
    // Another installer is still writing it.
    node.write(&left("used"), "");
    let used = fs::File::open(node.path(&left("used"))).unwrap();
    used.lock().unwrap();

    let installer = node.installed(&[]);
    let tree = Tree::of(&node);
    assert_eq!(
        tree.temporaries(),
        ["directory", "used"].map(|name| {
            let path = left(name);
            Path::new(&path).strip_prefix("host").unwrap().to_owned()
        })
    );
    drop(used);
    installer.signal(Signal::SIGHUP);
    installer.wait_until("it is removed too", || !node.path(&left("used")).exists());
}

/// Changes the network configuration after the installer has read it and before it replaces it:
/// strace has stopped the installer at the fchmod of the new file. Returns the change.
fn change_before_write(traced: &Traced) -> String {
    let installer = &traced.installer;
    let node = installer.node;
    installer.wait_until("stopped", || traced.is_stopped());
    let tree = Tree::below(&node.path(NET_DIR));
    assert!(!tree.temporaries().is_empty(), "{tree:#?}");
    let changed = CALICO.replace("1440", "1500");
    node.write("new", &changed);
    fs::rename(node.path("new"), node.path(NET_DIR).join(CONF)).unwrap();
    installer.signal(Signal::SIGCONT);
    changed
}

#[test]
fn change_just_before_the_install_is_not_overwritten() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // After the executable and the kubeconfig.
    let stop = "inject=fchmod:signal=SIGSTOP:when=3";
    let traced = Traced::start_with(&node, &[], Some(stop));
    let installer = &traced.installer;
    change_before_write(&traced);
    installer.becomes_ready();
    let conf = node.conf(CONF);
    assert!(conf.contains("1500") && conf.contains("msm-cni"), "{conf}");
    assert_eq!(installer.logged("not ready"), 0, "{}", installer.log());
}

#[test]
fn change_just_before_the_uninstall_is_not_overwritten() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let stop = "inject=fchmod:signal=SIGSTOP:when=1";
    let mut traced = Traced::start_with(&node, &["--cleanup-on-exit=always"], Some(stop));
    traced.installer.becomes_ready();
    traced.installer.signal(Signal::SIGTERM);
    let changed = change_before_write(&traced);
    let installer = &mut traced.installer;
    assert_eq!(installer.wait(), Some(0), "{}", installer.log());
    assert_eq!(node.conf(CONF), changed);
    assert!(!node.path(KUBECONFIG).exists());
}

#[test]
fn each_file_is_synced_before_another_one_depends_on_it() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = FRESH.node();
    let traced = Traced::start_with(&node, FRESH.args, None);
    traced.installer.becomes_ready();
    let calls = traced.all_calls();
    let mut log = DurabilityLog::default();
    for call in &calls {
        log.record(&call.name, &call.rest);
    }
    assert_eq!(log.unsynced, Vec::<String>::new(), "{calls:#?}");
    assert_eq!(log.configurations, 1, "{calls:#?}");
    // Three files, the directory of the executables, and the other one twice.
    assert_eq!(log.syncs, 6, "{calls:#?}");
}

/// What a power loss would undo.
#[derive(Default)]
struct DurabilityLog {
    /// Files and directories.
    unsynced: Vec<String>,
    configurations: usize,
    syncs: usize,
}

impl DurabilityLog {
    fn record(&mut self, name: &str, rest: &str) {
        let quoted: Vec<&str> = rest.split('"').skip(1).step_by(2).collect();
        // strace -y shows the path of a descriptor in angle brackets.
        let files = rest.split(['<', '>']).skip(1).step_by(2);
        let mut files = files.filter(|path| path.contains("/host/"));
        match name {
            "write" | "sendfile" | "copy_file_range" | "fchmod" | "fchown" => {
                self.unsynced.extend(files.map(str::to_owned));
            }
            "fsync" => {
                self.syncs += 1;
                let file = files.next().unwrap();
                self.unsynced.retain(|path| path != file);
            }
            "rename" => {
                let (from, to) = (quoted[0], quoted[1]);
                assert!(!self.unsynced.iter().any(|path| path == from), "{rest}");
                if to.ends_with(".conflist") {
                    assert_eq!(self.unsynced, Vec::<String>::new(), "{rest}");
                    self.configurations += 1;
                }
                let directory = Path::new(to).parent().unwrap();
                self.unsynced.push(directory.to_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
}
