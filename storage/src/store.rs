//! The store as its users see it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::checkpoint::Keeper;
use crate::commit::encoder::Encoder;
use crate::commit::syncer;
use crate::compact;
use crate::core::{Core, Job};
use crate::error::{CloseError, OpenError};
use crate::fs::File;
use crate::log::record::{Entry, Purge, Requeue};
use crate::options::Options;
use crate::reader::{self, List, Postponed, Read, Request};
use crate::recover::{self, Opened};
use crate::space;
use crate::spill::{Spill, SpillOptions};
use crate::stats::Stats;
use crate::types::{
    Due, Durable, Listed, Lsn, Meta, Payload, QueueId, ReadBatch, Recovered, Seq, SeqRange, TopologyChange, TxOp,
};

/// Ranges in one entry of a requeue, so that no entry outgrows a group of the log.
const REQUEUE_RANGES: usize = 1024;

/// A durable store in one data directory.
///
/// Appending returns at once with a position in the log; the position becomes durable later, by a group commit. Dropping the
/// store without [`Store::close`] is a crash: what is pending is lost, what is durable is not.
pub struct Store {
    pub(crate) core: Arc<Core>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held as long as the store is open.
    lock: Mutex<Option<Arc<dyn File>>>,
    spill: Spill,
}

impl Store {
    /// Opens a data directory, creating it when it is new.
    ///
    /// # Errors
    ///
    /// Damage is never an error: see [`Recovered::damage`]. An error is a directory that is in use, or that cannot be read or
    /// written, or one of a newer version.
    pub fn open(options: Options) -> Result<(Arc<Self>, Recovered), OpenError> {
        let options = options.normalized();
        let Opened { lock, start, segment, at, state, mirrors, recovered } = recover::open(&options)?;
        let spill_dir = options.data_dir.join("spill");
        let spill = Spill::open(Arc::clone(&options.fs), spill_dir.clone(), SpillOptions::default())
            .map_err(|source| OpenError::Io { action: "start a thread for", path: spill_dir, source })?;
        let (jobs, work) = mpsc::channel();
        let core = Arc::new(Core::new(options, start, jobs));
        let (to_sync, groups) = mpsc::sync_channel(1);
        let (give_back, spares) = mpsc::channel();
        let encoder = Encoder::new(Arc::clone(&core), to_sync, spares, segment, at);
        core.shelf.open(state.handle());
        let keeper = Keeper::new(Arc::clone(&core), state, mirrors);
        if core.index.lock().is_dirty() {
            core.schedule.dirty();
        }
        let store = Arc::new(Self {
            core: Arc::clone(&core),
            keeper: Mutex::default(),
            threads: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            spill,
        });
        let spawned = [
            spawn(&core, "warren-encoder", move |_| encoder.run()),
            spawn(&core, "warren-sync", move |core| syncer::run(core, &groups, &give_back)),
            spawn(&core, "warren-reader", |core| {
                reader::run(core);
                Ok(())
            }),
            spawn(&core, "warren-compact", |core| {
                compact::run(core);
                Ok(())
            }),
            spawn(&core, "warren-space", move |core| space::thread::run(core, &work)),
        ];
        let mut threads = Vec::new();
        for thread in spawned {
            threads.push(thread?);
        }
        *store.keeper.lock() = Some(spawn(&core, "warren-checkpoint", move |_| keeper.run())?);
        *store.threads.lock() = threads;
        Ok((store, recovered))
    }

    /// A queue id that was never given out before and never will be again.
    #[must_use]
    pub fn new_queue_id(&self) -> QueueId {
        self.core.new_queue_id()
    }

    /// A message enters a queue.
    pub fn enqueue(&self, queue: QueueId, seq: Seq, meta: Meta, payload: Arc<dyn Payload>) -> Lsn {
        self.append(enqueue_entry(queue, seq, &meta, payload, false))
    }

    /// Messages leave a queue for good.
    pub fn settle(&self, queue: QueueId, range: SeqRange) -> Lsn {
        self.append(Entry::Settle { queue, range, tx: false })
    }

    /// Messages are delivered or came back to their queue, and count as delivered before. `delivery_count` is what is kept of
    /// that, for all of them; what is stored never goes down, and 0 leaves it alone. For a message that is not durable itself yet, because
    /// the file of a large one is still being written, it may become durable later than the position returned.
    pub fn requeue(&self, queue: QueueId, ranges: &[SeqRange], delivery_count: u32) -> Lsn {
        let mut last = self.core.pending.last();
        for ranges in ranges.chunks(REQUEUE_RANGES) {
            last = self.append(Entry::Requeue(Box::new(Requeue { queue, delivery_count, ranges: ranges.to_vec() })));
        }
        last
    }

