//! Content headers and the properties of a message.

mod properties;
mod rewrite;

pub use properties::{Properties, encode_properties};
pub use rewrite::{replace_header, replace_headers, replace_property, retain_fields, without_header};

use crate::error::{AmqpError, ReplyCode};
use crate::frame::{FrameKind, unknown_frame};
use crate::table::{self, TableError};
use crate::{fast, read};

/// The header before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// Class of the method it belongs to.
    pub class_id: u16,
    /// Always 0.
    pub weight: u16,
    /// Octets of the body that will follow.
    pub body_size: u64,
    /// Flags and values of the properties, as on the wire.
    pub properties: &'a [u8],
}

/// Decodes the payload of a content header frame and checks its properties.
///
/// # Errors
///
/// 501 when it is too short or a property is malformed.
#[inline]
pub fn decode_header(payload: &[u8]) -> Result<ContentHeader<'_>, AmqpError> {
    let header = split_header(payload)?;
    check_properties(header.properties)?;
    Ok(header)
}

/// The fields of a content header, the properties unread.
pub(crate) fn split_header(payload: &[u8]) -> Result<ContentHeader<'_>, AmqpError> {
    let split = || {
        let (class_id, rest) = read::short(payload)?;
        let (weight, rest) = read::short(rest)?;
        let (body_size, properties) = read::long_long(rest)?;
        Some(ContentHeader { class_id, weight, body_size, properties })
    };
    split().ok_or_else(|| unknown_frame(FrameKind::Header.as_u8(), payload))
}

pub(crate) fn check_properties(raw: &[u8]) -> Result<(), AmqpError> {
    // A message without properties is two octets, and common enough to be worth a comparison.
    if raw == [0, 0] {
        return Ok(());
    }
    walk(raw, |_, _| ()).map(drop).map_err(PropertyError::into_amqp)
}

/// The properties of a message, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Property {
    /// MIME type of the body.
    ContentType,
    /// Encoding of the body.
    ContentEncoding,
    /// The header table.
    Headers,
    /// 2 is persistent.
    DeliveryMode,
    /// 0 to 255.
    Priority,
    /// For matching answers.
    CorrelationId,
    /// Where an answer should go.
    ReplyTo,
    /// Time to live in milliseconds, as text.
    Expiration,
    /// The application's number.
    MessageId,
    /// Seconds since 1970.
    Timestamp,
    /// The application's type.
    Type,
    /// The user who published.
    UserId,
    /// The application that published.
    AppId,
    /// Unused.
    ClusterId,
}

/// How the values of the properties look, in the order of the wire.
#[derive(Clone, Copy)]
enum Shape {
    ShortStr,
    Octet,
    LongLong,
    Table,
}

const COUNT: usize = 14;

const ORDER: [(Property, Shape); COUNT] = [
    (Property::ContentType, Shape::ShortStr),
    (Property::ContentEncoding, Shape::ShortStr),
    (Property::Headers, Shape::Table),
    (Property::DeliveryMode, Shape::Octet),
    (Property::Priority, Shape::Octet),
    (Property::CorrelationId, Shape::ShortStr),
    (Property::ReplyTo, Shape::ShortStr),
    (Property::Expiration, Shape::ShortStr),
    (Property::MessageId, Shape::ShortStr),
    (Property::Timestamp, Shape::LongLong),
    (Property::Type, Shape::ShortStr),
    (Property::UserId, Shape::ShortStr),
    (Property::AppId, Shape::ShortStr),
    (Property::ClusterId, Shape::ShortStr),
];

impl Property {
    /// The property's bit among the flags.
    #[must_use]
    pub const fn flag(self) -> u16 {
        0x8000 >> self as u8
    }
}

/// Another word of flags follows.
const CONTINUATION: u16 = 0x0001;
/// Bits that stand for no property.
const UNDEFINED: u16 = 0x0002;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PropertyError {
    Truncated,
    Undefined,
    Trailing,
    Table(TableError),
}

impl PropertyError {
    #[cold]
    pub(crate) fn into_amqp(self) -> AmqpError {
        let error = match self {
            Self::Table(error) => AmqpError::malformed_table(error),
            Self::Truncated => malformed("a property ends beyond the frame"),
            Self::Undefined => malformed("undefined property flags"),
            Self::Trailing => malformed("octets after the last property"),
        };
        error.at(fast::BASIC, fast::PUBLISH)
    }
}

fn malformed(what: &str) -> AmqpError {
    AmqpError::new(ReplyCode::FrameError, format_args!("malformed content header: {what}"))
}

