//! Methods that a server sends, for load generators and tests.

use amq_protocol::protocol::AMQPClass;

use crate::error::AmqpError;
use crate::fast::{self, Ack, Deliver, GetOk, Nack, Return};
use crate::frame::{FrameKind, unknown_frame};
use crate::method::{decode_other, split};
use crate::signature::Sender;

/// A method from a server.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerMethod<'a> {
    /// basic.deliver
    Deliver(Deliver<'a>),
    /// basic.get-ok
    GetOk(GetOk<'a>),
    /// basic.return
    Return(Return<'a>),
    /// basic.ack
    Ack(Ack),
    /// basic.nack
    Nack(Nack),
    /// Any other method.
    Other(Box<AMQPClass>),
}

/// Decodes the payload of a method frame from a server.
///
/// # Errors
///
/// As [`decode_method`](crate::decode_method), with the roles exchanged.
#[inline]
pub fn decode_server_method(payload: &[u8]) -> Result<ServerMethod<'_>, AmqpError> {
    let Some((class_id, method_id, arguments)) = split(payload) else {
        return Err(unknown_frame(FrameKind::Method.as_u8(), payload));
    };
    match (class_id, method_id) {
        (fast::BASIC, fast::DELIVER) => Deliver::decode(arguments).map(ServerMethod::Deliver),
        (fast::BASIC, fast::GET_OK) => GetOk::decode(arguments).map(ServerMethod::GetOk),
        (fast::BASIC, fast::RETURN) => Return::decode(arguments).map(ServerMethod::Return),
        (fast::BASIC, fast::ACK) => Ack::decode(arguments).map(ServerMethod::Ack),
        (fast::BASIC, fast::NACK) => Nack::decode(arguments).map(ServerMethod::Nack),
        _ => decode_other(class_id, method_id, payload, arguments, |sender| sender != Sender::Client)
            .map(ServerMethod::Other),
    }
}
