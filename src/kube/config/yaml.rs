//! Parses the subset of YAML that kubeconfigs use into a JSON value: one document, no aliases
//! (they expand exponentially), no merge keys. A plain scalar is null, a boolean or a string,
//! because no field of a kubeconfig is a number. No error quotes the text, which contains
//! secrets. Pure.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Value};

/// In levels. A kubeconfig has four; its `extensions` may have more.
const MAX_DEPTH: u32 = 64;
/// Enough for hundreds of clusters. A value can take a hundred times its size in memory.
const MAX_VALUES: u32 = 1 << 14;

/// Why a text cannot be parsed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct InvalidYaml {
    /// Counted from 1.
    line: usize,
    reason: Cow<'static, str>,
}

/// Parses the only document of `text`. An empty document is null.
pub fn parse(text: &str) -> Result<Value, InvalidYaml> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        values: 0,
    };
    let mut document = Value::Null;
    let mut documents = 0_u32;
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::StreamEnd => return Ok(document),
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            Event::DocumentStart(_) if documents > 0 => {
                return Err(refused(span, "more than one document"));
            }
            Event::DocumentStart(_) => documents += 1,
            content => document = events.node(content, span, MAX_DEPTH)?,
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// The number of values so far.
    values: u32,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), InvalidYaml> {
        match self.parser.next_event() {
            Some(event) => event.map_err(|error| syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: u32) -> Result<Value, InvalidYaml> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(refused(span, "nesting is too deep"));
        };
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(refused(span, "too many values"));
        }
        match event {
            Event::Scalar(text, style, ..) => Ok(scalar(text, style)),
            Event::SequenceStart(..) => self.sequence(depth),
            Event::MappingStart(..) => self.mapping(depth),
            Event::Alias(_) => Err(refused(span, "aliases are not supported")),
            _ => Err(refused(span, "expected a value")),
        }
    }

    fn sequence(&mut self, depth: u32) -> Result<Value, InvalidYaml> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
    }

    fn mapping(&mut self, depth: u32) -> Result<Value, InvalidYaml> {
        let mut fields = Map::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Object(fields)),
                (Event::Scalar(key, ..), span) => (key.into_owned(), span),
                (_, span) => return Err(refused(span, "key is not a scalar")),
            };
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, depth)?;
            if fields.insert(key, value).is_some() {
                return Err(refused(span, "duplicate key"));
            }
        }
    }
}

fn scalar(text: Cow<str>, style: ScalarStyle) -> Value {
    match (style, &*text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, "true" | "True" | "TRUE") => Value::Bool(true),
        (ScalarStyle::Plain, "false" | "False" | "FALSE") => Value::Bool(false),
        _ => Value::String(text.into_owned()),
    }
}

fn refused(span: Span, reason: &'static str) -> InvalidYaml {
    InvalidYaml {
        line: span.start.line(),
        reason: reason.into(),
    }
}

/// The parser's messages quote at most one character of the text.
fn syntax(error: &ScanError) -> InvalidYaml {
    InvalidYaml {
        line: error.marker().line(),
        reason: error.info().to_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kubeconfig_syntax_is_parsed() {
        let text = "# comment\na:\n- name: 'x'\n  on: true\n  none:\n  \"port\": 443\nb: {c: [d, \"true\"]}\ncert: |\n  one\n  two\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "a": [{"name": "x", "on": true, "none": null, "port": "443"}],
                "b": {"c": ["d", "true"]},
                "cert": "one\ntwo\n",
            })
        );
    }

    #[test]
    fn empty_document_is_null() {
        for text in ["", "\n\n", "# only a comment\n", "---\n"] {
            assert_eq!(parse(text).unwrap(), Value::Null, "{text:?}");
        }
    }

    #[test]
    fn errors_have_the_line_and_quote_no_text() {
        let deep = "[".repeat(10_000);
        let wide = format!("\n[{}]", "a: b, ".repeat(10_000));
        let table = [
            ("a: 1\nb: *x\n", 2),
            ("a: &x [1]\nb: *x\n", 2),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("? [a]\n: b\n", 1),
            ("token: 'secret\n", 1),
            ("a: secret\n secret: x\n  - secret", 2),
            (deep.as_str(), 1),
            (wide.as_str(), 2),
        ];
        for (text, line) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text:.40}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
