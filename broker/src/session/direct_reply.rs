//! Direct reply-to as clients see it: a consumer without a queue, an address in the reply-to property, and a name that can be
//! asked for.

use std::sync::Arc;

use protocol::amqp::{AMQPClass, basic, queue};
use protocol::names::short_cut;
use protocol::{AmqpError, Properties, Property, ReplyCode, replace_property};

use super::Session;
use super::channel::Channel;
use crate::queue::direct_reply::ReplyConsumer;
use crate::vhost::{DIRECT_REPLY, Replies, is_reply_address};

/// What of a message's keys are addresses for direct replies.
#[derive(Default)]
pub(super) struct Addressed {
    /// The consumers that are still there.
    pub consumers: Replies,
    /// Some key was such an address. The message counts as routed even if the consumer has gone.
    pub any: bool,
}

impl Session {
    /// basic.consume from the name that stands for replies to this channel.
    pub(super) fn consume_replies(&mut self, channel: &mut Channel, consume: &basic::Consume) -> Result<(), AmqpError> {
        let given = consume.consumer_tag.as_str();
        if channel.consumers.contains_key(given) {
            return Err(AmqpError::new(ReplyCode::NotAllowed, format_args!("attempt to reuse consumer tag '{given}'")));
        }
        if !consume.no_ack {
            return Err(AmqpError::new(ReplyCode::PreconditionFailed, "reply consumer cannot acknowledge"));
        }
        if channel.publisher.replies.is_some() {
            return Err(AmqpError::new(ReplyCode::PreconditionFailed, "reply consumer already set"));
        }
        let tag: Arc<str> = match given {
            "" => self.broker.generated_name("amq.ctag-").into(),
            given => given.into(),
        };
        if !consume.nowait {
            let ok = basic::ConsumeOk { consumer_tag: short_cut(&tag) };
            self.reply(channel.number, &AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)));
        }
        let (outbox, slot) = (Arc::clone(&self.outbox), channel.slot);
        let consumer = self.vhost()?.add_reply_consumer(|address| ReplyConsumer::new(outbox, slot, tag, address));
        channel.publisher.replies = Some(consumer);
        Ok(())
    }

    /// Ends the channel's reply consumer, if it has one.
    pub(super) fn end_replies(&self, channel: &mut Channel) {
        let Some(consumer) = channel.publisher.replies.take() else {
            return;
        };
        consumer.end();
        if let Some(vhost) = &self.vhost {
            vhost.remove_reply_consumer(&consumer);
        }
    }

    /// queue.declare of a name that belongs to direct replies. Nothing is declared, passive or not: it tells whether somebody
    /// still waits there. `None` for other names.
    pub(super) fn declare_replies(&self, name: &str) -> Option<Result<queue::DeclareOk, AmqpError>> {
        if !name.starts_with(DIRECT_REPLY) {
            return None;
        }
        let vhost = self.vhost().ok()?;
        Some(if name == DIRECT_REPLY || vhost.reply_consumer(name).is_some() {
            Ok(queue::DeclareOk { queue: short_cut(name), message_count: 0, consumer_count: 1 })
        } else {
            let text = format_args!("no queue '{name}' in vhost '{}'", vhost.name());
            Err(AmqpError::new(ReplyCode::NotFound, text).at(50, 10))
        })
    }

    /// The consumers behind those keys that are addresses for replies.
    pub(super) fn addressed(&self, keys: &[&str]) -> Result<Addressed, AmqpError> {
        let mut addressed = Addressed::default();
        for key in keys.iter().filter(|key| is_reply_address(key)) {
            addressed.any = true;
            addressed.consumers.extend(self.vhost()?.reply_consumer(key));
        }
        Ok(addressed)
    }
}

/// The properties with the address of the channel's reply consumer, when they ask for replies to it.
pub(super) fn with_reply_address(
    properties: &Properties<'_>,
    raw: &[u8],
    consumer: Option<&ReplyConsumer>,
) -> Result<Option<Vec<u8>>, AmqpError> {
    if properties.reply_to() != Some(DIRECT_REPLY.as_bytes()) {
        return Ok(None);
    }
    let Some(consumer) = consumer else {
        return Err(AmqpError::new(ReplyCode::PreconditionFailed, "fast reply consumer does not exist"));
    };
    let mut value = Vec::with_capacity(consumer.address.len() + 1);
    // Addresses are all of one length, far below what a short string can hold.
    value.push(consumer.address.len() as u8);
    value.extend_from_slice(consumer.address.as_bytes());
    Ok(Some(replace_property(raw, Property::ReplyTo, Some(&value))))
}
