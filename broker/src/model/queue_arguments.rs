//! Validation of the `x-` arguments of a new queue.

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};

use super::argument_errors::{invalid, not_for, not_implemented};
use super::arguments::{Arguments, integer, string, type_name};
use super::dead_letter_arguments::{self, DEAD_LETTER_EXCHANGE, DEAD_LETTER_ROUTING_KEY, DEAD_LETTER_STRATEGY};
use super::deduplication;
use super::delivery_arguments;
use super::limit_arguments;
use super::queue_kind::QueueKind;

/// The argument that selects the kind of queue.
pub const QUEUE_TYPE: &str = "x-queue-type";

const MAX_PRIORITY: &str = "x-max-priority";
/// The highest priority in a quorum queue.
const QUORUM_MAX_PRIORITY: u8 = 31;
const SINGLE_ACTIVE_CONSUMER: &str = "x-single-active-consumer";
const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";
const QUEUE_VERSION: &str = "x-queue-version";
const LEADER_LOCATOR: &str = "x-queue-leader-locator";
const MASTER_LOCATOR: &str = "x-queue-master-locator";

/// Arguments that other brokers act upon and this one does not yet. Accepting one silently would
/// promise something that does not happen, so a new queue with any of them is refused.
const PENDING: &[&str] = &[
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-filter-size-bytes",
];

/// Arguments that take part when a redeclare is compared with an existing queue of this kind.
pub fn compared(kind: QueueKind) -> impl Iterator<Item = &'static str> {
    let pending = PENDING.iter().copied().chain(delivery_arguments::COMPARED).chain(limit_arguments::ALL);
    let pending = pending.chain(deduplication::ARGUMENTS);
    let all = pending.chain([
        DEAD_LETTER_EXCHANGE,
        DEAD_LETTER_ROUTING_KEY,
        DEAD_LETTER_STRATEGY,
        "x-queue-mode",
        QUEUE_VERSION,
        LEADER_LOCATOR,
        MASTER_LOCATOR,
        QUEUE_TYPE,
        MAX_PRIORITY,
        SINGLE_ACTIVE_CONSUMER,
        CONSUMER_TIMEOUT,
    ]);
    all.filter(move |name| !kind.has_not(name))
}

/// The highest priority that a message has in a queue with these arguments, 0 when all are equal. As in RabbitMQ a queue that
/// asks for priorities has at least two, and a quorum queue always has the same.
pub fn max_priority(arguments: &Arguments) -> u8 {
    if QueueKind::of(arguments) == QueueKind::Quorum {
        return QUORUM_MAX_PRIORITY;
    }
    let value = arguments.get(MAX_PRIORITY).and_then(integer);
    value.and_then(|value| u8::try_from(value).ok()).map_or(0, |max| max.max(1))
}

/// Whether only one of the consumers of a queue with these arguments is active.
pub fn is_single_active_consumer(arguments: &Arguments) -> bool {
    matches!(arguments.get(SINGLE_ACTIVE_CONSUMER), Some(AMQPValue::Boolean(true)))
}

/// How long consumers of a queue with these arguments may take to acknowledge, in milliseconds; 0 is for ever.
pub fn consumer_timeout_ms(arguments: &Arguments) -> Option<u64> {
    u64::try_from(arguments.get(CONSUMER_TIMEOUT).and_then(integer)?).ok()
}

/// Arguments as they are stored: the default type, classic without one, is filled in when the client left it open.
pub fn with_type(mut arguments: Arguments, default: Option<&str>) -> Arguments {
    let open = match arguments.get(QUEUE_TYPE) {
        None => true,
        Some(AMQPValue::LongString(name)) => matches!(name.as_bytes(), b"" | b"undefined"),
        Some(_) => false,
    };
    if open {
        arguments.insert(QUEUE_TYPE, AMQPValue::LongString(default.unwrap_or("classic").into()));
    }
    arguments
}

