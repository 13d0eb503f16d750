//! Topic permissions: which keys a user may publish to a topic exchange and bind to it.

use super::patterns::PatternError;
use crate::model::access::Permission;
use crate::model::pattern::Pattern;

/// The variables that a pattern may have. The last one belongs to MQTT: over AMQP nobody has one, and it stays as it is.
const USERNAME: &str = "{username}";
const VHOST: &str = "{vhost}";
const CLIENT_ID: &str = "{client_id}";

/// What a user may do with keys of one topic exchange.
#[derive(Clone, Debug)]
pub struct TopicPermission {
    write: TopicPattern,
    read: TopicPattern,
}

/// One expression, with variables or without.
#[derive(Clone, Debug)]
struct TopicPattern {
    text: String,
    /// `None`: it has variables and is compiled for a user.
    regex: Option<Pattern>,
}

impl TopicPermission {
    /// Compiles both expressions. They match anywhere in a key, an empty one only the empty key.
    ///
    /// # Errors
    ///
    /// An expression that can't be used. Variables count as text of their own length here.
    pub fn new(write: &str, read: &str) -> Result<Self, PatternError> {
        Ok(Self { write: TopicPattern::new("write", write)?, read: TopicPattern::new("read", read)? })
    }

    /// The expression as it was given; there is none to configure.
    pub fn text(&self, permission: Permission) -> &str {
        self.of(permission).map_or("", |pattern| &pattern.text)
    }

    /// The permission with its variables filled in.
    pub(super) fn for_user(&self, user: &str, vhost: &str) -> TopicMatcher {
        TopicMatcher { write: self.write.for_user(user, vhost), read: self.read.for_user(user, vhost) }
    }

    fn of(&self, permission: Permission) -> Option<&TopicPattern> {
        match permission {
            Permission::Configure => None,
            Permission::Write => Some(&self.write),
            Permission::Read => Some(&self.read),
        }
    }
}

impl TopicPattern {
    fn new(field: &'static str, text: &str) -> Result<Self, PatternError> {
        let check = |text: &str| {
            Pattern::new(text).map_err(|problem| PatternError { field, pattern: text.to_owned(), problem })
        };
        if has_variables(text) {
            check(&fill_in(text, "user", "vhost"))?;
            return Ok(Self { text: text.to_owned(), regex: None });
        }
        Ok(Self { text: text.to_owned(), regex: Some(check(or_empty(text))?) })
    }

    /// `None` when the names make the expression too large: it matches nothing then.
    fn for_user(&self, user: &str, vhost: &str) -> Option<Pattern> {
        match &self.regex {
            Some(regex) => Some(regex.clone()),
            None => Pattern::new(&fill_in(&self.text, user, vhost)).ok(),
        }
    }
}

/// A topic permission of one user in one vhost.
#[derive(Debug)]
pub(super) struct TopicMatcher {
    write: Option<Pattern>,
    read: Option<Pattern>,
}

impl TopicMatcher {
    pub(super) fn allows(&self, permission: Permission, key: &str) -> bool {
        let regex = match permission {
            Permission::Configure => return true,
            Permission::Write => &self.write,
            Permission::Read => &self.read,
        };
        regex.as_ref().is_some_and(|regex| regex.is_match(key))
    }
}

fn or_empty(text: &str) -> &str {
    if text.is_empty() { "^$" } else { text }
}

fn has_variables(text: &str) -> bool {
    [USERNAME, VHOST, CLIENT_ID].iter().any(|variable| text.contains(variable))
}

/// Names stand for themselves: a user called `a.b` gets no further than that.
fn fill_in(text: &str, user: &str, vhost: &str) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        let (variable, value) = if from.starts_with(USERNAME) {
            (USERNAME, user)
        } else if from.starts_with(VHOST) {
            (VHOST, vhost)
        } else if from.starts_with(CLIENT_ID) {
            (CLIENT_ID, CLIENT_ID)
        } else {
            filled.push('{');
            rest = from.get(1..).unwrap_or_default();
            continue;
        };
        filled.push_str(&regex::escape(value));
        rest = from.get(variable.len()..).unwrap_or_default();
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, user: &str, key: &str) -> bool {
        let permission = TopicPermission::new(pattern, "").unwrap();
        permission.for_user(user, "v").allows(Permission::Write, key)
    }

    #[test]
    fn patterns_match_anywhere_and_an_empty_one_only_nothing() {
        assert!(allows("b", "ann", "a.b.c") && !allows("^b", "ann", "a.b.c"));
        assert!(allows("", "ann", "") && !allows("", "ann", "a"));
        assert!(allows(".*", "ann", ""));
    }

    #[test]
    fn variables_stand_for_names_literally() {
        assert!(allows("^{username}\\.", "ann", "ann.x") && !allows("^{username}\\.", "ann", "bob.x"));
        assert!(allows("^{vhost}-{username}$", "ann", "v-ann"));
        assert!(allows("^{username}$", "a.b", "a.b") && !allows("^{username}$", "a.b", "axb"));
        assert!(allows("^{username}$", "{vhost}", "{vhost}") && !allows("^{username}$", "{vhost}", "v"));
        assert!(allows("^{username}$", "(", "("));
        // Nobody has one over AMQP 0-9-1.
        assert!(allows("^{client_id}$", "ann", "{client_id}") && !allows("^{client_id}$", "ann", "ann"));
        assert!(allows("^a{2}{username}$", "ann", "aaann"));
    }

    #[test]
    fn each_permission_has_its_own_pattern() {
        let permission = TopicPermission::new("w", "r").unwrap();
        let matcher = permission.for_user("ann", "v");
        assert!(matcher.allows(Permission::Write, "w") && !matcher.allows(Permission::Write, "r"));
        assert!(matcher.allows(Permission::Read, "r") && !matcher.allows(Permission::Read, "w"));
        assert!(matcher.allows(Permission::Configure, "x"));
        assert_eq!((permission.text(Permission::Write), permission.text(Permission::Read)), ("w", "r"));
    }

    #[test]
    fn what_does_not_compile_is_refused_when_it_is_set() {
        for pattern in ["(", "{username}(", "{user}", r"({username}\w{200}){200}"] {
            let error = TopicPermission::new("", pattern).unwrap_err().to_string();
            assert!(error.starts_with("read = ") && !error.contains('\n'), "{error}");
        }
    }
}
