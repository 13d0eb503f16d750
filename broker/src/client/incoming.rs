//! The receiving half of a connection.

use std::io::{self, Read};
use std::net::TcpStream;

use anyhow::bail;
use protocol::{Decoded, Frame, decode_frame};

const BUFFER_BYTES: usize = 128 * 1024;

/// A socket and what was read from it and not used yet.
pub(crate) struct Incoming {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    frame_max: u32,
    /// Bytes the frame at `start` takes in all, as far as known.
    needed: usize,
}

impl Incoming {
    pub(crate) fn new(stream: TcpStream, frame_max: u32) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0, frame_max, needed: 0 }
    }

    pub(crate) fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = frame_max;
    }

    /// Waits for more bytes; false at the end of the stream. `next` must have returned `None` before.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // A frame's length is bounded by frame_max, which this side proposed.
        if self.needed > self.buffer.len() {
            self.buffer.resize(self.needed, 0);
        }
        let free = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = self.stream.read(free)?;
        self.end += read;
        Ok(read > 0)
    }

    /// The next whole frame that has been read.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Frame<'_>>> {
        let unread = self.buffer.get(self.start..self.end).unwrap_or_default();
        match decode_frame(unread, self.frame_max) {
            Ok(Decoded::Frame { frame, consumed }) => {
                self.start += consumed;
                Ok(Some(frame))
            }
            Ok(Decoded::Incomplete { needed }) => {
                self.needed = needed;
                Ok(None)
            }
            Err(error) => bail!("the broker sent a broken frame: {}", error.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use protocol::{FrameKind, put_frame};

    use super::*;

    #[test]
    fn frames_larger_than_the_buffer_and_split_anywhere_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let sizes = [1, 3 * BUFFER_BYTES, 100, BUFFER_BYTES, 7];
        let writer = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            for size in sizes {
                put_frame(&mut bytes, FrameKind::Body, 1, &vec![b'x'; size]);
            }
            for part in bytes.chunks(10_007) {
                sender.write_all(part).unwrap();
            }
        });
        let mut incoming = Incoming::new(stream, 0);
        let mut seen = Vec::new();
        loop {
            while let Some(frame) = incoming.next().unwrap() {
                seen.push(frame.payload.len());
            }
            if !incoming.fill().unwrap() {
                break;
            }
        }
        writer.join().unwrap();
        assert_eq!(seen, sizes);
    }
}
