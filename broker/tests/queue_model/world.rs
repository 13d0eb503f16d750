//! A queue, its outboxes, and a model that is told of every operation and shown every delivery.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;

use broker::model::arguments::Arguments;
use broker::model::message::Message;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::Resume;
use broker::queue::item::{OutItem, item_bytes};
use broker::queue::outbox::Outbox;
use broker::queue::settle::{Acked, Requeue};
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Get, NotDeleted, Published, Queue, QueueSpec};
use storage::{QueueId, RecoveredQueue, Seq, SeqRange, TxOp};

use crate::support::{Disk, Release};

const ADDRESS: &[u8] = b"\0\x01q";
const PERSISTENT: &[u8] = &[0x10, 0x00, 2];
const TRANSIENT: &[u8] = &[0x00, 0x00];

/// A message whose body starts with its id.
pub(crate) fn message(id: u64, persistent: bool, len: usize) -> Arc<Message> {
    let mut body = vec![0; len.max(8)];
    body[..8].copy_from_slice(&id.to_be_bytes());
    let properties = if persistent { PERSISTENT } else { TRANSIENT };
    Arc::new(Message::new(ADDRESS, properties, Cow::Owned(body), persistent))
}

pub(crate) fn id_of(message: &Message) -> u64 {
    let body = message.content().body;
    u64::from_be_bytes(body[..8].try_into().expect("eight octets"))
}

pub(crate) fn spec(durable: bool) -> QueueSpec {
    QueueSpec {
        vhost: "/".into(),
        name: "q".into(),
        durable,
        exclusive: None,
        auto_delete: false,
        arguments: Arc::new(Arguments::default()),
    }
}

/// The messages of a queue that the store holds.
pub(crate) fn stored(disk: &Disk, queue: &Queue) -> Vec<Seq> {
    let (done, wait) = mpsc::channel();
    let keep = move |batch: storage::ReadBatch| {
        // The receiver is there until it has got an answer.
        let _ = done.send(batch.messages.iter().map(|message| message.seq).collect());
    };
    disk.store.read(queue.id(), 0, usize::MAX, usize::MAX, Box::new(keep));
    wait.recv_timeout(crate::support::LOST).expect("the store answers a read")
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: u64,
    persistent: bool,
    redelivered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    seq: Seq,
    known: Known,
    consumer: Option<usize>,
}

/// A place of a transaction.
struct Reserved {
    seq: Seq,
    known: Known,
    message: Arc<Message>,
    logged: bool,
}

struct Channel {
    number: u16,
    slot: u32,
    prefetch: u32,
    unacked: BTreeMap<u64, Held>,
    last_tag: u64,
}

struct ConsumerModel {
    id: ConsumerId,
    connection: usize,
    channel: usize,
    slot: u32,
    prefetch: u32,
    in_flight: u32,
    no_ack: bool,
    exclusive: bool,
    attached: bool,
    /// It waits for its turn for sure: it had credit whenever it can have been asked.
    in_turn: bool,
    /// Deliveries that others of the connection got while this one waited.
    passed: BTreeMap<usize, u32>,
}

struct Connection {
    outbox: Arc<Outbox>,
    /// Taken from the outbox, not yet written.
    items: VecDeque<OutItem>,
    channels: Vec<Channel>,
    /// Gets without an answer: channel index and whether they settle by themselves.
    pending: BTreeMap<u64, (usize, bool)>,
    /// Octets in the outbox.
    bytes: usize,
}

pub(crate) struct World<'d> {
    disk: &'d Disk,
    pub(crate) queue: Arc<Queue>,
    high_water: usize,
    connections: Vec<Connection>,
    consumers: Vec<ConsumerModel>,
    ready: BTreeMap<Seq, Known>,
    /// Sent to a consumer without acknowledgements and not written: connection and message.
    flying: BTreeMap<Seq, (usize, Known)>,
    settled: BTreeSet<u64>,
    reserved: Vec<Reserved>,
    next_seq: Seq,
    next_id: u64,
    closed: bool,
    /// There is a backlog on disk only, or may be.
    pub(crate) cold: bool,
    /// Where the reader stops; 0 = it runs freely.
    stop: u64,
    held: bool,
}

