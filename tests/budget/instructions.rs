//! Instructions in user space, by callgrind, which counts the same on an idle machine and on
//! a busy one. They depend on the code, and on the processor that valgrind plays: libc and
//! ring choose their fastest routines by it.

use std::fs;
use std::process::Command;

use msm_testkit::command::run;
use msm_testkit::scratch::Scratch;
use msm_testkit::{find_tool, skip};

use crate::cannot_measure;
use crate::cases::{Case, counted};
use crate::figures::{
    HOW_TO_RECORD, assert_kept, compiler, difference, record, recorded, recording, told,
};

/// In tenths of a per cent. From run to run 0.2 % of an ADD that asks the API server vary, with
/// keys, signatures and the seeds of hash maps; of the others, less than 0.1 %, and 0.6 % where
/// glibc reads a longer path of the executable's from its map of memory. User and load do not
/// matter. The rest is for another libc of the same kind.
const TOLERANCE: u64 = 30;

#[test]
fn every_verb_takes_as_many_instructions_as_recorded() {
    if cannot_measure(&["ip", "valgrind"]) {
        return;
    }
    let counted_with = counted_with();
    let expected = recorded();
    if !recording() && expected.instructions_counted_with != counted_with {
        return skip(&format!(
            "the recorded instructions cannot be compared: they were counted with {:?}, these \
             would be with {counted_with:?}. {HOW_TO_RECORD}",
            expected.instructions_counted_with
        ));
    }
    let found = counted(count);
    if record(|figures| {
        figures.instructions.clone_from(&found);
        figures.instructions_counted_with = counted_with;
    }) {
        return;
    }
    let differing: Vec<_> = found
        .iter()
        .map(|(case, &found)| (case, found, expected.instructions[case]))
        .filter(|&(_, found, recorded)| difference(found, recorded) > TOLERANCE)
        .map(|(case, found, recorded)| told(case, "instructions", found, recorded))
        .collect();
    assert_kept(&differing);
}

fn count(case: &Case, scratch: &Scratch) -> u64 {
    let file = scratch.path().join("callgrind");
    let option = format!("--callgrind-out-file={}", file.display());
    // No debugger's pipes in /tmp.
    case.run_under(&["valgrind", "-q", "--vgdb=no", "--tool=callgrind", &option]);
    let profile = fs::read_to_string(file).unwrap();
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .unwrap_or_else(|| panic!("callgrind tells no total:\n{profile}"));
    total.trim().parse().unwrap()
}

/// Whatever decides about the number of instructions beside the code.
fn counted_with() -> String {
    // On x86-64 valgrind plays one of two processors, whatever the real one has beside AVX2.
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap();
    let avx2 = processor.split_whitespace().any(|flag| flag == "avx2");
    let valgrind = run(Command::new(find_tool("valgrind").unwrap()).arg("--version"));
    format!(
        "rustc {}, {}, {}{}",
        compiler(),
        valgrind.succeeded().stdout.trim(),
        std::env::consts::ARCH,
        if avx2 { " with AVX2" } else { "" }
    )
}