    /// A queue is emptied below `below`, but for the messages in `except`.
    pub fn purge(&self, queue: QueueId, below: Seq, except: &[SeqRange]) -> Lsn {
        self.append(Entry::Purge(Box::new(Purge { queue, below, except: except.to_vec() })))
    }

    /// Changes the topology, all of it or, after a crash, nothing of it.
    pub fn change_topology(&self, changes: Vec<TopologyChange>) -> Lsn {
        self.append(Entry::Topology(changes))
    }

    /// Does several things, all of them or, after a crash, none. They are in force once the position returned is durable.
    pub fn transaction(&self, ops: Vec<TxOp>) -> Lsn {
        if ops.is_empty() {
            return self.core.pending.last();
        }
        let count = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        let mut entries: Vec<Entry> = ops
            .into_iter()
            .map(|op| match op {
                TxOp::Enqueue { queue, seq, meta, payload } => enqueue_entry(queue, seq, &meta, payload, true),
                TxOp::Settle { queue, range } => Entry::Settle { queue, range, tx: true },
            })
            .collect();
        entries.push(Entry::TxEnd { count });
        let bytes = entries.iter().map(Entry::pending_bytes).sum();
        self.core.pending.append_all(entries, bytes)
    }

    /// Sees to it that what was appended is committed. Call it once after a batch of appends.
    pub fn kick(&self) {
        self.core.kick();
    }

