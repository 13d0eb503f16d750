//! basic.publish

use super::{BIT_0, BIT_1, PUBLISH, cannot_decode, text};
use crate::error::AmqpError;
use crate::read;

/// A message is announced; its content header and body follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Name of the exchange, empty for the default one.
    pub exchange: &'a str,
    /// The routing key.
    pub routing_key: &'a str,
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
    /// Return the message if it reaches no queue.
    pub mandatory: bool,
    /// Return the message if no consumer is there at once.
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    pub(crate) fn decode(arguments: &'a [u8]) -> Result<Self, AmqpError> {
        let (address, exchange, routing_key, bits) =
            Self::split(arguments).ok_or_else(|| cannot_decode(arguments, PUBLISH))?;
        Ok(Self {
            exchange: text(exchange)?,
            routing_key: text(routing_key)?,
            address,
            mandatory: bits & BIT_0 != 0,
            immediate: bits & BIT_1 != 0,
        })
    }

    /// Address, exchange, routing key and bits; nothing may follow them.
    fn split(arguments: &'a [u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8], u8)> {
        let (_ticket, rest) = read::short(arguments)?;
        let (&bits, address) = rest.split_last()?;
        let (exchange, rest) = read::short_str(address)?;
        let (routing_key, rest) = read::short_str(rest)?;
        rest.is_empty()
            .then_some((address, exchange, routing_key, bits))
    }
}
