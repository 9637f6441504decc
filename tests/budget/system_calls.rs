//! System calls and processes, by strace. Their number is the same at every run, as root
//! and as an ordinary user, idle and under load; another kernel or libc may need others.

use std::fs;

use msm_testkit::scratch::Scratch;

use crate::cannot_measure;
use crate::cases::{Case, counted};
use crate::figures::{assert_kept, record, recorded, told};

/// What starts a process, a thread or another program.
const STARTS: [&str; 6] = ["clone", "clone3", "fork", "vfork", "execve", "execveat"];

#[test]
fn every_verb_is_one_process_with_no_more_system_calls_than_recorded() {
    if cannot_measure(&["ip", "strace"]) {
        return;
    }
    let found = counted(count);
    if record(|figures| figures.system_calls.clone_from(&found)) {
        return;
    }
    let recorded = recorded().system_calls;
    let exceeded: Vec<_> = found
        .iter()
        .filter(|(case, found)| *found > &recorded[*case])
        .map(|(case, found)| told(case, "system calls", *found, recorded[case]))
        .collect();
    assert_kept(&exceeded);
}

fn count(case: &Case, scratch: &Scratch) -> u64 {
    let log = scratch.path().join("strace");
    // -y: a descriptor's path.
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
        "{} is more than one process with one thread: {starts:#?}\n{log}",
        case.name
    );
    // glibc reads its map of memory in pieces: the longer the executable's path, the more.
    let of_map = |(name, rest): &&(&str, &str)| *name == "read" && rest.contains("/maps>");
    let counted = calls.iter().filter(|call| !of_map(call)).count();
    u64::try_from(counted).unwrap()
}
