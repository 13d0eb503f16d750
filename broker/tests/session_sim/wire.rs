//! What a client sends and how it reads what comes back.

use protocol::{Content, FrameKind, put_frame, put_publish};

/// class and method ids of what is used here.
pub(crate) type Id = (u16, u16);

pub(crate) const START_OK: Id = (10, 11);
pub(crate) const TUNE_OK: Id = (10, 31);
pub(crate) const OPEN: Id = (10, 40);
pub(crate) const CLOSE: Id = (10, 50);
pub(crate) const CLOSE_OK: Id = (10, 51);
pub(crate) const CHANNEL_OPEN: Id = (20, 10);
pub(crate) const CHANNEL_OPEN_OK: Id = (20, 11);
pub(crate) const CHANNEL_CLOSE: Id = (20, 40);
pub(crate) const CHANNEL_CLOSE_OK: Id = (20, 41);
pub(crate) const DECLARE: Id = (50, 10);
pub(crate) const DECLARE_OK: Id = (50, 11);
pub(crate) const PURGE: Id = (50, 30);
pub(crate) const PURGE_OK: Id = (50, 31);
pub(crate) const DELETE: Id = (50, 40);
pub(crate) const DELETE_OK: Id = (50, 41);
pub(crate) const QOS: Id = (60, 10);
pub(crate) const QOS_OK: Id = (60, 11);
pub(crate) const CONSUME: Id = (60, 20);
pub(crate) const CONSUME_OK: Id = (60, 21);
pub(crate) const CANCEL: Id = (60, 30);
pub(crate) const CANCEL_OK: Id = (60, 31);
pub(crate) const RETURN: Id = (60, 50);
pub(crate) const DELIVER: Id = (60, 60);
pub(crate) const GET: Id = (60, 70);
pub(crate) const GET_OK: Id = (60, 71);
pub(crate) const GET_EMPTY: Id = (60, 72);
pub(crate) const ACK: Id = (60, 80);
pub(crate) const RECOVER: Id = (60, 110);
pub(crate) const RECOVER_OK: Id = (60, 111);
pub(crate) const NACK: Id = (60, 120);
pub(crate) const CONFIRM: Id = (85, 10);
pub(crate) const CONFIRM_OK: Id = (85, 11);
pub(crate) const TX: Id = (90, 10);
pub(crate) const TX_OK: Id = (90, 11);
pub(crate) const COMMIT: Id = (90, 20);
pub(crate) const COMMIT_OK: Id = (90, 21);
pub(crate) const ROLLBACK: Id = (90, 30);
pub(crate) const ROLLBACK_OK: Id = (90, 31);

/// Properties of a message that are nothing but its delivery mode, or nothing.
pub(crate) const PERSISTENT: &[u8] = &[0x10, 0x00, 2];
pub(crate) const TRANSIENT: &[u8] = &[0x00, 0x00];

/// Arguments of a method.
pub(crate) struct Args(Vec<u8>);

impl Args {
    pub(crate) fn new((class, method): Id) -> Self {
        Self([class.to_be_bytes(), method.to_be_bytes()].concat())
    }

    pub(crate) fn octet(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn short(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn longlong(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn text(mut self, value: &str) -> Self {
        self.0.push(value.len() as u8);
        self.0.extend(value.as_bytes());
        self
    }

    /// A long string or a table.
    pub(crate) fn octets(mut self, value: &[u8]) -> Self {
        self.0.extend((value.len() as u32).to_be_bytes());
        self.0.extend(value);
        self
    }

    pub(crate) fn frame(self, channel: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        put_frame(&mut frame, FrameKind::Method, channel, &self.0);
        frame
    }
}

/// The client properties of one that wants to be told when its queue goes.
pub(crate) fn start_ok() -> Vec<u8> {
    let capability = [b"\x16consumer_cancel_notifyt".as_slice(), &[1]].concat();
    let mut properties = b"\x0ccapabilitiesF".to_vec();
    properties.extend((capability.len() as u32).to_be_bytes());
    properties.extend(capability);
    Args::new(START_OK).octets(&properties).text("PLAIN").octets(b"\0guest\0guest").text("en_US").frame(0)
}

/// The frames of a publish through the default exchange.
pub(crate) fn publish(channel: u16, queue: &str, mandatory: bool, persistent: bool, body: &[u8]) -> Vec<Vec<u8>> {
    let properties = if persistent { PERSISTENT } else { TRANSIENT };
    let address = protocol::address("", queue);
    let mut all = Vec::new();
    put_publish(&mut all, channel, &Content { address: &address, properties, body }, mandatory, 4096);
    split(&all)
}

/// Cuts octets into frames.
pub(crate) fn split(octets: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut rest = octets;
    while let Some(len) = protocol::frame_len(rest) {
        let (frame, more) = rest.split_at(len);
        frames.push(frame.to_vec());
        rest = more;
    }
    assert!(rest.is_empty(), "half a frame");
    frames
}

/// Reads arguments.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn octet(&mut self) -> u8 {
        let (value, rest) = self.0.split_first().expect("an octet");
        self.0 = rest;
        *value
    }

    pub(crate) fn long(&mut self) -> u32 {
        let (value, rest) = self.0.split_first_chunk().expect("four octets");
        self.0 = rest;
        u32::from_be_bytes(*value)
    }

    pub(crate) fn longlong(&mut self) -> u64 {
        let (value, rest) = self.0.split_first_chunk().expect("eight octets");
        self.0 = rest;
        u64::from_be_bytes(*value)
    }

    pub(crate) fn text(&mut self) -> String {
        let len = usize::from(self.octet());
        let (value, rest) = self.0.split_at(len);
        self.0 = rest;
        String::from_utf8_lossy(value).into_owned()
    }
}
