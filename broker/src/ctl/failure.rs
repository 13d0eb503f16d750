//! Why a command failed, and the exit code it ends with: those of `rabbitmqctl`.

/// The command line itself is wrong.
pub(super) const USAGE: u8 = 64;
/// What was given cannot be right: credentials, a file.
pub(super) const DATA: u8 = 65;
/// There is no such user.
pub(super) const NO_USER: u8 = 67;
/// The broker is not there, or has not what was asked for.
pub(super) const UNAVAILABLE: u8 = 69;
/// It took too long.
pub(super) const TEMPORARY: u8 = 75;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) code: u8,
    /// The broker has answered that there is no such thing.
    pub(super) missing: bool,
}

impl Failure {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), code, missing: false }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }

    /// What the broker has answered with that status.
    pub(super) fn answered(status: u16, code: Option<u8>, text: String) -> Self {
        Self { text, code: code.unwrap_or(UNAVAILABLE), missing: status == 404 && code.is_none() }
    }

    /// Whether there is no such thing.
    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    /// With that exit code, unless nothing was answered at all.
    pub(super) fn at_least(self, code: u8) -> Self {
        Self { code: self.code.max(code), ..self }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(UNAVAILABLE, format!("{error:#}"))
    }
}