/// What a restart is to find again.
pub(crate) struct Stopped {
    pub(crate) redelivered: Vec<(QueueId, Vec<SeqRange>)>,
    ready: BTreeMap<Seq, Known>,
    next_id: u64,
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        drop(Release(&self.disk.gate));
    }
}

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    Requeue,
}

impl<'d> World<'d> {
    pub(crate) fn new(disk: &'d Disk, durable: bool, high_water: usize) -> Self {
        let queue = Queue::new(disk.store.new_queue_id(), spec(durable), Arc::clone(&disk.store));
        let mut world = Self {
            disk,
            queue,
            high_water,
            connections: Vec::new(),
            consumers: Vec::new(),
            ready: BTreeMap::new(),
            flying: BTreeMap::new(),
            settled: BTreeSet::new(),
            reserved: Vec::new(),
            next_seq: 1,
            next_id: 1,
            closed: false,
            cold: false,
            stop: 0,
            held: false,
        };
        for _ in 0..3 {
            world.connect();
        }
        world
    }

    /// A queue whose first `messages` messages are on disk only.
    pub(crate) fn cold(disk: &'d Disk, messages: u64, high_water: usize) -> Self {
        let mut world = Self::new(disk, true, high_water);
        let id = world.queue.id();
        let mut bytes = 0;
        for seq in 1..=messages {
            let message = message(seq, true, 8);
            bytes += 8;
            disk.store.enqueue(id, seq, message.meta(), message);
            world.ready.insert(seq, Known { id: seq, persistent: true, redelivered: false });
        }
        disk.barrier();
        world.next_seq = messages + 1;
        world.next_id = messages + 1;
        let found = RecoveredQueue { id, first: 1, next_seq: messages + 1, messages, bytes };
        world.cold = true;
        world.queue = Queue::recovered(id, spec(true), Arc::clone(&disk.store), &found);
        world
    }

    /// Everybody leaves and the broker stops.
    pub(crate) fn stop(mut self) -> Stopped {
        for at in 0..self.connections.len() {
            self.close_connection(at);
        }
        let redelivered = vec![(self.queue.id(), self.queue.redelivered())];
        let ready = std::mem::take(&mut self.ready);
        let ready = ready.into_iter().filter(|(_, known)| known.persistent).collect();
        Stopped { redelivered, ready, next_id: self.next_id }
    }

    /// The queue after a restart.
    pub(crate) fn restarted(disk: &'d Disk, found: &RecoveredQueue, stopped: Stopped) -> Self {
        let mut world = Self::new(disk, true, usize::MAX);
        world.cold = true;
        world.queue = Queue::recovered(found.id, spec(true), Arc::clone(&disk.store), found);
        world.next_seq = found.next_seq;
        (world.ready, world.next_id) = (stopped.ready, stopped.next_id);
        world
    }

    pub(crate) fn connect(&mut self) -> usize {
        let outbox = Arc::new(Outbox::new(self.high_water));
        let channels = (1..=2)
            .map(|number| Channel {
                number,
                slot: outbox.open_channel(number),
                prefetch: 0,
                unacked: BTreeMap::new(),
                last_tag: 0,
            })
            .collect();
        self.connections.push(Connection {
            outbox,
            items: VecDeque::new(),
            channels,
            pending: BTreeMap::new(),
            bytes: 0,
        });
        self.connections.len() - 1
    }

    pub(crate) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(crate) fn publish(&mut self, persistent: bool, len: usize) {
        let id = self.next_id;
        let message = message(id, persistent, len);
        let mut wakes = WakeList::default();
        let published = self.queue.publish(&message, &mut wakes);
        if self.closed {
            assert_eq!(published, Published::Gone);
            return;
        }
        assert!(matches!(published, Published::Taken(_)), "{published:?}");
        self.next_id += 1;
        self.ready.insert(self.next_seq, Known { id, persistent, redelivered: false });
        self.next_seq += 1;
        self.observe();
    }

