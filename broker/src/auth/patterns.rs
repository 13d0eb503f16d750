//! The three regular expressions of a permission.

use crate::model::access::Permission;
use crate::model::operation::OperationError;
use crate::model::pattern::Pattern as Expression;

/// What a user may configure, write to and read from in one vhost.
#[derive(Debug)]
pub struct Patterns {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

/// An expression that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {pattern:?} is not a usable regular expression: {problem}")]
pub struct PatternError {
    pub(super) field: &'static str,
    pub(super) pattern: String,
    pub(super) problem: String,
}

impl From<PatternError> for OperationError {
    fn from(error: PatternError) -> Self {
        Self::Pattern { pattern: error.pattern, problem: format!("{}: {}", error.field, error.problem) }
    }
}

#[derive(Debug)]
struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Debug)]
enum Matcher {
    Nothing,
    Everything,
    Expression(Expression),
}

impl Patterns {
    /// Compiles the three expressions. They match anywhere in a name; an empty one matches nothing.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self {
            configure: Pattern::new("configure", configure)?,
            write: Pattern::new("write", write)?,
            read: Pattern::new("read", read)?,
        })
    }

    /// The expression as it was given.
    pub fn text(&self, permission: Permission) -> &str {
        &self.of(permission).text
    }

    /// Whether the permission covers a resource of that name.
    pub(super) fn allows(&self, permission: Permission, name: &str) -> bool {
        match &self.of(permission).matcher {
            Matcher::Nothing => false,
            Matcher::Everything => true,
            Matcher::Expression(expression) => expression.is_match(name),
        }
    }

    /// Whether the permission covers every name there can be.
    pub(super) fn allows_everything(&self, permission: Permission) -> bool {
        matches!(self.of(permission).matcher, Matcher::Everything)
    }

    fn of(&self, permission: Permission) -> &Pattern {
        match permission {
            Permission::Configure => &self.configure,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        }
    }
}

impl Pattern {
    fn new(field: &'static str, text: &str) -> Result<Self, PatternError> {
        let matcher = match text {
            "" | "^$" => Matcher::Nothing,
            ".*" => Matcher::Everything,
            _ => Matcher::Expression(Expression::new(text).map_err(|problem| PatternError {
                field,
                pattern: text.to_owned(),
                problem,
            })?),
        };
        Ok(Self { text: text.to_owned(), matcher })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pattern: &str, name: &str) -> bool {
        Patterns::new("", pattern, "").unwrap().allows(Permission::Write, name)
    }

    #[test]
    fn an_empty_pattern_allows_nothing() {
        for pattern in ["", "^$"] {
            assert!(!write(pattern, "q"));
            assert!(!write(pattern, ""));
        }
    }

    #[test]
    fn patterns_match_anywhere() {
        assert!(write("work", "my.work.queue"));
        assert!(write("^work", "work.1") && !write("^work", "my.work"));
        assert!(write("^work$", "work") && !write("^work$", "work2"));
        assert!(write("^(a|b)", "b1") && !write("^(a|b)", "c"));
        assert!(!write("work", "WORK"));
    }

    #[test]
    fn the_pattern_for_everything_matches_everything() {
        assert!(write(".*", "a\nb") && write(".*", "") && write(".*", "amq.default"));
        let patterns = Patterns::new(".*", "^.*", "").unwrap();
        assert!(patterns.allows_everything(Permission::Configure));
        assert!(!patterns.allows_everything(Permission::Write));
        assert!(!patterns.allows_everything(Permission::Read));
    }

    #[test]
    fn each_permission_has_its_own_pattern() {
        let patterns = Patterns::new("c", "w", "r").unwrap();
        assert!(patterns.allows(Permission::Configure, "c"));
        assert!(patterns.allows(Permission::Write, "w"));
        assert!(patterns.allows(Permission::Read, "r"));
        assert!(!patterns.allows(Permission::Read, "w"));
        assert_eq!(patterns.text(Permission::Write), "w");
    }

    #[test]
    fn broken_and_oversized_patterns_are_refused_in_one_line() {
        for pattern in ["(", "a{1,", "[z-a]", "(?=a)", "a(?!b)", r"(\w{200}){200}"] {
            let error = Patterns::new(".*", ".*", pattern).unwrap_err().to_string();
            assert!(error.starts_with("read = "), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
