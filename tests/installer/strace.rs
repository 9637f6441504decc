//! Runs the installer under strace: lists the system calls that change the disk, and injects
//! errors, signals and delays.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use msm_testkit::installer::Installer;
use msm_testkit::node::Node;

/// Calls that may change the disk. A question mark: only if the architecture has the call.
const CHANGES: &str = "?open,?openat,?openat2,?creat,write,?writev,?pwrite64,?truncate,?ftruncate,\
    ?fallocate,?copy_file_range,?sendfile,?splice,?chmod,?fchmod,?fchmodat,?fchmodat2,?chown,?fchown,\
    ?lchown,?fchownat,?fsync,?fdatasync,?syncfs,?rename,?renameat,?renameat2,?unlink,?unlinkat,?rmdir,\
    ?mkdir,?mkdirat,?link,?linkat,?symlink,?symlinkat,?mknod,?mknodat,?utimensat,?setxattr,?fsetxattr";

/// A system call, as strace shows it.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Among the calls of this name, from 1.
    pub number: usize,
    /// Arguments and result.
    pub rest: String,
}

impl Call {
    /// Whether the call changes the disk, tries to, or makes a change durable.
    pub fn changes_the_disk(&self) -> bool {
        match self.name.as_str() {
            "open" | "openat" | "openat2" => ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                .iter()
                .any(|flag| self.rest.contains(flag)),
            // Standard error: the log.
            "write" | "writev" => !self.rest.starts_with("(2"),
            _ => true,
        }
    }

    /// An expression that injects `what` into this call and the following ones of its name,
    /// `times` in all.
    pub fn expression(&self, what: &str, times: usize) -> String {
        let Self { name, number, .. } = self;
        format!("inject={name}:{what}:when={number}..{}", number + times - 1)
    }
}

/// strace's output, outside of the compared directories.
fn log_path(node: &Node) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    node.path(&format!("strace.{number}"))
}

/// A traced installer.
pub struct Traced<'a> {
    pub installer: Installer<'a>,
    log: PathBuf,
}

impl<'a> Traced<'a> {
    /// `expressions`: arguments of strace's `-e`.
    pub fn start(node: &'a Node, args: &[&str], expressions: &[&str]) -> Self {
        let log = log_path(node);
        // -D: strace is a grandchild, and the installer is the child.
        let mut tool = vec!["strace", "-D", "-f", "-y", "-qq", "-s", "0", "-o"];
        tool.push(log.to_str().unwrap());
        for expression in expressions {
            tool.extend(["-e", expression]);
        }
        let (command, health) = node.command_by(&tool, args);
        Self {
            installer: Installer::start(node, command, health),
            log,
        }
    }

    /// Traces only calls that may change the disk.
    pub fn start_with(node: &'a Node, args: &[&str], injection: Option<&str>) -> Self {
        let trace = format!("trace={CHANGES}");
        let expressions: Vec<&str> = [trace.as_str()].into_iter().chain(injection).collect();
        Self::start(node, args, &expressions)
    }

    /// Whether an injected SIGSTOP has stopped the installer. In /proc this looks like the stops
    /// that strace itself causes.
    pub fn is_stopped(&self) -> bool {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.contains("stopped by SIGSTOP")
    }

    /// The calls so far.
    pub fn calls(&self) -> Vec<Call> {
        let mut calls: Vec<Call> = Vec::new();
        for line in fs::read_to_string(&self.log).unwrap_or_default().lines() {
            let text = line.trim_start_matches(|it: char| it.is_ascii_digit() || it == ' ');
            let Some((name, _)) = text.split_once('(') else {
                continue;
            };
            if !name
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || it == '_')
            {
                continue;
            }
            let number = calls.iter().filter(|call| call.name == name).count() + 1;
            calls.push(Call {
                name: name.to_owned(),
                number,
                rest: text[name.len()..].to_owned(),
            });
        }
        calls
    }

    /// Kills the installer and returns all calls.
    pub fn all_calls(mut self) -> Vec<Call> {
        // Waits for the end of standard error, which strace has open too: its log is complete.
        self.installer.kill();
        self.calls()
    }
}
