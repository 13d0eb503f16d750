//! Everything that is written: frames appended to a buffer.

use std::borrow::Cow;

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{AMQPClass, gen_class};

use crate::fast::{ACK, BASIC, DELIVER, GET_OK, NACK, PUBLISH, RETURN};
use crate::frame::{CONTENT_HEADER_MIN, FRAME_END, FRAME_OVERHEAD, FrameKind, METHOD_MIN};
use crate::names;
use crate::read;

/// A message as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
    /// Flags and values of the properties, as on the wire.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Exchange and routing key as they are on the wire; names above 255 octets are cut.
#[must_use]
pub fn address(exchange: &str, routing_key: &str) -> Vec<u8> {
    let (exchange, routing_key) = (names::cut(exchange), names::cut(routing_key));
    let mut out = Vec::with_capacity(exchange.len() + routing_key.len() + 2);
    put_short_str(&mut out, exchange);
    put_short_str(&mut out, routing_key);
    out
}

/// Splits an address into exchange and routing key as text. What is not UTF-8 is replaced: it equals no name that could
/// have been declared.
#[must_use]
pub fn shortstrs(address: &[u8]) -> (Cow<'_, str>, Cow<'_, str>) {
    let Some((exchange, rest)) = read::short_str(address) else {
        return (Cow::Borrowed(""), Cow::Borrowed(""));
    };
    let routing_key = read::short_str(rest).map_or(&[][..], |(key, _)| key);
    (String::from_utf8_lossy(exchange), String::from_utf8_lossy(routing_key))
}

/// A frame with a payload that is already there.
pub fn put_frame(out: &mut Vec<u8>, kind: FrameKind, channel: u16, payload: &[u8]) {
    out.reserve(payload.len() + FRAME_OVERHEAD);
    put_frame_header(out, kind, channel, payload.len());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// A method frame, written by `amq-protocol`.
pub fn put_method(out: &mut Vec<u8>, channel: u16, method: &AMQPClass) {
    match gen_class(method)(WriteContext::from(Vec::with_capacity(64))) {
        Ok(context) => put_frame(out, FrameKind::Method, channel, &context.into_inner().0),
        Err(error) => debug_assert!(false, "a Vec takes everything: {error}"),
    }
}

/// A heartbeat.
pub fn put_heartbeat(out: &mut Vec<u8>) {
    put_frame(out, FrameKind::Heartbeat, 0, &[]);
}

/// A message for a consumer: basic.deliver, content header, body frames.
#[inline]
pub fn put_deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &str,
    delivery_tag: u64,
    redelivered: bool,
    content: &Content<'_>,
    frame_max: u32,
) {
    put_deliver_head(out, channel, consumer_tag, delivery_tag, redelivered, content, content.body.len());
    put_body(out, channel, content.body, frame_max);
}

/// Method and content header of a delivery whose body of `body_len` octets the caller writes itself, in frames that
/// start with [`put_body_frame_header`].
#[inline]
pub fn put_deliver_head(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &str,
    delivery_tag: u64,
    redelivered: bool,
    content: &Content<'_>,
    body_len: usize,
) {
    let consumer_tag = names::cut(consumer_tag);
    let arguments = 1 + consumer_tag.len() + 9 + content.address.len();
    reserve_message(out, arguments, content, body_len);
    put_method_header(out, channel, DELIVER, arguments);
    put_short_str(out, consumer_tag);
    put_tag_and_bits(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(content.address);
    out.push(FRAME_END);
    put_content_header(out, channel, content.properties, body_len);
}

/// The answer to basic.get with a message.
#[inline]
pub fn put_get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    message_count: u32,
    content: &Content<'_>,
    frame_max: u32,
) {
    let arguments = 9 + content.address.len() + 4;
    reserve_message(out, arguments, content, content.body.len());
    put_method_header(out, channel, GET_OK, arguments);
    put_tag_and_bits(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(content.address);
    out.extend_from_slice(&message_count.to_be_bytes());
    out.push(FRAME_END);
    put_content_header(out, channel, content.properties, content.body.len());
    put_body(out, channel, content.body, frame_max);
}

/// A message that goes back to its publisher.
pub fn put_return(out: &mut Vec<u8>, channel: u16, code: u16, text: &str, content: &Content<'_>, frame_max: u32) {
    let text = names::cut(text);
    let arguments = 2 + 1 + text.len() + content.address.len();
    reserve_message(out, arguments, content, content.body.len());
    put_method_header(out, channel, RETURN, arguments);
    out.extend_from_slice(&code.to_be_bytes());
    put_short_str(out, text);
    out.extend_from_slice(content.address);
    out.push(FRAME_END);
    put_content_header(out, channel, content.properties, content.body.len());
    put_body(out, channel, content.body, frame_max);
}

/// A message from a client.
#[inline]
pub fn put_publish(out: &mut Vec<u8>, channel: u16, content: &Content<'_>, mandatory: bool, frame_max: u32) {
    let arguments = 2 + content.address.len() + 1;
    reserve_message(out, arguments, content, content.body.len());
    put_method_header(out, channel, PUBLISH, arguments);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(content.address);
    out.push(u8::from(mandatory));
    out.push(FRAME_END);
    put_content_header(out, channel, content.properties, content.body.len());
    put_body(out, channel, content.body, frame_max);
}

/// basic.ack
#[inline]
pub fn put_ack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    put_settlement(out, channel, ACK, delivery_tag, u8::from(multiple));
}

