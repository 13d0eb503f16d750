//! A whole stream, from frames to messages, read at once and again in two parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{Assembler, Decoded, FrameKind, Method, decode_frame, decode_method, frame_len};

const FRAME_MAX: u32 = 131_072;

/// Bodies of the messages read, and whether the stream was refused.
fn read(parts: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let mut found = Vec::new();
    let mut assembler = Assembler::new();
    let mut buffer = Vec::new();
    for part in parts {
        buffer.extend_from_slice(part);
        let mut rest = &buffer[..];
        loop {
            let (frame, consumed) = match decode_frame(rest, FRAME_MAX) {
                Ok(Decoded::Frame { frame, consumed }) => (frame, consumed),
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > rest.len());
                    break;
                }
                Err(error) => {
                    assert!(error.text.len() <= 255);
                    return (found, true);
                }
            };
            assert_eq!(frame_len(rest), Some(consumed));
            rest = &rest[consumed..];
            let result = match frame.kind {
                FrameKind::Method => match decode_method(frame.payload) {
                    Ok(Method::Publish(publish)) => assembler.begin(&publish).map(|()| None),
                    Ok(_) => assembler.on_method().map(|()| None),
                    Err(error) => Err(error),
                },
                FrameKind::Header => assembler.on_header(frame.payload),
                FrameKind::Body => assembler.on_body(frame.payload),
                FrameKind::Heartbeat => Ok(None),
            };
            match result {
                Ok(message) => found.extend(message.map(|message| message.body.into_owned())),
                Err(_) => return (found, true),
            }
        }
        buffer = rest.to_vec();
    }
    (found, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((&at, data)) = data.split_first() else {
        return;
    };
    let (first, second) = data.split_at(usize::from(at).min(data.len()));
    assert_eq!(read(&[data]), read(&[first, second]));
});
