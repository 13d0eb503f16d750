//! Field tables that clients pass as arguments, how two of them are compared, and how a value is
//! written in an error text.

use std::borrow::Cow;
use std::fmt;

use amq_protocol::frame::WriteContext;
use amq_protocol::types::generation::gen_field_table;
use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use protocol::error::{AmqpError, ReplyCode};
use protocol::table;

/// The arguments of a declare, bind or consume.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments(FieldTable);

/// Bytes that are not a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed field table")]
pub struct MalformedTable;

impl Arguments {
    /// Reads the body of a table as it is on the wire, without its length in front.
    pub fn from_wire(body: &[u8]) -> Result<Self, MalformedTable> {
        // The library's parser recurses without limit; the check bounds the depth first.
        table::check(body).map_err(|_| MalformedTable)?;
        let length = u32::try_from(body.len()).map_err(|_| MalformedTable)?;
        let mut framed = Vec::with_capacity(body.len() + 4);
        framed.extend_from_slice(&length.to_be_bytes());
        framed.extend_from_slice(body);
        let (_, parsed) = parse_field_table(framed.as_slice()).map_err(|_| MalformedTable)?;
        Ok(Self(parsed))
    }

    /// The body of the table on the wire, sorted by name: equal arguments give equal bytes.
    pub fn to_wire(&self) -> Vec<u8> {
        if self.is_empty() {
            return Vec::new();
        }
        match gen_field_table(&self.0)(WriteContext::from(Vec::new())) {
            Ok(context) => {
                let mut bytes = context.into_inner().0;
                bytes.drain(..bytes.len().min(4));
                bytes
            }
            // Writing to a vector does not fail; an empty table is the harmless answer.
            Err(_) => Vec::new(),
        }
    }

    /// The value of an argument.
    pub fn get(&self, name: &str) -> Option<&AMQPValue> {
        self.0.inner().get(name)
    }

    /// Sets an argument. A name of more than 255 bytes cannot be one and is left out.
    pub fn insert(&mut self, name: &str, value: AMQPValue) {
        if let Ok(name) = ShortString::try_new(name) {
            self.0.insert(name, value);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.inner().is_empty()
    }

    /// All arguments, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        self.0.inner().iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The table itself.
    pub fn table(&self) -> &FieldTable {
        &self.0
    }

    /// Compares the named arguments of a redeclare with those of the existing object; the first
    /// that differs makes the 406.
    pub fn check_equivalence<'k>(
        &self,
        existing: &Arguments,
        names: impl IntoIterator<Item = &'k str>,
        resource: &dyn fmt::Display,
    ) -> Result<(), AmqpError> {
        for name in names {
            let (received, current) = match (self.get(name), existing.get(name)) {
                (None, None) => continue,
                (Some(received), Some(current)) if equivalent(received, current) => continue,
                (Some(received), Some(current)) => (quoted(received), quoted(current)),
                (Some(received), None) => (described(received), "none".to_owned()),
                (None, Some(current)) => ("none".to_owned(), described(current)),
            };
            return Err(inequivalent(name, resource, &received, &current));
        }
        Ok(())
    }
}

impl From<FieldTable> for Arguments {
    fn from(table: FieldTable) -> Self {
        Self(table)
    }
}

/// The 406 for a redeclare that differs; `received` and `current` are complete with quotes.
pub fn inequivalent(
    name: &str,
    resource: &dyn fmt::Display,
    received: &dyn fmt::Display,
    current: &dyn fmt::Display,
) -> AmqpError {
    AmqpError::new(
        ReplyCode::PreconditionFailed,
        format_args!("inequivalent arg '{name}' for {resource}: received {received} but current is {current}"),
    )
}

/// Whether two values are the same argument: equal, and of the same class of types.
pub fn equivalent(a: &AMQPValue, b: &AMQPValue) -> bool {
    if let (Some(a), Some(b)) = (integer(a), integer(b)) {
        return a == b;
    }
    if let (Some(a), Some(b)) = (float(a), float(b)) {
        return a.to_bits() == b.to_bits();
    }
    a == b
}

/// The value of an argument of any integer type; timestamps are not integers here.
pub fn integer(value: &AMQPValue) -> Option<i64> {
    Some(match value {
        AMQPValue::ShortShortInt(v) => (*v).into(),
        AMQPValue::ShortShortUInt(v) => (*v).into(),
        AMQPValue::ShortInt(v) => (*v).into(),
        AMQPValue::ShortUInt(v) => (*v).into(),
        AMQPValue::LongInt(v) => (*v).into(),
        AMQPValue::LongUInt(v) => (*v).into(),
        AMQPValue::LongLongInt(v) => *v,
        _ => return None,
    })
}

fn float(value: &AMQPValue) -> Option<f64> {
    match value {
        AMQPValue::Float(v) => Some((*v).into()),
        AMQPValue::Double(v) => Some(*v),
        _ => None,
    }
}

