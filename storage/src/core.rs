//! What the threads of one store share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::backup::Hold;
use crate::commit::encoder::ENOUGH;
use crate::commit::failure::Failure;
use crate::commit::large_writer::LargeWriter;
use crate::commit::pending::Pending;
use crate::commit::sleeper::{Sleep, Sleeper};
use crate::commit::waiters::Waiters;
use crate::compact::Compaction;
use crate::index::Index;
use crate::log::key::Key;
use crate::options::Options;
use crate::reader::Requests;
use crate::recover::Dirs;
use crate::schedule::Schedule;
use crate::shelf::Shelf;
use crate::slow::Slow;
use crate::space::Space;
use crate::stats::Cells;
use crate::types::{Durable, Lsn};

/// Chunks looked at for eviction under one hold of the index lock.
const EVICT: usize = 16;

/// Told of the next deadline.
type DeadlineHandler = Arc<dyn Fn(u64) + Send + Sync>;

/// The shared state of a store.
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) large_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
    pub(crate) key: Key,
    /// Which opening of the store this is; greater than all before.
    pub(crate) epoch: u64,
    pub(crate) pending: Pending,
    /// Who waits until everything up to a position is durable.
    pub(crate) waiters: Waiters,
    /// Who waits until everything up to a position is durable or waits for a file of its own.
    pub(crate) landed: Waiters,
    pub(crate) large_writer: LargeWriter,
    pub(crate) encoder: Sleeper,
    /// A group is with the sync thread and not synced yet.
    pub(crate) sync_busy: AtomicBool,
    /// LSN up to which the log is synced.
    pub(crate) synced: AtomicU64,
    pub(crate) index: Mutex<Index>,
    /// Where columns are that are not in the index.
    pub(crate) shelf: Shelf,
    pub(crate) space: Space,
    pub(crate) failure: Failure,
    pub(crate) schedule: Schedule,
    pub(crate) compaction: Compaction,
    pub(crate) bell: Arc<Bell>,
    /// The way to the space thread, until the store stops.
    pub(crate) jobs: Mutex<Option<Sender<Job>>>,
    pub(crate) preparing: AtomicBool,
    /// A backup is being made.
    pub(crate) backing_up: AtomicBool,
    /// What it keeps from being removed; taken under `jobs`, and a leaf.
    pub(crate) hold: Mutex<Hold>,
    pub(crate) requests: Requests,
    /// Who wants to know of an earlier deadline.
    pub(crate) deadline_handler: Mutex<Option<DeadlineHandler>>,
    pub(crate) stats: Cells,
    pub(crate) slow: SlowWork,
    pub(crate) ids: Ids,
    pub(crate) stopping: AtomicBool,
    pub(crate) closing: AtomicBool,
    /// LSN of the mark of a clean stop, once that is durable.
    pub(crate) clean_mark: AtomicU64,
}

/// What is worth a warning when it takes long.
pub(crate) struct SlowWork {
    pub(crate) sync: Slow,
    pub(crate) commit: Slow,
    pub(crate) checkpoint: Slow,
}

/// What recovery hands to the shared state.
pub(crate) struct Start {
    pub(crate) dirs: Dirs,
    pub(crate) key: Key,
    pub(crate) epoch: u64,
    pub(crate) index: Index,
    pub(crate) space: Space,
    pub(crate) next_lsn: u64,
}

/// Counters of ids that are never given out twice: the epoch is in their upper half.
#[derive(Default)]
pub(crate) struct Ids {
    queue: AtomicU64,
    large: AtomicU64,
}

impl Core {
    /// The state of a store that has just been recovered.
    pub(crate) fn new(options: Options, from: Start, jobs: Sender<Job>) -> Self {
        let Start { dirs, key, epoch, index, space, next_lsn } = from;
        let slow = SlowWork {
            sync: Slow::new("fdatasync", options.slow),
            commit: Slow::new("commit", options.slow),
            checkpoint: Slow::new("checkpoint", options.slow),
        };
        Self {
            large_dir: dirs.large,
            log_dir: dirs.log,
            options,
            key,
            epoch,
            pending: Pending::new(next_lsn),
            waiters: Waiters::new(next_lsn - 1),
            landed: Waiters::new(next_lsn - 1),
            large_writer: LargeWriter::default(),
            encoder: Sleeper::default(),
            sync_busy: AtomicBool::new(false),
            synced: AtomicU64::new(next_lsn - 1),
            index: Mutex::new(index),
            shelf: Shelf::default(),
            space,
            failure: Failure::default(),
            schedule: Schedule::default(),
            compaction: Compaction::default(),
            bell: Arc::default(),
            jobs: Mutex::new(Some(jobs)),
            preparing: AtomicBool::new(false),
            backing_up: AtomicBool::new(false),
            hold: Mutex::default(),
            requests: Requests::default(),
            deadline_handler: Mutex::default(),
            stats: Cells::default(),
            slow,
            ids: Ids::default(),
            stopping: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            clean_mark: AtomicU64::new(0),
        }
    }

