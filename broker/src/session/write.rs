//! From the outbox to octets: items are encoded in order, channel by channel as the disk allows.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::amqp::{AMQPClass, basic};
use protocol::{ReplyCode, put_deliver, put_get_ok, put_method, put_return, shortstrs};
use storage::Lsn;

use super::Session;
use crate::queue::consumers::ConsumerId;
use crate::queue::item::{Delivery, Got, OutItem, Written};

/// What the writing side keeps between turns.
#[derive(Default)]
pub(super) struct WriterState {
    /// Taken from the outbox, not yet encoded.
    items: VecDeque<OutItem>,
    /// Items of channels whose front waits for the disk; all that follow on such a channel wait behind it.
    held: HashMap<u16, VecDeque<OutItem>>,
    /// Items of channel 0, which wait for all channels: close-ok must not overtake an answer.
    connection: VecDeque<OutItem>,
    cancelled: Vec<(u32, ConsumerId)>,
}

impl WriterState {
    /// Everything that has not been encoded, each channel in its order.
    pub(super) fn unwritten(&mut self) -> &mut VecDeque<OutItem> {
        let mut all: VecDeque<OutItem> = self.held.drain().flat_map(|(_, items)| items).collect();
        all.append(&mut self.items);
        all.append(&mut self.connection);
        self.items = all;
        &mut self.items
    }

    /// The position that the oldest held reply waits for.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        let lsn = |items: &VecDeque<OutItem>| match items.front() {
            Some(OutItem::Reply { lsn, .. }) => Some(*lsn),
            _ => None,
        };
        self.held.values().filter_map(lsn).min()
    }

    /// Whether something waits for the disk.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty() || !self.connection.is_empty()
    }
}

impl Session {
    /// Encodes what waits in the outbox until `out` holds `limit` octets. True when that was reached: there may be more.
    pub fn write(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        let mut encoded = Written::default();
        self.write_items(out, limit, &mut encoded);
        // Those who listen to the firehose.
        self.wakes.wake();
        self.acked.commit();
        if encoded.bytes > 0 {
            self.outbox.written(&encoded, &mut self.resumable);
            self.resume_waiting();
        }
        out.len() >= limit
    }

    fn write_items(&mut self, out: &mut Vec<u8>, limit: usize, encoded: &mut Written) {
        self.write_held(out, limit, encoded);
        while out.len() < limit
            && let Some(item) = self.next_item()
        {
            let channel = item.channel();
            if let Some(held) = self.writer.held.get_mut(&channel) {
                held.push_back(item);
            } else if channel == 0 && self.writer.holds() && !matches!(item, OutItem::Notice(_)) {
                self.writer.connection.push_back(item);
            } else if let Some(item) = self.write_item(item, out, encoded) {
                self.writer.held.insert(channel, VecDeque::from([item]));
            }
        }
    }

    /// The next item of the FIFO; consumers that the server cancelled are dealt with on the way.
    fn next_item(&mut self) -> Option<OutItem> {
        loop {
            if let Some(item) = self.writer.items.pop_front() {
                return Some(item);
            }
            let mut cancelled = std::mem::take(&mut self.writer.cancelled);
            let any = self.outbox.take_items(&mut self.writer.items, &mut cancelled);
            if self.writer.items.is_empty() {
                for (slot, id) in cancelled.drain(..) {
                    self.cancelled_by_server(slot, id);
                }
            }
            // What was pushed before the cancel is written before it.
            self.writer.cancelled = cancelled;
            if !any {
                return None;
            }
        }
    }

