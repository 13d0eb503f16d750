//! The arguments of a queue that counts deliveries, and what they and a policy give together.

use amq_protocol::types::AMQPValue;
use protocol::error::AmqpError;

use super::argument_errors::invalid;
use super::arguments::{Arguments, integer, type_name};

/// How often a message may come back in vain.
pub const DELIVERY_LIMIT: &str = "x-delivery-limit";
/// The limit where nobody sets one.
const DEFAULT_LIMIT: i64 = 20;

const INITIAL_GROUP_SIZE: &str = "x-quorum-initial-group-size";
const DISCONNECTED_TIMEOUT: &str = "x-consumer-disconnected-timeout";

/// All of them: they take part when a redeclare is compared.
pub(super) const COMPARED: [&str; 5] =
    [DELIVERY_LIMIT, INITIAL_GROUP_SIZE, DISCONNECTED_TIMEOUT, "x-max-in-memory-length", "x-max-in-memory-bytes"];

/// Checks the value of one of them.
pub(super) fn validate(name: &str, value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    if !COMPARED.contains(&name) {
        return Ok(());
    }
    match integer(value) {
        Some(0) if name == INITIAL_GROUP_SIZE => Err(invalid(name, queue, vhost, &"{value_zero,0}")),
        Some(number) if number < 0 && name != DELIVERY_LIMIT => {
            Err(invalid(name, queue, vhost, &format_args!("{{value_negative,{number}}}")))
        }
        Some(_) => Ok(()),
        None => Err(invalid(name, queue, vhost, &format_args!("\"expected integer, got {}\"", type_name(value)))),
    }
}

/// How often a message may come back in vain to a queue with these arguments and this limit of its policies; `None` is any
/// number of times. The lower one holds, and one that limits before one that does not.
pub fn delivery_limit(arguments: &Arguments, policy: Option<i64>) -> Option<u64> {
    let limit = match (arguments.get(DELIVERY_LIMIT).and_then(integer), policy) {
        (Some(one), Some(other)) if one < 0 || other < 0 => one.max(other),
        (Some(one), Some(other)) => one.min(other),
        (one, other) => one.or(other).unwrap_or(DEFAULT_LIMIT),
    };
    u64::try_from(limit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_holds() {
        let limit = |argument: Option<i64>, policy| {
            let mut arguments = Arguments::default();
            if let Some(argument) = argument {
                arguments.insert(DELIVERY_LIMIT, AMQPValue::LongLongInt(argument));
            }
            delivery_limit(&arguments, policy)
        };
        assert_eq!(limit(None, None), Some(20));
        assert_eq!((limit(Some(3), None), limit(None, Some(3))), (Some(3), Some(3)));
        assert_eq!((limit(Some(3), Some(5)), limit(Some(5), Some(3))), (Some(3), Some(3)));
        assert_eq!((limit(Some(-1), Some(5)), limit(Some(5), Some(-1))), (Some(5), Some(5)));
        assert_eq!((limit(Some(-1), None), limit(None, Some(-1)), limit(Some(-1), Some(-2))), (None, None, None));
        assert_eq!(limit(Some(0), None), Some(0));
    }

    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        let refusal = |name, value| validate(name, &value, "q", "/").err().map(|error| error.text);
        for (name, value, reason) in [
            (INITIAL_GROUP_SIZE, AMQPValue::LongInt(0), "{value_zero,0}"),
            (INITIAL_GROUP_SIZE, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (DISCONNECTED_TIMEOUT, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            ("x-max-in-memory-length", AMQPValue::LongInt(-1), "{value_negative,-1}"),
            ("x-max-in-memory-bytes", AMQPValue::LongString("x".into()), "\"expected integer, got longstr\""),
            (DELIVERY_LIMIT, AMQPValue::Boolean(true), "\"expected integer, got bool\""),
        ] {
            let text = format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/': {reason}");
            assert_eq!(refusal(name, value), Some(text));
        }
        for value in [-5, 0, 5, 1 << 40] {
            assert_eq!(refusal(DELIVERY_LIMIT, AMQPValue::LongLongInt(value)), None);
        }
        assert_eq!(refusal("x-other", AMQPValue::Boolean(true)), None);
    }
}
