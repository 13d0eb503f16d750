//! A client over a plain blocking socket. It sends whatever a test wants and reports exactly what came back.
//!
//! Here: the socket, frames, and the end of channels and connections. [`Handshake`] is how a connection begins,
//! [`Delivery`] and the rest of the short forms are what tests do with an open channel.

mod handshake;
mod operations;

pub use handshake::{Handshake, PROTOCOL_HEADER, Tune};
pub use operations::{Content, Delivery};

use crate::DEADLINE;
use crate::id::{self, Id};
use crate::wire::{self, FRAME_END, HEARTBEAT, METHOD, Reader};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

/// One frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type octet.
    pub kind: u8,
    /// The channel number.
    pub channel: u16,
    /// What is inside.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The ids of the method, when it is a method.
    pub fn id(&self) -> Option<Id> {
        let [c0, c1, m0, m1, ..] = self.payload[..] else {
            return None;
        };
        (self.kind == METHOD).then(|| (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
    }

    /// What follows the ids of a method.
    #[track_caller]
    pub fn arguments(&self) -> &[u8] {
        &self.payload[4..]
    }
}

/// What connection.close or channel.close says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reply code.
    pub code: u16,
    /// The reply text.
    pub text: String,
    /// Class and method it blames.
    pub id: Id,
}

impl Close {
    /// What a test expects.
    pub fn new(code: u16, text: impl Into<String>, id: Id) -> Self {
        Self { code, text: text.into(), id }
    }

    #[track_caller]
    fn read(arguments: &[u8]) -> Self {
        let mut reader = Reader::new(arguments);
        Self { code: reader.short(), text: reader.shortstr(), id: (reader.short(), reader.short()) }
    }
}

/// One connection.
pub struct Raw {
    stream: TcpStream,
    frame_max: u32,
}

impl Raw {
    /// Connects and sends nothing.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("cannot connect");
        for timeout in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            timeout(&stream, Some(DEADLINE)).expect("cannot set a timeout");
        }
        stream.set_nodelay(true).expect("cannot set nodelay");
        Self { stream, frame_max: 131_072 }
    }

    /// A second handle on the same socket, for a thread that writes while another reads.
    #[track_caller]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("cannot clone the socket")
    }

    /// Drops the connection without a word.
    pub fn abort(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Says that nothing more will be sent.
    pub fn finish_writing(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("cannot write to the server");
    }

    /// Sends bytes to a server that may have closed already.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a frame.
    #[track_caller]
    pub fn frame(&mut self, kind: u8, channel: u16, payload: impl AsRef<[u8]>) {
        self.send(wire::frame(kind, channel, payload.as_ref()));
    }

    /// Sends a method without waiting for anything.
    #[track_caller]
    pub fn method(&mut self, channel: u16, id: Id, arguments: impl AsRef<[u8]>) {
        self.send(wire::method(channel, id, arguments));
    }

    /// Sends a method and returns the arguments of the answer.
    #[track_caller]
    pub fn call(&mut self, channel: u16, id: Id, arguments: impl AsRef<[u8]>, answer: Id) -> Vec<u8> {
        self.method(channel, id, arguments);
        self.expect(channel, answer)
    }

    /// The next `count` bytes, or `None` when the server closed before the last of them.
    #[track_caller]
    pub fn read_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came within {DEADLINE:?}")
            }
            Err(_) => None,
        }
    }

    /// The next frame of any type, or `None` when the server closed or reset the connection.
    #[track_caller]
    pub fn any_frame(&mut self) -> Option<Frame> {
        let head = self.read_bytes(7)?;
        let mut reader = Reader::new(&head);
        let (kind, channel, size) = (reader.octet(), reader.short(), reader.long());
        assert!(size <= 1 << 30, "a frame of {size} bytes: {head:?}");
        let mut payload = self.read_bytes(size as usize + 1)?;
        assert_eq!(payload.pop(), Some(FRAME_END), "no frame-end after {head:?}");
        Some(Frame { kind, channel, payload })
    }

    /// The next frame that is not a heartbeat, or `None` at the end of the connection.
    #[track_caller]
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            match self.any_frame() {
                Some(frame) if frame.kind == HEARTBEAT => {}
                other => return other,
            }
        }
    }

    /// The next frame that is not a heartbeat.
    #[track_caller]
    pub fn read(&mut self) -> Frame {
        match self.next_frame() {
            Some(frame) => frame,
            None => panic!("the server closed the connection"),
        }
    }

    /// The arguments of the next frame, which must be this method on this channel.
    #[track_caller]
    pub fn expect(&mut self, channel: u16, id: Id) -> Vec<u8> {
        let frame = self.read();
        let found = (frame.channel, frame.id());
        if found != (channel, Some(id)) {
            match frame.id() {
                Some(id::CONNECTION_CLOSE | id::CHANNEL_CLOSE) => panic!(
                    "wanted {id:?} on channel {channel}, got {:?} on channel {}",
                    Close::read(frame.arguments()),
                    frame.channel
                ),
                _ => panic!("wanted {id:?} on channel {channel}, got {frame:?}"),
            }
        }
        frame.arguments().to_vec()
    }

    /// The next frame must be this connection.close. Answers it.
    #[track_caller]
    pub fn expect_connection_close(&mut self, code: u16, text: &str, id: Id) {
        let close = self.connection_close();
        assert_eq!(close, Close::new(code, text, id));
    }

    /// The next frame must be a connection.close. Answers it.
    #[track_caller]
    pub fn connection_close(&mut self) -> Close {
        let arguments = self.expect(0, id::CONNECTION_CLOSE);
        self.try_send(wire::method(0, id::CONNECTION_CLOSE_OK, []));
        Close::read(&arguments)
    }

    /// The next frame must be this channel.close. Answers it, so that the number is free again.
    #[track_caller]
    pub fn expect_channel_close(&mut self, channel: u16, code: u16, text: &str, id: Id) {
        let close = self.channel_close(channel);
        assert_eq!(close, Close::new(code, text, id));
    }

    /// The next frame must be a channel.close. Answers it.
    #[track_caller]
    pub fn channel_close(&mut self, channel: u16) -> Close {
        let close = self.unanswered_channel_close(channel);
        self.method(channel, id::CHANNEL_CLOSE_OK, []);
        close
    }

    /// The next frame must be a channel.close. Leaves the answer to the caller.
    #[track_caller]
    pub fn unanswered_channel_close(&mut self, channel: u16) -> Close {
        let arguments = self.expect(channel, id::CHANNEL_CLOSE);
        Close::read(&arguments)
    }

    /// The server must close or reset the connection without another frame, heartbeats aside.
    #[track_caller]
    pub fn expect_end(&mut self) {
        if let Some(frame) = self.next_frame() {
            panic!("wanted the end of the connection, got {frame:?}");
        }
    }

    /// Shows that the channel has nothing else to say: the next frame is the answer to a harmless question.
    #[track_caller]
    pub fn fence(&mut self, channel: u16) {
        self.call(channel, id::CHANNEL_FLOW, [1], id::CHANNEL_FLOW_OK);
    }
}