/// The text of a string argument, `None` for other types. Bytes that are not UTF-8 are replaced.
pub fn string(value: &AMQPValue) -> Option<Cow<'_, str>> {
    match value {
        AMQPValue::LongString(v) => Some(String::from_utf8_lossy(v.as_bytes())),
        AMQPValue::ShortString(v) => Some(Cow::Borrowed(v.as_str())),
        _ => None,
    }
}

/// Name of a value's type in error texts.
pub fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => "longstr",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Void => "void",
    }
}

/// Text of a value in error texts. Containers are only named with their size.
pub fn value_text(value: &AMQPValue) -> Cow<'_, str> {
    if let Some(number) = integer(value) {
        return number.to_string().into();
    }
    if let Some(number) = float(value) {
        return format!("{number:?}").into();
    }
    if let Some(text) = string(value) {
        return text;
    }
    match value {
        AMQPValue::Boolean(v) => v.to_string().into(),
        AMQPValue::Timestamp(v) => v.to_string().into(),
        AMQPValue::DecimalValue(v) => format!("{{{},{}}}", v.scale, v.value).into(),
        AMQPValue::ByteArray(v) => String::from_utf8_lossy(v.as_slice()),
        AMQPValue::FieldArray(v) => format!("array of {}", v.as_slice().len()).into(),
        AMQPValue::FieldTable(v) => format!("table of {}", v.inner().len()).into(),
        _ => "undefined".into(),
    }
}

fn quoted(value: &AMQPValue) -> String {
    format!("'{}'", value_text(value))
}

fn described(value: &AMQPValue) -> String {
    format!("the value '{}' of type '{}'", value_text(value), type_name(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use amq_protocol::types::DecimalValue;

    fn arguments(pairs: &[(&str, AMQPValue)]) -> Arguments {
        let mut arguments = Arguments::default();
        for (name, value) in pairs {
            arguments.insert(name, value.clone());
        }
        arguments
    }

    fn mismatch(received: Option<AMQPValue>, current: Option<AMQPValue>) -> Option<String> {
        let side = |value: Option<AMQPValue>| match value {
            Some(value) => arguments(&[("x-expires", value)]),
            None => Arguments::default(),
        };
        side(received)
            .check_equivalence(&side(current), ["x-expires"], &"queue 'q' in vhost '/'")
            .err()
            .map(|error| error.text)
    }

    #[test]
    fn wire_round_trip_is_canonical() {
        let one = arguments(&[("b", AMQPValue::LongInt(1)), ("a", AMQPValue::LongString("x".into()))]);
        let bytes = one.to_wire();
        assert_eq!(bytes, b"\x01aS\0\0\0\x01x\x01bI\0\0\0\x01");
        let again = Arguments::from_wire(&bytes);
        assert_eq!(again.as_ref().map(Arguments::to_wire), Ok(bytes));
        assert_eq!(again, Ok(one));
        assert_eq!(Arguments::from_wire(b""), Ok(Arguments::default()));
        assert_eq!(Arguments::from_wire(b"\x01aS\0\0\0\xffx"), Err(MalformedTable));
        assert_eq!(Arguments::from_wire(b"\x01ak"), Err(MalformedTable));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut body = Vec::new();
        for depth in (0..10_000_u32).rev() {
            body.extend_from_slice(b"\x01aF");
            body.extend_from_slice(&(depth * 7).to_be_bytes());
        }
        assert_eq!(Arguments::from_wire(&body), Err(MalformedTable));
    }

    #[test]
    fn integers_of_any_width_are_one_class() {
        assert_eq!(mismatch(Some(AMQPValue::ShortInt(1000)), Some(AMQPValue::LongLongInt(1000))), None);
        assert!(equivalent(&AMQPValue::Float(1.5), &AMQPValue::Double(1.5)));
        let decimal = AMQPValue::DecimalValue(DecimalValue { scale: 1, value: 2 });
        assert!(equivalent(&decimal, &decimal));
        assert!(!equivalent(&decimal, &AMQPValue::LongInt(2)));
    }

    #[test]
    fn other_types_must_match_exactly() {
        assert_eq!(
            mismatch(Some(AMQPValue::LongString("10".into())), Some(AMQPValue::LongInt(10))).as_deref(),
            Some(
                "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': \
                 received '10' but current is '10'"
            )
        );
        assert!(mismatch(Some(AMQPValue::Timestamp(5)), Some(AMQPValue::LongInt(5))).is_some());
    }

    #[test]
    fn one_sided_arguments_name_their_type() {
        assert_eq!(
            mismatch(Some(AMQPValue::ShortInt(1000)), None).as_deref(),
            Some(
                "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': \
                 received the value '1000' of type 'short' but current is none"
            )
        );
        assert_eq!(
            mismatch(None, Some(AMQPValue::Boolean(true))).as_deref(),
            Some(
                "PRECONDITION_FAILED - inequivalent arg 'x-expires' for queue 'q' in vhost '/': \
                 received none but current is the value 'true' of type 'bool'"
            )
        );
    }
}
