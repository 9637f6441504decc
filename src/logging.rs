//! Logs on standard error, in one place for all applets. Standard output belongs to the
//! CNI protocol.

use log::LevelFilter;

/// Starts logging our own records from `level` on; only the first call counts.
pub fn start(level: LevelFilter) {
    let started = env_logger::Builder::new()
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(|line, record| {
            use std::io::Write as _;
            writeln!(
                line,
                "{}: {}",
                record.level().as_str().to_ascii_lowercase(),
                record.args()
            )
        })
        .try_init();
    if started.is_err() {
        log::set_max_level(level);
    }
}
