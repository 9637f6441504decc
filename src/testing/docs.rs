//! Compares the tables of the documentation with the code: every key, annotation, flag,
//! variable and placeholder is documented, with its default, and nothing else is. Checks links
//! between the pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cmd;
use crate::flags::Flag;
use crate::names;
use crate::node;
use crate::redirect::parameters::PARAMETERS;

const CONFIGURATION: &str = include_str!("../../docs/configuration.md");

/// First cells of the tables' header rows.
const HEADERS: [&str; 5] = ["key", "flag", "variable", "label", "placeholder"];

/// The cells of the table rows below the heading `heading`, up to the next heading of the same
/// level or a higher one, without quotes.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
    let is_end = |line: &str| (1..=level(heading)).contains(&level(line));
    let lines = CONFIGURATION.lines();
    let section = lines.skip_while(|line| *line != heading).skip(1);
    let mut rows: Vec<Vec<String>> = section
        .take_while(|line| !is_end(line))
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split('|').map(unquoted).collect())
        .collect();
    assert!(!rows.is_empty(), "docs/configuration.md has no {heading}");
    rows.retain(|row| !HEADERS.contains(&row[0].as_str()));
    rows
}

fn unquoted(cell: &str) -> String {
    cell.trim().replace('`', "")
}

fn first_cells(rows: &[Vec<String>]) -> BTreeSet<String> {
    let cells: BTreeSet<_> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(cells.len(), rows.len(), "a row is repeated");
    cells
}

/// The source text before its tests.
fn code(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap()
}

/// The words of `source` that start with `prefix` and end before `end`.
fn words<'a>(source: &'a str, prefix: &str, end: char) -> BTreeSet<&'a str> {
    let parts = source.split(prefix).skip(1);
    parts.filter_map(|part| part.split(end).next()).collect()
}

fn default_in_help(flag: &Flag) -> Option<&str> {
    let (_, default) = flag.help.split_once("[default: ")?;
    default.strip_suffix(']').filter(|text| !text.contains(' '))
}

#[test]
fn every_key_of_the_plugin_is_documented() {
    let source: String = code(include_str!("../cni/config.rs"))
        .split_whitespace()
        .collect();
    let mut expected: BTreeSet<String> = ["string(", "strings(", "keyword(", "number("]
        .iter()
        .flat_map(|method| words(&source, &format!("kubernetes.{method}\""), '"'))
        .map(|key| format!("kubernetes.{key}"))
        .collect();
    assert!(expected.contains("kubernetes.kubeConfig"), "{expected:?}");
    expected.insert("logLevel".into());
    expected.extend(PARAMETERS.iter().map(|it| format!("redirect.{}", it.key)));
    assert_eq!(first_cells(&rows("## Plugin entry")), expected);
}

#[test]
fn redirect_options_are_documented_with_annotation_and_default() {
    let rows = rows("## Plugin entry");
    let documented: Vec<_> = rows
        .iter()
        .filter(|row| row[0].starts_with("redirect."))
        .collect();
    assert_eq!(documented.len(), PARAMETERS.len());
    for (row, parameter) in documented.iter().zip(&PARAMETERS) {
        let (_, annotation) = parameter.annotation.split_once('/').unwrap();
        let expected = [
            format!("redirect.{}", parameter.key),
            annotation.to_owned(),
            parameter.default.unwrap_or("none").to_owned(),
        ];
        assert_eq!(row[..3], expected);
    }
}

#[test]
fn prefix_of_label_and_annotations_is_documented() {
    let (prefix, label) = names::INJECT_LABEL.split_once('/').unwrap();
    assert!(CONFIGURATION.contains(&format!("start with `{prefix}/`")));
    assert!(
        rows("## Pod label and annotations")
            .iter()
            .all(|row| row[0] == label)
    );
    for parameter in &PARAMETERS {
        assert!(parameter.annotation.starts_with(&format!("{prefix}/")));
    }
}