/// Reads the flags; continuation words are skipped as long as they flag nothing.
pub(crate) fn flags(raw: &[u8]) -> Result<(u16, &[u8]), PropertyError> {
    let (first, mut rest) = read::short(raw).ok_or(PropertyError::Truncated)?;
    let mut word = first;
    let mut undefined = first & UNDEFINED;
    while word & CONTINUATION != 0 {
        (word, rest) = read::short(rest).ok_or(PropertyError::Truncated)?;
        undefined |= word & !CONTINUATION;
    }
    if undefined != 0 {
        return Err(PropertyError::Undefined);
    }
    Ok((first & !CONTINUATION, rest))
}

/// Checks all properties, and shows each with the octets of its value to `visit`. Returns the flags.
pub(crate) fn walk<'a>(raw: &'a [u8], mut visit: impl FnMut(Property, &'a [u8])) -> Result<u16, PropertyError> {
    let (flags, mut rest) = flags(raw)?;
    let mut left = flags;
    while left != 0 {
        let index = left.leading_zeros();
        left &= !(0x8000 >> index);
        let (property, shape) = *ORDER.get(index as usize).ok_or(PropertyError::Undefined)?;
        let after = match shape {
            Shape::ShortStr => {
                // Any octets: RabbitMQ does not check these, and clients send binary correlation ids.
                let (_text, after) = read::short_str(rest).ok_or(PropertyError::Truncated)?;
                after
            }
            Shape::Octet => rest.get(1..).ok_or(PropertyError::Truncated)?,
            Shape::LongLong => rest.get(8..).ok_or(PropertyError::Truncated)?,
            Shape::Table => {
                let (body, after) = read::long_str(rest).ok_or(PropertyError::Truncated)?;
                table::check_structure(body).map_err(PropertyError::Table)?;
                after
            }
        };
        visit(property, rest.get(..rest.len() - after.len()).unwrap_or_default());
        rest = after;
    }
    if rest.is_empty() { Ok(flags) } else { Err(PropertyError::Trailing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &[u8]) -> Option<String> {
        Properties::parse(raw).err().map(|error| error.text)
    }

    #[test]
    fn a_header_is_split_and_checked() {
        let payload = b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x10\x00\x02";
        let header = ContentHeader { class_id: 60, weight: 0, body_size: 5, properties: b"\x10\x00\x02" };
        assert_eq!(decode_header(payload), Ok(header));
        let short = decode_header(&payload[..11]).err().map(|error| error.text);
        let expected = "FRAME_ERROR - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0>>: unknown_frame";
        assert_eq!(short.as_deref(), Some(expected));
        let truncated = decode_header(&payload[..14]).err();
        assert_eq!(truncated.map(|error| (error.code.as_u16(), error.class_id, error.method_id)), Some((501, 60, 40)));
    }

    #[test]
    fn malformed_properties_are_refused() {
        let expected = |what: &str| Some(format!("FRAME_ERROR - malformed content header: {what}"));
        for truncated in [&b""[..], b"\x80", b"\x80\x00", b"\x80\x00\x02a", b"\x00\x40\0\0\0\0\0\0\0", b"\x10\x00"] {
            assert_eq!(text(truncated), expected("a property ends beyond the frame"), "{truncated:?}");
        }
        assert_eq!(text(b"\x20\x00\x00\x00\x00\x05\x01aV"), expected("a property ends beyond the frame"));
        assert_eq!(text(b"\x10\x00\x02\x00"), expected("octets after the last property"));
        assert_eq!(text(b"\x00\x02"), expected("undefined property flags"));
        assert_eq!(text(b"\x80\x00\x01\xff"), None, "texts are octets");
        let table = text(b"\x20\x00\x00\x00\x00\x03\x01aZ");
        assert_eq!(table.as_deref(), Some("FRAME_ERROR - malformed field table: unknown field type 90"));
    }

    #[test]
    fn continuation_words_may_flag_nothing() {
        assert_eq!(text(b"\x10\x01\x00\x00\x02"), None);
        assert_eq!(text(b"\x10\x01\x00\x01\x00\x00\x02"), None);
        let undefined = text(b"\x10\x01\x80\x00\x02");
        assert_eq!(undefined.as_deref(), Some("FRAME_ERROR - malformed content header: undefined property flags"));
        assert!(text(b"\x10\x01").is_some());
        assert!(text(&[0x00, 0x01].repeat(50_000)).is_some());
    }

    #[test]
    fn flags_follow_the_order_of_the_wire() {
        assert_eq!(Property::ContentType.flag(), 1 << 15);
        assert_eq!(Property::DeliveryMode.flag(), 1 << 12);
        assert_eq!(Property::Expiration.flag(), 1 << 8);
        assert_eq!(Property::Timestamp.flag(), 1 << 6);
        assert_eq!(Property::ClusterId.flag(), 1 << 2);
        for (index, (property, _)) in ORDER.iter().enumerate() {
            assert_eq!(*property as usize, index);
        }
    }
}