/// basic.nack
#[inline]
pub fn put_nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool, requeue: bool) {
    put_settlement(out, channel, NACK, delivery_tag, u8::from(multiple) | u8::from(requeue) << 1);
}

/// The seven octets before a part of a body; the part and [`FRAME_END`] must follow.
#[inline]
pub fn put_body_frame_header(out: &mut Vec<u8>, channel: u16, len: usize) {
    put_frame_header(out, FrameKind::Body, channel, len);
}

/// Octets of body that fit a frame; 0 means no limit.
#[must_use]
pub const fn body_frame_max(frame_max: u32) -> usize {
    match frame_max {
        0 => u32::MAX as usize,
        // A limit that leaves no room cannot be negotiated; one octet per frame at least ends.
        1..=8 => 1,
        _ => frame_max as usize - FRAME_OVERHEAD,
    }
}

#[inline]
fn put_body(out: &mut Vec<u8>, channel: u16, body: &[u8], frame_max: u32) {
    for part in body.chunks(body_frame_max(frame_max)) {
        put_body_frame_header(out, channel, part.len());
        out.extend_from_slice(part);
        out.push(FRAME_END);
    }
}

/// One growth for the whole message instead of one per field.
#[inline]
fn reserve_message(out: &mut Vec<u8>, arguments: usize, content: &Content<'_>, body_len: usize) {
    let heads = arguments + METHOD_MIN + CONTENT_HEADER_MIN + content.properties.len() + 3 * FRAME_OVERHEAD;
    // A head alone is followed by a body from elsewhere, which needs no room here.
    out.reserve(heads + if content.body.len() == body_len { body_len } else { 0 });
}

#[inline]
fn put_frame_header(out: &mut Vec<u8>, kind: FrameKind, channel: u16, len: usize) {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1, l2, l3] = frame_len(len).to_be_bytes();
    out.extend_from_slice(&[kind.as_u8(), c0, c1, l0, l1, l2, l3]);
}

#[inline]
fn put_method_header(out: &mut Vec<u8>, channel: u16, method_id: u16, arguments: usize) {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1, l2, l3] = frame_len(arguments + METHOD_MIN).to_be_bytes();
    let [b0, b1] = BASIC.to_be_bytes();
    let [m0, m1] = method_id.to_be_bytes();
    out.extend_from_slice(&[FrameKind::Method.as_u8(), c0, c1, l0, l1, l2, l3, b0, b1, m0, m1]);
}

#[inline]
fn put_content_header(out: &mut Vec<u8>, channel: u16, properties: &[u8], body_len: usize) {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1, l2, l3] = frame_len(properties.len() + CONTENT_HEADER_MIN).to_be_bytes();
    let [b0, b1] = BASIC.to_be_bytes();
    let [s0, s1, s2, s3, s4, s5, s6, s7] = (body_len as u64).to_be_bytes();
    out.extend_from_slice(&[
        FrameKind::Header.as_u8(),
        c0,
        c1,
        l0,
        l1,
        l2,
        l3,
        b0,
        b1,
        0,
        0,
        s0,
        s1,
        s2,
        s3,
        s4,
        s5,
        s6,
        s7,
    ]);
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

