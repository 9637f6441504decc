//! What the plugin may cost, on a machine of any speed: the size of the executable that
//! ships, and the processes, system calls and instructions of its verbs, against the
//! figures of figures.json. How long anything takes is not asked here.
//!
//! The figures are recorded by the same tests, after `scripts/build`:
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

/// What ships, and not what cargo builds for the other tests, is worth measuring.
fn cannot_measure(tools: &[&str]) -> bool {
    if std::env::var_os("MSM_EXECUTABLE").is_none() {
        msm_testkit::skip("MSM_EXECUTABLE does not name the executable that ships (dist/msm)");
        return true;
    }
    msm_testkit::cannot_run(tools)
}

#[test]
fn the_executable_is_not_too_large() {
    if cannot_measure(&[]) {
        return;
    }
    let (size, limit) = (figures::size(), figures::recorded().size_limit);
    assert!(
        size <= limit,
        "the executable has {size} bytes, {limit} are allowed: make it smaller, or raise \
         size_limit of {} in tests/budget/figures.json and say why in the commit",
        figures::libc()
    );
}
