//! Instructions in user space, counted by callgrind. The count does not depend on the machine's
//! load, but on the processor that valgrind emulates: libc and ring choose routines by it.

use std::fs;
use std::process::Command;

use msm_testkit::command::run;
use msm_testkit::scratch::Scratch;
use msm_testkit::{find_tool, skip};

use crate::cannot_measure;
use crate::cases::{Case, counts};
use crate::figures::{
    HOW_TO_RECORD, assert_none, compiler, describe, difference, record, recorded, recording,
};

/// In tenths of a per cent. Between runs, an ADD with a pod lookup varies by 0.2 % (keys,
/// signatures, seeds of hash maps) and other cases by less than 0.1 %, or by 0.6 % if glibc
/// reads a longer path of the executable from /proc/self/maps. The rest allows for another
/// version of the libc.
const TOLERANCE: u64 = 30;

#[test]
fn instructions_are_as_recorded() {
    if cannot_measure(&["ip", "valgrind"]) {
        return;
    }
    let counted_with = counted_with();
    let expected = recorded();
    if !recording() && expected.instructions_counted_with != counted_with {
        return skip(&format!(
            "the instructions were recorded with {:?}, which cannot be compared with \
             {counted_with:?}. {HOW_TO_RECORD}",
            expected.instructions_counted_with
        ));
    }
    let found = counts(count);
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
        .map(|(case, found, recorded)| describe(case, "instructions", found, recorded))
        .collect();
    assert_none(&differing);
}

fn count(case: &Case, scratch: &Scratch) -> u64 {
    let file = scratch.path().join("callgrind");
    let option = format!("--callgrind-out-file={}", file.display());
    // Without vgdb, valgrind creates no pipes in /tmp.
    case.run_under(&["valgrind", "-q", "--vgdb=no", "--tool=callgrind", &option]);
    let profile = fs::read_to_string(file).unwrap();
    let total = profile
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .unwrap_or_else(|| panic!("callgrind printed no total:\n{profile}"));
    total.trim().parse().unwrap()
}

/// Everything but the code that the number of instructions depends on.
fn counted_with() -> String {
    // On x86-64, valgrind emulates one of two processors, with or without AVX2.
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