/// Refuses a new queue whose arguments cannot be honoured.
pub fn validate(arguments: &Arguments, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    if let Some(value) = arguments.get(QUEUE_TYPE) {
        check_type(value, queue, vhost)?;
    }
    let kind = QueueKind::of(arguments);
    for (name, value) in arguments.iter() {
        if kind.has_not(name) {
            return Err(not_for(kind, name, queue, vhost));
        }
        delivery_arguments::validate(name, value, queue, vhost)?;
        match name {
            QUEUE_VERSION => check_version(value, queue, vhost)?,
            LEADER_LOCATOR => check_leader_locator(value, queue, vhost)?,
            MAX_PRIORITY => check_max_priority(value, queue, vhost)?,
            CONSUMER_TIMEOUT => {
                expect_not_negative(CONSUMER_TIMEOUT, value, queue, vhost)?;
            }
            SINGLE_ACTIVE_CONSUMER if !matches!(value, AMQPValue::Boolean(_)) => {
                return Err(unacceptable_type(SINGLE_ACTIVE_CONSUMER, value, queue, vhost));
            }
            MASTER_LOCATOR => {
                return Err(AmqpError::new(
                    ReplyCode::InternalError,
                    "Feature `queue_master_locator` is deprecated.\n\
                     By default, this feature is not permitted anymore.\n\
                     The feature will be removed from a future major RabbitMQ version, regardless of the \
                     configuration; actual version to be determined.\n\
                     To continue using this feature when it is not permitted by default, set the following parameter",
                ));
            }
            _ if PENDING.contains(&name) => {
                return Err(not_implemented(&format_args!("queue argument '{name}'")));
            }
            _ => limit_arguments::validate(name, value, queue, vhost)?,
        }
    }
    deduplication::check(arguments, |name, reason| invalid(name, queue, vhost, reason))?;
    dead_letter_arguments::validate(arguments, queue, vhost)
}

fn check_type(value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    let kind = expect_string(QUEUE_TYPE, value, queue, vhost)?;
    match kind.as_ref() {
        "classic" | "quorum" | "undefined" | "" => Ok(()),
        "stream" => Err(not_implemented(&format_args!("queue argument '{QUEUE_TYPE}' with value '{kind}'"))),
        _ => Err(invalid(QUEUE_TYPE, queue, vhost, &format_args!("\"unsupported queue type '{kind}'\""))),
    }
}

fn check_version(value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    match integer(value) {
        Some(2) => Ok(()),
        Some(version) => {
            Err(invalid(QUEUE_VERSION, queue, vhost, &format_args!("\"unsupported queue version '{version}'\"")))
        }
        None => {
            Err(invalid(QUEUE_VERSION, queue, vhost, &format_args!("\"expected integer, got {}\"", type_name(value))))
        }
    }
}

fn check_leader_locator(value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    let locator = expect_string(LEADER_LOCATOR, value, queue, vhost)?;
    match locator.as_ref() {
        "client-local" | "balanced" | "random" | "least-leaders" => Ok(()),
        _ => Err(invalid(LEADER_LOCATOR, queue, vhost, &"invalid_queue_locator_arg")),
    }
}

fn check_max_priority(value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    let max = expect_not_negative(MAX_PRIORITY, value, queue, vhost)?;
    if max > i64::from(u8::MAX) {
        return Err(invalid(MAX_PRIORITY, queue, vhost, &format_args!("{{max_value_exceeded,{max}}}")));
    }
    Ok(())
}

fn expect_not_negative(name: &str, value: &AMQPValue, queue: &str, vhost: &str) -> Result<i64, AmqpError> {
    match integer(value) {
        Some(number) if number >= 0 => Ok(number),
        Some(number) => Err(invalid(name, queue, vhost, &format_args!("{{value_negative,{number}}}"))),
        None => Err(invalid(name, queue, vhost, &format_args!("\"expected integer, got {}\"", type_name(value)))),
    }
}

