//! The arguments of a headers binding, compiled, and the values they are compared with.

use amq_protocol::types::AMQPValue;
use hashbrown::Equivalent;
use protocol::error::{AmqpError, ReplyCode};
use protocol::table::{TableIter, ValueRef};
use smallvec::SmallVec;

use crate::model::arguments::{Arguments, integer, type_name, value_text};

const X_MATCH: &str = "x-match";

/// Refuses binding arguments whose `x-match` is not one of the four modes.
pub fn validate(arguments: &Arguments) -> Result<(), AmqpError> {
    let Some(value) = arguments.get(X_MATCH) else {
        return Ok(());
    };
    let AMQPValue::LongString(text) = value else {
        return Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!(
                "Invalid x-match field type {} (value {}); expected longstr",
                type_name(value),
                value_text(value)
            ),
        ));
    };
    if Mode::from_bytes(text.as_bytes()).is_none() {
        return Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!(
                "Invalid x-match field value <<\"{text}\">>; \
                 expected all, any, all-with-x, or any-with-x"
            ),
        ));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

impl Mode {
    fn from_bytes(text: &[u8]) -> Option<Self> {
        Some(match text {
            b"all" => Self::All,
            b"any" => Self::Any,
            b"all-with-x" => Self::AllWithX,
            b"any-with-x" => Self::AnyWithX,
            _ => return None,
        })
    }

    fn skips(self, name: &str) -> bool {
        match self {
            Self::All | Self::Any => name.starts_with("x-"),
            Self::AllWithX | Self::AnyWithX => name == X_MATCH,
        }
    }
}

/// What a binding asks of one header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// That it is there.
    Present,
    /// That it has this value.
    Equal(Value),
    /// A value that no header equals.
    Nothing,
}

/// A decoded value, without the width it was written in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Value {
    Bool(bool),
    Integer(i128),
    /// Bits of the value as f64.
    Float(u64),
    Decimal(u8, u32),
    Bytes(Box<[u8]>),
}

/// The same for a header of a message. Hashes like [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Given<'m> {
    Bool(bool),
    Integer(i128),
    Float(u64),
    Decimal(u8, u32),
    Bytes(&'m [u8]),
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    pub(super) name: Box<[u8]>,
    pub(super) wanted: Wanted,
}

/// A header of a message as a key for conditions that ask for its value or its presence.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct ConditionRef<'m> {
    pub(super) name: &'m [u8],
    pub(super) wanted: WantedRef<'m>,
}

/// Variants in the order of [`Wanted`], so that both hash alike.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum WantedRef<'m> {
    Present,
    Equal(Given<'m>),
}

impl Equivalent<Condition> for ConditionRef<'_> {
    fn equivalent(&self, condition: &Condition) -> bool {
        *self.name == *condition.name
            && match (&condition.wanted, self.wanted) {
                (Wanted::Present, WantedRef::Present) => true,
                (Wanted::Equal(value), WantedRef::Equal(given)) => given.equals(value),
                _ => false,
            }
    }
}

impl Given<'_> {
    pub(super) fn equals(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Bool(a), Value::Bool(b)) => a == *b,
            (Self::Integer(a), Value::Integer(b)) => a == *b,
            (Self::Float(a), Value::Float(b)) => a == *b,
            (Self::Decimal(scale, a), Value::Decimal(other, b)) => scale == *other && a == *b,
            (Self::Bytes(a), Value::Bytes(b)) => a == &**b,
            _ => false,
        }
    }
}

/// The arguments of one headers binding.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    /// Whether every condition has to hold, or one of them.
    pub(super) all: bool,
    pub(super) conditions: Box<[Condition]>,
}

impl Compiled {
    pub(super) fn new(arguments: &Arguments) -> Self {
        let mode = match arguments.get(X_MATCH) {
            Some(AMQPValue::LongString(text)) => Mode::from_bytes(text.as_bytes()),
            _ => None,
        }
        .unwrap_or(Mode::All);
        let conditions = arguments
            .iter()
            .filter(|(name, _)| !mode.skips(name))
            .map(|(name, value)| Condition { name: name.as_bytes().into(), wanted: wanted(value) })
            .collect();
        Self { all: matches!(mode, Mode::All | Mode::AllWithX), conditions }
    }
}

