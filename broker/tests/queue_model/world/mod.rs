//! A queue, its outboxes, and a model that is told of every operation and shown every delivery.

mod limits;
mod observe;
mod settle;
mod time;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;

use amq_protocol::types::AMQPValue;
use broker::model::arguments::Arguments;
use broker::model::message::Message;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::{Resume, Terms};
use broker::queue::item::{OutItem, Written, item_bytes};
use broker::queue::lanes::{id_of as id_of_level, owner_of};
use broker::queue::outbox::Outbox;
use broker::queue::settle::{Acked, Requeue};
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Get, NotDeleted, NotReserved, Published, Queue, QueueSpec, Services};
use storage::{QueueId, RecoveredQueue, Seq, SeqRange, TxOp};

use crate::manual_time::ManualTime;
use crate::support::{Disk, Release};
use limits::Limits;

const ADDRESS: &[u8] = b"\0\x01q";
const PERSISTENT: &[u8] = &[0x10, 0x00, 2];
const TRANSIENT: &[u8] = &[0x00, 0x00];

/// Wall time at which the worlds begin.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A message whose body starts with its id.
pub(crate) fn message(id: u64, persistent: bool, len: usize) -> Arc<Message> {
    message_until(id, persistent, len, None)
}

/// As [`message`]; it expires at this wall time.
pub(crate) fn message_until(id: u64, persistent: bool, len: usize, deadline_ms: Option<u64>) -> Arc<Message> {
    message_with(if persistent { PERSISTENT } else { TRANSIENT }, id, persistent, len, deadline_ms)
}

fn message_with(properties: &[u8], id: u64, persistent: bool, len: usize, deadline_ms: Option<u64>) -> Arc<Message> {
    let mut body = vec![0; len.max(8)];
    body[..8].copy_from_slice(&id.to_be_bytes());
    let mut message = Message::new(ADDRESS, properties, Cow::Owned(body), persistent);
    if let Some(deadline_ms) = deadline_ms {
        message.expire_at(deadline_ms);
    }
    Arc::new(message)
}

pub(crate) fn id_of(message: &Message) -> u64 {
    let body = message.content().body;
    u64::from_be_bytes(body[..8].try_into().expect("eight octets"))
}

/// What a queue can do beside the ordinary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    pub(crate) max_priority: u8,
    pub(crate) single_active: bool,
    /// It is a quorum queue: this often a message may come back in vain.
    pub(crate) delivery_limit: Option<i8>,
}

impl Features {
    pub(crate) fn spec(self, durable: bool) -> QueueSpec {
        let mut arguments = Arguments::default();
        if let Some(limit) = self.delivery_limit {
            arguments.insert("x-queue-type", AMQPValue::LongString("quorum".into()));
            arguments.insert("x-delivery-limit", AMQPValue::ShortShortInt(limit));
        } else if self.max_priority > 0 {
            arguments.insert("x-max-priority", AMQPValue::ShortShortUInt(self.max_priority));
        }
        if self.single_active {
            arguments.insert("x-single-active-consumer", AMQPValue::Boolean(true));
        }
        QueueSpec { arguments: Arc::new(arguments), ..spec(durable) }
    }

    /// A message, with a priority that may be above the highest.
    fn message(self, id: u64, persistent: bool, len: usize, deadline_ms: Option<u64>) -> Arc<Message> {
        if self.max_priority() == 0 {
            return message_until(id, persistent, len, deadline_ms);
        }
        with_priority(priority(id), id, persistent, len, deadline_ms)
    }

    fn level(self, id: u64) -> u8 {
        priority(id).min(self.max_priority())
    }

    fn max_priority(self) -> u8 {
        if self.counts() { 31 } else { self.max_priority }
    }

    /// Whether it counts deliveries, and stores every message.
    fn counts(self) -> bool {
        self.delivery_limit.is_some()
    }
}

/// A message of this priority.
pub(crate) fn with_priority(
    priority: u8,
    id: u64,
    persistent: bool,
    len: usize,
    deadline_ms: Option<u64>,
) -> Arc<Message> {
    let properties: &[u8] = if persistent { &[0x18, 0, 2, priority] } else { &[0x08, 0, priority] };
    message_with(properties, id, persistent, len, deadline_ms)
}

/// The priority that a message with this id asks for.
fn priority(id: u64) -> u8 {
    [0, 2, 1, 9, 0, 255, 3][id as usize % 7]
}

