//! The files themselves: what is already there in their place, who runs or owns it, and what
//! the disk is like.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use msm_testkit::node::{BIN_DIR, CALICO, CONF, Installer, KUBECONFIG, NET_DIR, Node};
use msm_testkit::{cannot_run, executable};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::directories::Mount;
use crate::kill::FRESH;
use crate::strace::Traced;
use crate::tree::Tree;

const EXECUTABLES: [&str; 3] = ["msm", "msm-cni", "msm-iptables"];

/// A node on which another version of our executable lies.
fn with_other_version() -> Node {
    let node = Node::with_conf(CONF, CALICO);
    let path = node.path(BIN_DIR).join("msm");
    let mut bytes = fs::read(executable()).unwrap();
    bytes.push(b'\n');
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    node
}

fn install(node: &Node) {
    drop(node.installed(&[]));
}

#[test]
fn an_executable_is_replaced_while_it_runs() {
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
    // It has waited for its configuration.
    assert_eq!(plugin.try_wait().unwrap(), None);
    let mut stdin = plugin.stdin.take().unwrap();
    stdin.write_all(b"nonsense").unwrap();
    drop(stdin);
    let output = plugin.wait_with_output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    assert!(answer.contains("\"code\""), "{answer}");
}

#[test]
fn an_installed_executable_can_be_run_at_any_moment() {
    // Whoever runs a file that is open for writing gets ETXTBSY.
    let node = with_other_version();
    let plugin = node.path(BIN_DIR).join("msm");
    let installer = node.start(&[]);
    installer.wait_until("ready, and it always ran", || {
        let output = Command::new(&plugin).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        installer.is_ready()
    });
}

#[test]
fn whatever_has_our_files_names_is_replaced() {
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
fn a_kubeconfig_is_no_symlink_however_right_it_looks_from_here() {
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let elsewhere = node.path("elsewhere");
    fs::rename(node.path(KUBECONFIG), &elsewhere).unwrap();
    symlink(&elsewhere, node.path(KUBECONFIG)).unwrap();
    install(&node);
    assert!(node.path(KUBECONFIG).symlink_metadata().unwrap().is_file());
}

#[test]
fn executables_that_are_there_may_stay() {
    let node = Node::with_conf(CONF, CALICO);
    node.write(&format!("{BIN_DIR}/msm"), "another");
    node.write(&format!("{BIN_DIR}/msm-cni"), "another");
    drop(node.installed(&["--update-cni-binaries=false"]));
    assert_eq!(node.read(&format!("{BIN_DIR}/msm")), "another");
    assert_eq!(node.read(&format!("{BIN_DIR}/msm-cni")), "another");
    let link = fs::read_link(node.path(BIN_DIR).join("msm-iptables")).unwrap();
    assert_eq!(link, Path::new("msm"), "it was missing");
}

#[test]
fn executables_that_are_skipped_are_not_touched() {
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
fn both_directories_for_executables_get_the_same() {
    let node = Node::with_conf(CONF, CALICO);
    fs::create_dir(node.path("host/secondary-bin-dir")).unwrap();
    install(&node);
    let [first, second] = [BIN_DIR, "host/secondary-bin-dir"].map(|it| Tree::below(&node.path(it)));
    assert_eq!(first, second);
    assert_eq!(first.0.len(), 1 + EXECUTABLES.len());
}

#[test]
fn a_full_disk_is_told_and_filled_up_no_more() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // Another file system besides: nothing is renamed across.
    let size = fs::metadata(executable()).unwrap().len();
    let mount = Mount::tmpfs(&node.path(BIN_DIR), size / 2);
    let installer = node.start(&[]);
    installer.becomes_unready("host/opt/cni/bin/msm: No space left on device");
    is_left_alone(&installer);
    mount.resize(size * 3);
    installer.signal(Signal::SIGHUP);
    installer.becomes_ready();
}

#[test]
fn a_disk_that_cannot_be_written_is_told() {
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
        is_left_alone(&installer);
        drop(mount);
        installer.signal(Signal::SIGHUP);
        installer.becomes_ready();
    }
}

/// Without everything in place, no entry; and no temporaries.
fn is_left_alone(installer: &Installer) {
    let node = installer.node;
    assert_eq!(node.conf(CONF), CALICO);
    let tree = Tree::of(node);
    assert!(tree.temporaries().is_empty(), "{tree:#?}");
}

