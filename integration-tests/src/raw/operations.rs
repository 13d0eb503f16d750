//! Short forms of what tests do on an open channel.

use super::Raw;
use crate::id;
use crate::unique;
use crate::wire::{self, Bytes, Reader};

/// A content header and its whole body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Flags and values as they came.
    pub properties: Vec<u8>,
    /// The body, put together again.
    pub body: Vec<u8>,
    /// The size of each body frame's payload.
    pub pieces: Vec<usize>,
}

/// basic.deliver or basic.get-ok with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Empty for basic.get-ok.
    pub consumer: String,
    /// The delivery tag.
    pub tag: u64,
    /// The redelivered flag.
    pub redelivered: bool,
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Messages left in the queue; basic.get-ok only.
    pub message_count: u32,
    /// The message.
    pub content: Content,
}

impl Delivery {
    /// The body as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.content.body).expect("the body is not text")
    }
}

impl Raw {
    /// queue.declare. `bits`: passive 1, durable 2, exclusive 4, auto-delete 8, nowait 16.
    #[track_caller]
    pub fn send_declare(&mut self, channel: u16, queue: &str, bits: u8, arguments: &[u8]) {
        let arguments = Bytes::new().short(0).shortstr(queue).octet(bits).table(arguments);
        self.method(channel, id::QUEUE_DECLARE, arguments);
    }

    /// queue.declare and its answer: name, messages, consumers.
    #[track_caller]
    pub fn declare(&mut self, channel: u16, queue: &str, bits: u8) -> (String, u32, u32) {
        self.send_declare(channel, queue, bits, &[]);
        let arguments = self.expect(channel, id::QUEUE_DECLARE_OK);
        let mut reader = Reader::new(&arguments);
        (reader.shortstr(), reader.long(), reader.long())
    }

    /// A classic queue with a name of its own that is gone with this connection.
    #[track_caller]
    pub fn exclusive_queue(&mut self, channel: u16) -> String {
        self.declare(channel, &unique("queue"), 4).0
    }

    /// exchange.declare. `bits`: passive 1, durable 2, auto-delete 4, internal 8, nowait 16.
    #[track_caller]
    pub fn send_exchange(&mut self, channel: u16, name: &str, kind: &str, bits: u8, table: &[u8]) {
        let arguments = Bytes::new().short(0).shortstr(name).shortstr(kind).octet(bits).table(table);
        self.method(channel, id::EXCHANGE_DECLARE, arguments);
    }

    /// exchange.declare and its answer.
    #[track_caller]
    pub fn exchange(&mut self, channel: u16, name: &str, kind: &str, bits: u8) {
        self.send_exchange(channel, name, kind, bits, &[]);
        self.expect(channel, id::EXCHANGE_DECLARE_OK);
    }

    /// queue.bind.
    #[track_caller]
    pub fn send_bind(&mut self, channel: u16, queue: &str, exchange: &str, key: &str, table: &[u8]) {
        let arguments = Bytes::new().short(0).shortstr(queue).shortstr(exchange).shortstr(key).octet(0).table(table);
        self.method(channel, id::QUEUE_BIND, arguments);
    }

    /// queue.bind and its answer.
    #[track_caller]
    pub fn bind(&mut self, channel: u16, queue: &str, exchange: &str, key: &str, table: &[u8]) {
        self.send_bind(channel, queue, exchange, key, table);
        self.expect(channel, id::QUEUE_BIND_OK);
    }

    /// Only the method of a publish. `bits`: mandatory 1, immediate 2.
    #[track_caller]
    pub fn begin_publish(&mut self, channel: u16, exchange: &str, key: &str, bits: u8) {
        let arguments = Bytes::new().short(0).shortstr(exchange).shortstr(key).octet(bits);
        self.method(channel, id::BASIC_PUBLISH, arguments);
    }

    /// A whole publish.
    #[track_caller]
    pub fn publish(&mut self, channel: u16, (exchange, key): (&str, &str), bits: u8, properties: &[u8], body: &[u8]) {
        self.begin_publish(channel, exchange, key, bits);
        self.content(channel, properties, body);
    }

    /// A content header and as many body frames as frame_max asks for.
    #[track_caller]
    pub fn content(&mut self, channel: u16, properties: &[u8], body: &[u8]) {
        let header = wire::header(body.len() as u64, properties);
        self.frame(wire::HEADER, channel, header);
        let piece = match self.frame_max {
            0 => usize::MAX,
            frame_max => frame_max as usize - 8,
        };
        for piece in body.chunks(piece) {
            self.frame(wire::BODY, channel, piece);
        }
    }

    /// A content header and its body.
    #[track_caller]
    pub fn read_content(&mut self, channel: u16) -> Content {
        let frame = self.read();
        assert_eq!((frame.kind, frame.channel), (wire::HEADER, channel), "{frame:?}");
        let mut reader = Reader::new(&frame.payload);
        assert_eq!((reader.short(), reader.short()), (60, 0), "class and weight");
        let size = reader.longlong() as usize;
        let properties = reader.rest().to_vec();
        let mut body = Vec::new();
        let mut pieces = Vec::new();
        while body.len() < size {
            let frame = self.read();
            assert_eq!((frame.kind, frame.channel), (wire::BODY, channel));
            pieces.push(frame.payload.len());
            body.extend(frame.payload);
        }
        assert_eq!(body.len(), size);
        Content { properties, body, pieces }
    }

    /// basic.consume and its answer. `bits`: no-local 1, no-ack 2, exclusive 4, nowait 8.
    #[track_caller]
    pub fn consume(&mut self, channel: u16, queue: &str, tag: &str, bits: u8) -> String {
        let arguments = Bytes::new().short(0).shortstr(queue).shortstr(tag).octet(bits).table([]);
        let answer = self.call(channel, id::BASIC_CONSUME, arguments, id::BASIC_CONSUME_OK);
        Reader::new(&answer).shortstr()
    }

    /// The next frames must be a basic.deliver.
    #[track_caller]
    pub fn delivery(&mut self, channel: u16) -> Delivery {
        let arguments = self.expect(channel, id::BASIC_DELIVER);
        let mut reader = Reader::new(&arguments);
        Delivery {
            consumer: reader.shortstr(),
            tag: reader.longlong(),
            redelivered: reader.octet() != 0,
            exchange: reader.shortstr(),
            routing_key: reader.shortstr(),
            message_count: 0,
            content: self.read_content(channel),
        }
    }

    /// basic.get.
    #[track_caller]
    pub fn get(&mut self, channel: u16, queue: &str, no_ack: bool) -> Option<Delivery> {
        let arguments = Bytes::new().short(0).shortstr(queue).octet(u8::from(no_ack));
        self.method(channel, id::BASIC_GET, arguments);
        let frame = self.read();
        if frame.id() == Some(id::BASIC_GET_EMPTY) {
            return None;
        }
        assert_eq!(frame.id(), Some(id::BASIC_GET_OK), "{frame:?}");
        let mut reader = Reader::new(frame.arguments());
        Some(Delivery {
            consumer: String::new(),
            tag: reader.longlong(),
            redelivered: reader.octet() != 0,
            exchange: reader.shortstr(),
            routing_key: reader.shortstr(),
            message_count: reader.long(),
            content: self.read_content(channel),
        })
    }
}
