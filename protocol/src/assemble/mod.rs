//! Puts the frames of a message together: basic.publish, content header, body frames.

mod refusal;

use std::borrow::Cow;

use crate::content::{check_properties, split_header};
use crate::error::AmqpError;
use crate::fast::{BASIC, Publish};
use refusal::{body_exceeded, body_too_large, not_a_body, not_a_header, not_a_method, other_class};

/// The largest body AMQP clients can announce to RabbitMQ.
pub const BODY_SIZE_MAX: u64 = 536_870_912;

/// Room for address and properties that is kept from message to message.
const SCRATCH_KEPT_MAX: usize = 16 * 1024;
/// How many times as much memory as has come of a body is asked for at once.
const GROWTH: usize = 16;

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled<'a> {
    /// Exchange and routing key with their lengths, as on the wire.
    pub address: &'a [u8],
    /// Flags and values of the properties, as on the wire; checked.
    pub properties: &'a [u8],
    /// The body: borrowed when it came in one frame. Empty when it was larger than the assembler keeps.
    pub body: Cow<'a, [u8]>,
    /// Octets of the body that were announced and came.
    pub body_size: u64,
    /// Return the message if it reaches no queue.
    pub mandatory: bool,
    /// Return the message if no consumer is there at once.
    pub immediate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Header,
    Body { announced: u64, received: u64 },
}

/// The content state of one channel.
#[derive(Debug)]
pub struct Assembler {
    state: State,
    /// Address, then properties.
    scratch: Vec<u8>,
    address_len: usize,
    body: Vec<u8>,
    body_kept_max: u64,
    mandatory: bool,
    immediate: bool,
}

impl Default for Assembler {
    fn default() -> Self {
        Self::new()
    }
}

