//! The figures: read from figures.json, and written there when they are recorded anew.
//! Which of them are for the executable under test, the executable itself tells.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;

use msm_testkit::executable;
use msm_testkit::libc::Libc;
use serde::{Deserialize, Serialize};

/// What a failing test says last.
pub const HOW_TO_RECORD: &str = "Figures are recorded by `MSM_RECORD_BUDGET=1 \
    MSM_EXECUTABLE=$PWD/dist/msm cargo test --test budget`, with the reason in the commit.";

/// A number for each case, by its name.
pub type Counts = BTreeMap<String, u64>;

/// Those of one libc: each brings code of its own and starts in its own way.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// In bytes; set by hand.
    pub size_limit: u64,
    /// From execve to exit, both included.
    pub system_calls: Counts,
    /// By callgrind.
    pub instructions: Counts,
    /// What those were counted with; they cannot be compared with another one's.
    pub instructions_counted_with: String,
}

/// Of every libc.
type Book = BTreeMap<String, Figures>;

/// What the executable under test has to keep to.
pub fn recorded() -> Figures {
    let mut book: Book = serde_json::from_str(include_str!("figures.json")).unwrap();
    book.remove(&libc()).unwrap()
}

/// Whether figures are recorded anew.
pub fn recording() -> bool {
    std::env::var_os("MSM_RECORD_BUDGET").is_some()
}

/// When figures are recorded anew, lets `change` do so; whether it did.
pub fn record(change: impl FnOnce(&mut Figures)) -> bool {
    static FILE: Mutex<()> = Mutex::new(());
    if !recording() {
        return false;
    }
    let _lock = FILE.lock().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/budget/figures.json");
    let mut book: Book = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(book.get_mut(&libc()).unwrap());
    fs::write(path, serde_json::to_string_pretty(&book).unwrap() + "\n").unwrap();
    true
}

/// A count that is not as recorded, and what to do about it.
pub fn told(case: &str, unit: &str, found: u64, recorded: u64) -> String {
    let tenths = difference(found, recorded);
    let advice = if found > recorded {
        "more; make it cheaper again or, if it has to be, record it"
    } else {
        "fewer; record it, so that it stays"
    };
    format!(
        "{case}: {found} {unit}, recorded are {recorded}: {}.{} % {advice}",
        tenths / 10,
        tenths % 10,
    )
}

/// Fails the test if there is anything to be told.
pub fn assert_kept(told: &[String]) {
    assert!(told.is_empty(), "{}\n{HOW_TO_RECORD}", told.join("\n"));
}

/// In tenths of a per cent of the recorded one.
pub fn difference(found: u64, recorded: u64) -> u64 {
    found.abs_diff(recorded) * 1000 / recorded
}

/// The executable's size in bytes.
pub fn size() -> u64 {
    fs::metadata(executable()).unwrap().len()
}

/// Which libc is in the executable.
pub fn libc() -> String {
    Libc::of(&executable()).unwrap().to_string()
}

/// Which rustc built the executable, as its section .comment has it.
pub fn compiler() -> String {
    let label = b"rustc version ";
    let bytes = fs::read(executable()).unwrap();
    let start = bytes.windows(label.len()).position(|it| it == label);
    let start = start.expect("the executable says which rustc built it") + label.len();
    let text = bytes[start..]
        .split(|byte| matches!(byte, 0 | b'\n'))
        .next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
