//! AMQP 0-9-1 on the wire, without sockets: bytes in, values out, and back.
//!
//! # Layout
//!
//! - [`frame`]: the envelope of every frame; [`error`]: reply codes and the texts clients see.
//! - [`method`]: methods a client sends; [`server`]: methods a server sends. The few methods that travel with every
//!   message are decoded by hand in [`fast`] and borrow from the input; all others are decoded by `amq-protocol`,
//!   after their signature has been used to check their arguments.
//! - [`table`]: field tables, checked once and then read in place; [`content`]: content headers and properties.
//! - [`assemble`]: method, header and body frames put together to one message.
//! - [`encode`]: everything the broker writes. [`handshake`], [`sasl`]: the first octets and the login.
//! - [`names`]: AMQP strings made from text of any length; [`amqp`]: the generated method and value types.
//!
//! Nothing here recurses on its input, allocates by a length it has only been told, or panics on outside data.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod content;
pub mod encode;
pub mod error;
pub mod fast;
pub mod frame;
pub mod handshake;
pub mod method;
pub mod names;
pub mod sasl;
pub mod server;
pub mod table;

mod read;
mod signature;
mod snippet;

/// The generated AMQP classes, methods and values, for building replies.
pub mod amqp {
    pub use amq_protocol::protocol::{
        AMQPClass, BasicProperties, access, basic, channel, confirm, connection, exchange, queue, tx,
    };
    pub use amq_protocol::types::{
        AMQPType, AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString,
    };
}

pub use amqp::AMQPClass;
pub use assemble::{Assembled, Assembler};
pub use content::{
    ContentHeader, Properties, Property, decode_header, encode_properties, replace_header, replace_headers,
    replace_property, retain_fields, without_header,
};
pub use encode::{
    Content, address, put_ack, put_body_frame_header, put_deliver, put_deliver_head, put_frame, put_get_ok,
    put_heartbeat, put_method, put_nack, put_publish, put_return, shortstrs,
};
pub use error::{AmqpError, ReplyCode};
pub use fast::{Ack, Deliver, GetOk, Nack, Publish, Reject, Return};
pub use frame::{
    Decoded, FRAME_END, FRAME_MAX_BEFORE_TUNE, FRAME_MIN_SIZE, FRAME_OVERHEAD, Frame, FrameKind, decode_frame,
    frame_len,
};
pub use handshake::{PROTOCOL_HEADER, check_protocol_header};
pub use method::{Method, decode_method, method_ids};
pub use sasl::{parse_amqplain, parse_plain};
pub use server::{ServerMethod, decode_server_method};
pub use snippet::ErlangBinary;
pub use table::{ArrayIter, TableError, TableIter, ValueRef, lookup};
