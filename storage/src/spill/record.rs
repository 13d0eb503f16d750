//! One message in a spill file. Nobody but this process reads it, so the format has no version.

use bytes::Bytes;

use crate::bytes_cursor::Cursor;
use crate::types::{Meta, Payload, Place, ReadMessage, Seq};

/// Bytes of a record that are not payload.
pub(super) const HEADER: usize = 32;
/// Length and checksum.
const PREFIX: usize = 8;
const REDELIVERED: u8 = 1;

/// What goes into a record beside the payload.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) meta: Meta,
    pub(super) redelivered: bool,
}

/// Bytes that a payload takes as a record.
pub(super) fn len(payload: &dyn Payload) -> usize {
    HEADER + payload.encoded_len()
}

/// Appends a record; false, and nothing is appended, when the payload is not one that a record can hold.
pub(super) fn encode(head: &Head, payload: &dyn Payload, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let Ok(len) = u32::try_from(len(payload)) else { return false };
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.seq.to_le_bytes());
    out.extend_from_slice(&head.meta.deadline_ms.map_or(0, |deadline| deadline.max(1)).to_le_bytes());
    out.extend_from_slice(&head.meta.delivery_count.to_le_bytes());
    out.extend_from_slice(&[head.meta.priority, if head.redelivered { REDELIVERED } else { 0 }, 0, 0]);
    payload.encode(out);
    if out.len() - start != len as usize {
        out.truncate(start);
        return false;
    }
    let crc = crc32c::crc32c(&out[start + PREFIX..]);
    out[start + 4..start + PREFIX].copy_from_slice(&crc.to_le_bytes());
    true
}

/// What the bytes at the start of `bytes` are.
pub(super) enum Decoded {
    /// A record, and the bytes it takes.
    Message(ReadMessage, usize),
    /// The beginning of a record that takes this many bytes.
    Part(usize),
    /// No record.
    Damaged,
}

pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let Some(len) = bytes.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize) else {
        return Decoded::Part(HEADER);
    };
    if len < HEADER {
        return Decoded::Damaged;
    }
    let Some(record) = bytes.get(..len) else {
        return Decoded::Part(len);
    };
    match read(record) {
        Some(message) => Decoded::Message(message, len),
        None => Decoded::Damaged,
    }
}

fn read(record: &[u8]) -> Option<ReadMessage> {
    let mut cursor = Cursor::new(record.get(4..)?);
    let crc = cursor.u32()?;
    if crc != crc32c::crc32c(record.get(PREFIX..)?) {
        return None;
    }
    let (seq, deadline, delivery_count) = (cursor.u64()?, cursor.u64()?, cursor.u32()?);
    let (priority, flags) = (cursor.u8()?, cursor.u8()?);
    Some(ReadMessage {
        seq,
        meta: Meta { deadline_ms: (deadline != 0).then_some(deadline), priority, delivery_count },
        redelivered: flags & REDELIVERED != 0,
        place: Place::default(),
        payload: Bytes::copy_from_slice(record.get(HEADER..)?),
    })
}
