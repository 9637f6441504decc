//! Reads and records figures.json. The libc of the executable under test selects its figures.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use msm_testkit::executable;
use msm_testkit::libc::Libc;
use serde::{Deserialize, Serialize};

/// Printed by failing tests.
pub const HOW_TO_RECORD: &str = "Record the figures by `MSM_RECORD_BUDGET=1 \
    MSM_EXECUTABLE=$PWD/dist/msm cargo test --test budget`, and give the reason in the commit.";

/// Counts by the name of the case.
pub type Counts = BTreeMap<String, u64>;

/// The figures of one libc, which adds code and system calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// In bytes. Set by hand.
    pub size_limit: u64,
    /// From execve to exit, inclusive.
    pub system_calls: Counts,
    /// By callgrind.
    pub instructions: Counts,
    /// The compiler, valgrind and processor; other ones count differently.
    pub instructions_counted_with: String,
}

/// The figures of each libc.
type AllFigures = BTreeMap<String, Figures>;

/// The recorded figures of the executable under test.
pub fn recorded() -> Figures {
    let mut all: AllFigures = serde_json::from_str(include_str!("figures.json")).unwrap();
    all.remove(&libc()).unwrap()
}

/// Whether this run records the figures.
pub fn recording() -> bool {
    std::env::var_os("MSM_RECORD_BUDGET").is_some()
}

/// Applies `change` to the file if this run records the figures. Returns whether it does.
pub fn record(change: impl FnOnce(&mut Figures)) -> bool {
    static FILE: Mutex<()> = Mutex::new(());
    if !recording() {
        return false;
    }
    let _lock = FILE.lock().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/budget/figures.json");
    let mut all: AllFigures = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(all.get_mut(&libc()).unwrap());
    fs::write(path, serde_json::to_string_pretty(&all).unwrap() + "\n").unwrap();
    true
}

/// Describes a count that differs from the recorded one.
pub fn describe(case: &str, unit: &str, found: u64, recorded: u64) -> String {
    let tenths = difference(found, recorded);
    let advice = if found > recorded {
        "more; reduce it, or record it if it is justified"
    } else {
        "fewer; record it"
    };
    format!(
        "{case}: {found} {unit}, {recorded} recorded: {}.{} % {advice}",
        tenths / 10,
        tenths % 10,
    )
}

/// Fails the test if any count differs.
pub fn assert_none(differences: &[String]) {
    assert!(
        differences.is_empty(),
        "{}\n{HOW_TO_RECORD}",
        differences.join("\n")
    );
}

/// The difference in tenths of a per cent of the recorded count.
pub fn difference(found: u64, recorded: u64) -> u64 {
    found.abs_diff(recorded) * 1000 / recorded
}

/// The executable's size in bytes.
pub fn size() -> u64 {
    fs::metadata(executable()).unwrap().len()
}

/// The libc of the executable.
pub fn libc() -> String {
    Libc::of(&executable()).unwrap().to_string()
}

/// The rustc that built the executable, from its section .comment.
pub fn compiler() -> String {
    let label = b"rustc version ";
    let bytes = fs::read(executable()).unwrap();
    let start = bytes.windows(label.len()).position(|it| it == label);
    let start = start.expect("the section .comment names rustc") + label.len();
    let text = bytes[start..]
        .split(|byte| matches!(byte, 0 | b'\n'))
        .next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
