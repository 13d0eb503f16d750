//! Writing, settling, getting, and how channels, connections and queues end.

use super::*;

impl World<'_> {
    /// The connection's socket takes everything up to the first place that waits for the backlog.
    pub(crate) fn write(&mut self, connection: usize) {
        let mut acked = Acked::default();
        let to = &mut self.connections[connection];
        let mut written = Written::default();
        while let Some(item) = to.items.pop_front() {
            if let OutItem::PendingGet { id, .. } = item
                && to.pending.contains_key(&id)
            {
                to.items.push_front(item);
                break;
            }
            written.add(&item);
            match item {
                OutItem::Deliver(delivery) => {
                    let channel = &mut to.channels[usize::from(delivery.channel - 1)];
                    assert!(delivery.tag > channel.last_tag, "delivery tags ascend on the wire");
                    channel.last_tag = delivery.tag;
                    if delivery.no_ack {
                        let (_, known) = self.flying.remove(&delivery.seq).expect("it was sent once");
                        assert!(self.settled.insert(known.id));
                        acked.add_seq(&self.queue, delivery.seq, known.persistent);
                    }
                }
                OutItem::Got(got) => {
                    let channel = &mut to.channels[usize::from(got.channel - 1)];
                    assert!(got.tag > channel.last_tag, "delivery tags ascend on the wire");
                    channel.last_tag = got.tag;
                    if got.no_ack {
                        let (_, known) = self.flying.remove(&got.entry.seq).expect("it was sent once");
                        assert!(self.settled.insert(known.id));
                        acked.add_seq(&self.queue, got.entry.seq, known.persistent);
                    }
                }
                OutItem::ConsumerGone { slot, .. } => to.outbox.consumer_written(slot),
                OutItem::DirectReply(_) => panic!("nobody consumes replies here"),
                OutItem::Reply { .. } | OutItem::Notice(_) | OutItem::Return { .. } | OutItem::PendingGet { .. } => {}
            }
        }
        acked.commit();
        to.bytes -= written.bytes;
        let mut resume = Vec::new();
        to.outbox.written(&written, &mut resume);
        let replies: usize = to.items.iter().filter(|item| item.is_reply()).map(item_bytes).sum();
        assert_eq!(to.outbox.reply_bytes(), replies, "octets that the client asked for");
        self.resume(resume);
    }

    /// Settles the delivery that `pick` names, or everything up to it.
    pub(crate) fn settle(&mut self, connection: usize, channel: usize, pick: usize, multiple: bool, how: Settle) {
        let from = &self.connections[connection].channels[channel];
        let tags: Vec<u64> = from.unacked.keys().copied().collect();
        // One more than there are: a tag that is not outstanding.
        let unknown = from.last_tag + 1000;
        let tag = match pick % (tags.len() + 2) {
            at if at < tags.len() => tags[at],
            at if at == tags.len() => 0,
            _ => unknown,
        };
        self.settle_tag(connection, channel, tag, multiple, how);
    }

    pub(crate) fn settle_tag(&mut self, connection: usize, channel: usize, tag: u64, multiple: bool, how: Settle) {
        let from = &mut self.connections[connection].channels[channel];
        let found = from.unacked.contains_key(&tag) || (multiple && tag == 0) || from.lapsed.contains(&tag);
        let expected: Vec<u64> = match (found, multiple) {
            (false, _) => Vec::new(),
            (true, false) => from.unacked.keys().copied().filter(|other| *other == tag).collect(),
            (true, true) => from.unacked.keys().copied().filter(|other| tag == 0 || *other <= tag).collect(),
        };
        let slot = from.slot;
        let (mut acked, mut back, mut resume) = (Acked::default(), Requeue::default(), Vec::new());
        let mut taken = Vec::new();
        let outbox = Arc::clone(&self.connections[connection].outbox);
        let result = outbox.take_unacked(slot, tag, multiple, &mut resume, |queue, unacked| {
            taken.push(unacked.tag);
            match how {
                Settle::Ack => acked.add(queue, &unacked),
                Settle::Requeue => back.add(queue, unacked),
            }
        });
        assert_eq!(result, found, "tag {tag} multiple {multiple}");
        assert_eq!(taken, expected, "tag {tag} multiple {multiple}");
        for tag in taken {
            self.give_back(connection, channel, tag, how);
        }
        acked.commit();
        back.commit(&mut WakeList::default());
        self.observe_with(true);
        self.resume(resume);
    }

    pub(super) fn give_back(&mut self, connection: usize, channel: usize, tag: u64, how: Settle) {
        let from = &mut self.connections[connection].channels[channel];
        let held = from.unacked.remove(&tag).expect("outstanding");
        if let Some(consumer) = held.consumer {
            self.consumers[consumer].in_flight -= 1;
        }
        match how {
            Settle::Ack => assert!(self.settled.insert(held.known.id)),
            Settle::Requeue if self.closed => {}
            Settle::Requeue => {
                self.back(held.seq, Known { redelivered: true, ..held.known });
            }
        }
    }

    pub(crate) fn get(&mut self, connection: usize, channel: usize, no_ack: bool) {
        self.note_use();
        let to = &self.connections[connection];
        let before = self.ready.len();
        match self.queue.get(&Arc::clone(&to.outbox), to.channels[channel].slot, no_ack) {
            Get::Empty => assert_eq!(before, 0, "get-empty while messages are ready"),
            Get::Answered => assert_ne!(before, 0),
        }
        self.observe_gets(Some(no_ack));
    }

    pub(crate) fn purge(&mut self) {
        let (count, _) = self.queue.purge();
        assert_eq!(count as usize, self.ready.len(), "purged");
        self.settled.extend(self.ready.values().map(|known| known.id));
        self.ready.clear();
        self.observe();
        let left: usize = self.connections.iter().map(|connection| connection.pending.len()).sum();
        assert_eq!(left, 0, "a purge answers every get");
    }

    pub(crate) fn delete(&mut self, if_unused: bool, if_empty: bool) {
        let in_use = self.consumers.iter().any(|consumer| consumer.attached);
        let expected = if self.closed {
            Err(NotDeleted::AlreadyClosed)
        } else if if_empty && !self.ready.is_empty() {
            Err(NotDeleted::NotEmpty)
        } else if if_unused && in_use {
            Err(NotDeleted::InUse)
        } else {
            Ok(self.ready.len() as u32)
        };
        assert_eq!(self.queue.close(if_unused, if_empty), expected);
        if expected.is_err() {
            return;
        }
        self.closed = true;
        self.ready.clear();
        self.observe();
        assert!(self.consumers.iter().all(|consumer| !consumer.attached), "every consumer is told");
    }

    pub(crate) fn close_channel(&mut self, connection: usize, channel: usize) {
        let mut gone = Vec::new();
        let was_used = self.consumers.iter().any(|consumer| consumer.attached);
        for at in 0..self.consumers.len() {
            let consumer = &self.consumers[at];
            if consumer.attached && (consumer.connection, consumer.channel) == (connection, channel) {
                self.queue.detach(consumer.id);
                self.end_consumer(at);
                gone.push(at);
            }
        }
        let to = &mut self.connections[connection];
        let closing = &mut to.channels[channel];
        let number = closing.number;
        let requeue = to.outbox.close_channel(closing.slot);
        let tags: Vec<u64> = closing.unacked.keys().copied().collect();
        closing.slot = to.outbox.open_channel(number);
        (closing.prefetch, closing.last_tag) = (0, 0);
        closing.lapsed.clear();
        // What is under way to the old channel is of no interest here: the tags start again.
        let mut written = Written::default();
        let mut acked = Acked::default();
        let mut kept = VecDeque::new();
        for item in to.items.drain(..) {
            if item.channel() != number {
                kept.push_back(item);
                continue;
            }
            written.add(&item);
            match item {
                OutItem::Deliver(delivery) if delivery.no_ack => {
                    let (_, known) = self.flying.remove(&delivery.seq).expect("it was sent once");
                    assert!(self.settled.insert(known.id));
                    acked.add_seq(&self.queue, delivery.seq, known.persistent);
                }
                OutItem::Got(got) if got.no_ack => {
                    let (_, known) = self.flying.remove(&got.entry.seq).expect("it was sent once");
                    assert!(self.settled.insert(known.id));
                    acked.add_seq(&self.queue, got.entry.seq, known.persistent);
                }
                OutItem::ConsumerGone { slot, .. } => to.outbox.consumer_written(slot),
                OutItem::PendingGet { id, .. } if to.pending.remove(&id).is_some() => {
                    assert!(matches!(to.outbox.take_resolved(id), Some(None)), "nobody waits for it any more");
                }
                _ => {}
            }
        }
        to.items = kept;
        to.bytes -= written.bytes;
        acked.commit();
        for tag in tags {
            self.give_back(connection, channel, tag, Settle::Requeue);
        }
        requeue.commit(&mut WakeList::default());
        if was_used && self.consumers.iter().all(|consumer| !consumer.attached) {
            self.note_use();
        }
        self.hand_over(&gone);
        self.observe_with(true);
        let mut resume = Vec::new();
        self.connections[connection].outbox.written(&written, &mut resume);
        self.resume(resume);
    }

    /// The client is gone; another one takes its place.
    pub(crate) fn close_connection(&mut self, connection: usize) {
        let was_used = self.consumers.iter().any(|consumer| consumer.attached);
        let to = &mut self.connections[connection];
        let undelivered = to.outbox.close(&mut to.items);
        to.items.clear();
        for resume in undelivered.consumers {
            resume.queue.detach(resume.consumer);
        }
        let mut gone = Vec::new();
        for (at, consumer) in self.consumers.iter_mut().enumerate() {
            if consumer.connection == connection && std::mem::take(&mut consumer.attached) {
                gone.push(at);
            }
        }
        for channel in 0..to.channels.len() {
            let tags: Vec<u64> = self.connections[connection].channels[channel].unacked.keys().copied().collect();
            for tag in tags {
                self.give_back(connection, channel, tag, Settle::Requeue);
            }
        }
        let unseen: Vec<Seq> =
            self.flying.iter().filter(|(_, (owner, _))| *owner == connection).map(|(seq, _)| *seq).collect();
        for seq in unseen {
            let (_, known) = self.flying.remove(&seq).expect("listed");
            if !self.closed {
                self.back(seq, known);
            }
        }
        self.connections[connection].pending.clear();
        undelivered.requeue.commit(&mut WakeList::default());
        if was_used && self.consumers.iter().all(|consumer| !consumer.attached) {
            self.note_use();
        }
        self.hand_over(&gone);
        let fresh = self.connect();
        self.connections.swap_remove(connection);
        debug_assert_eq!(self.connections.len(), fresh);
        for consumer in &mut self.consumers {
            if consumer.connection == connection {
                // Nothing more is expected of it.
                consumer.connection = usize::MAX;
            }
        }
        self.observe_with(true);
    }
}
