//! The one table: what each column holds, how a figure is written, and what a target makes of
//! it. It measures nothing.

use std::time::Duration;

/// A row; an empty column stays empty.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub what: &'a str,
    /// Which executable.
    pub who: &'a str,
    /// The median, or the only figure.
    pub figure: String,
    /// From the smallest to the 90th percentile.
    pub spread: String,
    pub cpu: String,
    /// How many times as much as a static `true`.
    pub of_true: Option<f64>,
    /// How many times as much as the executable that ships.
    pub of_ours: Option<f64>,
    pub remark: String,
}

/// Begins a part of the table.
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
        "target, remark",
    ]);
}

impl Row<'_> {
    pub fn print(&self) {
        let times = |ratio: Option<f64>| ratio.map(|it| format!("{it:.2}")).unwrap_or_default();
        print_columns([
            self.what,
            self.who,
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
    let [what, who, figure, spread, cpu, of_true, of_ours, remark] = columns;
    let line = format!(
        "{what:<50} {who:<10} {figure:>11} {spread:>17} {cpu:>9} {of_true:>7} {of_ours:>7}  {remark}"
    );
    println!("{}", line.trim_end());
}

/// In milliseconds.
pub fn time(value: Duration) -> String {
    format!("{} ms", digits(value))
}

/// From one to the other, in milliseconds.
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

/// What DESIGN.md's target makes of a figure.
pub fn verdict(target: &str, is_met: bool) -> String {
    format!("{target}: {}", if is_met { "met" } else { "MISSED" })
}
