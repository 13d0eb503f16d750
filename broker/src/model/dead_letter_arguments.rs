//! Validation of the arguments of a new queue that say where its dead letters go.

use std::borrow::Cow;

use protocol::error::{AmqpError, ReplyCode};

use super::argument_errors::{invalid, not_for_classic};
use super::arguments::{Arguments, string, type_name};

/// The exchange that they go to.
pub const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
/// The key that they get.
pub const DEAD_LETTER_ROUTING_KEY: &str = "x-dead-letter-routing-key";
/// Whether they may be lost.
pub const DEAD_LETTER_STRATEGY: &str = "x-dead-letter-strategy";

/// The exchange that the arguments name. Asked for before rights are, which in turn come before other arguments.
///
/// # Errors
///
/// 406 when it is not a string.
pub fn dead_letter_exchange<'a>(
    arguments: &'a Arguments,
    queue: &str,
    vhost: &str,
) -> Result<Option<Cow<'a, str>>, AmqpError> {
    let Some(value) = arguments.get(DEAD_LETTER_EXCHANGE) else {
        return Ok(None);
    };
    string(value).map(Some).ok_or_else(|| {
        AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!(
                "invalid type '{}' for arg '{DEAD_LETTER_EXCHANGE}' in queue '{queue}' in vhost '{vhost}'",
                type_name(value)
            ),
        )
    })
}

/// Checks the key and the strategy; classic queues have no strategy.
pub(super) fn validate(arguments: &Arguments, is_classic: bool, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    let text = |name| match arguments.get(name) {
        None => Ok(None),
        Some(value) => string(value)
            .map(Some)
            .ok_or_else(|| invalid(name, queue, vhost, &format_args!("{{unacceptable_type,{}}}", type_name(value)))),
    };
    if text(DEAD_LETTER_ROUTING_KEY)?.is_some() && arguments.get(DEAD_LETTER_EXCHANGE).is_none() {
        return Err(invalid(DEAD_LETTER_ROUTING_KEY, queue, vhost, &"routing_key_but_no_dlx_defined"));
    }
    if is_classic && arguments.get(DEAD_LETTER_STRATEGY).is_some() {
        return Err(not_for_classic(DEAD_LETTER_STRATEGY, queue, vhost));
    }
    match text(DEAD_LETTER_STRATEGY)?.as_deref() {
        None | Some("at-most-once" | "at-least-once") => Ok(()),
        Some(_) => Err(invalid(DEAD_LETTER_STRATEGY, queue, vhost, &"invalid_dlx_strategy")),
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::AMQPValue;

    use super::*;

    fn refusal(pairs: &[(&str, AMQPValue)], is_classic: bool) -> Option<String> {
        let mut arguments = Arguments::default();
        for (name, value) in pairs {
            arguments.insert(name, value.clone());
        }
        dead_letter_exchange(&arguments, "q", "/")
            .and_then(|_| validate(&arguments, is_classic, "q", "/"))
            .err()
            .map(|error| error.text)
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        let exchange = || (DEAD_LETTER_EXCHANGE, text(""));
        let invalid = |name: &str, reason: &str| {
            format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/'{reason}")
        };
        assert_eq!(
            refusal(&[(DEAD_LETTER_EXCHANGE, AMQPValue::LongInt(5))], true).as_deref(),
            Some(
                "PRECONDITION_FAILED - invalid type 'signedint' for arg 'x-dead-letter-exchange' \
                 in queue 'q' in vhost '/'"
            )
        );
        let key = |value| (DEAD_LETTER_ROUTING_KEY, value);
        assert_eq!(
            refusal(&[key(text("k"))], true),
            Some(invalid(DEAD_LETTER_ROUTING_KEY, ": routing_key_but_no_dlx_defined"))
        );
        for pairs in [vec![key(AMQPValue::LongInt(5))], vec![exchange(), key(AMQPValue::LongInt(5))]] {
            let expected = invalid(DEAD_LETTER_ROUTING_KEY, ": {unacceptable_type,signedint}");
            assert_eq!(refusal(&pairs, true), Some(expected));
        }
        let strategy = |value| [exchange(), (DEAD_LETTER_STRATEGY, value)];
        assert_eq!(
            refusal(&strategy(text("at-least-once")), true),
            Some(invalid(DEAD_LETTER_STRATEGY, " of queue type rabbit_classic_queue"))
        );
        assert_eq!(
            refusal(&strategy(text("foo")), false),
            Some(invalid(DEAD_LETTER_STRATEGY, ": invalid_dlx_strategy"))
        );
        assert_eq!(
            refusal(&strategy(AMQPValue::LongInt(5)), false),
            Some(invalid(DEAD_LETTER_STRATEGY, ": {unacceptable_type,signedint}"))
        );
        assert_eq!(refusal(&strategy(text("at-least-once")), false), None);
        assert_eq!(refusal(&[exchange(), key(text("k"))], true), None);
    }
}
