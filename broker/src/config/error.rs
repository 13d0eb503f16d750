//! The one-line error every configuration mistake ends in.

use std::fmt;

/// A configuration mistake: one line that names the key, where it was set and the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct ConfigError {
    line: String,
}

impl ConfigError {
    /// Keeps the text on one line, whatever the values inside it contain.
    pub(crate) fn new(text: impl fmt::Display) -> Self {
        let line = text
            .to_string()
            .split(['\r', '\n'])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        Self { line }
    }

    /// A value that its key does not take.
    pub(crate) fn value(
        key: &str,
        shown: impl fmt::Display,
        origin: impl fmt::Display,
        problem: impl fmt::Display,
    ) -> Self {
        Self::new(format_args!("{key} = {shown} ({origin}): {problem}"))
    }
}

/// A value as an error shows it: quoted, escaped, and cut when it is long.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 120;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = ConfigError::value("log.level", quoted("a\nb"), "file x", "no\n  good\r\n");
        assert_eq!(error.to_string(), r#"log.level = "a\nb" (file x): no good"#);
        assert_eq!(ConfigError::new("a\nb").to_string(), "a b");
    }

    #[test]
    fn a_long_value_is_cut() {
        let shown = quoted(&"é".repeat(500));
        assert!(shown.ends_with("...\""));
        assert_eq!(shown.chars().count(), 120 + 5);
    }
}