    /// A transaction takes a place; the log does not have it yet, for the transaction may take others first.
    pub(crate) fn reserve(&mut self, persistent: bool) {
        let id = self.next_id;
        let Some(seq) = self.queue.reserve() else {
            assert!(self.closed);
            return;
        };
        assert_eq!(seq, self.next_seq);
        self.next_seq += 1;
        self.next_id += 1;
        let known = Known { id, persistent, redelivered: false };
        self.reserved.push(Reserved { seq, known, message: message(id, persistent, 8), logged: false });
        self.observe();
    }

    /// The log gets the places that were taken.
    pub(crate) fn log_reserved(&mut self) {
        let mut ops = Vec::new();
        for reserved in self.reserved.iter_mut().filter(|reserved| !reserved.logged) {
            reserved.logged = true;
            if self.queue.stores(&reserved.message) {
                ops.push(TxOp::Enqueue {
                    queue: self.queue.id(),
                    seq: reserved.seq,
                    meta: reserved.message.meta(),
                    payload: Arc::clone(&reserved.message) as _,
                });
            }
        }
        self.disk.store.transaction(ops);
    }

    /// Waits until everything is durable; the reader need not be running.
    pub(crate) fn sync(&self) {
        self.disk.wait_durable();
    }

    /// The message becomes visible.
    pub(crate) fn publish_reserved(&mut self, pick: usize) {
        if self.reserved.is_empty() {
            return;
        }
        self.log_reserved();
        let Reserved { seq, known, message, .. } = self.reserved.remove(pick % self.reserved.len());
        let mut wakes = WakeList::default();
        self.queue.publish_reserved(seq, &message, &mut wakes);
        if !self.closed {
            self.ready.insert(seq, known);
        }
        self.observe();
    }

    pub(crate) fn attach(
        &mut self,
        connection: usize,
        channel: usize,
        prefetch: u32,
        no_ack: bool,
        exclusive: bool,
    ) -> Attach {
        let id = ConsumerId(self.consumers.len() as u64 + 1);
        let queue = Arc::clone(&self.queue);
        let to = &self.connections[connection];
        let outbox = Arc::clone(&to.outbox);
        let number = to.channels[channel].number;
        let slot = outbox.add_consumer(id, Arc::clone(&queue), to.channels[channel].slot, prefetch, no_ack);
        let consumer = Consumer { id, outbox: Arc::clone(&outbox), slot, exclusive };
        let mut others = self.consumers.iter().filter(|other| other.attached);
        let expected = if self.closed {
            Attach::Gone
        } else if others.any(|other| other.exclusive || exclusive) {
            Attach::ExclusiveUse
        } else {
            Attach::Attached
        };
        let mut announced = false;
        let result = queue.attach(consumer, || announced = true, &mut WakeList::default());
        assert_eq!(result, expected);
        assert_eq!(announced, expected == Attach::Attached);
        if result == Attach::Attached {
            self.consumers.push(ConsumerModel {
                id,
                connection,
                channel,
                slot,
                prefetch,
                in_flight: 0,
                no_ack,
                exclusive,
                attached: true,
                in_turn: true,
                passed: BTreeMap::new(),
            });
        } else {
            outbox.remove_consumer(number, slot);
        }
        self.observe();
        result
    }

    pub(crate) fn detach(&mut self, pick: usize) {
        let attached: Vec<usize> = (0..self.consumers.len()).filter(|at| self.consumers[*at].attached).collect();
        let Some(at) = attached.get(pick % attached.len().max(1)) else {
            return;
        };
        let last = self.queue.detach(self.consumers[*at].id);
        assert_eq!(last, attached.len() == 1);
        self.end_consumer(*at);
        self.observe();
    }