#[test]
fn every_flag_of_the_installer_is_documented() {
    let flags = node::flags::command_line().flags;
    let rows: Vec<_> = rows("## Installer")
        .into_iter()
        .filter(|row| row[0].starts_with("--"))
        .collect();
    let expected = flags
        .iter()
        .map(|flag| format!("--{}", flag.name))
        .collect();
    assert_eq!(first_cells(&rows), expected);
    for flag in &flags {
        let row = rows.iter().find(|row| row[0] == format!("--{}", flag.name));
        if let Some(default) = default_in_help(flag) {
            assert_eq!(row.unwrap()[1], default, "--{}", flag.name);
        }
    }
}

#[test]
fn every_other_variable_of_the_installer_is_documented() {
    let source = [
        code(include_str!("../node/inputs.rs")),
        code(include_str!("../node/settings.rs")),
    ]
    .concat();
    let is_variable = |word: &&str| {
        word.len() > 4
            && !word.starts_with("__")
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let expected: BTreeSet<&str> = source.split('"').filter(is_variable).collect();
    assert!(expected.contains("POD_NAME"), "{expected:?}");
    let rows = rows("## Installer");
    let documented: BTreeSet<&str> = rows
        .iter()
        .filter(|row| !row[0].starts_with("--"))
        .flat_map(|row| row[0].split(", "))
        .filter(|cell| !cell.starts_with("__"))
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_placeholder_of_the_template_is_documented() {
    let source = code(include_str!("../node/netdir/template.rs"));
    let expected: BTreeSet<String> = words(source, "\"__", '"')
        .into_iter()
        .filter_map(|word| word.strip_suffix("__"))
        .map(|name| format!("__{name}__"))
        .collect();
    assert!(expected.contains("__LOG_LEVEL__"), "{expected:?}");
    assert_eq!(first_cells(&rows("### Template")), expected);
}

#[test]
fn every_flag_of_msm_iptables_is_documented() {
    let flags = cmd::iptables::flags::command_line().flags;
    let rows = rows("## msm-iptables");
    let name = |flag: &Flag| match flag.short {
        Some(short) => format!("-{short}, --{}", flag.name),
        None => format!("--{}", flag.name),
    };
    assert_eq!(first_cells(&rows), flags.iter().map(name).collect());
    for flag in &flags {
        let row = rows.iter().find(|row| row[0] == name(flag)).unwrap();
        let parameter = PARAMETERS.iter().find(|it| it.flag == flag.name);
        if let Some(parameter) = parameter {
            assert_eq!(row[1], format!("redirect.{}", parameter.key));
            assert_eq!(row[2], parameter.default.unwrap_or("none"));
        } else if let Some(default) = flag.default {
            assert_eq!(row[2], default, "{}", row[0]);
        }
    }
}

/// The anchor that GitHub gives to a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// The targets of the links `[text](target)` outside of code blocks.
fn link_targets(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let parts = prose.flat_map(|part| part.split("](").skip(1));
    parts.filter_map(|part| part.split(')').next()).collect()
}

#[test]
fn relative_links_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap();
    let pages = docs.map(|entry| entry.unwrap().path());
    let others = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ];
    let mut count = 0;
    for page in pages.chain(others.map(|name| root.join(name))) {
        let text = fs::read_to_string(&page).unwrap();
        for target in link_targets(&text) {
            // GitHub serves the second from outside of the repository's files.
            if target.contains("://") || target.starts_with("../../actions/") {
                continue;
            }
            count += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => page.clone(),
                _ => page.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{}: {target}", page.display());
            let is_found = heading.is_empty()
                || fs::read_to_string(&file)
                    .unwrap()
                    .lines()
                    .any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(is_found, "{}: {target}", page.display());
        }
    }
    assert!(count > 20, "{count} links found");
}

#[test]
fn readme_stays_short() {
    let lines = include_str!("../../README.md").lines().count();
    assert!(lines <= 140, "README.md has {lines} lines");
}
