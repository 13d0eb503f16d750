//! The `x-` arguments of a consumer.

use protocol::error::AmqpError;

use super::argument_errors::{invalid, not_for_classic};
use super::arguments::{Arguments, integer, type_name};

const PRIORITY: &str = "x-priority";
const TIMEOUT: &str = "x-consumer-timeout";

/// Refuses what cannot be honoured on a classic queue; carries the ids of basic.consume.
pub fn validate(arguments: &Arguments, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    for (name, value) in arguments.iter() {
        let refused = match name {
            PRIORITY | TIMEOUT => match integer(value) {
                Some(number) if name == TIMEOUT && number < 0 => {
                    invalid(name, queue, vhost, &format_args!("{{value_negative,{number}}}"))
                }
                Some(_) => continue,
                None => invalid(name, queue, vhost, &format_args!("\"expected integer, got {}\"", type_name(value))),
            },
            "x-stream-offset" | "x-stream-filter" | "x-stream-match-unfiltered" => not_for_classic(name, queue, vhost),
            _ => continue,
        };
        return Err(refused.at(60, 20));
    }
    Ok(())
}

/// The priority of a consumer among those of its queue, 0 without.
pub fn priority(arguments: &Arguments) -> i64 {
    arguments.get(PRIORITY).and_then(integer).unwrap_or(0)
}

/// How long the consumer may take to acknowledge a delivery, in milliseconds, if it says so; 0 is for ever.
pub fn timeout_ms(arguments: &Arguments) -> Option<u64> {
    u64::try_from(arguments.get(TIMEOUT).and_then(integer)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::types::AMQPValue;

    fn refusal(name: &str, value: AMQPValue) -> Option<String> {
        let mut arguments = Arguments::default();
        arguments.insert(name, value);
        validate(&arguments, "q", "/").err().map(|error| error.text)
    }

    #[test]
    fn stream_arguments_are_not_for_classic_queues() {
        assert_eq!(
            refusal("x-stream-offset", AMQPValue::LongInt(1)).as_deref(),
            Some(
                "PRECONDITION_FAILED - invalid arg 'x-stream-offset' for queue 'q' in vhost '/' \
                 of queue type rabbit_classic_queue"
            )
        );
    }

    #[test]
    fn priorities_and_timeouts_are_integers() {
        let prefix = "PRECONDITION_FAILED - invalid arg";
        for (name, value, reason) in [
            (PRIORITY, AMQPValue::LongString("1".into()), "\"expected integer, got longstr\""),
            (TIMEOUT, AMQPValue::Boolean(true), "\"expected integer, got bool\""),
            (TIMEOUT, AMQPValue::LongInt(-1), "{value_negative,-1}"),
        ] {
            assert_eq!(refusal(name, value), Some(format!("{prefix} '{name}' for queue 'q' in vhost '/': {reason}")));
        }
        let mut arguments = Arguments::default();
        assert_eq!((priority(&arguments), timeout_ms(&arguments)), (0, None));
        arguments.insert(PRIORITY, AMQPValue::ShortShortInt(-5));
        arguments.insert(TIMEOUT, AMQPValue::LongUInt(1_000));
        assert_eq!(validate(&arguments, "q", "/").map_err(|error| error.text), Ok(()));
        assert_eq!((priority(&arguments), timeout_ms(&arguments)), (-5, Some(1_000)));
    }

    #[test]
    fn unknown_ones_are_ignored() {
        assert_eq!(refusal("x-cancel-on-ha-failover", AMQPValue::LongInt(1)), None);
    }
}
