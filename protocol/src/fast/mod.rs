//! The methods that travel with every message, decoded by hand: no allocation, strings borrowed from the frame.

mod ack;
mod deliver;
mod publish;

pub use ack::{Ack, Nack, Reject};
pub use deliver::{Deliver, GetOk, Return};
pub use publish::Publish;

use crate::error::AmqpError;
use crate::read;

/// The class of all of them.
pub(crate) const BASIC: u16 = 60;
/// basic.publish
pub(crate) const PUBLISH: u16 = 40;
/// basic.return
pub(crate) const RETURN: u16 = 50;
/// basic.deliver
pub(crate) const DELIVER: u16 = 60;
/// basic.get-ok
pub(crate) const GET_OK: u16 = 71;
/// basic.ack
pub(crate) const ACK: u16 = 80;
/// basic.reject
pub(crate) const REJECT: u16 = 90;
/// basic.nack
pub(crate) const NACK: u16 = 120;

/// The bit fields of these methods, lowest first.
const BIT_0: u8 = 1;
const BIT_1: u8 = 2;

fn text(octets: &[u8]) -> Result<&str, AmqpError> {
    std::str::from_utf8(octets).map_err(|_| AmqpError::malformed_utf8())
}

#[cold]
fn cannot_decode(arguments: &[u8], method_id: u16) -> AmqpError {
    AmqpError::cannot_decode(arguments, BASIC, method_id)
}

/// Exchange and routing key as octets, the two as they are on the wire, and what follows.
struct Address<'a> {
    exchange: &'a [u8],
    routing_key: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Address<'a> {
    fn read(buf: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (exchange, rest) = read::short_str(buf)?;
        let (routing_key, rest) = read::short_str(rest)?;
        let (raw, rest) = buf.split_at_checked(buf.len() - rest.len())?;
        Some((Self { exchange, routing_key, raw }, rest))
    }
}
