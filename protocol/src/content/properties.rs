//! The properties of a message: found in their octets, and made from values.

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{BasicProperties, basic::gen_properties};

use super::{COUNT, Property, PropertyError, walk};
use crate::error::AmqpError;
use crate::read;

/// The properties of a message, found in the octets they came in.
#[derive(Clone, Copy, Debug)]
pub struct Properties<'a> {
    flags: u16,
    /// The octets of each value with its length, empty where there is none.
    values: [&'a [u8]; COUNT],
}

impl<'a> Properties<'a> {
    /// Finds and checks all properties.
    ///
    /// # Errors
    ///
    /// 501 when one is malformed.
    pub fn parse(raw: &'a [u8]) -> Result<Self, AmqpError> {
        let mut values: [&'a [u8]; COUNT] = [&[]; COUNT];
        let visit = |property: Property, value| {
            if let Some(slot) = values.get_mut(property as usize) {
                *slot = value;
            }
        };
        let flags = walk(raw, visit).map_err(PropertyError::into_amqp)?;
        Ok(Self { flags, values })
    }

    /// Whether the property is there.
    #[must_use]
    pub fn has(&self, property: Property) -> bool {
        self.flags & property.flag() != 0
    }

    /// MIME type of the body.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.short_str(Property::ContentType)
    }

    /// Encoding of the body.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&'a [u8]> {
        self.short_str(Property::ContentEncoding)
    }

    /// The header table without its length.
    #[must_use]
    pub fn headers(&self) -> Option<&'a [u8]> {
        read::long_str(self.value(Property::Headers)).map(|(table, _)| table)
    }

    /// 2 is persistent, everything else is not.
    #[must_use]
    pub fn delivery_mode(&self) -> Option<u8> {
        self.octet(Property::DeliveryMode)
    }

    /// The priority.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.octet(Property::Priority)
    }

    /// For matching answers.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8]> {
        self.short_str(Property::CorrelationId)
    }

    /// Where an answer should go.
    #[must_use]
    pub fn reply_to(&self) -> Option<&'a [u8]> {
        self.short_str(Property::ReplyTo)
    }

    /// Time to live in milliseconds, as text.
    #[must_use]
    pub fn expiration(&self) -> Option<&'a [u8]> {
        self.short_str(Property::Expiration)
    }

    /// The application's number.
    #[must_use]
    pub fn message_id(&self) -> Option<&'a [u8]> {
        self.short_str(Property::MessageId)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        read::long_long(self.value(Property::Timestamp)).map(|(seconds, _)| seconds)
    }

    /// The application's type (`type` is a word of the language).
    #[must_use]
    pub fn kind(&self) -> Option<&'a [u8]> {
        self.short_str(Property::Type)
    }

    /// The user who published.
    #[must_use]
    pub fn user_id(&self) -> Option<&'a [u8]> {
        self.short_str(Property::UserId)
    }

    /// The application that published.
    #[must_use]
    pub fn app_id(&self) -> Option<&'a [u8]> {
        self.short_str(Property::AppId)
    }

    /// Unused by the broker.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&'a [u8]> {
        self.short_str(Property::ClusterId)
    }

    fn value(&self, property: Property) -> &'a [u8] {
        self.values.get(property as usize).copied().unwrap_or_default()
    }

    fn short_str(&self, property: Property) -> Option<&'a [u8]> {
        read::short_str(self.value(property)).map(|(text, _)| text)
    }

    fn octet(&self, property: Property) -> Option<u8> {
        self.value(property).first().copied()
    }
}

/// Properties as octets: flags and values.
#[must_use]
pub fn encode_properties(properties: &BasicProperties) -> Vec<u8> {
    let context = WriteContext::from(Vec::new());
    match gen_properties(properties)(context) {
        Ok(context) => context.into_inner().0,
        // A Vec takes everything that is written to it.
        Err(_) => vec![0, 0],
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::{AMQPValue, FieldTable};

    use super::*;

    #[test]
    fn all_fourteen_are_found() {
        let mut headers = FieldTable::default();
        headers.insert("h".into(), AMQPValue::Void);
        let raw = encode_properties(
            &BasicProperties::default()
                .with_content_type("ct".into())
                .with_content_encoding("ce".into())
                .with_headers(headers)
                .with_delivery_mode(2)
                .with_priority(9)
                .with_correlation_id("ci".into())
                .with_reply_to("rt".into())
                .with_expiration("1000".into())
                .with_message_id("mi".into())
                .with_timestamp(u64::MAX)
                .with_type("ty".into())
                .with_user_id("ui".into())
                .with_app_id("ai".into())
                .with_cluster_id("cl".into()),
        );
        let found = Properties::parse(&raw).unwrap();
        let texts = [
            found.content_type(),
            found.content_encoding(),
            found.correlation_id(),
            found.reply_to(),
            found.expiration(),
            found.message_id(),
            found.kind(),
            found.user_id(),
            found.app_id(),
            found.cluster_id(),
        ];
        let expected = ["ct", "ce", "ci", "rt", "1000", "mi", "ty", "ui", "ai", "cl"];
        assert_eq!(texts, expected.map(|text| Some(text.as_bytes())));
        assert_eq!(found.headers(), Some(&b"\x01hV"[..]));
        assert_eq!((found.delivery_mode(), found.priority()), (Some(2), Some(9)));
        assert_eq!(found.timestamp(), Some(u64::MAX));
    }

    #[test]
    fn absent_is_not_empty() {
        let none = Properties::parse(&[0, 0]).unwrap();
        assert_eq!((none.content_type(), none.headers(), none.delivery_mode()), (None, None, None));
        assert!(!none.has(Property::Headers));
        let empty = Properties::parse(b"\xa0\x00\x00\x00\x00\x00\x00").unwrap();
        assert_eq!((empty.content_type(), empty.headers()), (Some(&b""[..]), Some(&b""[..])));
        assert!(empty.has(Property::Headers));
    }
}