#[inline]
fn put_settlement(out: &mut Vec<u8>, channel: u16, method_id: u16, delivery_tag: u64, bits: u8) {
    put_method_header(out, channel, method_id, 9);
    put_tag_and_bits(out, delivery_tag, bits);
    out.push(FRAME_END);
}

#[inline]
fn put_tag_and_bits(out: &mut Vec<u8>, delivery_tag: u64, bits: u8) {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    out.extend_from_slice(&[t0, t1, t2, t3, t4, t5, t6, t7, bits]);
}

/// Writes a string that has been cut to 255 octets.
#[inline]
fn put_short_str(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= names::SHORT_MAX, "the caller cuts");
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The length field: no frame the broker writes comes near four gigabytes, since bodies are split and the rest
/// arrived in frames itself.
#[inline]
fn frame_len(len: usize) -> u32 {
    debug_assert!(u32::try_from(len).is_ok(), "a frame of {len} octets");
    len as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoded, decode_frame};

    fn payloads(mut wire: &[u8], frame_max: u32) -> Vec<(FrameKind, usize)> {
        let mut found = Vec::new();
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(wire, frame_max) {
            found.push((frame.kind, frame.payload.len()));
            wire = &wire[consumed..];
        }
        assert!(wire.is_empty(), "{wire:?}");
        found
    }

    fn bodies(body_len: usize, frame_max: u32) -> Vec<usize> {
        let body = vec![7; body_len];
        let content = Content { address: &address("", "q"), properties: &[0, 0], body: &body };
        let mut out = Vec::new();
        put_publish(&mut out, 1, &content, false, frame_max);
        let frames = payloads(&out, 0);
        assert_eq!(frames[..2], [(FrameKind::Method, 10), (FrameKind::Header, 14)]);
        frames[2..].iter().map(|(_, len)| *len).collect()
    }

    #[test]
    fn bodies_are_split_by_the_frame_limit() {
        assert_eq!(bodies(0, 8192), [0; 0]);
        assert_eq!(bodies(8184, 8192), [8184]);
        assert_eq!(bodies(8185, 8192), [8184, 1]);
        assert_eq!(bodies(20_000, 8192), [8184, 8184, 3632]);
        assert_eq!(bodies(200_000, 0), [200_000]);
        assert_eq!(bodies(3, 8), [1, 1, 1]);
    }

    #[test]
    fn a_head_and_its_body_are_the_whole() {
        let address = address("e", "k");
        let content = Content { address: &address, properties: b"\x10\x00\x02", body: b"hello" };
        let mut whole = Vec::new();
        put_deliver(&mut whole, 9, "tag", 5, true, &content, 4096);
        let mut parts = Vec::new();
        put_deliver_head(&mut parts, 9, "tag", 5, true, &Content { body: &[], ..content }, 5);
        put_body_frame_header(&mut parts, 9, 5);
        parts.extend_from_slice(b"hello");
        parts.push(FRAME_END);
        assert_eq!(whole, parts);
    }

    #[test]
    fn long_names_are_cut() {
        let long = "x".repeat(1_000);
        let content = Content { address: &address(&long, &long), properties: &[0, 0], body: &[] };
        assert_eq!(content.address.len(), 512);
        let mut out = Vec::new();
        put_deliver(&mut out, 1, &long, 1, false, &content, 0);
        put_return(&mut out, 1, 312, &long, &content, 0);
        assert_eq!(payloads(&out, 0).len(), 4);
    }

    #[test]
    fn addresses_are_split_again() {
        assert_eq!(shortstrs(&address("amq.topic", "a.b")), ("amq.topic".into(), "a.b".into()));
        assert_eq!(shortstrs(&address("", "")), ("".into(), "".into()));
        assert_eq!(shortstrs(b""), ("".into(), "".into()));
        assert_eq!(shortstrs(b"\x02e"), ("".into(), "".into()));
        assert_eq!(shortstrs(b"\x01e\x05k"), ("e".into(), "".into()));
        assert_eq!(shortstrs(b"\x01\xff\x01k"), ("\u{fffd}".into(), "k".into()));
    }
}
