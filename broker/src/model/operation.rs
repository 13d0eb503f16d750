//! Why something that an operator asked for is refused: RabbitMQ's words, and what a command line and an HTTP interface
//! answer with.

use std::fmt;

/// A change by an operator that is refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationError {
    /// There is no such user.
    NoSuchUser(String),
    /// A user of that name exists.
    UserExists(String),
    /// There is no such virtual host.
    NoSuchVhost(String),
    /// The virtual host may not be deleted.
    ProtectedVhost(String),
    /// There is no such exchange.
    NoSuchExchange(String),
    /// There is no such policy, limit or parameter.
    NoSuchParameter,
    /// A value of a user's limits is wrong.
    Invalid(String),
    /// A value of a policy, a parameter or a virtual host's limits is wrong.
    NotValidated(String),
    /// An argument is wrong in itself, whatever there is.
    BadArgument(String),
    /// A regular expression that cannot be used.
    Pattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What was to be stored is more than a record can be.
    Unwritable(String),
}

impl OperationError {
    /// The exit code that `rabbitmqctl` ends with. Some of its commands count a missing user as done; that is theirs to know.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchUser(_) => 67,
            Self::UserExists(_) => 70,
            Self::NoSuchVhost(_) | Self::ProtectedVhost(_) | Self::BadArgument(_) => 65,
            Self::NoSuchExchange(_)
            | Self::NoSuchParameter
            | Self::Invalid(_)
            | Self::NotValidated(_)
            | Self::Pattern { .. }
            | Self::Unwritable(_) => 69,
        }
    }

    /// The status that the management API answers with.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::NoSuchUser(_) | Self::NoSuchVhost(_) | Self::NoSuchParameter => 404,
            Self::ProtectedVhost(_) => 412,
            Self::UserExists(_) => 409,
            Self::NoSuchExchange(_)
            | Self::Invalid(_)
            | Self::NotValidated(_)
            | Self::BadArgument(_)
            | Self::Pattern { .. }
            | Self::Unwritable(_) => 400,
        }
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser(name) => write!(f, "User \"{name}\" does not exist"),
            Self::UserExists(name) => write!(f, "User \"{name}\" already exists"),
            Self::NoSuchVhost(name) => write!(f, "Virtual host '{name}' does not exist"),
            Self::ProtectedVhost(name) => {
                write!(f, "Refusing to delete virtual host '{name}' because it is protected from deletion")
            }
            Self::NoSuchExchange(name) => write!(f, "Exchange {name} does not exist"),
            Self::NoSuchParameter => f.write_str("Parameter does not exist"),
            Self::Invalid(text) => f.write_str(text),
            Self::NotValidated(text) => write!(f, "Validation failed\n\n{text}\n"),
            Self::BadArgument(text) => write!(f, "Bad argument: {text}"),
            Self::Pattern { pattern, problem } => write!(f, "invalid regular expression {pattern:?}: {problem}"),
            Self::Unwritable(problem) => write!(f, "cannot be stored: {problem}"),
        }
    }
}

impl std::error::Error for OperationError {}

/// Names that become part of a stored key: they travel as short strings, and a NUL separates the parts of a key.
///
/// # Errors
///
/// [`OperationError::BadArgument`] that says which name it is: `what`.
pub fn check_name(what: &str, name: &str) -> Result<(), OperationError> {
    let problem = if name.is_empty() {
        "cannot be an empty string"
    } else if name.len() > 255 {
        "cannot have more than 255 bytes"
    } else if name.contains('\0') {
        "cannot contain a NUL"
    } else {
        return Ok(());
    };
    Err(OperationError::BadArgument(format!("{what} {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_rabbitmqs() {
        let shows = |error: OperationError, text: &str, exit: u8, status: u16| {
            assert_eq!(error.to_string(), text);
            assert_eq!((error.exit_code(), error.http_status()), (exit, status), "{text}");
        };
        shows(OperationError::NoSuchUser("u".into()), "User \"u\" does not exist", 67, 404);
        shows(OperationError::UserExists("u".into()), "User \"u\" already exists", 70, 409);
        shows(OperationError::NoSuchVhost("v".into()), "Virtual host 'v' does not exist", 65, 404);
        shows(OperationError::NoSuchExchange("x".into()), "Exchange x does not exist", 69, 400);
        shows(OperationError::NoSuchParameter, "Parameter does not exist", 69, 404);
        shows(OperationError::NotValidated("why".into()), "Validation failed\n\nwhy\n", 69, 400);
        shows(
            OperationError::ProtectedVhost("v".into()),
            "Refusing to delete virtual host 'v' because it is protected from deletion",
            65,
            412,
        );
    }

    #[test]
    fn names_are_short_and_without_nul() {
        assert_eq!(check_name("user", "a b/\u{e9}"), Ok(()));
        for (name, text) in [
            ("", "Bad argument: user cannot be an empty string"),
            ("a\0b", "Bad argument: user cannot contain a NUL"),
            (&"n".repeat(256), "Bad argument: user cannot have more than 255 bytes"),
        ] {
            let error = check_name("user", name).unwrap_err();
            assert_eq!((error.to_string(), error.exit_code()), (text.to_owned(), 65));
        }
    }
}