/// Where a message stands among those that are ready.
fn turn_of(seq: Seq) -> (Reverse<u8>, Seq) {
    (Reverse(owner_of(seq).1), seq)
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
    let ids = queue.store_ids();
    for &id in &ids {
        let done = done.clone();
        let keep = move |batch: storage::ReadBatch| {
            let at_level = |seq| id_of_level(seq, owner_of(id).1);
            let seqs: Vec<Seq> = batch.messages.iter().map(|message| at_level(message.seq)).collect();
            // The receiver is there until it has got an answer.
            let _ = done.send(seqs);
        };
        disk.store.read(id, 0, usize::MAX, usize::MAX, Box::new(keep));
    }
    let answers = ids.iter().map(|_| wait.recv_timeout(crate::support::LOST).expect("the store answers a read"));
    answers.flatten().collect()
}

#[derive(Clone, Copy, Debug)]
struct Known {
    id: u64,
    persistent: bool,
    redelivered: bool,
    deadline_ms: Option<u64>,
    /// How often it was handed out before, and how often in vain.
    counts: [i64; 2],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    seq: Seq,
    known: Known,
    consumer: Option<usize>,
    /// When it goes back if nobody acknowledges it.
    due_ms: Option<u64>,
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
    /// Tags whose time for an acknowledgement was over.
    lapsed: BTreeSet<u64>,
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
    priority: i64,
    timeout_ms: Option<u64>,
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
    pub(crate) services: Services,
    pub(crate) time: Arc<ManualTime>,
    pub(crate) queue: Arc<Queue>,
    features: Features,
    /// The only consumer that gets anything, where there can only be one.
    active: Option<usize>,
    high_water: usize,
    /// What is observed next need not be in order.
    unordered: bool,
    connections: Vec<Connection>,
    consumers: Vec<ConsumerModel>,
    ready: BTreeMap<Seq, Known>,
    /// Sent to a consumer without acknowledgements and not written: connection and message.
    flying: BTreeMap<Seq, (usize, Known)>,
    settled: BTreeSet<u64>,
    reserved: Vec<Reserved>,
    /// Deadlines that the store knows, or may still know, and has not named.
    unnamed: BTreeSet<(u64, Seq)>,
    /// By level.
    next_seq: BTreeMap<u8, Seq>,
    next_id: u64,
    closed: bool,
    limits: Limits,
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
    now_ms: u64,
    features: Features,
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
    /// Back to the queue, in vain.
    Reject,
}

impl<'d> World<'d> {
    pub(crate) fn new(disk: &'d Disk, durable: bool, high_water: usize) -> Self {
        Self::with(disk, durable, high_water, Features::default())
    }

    pub(crate) fn with(disk: &'d Disk, durable: bool, high_water: usize, features: Features) -> Self {
        Self::at(disk, durable, high_water, START_MS, features)
    }

    fn at(disk: &'d Disk, durable: bool, high_water: usize, now_ms: u64, features: Features) -> Self {
        let time = ManualTime::at(now_ms);
        let services = Services::new(Arc::clone(&disk.store), time.clock());
        let queue = Queue::new(disk.store.new_queue_id(), features.spec(durable), services.clone());
        let mut world = Self {
            disk,
            services,
            time,
            queue,
            features,
            active: None,
            high_water,
            unordered: false,
            connections: Vec::new(),
            consumers: Vec::new(),
            ready: BTreeMap::new(),
            flying: BTreeMap::new(),
            settled: BTreeSet::new(),
            reserved: Vec::new(),
            unnamed: BTreeSet::new(),
            next_seq: BTreeMap::new(),
            next_id: 1,
            closed: false,
            limits: Limits::default(),
            cold: false,
            stop: 0,
            held: false,
        };
        for _ in 0..3 {
            world.connect();
        }
        world
    }

    /// A queue whose first `messages` messages are on disk only. Every third one expires within a second.
    pub(crate) fn cold(disk: &'d Disk, messages: u64, high_water: usize) -> Self {
        Self::cold_with(disk, messages, high_water, Features::default())
    }

    pub(crate) fn cold_with(disk: &'d Disk, messages: u64, high_water: usize, features: Features) -> Self {
        let ttl_ms = |id| (id % 3 == 1).then_some(1 + id * 37 % 1_000);
        Self::cold_at(disk, messages, high_water, features, ttl_ms)
    }

    /// As [`World::cold`], with these expirations.
    pub(crate) fn cold_for(
        disk: &'d Disk,
        messages: u64,
        high_water: usize,
        ttl_ms: impl Fn(u64) -> Option<u64>,
    ) -> Self {
        Self::cold_at(disk, messages, high_water, Features::default(), ttl_ms)
    }

