//! Whether somebody looks at the output: then it is aligned and coloured, otherwise plain.

use std::io::IsTerminal;

/// How what is printed looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Columns are as wide as their widest cell.
    pub(super) aligned: bool,
    /// With escapes for colours.
    pub(super) coloured: bool,
}

impl Style {
    /// For scripts.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { aligned: false, coloured: false };

    /// For standard output as it is. NO_COLOR (no-color.org) and dumb terminals have none; `always` and `never` decide.
    pub(super) fn of_output(wanted: Option<&str>) -> Self {
        let aligned = std::io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let coloured = match wanted {
            Some("always") => true,
            Some("never") => false,
            _ => aligned && !set("NO_COLOR") && !dumb,
        };
        Self { aligned: aligned || wanted == Some("always"), coloured }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Something is wrong.
    pub(super) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// Something goes on.
    pub(super) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
