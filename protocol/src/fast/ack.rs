//! basic.ack, basic.nack, basic.reject

use super::{ACK, BIT_0, BIT_1, NACK, REJECT, cannot_decode};
use crate::error::AmqpError;

/// Messages are settled, or published ones are confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The message.
    pub delivery_tag: u64,
    /// All messages up to this one as well.
    pub multiple: bool,
}

/// Messages are given back, or published ones were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The message.
    pub delivery_tag: u64,
    /// All messages up to this one as well.
    pub multiple: bool,
    /// Back to the queue instead of dropped.
    pub requeue: bool,
}

/// One message is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The message.
    pub delivery_tag: u64,
    /// Back to the queue instead of dropped.
    pub requeue: bool,
}

impl Ack {
    pub(crate) fn decode(arguments: &[u8]) -> Result<Self, AmqpError> {
        let (delivery_tag, bits) = tag_and_bits(arguments, ACK)?;
        Ok(Self { delivery_tag, multiple: bits & BIT_0 != 0 })
    }
}

impl Nack {
    pub(crate) fn decode(arguments: &[u8]) -> Result<Self, AmqpError> {
        let (delivery_tag, bits) = tag_and_bits(arguments, NACK)?;
        Ok(Self { delivery_tag, multiple: bits & BIT_0 != 0, requeue: bits & BIT_1 != 0 })
    }
}

impl Reject {
    pub(crate) fn decode(arguments: &[u8]) -> Result<Self, AmqpError> {
        let (delivery_tag, bits) = tag_and_bits(arguments, REJECT)?;
        Ok(Self { delivery_tag, requeue: bits & BIT_0 != 0 })
    }
}

/// All three have a tag and an octet of bits.
fn tag_and_bits(arguments: &[u8], method_id: u16) -> Result<(u64, u8), AmqpError> {
    match arguments.split_first_chunk::<8>() {
        Some((tag, &[bits])) => Ok((u64::from_be_bytes(*tag), bits)),
        _ => Err(cannot_decode(arguments, method_id)),
    }
}
