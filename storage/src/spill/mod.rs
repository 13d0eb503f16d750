//! Messages that memory has no room for and that need not survive: transient ones, and those of queues that are not durable.
//!
//! Each queue has files of its own, written at their end in large pieces, read from their front, and never synced. A file is
//! removed when its last message has been taken; what is there at start is left over and goes. Until it is written a message
//! stays in memory, and it stays there too when the disk has no room: nothing is lost that way, and the alarm for the disk
//! keeps more from coming. While the disk is only slower than what comes, the spill says that it is full.
//!
//! # Layout
//!
//! - `mod`: the interface, and what is known of every queue.
//! - `worker`: the thread that reads and writes.
//! - `record`: one message as bytes.

mod record;
mod worker;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::fs::Fs;
use crate::types::{Meta, Payload, QueueId, ReadMessage, Seq};

/// Sizes of a spill, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SpillOptions {
    /// A file that has reached this gets no more; its space comes back when its last message is taken.
    pub file_bytes: u64,
    /// Messages of one queue that wait in memory are written when they have this size together …
    pub write_bytes: usize,
    /// … or a sixteenth of it, when those of all queues have this.
    pub waiting_bytes: usize,
    /// When so much waits for its turn on the disk the spill is full, until half of it is left.
    pub full_bytes: usize,
}

impl SpillOptions {
    /// What a queue has to have to be written, when all have `waiting_bytes`.
    fn enough(&self, waiting_bytes: usize) -> usize {
        if waiting_bytes >= self.waiting_bytes { self.write_bytes / 16 } else { self.write_bytes }
    }
}

impl Default for SpillOptions {
    fn default() -> Self {
        Self { file_bytes: 16 << 20, write_bytes: 256 << 10, waiting_bytes: 8 << 20, full_bytes: 32 << 20 }
    }
}

/// Messages that came back, which the spill has forgotten by now.
#[derive(Debug, Default)]
pub struct SpillBatch {
    /// In the order in which they went in.
    pub messages: Vec<ReadMessage>,
    /// No message of the queue that is still there has a lower number; `None` when none is there.
    pub next: Option<Seq>,
    /// Messages that could not be read and are gone.
    pub lost: u64,
}

/// Figures of a spill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillStats {
    /// Files that there are.
    pub files: usize,
    /// Bytes in them, those of messages taken already included.
    pub file_bytes: u64,
    /// Bytes of messages that are not written yet.
    pub waiting_bytes: usize,
}

/// See the module's documentation.
pub struct Spill {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Done = Box<dyn FnOnce(SpillBatch) + Send>;
type Told = Box<dyn FnOnce() + Send>;

struct Shared {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    options: SpillOptions,
    state: Mutex<State>,
    changed: Condvar,
    /// Changes under the lock.
    full: AtomicBool,
}

#[derive(Default)]
struct State {
    lanes: HashMap<QueueId, Lane>,
    jobs: VecDeque<Job>,
    /// Lanes whose write has failed, or must wait.
    held: Vec<QueueId>,
    waiting_bytes: usize,
    messages: u64,
    /// The thread is at work on a write.
    writing: bool,
    /// Who is told when there is room.
    told: Vec<Told>,
    paused: bool,
    stopped: bool,
    next_lane: u64,
    next_file: u64,
}

/// The messages of one queue: those in files, then those that wait.
struct Lane {
    /// Tells it from an earlier one of the same queue.
    number: u64,
    files: VecDeque<SpillFile>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// There is a job to write it, or it is held.
    queued: bool,
}

/// A file and what is left in it.
#[derive(Clone)]
struct SpillFile {
    name: String,
    /// Bytes written.
    len: u64,
    /// Bytes taken.
    taken: u64,
    /// Messages left.
    messages: u64,
    /// Number of the first message left, or below it.
    next: Seq,
}

#[derive(Clone)]
struct Waiting {
    head: record::Head,
    payload: Arc<dyn Payload>,
}

enum Job {
    Write(QueueId),
    Take { queue: QueueId, lane: u64, max_messages: usize, max_bytes: usize, done: Done },
    Remove(Vec<SpillFile>),
}

impl Spill {
    /// A spill in a directory of its own, which is made when it is needed. What is in it is removed.
    ///
    /// # Errors
    ///
    /// When its thread cannot be started.
    pub fn open(fs: Arc<dyn Fs>, dir: PathBuf, options: SpillOptions) -> std::io::Result<Self> {
        let left = if fs.exists(&dir) { fs.list(&dir) } else { Ok(Vec::new()) };
        let removed = left.and_then(|left| left.iter().try_for_each(|file| fs.remove_file(&dir.join(&file.name))));
        if let Err(error) = removed {
            tracing::warn!(path = %dir.display(), %error, "cannot remove what transient messages have left behind");
        }
        let shared = Arc::new(Shared {
            fs,
            dir,
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            full: AtomicBool::new(false),
        });
        let working = Arc::clone(&shared);
        let thread = thread::Builder::new().name("warren-spill".to_owned()).spawn(move || worker::run(&working))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes over a message. Its number is above those of all messages of the queue that were given before.
    pub fn push(&self, queue: QueueId, seq: Seq, meta: Meta, redelivered: bool, payload: Arc<dyn Payload>) {
        let bytes = record::len(&*payload);
        let mut guard = self.shared.state.lock();
        let state = &mut *guard;
        if state.stopped {
            return;
        }
        let lane = state.lanes.entry(queue).or_insert_with(|| {
            state.next_lane += 1;
            Lane::new(state.next_lane)
        });
        lane.waiting.push_back(Waiting { head: record::Head { seq, meta, redelivered }, payload });
        lane.waiting_bytes += bytes;
        state.waiting_bytes += bytes;
        state.messages += 1;
        let options = &self.shared.options;
        let ready = lane.waiting_bytes >= options.enough(state.waiting_bytes) && !lane.queued;
        if ready {
            lane.queued = true;
            state.jobs.push_back(Job::Write(queue));
        }
        // What is held, or too little to be written, does not get less by waiting.
        if state.waiting_bytes >= options.full_bytes && state.writes() {
            self.shared.full.store(true, Ordering::Release);
        }
        if ready {
            self.wake(guard);
        }
    }

    /// Whether so much waits to be written that whoever publishes should wait as well.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Acquire)
    }

