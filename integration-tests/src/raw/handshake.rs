//! How a connection begins: protocol header, SASL, tuning, open; and how it ends in peace.

use super::Raw;
use crate::id;
use crate::wire::{Bytes, Reader};

/// The protocol header of 0-9-1.
pub const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

/// What the client asks for in start-ok and tune-ok.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// SASL mechanism.
    pub mechanism: String,
    /// SASL response.
    pub response: Vec<u8>,
    /// Encoded entries of the client properties.
    pub properties: Vec<u8>,
    /// What tune-ok asks for; `None` repeats what the server offered.
    pub channel_max: Option<u16>,
    /// As above.
    pub frame_max: Option<u32>,
    /// As above, in seconds.
    pub heartbeat: u16,
}

impl Handshake {
    /// PLAIN with all capabilities that change what the server does, and no heartbeat.
    pub fn plain(user: &str, password: &str) -> Self {
        let capabilities = Bytes::new()
            .field("authentication_failure_close", b't')
            .octet(1)
            .field("consumer_cancel_notify", b't')
            .octet(1)
            .field("connection.blocked", b't')
            .octet(1);
        Self {
            mechanism: "PLAIN".to_owned(),
            response: format!("\0{user}\0{password}").into_bytes(),
            properties: Bytes::new().field("capabilities", b'F').table(capabilities).done(),
            channel_max: None,
            frame_max: None,
            heartbeat: 0,
        }
    }

    /// The arguments of start-ok.
    pub fn start_ok(&self) -> Vec<u8> {
        Bytes::new().table(&self.properties).shortstr(&self.mechanism).longstr(&self.response).shortstr("en_US").done()
    }
}

/// What the server offered in connection.tune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tune {
    /// 0 is no limit.
    pub channel_max: u16,
    /// 0 is no limit.
    pub frame_max: u32,
    /// In seconds.
    pub heartbeat: u16,
}

impl Raw {
    /// Sends the protocol header and returns the arguments of connection.start.
    #[track_caller]
    pub fn start(&mut self) -> Vec<u8> {
        self.send(PROTOCOL_HEADER);
        self.expect(0, id::CONNECTION_START)
    }

    /// Everything up to and including tune-ok.
    #[track_caller]
    pub fn handshake(&mut self, handshake: &Handshake) -> Tune {
        self.start();
        self.method(0, id::CONNECTION_START_OK, handshake.start_ok());
        let tune = self.tune();
        self.tune_ok(
            handshake.channel_max.unwrap_or(tune.channel_max),
            handshake.frame_max.unwrap_or(tune.frame_max),
            handshake.heartbeat,
        );
        tune
    }

    /// Reads connection.tune.
    #[track_caller]
    pub fn tune(&mut self) -> Tune {
        let arguments = self.expect(0, id::CONNECTION_TUNE);
        let mut reader = Reader::new(&arguments);
        Tune { channel_max: reader.short(), frame_max: reader.long(), heartbeat: reader.short() }
    }

    /// Sends connection.tune-ok.
    #[track_caller]
    pub fn tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) {
        self.frame_max = frame_max;
        let arguments = Bytes::new().short(channel_max).long(frame_max).short(heartbeat);
        self.method(0, id::CONNECTION_TUNE_OK, arguments);
    }

    /// The usual handshake for a user, without connection.open.
    #[track_caller]
    pub fn login(&mut self, user: &str, password: &str) {
        self.handshake(&Handshake::plain(user, password));
    }

    /// Sends connection.open without waiting.
    #[track_caller]
    pub fn send_open(&mut self, vhost: &str) {
        let arguments = Bytes::new().shortstr(vhost).shortstr("").octet(0);
        self.method(0, id::CONNECTION_OPEN, arguments);
    }

    /// connection.open and its answer.
    #[track_caller]
    pub fn open(&mut self, vhost: &str) {
        self.send_open(vhost);
        self.expect(0, id::CONNECTION_OPEN_OK);
    }

    /// channel.open and its answer.
    #[track_caller]
    pub fn open_channel(&mut self, channel: u16) {
        self.call(channel, id::CHANNEL_OPEN, [0], id::CHANNEL_OPEN_OK);
    }

    /// Closes the connection properly.
    #[track_caller]
    pub fn close(mut self) {
        let arguments = Bytes::new().short(200).shortstr("done").long(0);
        self.call(0, id::CONNECTION_CLOSE, arguments, id::CONNECTION_CLOSE_OK);
    }
}
