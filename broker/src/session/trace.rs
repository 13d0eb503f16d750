//! The firehose: while it is on, every message published or delivered in a virtual host is copied to `amq.rabbitmq.trace`,
//! with headers that say what became of it.

use std::sync::Arc;

use protocol::amqp::{AMQPValue, FieldArray};
use protocol::names::long;
use protocol::{Properties, replace_headers, shortstrs};

use super::Session;
use crate::model::arguments::Arguments;
use crate::model::death;
use crate::model::message::Message;
use crate::model::property_table::as_table;
use crate::queue::Queue;
use crate::vhost::TRACE_EXCHANGE;

/// No property at all.
const NO_PROPERTIES: &[u8] = &[0, 0];

/// A message as the firehose shows it.
pub(super) struct Traced<'a> {
    pub exchange: &'a str,
    pub keys: &'a [&'a str],
    pub properties: &'a Properties<'a>,
    pub body: &'a [u8],
}

impl Session {
    /// The connection as RabbitMQ names it.
    pub fn connection_name(&self) -> String {
        match self.peer.addresses {
            Some((peer, local)) => format!("{peer} -> {local}"),
            // Nothing else tells clients of one Unix socket apart.
            None => format!("unix:{}", self.id.0),
        }
    }

    /// Whether messages of this connection are copied to the firehose: one relaxed load.
    pub(super) fn is_traced(&self) -> bool {
        self.vhost.as_ref().is_some_and(|vhost| vhost.is_traced())
    }

    /// A message was published and routed.
    pub(super) fn trace_publish(&mut self, channel: u16, traced: &Traced<'_>, queues: &[Arc<Queue>]) {
        let names = if traced.exchange.is_empty() {
            // It leads to queues by name, whether they exist or not.
            list(traced.keys.iter().copied())
        } else {
            list(queues.iter().map(|queue| &*queue.spec().name))
        };
        self.trace(channel, &format!("publish.{}", traced.exchange), traced, ("routed_queues", names));
    }

    /// A message from a queue is being written to the client.
    pub(super) fn trace_delivery(&mut self, channel: u16, queue: &str, redelivered: bool, message: &Message) {
        let content = message.content();
        let (exchange, _) = shortstrs(content.address);
        let Ok(properties) = Properties::parse(content.properties) else {
            return;
        };
        let keys = death::routing_keys(message);
        let keys: Vec<&str> = keys.iter().map(|key| &*key.text).collect();
        let traced = Traced { exchange: &exchange, keys: &keys, properties: &properties, body: content.body };
        let fate = ("redelivered", AMQPValue::LongInt(redelivered.into()));
        self.trace(channel, &format!("deliver.{queue}"), &traced, fate);
    }

    fn trace(&mut self, channel: u16, key: &str, traced: &Traced<'_>, (fate, value): (&str, AMQPValue)) {
        // What the firehose itself carries is not traced again.
        if traced.exchange == TRACE_EXCHANGE {
            return;
        }
        let (Some(vhost), Some(user)) = (self.vhost.clone(), self.user.clone()) else {
            return;
        };
        let Some(exchange) = vhost.exchange(TRACE_EXCHANGE) else {
            return;
        };
        let mut headers = Arguments::default();
        headers.insert("channel", AMQPValue::LongInt(channel.into()));
        headers.insert("connection", text(self.connection_name()));
        headers.insert("exchange_name", text(traced.exchange));
        headers.insert("node", text(&*self.broker.node_name));
        headers.insert("properties", AMQPValue::FieldTable(as_table(traced.properties)));
        headers.insert("routing_keys", list(traced.keys.iter().copied()));
        headers.insert("user", text(&*user.name));
        headers.insert("vhost", text(&**vhost.name()));
        headers.insert(fate, value);
        let properties = replace_headers(NO_PROPERTIES, &headers.to_wire());
        vhost.publish_own(&exchange, key, &properties, traced.body, &mut self.wakes);
    }
}

fn text(value: impl Into<Vec<u8>>) -> AMQPValue {
    AMQPValue::LongString(long(value))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> AMQPValue {
    let mut array = FieldArray::default();
    for name in names {
        array.push(text(name));
    }
    AMQPValue::FieldArray(array)
}
