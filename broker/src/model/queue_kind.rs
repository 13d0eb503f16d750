//! The kinds of queues, as `x-queue-type` names them.

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};

use super::arguments::Arguments;
use super::queue_arguments::QUEUE_TYPE;

/// What a queue promises. There is one implementation of both: on a single node a quorum queue is a durable queue that stores
/// every message, counts deliveries and orders by priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Messages are as durable as they say.
    Classic,
    /// Every message is durable, and comes back a limited number of times only.
    Quorum,
}

impl QueueKind {
    /// The kind of a queue with these arguments, which are valid.
    pub fn of(arguments: &Arguments) -> Self {
        match arguments.get(QUEUE_TYPE) {
            Some(AMQPValue::LongString(name)) if name.as_bytes() == b"quorum" => Self::Quorum,
            _ => Self::Classic,
        }
    }

    /// As RabbitMQ's error texts name it.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }

    /// Whether queues of other kinds only have this argument.
    pub(super) fn has_not(self, argument: &str) -> bool {
        match argument {
            "x-max-age"
            | "x-stream-max-segment-size-bytes"
            | "x-stream-filter-size-bytes"
            | "x-initial-cluster-size" => true,
            "x-max-priority" | "x-queue-mode" | "x-queue-version" | "x-queue-master-locator" => self == Self::Quorum,
            "x-delivery-limit"
            | "x-dead-letter-strategy"
            | "x-quorum-initial-group-size"
            | "x-max-in-memory-length"
            | "x-max-in-memory-bytes"
            | "x-consumer-disconnected-timeout"
            | "x-delayed-retry-type"
            | "x-delayed-retry-min"
            | "x-delayed-retry-max" => self == Self::Classic,
            _ => false,
        }
    }

    /// Refuses a name that the broker has to make up.
    ///
    /// # Errors
    ///
    /// 406 for kinds that have none.
    pub fn check_server_named(arguments: &Arguments) -> Result<(), AmqpError> {
        let module = match arguments.get(QUEUE_TYPE) {
            Some(AMQPValue::LongString(name)) if name.as_bytes() == b"quorum" => "rabbit_quorum_queue",
            Some(AMQPValue::LongString(name)) if name.as_bytes() == b"stream" => "rabbit_stream_queue",
            _ => return Ok(()),
        };
        Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!("Cannot declare a server-named queue for type {module}"),
        ))
    }

    /// Refuses what a new queue of this kind cannot be.
    ///
    /// # Errors
    ///
    /// 406 that names the property.
    pub fn check_properties(
        self,
        (durable, exclusive, auto_delete): (bool, bool, bool),
        queue: &str,
        vhost: &str,
    ) -> Result<(), AmqpError> {
        let wrong = match self {
            Self::Classic => return Ok(()),
            Self::Quorum if auto_delete => "auto-delete",
            Self::Quorum if exclusive => "exclusive-owner",
            Self::Quorum if !durable => "non-durable",
            Self::Quorum => return Ok(()),
        };
        Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!("invalid property '{wrong}' for queue '{queue}' in vhost '{vhost}'"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(kind: &str) -> Arguments {
        let mut arguments = Arguments::default();
        arguments.insert(QUEUE_TYPE, AMQPValue::LongString(kind.into()));
        arguments
    }

    #[test]
    fn quorum_queues_are_durable_and_shared() {
        let refusal = |durable, exclusive, auto_delete| {
            QueueKind::Quorum
                .check_properties((durable, exclusive, auto_delete), "q", "/")
                .err()
                .map(|error| error.text)
        };
        let text =
            |what: &str| Some(format!("PRECONDITION_FAILED - invalid property '{what}' for queue 'q' in vhost '/'"));
        assert_eq!(refusal(true, false, false), None);
        assert_eq!(refusal(false, true, true), text("auto-delete"));
        assert_eq!(refusal(false, true, false), text("exclusive-owner"));
        assert_eq!(refusal(false, false, false), text("non-durable"));
        assert!(QueueKind::Classic.check_properties((false, true, true), "q", "/").is_ok());
    }

    #[test]
    fn only_classic_queues_get_a_name() {
        for (kind, module) in [("quorum", "rabbit_quorum_queue"), ("stream", "rabbit_stream_queue")] {
            let refused = QueueKind::check_server_named(&arguments(kind)).err().map(|error| error.text);
            let text = format!("PRECONDITION_FAILED - Cannot declare a server-named queue for type {module}");
            assert_eq!(refused, Some(text));
        }
        assert!(QueueKind::check_server_named(&arguments("classic")).is_ok());
    }

    #[test]
    fn the_kind_is_in_the_arguments() {
        assert_eq!(QueueKind::of(&arguments("quorum")), QueueKind::Quorum);
        assert_eq!(QueueKind::of(&arguments("classic")), QueueKind::Classic);
        assert_eq!(QueueKind::of(&Arguments::default()), QueueKind::Classic);
    }
}
