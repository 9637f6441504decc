//! System calls and processes, counted by strace. The count is the same in every run, for root
//! and other users, and under load; it may differ with another kernel or libc.

use std::fs;

use msm_testkit::scratch::Scratch;

use crate::cannot_measure;
use crate::cases::{Case, counts};
use crate::figures::{assert_none, describe, record, recorded};

/// System calls that start a process, a thread or a program.
const STARTS: [&str; 6] = ["clone", "clone3", "fork", "vfork", "execve", "execveat"];

#[test]
fn each_verb_is_one_process_and_within_its_system_calls() {
    if cannot_measure(&["ip", "strace"]) {
        return;
    }
    let found = counts(count);
    if record(|figures| figures.system_calls.clone_from(&found)) {
        return;
    }
    let recorded = recorded().system_calls;
    let exceeded: Vec<_> = found
        .iter()
        .filter(|(case, found)| *found > &recorded[*case])
        .map(|(case, found)| describe(case, "system calls", *found, recorded[case]))
        .collect();
    assert_none(&exceeded);
}

fn count(case: &Case, scratch: &Scratch) -> u64 {
    let log = scratch.path().join("strace");
    // -y prints the path of a descriptor.
    case.run_under(&["strace", "-f", "-y", "-qq", "-o", log.to_str().unwrap()]);
    let log = fs::read_to_string(log).unwrap();
    let calls: Vec<(&str, &str)> = log
        .lines()
        .filter_map(|line| line.split_once(' ').unwrap().1.trim_start().split_once('('))
        .collect();
    let starts: Vec<_> = calls
        .iter()
        .filter(|(name, _)| STARTS.contains(name))
        .collect();
    assert!(
        starts.len() == 1 && starts[0].0 == "execve",
        "{}: more than one process or thread: {starts:#?}\n{log}",
        case.name
    );
    // glibc reads /proc/self/maps in pieces; their number depends on the executable's path.
    let of_map = |(name, rest): &&(&str, &str)| *name == "read" && rest.contains("/maps>");
    let counted = calls.iter().filter(|call| !of_map(call)).count();
    u64::try_from(counted).unwrap()
}
