//! One seed: a disk, and the stores that come and go on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::fs::faulty::{Disk, Fault, FaultyFs, Op as Call, When};
use storage::{Durable, Lsn, Meta, OpenError, Options, QueueId, ReadBatch, Recovered, Seq, SeqRange, Store};
use storage::{TopologyChange, TxOp};
use tempfile::TempDir;

use super::model::{Message, Model, Op, State, read};
use crate::common::{body, payload, scratch};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const QUEUES: usize = 4;

/// How an opening ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerLoss,
    Kill,
    Clean,
}

/// What one seed does.
pub(super) struct Life {
    seed: u64,
    rng: StdRng,
    disk: Disk,
    model: Model,
    /// The queues in use; 0 for one that is to be made.
    ids: [QueueId; QUEUES],
    next: BTreeMap<QueueId, Seq>,
    used: BTreeSet<QueueId>,
    /// The last stop was a clean one.
    closed: bool,
    /// Messages of so many bytes have files of their own.
    large: usize,
    /// Messages that compaction moved.
    pub(super) moved: u64,
}

/// One opening.
struct Opening {
    fs: FaultyFs,
    store: Arc<Store>,
    failure: Arc<Mutex<Option<String>>>,
    /// Calls may fail because of rules.
    faulty: bool,
}

