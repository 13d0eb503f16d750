//! Methods that a client sends.

use amq_protocol::protocol::{AMQPClass, parse_class};

use crate::error::AmqpError;
use crate::fast::{self, Ack, Nack, Publish, Reject};
use crate::frame::{FrameKind, METHOD_MIN, unknown_frame};
use crate::signature::{Sender, Signature};

/// A method from a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Method<'a> {
    /// basic.publish
    Publish(Publish<'a>),
    /// basic.ack
    Ack(Ack),
    /// basic.nack
    Nack(Nack),
    /// basic.reject
    Reject(Reject),
    /// Any other method.
    Other(Box<AMQPClass>),
}

/// Class and method id at the start of a method frame's payload. A session needs them before it decodes: a method on a
/// channel that is not open is an error of the channel, whatever its arguments are.
#[must_use]
pub fn method_ids(payload: &[u8]) -> Option<(u16, u16)> {
    let (&[c0, c1, m0, m1], _) = payload.split_first_chunk::<METHOD_MIN>()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// Decodes the payload of a method frame from a client.
///
/// Every method of the connection class is decoded, also those only a server sends: which of them may come depends on
/// the channel and the state of the connection.
///
/// # Errors
///
/// 501 for arguments that do not fit the method, 503 for unknown methods and for those a client must not send.
#[inline]
pub fn decode_method(payload: &[u8]) -> Result<Method<'_>, AmqpError> {
    let Some((class_id, method_id, arguments)) = split(payload) else {
        return Err(unknown_frame(FrameKind::Method.as_u8(), payload));
    };
    match (class_id, method_id) {
        (fast::BASIC, fast::PUBLISH) => Publish::decode(arguments).map(Method::Publish),
        (fast::BASIC, fast::ACK) => Ack::decode(arguments).map(Method::Ack),
        (fast::BASIC, fast::NACK) => Nack::decode(arguments).map(Method::Nack),
        (fast::BASIC, fast::REJECT) => Reject::decode(arguments).map(Method::Reject),
        _ => {
            let allowed = |sender| sender != Sender::Server || class_id == CONNECTION;
            decode_other(class_id, method_id, payload, arguments, allowed).map(Method::Other)
        }
    }
}

const CONNECTION: u16 = 10;

/// Class id, method id and arguments.
pub(crate) fn split(payload: &[u8]) -> Option<(u16, u16, &[u8])> {
    let (class_id, method_id) = method_ids(payload)?;
    Some((class_id, method_id, payload.get(METHOD_MIN..)?))
}

/// Decodes with `amq-protocol` what has been found to be sound.
pub(crate) fn decode_other(
    class_id: u16,
    method_id: u16,
    payload: &[u8],
    arguments: &[u8],
    allowed: impl FnOnce(Sender) -> bool,
) -> Result<Box<AMQPClass>, AmqpError> {
    let signature = Signature::of(class_id, method_id)
        .filter(|signature| allowed(signature.sender))
        .ok_or_else(|| AmqpError::unimplemented_method(class_id, method_id))?;
    signature.check(class_id, method_id, arguments)?;
    match parse_class(payload) {
        Ok((_, class)) => Ok(Box::new(class)),
        Err(_) => Err(AmqpError::cannot_decode(arguments, class_id, method_id)),
    }
}