    /// Everything up to here is on the disk.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.core.waiters.durable()
    }

    /// Calls `waiter` once, as soon as `lsn` is durable, in this very call if it already is. Kicks as well.
    pub fn notify_at(&self, lsn: Lsn, waiter: Arc<dyn Durable>) {
        if self.core.waiters.add(lsn, waiter) {
            self.core.kick();
        }
    }

    /// Bytes appended and not yet durable.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.core.pending.bytes()
    }

    /// Reads live messages of a queue in order, from `from` on, until one of the two limits is reached (but at least one).
    /// `done` is called on a reader thread, after everything appended before this call is durable, as far as the queue's
    /// messages from `from` on are concerned. If the store stops before
    /// that, or has stopped, it is dropped without a call: an empty batch would say that there are no messages.
    pub fn read(
        &self,
        queue: QueueId,
        from: Seq,
        max_messages: usize,
        max_bytes: usize,
        done: Box<dyn FnOnce(ReadBatch) + Send>,
    ) {
        let request = Read { queue, from, max_messages: max_messages.max(1), max_bytes, done };
        self.postpone(Request::Read(request));
    }

    /// As [`Store::read`], but tells only which messages there are: nothing is read from the disk.
    pub fn list(&self, queue: QueueId, from: Seq, max_messages: usize, done: Box<dyn FnOnce(Listed) + Send>) {
        self.postpone(Request::List(List { queue, from, max_messages: max_messages.max(1), done }));
    }

    fn postpone(&self, request: Request) {
        if self.core.landed.add(self.core.pending.last(), Postponed::new(&self.core, request)) {
            self.core.kick();
        }
    }

    /// The earliest wall time, in milliseconds since the Unix epoch, at which a stored message may expire, as far as is known:
    /// it may turn out that the message is gone, never that there was an earlier one. `None` when no message has a deadline.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.core.index.lock().next_deadline()
    }

    /// Calls `handler` whenever [`Store::next_deadline`] has moved to an earlier time than anybody was told, also by
    /// [`Due::next`]. It is called from a store thread and must be quick. Ask for the next deadline once after this: only what
    /// comes later is told.
    pub fn on_deadline(&self, handler: Box<dyn Fn(u64) + Send + Sync>) {
        *self.core.deadline_handler.lock() = Some(Arc::from(handler));
    }

    /// Names the live messages whose deadline is at or before `now_ms`, some thousands at a time. Each is named at most once
    /// per opening of the store. `done` is called on a store thread; it is dropped without a call when the store stops.
    pub fn due(&self, now_ms: u64, done: Box<dyn FnOnce(Due) + Send>) {
        self.core.requests.push(Request::Due(now_ms, done));
    }

    /// Room on disk for messages that need not survive.
    #[must_use]
    pub fn spill(&self) -> &Spill {
        &self.spill
    }

    /// Calls `handler` when an error ends the store, at once if one has: nothing more becomes durable from then on.
    pub fn on_failure(&self, handler: Box<dyn Fn(&str) + Send + Sync>) {
        self.core.failure.add(handler);
    }

    /// The disk is full or nearly so: what is appended is still taken, but publishers should be held. Settlements, deletes
    /// and purges go on.
    #[must_use]
    pub fn is_disk_low(&self) -> bool {
        self.core.space.disk.is_low()
    }

    /// Calls `handler` whenever [`Store::is_disk_low`] changes, at once if the disk is low now. The calls come from threads
    /// of the store, which wait for it: it must be quick.
    pub fn on_disk(&self, handler: Box<dyn Fn(bool) + Send + Sync>) {
        self.core.space.disk.add(handler.into());
    }

    /// Free bytes of the file system as last looked at, and the limit.
    #[must_use]
    pub fn disk_free(&self) -> (u64, u64) {
        self.core.space.disk.figures()
    }

    /// Sets another limit, in bytes.
    pub fn set_disk_free_limit(&self, bytes: u64) {
        self.core.space.disk.set_limit(bytes);
        self.core.post(Job::Review);
    }

    /// Commits everything, notes which messages were delivered before, checkpoints, and leaves the mark of a clean stop.
    /// `redelivered` adds to what the store already knows to be redelivered.
    ///
    /// # Errors
    ///
    /// When the store has failed, or fails now; the next start is then one after a crash.
    pub fn close(&self, redelivered: Vec<(QueueId, Vec<SeqRange>)>) -> Result<(), CloseError> {
        if self.core.closing.swap(true, Ordering::AcqRel) {
            return Err(CloseError::Closed);
        }
        // It must not append behind the mark of a clean stop.
        self.core.compaction.stop();
        self.core.space.disk.wake();
        for (queue, ranges) in redelivered {
            self.requeue(queue, &ranges, 0);
        }
        if self.core.wait_durable(self.core.pending.last()) {
            self.core.schedule.close();
            join(self.keeper.lock().take());
        }
        self.shut_down();
        let mark = self.core.clean_mark.load(Ordering::Acquire);
        if mark != 0 {
            self.end_log(mark);
        }
        self.lock.lock().take();
        match self.core.failure.reason() {
            _ if mark != 0 => Ok(()),
            Some(reason) => Err(CloseError::Failed(reason)),
            None => Err(CloseError::Closed),
        }
    }

    /// Cuts the log behind the mark of a clean stop. Others may have gone on appending while the store was closed, and have
    /// been told that it is durable: then the mark is not the end, and the next start is one after a crash.
    fn end_log(&self, mark: u64) {
        let (applied, end) = {
            let index = self.core.index.lock();
            (index.applied, index.resume)
        };
        if applied == mark && self.core.synced.load(Ordering::Acquire) == mark {
            recover::end_segment(&*self.core.options.fs, &self.core.log_dir, end);
        }
    }

    /// Figures since the store was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (segments, free_segments, reserve_segments) = self.core.space.counts();
        let (index_bytes, cold_chunks, live_messages, live_bytes, large_files) = {
            let index = self.core.index.lock();
            let (messages, bytes) = index.usage.live();
            (index.cache.resident, index.cache.cold, messages, bytes, index.usage.large.len())
        };
        Stats {
            recycled_segments: self.core.space.recycled(),
            live_messages,
            live_bytes,
            large_files,
            segments,
            free_segments,
            reserve_segments,
            pending_bytes: self.pending_bytes(),
            index_bytes,
            cold_chunks,
            ..self.core.stats.read()
        }
    }

    fn append(&self, entry: Entry) -> Lsn {
        let bytes = entry.pending_bytes();
        self.core.pending.append(entry, bytes)
    }

    /// Ends the threads.
    fn shut_down(&self) {
        self.core.stop();
        self.spill.close();
        join(self.keeper.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            join(Some(thread));
        }
        for thread in self.core.large_writer.take_threads() {
            join(Some(thread));
        }
        self.core.shelf.close();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shut_down();
        self.lock.lock().take();
    }
}

/// Waits for a thread of ours, unless this is it: the last owner may let go of the store in a callback.
fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread
        && thread.thread().id() != thread::current().id()
    {
        // A panic in it was turned into a failure already.
        let _ = thread.join();
    }
}

fn enqueue_entry(queue: QueueId, seq: Seq, meta: &Meta, payload: Arc<dyn Payload>, tx: bool) -> Entry {
    // Zero stands for "none" in memory; a deadline at the epoch itself has long passed one millisecond later too.
    let deadline = meta.deadline_ms.map_or(0, |deadline| deadline.max(1));
    Entry::Enqueue { queue, seq, deadline, payload, delivery_count: meta.delivery_count, priority: meta.priority, tx }
}

/// Starts a thread whose error or panic ends the store.
fn spawn(
    core: &Arc<Core>,
    name: &'static str,
    run: impl FnOnce(&Arc<Core>) -> Result<(), String> + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let shared = Arc::clone(core);
    let body = move || {
        let core = shared;
        match catch_unwind(AssertUnwindSafe(|| run(&core))) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => core.fail(&reason),
            Err(_) => core.fail(&format!("the thread {name} panicked")),
        }
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|source| {
        core.stop();
        OpenError::Io { action: "start a thread for", path: core.options.data_dir.clone(), source }
    })
}
