//! A queue, its outboxes, and a model that is told of every operation and shown every delivery.

mod observe;
mod settle;
mod time;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;

use broker::model::arguments::Arguments;
use broker::model::message::Message;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::Resume;
use broker::queue::item::{OutItem, Written, item_bytes};
use broker::queue::outbox::Outbox;
use broker::queue::settle::{Acked, Requeue};
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Get, NotDeleted, Published, Queue, QueueSpec, Services};
use storage::{QueueId, RecoveredQueue, Seq, SeqRange, TxOp};

use crate::manual_time::ManualTime;
use crate::support::{Disk, Release};

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
    let mut body = vec![0; len.max(8)];
    body[..8].copy_from_slice(&id.to_be_bytes());
    let properties = if persistent { PERSISTENT } else { TRANSIENT };
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
    deadline_ms: Option<u64>,
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
    pub(crate) services: Services,
    pub(crate) time: Arc<ManualTime>,
    pub(crate) queue: Arc<Queue>,
    high_water: usize,
    connections: Vec<Connection>,
    consumers: Vec<ConsumerModel>,
    ready: BTreeMap<Seq, Known>,
    /// Sent to a consumer without acknowledgements and not written: connection and message.
    flying: BTreeMap<Seq, (usize, Known)>,
    settled: BTreeSet<u64>,
    reserved: Vec<Reserved>,
    /// Deadlines that the store knows, or may still know, and has not named.
    unnamed: BTreeSet<(u64, Seq)>,
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
    now_ms: u64,
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
        Self::at(disk, durable, high_water, START_MS)
    }

    fn at(disk: &'d Disk, durable: bool, high_water: usize, now_ms: u64) -> Self {
        let time = ManualTime::at(now_ms);
        let services = Services::new(Arc::clone(&disk.store), time.clock());
        let queue = Queue::new(disk.store.new_queue_id(), spec(durable), services.clone());
        let mut world = Self {
            disk,
            services,
            time,
            queue,
            high_water,
            connections: Vec::new(),
            consumers: Vec::new(),
            ready: BTreeMap::new(),
            flying: BTreeMap::new(),
            settled: BTreeSet::new(),
            reserved: Vec::new(),
            unnamed: BTreeSet::new(),
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

    /// A queue whose first `messages` messages are on disk only. Every third one expires within a second.
    pub(crate) fn cold(disk: &'d Disk, messages: u64, high_water: usize) -> Self {
        let ttl_ms = |seq| (seq % 3 == 1).then_some(1 + seq * 37 % 1_000);
        Self::cold_for(disk, messages, high_water, ttl_ms)
    }

    /// As [`World::cold`], with these expirations.
    pub(crate) fn cold_for(
        disk: &'d Disk,
        messages: u64,
        high_water: usize,
        ttl_ms: impl Fn(Seq) -> Option<u64>,
    ) -> Self {
        let mut world = Self::new(disk, true, high_water);
        let id = world.queue.id();
        let mut bytes = 0;
        for seq in 1..=messages {
            let deadline_ms = ttl_ms(seq).map(|ttl_ms| START_MS + ttl_ms);
            let message = message_until(seq, true, 8, deadline_ms);
            bytes += 8;
            disk.store.enqueue(id, seq, message.meta(), message);
            world.unnamed.extend(deadline_ms.map(|deadline_ms| (deadline_ms, seq)));
            world.ready.insert(seq, Known { id: seq, persistent: true, redelivered: false, deadline_ms });
        }
        disk.barrier();
        world.next_seq = messages + 1;
        world.next_id = messages + 1;
        let found = RecoveredQueue { id, first: 1, next_seq: messages + 1, messages, bytes };
        world.cold = true;
        world.queue = Queue::recovered(id, spec(true), world.services.clone(), &found);
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
        Stopped { redelivered, ready, next_id: self.next_id, now_ms: self.now_ms() }
    }

    /// The queue after a restart; the broker was down for this long.
    pub(crate) fn restarted(disk: &'d Disk, found: &RecoveredQueue, stopped: Stopped, down_ms: u64) -> Self {
        let mut world = Self::at(disk, true, usize::MAX, stopped.now_ms + down_ms);
        world.cold = true;
        world.queue = Queue::recovered(found.id, spec(true), world.services.clone(), found);
        world.next_seq = found.next_seq;
        (world.ready, world.next_id) = (stopped.ready, stopped.next_id);
        let deadlines = world.ready.iter().filter_map(|(seq, known)| Some((known.deadline_ms?, *seq)));
        world.unnamed = deadlines.collect();
        world
    }

    pub(crate) fn connect(&mut self) -> usize {
        let outbox = Arc::new(Outbox::new(self.high_water, Arc::default()));
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
        self.publish_for(persistent, len, None);
    }

    /// As [`World::publish`], with an expiration.
    pub(crate) fn publish_for(&mut self, persistent: bool, len: usize, ttl_ms: Option<u64>) {
        let id = self.next_id;
        let deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms);
        let message = message_until(id, persistent, len, deadline_ms);
        let held = Arc::strong_count(&message);
        let mut wakes = WakeList::default();
        let published = self.queue.publish(&message, &mut wakes);
        if self.closed {
            assert_eq!(published, Published::Gone);
            return;
        }
        assert!(matches!(published, Published::Taken(_)), "{published:?}");
        self.next_id += 1;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.note_stored(seq, persistent, deadline_ms);
        let now_or_never = ttl_ms == Some(0);
        // A transient message that nobody has is gone.
        if now_or_never && !persistent && Arc::strong_count(&message) == held {
            assert!(self.settled.insert(id));
        } else {
            self.ready.insert(seq, Known { id, persistent, redelivered: false, deadline_ms });
        }
        self.observe();
        assert!(!now_or_never || !self.ready.contains_key(&seq), "a message without time waits");
    }

    /// A transaction takes a place; the log does not have it yet, for the transaction may take others first.
    pub(crate) fn reserve(&mut self, persistent: bool, ttl_ms: Option<u64>) {
        let id = self.next_id;
        let deadline_ms = ttl_ms.map(|ttl_ms| self.now_ms() + ttl_ms);
        let message = message_until(id, persistent, 8, deadline_ms);
        let Some(seq) = self.queue.reserve(&message) else {
            assert!(self.closed);
            return;
        };
        assert_eq!(seq, self.next_seq);
        self.next_seq += 1;
        self.next_id += 1;
        let known = Known { id, persistent, redelivered: false, deadline_ms };
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
                ops.push(TxOp::Enqueue {
                    queue: self.queue.id(),
                    seq: reserved.seq,
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
}
