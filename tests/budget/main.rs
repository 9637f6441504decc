//! What the plugin may cost, on a machine of any speed: the size of the executable that
//! ships, and the processes, system calls and instructions of its verbs, against the
//! figures of figures.json. How long anything takes is not asked here.
//!
//! The figures are recorded by the same tests, after `scripts/build`:
//! `MSM_RECORD_BUDGET=1 MSM_EXECUTABLE=$PWD/dist/msm cargo test --test budget`

#[cfg(test)]
#[expect(dead_code, reason = "these tests need an API server that works")]
#[path = "../support/api_server.rs"]
mod api_server;
#[cfg(test)]
mod cases;
#[cfg(test)]
#[expect(dead_code, reason = "these tests choose no backend and no label")]
#[path = "../support/cluster.rs"]
mod cluster;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod instructions;
#[cfg(test)]
#[path = "../support/libc.rs"]
mod libc;
#[cfg(test)]
#[expect(dead_code, reason = "some of it is for traffic")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod system_calls;

/// What ships, and not what cargo builds for the other tests, is worth measuring.
#[cfg(test)]
fn cannot_measure(tools: &[&str]) -> bool {
    if std::env::var_os("MSM_EXECUTABLE").is_none() {
        support::skip("MSM_EXECUTABLE does not name the executable that ships (dist/msm)");
        return true;
    }
    support::cannot_run(tools)
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