fn wanted(value: &AMQPValue) -> Wanted {
    if let Some(number) = integer(value) {
        return Wanted::Equal(Value::Integer(number.into()));
    }
    Wanted::Equal(match value {
        AMQPValue::Void => return Wanted::Present,
        AMQPValue::Boolean(v) => Value::Bool(*v),
        AMQPValue::Timestamp(v) => Value::Integer((*v).into()),
        AMQPValue::Float(v) => Value::Float(f64::from(*v).to_bits()),
        AMQPValue::Double(v) => Value::Float(v.to_bits()),
        AMQPValue::DecimalValue(v) => Value::Decimal(v.scale, v.value),
        AMQPValue::LongString(v) => Value::Bytes(v.as_bytes().into()),
        AMQPValue::ShortString(v) => Value::Bytes(v.as_str().as_bytes().into()),
        AMQPValue::ByteArray(v) => Value::Bytes(v.as_slice().into()),
        _ => return Wanted::Nothing,
    })
}

fn given<'m>(value: &ValueRef<'m>) -> Option<Given<'m>> {
    if let Some(number) = value.as_integer() {
        return Some(Given::Integer(number.into()));
    }
    if let Some(bytes) = value.as_bytes() {
        return Some(Given::Bytes(bytes));
    }
    Some(match *value {
        ValueRef::Bool(v) => Given::Bool(v),
        ValueRef::Timestamp(v) => Given::Integer(v.into()),
        ValueRef::F32(v) => Given::Float(f64::from(v).to_bits()),
        ValueRef::F64(v) => Given::Float(v.to_bits()),
        ValueRef::Decimal { scale, value } => Given::Decimal(scale, value),
        _ => return None,
    })
}

/// The headers of one message, sorted by name, the first of equal names kept.
#[derive(Debug)]
pub(super) struct MessageHeaders<'m> {
    sorted: SmallVec<[(&'m [u8], Option<Given<'m>>); 16]>,
}

impl<'m> MessageHeaders<'m> {
    /// Reads a table body. What cannot be read ends the table: messages are checked on arrival.
    pub(super) fn new(raw: &'m [u8]) -> Self {
        let mut sorted: SmallVec<[(&'m [u8], Option<Given<'m>>); 16]> =
            TableIter::new(raw).map_while(Result::ok).map(|(name, value)| (name, given(&value))).collect();
        sorted.sort_by_key(|(name, _)| *name);
        sorted.dedup_by_key(|(name, _)| *name);
        Self { sorted }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'m [u8], Option<Given<'m>>)> + '_ {
        self.sorted.iter().copied()
    }

    /// Whether a condition holds for this message.
    pub(super) fn satisfy(&self, condition: &Condition) -> bool {
        let Ok(at) = self.sorted.binary_search_by(|(name, _)| (*name).cmp(&condition.name)) else {
            return false;
        };
        match (&condition.wanted, self.sorted.get(at)) {
            (Wanted::Present, Some(_)) => true,
            (Wanted::Equal(value), Some((_, Some(given)))) => given.equals(value),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(value: AMQPValue) -> Option<String> {
        let mut arguments = Arguments::default();
        arguments.insert(X_MATCH, value);
        validate(&arguments).err().map(|error| error.text)
    }

    #[test]
    fn x_match_is_validated() {
        for mode in ["all", "any", "all-with-x", "any-with-x"] {
            assert_eq!(refusal(AMQPValue::LongString(mode.into())), None);
        }
        assert_eq!(
            refusal(AMQPValue::LongString("foo".into())).as_deref(),
            Some(
                "PRECONDITION_FAILED - Invalid x-match field value <<\"foo\">>; \
                 expected all, any, all-with-x, or any-with-x"
            )
        );
        assert_eq!(
            refusal(AMQPValue::ShortShortInt(1)).as_deref(),
            Some("PRECONDITION_FAILED - Invalid x-match field type byte (value 1); expected longstr")
        );
    }
}