#[test]
fn a_disk_that_cannot_be_written_and_need_not_is_fine() {
    if cannot_run(&["mount", "umount"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let _mounts = [BIN_DIR, NET_DIR].map(|it| Mount::read_only(&node.path(it)));
    install(&node);
}

#[test]
fn a_token_is_renewed_though_the_executable_cannot_be() {
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
    is_left_alone(&installer);
}

#[test]
fn a_file_that_is_ours_takes_no_privilege_to_keep_its_owner() {
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
fn what_an_interrupted_run_has_left_goes_and_nothing_else() {
    let node = Node::with_conf(CONF, CALICO);
    let left = |name: &str| format!("{NET_DIR}/.msm-cni-temporary-{name}");
    node.write(&left("file"), "half of a token");
    symlink("msm", node.path(BIN_DIR).join(".msm-cni-temporary-link")).unwrap();
    // Nothing of ours, whatever its name.
    fs::create_dir(node.path(&left("directory"))).unwrap();
    // Somebody is still writing it.
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
    installer.wait_until("it goes too", || !node.path(&left("used")).exists());
    drop(installer);
}

#[test]
fn a_change_in_the_last_moment_is_not_overwritten() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    // The third file that is synced is the configuration with our entry in it.
    let pause = "inject=fchmod:delay_enter=300000:when=3";
    let traced = Traced::start_with(&node, &[], Some(pause));
    let installer = &traced.installer;
    installer.wait_until("it is being written", || {
        let tree = Tree::below(&node.path(NET_DIR));
        node.path(KUBECONFIG).exists() && !tree.temporaries().is_empty()
    });
    let changed = CALICO.replace("1440", "1500");
    node.write("new", &changed);
    fs::rename(node.path("new"), node.path(NET_DIR).join(CONF)).unwrap();
    installer.becomes_ready();
    let conf = node.conf(CONF);
    assert!(conf.contains("1500") && conf.contains("msm-cni"), "{conf}");
    assert_eq!(installer.logged("not ready"), 0, "{}", installer.log());
}

#[test]
fn a_change_in_the_last_moment_before_it_leaves_is_not_overwritten() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = Node::with_conf(CONF, CALICO);
    install(&node);
    let pause = "inject=fchmod:delay_enter=300000:when=1";
    let leaving = ["--cleanup-on-exit=always"];
    let mut traced = Traced::start_with(&node, &leaving, Some(pause));
    let installer = &mut traced.installer;
    installer.becomes_ready();
    installer.signal(Signal::SIGTERM);
    installer.wait_until("it is being written", || {
        !Tree::below(&node.path(NET_DIR)).temporaries().is_empty()
    });
    let changed = CALICO.replace("1440", "1500");
    node.write("new", &changed);
    fs::rename(node.path("new"), node.path(NET_DIR).join(CONF)).unwrap();
    assert_eq!(installer.wait(), Some(0), "{}", installer.log());
    assert_eq!(node.conf(CONF), changed);
    assert!(!node.path(KUBECONFIG).exists());
}

#[test]
fn what_counts_on_something_is_written_when_that_has_reached_the_disk() {
    if cannot_run(&["strace"]) {
        return;
    }
    let node = FRESH.node();
    let traced = Traced::start_with(&node, FRESH.args, None);
    traced.installer.becomes_ready();
    let calls = traced.all_calls();
    let mut log = DurabilityLog::default();
    for call in &calls {
        log.note(&call.name, &call.rest);
    }
    assert_eq!(log.unsynced, Vec::<String>::new(), "{calls:#?}");
    assert_eq!(log.configurations, 1, "{calls:#?}");
    // Three files, and their directories: the executables', and the other one twice.
    assert_eq!(log.syncs, 6, "{calls:#?}");
}

/// What would be lost in a power cut.
#[derive(Default)]
struct DurabilityLog {
    /// Files and directories.
    unsynced: Vec<String>,
    configurations: usize,
    syncs: usize,
}

impl DurabilityLog {
    fn note(&mut self, name: &str, rest: &str) {
        let quoted: Vec<&str> = rest.split('"').skip(1).step_by(2).collect();
        // As -y shows descriptors.
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
