//! From the outbox to octets: items are encoded in order, channel by channel as the disk allows.

use std::collections::VecDeque;

use hashbrown::HashMap;
use protocol::amqp::{AMQPClass, basic};
use protocol::{ReplyCode, put_deliver, put_get_ok, put_method, put_return};
use storage::Lsn;

use super::Session;
use crate::queue::outbox::{Delivery, Got, OutItem, item_bytes};

/// What the writing side keeps between turns.
#[derive(Default)]
pub(super) struct WriterState {
    /// Taken from the outbox, not yet encoded.
    items: VecDeque<OutItem>,
    /// Items of channels whose front waits for the disk; all that follow on such a channel wait behind it.
    held: HashMap<u16, VecDeque<OutItem>>,
    cancelled: Vec<u32>,
    /// Octets of own replies that are not encoded yet.
    pub reply_bytes: usize,
}

impl WriterState {
    /// Everything that has not been encoded, in order.
    pub(super) fn unwritten(&mut self) -> &mut VecDeque<OutItem> {
        let mut held: VecDeque<OutItem> = self.held.drain().flat_map(|(_, items)| items).collect();
        held.append(&mut self.items);
        self.items = held;
        &mut self.items
    }

    /// The position that the oldest held reply waits for.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        self.held
            .values()
            .filter_map(|items| match items.front() {
                Some(OutItem::Reply { lsn, .. }) => Some(*lsn),
                _ => None,
            })
            .min()
    }
}

impl Session {
    /// Encodes what waits in the outbox until `out` holds `limit` octets. True when more is left.
    pub fn write(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        let mut encoded = 0;
        let mut full = self.write_held(out, limit, &mut encoded);
        while !full {
            if self.writer.items.is_empty() {
                let mut cancelled = std::mem::take(&mut self.writer.cancelled);
                let any = self.outbox.take_items(&mut self.writer.items, &mut cancelled);
                for slot in cancelled.drain(..) {
                    self.cancelled_by_server(slot);
                }
                self.writer.cancelled = cancelled;
                if !any {
                    break;
                }
            }
            while let Some(item) = self.writer.items.pop_front() {
                let channel = item.channel();
                if let Some(held) = self.writer.held.get_mut(&channel) {
                    held.push_back(item);
                } else if let Some(item) = self.write_item(item, out, &mut encoded) {
                    self.writer.held.insert(channel, VecDeque::from([item]));
                }
                if out.len() >= limit {
                    full = true;
                    break;
                }
            }
        }
        self.acked.commit();
        if encoded > 0 {
            self.outbox.written(encoded, &mut self.resumable);
            self.resume_waiting();
        }
        full
    }

    /// Tries the channels that were waiting again.
    fn write_held(&mut self, out: &mut Vec<u8>, limit: usize, encoded: &mut usize) -> bool {
        if self.writer.held.is_empty() {
            return false;
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
        out.len() >= limit
    }

    /// Encodes one item, or gives it back when it has to wait.
    fn write_item(&mut self, item: OutItem, out: &mut Vec<u8>, encoded: &mut usize) -> Option<OutItem> {
        match &item {
            OutItem::Reply { lsn, .. } if *lsn > self.broker.store.durable() => return Some(item),
            OutItem::PendingGet { channel, id } => {
                return match self.outbox.take_resolved(*id) {
                    None => Some(item),
                    Some(Some(got)) => self.write_item(OutItem::Got(got), out, encoded),
                    Some(None) => {
                        let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
                        put_method(out, *channel, &AMQPClass::Basic(empty));
                        None
                    }
                };
            }
            _ => {}
        }
        *encoded += item_bytes(&item);
        match item {
            OutItem::Deliver(delivery) => self.write_delivery(&delivery, out),
            OutItem::Reply { frames, .. } => {
                self.writer.reply_bytes = self.writer.reply_bytes.saturating_sub(frames.len());
                out.extend_from_slice(&frames);
            }
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