    fn cold_at(
        disk: &'d Disk,
        messages: u64,
        high_water: usize,
        features: Features,
        ttl_ms: impl Fn(u64) -> Option<u64>,
    ) -> Self {
        let mut world = Self::with(disk, true, high_water, features);
        let queue = world.queue.id();
        let mut found: BTreeMap<u8, RecoveredQueue> = BTreeMap::new();
        for number in 1..=messages {
            let deadline_ms = ttl_ms(number).map(|ttl_ms| START_MS + ttl_ms);
            let message = features.message(number, true, 8, deadline_ms);
            let level = features.level(number);
            let id = id_of_level(queue, level);
            let empty = RecoveredQueue { id, first: 1, next_seq: 1, messages: 0, bytes: 0 };
            let lane = found.entry(level).or_insert(empty);
            disk.store.enqueue(id, lane.next_seq, message.meta(), message);
            lane.next_seq += 1;
            lane.messages += 1;
            lane.bytes += 8;
            let seq = world.take_seq(level);
            world.unnamed.extend(deadline_ms.map(|deadline_ms| (deadline_ms, seq)));
            world.ready.insert(seq, Known::new(number, true, deadline_ms, 8));
        }
        disk.barrier();
        world.next_id = messages + 1;
        let found: Vec<RecoveredQueue> = found.into_values().collect();
        world.cold = true;
        world.queue = Queue::recovered(queue, features.spec(true), world.services.clone(), &found);
        world
    }

    fn take_seq(&mut self, level: u8) -> Seq {
        let next = self.next_seq.entry(level).or_insert(1);
        *next += 1;
        id_of_level(*next - 1, level)
    }

    /// Everybody leaves and the broker stops.
    pub(crate) fn stop(mut self) -> Stopped {
        for at in 0..self.connections.len() {
            self.close_connection(at);
        }
        let redelivered = self.queue.redelivered();
        let ready = std::mem::take(&mut self.ready);
        let ready = ready.into_iter().filter(|(_, known)| known.persistent).collect();
        Stopped { redelivered, ready, next_id: self.next_id, now_ms: self.now_ms(), features: self.features }
    }

    /// The queue after a restart; the broker was down for this long.
    pub(crate) fn restarted(disk: &'d Disk, found: &[RecoveredQueue], stopped: Stopped, down_ms: u64) -> Self {
        let features = stopped.features;
        let mut world = Self::at(disk, true, usize::MAX, stopped.now_ms + down_ms, features);
        world.cold = true;
        let (id, _) = owner_of(found[0].id);
        assert!(found.iter().all(|level| owner_of(level.id).0 == id), "levels of one queue");
        world.queue = Queue::recovered(id, features.spec(true), world.services.clone(), found);
        world.next_seq = found.iter().map(|level| (owner_of(level.id).1, level.next_seq)).collect();
        (world.ready, world.next_id) = (stopped.ready, stopped.next_id);
        let deadlines = world.ready.iter().filter_map(|(seq, known)| Some((known.deadline_ms?, *seq)));
        world.unnamed = deadlines.collect();
        world
    }

    pub(crate) fn connect(&mut self) -> usize {
        let outbox = Arc::new(Outbox::new(self.high_water, Arc::default(), Arc::default()));
        let channels = (1..=2)
            .map(|number| Channel {
                number,
                slot: outbox.open_channel(number),
                prefetch: 0,
                unacked: BTreeMap::new(),
                last_tag: 0,
                lapsed: BTreeSet::new(),
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
        self.publish_for(persistent, len, None);
    }

    /// As [`World::publish`], with an expiration.
    pub(crate) fn publish_for(&mut self, persistent: bool, len: usize, ttl_ms: Option<u64>) {
        let id = self.next_id;
        // Whether a consumer could have taken it cannot be told of one that the log holds as well.
        let ttl_ms = if self.features.counts() { ttl_ms.map(|ttl_ms| ttl_ms.max(1)) } else { ttl_ms };
        let deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms);
        let message = self.features.message(id, persistent, len, deadline_ms);
        let ttl_ms = self.own_ttl(ttl_ms);
        let deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms);
        let has_no_room = self.has_no_room(len.max(8));
        let persistent = persistent || self.features.counts();
        let held = Arc::strong_count(&message);
        let mut wakes = WakeList::default();
        let published = self.queue.publish(&message, &mut wakes);
        if self.closed {
            assert_eq!(published, Published::Gone);
            return;
        }
        self.next_id += 1;
        if has_no_room {
            assert_eq!(published, Published::Refused);
            self.note_refused(id);
            self.observe();
            return;
        }
        assert!(matches!(published, Published::Taken(_)), "{published:?}");
        let seq = self.take_seq(self.features.level(id));
        self.note_stored(seq, persistent, deadline_ms);
        let now_or_never = ttl_ms == Some(0);
        // A transient message that nobody has is gone.
        if now_or_never && !persistent && Arc::strong_count(&message) == held {
            assert!(self.settled.insert(id));
        } else {
            self.ready.insert(seq, Known::new(id, persistent, deadline_ms, len.max(8)));
        }
        self.observe();
        assert!(!now_or_never || !self.ready.contains_key(&seq), "a message without time waits");
    }

