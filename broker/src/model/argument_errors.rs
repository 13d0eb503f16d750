//! Error texts shared by the argument validations.

use std::fmt;

use protocol::error::{AmqpError, ReplyCode};

use super::queue_kind::QueueKind;

/// 406 for an argument whose value cannot be used.
pub(super) fn invalid(name: &str, queue: &str, vhost: &str, reason: &dyn fmt::Display) -> AmqpError {
    AmqpError::new(
        ReplyCode::PreconditionFailed,
        format_args!("invalid arg '{name}' for queue '{queue}' in vhost '{vhost}': {reason}"),
    )
}

/// 406 for an argument that queues of this kind do not have.
pub(super) fn not_for(kind: QueueKind, name: &str, queue: &str, vhost: &str) -> AmqpError {
    let module = kind.module();
    AmqpError::new(
        ReplyCode::PreconditionFailed,
        format_args!(
            "invalid arg '{name}' for queue '{queue}' in vhost '{vhost}' \
             of queue type {module}"
        ),
    )
}

/// 540 for something other brokers have and this one does not have yet.
pub fn not_implemented(what: &dyn fmt::Display) -> AmqpError {
    AmqpError::new(ReplyCode::NotImplemented, format_args!("{what} is not supported yet"))
}
