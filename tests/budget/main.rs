//! Limits that do not depend on the machine's speed: the size of the shipped executable, and
//! the processes, system calls and instructions of each verb, compared with figures.json.
//! Times are measured by scripts/bench.
//!
//! The same tests record the figures, after `scripts/build`:
//! `MSM_RECORD_BUDGET=1 MSM_EXECUTABLE=$PWD/dist/msm cargo test --test budget`
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod cases;
mod figures;
mod instructions;
mod system_calls;

/// Only the shipped executable is measured, not the debug build.
fn cannot_measure(tools: &[&str]) -> bool {
    if std::env::var_os("MSM_EXECUTABLE").is_none() {
        msm_testkit::skip("MSM_EXECUTABLE is not set to the shipped executable (dist/msm)");
        return true;
    }
    msm_testkit::cannot_run(tools)
}

#[test]
fn executable_is_within_its_size_limit() {
    if cannot_measure(&[]) {
        return;
    }
    let (size, limit) = (figures::size(), figures::recorded().size_limit);
    assert!(
        size <= limit,
        "the executable has {size} bytes, the limit is {limit}: make it smaller, or raise \
         size_limit of {} in tests/budget/figures.json and say why in the commit",
        figures::libc()
    );
}