    /// A transaction takes a place; the log does not have it yet, for the transaction may take others first.
    pub(crate) fn reserve(&mut self, persistent: bool, ttl_ms: Option<u64>) {
        let id = self.next_id;
        let deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms);
        let message = self.features.message(id, persistent, 8, deadline_ms);
        let message = self.queue.with_own_deadline(&message);
        let deadline_ms = message.deadline_ms();
        let expected = if self.closed {
            Err(NotReserved::Gone)
        } else if self.has_no_room(8) {
            Err(NotReserved::NoRoom)
        } else {
            Ok(())
        };
        let reserved = self.queue.reserve(&message);
        assert_eq!(reserved.map(|_| ()), expected);
        let Ok(seq) = reserved else {
            if !self.closed {
                self.next_id += 1;
                self.note_refused(id);
                self.observe();
            }
            return;
        };
        assert_eq!(seq, self.take_seq(self.features.level(id)));
        self.next_id += 1;
        let known = Known::new(id, persistent || self.features.counts(), deadline_ms, 8);
        self.reserved.push(Reserved { seq, known, message, logged: false });
        self.observe();
    }

    /// The log gets the places that were taken.
    pub(crate) fn log_reserved(&mut self) {
        let mut ops = Vec::new();
        let mut deadlines = Vec::new();
        for reserved in self.reserved.iter_mut().filter(|reserved| !reserved.logged) {
            reserved.logged = true;
            if self.queue.stores(&reserved.message) {
                deadlines.extend(reserved.known.deadline_ms.map(|deadline_ms| (deadline_ms, reserved.seq)));
                let (queue, seq) = self.queue.in_store(reserved.seq);
                ops.push(TxOp::Enqueue {
                    queue,
                    seq,
                    meta: reserved.message.meta(),
                    payload: Arc::clone(&reserved.message) as _,
                });
            }
        }
        self.disk.store.transaction(ops);
        self.unnamed.extend(deadlines);
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
            self.back(seq, known);
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
        let terms = Terms { prefetch, no_ack, timeout_ms: None };
        self.attach_with(connection, channel, terms, exclusive, 0)
    }

    pub(crate) fn attach_with(
        &mut self,
        connection: usize,
        channel: usize,
        terms: Terms,
        exclusive: bool,
        priority: i64,
    ) -> Attach {
        let id = ConsumerId(self.consumers.len() as u64 + 1);
        let queue = Arc::clone(&self.queue);
        let to = &self.connections[connection];
        let outbox = Arc::clone(&to.outbox);
        let number = to.channels[channel].number;
        let slot = outbox.add_consumer(id, Arc::clone(&queue), to.channels[channel].slot, terms);
        let consumer = Consumer { id, outbox: Arc::clone(&outbox), slot, exclusive, no_ack: terms.no_ack, priority };
        let mut others = self.consumers.iter().filter(|other| other.attached);
        let expected = if self.closed {
            Attach::Gone
        } else if others.any(|other| other.exclusive || exclusive) || (exclusive && self.features.single_active) {
            Attach::ExclusiveUse
        } else {
            Attach::Attached
        };
        let mut announced = false;
        let result = queue.attach(consumer, || announced = true, &mut WakeList::default());
        assert_eq!(result, expected);
        assert_eq!(announced, expected == Attach::Attached);
        if result == Attach::Attached {
            if self.features.single_active && self.active.is_none() {
                self.active = Some(self.consumers.len());
            }
            self.consumers.push(ConsumerModel {
                id,
                connection,
                channel,
                slot,
                prefetch: terms.prefetch,
                in_flight: 0,
                no_ack: terms.no_ack,
                exclusive,
                priority,
                timeout_ms: terms.timeout_ms.filter(|timeout_ms| *timeout_ms > 0 && !terms.no_ack),
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
        if last {
            self.note_use();
        }
        self.hand_over(&[*at]);
        self.observe();
    }

    /// These consumers are gone, and what they held is back if it comes back at all: if one of them was the only active one,
    /// another takes its place.
    fn hand_over(&mut self, gone: &[usize]) {
        for &at in gone {
            if self.active == Some(at) {
                let waiting = (0..self.consumers.len()).filter(|at| self.consumers[*at].attached);
                self.active = waiting.min_by_key(|at| (Reverse(self.consumers[*at].priority), *at));
            }
            self.queue.hand_over(self.consumers[at].id, &mut WakeList::default());
        }
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
}
