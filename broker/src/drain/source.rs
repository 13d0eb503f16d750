//! Where messages come from.

use std::io::Write;

use amq_protocol::uri::AMQPUri;
use anyhow::{Context, anyhow, bail};
use protocol::amqp::{FieldTable, basic, queue};
use protocol::{AMQPClass, FrameKind, ServerMethod, decode_header, decode_server_method, put_ack, put_method};

use super::Message;
use crate::client::{CHANNEL, Connection, check_not_closed, short};

/// A queue of a broker.
pub(super) struct Source {
    connection: Connection,
    /// As a consumer, who waits for more; otherwise it asks until there is nothing.
    follow: bool,
    batch: u16,
    /// Encoded once: so many questions.
    questions: Vec<u8>,
    /// What has come of a message so far.
    partial: Option<Partial>,
}

struct Partial {
    message: Message,
    /// Octets of the body that are still to come, once the header is there.
    left: Option<u64>,
}

/// What one batch has come to.
pub(super) struct Batch {
    pub(super) count: u64,
    pub(super) last_tag: Option<u64>,
}

enum Event {
    Message(Message),
    Empty,
}

impl Source {
    pub(super) fn open(uri: &AMQPUri, name: &str, batch: u16, follow: bool) -> anyhow::Result<Self> {
        let mut connection = Connection::open(uri)?;
        let passive = queue::Declare {
            queue: short(name)?,
            passive: true,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        connection.call(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Declare(passive)))?;
        let mut questions = Vec::new();
        if follow {
            let qos = basic::Qos { prefetch_count: batch, global: false };
            connection.call(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Qos(qos)))?;
            let consume = basic::Consume {
                queue: short(name)?,
                consumer_tag: short("warren-drain")?,
                no_local: false,
                no_ack: false,
                exclusive: false,
                nowait: true,
                arguments: FieldTable::default(),
            };
            let mut out = Vec::new();
            put_method(&mut out, CHANNEL, &AMQPClass::Basic(basic::AMQPMethod::Consume(consume)));
            connection.stream.write_all(&out)?;
        } else {
            let get = AMQPClass::Basic(basic::AMQPMethod::Get(basic::Get { queue: short(name)?, no_ack: false }));
            for _ in 0..batch {
                put_method(&mut questions, CHANNEL, &get);
            }
        }
        Ok(Self { connection, follow, batch, questions, partial: None })
    }

    /// Hands over as many messages as there are, and no more than a batch. When it follows, it waits for the first one.
    pub(super) fn batch(&mut self, mut hand_over: impl FnMut(Message) -> anyhow::Result<()>) -> anyhow::Result<Batch> {
        let mut batch = Batch { count: 0, last_tag: None };
        self.connection.stream.write_all(&self.questions)?;
        for answers in 0..self.batch {
            // A consumer takes what has come already; each question has its answer.
            let wait = !self.follow || answers == 0;
            match self.event(wait)? {
                None => break,
                Some(Event::Empty) => {}
                Some(Event::Message(message)) => {
                    batch.count += 1;
                    batch.last_tag = Some(message.delivery_tag);
                    hand_over(message)?;
                }
            }
        }
        Ok(batch)
    }

    /// That message and all before it are where they belong.
    pub(super) fn acknowledge(&mut self, last: u64) -> anyhow::Result<()> {
        let mut out = Vec::new();
        put_ack(&mut out, CHANNEL, last, true);
        Ok(self.connection.stream.write_all(&out)?)
    }

    /// `None` when nothing has come yet.
    fn event(&mut self, wait: bool) -> anyhow::Result<Option<Event>> {
        loop {
            while let Some(frame) = self.connection.incoming.next()? {
                let event = match frame.kind {
                    FrameKind::Method => begin(&mut self.partial, frame.payload)?,
                    FrameKind::Header => header(&mut self.partial, frame.payload)?,
                    FrameKind::Body => body(&mut self.partial, frame.payload)?,
                    _ => None,
                };
                if event.is_some() {
                    return Ok(event);
                }
            }
            if !wait && self.partial.is_none() {
                return Ok(None);
            }
            if !self.connection.incoming.fill()? {
                bail!("the broker that has the messages closed the connection");
            }
        }
    }
}

fn begin(partial: &mut Option<Partial>, payload: &[u8]) -> anyhow::Result<Option<Event>> {
    let method = decode_server_method(payload).map_err(|error| anyhow!("a broken method: {}", error.text))?;
    let (delivery_tag, address) = match &method {
        ServerMethod::Deliver(deliver) => (deliver.delivery_tag, deliver.address),
        ServerMethod::GetOk(got) => (got.delivery_tag, got.address),
        ServerMethod::Other(method) => {
            check_not_closed(method)?;
            let is_empty = matches!(**method, AMQPClass::Basic(basic::AMQPMethod::GetEmpty(_)));
            return Ok(is_empty.then_some(Event::Empty));
        }
        _ => return Ok(None),
    };
    let message = Message { delivery_tag, address: address.to_vec(), properties: Vec::new(), body: Vec::new() };
    *partial = Some(Partial { message, left: None });
    Ok(None)
}

fn header(partial: &mut Option<Partial>, payload: &[u8]) -> anyhow::Result<Option<Event>> {
    let begun = partial.as_mut().context("a content header without a message")?;
    let header = decode_header(payload).map_err(|error| anyhow!("a broken content header: {}", error.text))?;
    begun.message.properties = header.properties.to_vec();
    begun.left = Some(header.body_size);
    Ok(finished(partial))
}

/// The body grows with what comes, whatever was announced.
fn body(partial: &mut Option<Partial>, payload: &[u8]) -> anyhow::Result<Option<Event>> {
    let begun = partial.as_mut().context("a body without a message")?;
    let left = begun.left.and_then(|left| left.checked_sub(payload.len() as u64));
    begun.left = Some(left.context("more of a body than was announced")?);
    begun.message.body.extend_from_slice(payload);
    Ok(finished(partial))
}

fn finished(partial: &mut Option<Partial>) -> Option<Event> {
    let whole = partial.take_if(|partial| partial.left == Some(0))?;
    Some(Event::Message(whole.message))
}
