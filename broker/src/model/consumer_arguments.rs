//! Validation of the `x-` arguments of a consumer.

use protocol::error::AmqpError;

use super::argument_errors::{not_for_classic, not_implemented};
use super::arguments::Arguments;

/// Refuses what cannot be honoured on a classic queue; carries the ids of basic.consume.
pub fn validate(arguments: &Arguments, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    for (name, _) in arguments.iter() {
        let refused = match name {
            "x-priority" | "x-consumer-timeout" => not_implemented(&format_args!("consumer argument '{name}'")),
            "x-stream-offset" | "x-stream-filter" | "x-stream-match-unfiltered" => not_for_classic(name, queue, vhost),
            _ => continue,
        };
        return Err(refused.at(60, 20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::types::AMQPValue;

    fn refusal(name: &str) -> Option<String> {
        let mut arguments = Arguments::default();
        arguments.insert(name, AMQPValue::LongInt(1));
        validate(&arguments, "q", "/").err().map(|error| error.text)
    }

    #[test]
    fn stream_arguments_are_not_for_classic_queues() {
        assert_eq!(
            refusal("x-stream-offset").as_deref(),
            Some(
                "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'q' in vhost '/' \
                 of queue type rabbit_classic_queue"
            )
        );
    }

    #[test]
    fn pending_ones_are_named_and_unknown_ones_ignored() {
        assert_eq!(
            refusal("x-priority").as_deref(),
            Some("NOT_IMPLEMENTED - consumer argument 'x-priority' is not supported yet")
        );
        assert!(refusal("x-consumer-timeout").is_some());
        assert_eq!(refusal("x-cancel-on-ha-failover"), None);
    }
}
