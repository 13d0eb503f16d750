//! Content headers and the properties of a message.

mod properties;
mod rewrite;

pub use properties::{Properties, encode_properties};
pub use rewrite::{replace_headers, replace_property, without_header};

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
        Some(ContentHeader {
            class_id,
            weight,
            body_size,
            properties,
        })
    };
    split().ok_or_else(|| unknown_frame(FrameKind::Header.as_u8(), payload))
}

pub(crate) fn check_properties(raw: &[u8]) -> Result<(), AmqpError> {
    // A message without properties is two octets, and common enough to be worth a comparison.
    if raw == [0, 0] {
        return Ok(());
    }
    walk(raw, |_, _| ())
        .map(drop)
        .map_err(PropertyError::into_amqp)
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
    Utf8,
    Table(TableError),
}

impl PropertyError {
    #[cold]
    pub(crate) fn into_amqp(self) -> AmqpError {
        let error = match self {
            Self::Utf8 => return AmqpError::malformed_utf8(),
            Self::Table(error) => AmqpError::malformed_table(error),
            Self::Truncated => malformed("a property ends beyond the frame"),
            Self::Undefined => malformed("undefined property flags"),
            Self::Trailing => malformed("octets after the last property"),
        };
        error.at(fast::BASIC, fast::PUBLISH)
    }
}

fn malformed(what: &str) -> AmqpError {
    AmqpError::new(
        ReplyCode::FrameError,
        format_args!("malformed content header: {what}"),
    )
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
pub(crate) fn walk<'a>(
    raw: &'a [u8],
    mut visit: impl FnMut(Property, &'a [u8]),
) -> Result<u16, PropertyError> {
    let (flags, mut rest) = flags(raw)?;
    let mut left = flags;
    while left != 0 {
        let index = left.leading_zeros();
        left &= !(0x8000 >> index);
        let (property, shape) = *ORDER.get(index as usize).ok_or(PropertyError::Undefined)?;
        let after = match shape {
            Shape::ShortStr => {
                let (text, after) = read::short_str(rest).ok_or(PropertyError::Truncated)?;
                std::str::from_utf8(text).map_err(|_| PropertyError::Utf8)?;
                after
            }
            Shape::Octet => rest.get(1..).ok_or(PropertyError::Truncated)?,
            Shape::LongLong => rest.get(8..).ok_or(PropertyError::Truncated)?,
            Shape::Table => {
                let (body, after) = read::long_str(rest).ok_or(PropertyError::Truncated)?;
                table::check(body).map_err(PropertyError::Table)?;
                after
            }
        };
        visit(
            property,
            rest.get(..rest.len() - after.len()).unwrap_or_default(),
        );
        rest = after;
    }
    if rest.is_empty() {
        Ok(flags)
    } else {
        Err(PropertyError::Trailing)
    }
}
