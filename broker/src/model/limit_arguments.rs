//! Validation of the arguments of a new queue that limit what it holds and for how long.

use amq_protocol::types::AMQPValue;
use protocol::error::AmqpError;

use super::argument_errors::invalid;
use super::arguments::{integer, string, type_name};
use super::expiration;

/// Time that a message may wait, in milliseconds.
pub const MESSAGE_TTL: &str = "x-message-ttl";
/// Time without use after which the queue ends, in milliseconds.
pub const EXPIRES: &str = "x-expires";
/// Most ready messages.
pub const MAX_LENGTH: &str = "x-max-length";
/// Most octets of bodies of ready messages.
pub const MAX_LENGTH_BYTES: &str = "x-max-length-bytes";
/// What becomes of messages for which there is no room.
pub const OVERFLOW: &str = "x-overflow";

/// All of them.
pub const ALL: [&str; 5] = [MESSAGE_TTL, EXPIRES, MAX_LENGTH, MAX_LENGTH_BYTES, OVERFLOW];

/// What becomes of messages for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ones go.
    #[default]
    DropHead,
    /// New ones are refused.
    RejectPublish,
    /// New ones are refused and dead-lettered.
    RejectPublishDlx,
}

impl Overflow {
    /// By the name that clients and policies give it.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "drop-head" => Some(Self::DropHead),
            "reject-publish" => Some(Self::RejectPublish),
            "reject-publish-dlx" => Some(Self::RejectPublishDlx),
            _ => None,
        }
    }
}

/// Checks one argument; others than [`ALL`] are right.
pub(super) fn validate(name: &str, value: &AMQPValue, queue: &str, vhost: &str) -> Result<(), AmqpError> {
    let refuse = |reason: std::fmt::Arguments<'_>| Err(invalid(name, queue, vhost, &reason));
    if name == OVERFLOW {
        return match string(value) {
            None => refuse(format_args!("{{unacceptable_type,{}}}", type_name(value))),
            Some(text) if Overflow::named(&text).is_none() => refuse(format_args!("invalid_overflow")),
            Some(_) => Ok(()),
        };
    }
    if !ALL.contains(&name) {
        return Ok(());
    }
    let is_time = matches!(name, MESSAGE_TTL | EXPIRES);
    match integer(value) {
        None => refuse(format_args!("\"expected integer, got {}\"", type_name(value))),
        Some(0) if name == EXPIRES => refuse(format_args!("{{value_zero,0}}")),
        Some(number) => match u64::try_from(number) {
            Err(_) => refuse(format_args!("{{value_negative,{number}}}")),
            Ok(ms) if is_time && ms > expiration::MAX_MS => refuse(format_args!("{{value_too_large,{ms}}}")),
            Ok(_) => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, value: AMQPValue) -> Option<String> {
        validate(name, &value, "q", "/").err().map(|error| error.text)
    }

    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        for (name, value, reason) in [
            (MESSAGE_TTL, text("1"), "\"expected integer, got longstr\""),
            (MESSAGE_TTL, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (MESSAGE_TTL, AMQPValue::LongLongInt(315_360_000_001), "{value_too_large,315360000001}"),
            (MESSAGE_TTL, AMQPValue::Timestamp(5), "\"expected integer, got timestamp\""),
            (EXPIRES, AMQPValue::LongInt(0), "{value_zero,0}"),
            (EXPIRES, AMQPValue::ShortInt(-5), "{value_negative,-5}"),
            (EXPIRES, AMQPValue::LongLongInt(315_360_000_001), "{value_too_large,315360000001}"),
            (MAX_LENGTH, AMQPValue::ShortShortInt(-1), "{value_negative,-1}"),
            (MAX_LENGTH, AMQPValue::Boolean(true), "\"expected integer, got bool\""),
            (MAX_LENGTH_BYTES, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (OVERFLOW, text("sideways"), "invalid_overflow"),
            (OVERFLOW, AMQPValue::ShortShortInt(1), "{unacceptable_type,byte}"),
        ] {
            let expected = format!("PRECONDITION_FAILED - invalid arg '{name}' for queue 'q' in vhost '/': {reason}");
            assert_eq!(refusal(name, value), Some(expected));
        }
    }

    #[test]
    fn everything_that_can_be_meant_is_taken() {
        for (name, value) in [
            (MESSAGE_TTL, AMQPValue::LongInt(0)),
            (MESSAGE_TTL, AMQPValue::LongLongInt(315_360_000_000)),
            (EXPIRES, AMQPValue::ShortShortUInt(1)),
            (MAX_LENGTH, AMQPValue::LongLongInt(i64::MAX)),
            (MAX_LENGTH_BYTES, AMQPValue::LongUInt(0)),
            (OVERFLOW, AMQPValue::LongString("drop-head".into())),
            (OVERFLOW, AMQPValue::LongString("reject-publish".into())),
            (OVERFLOW, AMQPValue::LongString("reject-publish-dlx".into())),
            ("x-other", AMQPValue::Void),
        ] {
            assert_eq!(refusal(name, value), None);
        }
    }
}
