//! What a consistent hash exchange takes from a message: which of its arguments say so, and the hash.

use std::fmt::{Display, Write};

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};
use protocol::{Properties, ValueRef, lookup};

use super::fingerprint::Fingerprint;
use crate::model::arguments::{Arguments, string, type_name};

const HASH_HEADER: &str = "hash-header";
const HASH_PROPERTY: &str = "hash-property";
/// LavinMQ's name of `hash-header`.
const X_HASH_ON: &str = "x-hash-on";
/// How LavinMQ shall place the keys. Both of its ways are promises that our one way keeps: `jump` gives exact shares, `ring`
/// moves few keys.
const X_ALGORITHM: &str = "x-algorithm";

/// The part of a message that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashOn {
    /// The routing key; those of CC and BCC have no say.
    #[default]
    RoutingKey,
    /// The header of this name.
    Header(Box<str>),
    /// The property message-id.
    MessageId,
    /// The property correlation-id.
    CorrelationId,
    /// The property timestamp.
    Timestamp,
}

impl HashOn {
    /// Reads the arguments of an exchange; 406 when they are not what it can have. `resource` is the exchange in error texts.
    pub fn from_arguments(arguments: &Arguments, resource: &dyn Display) -> Result<Self, AmqpError> {
        let text = |name| arguments.get(name).map(|value| expect_string(name, value, resource)).transpose();
        let (header, property) = (text(HASH_HEADER)?, text(HASH_PROPERTY)?);
        let (other_header, algorithm) = (text(X_HASH_ON)?, text(X_ALGORITHM)?);
        if let Some(algorithm) = algorithm
            && !["ring", "jump"].iter().any(|known| algorithm.eq_ignore_ascii_case(known))
        {
            return Err(refused(&format_args!("Unsupported {X_ALGORITHM}: {algorithm}")));
        }
        let given = [(HASH_HEADER, &header), (HASH_PROPERTY, &property), (X_HASH_ON, &other_header)];
        let mut names = given.iter().filter_map(|(name, value)| value.is_some().then_some(name));
        if let (Some(first), Some(second)) = (names.next(), names.next()) {
            return Err(refused(&format_args!("{first} and {second} are mutually exclusive")));
        }
        if let Some(name) = header.or(other_header) {
            return Ok(Self::Header(name));
        }
        Ok(match property.as_deref() {
            None => Self::RoutingKey,
            Some("message_id") => Self::MessageId,
            Some("correlation_id") => Self::CorrelationId,
            Some("timestamp") => Self::Timestamp,
            Some(other) => return Err(refused(&format_args!("Unsupported property: {other}"))),
        })
    }

    /// The hash that places a message. What is absent has a hash as well, so messages without it stay together.
    ///
    /// Numbers hash like their decimal text: publishers in different languages write the same identifier differently.
    pub fn hash(&self, key: &str, properties: Option<&Properties<'_>>) -> u64 {
        match self {
            Self::RoutingKey => Fingerprint::of(key.as_bytes()),
            Self::Header(name) => {
                let headers = properties.and_then(Properties::headers);
                of_value(headers.and_then(|headers| lookup(headers, name.as_bytes())))
            }
            Self::MessageId => of_octets(properties.and_then(Properties::message_id)),
            Self::CorrelationId => of_octets(properties.and_then(Properties::correlation_id)),
            Self::Timestamp => of_value(properties.and_then(Properties::timestamp).map(ValueRef::Timestamp)),
        }
    }
}

fn of_octets(octets: Option<&[u8]>) -> u64 {
    of_value(octets.map(ValueRef::Bytes))
}

fn of_value(value: Option<ValueRef<'_>>) -> u64 {
    let mut hash = Fingerprint::default();
    let Some(value) = value else {
        return hash.finish();
    };
    if let Some(octets) = value.as_bytes() {
        hash.add(octets);
        return hash.finish();
    }
    // Writing to a hash does not fail.
    let _ = match value {
        ValueRef::Timestamp(seconds) => write!(hash, "{seconds}"),
        ValueRef::Bool(value) => write!(hash, "{value}"),
        ValueRef::F32(value) => write!(hash, "{}", f64::from(value)),
        ValueRef::F64(value) => write!(hash, "{value}"),
        ValueRef::Decimal { scale, value } => write!(hash, "{value}e-{scale}"),
        ValueRef::Array(octets) | ValueRef::Table(octets) => {
            hash.add(octets);
            Ok(())
        }
        other => other.as_integer().map_or(Ok(()), |number| write!(hash, "{number}")),
    };
    hash.finish()
}

fn expect_string(name: &str, value: &AMQPValue, resource: &dyn Display) -> Result<Box<str>, AmqpError> {
    match string(value) {
        Some(text) => Ok(text.into()),
        None => Err(refused(&format_args!("invalid type '{}' for arg '{name}' in {resource}", type_name(value)))),
    }
}

