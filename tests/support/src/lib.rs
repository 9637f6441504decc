//! What the black-box tests share: how the real executable is run, what the machine must
//! offer, network namespaces and traffic in them. Knows nothing of how the program works.

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
pub mod cluster;
pub mod command;
pub mod endpoints;
pub mod libc;
pub mod netns;
pub mod node;
pub mod pod;
pub mod runtime;
pub mod scratch;
pub mod traffic;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the tools that tests call are looked for; an ordinary user's PATH lacks the first.
pub const TOOL_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// The executable under test: `MSM_EXECUTABLE` (what ships) or the one that cargo built, which
/// is in the directory above the one of the tests and examples.
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

/// The executable under test as `applet`, with nothing of the tests' environment.
pub fn applet(name: &str) -> Command {
    let mut command = Command::new(executable());
    command.arg0(name).env_clear();
    command
}

/// The same, run by the program and arguments of `wrapper`.
pub fn applet_under(wrapper: &[&str], name: &str) -> Command {
    let tool = find_tool(wrapper[0]).unwrap_or_else(|| panic!("{} is not installed", wrapper[0]));
    let mut command = Command::new(tool);
    command.args(&wrapper[1..]).arg(executable()).arg(name);
    command.env_clear();
    command
}

/// Wrapper: the directories that hold the host's network tools are empty.
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

/// Wrapper: the kernel knows no netfilter netlink sockets. Programs that are started from
/// there are spared: legacy iptables opens other sockets, which would work there.
pub const WITHOUT_NF_TABLES: [&str; 5] = [
    "strace",
    "-e",
    "trace=socket",
    "-e",
    "inject=socket:error=EPROTONOSUPPORT",
];

/// Whether the calling test has to be skipped, because this machine does not let it make
/// network namespaces or lacks one of `tools`.
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

/// Says that the calling test, or a part of it, is skipped, past the harness's capture;
/// fails instead where `CI` is set: there, a skipped test is a broken build.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} cannot run: {reason}"
    );
    // Not eprintln!: the harness swallows what a passing test prints with it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// The absolute path of an installed tool.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    TOOL_DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}
