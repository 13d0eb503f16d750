//! What the broker itself publishes: copies of messages for the firehose, and events.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::names::short_cut;

use super::Vhost;
use super::exchange::Exchange;
use super::route::Targets;
use crate::model::message::Message;
use crate::queue::signal::WakeList;

/// Where the firehose goes.
pub const TRACE_EXCHANGE: &str = "amq.rabbitmq.trace";

impl Vhost {
    /// Whether every message that is published or delivered here is copied to the firehose.
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    /// Turns the firehose on or off. It is off after a restart.
    pub fn set_traced(&self, traced: bool) {
        self.traced.store(traced, Ordering::Relaxed);
    }

    /// Publishes a message of the broker's own. It is not persistent, nobody waits for it, and it is lost where nobody is
    /// bound. A routing key that is too long is cut.
    pub fn publish_own(
        &self,
        exchange: &Arc<Exchange>,
        key: &str,
        properties: &[u8],
        body: &[u8],
        wakes: &mut WakeList,
    ) {
        let key = short_cut(key);
        let mut targets = Targets::default();
        self.route_to(exchange, &[key.as_str()], None, &mut targets);
        if targets.queues.is_empty() {
            return;
        }
        let mut address = Vec::new();
        for part in [exchange.name().as_bytes(), key.as_str().as_bytes()] {
            // Both are names of AMQP, at most 255 octets.
            address.push(part.len() as u8);
            address.extend_from_slice(part);
        }
        let mut message = Message::new(&address, properties, body.into(), false);
        message.share(targets.queues.len());
        let message = Arc::new(message);
        for queue in targets.queues {
            queue.publish(&message, wakes);
        }
    }
}
