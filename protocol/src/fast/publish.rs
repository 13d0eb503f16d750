//! basic.publish

use super::{Address, BIT_0, BIT_1, PUBLISH, cannot_decode};
use crate::error::AmqpError;
use crate::read;

/// A message is announced; its content header and body follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Name of the exchange, empty for the default one. Like the routing key it may be any octets: RabbitMQ does not
    /// check them here, and clients use binary keys.
    pub exchange: &'a [u8],
    /// The routing key.
    pub routing_key: &'a [u8],
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
    /// Return the message if it reaches no queue.
    pub mandatory: bool,
    /// Return the message if no consumer is there at once.
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    #[inline]
    pub(crate) fn decode(arguments: &'a [u8]) -> Result<Self, AmqpError> {
        let (address, bits) = Self::split(arguments).ok_or_else(|| cannot_decode(arguments, PUBLISH))?;
        Ok(Self {
            exchange: address.exchange,
            routing_key: address.routing_key,
            address: address.raw,
            mandatory: bits & BIT_0 != 0,
            immediate: bits & BIT_1 != 0,
        })
    }

    /// The ticket before the address means nothing any more, and nothing may follow the bits.
    #[inline]
    fn split(arguments: &'a [u8]) -> Option<(Address<'a>, u8)> {
        let (_ticket, rest) = read::short(arguments)?;
        let (address, rest) = Address::read(rest)?;
        match *rest {
            [bits] => Some((address, bits)),
            _ => None,
        }
    }
}
