//! Reply codes and the errors that end a channel or a connection.

use std::fmt::{self, Display, Formatter, Write};

use crate::names;
use crate::snippet::{Numbers, Snippet};
use crate::table::TableError;

/// Octets a reply text can have: it travels as a short string.
const TEXT_MAX: usize = 255;
/// What a text ends in when it was cut.
const CUT_MARK: &str = "...";

/// Reply codes of AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ReplyCode {
    /// Success, the code of an orderly close.
    Success = 200,
    /// Content too large.
    ContentTooLarge = 311,
    /// No queue for a mandatory message.
    NoRoute = 312,
    /// No consumer for an immediate message.
    NoConsumers = 313,
    /// An operator or the broker closed the connection.
    ConnectionForced = 320,
    /// Unknown virtual host.
    InvalidPath = 402,
    /// Missing permission.
    AccessRefused = 403,
    /// No such entity.
    NotFound = 404,
    /// The entity belongs to somebody else.
    ResourceLocked = 405,
    /// A condition of the method does not hold.
    PreconditionFailed = 406,
    /// A malformed frame.
    FrameError = 501,
    /// Malformed field values.
    SyntaxError = 502,
    /// A method that may not be sent here.
    CommandInvalid = 503,
    /// A channel that is not open, or is open already.
    ChannelError = 504,
    /// A well-formed frame at the wrong time.
    UnexpectedFrame = 505,
    /// Not enough resources.
    ResourceError = 506,
    /// Not allowed by the broker.
    NotAllowed = 530,
    /// Not implemented.
    NotImplemented = 540,
    /// The broker failed.
    InternalError = 541,
}

impl ReplyCode {
    /// The code as it is sent.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// The code's name in reply texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::ContentTooLarge => "CONTENT_TOO_LARGE",
            Self::NoRoute => "NO_ROUTE",
            Self::NoConsumers => "NO_CONSUMERS",
            Self::ConnectionForced => "CONNECTION_FORCED",
            Self::InvalidPath => "INVALID_PATH",
            Self::AccessRefused => "ACCESS_REFUSED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceLocked => "RESOURCE_LOCKED",
            Self::PreconditionFailed => "PRECONDITION_FAILED",
            Self::FrameError => "FRAME_ERROR",
            Self::SyntaxError => "SYNTAX_ERROR",
            Self::CommandInvalid => "COMMAND_INVALID",
            Self::ChannelError => "CHANNEL_ERROR",
            Self::UnexpectedFrame => "UNEXPECTED_FRAME",
            Self::ResourceError => "RESOURCE_ERROR",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NotImplemented => "NOT_IMPLEMENTED",
            Self::InternalError => "INTERNAL_ERROR",
        }
    }

    /// Whether the code ends the whole connection and not only the channel.
    #[must_use]
    pub const fn is_connection_error(self) -> bool {
        matches!(self as u16, 320 | 402 | 501..=599)
    }
}

/// Why a channel or a connection is closed, as the other side will read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AmqpError {
    /// The reply code.
    pub code: ReplyCode,
    /// `NAME - explanation`, at most 255 octets.
    pub text: String,
    /// Class of the method that failed, 0 when none did.
    pub class_id: u16,
    /// Id of the method that failed, 0 when none did.
    pub method_id: u16,
    /// Where the next frame starts is not known: nothing that is received afterwards can be read as frames. Otherwise
    /// [`frame_len`](crate::frame::frame_len) tells how much a refused frame takes.
    pub stream_lost: bool,
}

impl AmqpError {
    /// An error with the text `NAME - explanation`, cut to what a reply can carry.
    #[must_use]
    pub fn new(code: ReplyCode, explanation: impl Display) -> Self {
        let mut text = String::with_capacity(96);
        // Writing to a String fails only if the explanation's own Display does; what it wrote so far is kept.
        let _ = write!(text, "{} - {explanation}", code.name());
        cut(&mut text);
        Self::with_text(code, text)
    }

    /// 541 without an explanation, for failures whose cause is nobody's business outside.
    #[must_use]
    pub fn internal() -> Self {
        Self::with_text(ReplyCode::InternalError, ReplyCode::InternalError.name().to_owned())
    }

    /// The same error, blamed on a method.
    #[must_use]
    pub fn at(mut self, class_id: u16, method_id: u16) -> Self {
        self.class_id = class_id;
        self.method_id = method_id;
        self
    }

    /// Whether the error closes the connection; on channel 0 every error does.
    #[must_use]
    pub fn is_connection_error(&self) -> bool {
        self.code.is_connection_error()
    }

