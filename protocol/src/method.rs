//! Methods that a client sends.

use amq_protocol::protocol::{AMQPClass, parse_class};

use crate::error::{AmqpError, ReplyCode};
use crate::fast::{self, Ack, Nack, Publish, Reject};
use crate::frame::{FrameKind, METHOD_MIN, unknown_frame};
use crate::read;
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
/// 501 for arguments that do not fit the method, 503 for unknown methods and for those a client must not send, 540 for
/// a basic.qos with a limit in octets.
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
        (fast::BASIC, QOS) => {
            check_prefetch_size(arguments)?;
            decode_other(class_id, method_id, payload, arguments, |_| true).map(Method::Other)
        }
        _ => {
            let allowed = |sender| sender != Sender::Server || class_id == CONNECTION;
            decode_other(class_id, method_id, payload, arguments, allowed).map(Method::Other)
        }
    }
}

const CONNECTION: u16 = 10;
const QOS: u16 = 10;

/// A limit in octets is refused here because `amq-protocol` leaves the field out of what it returns.
fn check_prefetch_size(arguments: &[u8]) -> Result<(), AmqpError> {
    match read::long(arguments) {
        // Another length than a qos has is an error of its own.
        Some((size, rest)) if size != 0 && rest.len() == 3 => {
            let text = format_args!("prefetch_size!=0 ({size})");
            Err(AmqpError::new(ReplyCode::NotImplemented, text).at(fast::BASIC, QOS))
        }
        _ => Ok(()),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(payload: &[u8], code: u16, text: &str, ids: (u16, u16)) {
        let error = decode_method(payload).unwrap_err();
        assert_eq!((error.code.as_u16(), error.text.as_str()), (code, text));
        assert_eq!((error.class_id, error.method_id), ids);
    }

    #[test]
    fn too_short_for_its_ids() {
        refused(b"\x00\x3c", 501, "FRAME_ERROR - type 1, all octets = <<0,60>>: unknown_frame", (0, 0));
        refused(b"", 501, "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame", (0, 0));
    }

    #[test]
    fn arguments_must_fill_the_frame_exactly() {
        // queue.declare with one octet; basic.publish cut and with one octet too many; tx.select with an argument.
        refused(b"\x00\x32\x00\x0a\x00", 501, "FRAME_ERROR - cannot decode <<0>>", (50, 10));
        refused(b"\x00\x3c\x00\x28\x00\x00\x01a", 501, "FRAME_ERROR - cannot decode <<0,0,1,97>>", (60, 40));
        let text = "FRAME_ERROR - cannot decode <<0,0,0,0,0,0>>";
        refused(b"\x00\x3c\x00\x28\x00\x00\x00\x00\x00\x00", 501, text, (60, 40));
        refused(b"\x00\x5a\x00\x0a\x01", 501, "FRAME_ERROR - cannot decode <<1>>", (90, 10));
        refused(b"\x00\x3c\x00\x50\x01", 501, "FRAME_ERROR - cannot decode <<1>>", (60, 80));
        refused(b"\x00\x3c\x00\x78", 501, "FRAME_ERROR - cannot decode <<>>", (60, 120));
        refused(b"\x00\x3c\x00\x5a\x01", 501, "FRAME_ERROR - cannot decode <<1>>", (60, 90));
    }

    #[test]
    fn short_strings_are_utf8_but_for_publish() {
        assert!(matches!(decode_method(b"\x00\x3c\x00\x28\x00\x00\x00\x01\xff\x00"), Ok(Method::Publish(_))));
        let text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
        refused(b"\x00\x32\x00\x0a\x00\x00\x01\xff\x00\x00\x00\x00\x00", 501, text, (0, 0));
    }

    #[test]
    fn tables_are_checked_before_they_are_parsed() {
        let text = "FRAME_ERROR - malformed field table: unknown field type 85";
        refused(b"\x00\x32\x00\x0a\x00\x00\x00\x00\x00\x00\x00\x05\x01aU\x00\x01", 501, text, (50, 10));
        let mut bomb = Vec::new();
        for level in (0..100_000u32).rev() {
            bomb.extend_from_slice(&[0, b'F']);
            bomb.extend_from_slice(&(level * 6).to_be_bytes());
        }
        let table = [&(bomb.len() as u32).to_be_bytes()[..], &bomb].concat();
        let text = "FRAME_ERROR - malformed field table: more than 128 levels of nesting";
        for (before, after, ids) in [
            (&b""[..], &b"\x05PLAIN\x00\x00\x00\x00\x00"[..], (10u16, 11u16)),
            (b"\x00\x00\x01e\x06direct\x00", b"", (40, 10)),
            (b"\x00\x00\x01e\x01f\x01k\x00", b"", (40, 30)),
            (b"\x00\x00\x01e\x01f\x01k\x00", b"", (40, 40)),
            (b"\x00\x00\x01q\x00", b"", (50, 10)),
            (b"\x00\x00\x01q\x01e\x01k\x00", b"", (50, 20)),
            (b"\x00\x00\x01q\x01e\x01k", b"", (50, 50)),
            (b"\x00\x00\x01q\x01t\x00", b"", (60, 20)),
            (b"\x00\x09", b"\x00\x00\x00\x00\x00\x00\x00\x00", (10, 10)),
        ] {
            let ids_raw = [ids.0.to_be_bytes(), ids.1.to_be_bytes()].concat();
            refused(&[&ids_raw, before, &table, after].concat(), 501, text, ids);
            let empty = [&ids_raw, before, &[0; 4], after].concat();
            assert!(decode_method(&empty).is_ok(), "{ids:?}");
        }
    }

    #[test]
    fn methods_that_do_not_exist_or_are_not_a_clients() {
        let text = "COMMAND_INVALID - unimplemented method";
        refused(b"\x00\x3c\x00\x0c", 503, text, (60, 12));
        refused(b"\x01\x00\x00\x0a", 503, text, (256, 10));
        for (class_id, method_id) in [
            (20, 11),
            (40, 11),
            (50, 11),
            (50, 51),
            (60, 11),
            (60, 31),
            (60, 50),
            (60, 60),
            (60, 71),
            (60, 72),
            (85, 11),
        ] {
            let payload = [class_id, method_id].map(u16::to_be_bytes).concat();
            refused(&payload, 503, text, (class_id, method_id));
        }
    }

    #[test]
    fn a_prefetch_in_octets_is_not_implemented() {
        let text = "NOT_IMPLEMENTED - prefetch_size!=0 (7)";
        refused(b"\x00\x3c\x00\x0a\x00\x00\x00\x07\x00\x01\x00", 540, text, (60, 10));
        assert!(decode_method(b"\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x01\x00").is_ok());
        let text = "FRAME_ERROR - cannot decode <<0,0,0,7,0>>";
        refused(b"\x00\x3c\x00\x0a\x00\x00\x00\x07\x00", 501, text, (60, 10));
    }

    #[test]
    fn connection_methods_are_left_to_the_session() {
        for payload in [&b"\x00\x0a\x00\x3d"[..], b"\x00\x0a\x00\x47", b"\x00\x0a\x00\x33", b"\x00\x0a\x00\x29\x00"] {
            assert!(matches!(decode_method(payload), Ok(Method::Other(_))), "{payload:?}");
        }
    }

    #[test]
    fn the_method_is_the_one_of_the_ids() {
        use amq_protocol::protocol::AMQPClass;
        let Ok(Method::Other(class)) = decode_method(b"\x00\x5a\x00\x14") else { panic!("tx.commit") };
        assert!(matches!(*class, AMQPClass::Tx(_)));
        assert_eq!(method_ids(b"\x00\x5a\x00\x14"), Some((90, 20)));
        assert_eq!(method_ids(b"\x00\x5a\x00"), None);
    }
}