    /// Calls `told` once when the spill is not full, at once when it is not now. It must be quick and must never block; it is
    /// dropped when the spill is closed first.
    pub fn when_it_has_room(&self, told: Box<dyn FnOnce() + Send>) {
        let mut state = self.shared.state.lock();
        if self.is_full() {
            state.told.push(told);
            return;
        }
        drop(state);
        told();
    }

    /// Takes messages out, in order, until one of the two limits is reached (but at least one). `done` is called on the
    /// spill's thread; it is dropped without a call when the spill is closed first. One call at a time for a queue.
    pub fn take(
        &self,
        queue: QueueId,
        max_messages: usize,
        max_bytes: usize,
        done: Box<dyn FnOnce(SpillBatch) + Send>,
    ) {
        let mut state = self.shared.state.lock();
        if !state.stopped {
            // What is pushed after a [`Spill::forget`] is not for a take from before.
            let lane = state.lanes.get(&queue).map_or(0, |lane| lane.number);
            state.jobs.push_back(Job::Take { queue, lane, max_messages: max_messages.max(1), max_bytes, done });
            self.wake(state);
        }
    }

    /// Drops every message of the queue. What a [`Spill::take`] is just reading may still come.
    pub fn forget(&self, queue: QueueId) {
        let mut state = self.shared.state.lock();
        let Some(lane) = state.lanes.remove(&queue) else { return };
        state.waiting_bytes -= lane.waiting_bytes;
        state.held.retain(|held| *held != queue);
        let told = self.shared.room(&mut state);
        if lane.files.is_empty() {
            drop(state);
        } else {
            state.jobs.push_back(Job::Remove(lane.files.into()));
            self.wake(state);
        }
        tell(told);
    }

    /// While it is paused nothing is written: the last free bytes of the disk are for others.
    pub fn pause(&self, paused: bool) {
        let mut state = self.shared.state.lock();
        state.paused = paused;
        self.wake(state);
    }

    /// Bytes of messages that are not written yet.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.shared.state.lock().waiting_bytes
    }

    /// Messages that were ever taken over.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.shared.state.lock().messages
    }

    /// Figures of now.
    #[must_use]
    pub fn stats(&self) -> SpillStats {
        let state = self.shared.state.lock();
        let files = state.lanes.values().flat_map(|lane| &lane.files);
        let (files, file_bytes) = files.fold((0, 0), |(files, bytes), file| (files + 1, bytes + file.len));
        SpillStats { files, file_bytes, waiting_bytes: state.waiting_bytes }
    }

    /// Ends its thread and removes its files.
    pub fn close(&self) {
        let forgotten = {
            let mut state = self.shared.state.lock();
            state.stopped = true;
            self.shared.full.store(false, Ordering::Release);
            (std::mem::take(&mut state.jobs), std::mem::take(&mut state.told))
        };
        drop(forgotten);
        self.shared.changed.notify_all();
        // The last owner may let go in a callback of that very thread.
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Who is to be told, without the lock, that there is room again.
    fn room(&self, state: &mut State) -> Vec<Told> {
        if !self.full.load(Ordering::Relaxed) || (state.waiting_bytes > self.options.full_bytes / 2 && state.writes()) {
            return Vec::new();
        }
        self.full.store(false, Ordering::Release);
        std::mem::take(&mut state.told)
    }
}

impl State {
    /// Whether anything is on its way to disk.
    fn writes(&self) -> bool {
        self.writing || self.jobs.iter().any(|job| matches!(job, Job::Write(_)))
    }
}

fn tell(told: Vec<Told>) {
    for told in told {
        told();
    }
}

impl Lane {
    fn new(number: u64) -> Self {
        Self { number, files: VecDeque::new(), waiting: VecDeque::new(), waiting_bytes: 0, queued: false }
    }

    /// The lowest number that a message left can have.
    fn next(&self) -> Option<Seq> {
        match self.files.front() {
            Some(file) => Some(file.next),
            None => self.waiting.front().map(|waiting| waiting.head.seq),
        }
    }
}
