//! The errors of a message whose frames come in the wrong order or size.

use super::BODY_SIZE_MAX;
use crate::error::{AmqpError, ReplyCode};
use crate::fast::{BASIC, PUBLISH};

fn unexpected(what: impl std::fmt::Display) -> AmqpError {
    AmqpError::new(ReplyCode::UnexpectedFrame, what)
}

#[cold]
pub(super) fn not_a_method() -> AmqpError {
    unexpected("expected method frame, got non method frame instead")
}

#[cold]
pub(super) fn not_a_header() -> AmqpError {
    unexpected("expected content header for class 60, got non content header frame instead").at(BASIC, PUBLISH)
}

#[cold]
pub(super) fn not_a_body() -> AmqpError {
    unexpected("expected content body, got non content body frame instead").at(BASIC, PUBLISH)
}

#[cold]
pub(super) fn other_class(class_id: u16) -> AmqpError {
    unexpected(format_args!("expected content header for class 60, got one for class {class_id} instead"))
        .at(BASIC, PUBLISH)
}

#[cold]
pub(super) fn body_too_large(size: u64) -> AmqpError {
    let text = format_args!("content body size {size} exceeds maximum allowed size {BODY_SIZE_MAX}");
    AmqpError::new(ReplyCode::FrameError, text).at(BASIC, PUBLISH)
}

#[cold]
pub(super) fn body_exceeded() -> AmqpError {
    AmqpError::new(ReplyCode::FrameError, "content body frame exceeds remaining content size").at(BASIC, PUBLISH)
}