fn refused(reason: &dyn Display) -> AmqpError {
    AmqpError::new(ReplyCode::PreconditionFailed, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::amqp::{BasicProperties, DecimalValue};
    use protocol::encode_properties;

    fn read(pairs: &[(&str, &str)]) -> Result<HashOn, String> {
        let mut arguments = Arguments::default();
        for (name, value) in pairs {
            arguments.insert(name, AMQPValue::LongString((*value).into()));
        }
        HashOn::from_arguments(&arguments, &"exchange 'x' in vhost '/'").map_err(|error| error.text)
    }

    #[test]
    fn arguments_say_what_is_hashed() {
        let header = |name: &str| Ok(HashOn::Header(name.into()));
        assert_eq!(read(&[]), Ok(HashOn::RoutingKey));
        assert_eq!(read(&[(HASH_HEADER, "h")]), header("h"));
        assert_eq!(read(&[(X_HASH_ON, "h"), (X_ALGORITHM, "Ring")]), header("h"));
        assert_eq!(read(&[(X_ALGORITHM, "jump")]), Ok(HashOn::RoutingKey));
        for (name, expected) in [
            ("message_id", HashOn::MessageId),
            ("correlation_id", HashOn::CorrelationId),
            ("timestamp", HashOn::Timestamp),
        ] {
            assert_eq!(read(&[(HASH_PROPERTY, name)]), Ok(expected));
        }
    }

    #[test]
    fn other_arguments_are_refused() {
        for (arguments, text) in [
            (&[(HASH_PROPERTY, "app_id")][..], "Unsupported property: app_id"),
            (
                &[(HASH_HEADER, "h"), (HASH_PROPERTY, "nonsense")],
                "hash-header and hash-property are mutually exclusive",
            ),
            (&[(HASH_HEADER, "h"), (X_HASH_ON, "h")], "hash-header and x-hash-on are mutually exclusive"),
            (&[(X_ALGORITHM, "maglev")], "Unsupported x-algorithm: maglev"),
        ] {
            assert_eq!(read(arguments), Err(format!("PRECONDITION_FAILED - {text}")));
        }
        for name in [HASH_HEADER, HASH_PROPERTY, X_HASH_ON, X_ALGORITHM] {
            let mut arguments = Arguments::default();
            arguments.insert(name, AMQPValue::Boolean(true));
            let refused = HashOn::from_arguments(&arguments, &"exchange 'x' in vhost '/'").map_err(|error| error.text);
            let text =
                format!("PRECONDITION_FAILED - invalid type 'bool' for arg '{name}' in exchange 'x' in vhost '/'");
            assert_eq!(refused, Err(text));
        }
    }

    fn hash(on: &HashOn, properties: BasicProperties) -> u64 {
        let raw = encode_properties(&properties);
        on.hash("key", Properties::parse(&raw).ok().as_ref())
    }

    #[test]
    fn headers_hash_by_value() {
        let on = HashOn::Header("id".into());
        let of = |value: AMQPValue| {
            let mut headers = Arguments::default();
            headers.insert("id", value);
            headers.insert("other", AMQPValue::LongInt(1));
            hash(&on, BasicProperties::default().with_headers(headers.table().clone()))
        };
        let text = |text: &str| of(AMQPValue::LongString(text.into()));
        assert_eq!(text("12"), of(AMQPValue::LongInt(12)));
        assert_eq!(text("12"), of(AMQPValue::ShortShortUInt(12)));
        assert_eq!(text("12"), of(AMQPValue::ByteArray(b"12".as_slice().into())));
        assert_eq!(text("12"), of(AMQPValue::Timestamp(12)));
        assert_eq!(of(AMQPValue::Float(0.5)), of(AMQPValue::Double(0.5)));
        let decimal = |value| of(AMQPValue::DecimalValue(DecimalValue { scale: 2, value }));
        let all =
            [text("12"), text("13"), of(AMQPValue::Boolean(true)), of(AMQPValue::Double(0.5)), decimal(1), decimal(2)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        // Without the header all stay together.
        assert_eq!(hash(&on, BasicProperties::default()), of(AMQPValue::Void));
        assert_eq!(hash(&on, BasicProperties::default()), on.hash("another key", None));
    }

    #[test]
    fn properties_hash_by_value() {
        let key = Fingerprint::of(b"1700000000");
        let properties = BasicProperties::default()
            .with_message_id("1700000000".into())
            .with_correlation_id("other".into())
            .with_timestamp(1_700_000_000);
        assert_eq!(hash(&HashOn::MessageId, properties.clone()), key);
        assert_eq!(hash(&HashOn::Timestamp, properties.clone()), key);
        assert_eq!(hash(&HashOn::CorrelationId, properties.clone()), Fingerprint::of(b"other"));
        assert_eq!(hash(&HashOn::RoutingKey, properties), Fingerprint::of(b"key"));
        assert_eq!(hash(&HashOn::Timestamp, BasicProperties::default()), Fingerprint::of(b""));
    }
}
