//! The envelope of a frame: type, channel, length, payload, end octet.

use crate::error::AmqpError;
use crate::snippet::SNIPPET_OCTETS;

/// The octet every frame ends with.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame that are not payload: seven before it and one after.
pub const FRAME_OVERHEAD: usize = 8;
/// The smallest `frame_max` a client may negotiate.
pub const FRAME_MIN_SIZE: u32 = 4096;
/// The limit that holds until tune-ok: room for the client properties of every known client.
pub const FRAME_MAX_BEFORE_TUNE: u32 = 8192;

/// Octets before the payload.
pub(crate) const FRAME_HEADER: usize = 7;
/// Octets a content header has at least: class, weight and body size.
pub(crate) const CONTENT_HEADER_MIN: usize = 12;
/// Octets a method has at least: class and method id.
pub(crate) const METHOD_MIN: usize = 4;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A method with its arguments.
    Method = 1,
    /// A content header.
    Header = 2,
    /// A part of a body.
    Body = 3,
    /// A sign of life.
    Heartbeat = 8,
}

impl FrameKind {
    /// The type octet.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    const fn from_u8(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// A frame, borrowed from the buffer it was received in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel, 0 for the connection itself.
    pub channel: u16,
    /// The octets between header and end.
    pub payload: &'a [u8],
}

/// What a buffer starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame.
    Frame {
        /// The frame.
        frame: Frame<'a>,
        /// Octets of the buffer it takes.
        consumed: usize,
    },
    /// Not yet a whole frame.
    Incomplete {
        /// Octets the frame will take in all, or 7 as long as its length is not known.
        needed: usize,
    },
}

/// Reads the frame at the start of `buf`. A `frame_max` of 0 means no limit.
///
/// Content and heartbeat frames on a channel where they can never be are refused here as well.
///
/// # Errors
///
/// 501 for an unknown type, a missing end octet, a heartbeat with a payload or a frame above the limit (reported when
/// its first seven octets are there), 505 for content on channel 0 and heartbeats on any other.
#[inline]
pub fn decode_frame(buf: &[u8], frame_max: u32) -> Result<Decoded<'_>, AmqpError> {
    let Some((&[kind, c0, c1, l0, l1, l2, l3], rest)) = buf.split_first_chunk::<FRAME_HEADER>() else {
        return Ok(Decoded::Incomplete { needed: FRAME_HEADER });
    };
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([l0, l1, l2, l3]);
    // The overhead is not counted here: RabbitMQ tolerates a payload of up to frame_max octets.
    if size > frame_max && frame_max != 0 {
        return Err(too_large(kind, size, frame_max));
    }
    let size = size as usize;
    let kind = match FrameKind::from_u8(kind) {
        Some(kind) => kind,
        None => return unknown_type(kind, size, rest),
    };
    let Some((payload, &[end, ..])) = rest.split_at_checked(size) else {
        return Ok(Decoded::Incomplete { needed: size.saturating_add(FRAME_OVERHEAD) });
    };
    if end != FRAME_END {
        return Err(bad_end(kind.as_u8(), payload, end));
    }
    if channel == 0 || kind == FrameKind::Heartbeat {
        check_placement(kind, channel, payload)?;
    }
    Ok(Decoded::Frame { frame: Frame { kind, channel, payload }, consumed: size + FRAME_OVERHEAD })
}

/// Octets that the frame at the start of `buf` takes in all, once its length is there. For passing over frames that
/// [`decode_frame`] refused.
#[must_use]
pub fn frame_len(buf: &[u8]) -> Option<usize> {
    let (&[_, _, _, l0, l1, l2, l3], _) = buf.split_first_chunk::<FRAME_HEADER>()?;
    Some((u32::from_be_bytes([l0, l1, l2, l3]) as usize).saturating_add(FRAME_OVERHEAD))
}

/// Channel 0 carries methods and empty heartbeats, and heartbeats go nowhere else.
#[cold]
fn check_placement(kind: FrameKind, channel: u16, payload: &[u8]) -> Result<(), AmqpError> {
    match kind {
        FrameKind::Heartbeat if !payload.is_empty() => Err(unknown_frame(kind.as_u8(), payload)),
        FrameKind::Heartbeat if channel != 0 => Err(AmqpError::unexpected_frame(kind.as_u8(), payload)),
        FrameKind::Header if payload.len() < CONTENT_HEADER_MIN => Err(unknown_frame(kind.as_u8(), payload)),
        FrameKind::Header | FrameKind::Body => Err(AmqpError::unexpected_frame(kind.as_u8(), payload)),
        FrameKind::Method | FrameKind::Heartbeat => Ok(()),
    }
}

/// A type nobody knows: reported when the part of the payload that its text shows is there, since what follows garbage
/// may never come.
#[cold]
fn unknown_type(kind: u8, size: usize, rest: &[u8]) -> Result<Decoded<'_>, AmqpError> {
    // One octet more than is shown tells "all octets" from "first 16".
    let shown = size.min(SNIPPET_OCTETS + 1);
    let Some(payload) = rest.get(..shown) else {
        return Ok(Decoded::Incomplete { needed: shown + FRAME_HEADER });
    };
    let error = unknown_frame(kind, payload);
    Err(if rest.get(size) == Some(&FRAME_END) { error } else { error.losing_stream() })
}