impl Life {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            disk: Disk::default(),
            model: Model::default(),
            ids: [0; QUEUES],
            next: BTreeMap::new(),
            used: BTreeSet::new(),
            closed: false,
            large: 0,
            moved: 0,
        }
    }

    pub(super) fn run(&mut self) {
        let options = self.options();
        self.large = options.large_bytes;
        let generations = self.rng.random_range(2..=4);
        for _ in 0..generations {
            self.generation(&options, true);
        }
        // On a disk that does nothing wrong.
        self.generation(&options, false);
    }

    /// Small figures, so that every boundary is met.
    fn options(&mut self) -> Options {
        let rng = &mut self.rng;
        let mut options = Options::new("");
        options.segment_bytes = 64 * 1024;
        options.pool_segments = rng.random_range(0..4);
        options.checkpoint_interval = Duration::from_micros([0, 500, 5_000, 3_600_000_000][rng.random_range(0..4)]);
        options.snapshot_bytes = [0, 32 * 1024, 256 * 1024][rng.random_range(0..3)];
        options.large_bytes = [1024, 8 * 1024, 16 * 1024][rng.random_range(0..3)];
        options.index_cache_bytes = [0, 16 * 1024, 32 * 1024 * 1024][rng.random_range(0..3)];
        // By the seed, so that it draws what it drew without this.
        options.compaction_delay = Duration::from_secs(if self.seed.is_multiple_of(4) { 3600 } else { 0 });
        options.compaction_rate = u64::MAX;
        options
    }

    fn generation(&mut self, options: &Options, hostile: bool) {
        let root = scratch();
        let seed = self.rng.random();
        let fs = FaultyFs::mount(std::mem::take(&mut self.disk), root.path(), "sled", seed).expect("mounted");
        let end = match self.rng.random_range(0..10) {
            0..6 if hostile => End::PowerLoss,
            6..8 if hostile => End::Kill,
            _ => End::Clean,
        };
        if end == End::PowerLoss {
            self.plan_loss(&fs);
        }
        let faulty = hostile && self.rng.random_ratio(1, 5);
        let from_start = faulty && self.rng.random();
        if from_start {
            self.plan_faults(&fs);
            if self.rng.random_ratio(1, 8) {
                fs.set_files_max(self.rng.random_range(1..8));
            }
        }
        match self.open(options, root.path(), &fs) {
            Ok((store, recovered)) => {
                // Reads wait for it without end.
                fs.set_files_max(usize::MAX);
                if self.begin(&fs, &store, recovered, from_start) {
                    if faulty && !from_start {
                        self.plan_faults(&fs);
                    }
                    self.live(&Opening::new(fs.clone(), store, faulty), end);
                } else {
                    self.closed = false;
                    self.disk = fs.cut();
                }
            }
            // It says what is wrong and leaves everything as it is.
            Err(error) => {
                assert!(faulty || fs.is_off(), "seed {}: {error}", self.seed);
                self.closed = false;
                self.disk = fs.cut();
            }
        }
        if fs.is_off() && end == End::PowerLoss {
            self.disk = std::mem::take(&mut self.disk).after_power_loss(&mut self.rng);
        }
        drop::<TempDir>(root);
    }

    fn open(&self, options: &Options, root: &Path, fs: &FaultyFs) -> Result<(Arc<Store>, Recovered), OpenError> {
        let mut options = options.clone();
        options.data_dir = root.to_path_buf();
        options.fs = Arc::new(fs.clone());
        Store::open(options)
    }

    /// The power is going to fail at some call, or at some call of one kind.
    fn plan_loss(&mut self, fs: &FaultyFs) {
        let rng = &mut self.rng;
        let most = [10, 60, 200, 600][rng.random_range(0..4)];
        let nth = rng.random_range(1..=most);
        match rng.random_range(0..8) {
            0 => fs.lose_power(When::Nth(1 + nth % 5), |call, _| call == Call::Rename),
            1 => fs.lose_power(When::Nth(1 + nth % 9), |call, _| call == Call::SyncDir),
            2 => fs.lose_power(When::Nth(1 + nth % 9), |_, path| names(path, "snapshot")),
            3 => fs.lose_power(When::Nth(1 + nth % 9), |_, path| names(path, "/large")),
            4 => fs.lose_power(When::Nth(1 + nth % 20), |_, path| names(path, "/sled")),
            _ => fs.lose_power(When::Nth(nth), |_, _| true),
        }
    }

    /// The disk is going to fail, or to be full, or the process has too many files open.
    fn plan_faults(&mut self, fs: &FaultyFs) {
        let rng = &mut self.rng;
        let nth = rng.random_range(1..=60);
        match rng.random_range(0..8) {
            0 => fs.fail(When::Nth(nth), Fault::Partial(EIO), |call, _| call == Call::Write),
            1 => fs.fail(When::Nth(1 + nth % 20), Fault::Forgotten(EIO), |call, _| call == Call::Sync),
            2 => fs.fail(When::Nth(nth), Fault::Error(EIO), |call, _| call == Call::Read),
            3 => fs.fail(When::From(nth), Fault::Error(EIO), |call, _| call == Call::Read),
            4 => fs.fail(When::Chance(0.02), Fault::Partial(EIO), |_, _| true),
            5 => fs.fail(When::Nth(nth), Fault::Error(EMFILE), |call, _| matches!(call, Call::Open(_))),
            6 => fs.set_capacity(Some(fs.used() + rng.random_range(0..600_000))),
            _ => fs.fail(When::Nth(1 + nth % 8), Fault::Forgotten(EIO), |_, path| names(path, "/sled")),
        }
    }

    /// Compares what was found with what has to be there; false when the disk did not let us.
    fn begin(&mut self, fs: &FaultyFs, store: &Store, recovered: Recovered, faulty: bool) -> bool {
        let Recovered { topology, queues, clean, damage, .. } = recovered;
        let rebuilt = damage.iter().any(|line| line.contains("sled database"));
        // Whether something comes back is seen below.
        let harmless =
            ["the sled database in", "rebuilt from the log alone", "no message names it", "log/key: Input/output"];
        let serious: Vec<_> = damage.iter().filter(|line| !harmless.iter().any(|text| line.contains(text))).collect();
        assert!(serious.is_empty(), "seed {}: {damage:?}", self.seed);
        assert!(clean || rebuilt || !self.closed, "seed {}: it was closed: {damage:?}", self.seed);
        let mut found = State { topology: topology.into_iter().collect(), ..State::default() };
        for queue in &queues {
            let Some(messages) = self.read_all(fs, store, queue.id) else {
                return false;
            };
            // What could not be read is not among them and not called damaged.
            if faulty && (messages.len() as u64) < queue.messages {
                return false;
            }
            assert_eq!(messages.len() as u64, queue.messages, "seed {}", self.seed);
            let bytes: usize = messages.values().map(|message| message.body.len()).sum();
            assert_eq!(bytes as u64, queue.bytes, "seed {}", self.seed);
            if !messages.is_empty() {
                found.queues.insert(queue.id, messages);
            }
        }
        // A directory that has lost everything is new, and that counts as clean.
        let exact = clean && self.model.is_closing() && found != State::default();
        if let Err(difference) = self.model.recovered(found, exact, self.large) {
            panic!("seed {}: {difference}, {damage:?}", self.seed);
        }
        self.next.clear();
        for queue in &queues {
            let least = self.model.next(queue.id);
            assert!(queue.next_seq >= least, "seed {}: {} comes again", self.seed, queue.next_seq);
            self.next.insert(queue.id, queue.next_seq);
        }
        // What was never confirmed may have been lost with its queue; then another queue takes its place.
        for id in &mut self.ids {
            if !queues.iter().any(|queue| queue.id == *id) {
                *id = 0;
            }
        }
        true
    }

    /// All messages of a queue; `None` when the disk does not let us.
    fn read_all(&self, fs: &FaultyFs, store: &Store, queue: QueueId) -> Option<BTreeMap<Seq, Message>> {
        let mut out = BTreeMap::new();
        let mut from = 0;
        loop {
            let batch = fetch(store, queue, from, 50, 64 * 1024)?;
            assert!(fs.is_off() || batch.damaged.is_empty(), "seed {}: damaged {:?}", self.seed, batch.damaged);
            out.extend(batch.messages.into_iter().map(read));
            if batch.end {
                break;
            }
            from = batch.next;
        }
        (!fs.is_off()).then_some(out)
    }

    fn live(&mut self, opening: &Opening, end: End) {
        let Opening { fs, store, failure, faulty } = opening;
        for _ in 0..self.rng.random_range(1..60) {
            if !self.step(opening) {
                break;
            }
        }
        self.model.confirm(store.durable());
        self.moved += store.stats().relocated_messages;
        self.closed = false;
        if end == End::Clean {
            let marks = self.marks();
            // It is nobody's business when a close that fails was as good as done.
            self.model.append(Lsn(u64::MAX), Op::Redelivered(marks.clone()));
            self.closed = store.close(marks).is_ok();
            if self.closed {
                self.model.confirm(Lsn(u64::MAX));
                self.disk = fs.unmount().expect("unmounted");
            }
        }
        self.disk = fs.cut();
        self.model.confirm(store.durable());
        if let Some(reason) = failure.lock().expect("not poisoned").take() {
            assert!(*faulty || fs.is_off(), "seed {}: it stopped: {reason}", self.seed);
        }
    }

    /// Some messages, to be marked as delivered.
    fn marks(&mut self) -> Vec<(QueueId, Vec<SeqRange>)> {
        let mut marks = Vec::new();
        for (id, messages) in &self.model.now.queues {
            let some = messages.keys().filter(|_| self.rng.random_ratio(1, 4));
            marks.push((*id, some.map(|seq| SeqRange::one(*seq)).collect()));
        }
        marks.retain(|(_, ranges): &(QueueId, Vec<SeqRange>)| !ranges.is_empty());
        marks
    }

    /// One step; false when the store does not go on.
    fn step(&mut self, opening: &Opening) -> bool {
        let store = &*opening.store;
        match self.rng.random_range(0..34) {
            0..10 => self.publish(store),
            10..16 => self.settle(store),
            16 => self.purge(store),
            17..19 => self.topology(store),
            19 => self.drop_queue(store),
            20..23 => self.transaction(store),
            23..25 => return self.check(opening),
            25..28 => store.kick(),
            28..30 => return self.requeue(store),
            _ => return self.wait(store),
        }
        true
    }

    fn wait(&mut self, store: &Store) -> bool {
        let (sender, receiver) = mpsc::sync_channel(1);
        store.notify_at(self.model.last(), Arc::new(Sender(sender)));
        let durable = receiver.recv().is_ok();
        self.model.confirm(store.durable());
        durable
    }

    fn queue(&mut self, store: &Store) -> QueueId {
        let at = self.rng.random_range(0..QUEUES);
        if self.ids[at] == 0 {
            self.ids[at] = store.new_queue_id();
            assert!(self.used.insert(self.ids[at]), "seed {}: an id was given out twice", self.seed);
        }
        self.ids[at]
    }

    fn next_seq(&mut self, queue: QueueId) -> Seq {
        let next = self.next.entry(queue).or_insert(1);
        *next += 1;
        *next - 1
    }

    fn message(&mut self, queue: QueueId, seq: Seq) -> Message {
        let rng = &mut self.rng;
        let len = match rng.random_range(0..20) {
            0 => rng.random_range(8_000..20_000),
            1..4 => rng.random_range(0..6_000),
            _ => rng.random_range(0..400),
        };
        let meta = Meta {
            deadline_ms: rng.random_ratio(1, 4).then(|| rng.random_range(1..1 << 41)),
            priority: if rng.random_ratio(1, 4) { rng.random() } else { 0 },
            delivery_count: if rng.random_ratio(1, 8) { rng.random() } else { 0 },
        };
        Message { body: Arc::new(body(queue, seq, len)), meta, redelivered: false }
    }

    /// Some messages, each in one queue or in several.
    fn publish(&mut self, store: &Store) {
        for _ in 0..self.rng.random_range(1..6) {
            let mut queues: BTreeSet<QueueId> = BTreeSet::from([self.queue(store)]);
            if self.rng.random_ratio(1, 5) {
                queues.insert(self.queue(store));
                queues.insert(self.queue(store));
            }
            let first = *queues.first().expect("one");
            let mut shared = None;
            for queue in queues {
                let seq = self.next_seq(queue);
                let (message, bytes) = shared
                    .get_or_insert_with(|| {
                        let message = self.message(first, seq);
                        let bytes = payload(message.body.to_vec());
                        (message, bytes)
                    })
                    .clone();
                let lsn = store.enqueue(queue, seq, message.meta, bytes);
                self.model.append(lsn, Op::Enqueue(queue, seq, message));
            }
        }
    }

    /// A range that begins at a message, often the first.
    fn range(&mut self, queue: QueueId) -> Option<SeqRange> {
        let count = self.model.now.messages(queue).count();
        let at = if self.rng.random() { 0 } else { self.rng.random_range(0..count.max(1)) };
        let first = *self.model.now.messages(queue).nth(at)?.0;
        Some(SeqRange { first, last: first + self.rng.random_range(0..8) })
    }

    fn settle(&mut self, store: &Store) {
        let queue = self.queue(store);
        if let Some(range) = self.range(queue) {
            self.model.append(store.settle(queue, range), Op::Settle(queue, range));
        }
    }

    /// Once all is durable: what waits for a large file is told its count later than others.
    fn requeue(&mut self, store: &Store) -> bool {
        let queue = self.queue(store);
        if !self.wait(store) {
            return false;
        }
        if let Some(range) = self.range(queue) {
            let count = self.rng.random_range(0..6);
            self.model.append(store.requeue(queue, &[range], count), Op::Requeue(queue, range, count));
        }
        true
    }

    fn purge(&mut self, store: &Store) {
        let queue = self.queue(store);
        let except: Vec<SeqRange> = self.range(queue).into_iter().filter(|_| self.rng.random()).collect();
        let below = self.next.get(&queue).copied().unwrap_or(1).saturating_sub(self.rng.random_range(0..4));
        let lsn = store.purge(queue, below, &except);
        self.model.append(lsn, Op::Purge(queue, below, except));
    }

    fn topology(&mut self, store: &Store) {
        let mut changes = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let key = format!("key/{}", self.rng.random_range(0..6)).into_bytes();
            let len = [0, 30, 20_000][self.rng.random_range(0..3)];
            let value = self.rng.random_ratio(2, 3).then(|| body(self.rng.random(), 0, len));
            changes.push((key, value));
        }
        let out = changes.iter().map(|(key, value)| match value.clone() {
            Some(value) => TopologyChange::Put { key: key.clone(), value },
            None => TopologyChange::Delete { key: key.clone() },
        });
        let lsn = store.change_topology(out.collect());
        self.model.append(lsn, Op::Topology(changes, None));
    }

    fn drop_queue(&mut self, store: &Store) {
        let at = self.rng.random_range(0..QUEUES);
        let id = std::mem::take(&mut self.ids[at]);
        if id != 0 {
            let lsn = store.change_topology(vec![TopologyChange::DropQueue(id)]);
            self.model.append(lsn, Op::Topology(Vec::new(), Some(id)));
            if self.rng.random_ratio(1, 4) {
                // Too late: it must never be seen.
                let seq = self.next_seq(id);
                let message = self.message(id, seq);
                let lsn = store.enqueue(id, seq, message.meta, payload(message.body.to_vec()));
                self.model.append(lsn, Op::Enqueue(id, seq, message));
            }
        }
    }

    fn transaction(&mut self, store: &Store) {
        let (mut ops, mut done) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..8) {
            let queue = self.queue(store);
            if self.rng.random_ratio(2, 3) {
                let seq = self.next_seq(queue);
                let message = self.message(queue, seq);
                ops.push(TxOp::Enqueue { queue, seq, meta: message.meta, payload: payload(message.body.to_vec()) });
                done.push(Op::Enqueue(queue, seq, message));
            } else if let Some(mut range) = self.range(queue) {
                // Not beyond what is there: a transaction may wait for a file while other messages come.
                range.last = range.last.min(self.next.get(&queue).map_or(range.last, |next| next - 1));
                ops.push(TxOp::Settle { queue, range });
                done.push(Op::Settle(queue, range));
            }
        }
        if !ops.is_empty() {
            self.model.append(store.transaction(ops), Op::Transaction(done));
        }
    }

    /// Reads something and compares; false when the store does not answer.
    fn check(&mut self, opening: &Opening) -> bool {
        let store = &*opening.store;
        let queue = self.queue(store);
        let from = self.rng.random_range(0..=self.next.get(&queue).copied().unwrap_or(1));
        let (messages, bytes) = (self.rng.random_range(1..30), self.rng.random_range(1..30_000));
        // What waits for a file is in force once it is durable, and a read does not wait for all of it.
        let settled = self.rng.random();
        if settled && !self.wait(store) {
            return false;
        }
        let Some(batch) = fetch(store, queue, from, messages, bytes) else {
            return false;
        };
        self.model.confirm(store.durable());
        if opening.faulty || opening.fs.is_off() {
            return true;
        }
        assert!(batch.damaged.is_empty(), "seed {}: {:?}", self.seed, batch.damaged);
        let (next, end) = (batch.next, batch.end);
        let found: Vec<(Seq, Message)> = batch.messages.into_iter().map(read).collect();
        let live = self.model.now.messages(queue).filter(|(seq, _)| **seq >= from);
        let expected: Vec<(Seq, Message)> =
            live.take_while(|(seq, _)| end || **seq < next).map(|(seq, message)| (*seq, message.clone())).collect();
        if settled {
            assert_eq!(found, expected, "seed {}", self.seed);
        }
        assert!(found.is_sorted_by_key(|(seq, _)| *seq), "seed {}", self.seed);
        // All that is going to stay.
        assert!(expected.iter().all(|message| found.contains(message)), "seed {}: {expected:?}", self.seed);
        true
    }
}

impl Opening {
    fn new(fs: FaultyFs, store: Arc<Store>, faulty: bool) -> Self {
        let failure = Arc::<Mutex<Option<String>>>::default();
        let seen = Arc::clone(&failure);
        store.on_failure(Box::new(move |reason| *seen.lock().expect("not poisoned") = Some(reason.to_owned())));
        // A full disk is waited for.
        let disk = fs.clone();
        store.on_disk(Box::new(move |low| {
            if low {
                disk.set_capacity(None);
            }
        }));
        Self { fs, store, failure, faulty }
    }
}

struct Sender(mpsc::SyncSender<()>);

impl Durable for Sender {
    fn durable(&self) {
        let _ = self.0.try_send(());
    }
}

/// One read, waited for; `None` when the store stops.
fn fetch(store: &Store, queue: QueueId, from: Seq, messages: usize, bytes: usize) -> Option<ReadBatch> {
    let (sender, receiver) = mpsc::channel();
    store.read(queue, from, messages, bytes, Box::new(move |batch| drop(sender.send(batch))));
    store.kick();
    receiver.recv().ok()
}

fn names(path: &Path, part: &str) -> bool {
    path.to_string_lossy().contains(part)
}
