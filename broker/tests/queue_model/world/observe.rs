//! What the outboxes hold, checked against the model.

use super::*;

impl World<'_> {
    /// From now on reads of the backlog happen in [`World::advance`] only.
    pub(crate) fn stop_reader(&mut self) {
        self.stop = self.disk.stop_reader();
        self.disk.gate.run_to(self.stop);
    }

    /// Lets the reads happen that have been asked for. `held` stops the first one before it has its octets; the next call
    /// lets it finish.
    pub(crate) fn advance(&mut self, held: bool) -> bool {
        if std::mem::take(&mut self.held) {
            self.disk.gate.release_reads();
        } else {
            self.stop = self.disk.stop_reader();
            if held {
                self.disk.gate.hold_reads();
                self.held = true;
            }
        }
        self.disk.gate.run_to(self.stop);
        self.wait_for_spill();
        self.observe()
    }

    /// The spill has answered whatever it was asked before: tests that stop the reader do not stop it.
    fn wait_for_spill(&self) {
        let (done, wait) = std::sync::mpsc::channel();
        let answer = move |_| {
            // The receiver is there until it has got an answer.
            let _ = done.send(());
        };
        self.disk.store.spill().take(QueueId::MAX, 1, 1, Box::new(answer));
        wait.recv_timeout(crate::support::LOST).expect("the spill answers");
    }

    /// Lets reads of the backlog finish until nothing more comes of it.
    pub(crate) fn load(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            let any = if !self.cold {
                self.wait_for_spill();
                self.observe()
            } else if self.stop == 0 {
                self.disk.barrier();
                self.wait_for_spill();
                self.observe()
            } else {
                self.advance(false)
            };
            quiet = if any { 0 } else { quiet + 1 };
        }
    }

    /// Reads happen when they are asked for again.
    pub(crate) fn run_reader(&mut self) {
        self.load();
        drop(Release(&self.disk.gate));
        self.stop = 0;
        self.load();
    }

    pub(crate) fn observe(&mut self) -> bool {
        self.observe_with(false)
    }

    pub(super) fn observe_gets(&mut self, no_ack: Option<bool>) {
        self.observe_full(false, no_ack);
    }

    /// `disordered`: several sources became ready at once, so that the turn says nothing.
    pub(super) fn observe_with(&mut self, disordered: bool) -> bool {
        self.observe_full(disordered, None)
    }

    /// Takes what the outboxes hold and checks it against the model. True when there was something.
    fn observe_full(&mut self, disordered: bool, get_no_ack: Option<bool>) -> bool {
        let mut delivered = BTreeMap::new();
        let mut any = false;
        // An answer to a get may have taken the credit of a channel, and is looked at last.
        let disordered = disordered || self.connections.iter().any(|connection| !connection.pending.is_empty());
        let mut lowest: Vec<Seq> = self.ready.keys().copied().collect();
        lowest.sort_by_key(|seq| turn_of(*seq));
        for at in 0..self.connections.len() {
            let (mut fresh, mut cancelled) = (VecDeque::new(), Vec::new());
            any |= self.connections[at].outbox.take_items(&mut fresh, &mut cancelled);
            for (slot, id) in cancelled {
                assert!(self.closed, "nobody else cancels");
                let consumer = (0..self.consumers.len())
                    .filter(|c| self.consumers[*c].attached && self.consumers[*c].id == id)
                    .find(|c| self.consumers[*c].connection == at && self.consumers[*c].slot == slot)
                    .expect("an attached consumer");
                self.end_consumer(consumer);
            }
            for item in fresh {
                self.connections[at].bytes += item_bytes(&item);
                match &item {
                    OutItem::Deliver(delivery) => {
                        let (seq, tag, channel) = (delivery.seq, delivery.tag, usize::from(delivery.channel - 1));
                        let known = self.take_ready(seq, id_of(&delivery.message), delivery.redelivered);
                        delivered.insert(seq, known.len);
                        let consumer = (0..self.consumers.len())
                            .rev()
                            .find(|c| self.consumers[*c].connection == at && self.consumers[*c].slot == delivery.slot)
                            .expect("a consumer");
                        assert!(self.active.is_none_or(|active| active == consumer), "only one is active");
                        self.check_turn(at, consumer, disordered);
                        let now_ms = self.now_ms();
                        let held = &mut self.connections[at].channels[channel];
                        let to = &mut self.consumers[consumer];
                        assert_eq!(to.no_ack, delivery.no_ack);
                        if to.no_ack {
                            assert!(self.flying.insert(seq, (at, known)).is_none());
                        } else {
                            to.in_flight += 1;
                            assert!(to.prefetch == 0 || to.in_flight <= to.prefetch, "prefetch of the consumer");
                            let room = held.prefetch == 0 || held.unacked.len() < held.prefetch as usize;
                            assert!(room, "prefetch of the channel");
                            let entry = Held {
                                seq,
                                known,
                                consumer: Some(consumer),
                                due_ms: to.timeout_ms.map(|timeout_ms| now_ms + timeout_ms),
                            };
                            assert!(held.unacked.insert(tag, entry).is_none());
                        }
                    }
                    OutItem::DirectReply(_) => panic!("nobody consumes replies here"),
                    OutItem::Got(got) => {
                        let (seq, tag, channel) = (got.entry.seq, got.tag, usize::from(got.channel - 1));
                        let known = self.take_ready(seq, id_of(&got.entry.message), got.entry.redelivered);
                        delivered.insert(seq, known.len);
                        assert_eq!(got.remaining as usize, self.ready.len(), "message count of get-ok");
                        self.hold_got(at, channel, tag, seq, known, got.no_ack);
                    }
                    OutItem::PendingGet { channel, id } => {
                        let no_ack = get_no_ack.expect("only a get makes one");
                        self.connections[at].pending.insert(*id, (usize::from(channel - 1), no_ack));
                    }
                    OutItem::Reply { .. }
                    | OutItem::Notice(_)
                    | OutItem::Return { .. }
                    | OutItem::ConsumerGone { .. } => {}
                }
                self.connections[at].items.push_back(item);
            }
        }
        any |= self.observe_resolved(&mut delivered);
        for at in 0..self.consumers.len() {
            if !self.has_credit(at) {
                self.consumers[at].in_turn = false;
            }
        }
        let dropped = self.observe_dropped(&delivered);
        let mut first = lowest.iter().take(delivered.len() + dropped.len());
        assert!(
            std::mem::take(&mut self.unordered)
                || first.all(|seq| delivered.contains_key(seq) || dropped.contains(seq)),
            "not in order: {delivered:?} and {dropped:?} of {lowest:?}"
        );
        assert_eq!(self.queue.message_count() as usize, self.ready.len(), "ready messages");
        let unacked: usize = self.connections.iter().flat_map(|c| &c.channels).map(|c| c.unacked.len()).sum();
        assert_eq!(self.queue.unacked_count(), unacked + self.flying.len(), "unacked messages");
        let consumers = self.consumers.iter().filter(|consumer| consumer.attached).count();
        assert_eq!(self.queue.consumer_count() as usize, consumers, "consumers");
        any |= !dropped.is_empty();
        any | self.bury()
    }

    /// Answers of gets that had to wait.
    fn observe_resolved(&mut self, delivered: &mut BTreeMap<Seq, usize>) -> bool {
        let mut any = false;
        for at in 0..self.connections.len() {
            let ids: Vec<u64> = self.connections[at].pending.keys().copied().collect();
            for id in ids {
                let Some(answer) = self.connections[at].outbox.take_resolved(id) else {
                    continue;
                };
                any = true;
                let (channel, no_ack) = self.connections[at].pending.remove(&id).expect("listed");
                let place = self.connections[at]
                    .items
                    .iter()
                    .position(|item| matches!(item, OutItem::PendingGet { id: other, .. } if *other == id))
                    .expect("its place");
                let Some(got) = answer else {
                    continue;
                };
                let seq = got.entry.seq;
                let known = self.take_ready(seq, id_of(&got.entry.message), got.entry.redelivered);
                delivered.insert(seq, known.len);
                assert_eq!(got.no_ack, no_ack);
                self.hold_got(at, channel, got.tag, seq, known, no_ack);
                let item = OutItem::Got(got);
                self.connections[at].bytes += item_bytes(&item);
                self.connections[at].items.insert(place + 1, item);
            }
        }
        any
    }

    fn hold_got(&mut self, at: usize, channel: usize, tag: u64, seq: Seq, known: Known, no_ack: bool) {
        if no_ack {
            assert!(self.flying.insert(seq, (at, known)).is_none());
        } else {
            let held = &mut self.connections[at].channels[channel];
            assert!(held.unacked.insert(tag, Held { seq, known, consumer: None, due_ms: None }).is_none());
        }
    }

    fn take_ready(&mut self, seq: Seq, id: u64, redelivered: bool) -> Known {
        let known = self.ready.remove(&seq).unwrap_or_else(|| panic!("position {seq} was not ready"));
        assert_eq!(known.id, id, "another message at position {seq}");
        assert_eq!(known.redelivered, redelivered, "redelivered flag of position {seq}");
        known
    }

    /// One message at a time: whoever has credit all along is passed by each other consumer at most once in a row.
    fn check_turn(&mut self, connection: usize, got: usize, disordered: bool) {
        for at in 0..self.consumers.len() {
            let has_credit = at != got
                && !disordered
                && self.consumers[at].in_turn
                && self.high_water == usize::MAX
                && self.consumers[at].connection == connection
                && self.has_credit(at);
            let (own, other) = (self.consumers[at].priority, self.consumers[got].priority);
            assert!(
                !has_credit || own <= other,
                "consumer {got} got a message while {at} waited with a higher priority"
            );
            let has_credit = has_credit && own == other;
            let passed = &mut self.consumers[at].passed;
            if has_credit {
                let times = passed.entry(got).or_default();
                *times += 1;
                assert!(*times <= 1, "consumer {got} got {times} messages while {at} waited for its turn");
            } else {
                passed.clear();
            }
        }
        self.consumers[got].in_turn = true;
    }

    fn has_credit(&self, at: usize) -> bool {
        let consumer = &self.consumers[at];
        if !consumer.attached || consumer.connection == usize::MAX || self.active.is_some_and(|active| active != at) {
            return false;
        }
        let channel = &self.connections[consumer.connection].channels[consumer.channel];
        consumer.no_ack
            || ((consumer.prefetch == 0 || consumer.in_flight < consumer.prefetch)
                && (channel.prefetch == 0 || channel.unacked.len() < channel.prefetch as usize))
    }

    /// At rest nobody who could have a message waits for one.
    pub(crate) fn check_rest(&self) {
        if self.ready.is_empty() {
            let pending: usize = self.connections.iter().map(|connection| connection.pending.len()).sum();
            assert_eq!(pending, 0, "a get waits for an empty queue");
            return;
        }
        for at in 0..self.consumers.len() {
            let consumer = &self.consumers[at];
            if self.has_credit(at) {
                let bytes = self.connections[consumer.connection].bytes;
                assert!(bytes >= self.high_water / 2, "consumer {at} has credit, {} messages wait", self.ready.len());
            }
        }
    }

    /// The store has what is not settled, and nothing else.
    pub(crate) fn check_store(&mut self) {
        if self.closed {
            return;
        }
        let mut expected: BTreeSet<Seq> = BTreeSet::new();
        if self.queue.spec().durable {
            let ready = self.ready.iter().map(|(seq, known)| (*seq, *known));
            let flying = self.flying.iter().map(|(seq, (_, known))| (*seq, *known));
            let unacked = self.connections.iter().flat_map(|c| &c.channels).flat_map(|c| c.unacked.values());
            let reserved = self.reserved.iter().filter(|r| r.logged).map(|r| (r.seq, r.known));
            let all = ready.chain(flying).chain(unacked.map(|held| (held.seq, held.known))).chain(reserved);
            expected.extend(all.filter(|(_, known)| known.persistent).map(|(seq, _)| seq));
        }
        let found: BTreeSet<Seq> = stored(self.disk, &self.queue).into_iter().collect();
        assert_eq!(found, expected, "messages in the store");
    }

    /// Everybody leaves; what remains is what was not settled.
    pub(crate) fn drain(&mut self) {
        while !self.reserved.is_empty() {
            self.publish_reserved(0);
        }
        for at in 0..self.connections.len() {
            self.close_connection(at);
        }
        self.run_reader();
        self.check_rest();
        self.check_room();
        self.check_buried();
        self.check_store();
        if self.cold {
            self.stop_reader();
        }
        for _ in 0..self.ready_len() {
            self.get(0, 0, true);
        }
        self.run_reader();
        self.write(0);
        assert_eq!(self.ready_len(), 0, "each get takes one message");
        self.check_store();
    }

    /// No cycle keeps the queue or an outbox alive.
    pub(crate) fn check_leaks(mut self) {
        let connections = std::mem::take(&mut self.connections);
        let queue = Arc::clone(&self.queue);
        drop(self);
        let outboxes: Vec<_> = connections.iter().map(|connection| Arc::downgrade(&connection.outbox)).collect();
        drop(connections);
        assert!(outboxes.iter().all(|outbox| outbox.strong_count() == 0), "an outbox is leaked");
        assert_eq!(Arc::strong_count(&queue), 1, "the queue is leaked");
    }
}
