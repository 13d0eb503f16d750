//! Puts the frames of a message together: basic.publish, content header, body frames.

use std::borrow::Cow;

use crate::content::{check_properties, split_header};
use crate::error::{AmqpError, ReplyCode};
use crate::fast::{BASIC, PUBLISH, Publish};

/// The largest body AMQP clients can announce to RabbitMQ.
pub const BODY_SIZE_MAX: u64 = 536_870_912;

/// Room for address and properties that is kept from message to message.
const SCRATCH_KEPT_MAX: usize = 16 * 1024;

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
        self.state = State::Body {
            announced: header.body_size,
            received: 0,
        };
        Ok(None)
    }

    /// Takes the payload of a body frame.
    ///
    /// # Errors
    ///
    /// 505 when no body is expected here, 501 when it is more than was announced.
    #[inline]
    pub fn on_body<'a>(
        &'a mut self,
        payload: &'a [u8],
    ) -> Result<Option<Assembled<'a>>, AmqpError> {
        let (announced, received) = match self.state {
            State::Body {
                announced,
                received,
            } => (announced, received),
            State::Idle => return Err(not_a_method()),
            State::Header => return Err(not_a_header()),
        };
        let received = received + payload.len() as u64;
        if received > announced {
            return Err(body_exceeded());
        }
        let complete = received == announced;
        if announced > self.body_kept_max {
            self.state = State::Body {
                announced,
                received,
            };
            return Ok(complete.then(|| self.complete(Cow::Borrowed(&[]), announced)));
        }
        if complete && self.body.is_empty() {
            return Ok(Some(self.complete(Cow::Borrowed(payload), announced)));
        }
        self.keep(payload, announced);
        self.state = State::Body {
            announced,
            received,
        };
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

    /// Grows by what came: twice that, but never beyond what was announced, so that a whole body has no slack.
    fn keep(&mut self, payload: &[u8], announced: u64) {
        let len = self.body.len() + payload.len();
        if len > self.body.capacity() {
            let announced = usize::try_from(announced).unwrap_or(usize::MAX);
            let target = (len * 2).min(announced).max(len);
            self.body.reserve_exact(target - self.body.len());
        }
        self.body.extend_from_slice(payload);
    }

    fn complete<'a>(&'a mut self, body: Cow<'a, [u8]>, body_size: u64) -> Assembled<'a> {
        self.state = State::Idle;
        let (address, properties) = self
            .scratch
            .split_at_checked(self.address_len)
            .unwrap_or_default();
        Assembled {
            address,
            properties,
            body,
            body_size,
            mandatory: self.mandatory,
            immediate: self.immediate,
        }
    }
}

fn unexpected(what: impl std::fmt::Display) -> AmqpError {
    AmqpError::new(ReplyCode::UnexpectedFrame, what)
}

#[cold]
fn not_a_method() -> AmqpError {
    unexpected("expected method frame, got non method frame instead")
}

#[cold]
fn not_a_header() -> AmqpError {
    unexpected("expected content header for class 60, got non content header frame instead")
        .at(BASIC, PUBLISH)
}

#[cold]
fn not_a_body() -> AmqpError {
    unexpected("expected content body, got non content body frame instead").at(BASIC, PUBLISH)
}

#[cold]
fn other_class(class_id: u16) -> AmqpError {
    unexpected(format_args!(
        "expected content header for class 60, got one for class {class_id} instead"
    ))
    .at(BASIC, PUBLISH)
}

#[cold]
fn body_too_large(size: u64) -> AmqpError {
    let text =
        format_args!("content body size {size} exceeds maximum allowed size {BODY_SIZE_MAX}");
    AmqpError::new(ReplyCode::FrameError, text).at(BASIC, PUBLISH)
}

#[cold]
fn body_exceeded() -> AmqpError {
    AmqpError::new(
        ReplyCode::FrameError,
        "content body frame exceeds remaining content size",
    )
    .at(BASIC, PUBLISH)
}
