//! Regular expressions that operators set: bounded in size, without back-references and, but for one form, without
//! look-around, so that no name takes long to match.
//!
//! The form is `^(?!a)b`, a name that begins with `b` and not with `a`: many a RabbitMQ policy leaves out `amq.` so. It is
//! two expressions here.

use regex::{Regex, RegexBuilder};

/// Memory one compiled expression may take: an expression can be a few bytes long and millions of states large.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Look-aheads at the start of one expression.
const UNLESS_MAX: usize = 8;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// `None` for what matches everything, as most permissions do.
    regex: Option<Regex>,
    /// None of these may match: what was looked ahead for.
    unless: Vec<Regex>,
}

impl Pattern {
    /// Compiles an expression; it matches anywhere in a name.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in one line.
    pub fn new(text: &str) -> Result<Self, String> {
        if matches!(text, "" | ".*") {
            return Ok(Self { regex: None, unless: Vec::new() });
        }
        let Some((conditions, rest)) = split_look_ahead(text) else {
            return Ok(Self { regex: Some(compile(text)?), unless: Vec::new() });
        };
        let unless = conditions.into_iter().map(|inside| compile(&format!("^(?:{inside})")));
        Ok(Self { unless: unless.collect::<Result<_, _>>()?, regex: Some(compile(&format!("^{rest}"))?) })
    }

    /// Whether the expression is found in a text.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
            && !self.unless.iter().any(|regex| regex.is_match(text))
    }
}

fn compile(text: &str) -> Result<Regex, String> {
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

/// What the look-aheads at the start must not find, and what follows them; `None` when the text has not that form.
fn split_look_ahead(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut rest = text.strip_prefix('^')?;
    let mut conditions = Vec::new();
    while let Some(inside) = rest.strip_prefix("(?!") {
        let end = find_outside(inside, ')')?;
        conditions.push(inside.get(..end)?);
        rest = inside.get(end + 1..)?;
    }
    // An alternative would not be subject to the condition.
    let fits = !conditions.is_empty() && conditions.len() <= UNLESS_MAX && find_outside(rest, '|').is_none();
    fits.then_some((conditions, rest))
}

/// Where a character first stands outside groups, classes and escapes.
fn find_outside(text: &str, wanted: char) -> Option<usize> {
    let mut depth = 0_u32;
    let mut in_class = false;
    let mut class_start = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            // The first character of a class is in it, whatever it is.
            ']' if in_class && at > class_start => in_class = false,
            '^' if in_class && at == class_start => class_start += 1,
            _ if in_class => {}
            '[' => {
                in_class = true;
                class_start = at + 1;
            }
            c if c == wanted && depth == 0 => return Some(at),
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(name)
    }

    #[test]
    fn it_matches_anywhere() {
        assert!(matches("b", "abc") && matches("", "abc"));
        for pattern in ["", ".*"] {
            assert!(matches(pattern, "") && matches(pattern, "a\nb"), "{pattern}");
        }
    }

    #[test]
    fn what_is_broken_or_too_large_is_refused_in_one_line() {
        for text in ["(", "a{1,", "[z-a]", "a(?=b)", "(?!a)", "^(?!a)b|c", "^(?!(a)", "^(?!(?!a))", r"(\w{200}){200}"] {
            let problem = Pattern::new(text).unwrap_err();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{text}: {problem}");
        }
        assert!(Pattern::new(&format!("^{}", "(?!a)".repeat(UNLESS_MAX + 1))).is_err());
    }

    #[test]
    fn a_look_ahead_at_the_start_leaves_names_out() {
        for pattern in [r"^(?!amq\.).*", r"^(?!amq\.)", r"^(?!amq\.)(?!x).+"] {
            assert!(matches(pattern, "orders"), "{pattern}");
            assert!(!matches(pattern, "amq.gen-1"), "{pattern}");
        }
        assert!(matches(r"^(?!amq\.).*", "amqp") && matches(r"^(?!amq\.).*", "x.amq.y"));
        assert!(!matches(r"^(?!(a|b)\.|c)x?.*$", "b.1") && !matches(r"^(?!(a|b)\.|c)x?.*$", "c1"));
        assert!(matches(r"^(?!(a|b)\.|c)x?.*$", "ab.1"));
        assert!(matches(r"^(?![)|(])(a|b)[|]", "b|") && !matches(r"^(?![)|(])(a|b|\))[|]", ")|"));
        assert!(!matches(r"^(?!\))\)", ")") && matches(r"^(?![^]a])]", "]"));
    }
}
