//! Where messages go to.

use std::io::Write;

use amq_protocol::uri::AMQPUri;
use anyhow::{anyhow, bail};
use protocol::amqp::confirm;
use protocol::{
    AMQPClass, Content, FrameKind, ServerMethod, address, decode_server_method, put_publish, without_header,
};

use super::Message;
use crate::client::{CHANNEL, Connection, check_not_closed, short};

/// A channel with publisher confirms.
pub(super) struct Target {
    connection: Connection,
    /// Of the queue that gets everything.
    address: Option<Vec<u8>>,
    published: u64,
    /// All up to this one.
    confirmed: u64,
    /// Confirmed before some that were published earlier.
    ahead: Vec<u64>,
    out: Vec<u8>,
}

impl Target {
    pub(super) fn open(uri: &AMQPUri, queue: Option<&str>) -> anyhow::Result<Self> {
        let mut connection = Connection::open(uri)?;
        let select = confirm::Select { nowait: false };
        connection.call(CHANNEL, AMQPClass::Confirm(confirm::AMQPMethod::Select(select)))?;
        let address = match queue {
            None => None,
            Some(queue) => Some(address("", short(queue)?.as_str())),
        };
        Ok(Self { connection, address, published: 0, confirmed: 0, ahead: Vec::new(), out: Vec::new() })
    }

    /// Publishes with `mandatory`: nothing disappears because nobody wants it.
    pub(super) fn publish(&mut self, message: &Message) -> anyhow::Result<()> {
        // In a queue of its own it is to be there once, not wherever it was copied to before.
        let alone = self.address.as_ref().and_then(|_| without_header(&message.properties, b"CC"));
        let content = Content {
            address: self.address.as_deref().unwrap_or(&message.address),
            properties: alone.as_deref().unwrap_or(&message.properties),
            body: &message.body,
        };
        self.out.clear();
        put_publish(&mut self.out, CHANNEL, &content, true, self.connection.frame_max);
        self.connection.stream.write_all(&self.out)?;
        self.published += 1;
        Ok(())
    }

    /// Waits until all that was published is confirmed.
    pub(super) fn confirmed(&mut self) -> anyhow::Result<()> {
        while self.confirmed < self.published {
            while let Some(frame) = self.connection.incoming.next()? {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                let method = decode_server_method(frame.payload).map_err(|error| {
                    anyhow!("the broker that gets the messages sent a broken method: {}", error.text)
                })?;
                match method {
                    ServerMethod::Ack(ack) if ack.multiple => {
                        self.confirmed = self.confirmed.max(ack.delivery_tag);
                        let confirmed = self.confirmed;
                        self.ahead.retain(|tag| *tag > confirmed);
                    }
                    ServerMethod::Ack(ack) => self.ahead.push(ack.delivery_tag),
                    ServerMethod::Nack(_) => bail!("the broker that gets the messages has refused one (basic.nack)"),
                    ServerMethod::Return(returned) => bail!(
                        "nobody gets a message to exchange {:?} with key {:?}: {}",
                        returned.exchange,
                        returned.routing_key,
                        returned.text
                    ),
                    ServerMethod::Other(method) => check_not_closed(&method)?,
                    _ => {}
                }
            }
            self.ahead.sort_unstable();
            let in_line = self.ahead.iter().zip(self.confirmed + 1..).take_while(|(tag, next)| **tag == *next).count();
            self.confirmed += in_line as u64;
            self.ahead.drain(..in_line);
            if self.confirmed < self.published && !self.connection.incoming.fill()? {
                bail!("the broker that gets the messages closed the connection");
            }
        }
        Ok(())
    }
}
