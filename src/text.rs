//! Rules for names, and text for messages: excerpts of input, errors with their sources. Pure.

use std::borrow::Cow;
use std::iter::successors;

/// In characters, of a value that a message quotes.
const EXCERPT_LIMIT: usize = 64;

/// Whether `text` is valid as a container ID or network name: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub fn is_identifier(text: &str) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    text.as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric)
        && text.bytes().all(ordinary)
}

/// At most 64 characters of `text`, for error messages.
pub fn excerpt(text: &str) -> String {
    truncate(text, EXCERPT_LIMIT).into_owned()
}

/// The first `limit` characters of `text`, and an ellipsis if there are more.
pub fn truncate(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// Joins the error and its sources with `: `, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let errors = successors(Some(error), |error| error.source());
    let texts: Vec<String> = errors.map(ToString::to_string).collect();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_truncated_between_characters() {
        for (text, limit, expected) in [
            ("", 0, ""),
            ("a", 0, "…"),
            ("äöü", 3, "äöü"),
            ("äöü", 2, "äö…"),
        ] {
            assert_eq!(truncate(text, limit), expected);
        }
    }
}