    fn end_consumer(&mut self, at: usize) {
        let consumer = &mut self.consumers[at];
        consumer.attached = false;
        let connection = &self.connections[consumer.connection];
        connection.outbox.remove_consumer(connection.channels[consumer.channel].number, consumer.slot);
    }

    /// basic.qos for the whole channel.
    pub(crate) fn limit_channel(&mut self, connection: usize, channel: usize, prefetch: u32) {
        let to = &mut self.connections[connection];
        to.channels[channel].prefetch = prefetch;
        let mut resume = Vec::new();
        to.outbox.set_channel_prefetch(to.channels[channel].slot, prefetch, &mut resume);
        self.resume(resume);
    }

    fn resume(&mut self, list: Vec<Resume>) {
        self.observe();
        for Resume { queue, consumer } in list {
            for other in self.consumers.iter_mut().filter(|other| other.id == consumer) {
                other.passed.clear();
                other.in_turn = true;
            }
            queue.resume(consumer, &mut WakeList::default());
            self.observe();
        }
    }

    /// The connection's socket takes everything up to the first place that waits for the backlog.
    pub(crate) fn write(&mut self, connection: usize) {
        let mut acked = Acked::default();
        let to = &mut self.connections[connection];
        let mut bytes = 0;
        let mut reply_bytes = 0;
        while let Some(item) = to.items.pop_front() {
            if let OutItem::PendingGet { id, .. } = item
                && to.pending.contains_key(&id)
            {
                to.items.push_front(item);
                break;
            }
            bytes += item_bytes(&item);
            reply_bytes += if item.is_reply() { item_bytes(&item) } else { 0 };
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
                OutItem::Reply { .. } | OutItem::Return { .. } | OutItem::PendingGet { .. } => {}
            }
        }
        acked.commit();
        to.bytes -= bytes;
        let mut resume = Vec::new();
        to.outbox.written(bytes, reply_bytes, &mut resume);
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
        let found = from.unacked.contains_key(&tag) || (multiple && tag == 0);
        let expected: Vec<u64> = match (found, multiple) {
            (false, _) => Vec::new(),
            (true, false) => vec![tag],
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

    fn give_back(&mut self, connection: usize, channel: usize, tag: u64, how: Settle) {
        let from = &mut self.connections[connection].channels[channel];
        let held = from.unacked.remove(&tag).expect("outstanding");
        if let Some(consumer) = held.consumer {
            self.consumers[consumer].in_flight -= 1;
        }
        match how {
            Settle::Ack => assert!(self.settled.insert(held.known.id)),
            Settle::Requeue if self.closed => {}
            Settle::Requeue => {
                self.ready.insert(held.seq, Known { redelivered: true, ..held.known });
            }
        }
    }

    pub(crate) fn get(&mut self, connection: usize, channel: usize, no_ack: bool) {
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
        for at in 0..self.consumers.len() {
            let consumer = &self.consumers[at];
            if consumer.attached && (consumer.connection, consumer.channel) == (connection, channel) {
                self.queue.detach(consumer.id);
                self.end_consumer(at);
            }
        }
        let to = &mut self.connections[connection];
        let closing = &mut to.channels[channel];
        let number = closing.number;
        let requeue = to.outbox.close_channel(closing.slot);
        let tags: Vec<u64> = closing.unacked.keys().copied().collect();
        closing.slot = to.outbox.open_channel(number);
        (closing.prefetch, closing.last_tag) = (0, 0);
        // What is under way to the old channel is of no interest here: the tags start again.
        let mut written = 0;
        let mut written_replies = 0;
        let mut acked = Acked::default();
        let mut kept = VecDeque::new();
        for item in to.items.drain(..) {
            if item.channel() != number {
                kept.push_back(item);
                continue;
            }
            written += item_bytes(&item);
            written_replies += if item.is_reply() { item_bytes(&item) } else { 0 };
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
        to.bytes -= written;
        acked.commit();
        for tag in tags {
            self.give_back(connection, channel, tag, Settle::Requeue);
        }
        requeue.commit(&mut WakeList::default());
        self.observe_with(true);
        let mut resume = Vec::new();
        self.connections[connection].outbox.written(written, written_replies, &mut resume);
        self.resume(resume);
    }

    /// The client is gone; another one takes its place.
    pub(crate) fn close_connection(&mut self, connection: usize) {
        let to = &mut self.connections[connection];
        let undelivered = to.outbox.close(&mut to.items);
        to.items.clear();
        for resume in undelivered.consumers {
            resume.queue.detach(resume.consumer);
        }
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.connection == connection) {
            consumer.attached = false;
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
                self.ready.insert(seq, known);
            }
        }
        self.connections[connection].pending.clear();
        undelivered.requeue.commit(&mut WakeList::default());
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
        self.observe()
    }

