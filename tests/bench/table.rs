//! The layout of the table: columns, formats of figures, and the verdict on a limit.

use std::time::Duration;

/// A row. Columns may be empty.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub what: &'a str,
    /// The label of the executable.
    pub target: &'a str,
    /// The median, or the only figure.
    pub figure: String,
    /// From the minimum to the 90th percentile.
    pub spread: String,
    pub cpu: String,
    /// The ratio to a static `true`.
    pub of_true: Option<f64>,
    /// The ratio to the shipped executable.
    pub of_ours: Option<f64>,
    pub remark: String,
}

/// Starts a part of the table.
pub fn heading(text: &str) {
    println!("\n== {text}");
    print_columns([
        "",
        "",
        "median",
        "min - p90",
        "cpu",
        "x true",
        "x ours",
        "limit, remark",
    ]);
}

impl Row<'_> {
    pub fn print(&self) {
        let times = |ratio: Option<f64>| ratio.map(|it| format!("{it:.2}")).unwrap_or_default();
        print_columns([
            self.what,
            self.target,
            &self.figure,
            &self.spread,
            &self.cpu,
            &times(self.of_true),
            &times(self.of_ours),
            &self.remark,
        ]);
    }
}

fn print_columns(columns: [&str; 8]) {
    let [what, target, figure, spread, cpu, of_true, of_ours, remark] = columns;
    let line = format!(
        "{what:<50} {target:<10} {figure:>11} {spread:>17} {cpu:>9} {of_true:>7} {of_ours:>7}  {remark}"
    );
    println!("{}", line.trim_end());
}

/// Formats a time in milliseconds.
pub fn time(value: Duration) -> String {
    format!("{} ms", digits(value))
}

/// Formats a range in milliseconds.
pub fn span(from: Duration, to: Duration) -> String {
    format!("{} - {}", digits(from), digits(to))
}

fn digits(value: Duration) -> String {
    let value = value.as_secs_f64() * 1e3;
    match value {
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

/// States a limit and whether it is met.
pub fn verdict(limit: &str, is_met: bool) -> String {
    format!("{limit}: {}", if is_met { "met" } else { "MISSED" })
}
