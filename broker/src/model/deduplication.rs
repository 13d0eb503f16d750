//! Which messages an exchange or a queue takes for duplicates: its arguments, and the headers of messages.
//!
//! The arguments are LavinMQ's, the same for exchanges and queues; those of the exchange type are the ones of RabbitMQ's
//! community plugin, which differ in what is required.

use std::fmt::Display;

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};
use protocol::lookup;
use protocol::table::ValueRef;
use sha2::{Digest, Sha256};

use super::arguments::{Arguments, integer, string, type_name};

const ENABLED: &str = "x-message-deduplication";
const HEADER: &str = "x-deduplication-header";
const SIZE: &str = "x-cache-size";
const TTL: &str = "x-cache-ttl";
const PERSISTENCE: &str = "x-cache-persistence";

/// The arguments, for those who compare declarations.
pub const ARGUMENTS: [&str; 5] = [ENABLED, HEADER, SIZE, TTL, PERSISTENCE];

/// As many keys as LavinMQ remembers when nobody says how many.
const SIZE_DEFAULT: usize = 128;
/// The most keys that one exchange or queue may remember: under a gigabyte.
const SIZE_MAX: i64 = 10_000_000;
/// Octets of a header's name.
const HEADER_BYTES_MAX: usize = 255;

/// What identifies a message: a digest, so that a key takes little room whatever the client wrote, and nobody can make two
/// that are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; Key::BYTES]);

impl Key {
    /// Octets of a key.
    pub const BYTES: usize = 16;

    /// A key that was stored.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The key for a header's value: equal for integers of any width, for strings and octets, and for both kinds of floats,
    /// since client libraries choose among these by themselves.
    pub fn of(value: &ValueRef<'_>) -> Self {
        let mut digest = Sha256::new();
        let mut add = |kind: u8, octets: &[u8]| {
            digest.update([kind]);
            digest.update(octets);
        };
        match *value {
            ValueRef::LongString(octets) | ValueRef::Bytes(octets) => add(b'S', octets),
            ValueRef::Bool(value) => add(b't', &[value.into()]),
            ValueRef::F32(value) => add(b'd', &f64::from(value).to_bits().to_be_bytes()),
            ValueRef::F64(value) => add(b'd', &value.to_bits().to_be_bytes()),
            ValueRef::Decimal { scale, value } => {
                add(b'D', &[scale]);
                add(b'D', &value.to_be_bytes());
            }
            ValueRef::Timestamp(seconds) => add(b'T', &seconds.to_be_bytes()),
            ValueRef::Array(octets) => add(b'A', octets),
            ValueRef::Table(octets) => add(b'F', octets),
            ValueRef::Void => add(b'V', &[]),
            ref integer => add(b'l', &integer.as_integer().unwrap_or_default().to_be_bytes()),
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut key = [0; Self::BYTES];
        key.copy_from_slice(&digest[..Self::BYTES]);
        Self(key)
    }
}

/// What an exchange or queue was asked to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deduplication {
    header: Box<str>,
    /// Keys remembered at most.
    pub size: usize,
    /// How long a key is remembered, in milliseconds; `None` is for as long as there is room.
    pub ttl_ms: Option<u64>,
    /// Keys are remembered over a restart if the exchange or queue is durable.
    pub persists: bool,
}

impl Deduplication {
    /// What arguments that were checked ask for; `None` when they do not ask for it. `is_type`: the exchange is of the type
    /// that does it without being asked.
    pub fn from_arguments(arguments: &Arguments, is_type: bool) -> Option<Self> {
        if !is_type && arguments.get(ENABLED) != Some(&AMQPValue::Boolean(true)) {
            return None;
        }
        let positive = |name| arguments.get(name).and_then(|value| number(value, is_type)).filter(|number| *number > 0);
        let text = |name| arguments.get(name).and_then(string);
        Some(Self {
            header: text(HEADER).as_deref().unwrap_or(HEADER).into(),
            size: positive(SIZE).and_then(|size| usize::try_from(size.min(SIZE_MAX)).ok()).unwrap_or(SIZE_DEFAULT),
            ttl_ms: positive(TTL).and_then(|ttl_ms| u64::try_from(ttl_ms).ok()),
            persists: text(PERSISTENCE).as_deref() != Some("memory"),
        })
    }

