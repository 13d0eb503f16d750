//! Regular expressions that operators set: bounded in size, without look-around and back-references, so that no name takes
//! long to match.

use regex::{Regex, RegexBuilder};

/// Memory one compiled expression may take: an expression can be a few bytes long and millions of states large.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Compiles an expression; it matches anywhere in a name.
///
/// # Errors
///
/// What is wrong with it, in one line.
pub fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        match error {
            // A syntax error is drawn over several lines, the last of which says what is wrong.
            regex::Error::Syntax(text) => {
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
            other => other.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_matches_anywhere() {
        assert!(compile("b").unwrap().is_match("abc"));
        assert!(compile("").unwrap().is_match("abc"));
    }

    #[test]
    fn what_is_broken_or_too_large_is_refused_in_one_line() {
        for text in ["(", "a{1,", "[z-a]", "(?=a)", r"(\w{200}){200}"] {
            let problem = compile(text).unwrap_err();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{text}: {problem}");
        }
    }
}