    pub(crate) fn new_queue_id(&self) -> u64 {
        (self.epoch << 32) | (self.ids.queue.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn new_large_id(&self) -> u64 {
        (self.epoch << 32) | (self.ids.large.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// The store has failed, was closed, or is being dropped.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The store is being closed: what would have to wait for room on the disk fails.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Wakes the encoder if it sleeps and there is reason to.
    pub(crate) fn kick(&self) {
        match self.encoder.state() {
            Sleep::Awake | Sleep::Full => {}
            // Whoever has appended sees at least what it has appended. Most kicks come from those who have appended nothing,
            // and would cost two system calls and a turn of the encoder each.
            Sleep::Idle => {
                if self.pending.untaken() > 0 {
                    self.encoder.wake();
                }
            }
            Sleep::Pacing => {
                if self.pending.untaken() >= ENOUGH {
                    self.encoder.wake();
                }
            }
        }
    }

    /// Asks for a free segment file, unless one is being made.
    pub(crate) fn prepare_segment(&self) {
        if !self.preparing.swap(true, Ordering::AcqRel) {
            self.post(Job::Prepare);
        }
    }

    /// Memory that columns may take.
    pub(crate) fn columns_max(&self) -> usize {
        usize::try_from(self.options.index_cache_bytes).unwrap_or(usize::MAX)
    }

    /// When columns take more than they may: lets go of them, as far as sled has them, until there is room for as many again.
    pub(crate) fn evict(&self) {
        let max = self.columns_max();
        if self.index.lock().cache.resident <= max {
            return;
        }
        let budget = max / 2;
        // Twice round at most: the first time only says that nobody needed them since.
        let mut left = 2 * self.index.lock().clock_len();
        while left > 0 && self.index.lock().evict(budget, EVICT) {
            left = left.saturating_sub(EVICT);
        }
    }

    /// Gives work to the space thread; nobody does it once the store stops.
    pub(crate) fn post(&self, job: Job) {
        let jobs = self.jobs.lock();
        // Under the lock of the jobs, so that none that was let through comes behind a backup's fence.
        let Some(job) = self.hold.lock().filter(job) else { return };
        if let Some(jobs) = &*jobs {
            // Fails when the thread is gone, and then so is the store.
            let _ = jobs.send(job);
        }
    }

    /// Ends all threads as soon as they can; what is pending is not written, and who waits for it is let go.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.encoder.wake();
        self.schedule.wake();
        self.compaction.stop();
        self.space.disk.wake();
        self.requests.stop();
        self.jobs.lock().take();
        self.bell.ring();
        self.landed.close();
        self.waiters.close();
    }

    /// The store cannot go on. It has stopped before anybody is told, since a handler may wait for that by closing it.
    pub(crate) fn fail(&self, reason: &str) {
        if let Some(handlers) = self.failure.set(reason) {
            tracing::error!(reason, "the store has stopped: nothing more becomes durable");
            self.stop();
            for handler in handlers {
                handler(reason);
            }
        }
    }

    /// Waits until a position is durable; false when it never will be.
    pub(crate) fn wait_durable(self: &Arc<Self>, lsn: Lsn) -> bool {
        self.wait_for(&self.waiters, lsn, Duration::MAX, || {})
    }

    /// Waits until the log has a position, whatever waits for a file, and does something each time that `every` has gone by.
    pub(crate) fn wait_landed(self: &Arc<Self>, lsn: Lsn, every: Duration, something: impl FnMut()) -> bool {
        self.wait_for(&self.landed, lsn, every, something)
    }

    fn wait_for(self: &Arc<Self>, waiters: &Waiters, lsn: Lsn, every: Duration, mut something: impl FnMut()) -> bool {
        let gate = Arc::new(Gate { open: AtomicBool::new(false), bell: Arc::clone(&self.bell) });
        if waiters.add(lsn, gate.clone()) {
            self.kick();
            let mut held = self.bell.lock.lock();
            while !gate.open.load(Ordering::Acquire) && !self.is_stopping() {
                if self.bell.rung.wait_for(&mut held, every).timed_out() {
                    MutexGuard::unlocked(&mut held, &mut something);
                }
            }
        }
        waiters.durable() >= lsn
    }
}

/// Rung when a gate opens and when the store stops.
#[derive(Default)]
pub(crate) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        // Taking the lock orders this after the look that a sleeper took before it went to sleep.
        drop(self.lock.lock());
        self.rung.notify_all();
    }
}

struct Gate {
    open: AtomicBool,
    bell: Arc<Bell>,
}

impl Durable for Gate {
    fn durable(&self) {
        self.open.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// Work for the space thread.
pub(crate) enum Job {
    /// A free segment file is going to be needed.
    Prepare,
    /// These segments hold nothing any more.
    Retire(Vec<u64>),
    /// Nobody needs these large files any more.
    RemoveLarge(Vec<u64>),
    /// The free space is to be looked at.
    Review,
    /// A backup wants to know that everything before this is done.
    Fence(SyncSender<()>),
}
