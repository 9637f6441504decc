//! The installer under strace: which calls change the disk, and what happens when one of
//! them is the last that it makes, or does not succeed.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use msm_testkit::node::{Installer, Node};

/// Whatever could change a disk; a question mark: where the machine has it.
const CHANGES: &str = "?open,?openat,?openat2,?creat,write,?writev,?pwrite64,?truncate,?ftruncate,\
    ?fallocate,?copy_file_range,?sendfile,?splice,?chmod,?fchmod,?fchmodat,?fchmodat2,?chown,?fchown,\
    ?lchown,?fchownat,?fsync,?fdatasync,?syncfs,?rename,?renameat,?renameat2,?unlink,?unlinkat,?rmdir,\
    ?mkdir,?mkdirat,?link,?linkat,?symlink,?symlinkat,?mknod,?mknodat,?utimensat,?setxattr,?fsetxattr";

/// A system call, as strace shows it.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Which one of this name, from 1 on.
    pub number: usize,
    /// What stands behind the name.
    pub rest: String,
}

impl Call {
    /// Whether it does; or tries to, or makes a change last.
    pub fn changes_the_disk(&self) -> bool {
        match self.name.as_str() {
            "open" | "openat" | "openat2" => ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"]
                .iter()
                .any(|flag| self.rest.contains(flag)),
            // The log.
            "write" | "writev" => !self.rest.starts_with("(2"),
            _ => true,
        }
    }

    /// For `inject=`: from this call on, `times` of its name.
    pub fn expression(&self, what: &str, times: usize) -> String {
        let Self { name, number, .. } = self;
        format!("inject={name}:{what}:when={number}..{}", number + times - 1)
    }
}

/// Where strace writes: outside of what is compared.
fn log_path(node: &Node) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    node.path(&format!("strace.{number}"))
}

/// An installer, and the calls that it has made.
pub struct Traced<'a> {
    pub installer: Installer<'a>,
    log: PathBuf,
}

impl<'a> Traced<'a> {
    /// Starts it; `expressions` are strace's.
    pub fn start(node: &'a Node, args: &[&str], expressions: &[&str]) -> Self {
        let log = log_path(node);
        // -D: strace is a grandchild, so that the installer is the child.
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

    /// The same, where only calls that may change the disk count.
    pub fn start_with(node: &'a Node, args: &[&str], injection: Option<&str>) -> Self {
        let trace = format!("trace={CHANGES}");
        let expressions: Vec<&str> = [trace.as_str()].into_iter().chain(injection).collect();
        Self::start(node, args, &expressions)
    }

    /// What it has called so far.
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

    /// The calls of an installer that ends now; strace has written all of them.
    pub fn all_calls(mut self) -> Vec<Call> {
        // The log is complete when strace, which has our standard error, is gone too.
        self.installer.kill();
        self.calls()
    }
}