    /// Lets reads of the backlog finish until nothing more comes of it.
    pub(crate) fn load(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            let any = if !self.cold {
                self.observe()
            } else if self.stop == 0 {
                self.disk.barrier();
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

    fn observe_gets(&mut self, no_ack: Option<bool>) {
        self.observe_full(false, no_ack);
    }

    /// `disordered`: several sources became ready at once, so that the turn says nothing.
    fn observe_with(&mut self, disordered: bool) -> bool {
        self.observe_full(disordered, None)
    }

    /// Takes what the outboxes hold and checks it against the model. True when there was something.
    fn observe_full(&mut self, disordered: bool, get_no_ack: Option<bool>) -> bool {
        let mut delivered = BTreeSet::new();
        let mut any = false;
        // An answer to a get may have taken the credit of a channel, and is looked at last.
        let disordered = disordered || self.connections.iter().any(|connection| !connection.pending.is_empty());
        let lowest: Vec<Seq> = self.ready.keys().copied().collect();
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
                        delivered.insert(seq);
                        let consumer = (0..self.consumers.len())
                            .rev()
                            .find(|c| self.consumers[*c].connection == at && self.consumers[*c].slot == delivery.slot)
                            .expect("a consumer");
                        self.check_turn(at, consumer, disordered);
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
                            let entry = Held { seq, known, consumer: Some(consumer) };
                            assert!(held.unacked.insert(tag, entry).is_none());
                        }
                    }
                    OutItem::Got(got) => {
                        let (seq, tag, channel) = (got.entry.seq, got.tag, usize::from(got.channel - 1));
                        let known = self.take_ready(seq, id_of(&got.entry.message), got.entry.redelivered);
                        delivered.insert(seq);
                        assert_eq!(got.remaining as usize, self.ready.len(), "message count of get-ok");
                        self.hold_got(at, channel, tag, seq, known, got.no_ack);
                    }
                    OutItem::PendingGet { channel, id } => {
                        let no_ack = get_no_ack.expect("only a get makes one");
                        self.connections[at].pending.insert(*id, (usize::from(channel - 1), no_ack));
                    }
                    OutItem::Reply { .. } | OutItem::Return { .. } | OutItem::ConsumerGone { .. } => {}
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
        assert!(
            lowest.iter().take(delivered.len()).all(|seq| delivered.contains(seq)),
            "not in order: {delivered:?} of {lowest:?}"
        );
        assert_eq!(self.queue.message_count() as usize, self.ready.len(), "ready messages");
        let unacked: usize = self.connections.iter().flat_map(|c| &c.channels).map(|c| c.unacked.len()).sum();
        assert_eq!(self.queue.unacked_count(), unacked + self.flying.len(), "unacked messages");
        let consumers = self.consumers.iter().filter(|consumer| consumer.attached).count();
        assert_eq!(self.queue.consumer_count() as usize, consumers, "consumers");
        any
    }

    /// Answers of gets that had to wait.
    fn observe_resolved(&mut self, delivered: &mut BTreeSet<Seq>) -> bool {
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
                delivered.insert(seq);
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
            assert!(held.unacked.insert(tag, Held { seq, known, consumer: None }).is_none());
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
        if !consumer.attached || consumer.connection == usize::MAX {
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
