//! Runs the plugin in this process and checks its reply: the form of results and errors, the
//! codes that docs/operations.md lists, the relayed prevResult, and that no secret is logged.

use std::process::ExitCode;
use std::sync::LazyLock;

use serde::de::Deserialize;

use super::members::{Key, Members};
use crate::process::{Process, Vars};

/// Marks secrets in inputs: it must not appear in an error or a log.
pub const SECRET: &str = "SESAME";
const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];
/// In characters, of `msg` and of `details`, with the ellipsis.
const LONGEST_TEXT: usize = 2049;

/// What the plugin returned.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    code: ExitCode,
    pub stdout: Vec<u8>,
}

impl Outcome {
    /// Runs the plugin.
    pub fn of(vars: &Vars, stdin: &[u8]) -> Self {
        // Fails after the first call, whose logger is kept.
        let _ = log::set_logger(&SecretDetector);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = crate::cni::respond(&mut Process {
            vars: vars.clone(),
            stdin: &mut &*stdin,
            stdout: &mut stdout,
            stderr: &mut stderr,
        });
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
        Self { code, stdout }
    }

    pub fn succeeded(&self) -> bool {
        self.code == ExitCode::SUCCESS
    }

    /// Asserts one document of the right form.
    pub fn check(&self, verb: &str) {
        let text = String::from_utf8_lossy(&self.stdout);
        if self.succeeded() && matches!(verb, "DEL" | "CHECK" | "GC" | "STATUS") {
            assert_eq!(text, "", "{verb} has no result");
            return;
        }
        assert!(text.ends_with('\n'), "{verb}: no newline: {text}");
        let document: Members = parse(&self.stdout);
        let version: &str = parse(document.last("cniVersion").unwrap_or("0").as_bytes());
        assert!(VERSIONS.contains(&version), "{verb}: {text}");
        if self.succeeded() {
            assert!(
                matches!(verb, "ADD" | "VERSION"),
                "{verb} succeeded: {text}"
            );
            return;
        }
        assert_eq!(self.code, ExitCode::FAILURE);
        check_error(verb, &document, &text);
    }
}

fn check_error(verb: &str, document: &Members, text: &str) {
    let keys: Vec<&[u8]> = document.0.iter().map(|(key, _)| key.0.as_slice()).collect();
    assert_eq!(
        keys,
        [&b"cniVersion"[..], b"code", b"details", b"msg"],
        "{verb}: {text}"
    );
    let code = document.last("code").unwrap_or_default();
    assert!(
        code != "3" && code != "999" && is_documented(code),
        "{verb}: {text}"
    );
    assert_ne!(document.last("msg"), Some("\"\""), "{verb}: {text}");
    let value = |key| -> String { parse(document.last(key).unwrap_or_default().as_bytes()) };
    let (msg, details) = (value("msg"), value("details"));
    assert_printable(&msg);
    // The output of a tool keeps its lines.
    details.lines().for_each(assert_printable);
    for text in [msg, details] {
        assert!(text.chars().count() <= LONGEST_TEXT, "{verb}: {text}");
    }
}

/// Whether the table of error codes in docs/operations.md has a row for `code`.
fn is_documented(code: &str) -> bool {
    static FIRST_CELLS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let rows = include_str!("../../docs/operations.md").lines();
        let cell = |row: &'static str| row.strip_prefix("| ")?.split(" | ").next();
        rows.filter_map(cell).collect()
    });
    FIRST_CELLS.contains(&code)
}

/// The environment of a request.
pub fn environment(verb: &str, args: &str) -> Vars {
    [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "0a"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
        ("CNI_NETNS", "/nowhere/netns"),
        ("CNI_ARGS", args),
    ]
    .into_iter()
    .collect()
}

/// Asserts that the result is the prevResult of `stdin` with every member, their order and
/// spelling, and the configuration's `cniVersion`, and that relaying it again changes nothing.
pub fn check_relayed(stdin: &[u8], stdout: &[u8]) {
    let configuration: Members = parse(stdin);
    let result: Members = parse(stdout);
    let version = result.last("cniVersion").unwrap_or_default();
    let others = |members: &Members| -> Vec<(Key, String)> {
        let members = members.0.iter();
        let owned = members.map(|(key, value)| (key.clone(), value.get().to_owned()));
        owned.filter(|(key, _)| key.0 != b"cniVersion").collect()
    };
    let previous = configuration.last("prevResult").unwrap_or("null");
    let expected = match previous {
        "null" => Members(Vec::new()),
        previous => parse(previous.as_bytes()),
    };
    assert_eq!(others(&result), others(&expected));
    let given = expected.last("cniVersion").filter(|it| *it != "null");
    let format = |version: &str| result_format(&parse::<String>(version.as_bytes()));
    let is_compatible = given.is_none_or(|given| format(given) == format(version));
    assert!(is_compatible, "{given:?} is relayed as {version}");
    let text = String::from_utf8_lossy(stdout);
    let next = format!(
        r#"{{"cniVersion":{version},"name":"n","kubernetes":{{"kubeConfig":"/nowhere/k"}},"prevResult":{text}}}"#
    );
    let again = Outcome::of(&environment("ADD", ""), next.as_bytes());
    assert_eq!(String::from_utf8_lossy(&again.stdout), text);
}

/// A number that identifies the result format of a CNI version.
fn result_format(version: &str) -> usize {
    let index = VERSIONS.iter().position(|name| *name == version);
    index.map_or(usize::MAX, |index| match index {
        0..2 => 0,
        2..5 => 1,
        _ => 2,
    })
}

#[expect(clippy::panic, reason = "a panic is the result of a check")]
pub fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> T {
    match serde_json::from_slice(json) {
        Ok(value) => value,
        Err(error) => panic!("{error}: {}", String::from_utf8_lossy(json)),
    }
}

/// Asserts that a log or an event can show `text` in one line.
pub fn assert_printable(text: &str) {
    assert!(
        !text.contains(char::is_control),
        "control characters: {text:?}"
    );
}

/// A logger that prints nothing and panics if a secret is logged.
struct SecretDetector;

impl log::Log for SecretDetector {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        let text = record.args().to_string();
        assert!(!text.contains(SECRET), "secret in a log: {text}");
    }

    fn flush(&self) {}
}
