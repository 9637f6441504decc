//! Shared by the black-box tests: running the executable, checking what the machine supports,
//! network namespaces and traffic in them. Independent of the program's implementation.

#![expect(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::new_without_default,
    clippy::panic,
    clippy::return_self_not_must_use,
    clippy::unwrap_used,
    reason = "only tests call it, and a test fails by panicking"
)]

pub mod api_server;
pub mod backend;
pub mod certificates;
pub mod cluster;
pub mod command;
pub mod endpoints;
pub mod executables;
pub mod installer;
pub mod kubeconfig;
pub mod libc;
pub mod netns;
pub mod node;
pub mod pod;
pub mod pod_json;
pub mod runtime;
pub mod scratch;
pub mod traffic;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories of the tools that tests run. An ordinary user's PATH lacks the first two.
pub const TOOL_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The executable under test: `MSM_EXECUTABLE`, or the debug build, which cargo puts in the
/// parent of the directory of tests and examples.
pub fn executable() -> PathBuf {
    if let Some(path) = std::env::var_os("MSM_EXECUTABLE") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of the running test");
    let directory = test.parent().and_then(Path::parent);
    let executable = directory.map(|directory| directory.join("msm"));
    executable
        .filter(|path| path.exists())
        .expect("MSM_EXECUTABLE names the executable, or cargo built it beside the tests")
}

/// Runs the executable under test as the applet `name`, in an empty environment.
pub fn applet(name: &str) -> Command {
    let mut command = Command::new(executable());
    command.arg0(name).env_clear();
    command
}

/// Like `applet`, run by the program and arguments of `wrapper`.
pub fn applet_under(wrapper: &[&str], name: &str) -> Command {
    let tool = find_tool(wrapper[0]).unwrap_or_else(|| panic!("{} is not installed", wrapper[0]));
    let mut command = Command::new(tool);
    command.args(&wrapper[1..]).arg(executable()).arg(name);
    command.env_clear();
    command
}

/// Wrapper: empties the directories of the host's network tools.
pub const WITHOUT_TOOLS: [&str; 7] = [
    "unshare",
    "--mount",
    "--",
    "/bin/sh",
    "-c",
    "for directory in /usr/sbin /sbin /usr/local/sbin; do
        test ! -d $directory || /bin/mount -t tmpfs none $directory || exit 99
    done
    test ! -e /usr/sbin/nft -a ! -e /sbin/iptables || exit 98
    exec \"$@\"",
    "sh",
];

/// Wrapper: the kernel does not support netfilter netlink sockets. Child processes are not
/// affected: legacy iptables opens other sockets, which such a kernel supports.
pub const WITHOUT_NF_TABLES: [&str; 5] = [
    "strace",
    "-e",
    "trace=socket",
    "-e",
    "inject=socket:error=EPROTONOSUPPORT",
];

/// Whether the calling test must be skipped: this machine does not permit network namespaces
/// or lacks one of `tools`.
pub fn cannot_run(tools: &[&str]) -> bool {
    let missing = tools.iter().find(|tool| find_tool(tool).is_none());
    let reason = match (netns::refusal(), missing) {
        (Some(refusal), _) => refusal,
        (None, Some(tool)) => format!("{tool} is not installed"),
        (None, None) => return false,
    };
    skip(&reason);
    true
}

/// Reports that the calling test, or a part of it, is skipped. If `CI` is set, fails the test
/// instead: a skipped test is a broken build there.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} cannot run: {reason}"
    );
    // Not eprintln!: the harness hides its output if the test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// The absolute path of an installed tool.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    TOOL_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}