fn expect_string<'a>(
    name: &str,
    value: &'a AMQPValue,
    queue: &str,
    vhost: &str,
) -> Result<std::borrow::Cow<'a, str>, AmqpError> {
    string(value).ok_or_else(|| unacceptable_type(name, value, queue, vhost))
}

fn unacceptable_type(name: &str, value: &AMQPValue, queue: &str, vhost: &str) -> AmqpError {
    invalid(name, queue, vhost, &format_args!("{{unacceptable_type,{}}}", type_name(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, value: AMQPValue) -> Option<String> {
        let mut arguments = Arguments::default();
        arguments.insert(name, value);
        validate(&arguments, "q", "/").err().map(|error| error.text)
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    #[test]
    fn accepted() {
        assert_eq!(refusal(QUEUE_TYPE, text("classic")), None);
        assert_eq!(refusal(QUEUE_TYPE, text("")), None);
        assert_eq!(refusal("x-queue-mode", AMQPValue::LongInt(1)), None);
        assert_eq!(refusal(QUEUE_VERSION, AMQPValue::ShortShortInt(2)), None);
        assert_eq!(refusal(LEADER_LOCATOR, text("balanced")), None);
        assert_eq!(refusal("x-nonsense", AMQPValue::LongInt(1)), None);
        assert_eq!(refusal("x-name-prefix", text("p")), None);
    }

    #[test]
    fn wrong_values_have_their_own_texts() {
        let prefix = "PRECONDITION_FAILED - invalid arg";
        for (name, value, reason) in [
            (QUEUE_TYPE, text("foo"), "\"unsupported queue type 'foo'\""),
            (QUEUE_TYPE, AMQPValue::ShortShortInt(1), "{unacceptable_type,byte}"),
            (QUEUE_VERSION, AMQPValue::LongInt(1), "\"unsupported queue version '1'\""),
            (QUEUE_VERSION, text("2"), "\"expected integer, got longstr\""),
            (LEADER_LOCATOR, text("here"), "invalid_queue_locator_arg"),
            (MAX_PRIORITY, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (MAX_PRIORITY, AMQPValue::LongInt(256), "{max_value_exceeded,256}"),
            (MAX_PRIORITY, text("5"), "\"expected integer, got longstr\""),
            (SINGLE_ACTIVE_CONSUMER, text("true"), "{unacceptable_type,longstr}"),
            (CONSUMER_TIMEOUT, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            ("x-message-deduplication", AMQPValue::LongInt(1), "{unacceptable_type,signedint}"),
            ("x-cache-size", AMQPValue::LongInt(0), "{value_zero,0}"),
        ] {
            assert_eq!(refusal(name, value), Some(format!("{prefix} '{name}' for queue 'q' in vhost '/': {reason}")));
        }
    }

    #[test]
    fn what_has_not_landed_is_named() {
        for name in PENDING.iter().filter(|name| !QueueKind::Classic.has_not(name)) {
            assert_eq!(
                refusal(name, AMQPValue::LongInt(1)),
                Some(format!("NOT_IMPLEMENTED - queue argument '{name}' is not supported yet"))
            );
        }
        assert_eq!(
            refusal(QUEUE_TYPE, text("stream")).as_deref(),
            Some(
                "NOT_IMPLEMENTED - queue argument 'x-queue-type' with value 'stream' \
                 is not supported yet"
            )
        );
    }

    #[test]
    fn master_locator_closes_the_connection() {
        let refused = refusal(MASTER_LOCATOR, text("min-masters")).unwrap_or_default();
        assert!(refused.starts_with("INTERNAL_ERROR - Feature `queue_master_locator` is deprecated.\n"));
    }

    #[test]
    fn the_default_type_is_filled_in() {
        assert_eq!(with_type(Arguments::default(), None).get(QUEUE_TYPE), Some(&text("classic")));
        let mut quorum = Arguments::default();
        quorum.insert(QUEUE_TYPE, text("quorum"));
        assert_eq!(with_type(quorum, None).get(QUEUE_TYPE), Some(&text("quorum")));
    }
}