    /// 505 for a well-formed frame where none of its kind may be.
    #[must_use]
    pub fn unexpected_frame(frame_type: u8, payload: &[u8]) -> Self {
        Self::new(ReplyCode::UnexpectedFrame, format_args!("type {frame_type}, {}", Snippet(payload)))
    }

    /// 503 for a method this side does not serve.
    #[must_use]
    pub fn unimplemented_method(class_id: u16, method_id: u16) -> Self {
        Self::new(ReplyCode::CommandInvalid, "unimplemented method").at(class_id, method_id)
    }

    /// 501 for a frame that is wrong in itself; `reason` follows the octets.
    pub(crate) fn bad_frame(frame_type: u8, payload: &[u8], reason: impl Display) -> Self {
        Self::new(ReplyCode::FrameError, format_args!("type {frame_type}, {}: {reason}", Snippet(payload)))
    }

    /// 501 for arguments that do not have the shape of their method.
    pub(crate) fn cannot_decode(arguments: &[u8], class_id: u16, method_id: u16) -> Self {
        Self::new(ReplyCode::FrameError, format_args!("cannot decode {}", Numbers(arguments))).at(class_id, method_id)
    }

    /// 501 for a short string that is not UTF-8.
    pub(crate) fn malformed_utf8() -> Self {
        Self::new(ReplyCode::FrameError, "Malformed UTF-8 in shortstr")
    }

    /// 501 for a field table that is not one.
    pub(crate) fn malformed_table(error: TableError) -> Self {
        Self::new(ReplyCode::FrameError, format_args!("malformed field table: {error}"))
    }

    pub(crate) fn losing_stream(mut self) -> Self {
        self.stream_lost = true;
        self
    }

    fn with_text(code: ReplyCode, text: String) -> Self {
        Self { code, text, class_id: 0, method_id: 0, stream_lost: false }
    }
}

impl Display for AmqpError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.as_u16(), self.text)
    }
}

impl std::error::Error for AmqpError {}

/// Cuts at a character limit, so that the text stays UTF-8.
fn cut(text: &mut String) {
    if text.len() > TEXT_MAX {
        let kept = names::cut_at(text, TEXT_MAX - CUT_MARK.len()).len();
        text.truncate(kept);
        text.push_str(CUT_MARK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_starts_with_the_name() {
        let error = AmqpError::new(ReplyCode::NotFound, "no queue 'q' in vhost '/'").at(50, 10);
        assert_eq!(error.text, "NOT_FOUND - no queue 'q' in vhost '/'");
        assert_eq!((error.code.as_u16(), error.class_id, error.method_id), (404, 50, 10));
        assert!(!error.is_connection_error());
        assert_eq!(error.to_string(), "404 NOT_FOUND - no queue 'q' in vhost '/'");
    }

    #[test]
    fn long_text_is_cut_to_255_octets() {
        let exact = AmqpError::new(ReplyCode::NotFound, "x".repeat(243));
        assert_eq!(exact.text.len(), 255);
        assert!(exact.text.ends_with('x'));
        let cut = AmqpError::new(ReplyCode::NotFound, "x".repeat(244));
        assert_eq!(cut.text.len(), 255);
        assert!(cut.text.ends_with("x..."));
    }

    #[test]
    fn text_is_never_cut_inside_a_character() {
        for padding in 0..4 {
            let error = AmqpError::new(ReplyCode::NotFound, format!("{}{}", "x".repeat(padding), "ü€".repeat(200)));
            assert!(error.text.len() <= 255 && error.text.len() > 248, "{}", error.text.len());
            assert!(error.text.ends_with("..."));
        }
    }

    #[test]
    fn internal_error_has_no_suffix() {
        assert_eq!(AmqpError::internal().text, "INTERNAL_ERROR");
    }

    #[test]
    fn scope_follows_the_code() {
        use ReplyCode::*;
        for code in [
            ConnectionForced,
            InvalidPath,
            FrameError,
            SyntaxError,
            CommandInvalid,
            ChannelError,
            UnexpectedFrame,
            ResourceError,
            NotAllowed,
            NotImplemented,
            InternalError,
        ] {
            assert!(code.is_connection_error(), "{code:?}");
        }
        for code in [ContentTooLarge, NoRoute, NoConsumers, AccessRefused, NotFound, ResourceLocked, PreconditionFailed]
        {
            assert!(!code.is_connection_error(), "{code:?}");
        }
    }
}