#[cold]
fn too_large(kind: u8, size: u32, frame_max: u32) -> AmqpError {
    let payload_max = frame_max.saturating_sub(FRAME_OVERHEAD as u32);
    AmqpError::bad_frame(kind, &[], format_args!("{{frame_too_large,{size},{payload_max}}}")).losing_stream()
}

#[cold]
fn bad_end(kind: u8, payload: &[u8], end: u8) -> AmqpError {
    AmqpError::bad_frame(kind, payload, format_args!("{{invalid_frame_end_marker,{end}}}")).losing_stream()
}

/// A frame whose payload its type does not allow.
#[cold]
pub(crate) fn unknown_frame(kind: u8, payload: &[u8]) -> AmqpError {
    AmqpError::bad_frame(kind, payload, "unknown_frame")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(buf: &[u8], frame_max: u32) -> AmqpError {
        match decode_frame(buf, frame_max) {
            Err(error) => error,
            Ok(decoded) => panic!("{buf:?} gave {decoded:?}"),
        }
    }

    #[test]
    fn a_whole_frame_is_lent() {
        let buf = b"\x03\x00\x07\x00\x00\x00\x02hi\xce\x08";
        let frame = Frame { kind: FrameKind::Body, channel: 7, payload: b"hi" };
        assert_eq!(decode_frame(buf, 4096), Ok(Decoded::Frame { frame, consumed: 10 }));
        assert_eq!(frame_len(buf), Some(10));
    }

    #[test]
    fn an_incomplete_frame_tells_what_it_needs() {
        let buf = b"\x03\x00\x07\x00\x00\x00\x02hi\xce";
        for len in 0..7 {
            assert_eq!(decode_frame(&buf[..len], 0), Ok(Decoded::Incomplete { needed: 7 }));
        }
        for len in 7..10 {
            assert_eq!(decode_frame(&buf[..len], 0), Ok(Decoded::Incomplete { needed: 10 }));
        }
    }

    #[test]
    fn the_limit_is_reported_with_the_header() {
        let frame = |size: u32| {
            let mut buf = vec![3, 0, 1];
            buf.extend_from_slice(&size.to_be_bytes());
            buf
        };
        let incomplete = Ok(Decoded::Incomplete { needed: 4104 });
        assert_eq!(decode_frame(&frame(4096), 4096), incomplete, "eight octets of slack");
        let error = error(&frame(4097), 4096);
        assert_eq!(error.text, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}");
        assert!(error.stream_lost);
        assert!(decode_frame(&frame(u32::MAX), 0).is_ok(), "0 is no limit");
    }

    #[test]
    fn a_wrong_end_is_named() {
        let error = error(b"\x03\x00\x07\x00\x00\x00\x02hi\x00", 0);
        assert_eq!(error.text, r#"FRAME_ERROR - type 3, all octets = <<"hi">>: {invalid_frame_end_marker,0}"#);
        assert!(error.stream_lost);
    }

    #[test]
    fn an_unknown_type_shows_its_octets() {
        let whole = error(b"\x04\x00\x01\x00\x00\x00\x03abc\xce", 4096);
        assert_eq!(whole.text, r#"FRAME_ERROR - type 4, all octets = <<"abc">>: unknown_frame"#);
        assert!(!whole.stream_lost);
        let start = b"\x04\x00\x01\x00\x00\x01\x00aaaaaaaaaaaaaaaab";
        assert_eq!(decode_frame(&start[..23], 4096), Ok(Decoded::Incomplete { needed: 24 }));
        let start = error(start, 4096);
        assert_eq!(start.text, r#"FRAME_ERROR - type 4, first 16 octets = <<"aaaaaaaaaaaaaaaa">>: unknown_frame"#);
        assert!(start.stream_lost);
    }

    #[test]
    fn heartbeats_are_empty_and_on_channel_0() {
        assert!(decode_frame(b"\x08\x00\x00\x00\x00\x00\x00\xce", 0).is_ok());
        let filled = error(b"\x08\x00\x00\x00\x00\x00\x03abc\xce", 0);
        assert_eq!(filled.text, r#"FRAME_ERROR - type 8, all octets = <<"abc">>: unknown_frame"#);
        let elsewhere = error(b"\x08\x00\x01\x00\x00\x00\x00\xce", 0);
        assert_eq!(elsewhere.text, "UNEXPECTED_FRAME - type 8, all octets = <<>>");
        assert_eq!((elsewhere.code.as_u16(), elsewhere.stream_lost), (505, false));
    }

    #[test]
    fn channel_0_has_no_content() {
        let body = error(b"\x03\x00\x00\x00\x00\x00\x01a\xce", 0);
        assert_eq!(body.text, r#"UNEXPECTED_FRAME - type 3, all octets = <<"a">>"#);
        let header = error(b"\x02\x00\x00\x00\x00\x00\x0c\x00\x3c\0\0\0\0\0\0\0\0\0\0\xce", 0);
        assert_eq!(header.text, "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0>>");
        let short = error(b"\x02\x00\x00\x00\x00\x00\x01\x00\xce", 0);
        assert_eq!(short.text, "FRAME_ERROR - type 2, all octets = <<0>>: unknown_frame");
    }
}
