//! Why a command failed, and the exit code it ends with: those of `rabbitmqctl`.

/// The command line itself is wrong.
pub(super) const USAGE: u8 = 64;
/// What was given cannot be right: credentials, a file.
pub(super) const DATA: u8 = 65;
/// The broker is not there, or has not what was asked for.
pub(super) const UNAVAILABLE: u8 = 69;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) text: String,
    pub(super) code: u8,
}

impl Failure {
    pub(super) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), code }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(UNAVAILABLE, format!("{error:#}"))
    }
}