    /// What identifies a message with these headers; `None` when nothing does.
    pub fn key(&self, headers: &[u8]) -> Option<Key> {
        match lookup(headers, self.header.as_bytes())? {
            ValueRef::Void => None,
            value => Some(Key::of(&value)),
        }
    }

    /// How long the key of a message with these headers is remembered, in milliseconds.
    pub fn ttl_ms(&self, headers: &[u8]) -> Option<u64> {
        let wanted = lookup(headers, TTL.as_bytes()).and_then(|value| value.as_integer());
        wanted.and_then(|wanted| u64::try_from(wanted).ok()).or(self.ttl_ms)
    }
}

/// The exchange type reads numbers in strings as well, as the plugin does.
fn number(value: &AMQPValue, is_type: bool) -> Option<i64> {
    integer(value).or_else(|| string(value).filter(|_| is_type)?.parse().ok())
}

/// Checks the arguments of a new queue, or of an exchange of another type; `invalid` makes the error of a name and a reason.
///
/// # Errors
///
/// For a value of the wrong type or out of range.
pub fn check(arguments: &Arguments, mut invalid: impl FnMut(&str, &dyn Display) -> AmqpError) -> Result<(), AmqpError> {
    for (name, value) in arguments.iter() {
        match name {
            ENABLED if !matches!(value, AMQPValue::Boolean(_)) => {
                return Err(invalid(name, &format_args!("{{unacceptable_type,{}}}", type_name(value))));
            }
            SIZE | TTL => {
                let Some(number) = integer(value) else {
                    return Err(invalid(name, &format_args!("\"expected integer, got {}\"", type_name(value))));
                };
                match number {
                    ..0 => return Err(invalid(name, &format_args!("{{value_negative,{number}}}"))),
                    0 => return Err(invalid(name, &"{value_zero,0}")),
                    _ if name == SIZE && number > SIZE_MAX => {
                        return Err(invalid(name, &format_args!("{{max_value_exceeded,{number}}}")));
                    }
                    _ => {}
                }
            }
            HEADER => match string(value) {
                None => return Err(invalid(name, &format_args!("{{unacceptable_type,{}}}", type_name(value)))),
                Some(header) if header.is_empty() || header.len() > HEADER_BYTES_MAX => {
                    return Err(invalid(name, &"\"expected the name of a header\""));
                }
                Some(_) => {}
            },
            PERSISTENCE if !is_persistence(value) => {
                return Err(invalid(name, &"\"must be either 'disk' or 'memory'\""));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the arguments of an exchange of the type that does it; the plugin's texts.
///
/// # Errors
///
/// 406 for a value of the wrong type or out of range, and without a size.
pub fn check_type(arguments: &Arguments) -> Result<(), AmqpError> {
    let refuse = |text: &dyn Display| Err(AmqpError::new(ReplyCode::PreconditionFailed, text));
    match arguments.get(SIZE).and_then(|value| number(value, true)) {
        Some(1..=SIZE_MAX) => {}
        Some(size) if size > SIZE_MAX => {
            return refuse(&format_args!("Invalid argument, '{SIZE}' must be at most {SIZE_MAX}, not {size}"));
        }
        _ => return refuse(&format_args!("Missing or invalid argument, '{SIZE}' must be an integer greater than 0")),
    }
    if let Some(value) = arguments.get(TTL)
        && number(value, true).is_none_or(|ttl| ttl <= 0)
    {
        return refuse(&format_args!("Invalid argument, '{TTL}' must be an integer greater than 0"));
    }
    if arguments.get(PERSISTENCE).is_some_and(|value| !is_persistence(value)) {
        return refuse(&format_args!("Invalid argument, '{PERSISTENCE}' must be either 'disk' or 'memory'"));
    }
    if let Some(value) = arguments.get(HEADER)
        && string(value).is_none_or(|header| header.is_empty() || header.len() > HEADER_BYTES_MAX)
    {
        return refuse(&format_args!("Invalid argument, '{HEADER}' must be the name of a header"));
    }
    Ok(())
}

fn is_persistence(value: &AMQPValue) -> bool {
    string(value).is_some_and(|value| matches!(value.as_ref(), "disk" | "memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(value.into())
    }

    fn arguments(pairs: &[(&str, AMQPValue)]) -> Arguments {
        let mut arguments = Arguments::default();
        for (name, value) in pairs {
            arguments.insert(name, value.clone());
        }
        arguments
    }

    fn refusal(name: &str, value: AMQPValue) -> Option<String> {
        let invalid = |name: &str, reason: &dyn Display| {
            AmqpError::new(ReplyCode::PreconditionFailed, format_args!("{name}: {reason}"))
        };
        check(&arguments(&[(name, value)]), invalid).err().map(|error| error.text)
    }

    #[test]
    fn arguments_that_cannot_be_used_are_named() {
        for (name, value, reason) in [
            (ENABLED, text("true"), "{unacceptable_type,longstr}"),
            (SIZE, AMQPValue::LongInt(0), "{value_zero,0}"),
            (SIZE, AMQPValue::LongInt(-1), "{value_negative,-1}"),
            (SIZE, AMQPValue::LongInt(10_000_001), "{max_value_exceeded,10000001}"),
            (SIZE, text("10"), "\"expected integer, got longstr\""),
            (TTL, AMQPValue::LongInt(0), "{value_zero,0}"),
            (TTL, AMQPValue::Boolean(true), "\"expected integer, got bool\""),
            (HEADER, AMQPValue::LongInt(1), "{unacceptable_type,signedint}"),
            (HEADER, text(""), "\"expected the name of a header\""),
            (PERSISTENCE, text("tape"), "\"must be either 'disk' or 'memory'\""),
        ] {
            assert_eq!(refusal(name, value), Some(format!("PRECONDITION_FAILED - {name}: {reason}")));
        }
        for (name, value) in [
            (ENABLED, AMQPValue::Boolean(false)),
            (SIZE, AMQPValue::ShortShortInt(1)),
            (SIZE, AMQPValue::LongLongInt(10_000_000)),
            (TTL, AMQPValue::LongLongInt(i64::MAX)),
            (HEADER, text("id")),
            (PERSISTENCE, text("disk")),
            ("x-other", AMQPValue::Void),
        ] {
            assert_eq!(refusal(name, value), None, "{name}");
        }
    }

    #[test]
    fn the_type_has_the_plugins_texts() {
        let refusal = |pairs: &[(&str, AMQPValue)]| check_type(&arguments(pairs)).err().map(|error| error.text);
        let size =
            "PRECONDITION_FAILED - Missing or invalid argument, 'x-cache-size' must be an integer greater than 0";
        for wrong in [&[][..], &[(SIZE, AMQPValue::LongInt(0))], &[(SIZE, text("many"))], &[(SIZE, text("0"))]] {
            assert_eq!(refusal(wrong).as_deref(), Some(size));
        }
        let five = || (SIZE, AMQPValue::LongInt(5));
        assert_eq!(refusal(&[five()]), None);
        assert_eq!(refusal(&[(SIZE, text("5")), (TTL, text("10"))]), None);
        assert_eq!(
            refusal(&[five(), (TTL, AMQPValue::LongInt(0))]).as_deref(),
            Some("PRECONDITION_FAILED - Invalid argument, 'x-cache-ttl' must be an integer greater than 0")
        );
        assert_eq!(
            refusal(&[five(), (PERSISTENCE, text("tape"))]).as_deref(),
            Some("PRECONDITION_FAILED - Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'")
        );
        assert_eq!(
            refusal(&[(SIZE, AMQPValue::LongInt(10_000_001))]).as_deref(),
            Some("PRECONDITION_FAILED - Invalid argument, 'x-cache-size' must be at most 10000000, not 10000001")
        );
        assert!(refusal(&[five(), (HEADER, AMQPValue::Void)]).is_some());
    }

    #[test]
    fn what_is_asked_for() {
        let asked = |pairs: &[(&str, AMQPValue)], is_type| Deduplication::from_arguments(&arguments(pairs), is_type);
        assert_eq!(asked(&[(SIZE, AMQPValue::LongInt(5))], false), None);
        assert_eq!(asked(&[(ENABLED, AMQPValue::Boolean(false))], false), None);
        let default = Deduplication { header: HEADER.into(), size: 128, ttl_ms: None, persists: true };
        assert_eq!(asked(&[(ENABLED, AMQPValue::Boolean(true))], false), Some(default.clone()));
        let all = [
            (ENABLED, AMQPValue::Boolean(true)),
            (SIZE, AMQPValue::LongInt(5)),
            (TTL, AMQPValue::LongInt(7)),
            (HEADER, text("id")),
            (PERSISTENCE, text("memory")),
        ];
        let expected = Deduplication { header: "id".into(), size: 5, ttl_ms: Some(7), persists: false };
        assert_eq!(asked(&all, false), Some(expected));
        assert_eq!(asked(&[(SIZE, text("9"))], true), Some(Deduplication { size: 9, ..default }));
    }

    fn key(field: &[u8]) -> Option<Key> {
        let asked = Deduplication { header: "id".into(), size: 1, ttl_ms: None, persists: true };
        asked.key(&[b"\x05otherV\x02id", field].concat())
    }

    #[test]
    fn keys_are_values() {
        let one = key(b"I\0\0\0\x01");
        assert!(one.is_some());
        for same in [&b"b\x01"[..], b"B\x01", b"s\0\x01", b"u\0\x01", b"i\0\0\0\x01", b"l\0\0\0\0\0\0\0\x01"] {
            assert_eq!(key(same), one);
        }
        assert_eq!(key(b"S\0\0\0\x01a"), key(b"x\0\0\0\x01a"));
        assert_eq!(key(b"f\x3f\0\0\0"), key(b"d\x3f\xe0\0\0\0\0\0\0"));
        let different: [&[u8]; 10] = [
            b"I\0\0\0\x01",
            b"I\xff\xff\xff\xff",
            b"S\0\0\0\x011",
            b"t\x01",
            b"t\0",
            b"T\0\0\0\0\0\0\0\x01",
            b"d\x3f\xf0\0\0\0\0\0\0",
            b"D\0\0\0\0\x01",
            b"A\0\0\0\x02t\x01",
            b"F\0\0\0\x04\x01at\x01",
        ];
        for (at, one) in different.iter().enumerate() {
            assert!(different[..at].iter().all(|other| key(other) != key(one)), "{one:?}");
        }
        assert_eq!(key(b"V"), None);
    }

    #[test]
    fn a_message_can_say_how_long_its_key_counts() {
        let asked = Deduplication { header: HEADER.into(), size: 1, ttl_ms: Some(9), persists: true };
        assert_eq!(asked.ttl_ms(b""), Some(9));
        assert_eq!(asked.ttl_ms(b"\x0bx-cache-ttlI\0\0\0\x05"), Some(5));
        assert_eq!(asked.ttl_ms(b"\x0bx-cache-ttlb\0"), Some(0));
        assert_eq!(asked.ttl_ms(b"\x0bx-cache-ttlI\xff\xff\xff\xff"), Some(9));
        assert_eq!(asked.ttl_ms(b"\x0bx-cache-ttlt\x01"), Some(9));
        assert_eq!(asked.key(b""), None);
    }
}