    /// Tries the channels that were waiting again.
    fn write_held(&mut self, out: &mut Vec<u8>, limit: usize, encoded: &mut Written) {
        if !self.writer.holds() {
            return;
        }
        let mut held = std::mem::take(&mut self.writer.held);
        held.retain(|_, items| {
            while out.len() < limit
                && let Some(item) = items.pop_front()
            {
                if let Some(item) = self.write_item(item, out, encoded) {
                    items.push_front(item);
                    break;
                }
            }
            !items.is_empty()
        });
        self.writer.held = held;
        while self.writer.held.is_empty()
            && let Some(item) = self.writer.connection.pop_front()
        {
            // Nothing of channel 0 waits for the disk itself.
            self.write_item(item, out, encoded);
        }
    }

    /// Whether everything that there is to say has been encoded.
    pub fn is_drained(&self) -> bool {
        !self.writer.holds() && self.writer.items.is_empty()
    }

    /// Encodes one item, or gives it back when it has to wait.
    fn write_item(&mut self, item: OutItem, out: &mut Vec<u8>, encoded: &mut Written) -> Option<OutItem> {
        if let OutItem::Reply { lsn, .. } = &item
            && *lsn > self.broker.store.durable()
        {
            return Some(item);
        }
        if let OutItem::PendingGet { id, .. } = &item {
            let answer = self.outbox.take_resolved(*id);
            let Some(answer) = answer else { return Some(item) };
            if let Some(got) = answer {
                self.write_item(OutItem::Got(got), out, encoded);
            } else {
                let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
                put_method(out, item.channel(), &AMQPClass::Basic(empty));
            }
        }
        encoded.add(&item);
        if self.is_traced() {
            self.trace_item(&item);
        }
        match item {
            OutItem::Deliver(delivery) => self.write_delivery(&delivery, out),
            OutItem::DirectReply(reply) => put_deliver(
                out,
                reply.channel,
                &reply.consumer_tag,
                reply.tag,
                false,
                &reply.message.content(),
                self.limits.frame_max,
            ),
            OutItem::Reply { frames, .. } | OutItem::Notice(frames) => out.extend_from_slice(&frames),
            OutItem::Got(got) => self.write_got(&got, out),
            OutItem::Return { channel, message } => {
                let code = ReplyCode::NoRoute;
                put_return(out, channel, code.as_u16(), code.name(), &message.content(), self.limits.frame_max);
            }
            OutItem::ConsumerGone { slot, .. } => self.consumer_written(slot),
            OutItem::PendingGet { .. } => {}
        }
        None
    }

    fn trace_item(&mut self, item: &OutItem) {
        match item {
            OutItem::Deliver(delivery) => {
                let Some(queue) = self.slot(delivery.slot).map(|info| Arc::clone(&info.queue)) else {
                    return;
                };
                self.trace_delivery(delivery.channel, &queue.spec().name, delivery.redelivered, &delivery.message);
            }
            OutItem::Got(got) => {
                let entry = &got.entry;
                self.trace_delivery(got.channel, &got.queue.spec().name, entry.redelivered, &entry.message);
            }
            OutItem::DirectReply(reply) => {
                let address = shortstrs(reply.message.content().address).1;
                self.trace_delivery(reply.channel, &address, false, &reply.message);
            }
            _ => {}
        }
    }

    fn write_delivery(&mut self, delivery: &Delivery, out: &mut Vec<u8>) {
        let Some(info) = self.slots.get(delivery.slot as usize).and_then(Option::as_ref) else {
            return;
        };
        put_deliver(
            out,
            delivery.channel,
            &info.tag,
            delivery.tag,
            delivery.redelivered,
            &delivery.message.content(),
            self.limits.frame_max,
        );
        if delivery.no_ack {
            self.acked.add_seq(&info.queue, delivery.seq, delivery.message.is_persistent());
        }
    }

    fn write_got(&mut self, got: &Got, out: &mut Vec<u8>) {
        put_get_ok(
            out,
            got.channel,
            got.tag,
            got.entry.redelivered,
            got.remaining,
            &got.entry.message.content(),
            self.limits.frame_max,
        );
        if got.no_ack {
            self.acked.add_seq(&got.queue, got.entry.seq, got.entry.message.is_persistent());
        }
    }
}