impl Assembler {
    /// An assembler that waits for a publish.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            scratch: Vec::new(),
            address_len: 0,
            body: Vec::new(),
            body_kept_max: BODY_SIZE_MAX,
            mandatory: false,
            immediate: false,
        }
    }

    /// Larger bodies are read to their end, as clients expect, but not kept.
    pub fn keep_bodies_up_to(&mut self, octets: u64) {
        self.body_kept_max = octets;
    }

    /// Starts a message.
    ///
    /// # Errors
    ///
    /// 505 when another one is unfinished.
    #[inline]
    pub fn begin(&mut self, publish: &Publish<'_>) -> Result<(), AmqpError> {
        self.begin_address(publish.address)?;
        self.mandatory = publish.mandatory;
        self.immediate = publish.immediate;
        Ok(())
    }

    /// Starts a message of which only exchange and routing key are known: a delivery, on the client's side.
    ///
    /// # Errors
    ///
    /// 505 when another one is unfinished.
    pub fn begin_address(&mut self, address: &[u8]) -> Result<(), AmqpError> {
        self.on_method()?;
        self.trim();
        self.scratch.clear();
        self.scratch.extend_from_slice(address);
        self.address_len = address.len();
        self.mandatory = false;
        self.immediate = false;
        self.state = State::Header;
        Ok(())
    }

    /// Any method may come only between messages.
    ///
    /// # Errors
    ///
    /// 505 when a message is unfinished.
    #[inline]
    pub fn on_method(&self) -> Result<(), AmqpError> {
        match self.state {
            State::Idle => Ok(()),
            State::Header => Err(not_a_header()),
            State::Body { .. } => Err(not_a_body()),
        }
    }

    /// Whether no message is unfinished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Octets held of a message that is not complete.
    #[must_use]
    pub fn buffered(&self) -> usize {
        match self.state {
            State::Idle => 0,
            State::Header | State::Body { .. } => self.scratch.len() + self.body.len(),
        }
    }

    /// Takes the payload of a content header frame. The message is complete when it has no body.
    ///
    /// # Errors
    ///
    /// 505 when no header is expected here, or not this one; 501 when it is malformed or announces too much.
    #[inline]
    pub fn on_header<'a>(&'a mut self, payload: &[u8]) -> Result<Option<Assembled<'a>>, AmqpError> {
        let header = split_header(payload)?;
        match self.state {
            State::Header => {}
            State::Idle => return Err(not_a_method()),
            State::Body { .. } => return Err(not_a_body()),
        }
        if header.weight != 0 {
            return Err(not_a_header());
        }
        if header.class_id != BASIC {
            return Err(other_class(header.class_id));
        }
        if header.body_size > BODY_SIZE_MAX {
            return Err(body_too_large(header.body_size));
        }
        check_properties(header.properties)?;
        self.scratch.extend_from_slice(header.properties);
        if header.body_size == 0 {
            return Ok(Some(self.complete(Cow::Borrowed(&[]), 0)));
        }
        self.state = State::Body { announced: header.body_size, received: 0 };
        Ok(None)
    }

    /// Takes the payload of a body frame.
    ///
    /// # Errors
    ///
    /// 505 when no body is expected here, 501 when it is more than was announced.
    #[inline]
    pub fn on_body<'a>(&'a mut self, payload: &'a [u8]) -> Result<Option<Assembled<'a>>, AmqpError> {
        let (announced, received) = match self.state {
            State::Body { announced, received } => (announced, received),
            State::Idle => return Err(not_a_method()),
            State::Header => return Err(not_a_header()),
        };
        let received = received + payload.len() as u64;
        if received > announced {
            return Err(body_exceeded());
        }
        let complete = received == announced;
        if announced > self.body_kept_max {
            self.state = State::Body { announced, received };
            return Ok(complete.then(|| self.complete(Cow::Borrowed(&[]), announced)));
        }
        if complete && self.body.is_empty() {
            return Ok(Some(self.complete(Cow::Borrowed(payload), announced)));
        }
        self.keep(payload, announced);
        self.state = State::Body { announced, received };
        if !complete {
            return Ok(None);
        }
        let body = std::mem::take(&mut self.body);
        Ok(Some(self.complete(Cow::Owned(body), announced)))
    }

    /// Forgets an unfinished message.
    pub fn reset(&mut self) {
        self.state = State::Idle;
        self.scratch = Vec::new();
        self.address_len = 0;
        self.body = Vec::new();
    }

    /// Gives back what an uncommonly large message needed. Worth a call when a message has been taken over, so that
    /// thousands of channels do not each keep a large header table they saw once.
    #[inline]
    pub fn trim(&mut self) {
        if self.scratch.capacity() > SCRATCH_KEPT_MAX && self.is_idle() {
            self.scratch = Vec::new();
        }
    }

    /// Grows by what came: sixteen times that, so that little is copied twice, but never beyond what was announced, so that a
    /// whole body has no slack. What nothing has been written to takes no memory yet.
    fn keep(&mut self, payload: &[u8], announced: u64) {
        let len = self.body.len() + payload.len();
        if len > self.body.capacity() {
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            let target = len.saturating_mul(GROWTH).min(announced).max(len);
            self.body.reserve_exact(target - self.body.len());
        }
        self.body.extend_from_slice(payload);
    }

    fn complete<'a>(&'a mut self, body: Cow<'a, [u8]>, body_size: u64) -> Assembled<'a> {
        self.state = State::Idle;
        let (address, properties) = self.scratch.split_at_checked(self.address_len).unwrap_or_default();
        Assembled { address, properties, body, body_size, mandatory: self.mandatory, immediate: self.immediate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &[u8] = b"\x01e\x03key";

    fn publish() -> Publish<'static> {
        Publish { exchange: b"e", routing_key: b"key", address: ADDRESS, mandatory: true, immediate: false }
    }

    fn header(class_id: u16, weight: u16, body_size: u64) -> Vec<u8> {
        let mut payload = class_id.to_be_bytes().to_vec();
        payload.extend_from_slice(&weight.to_be_bytes());
        payload.extend_from_slice(&body_size.to_be_bytes());
        payload.extend_from_slice(b"\x10\x00\x02");
        payload
    }

    fn expecting_header() -> Assembler {
        let mut assembler = Assembler::new();
        assembler.begin(&publish()).unwrap();
        assembler
    }

    fn expecting_body(size: u64) -> Assembler {
        let mut assembler = expecting_header();
        assert_eq!(assembler.on_header(&header(60, 0, size)), Ok(None));
        assembler
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, AmqpError>, code: u16, text: &str, ids: (u16, u16)) {
        let error = result.unwrap_err();
        assert_eq!((error.code.as_u16(), error.text.as_str()), (code, text));
        assert_eq!((error.class_id, error.method_id), ids);
    }

    #[test]
    fn an_empty_body_needs_no_frame() {
        let mut assembler = expecting_header();
        let message = assembler.on_header(&header(60, 0, 0)).unwrap().unwrap();
        assert_eq!((message.address, message.properties), (ADDRESS, &b"\x10\x00\x02"[..]));
        assert_eq!((message.body.len(), message.mandatory, message.immediate), (0, true, false));
        assert!(assembler.is_idle());
    }

    #[test]
    fn a_body_in_one_frame_is_lent() {
        let mut assembler = expecting_body(5);
        let payload = b"hello".to_vec();
        let message = assembler.on_body(&payload).unwrap().unwrap();
        assert!(matches!(message.body, Cow::Borrowed(b"hello")));
        assert_eq!((message.address, message.properties), (ADDRESS, &b"\x10\x00\x02"[..]));
        assert_eq!(assembler.buffered(), 0);
    }

    #[test]
    fn a_body_in_parts_is_put_together_without_slack() {
        let mut assembler = expecting_body(10);
        assert_eq!(assembler.on_body(b""), Ok(None));
        assert_eq!(assembler.on_body(b"abcd"), Ok(None));
        assert_eq!(assembler.buffered(), ADDRESS.len() + 3 + 4);
        assert_eq!(assembler.on_body(b"efg"), Ok(None));
        let message = assembler.on_body(b"hij").unwrap().unwrap();
        let body = message.body.into_owned();
        assert_eq!((&body[..], body.capacity()), (&b"abcdefghij"[..], 10));
        assert!(assembler.is_idle());
        assembler.begin(&publish()).unwrap();
    }

    #[test]
    fn memory_follows_what_came_and_not_what_was_announced() {
        let mut assembler = expecting_body(BODY_SIZE_MAX);
        assert_eq!(assembler.on_body(&[0; 100]), Ok(None));
        assert!(assembler.body.capacity() <= 100 * GROWTH);
        assembler.reset();
        assert_eq!((assembler.buffered(), assembler.body.capacity()), (0, 0));
    }

    #[test]
    fn bodies_that_are_too_large_to_keep_are_read_to_their_end() {
        let mut assembler = expecting_body(10);
        assembler.keep_bodies_up_to(9);
        assert_eq!(assembler.on_body(b"abcde"), Ok(None));
        assert_eq!(assembler.buffered(), ADDRESS.len() + 3);
        let message = assembler.on_body(b"fghij").unwrap().unwrap();
        assert_eq!((message.body_size, message.body.len()), (10, 0));
    }

    #[test]
    fn trim_gives_large_headers_back() {
        let mut assembler = expecting_header();
        let mut large = header(60, 0, 0);
        large.truncate(12);
        large.extend_from_slice(b"\x20\x00\x00\x00\xff\x07\x00S\x00\x00\xff\x01");
        large.resize(large.len() + 0xff01, b'x');
        assert!(assembler.on_header(&large).unwrap().is_some());
        assembler.trim();
        assert_eq!(assembler.scratch.capacity(), 0);
    }

    #[test]
    fn content_without_a_method_is_refused() {
        let text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
        refused(Assembler::new().on_header(&header(60, 0, 0)), 505, text, (0, 0));
        refused(Assembler::new().on_body(b"x"), 505, text, (0, 0));
    }

    #[test]
    fn only_a_header_may_follow_a_publish() {
        let text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
        refused(expecting_header().begin(&publish()), 505, text, (60, 40));
        refused(expecting_header().on_method(), 505, text, (60, 40));
        refused(expecting_header().on_body(b"x"), 505, text, (60, 40));
        refused(expecting_header().on_header(&header(60, 1, 0)), 505, text, (60, 40));
    }

    #[test]
    fn the_header_must_be_of_the_class() {
        let text = "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead";
        refused(expecting_header().on_header(&header(50, 0, 0)), 505, text, (60, 40));
    }

    #[test]
    fn only_a_body_may_follow_a_header() {
        let text = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";
        refused(expecting_body(1).begin(&publish()), 505, text, (60, 40));
        refused(expecting_body(1).on_header(&header(60, 0, 1)), 505, text, (60, 40));
    }

    #[test]
    fn the_size_is_limited_and_kept_to() {
        assert_eq!(expecting_header().on_header(&header(60, 0, BODY_SIZE_MAX)), Ok(None));
        let text = "FRAME_ERROR - content body size 536870913 exceeds maximum allowed size 536870912";
        refused(expecting_header().on_header(&header(60, 0, BODY_SIZE_MAX + 1)), 501, text, (60, 40));
        assert!(expecting_header().on_header(&header(60, 0, 1 << 63)).is_err());
        let text = "FRAME_ERROR - content body frame exceeds remaining content size";
        refused(expecting_body(3).on_body(b"four"), 501, text, (60, 40));
        let mut assembler = expecting_body(3);
        assert_eq!(assembler.on_body(b"ab"), Ok(None));
        refused(assembler.on_body(b"cd"), 501, text, (60, 40));
    }
}
