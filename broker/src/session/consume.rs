//! basic.qos, basic.consume, basic.cancel and basic.get.

use std::sync::Arc;

use protocol::amqp::{AMQPClass, basic};
use protocol::names::short_cut;
use protocol::{AmqpError, ReplyCode};

use storage::Lsn;

use super::Session;
use super::channel::{Channel, ChannelConsumer};
use super::events::ConsumerEvent;
use crate::broker::OpenConsumer;
use crate::model::access::{Access, Permission, Resource};
use crate::model::arguments::Arguments;
use crate::model::consumer_arguments;
use crate::model::queue_arguments::is_single_active_consumer;
use crate::model::queue_kind::QueueKind;
use crate::queue::consumers::{Consumer, ConsumerId};
use crate::queue::credit::Terms;
use crate::queue::item::OutItem;
use crate::queue::{Attach, Get, Queue};
use crate::vhost::DIRECT_REPLY;

/// What a session knows of a consumer's slot in the outbox, also after the consumer is gone and until its last delivery
/// has been written.
pub(super) struct SlotInfo {
    pub channel: u16,
    pub tag: Arc<str>,
    pub queue: Arc<Queue>,
}

impl Session {
    pub(super) fn qos(&mut self, channel: &mut Channel, qos: &basic::Qos, prefetch_size: u32) -> Result<(), AmqpError> {
        if prefetch_size != 0 {
            return Err(AmqpError::new(ReplyCode::NotImplemented, format_args!("prefetch_size!=0 ({prefetch_size})")));
        }
        let count = u32::from(qos.prefetch_count);
        // Where they are refused, such a prefetch counts for each consumer, as in RabbitMQ.
        if qos.global && self.vhost()?.rules().global_qos {
            self.outbox.set_channel_prefetch(channel.slot, count, &mut self.resumable);
            self.resume_waiting();
        } else {
            channel.prefetch = count;
            channel.publisher.show(|state| state.prefetch = count);
        }
        self.reply(channel.number, &AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {})));
        Ok(())
    }

    pub(super) fn consume(&mut self, channel: &mut Channel, consume: basic::Consume) -> Result<(), AmqpError> {
        let name = self.queue_name(channel, consume.queue.as_str())?;
        if *name == *DIRECT_REPLY {
            return self.consume_replies(channel, &consume);
        }
        let tag: Arc<str> = match consume.consumer_tag.as_str() {
            "" => self.broker.generated_name("amq.ctag-").into(),
            given => given.into(),
        };
        if channel.has_consumer(&tag) {
            return Err(AmqpError::new(ReplyCode::NotAllowed, format_args!("attempt to reuse consumer tag '{tag}'")));
        }
        self.grants()?.check(Permission::Read, Resource::Queue(&name))?;
        let vhost = Arc::clone(self.vhost()?);
        let queue = vhost.queue_for(&name, self.id)?;
        let arguments = Arguments::from(consume.arguments);
        consumer_arguments::validate(&arguments, queue.kind(), &name, vhost.name())?;
        if queue.kind() == QueueKind::Quorum && self.outbox.channel_prefetch(channel.slot) > 0 {
            return Err(AmqpError::new(
                ReplyCode::NotImplemented,
                format_args!("queue '{name}' in vhost '{}' does not support global qos", vhost.name()),
            ));
        }

        self.consumes = true;
        let id = self.broker.new_consumer_id();
        let timeout_ms = consumer_arguments::timeout_ms(&arguments);
        let terms = Terms { prefetch: channel.prefetch, no_ack: consume.no_ack, timeout_ms };
        let slot = self.outbox.add_consumer(id, Arc::clone(&queue), channel.slot, terms);
        // Filled before the queue can push anything: the writer looks the tag up here.
        self.set_slot(slot, SlotInfo { channel: channel.number, tag: Arc::clone(&tag), queue: Arc::clone(&queue) });
        let mut frames = Vec::new();
        if !consume.nowait {
            let ok = basic::ConsumeOk { consumer_tag: short_cut(&tag) };
            protocol::put_method(&mut frames, channel.number, &AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)));
        }
        let priority = consumer_arguments::priority(&arguments);
        let (exclusive, no_ack) = (consume.exclusive, consume.no_ack);
        let consumer = Consumer { id, outbox: Arc::clone(&self.outbox), slot, exclusive, no_ack, priority };
        let number = channel.number;
        let outbox = Arc::clone(&self.outbox);
        let attached = queue.attach(
            consumer,
            || {
                outbox.push(OutItem::Reply { channel: number, lsn: Lsn(0), frames });
            },
            &mut self.wakes,
        );
        match attached {
            Attach::Attached => {
                let ack_required = !no_ack;
                let event = ConsumerEvent { tag: &tag, queue: &name, exclusive, ack_required, arguments: &arguments };
                self.consumer_created(channel, &event);
                let prefetch = channel.prefetch;
                let shown = OpenConsumer { id, queue: Arc::clone(&queue), no_ack, exclusive, prefetch, arguments };
                self.show_consumer(channel, &tag, shown);
                channel.consumers.insert(tag, ChannelConsumer { id, slot, queue });
                Ok(())
            }
            Attach::ExclusiveUse => {
                self.outbox.remove_consumer(number, slot);
                Err(AmqpError::new(
                    ReplyCode::AccessRefused,
                    format_args!("queue '{name}' in vhost '{}' in exclusive use", vhost.name()),
                ))
            }
            Attach::Gone => {
                self.outbox.remove_consumer(number, slot);
                Err(AmqpError::new(ReplyCode::NotFound, format_args!("no queue '{name}' in vhost '{}'", vhost.name())))
            }
        }
    }

    pub(super) fn cancel(&mut self, channel: &mut Channel, cancel: basic::Cancel) {
        if let Some(consumer) = channel.consumers.remove(cancel.consumer_tag.as_str()) {
            self.end_consumer(channel.number, &consumer);
            channel.publisher.show(|state| {
                state.consumers.remove(cancel.consumer_tag.as_str());
            });
            consumer.queue.hand_over(consumer.id, &mut self.wakes);
            self.consumer_deleted(channel.number, cancel.consumer_tag.as_str(), &consumer.queue.spec().name);
        } else if channel.has_consumer(cancel.consumer_tag.as_str()) {
            self.end_replies(channel);
        }
        if !cancel.nowait {
            let ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
            self.reply(channel.number, &AMQPClass::Basic(basic::AMQPMethod::CancelOk(ok)));
        }
    }

    /// Detaches a consumer. Its outstanding deliveries stay as they are; a queue that lives for its consumers ends with
    /// the last one, before the answer is written.
    pub(super) fn end_consumer(&mut self, number: u16, consumer: &ChannelConsumer) {
        let last = consumer.queue.detach(consumer.id);
        self.outbox.remove_consumer(number, consumer.slot);
        if last
            && consumer.queue.spec().auto_delete
            && let Ok(vhost) = self.vhost()
        {
            vhost.delete_queue_object(&consumer.queue, true);
        }
    }

    /// A queue was deleted under its consumers: they are told, if they asked to be.
    pub(super) fn cancelled_by_server(&mut self, slot: u32, id: ConsumerId) {
        let Some(info) = self.slot(slot) else { return };
        let (number, tag) = (info.channel, Arc::clone(&info.tag));
        let Some(channel) = self.channel_mut(number) else {
            return;
        };
        if channel.consumers.get(&tag).is_none_or(|consumer| consumer.id != id) {
            return;
        }
        channel.consumers.remove(&tag);
        channel.publisher.show(|state| {
            state.consumers.remove(&tag);
        });
        let closing = channel.closing;
        if let Some(queue) = self.slot(slot).map(|info| Arc::clone(&info.queue)) {
            self.consumer_deleted(number, &tag, &queue.spec().name);
        }
        self.outbox.remove_consumer(number, slot);
        if self.client.cancel_notify && !closing {
            let cancel = basic::Cancel { consumer_tag: short_cut(&tag), nowait: true };
            self.reply(number, &AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
    }

    pub(super) fn get(&mut self, channel: &mut Channel, get: &basic::Get) -> Result<(), AmqpError> {
        let name = self.queue_name(channel, get.queue.as_str())?;
        self.grants()?.check(Permission::Read, Resource::Queue(&name))?;
        let queue = self.vhost()?.queue_for(&name, self.id)?;
        if queue.kind() == QueueKind::Quorum && is_single_active_consumer(&queue.spec().arguments) {
            let vhost = &queue.spec().vhost;
            return Err(AmqpError::new(
                ReplyCode::ResourceLocked,
                format_args!(
                    "cannot obtain access to locked queue '{name}' in vhost '{vhost}'. basic.get operations are not \
                     supported by <<\"quorum\">> queues with single active consumer"
                ),
            ));
        }
        self.consumes |= !get.no_ack;
        if queue.get(&self.outbox, channel.slot, get.no_ack) == Get::Empty {
            self.counting(channel.number, &mut channel.publisher).got_nothing += 1;
            self.reply(channel.number, &AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {})));
        }
        Ok(())
    }

    /// What an empty queue name stands for.
    pub(super) fn queue_name(&self, channel: &Channel, given: &str) -> Result<Arc<str>, AmqpError> {
        if !given.is_empty() {
            return Ok(given.into());
        }
        channel.last_queue.clone().ok_or_else(|| AmqpError::new(ReplyCode::NotFound, "no previously declared queue"))
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&SlotInfo> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn set_slot(&mut self, slot: u32, info: SlotInfo) {
        let at = slot as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(info);
        }
    }

    /// Everything for this consumer has been written.
    pub(super) fn consumer_written(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = None;
        }
        self.outbox.consumer_written(slot);
    }
}
