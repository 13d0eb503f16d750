//! basic.deliver, basic.get-ok, basic.return: the methods before a message that goes to a client

use super::{Address, BIT_0, DELIVER, GET_OK, RETURN, cannot_decode, text};
use crate::error::AmqpError;
use crate::read;

/// A message for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The consumer.
    pub consumer_tag: &'a str,
    /// The number to settle the message with.
    pub delivery_tag: u64,
    /// It was delivered before.
    pub redelivered: bool,
    /// Exchange it was published to.
    pub exchange: &'a str,
    /// Routing key it was published with.
    pub routing_key: &'a str,
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
}

/// The message a basic.get asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetOk<'a> {
    /// The number to settle the message with.
    pub delivery_tag: u64,
    /// It was delivered before.
    pub redelivered: bool,
    /// Exchange it was published to.
    pub exchange: &'a str,
    /// Routing key it was published with.
    pub routing_key: &'a str,
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
    /// Messages that stay in the queue.
    pub message_count: u32,
}

/// A published message nobody wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return<'a> {
    /// Why, as a number.
    pub code: u16,
    /// Why, in words.
    pub text: &'a str,
    /// Exchange it was published to.
    pub exchange: &'a str,
    /// Routing key it was published with.
    pub routing_key: &'a str,
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
}

impl<'a> Deliver<'a> {
    pub(crate) fn decode(arguments: &'a [u8]) -> Result<Self, AmqpError> {
        let split = || {
            let (consumer_tag, rest) = read::short_str(arguments)?;
            let (delivery_tag, rest) = read::long_long(rest)?;
            let (bits, rest) = read::octet(rest)?;
            let (address, rest) = Address::read(rest)?;
            rest.is_empty().then_some((consumer_tag, delivery_tag, bits, address))
        };
        let (consumer_tag, delivery_tag, bits, address) = split().ok_or_else(|| cannot_decode(arguments, DELIVER))?;
        Ok(Self {
            consumer_tag: text(consumer_tag)?,
            delivery_tag,
            redelivered: bits & BIT_0 != 0,
            exchange: text(address.exchange)?,
            routing_key: text(address.routing_key)?,
            address: address.raw,
        })
    }
}

impl<'a> GetOk<'a> {
    pub(crate) fn decode(arguments: &'a [u8]) -> Result<Self, AmqpError> {
        let split = || {
            let (delivery_tag, rest) = read::long_long(arguments)?;
            let (bits, rest) = read::octet(rest)?;
            let (address, rest) = Address::read(rest)?;
            let (message_count, rest) = read::long(rest)?;
            rest.is_empty().then_some((delivery_tag, bits, address, message_count))
        };
        let (delivery_tag, bits, address, message_count) = split().ok_or_else(|| cannot_decode(arguments, GET_OK))?;
        Ok(Self {
            delivery_tag,
            redelivered: bits & BIT_0 != 0,
            exchange: text(address.exchange)?,
            routing_key: text(address.routing_key)?,
            address: address.raw,
            message_count,
        })
    }
}

impl<'a> Return<'a> {
    pub(crate) fn decode(arguments: &'a [u8]) -> Result<Self, AmqpError> {
        let split = || {
            let (code, rest) = read::short(arguments)?;
            let (text, rest) = read::short_str(rest)?;
            let (address, rest) = Address::read(rest)?;
            rest.is_empty().then_some((code, text, address))
        };
        let (code, reason, address) = split().ok_or_else(|| cannot_decode(arguments, RETURN))?;
        Ok(Self {
            code,
            text: text(reason)?,
            exchange: text(address.exchange)?,
            routing_key: text(address.routing_key)?,
            address: address.raw,
        })
    }
}
