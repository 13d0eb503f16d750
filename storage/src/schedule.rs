//! When the housekeeping thread has something to do.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::index::Position;
use crate::types::Lsn;

/// When the next checkpoint is due.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<Pending>,
    changed: Condvar,
    said: AtomicBool,
    swollen: AtomicBool,
    /// LSN of the mark that is waited for, or 0.
    mark: AtomicU64,
}

#[derive(Default)]
struct Pending {
    dirty: bool,
    /// A segment is full, or the index takes too much memory: the interval is over.
    urgent: bool,
    closing: bool,
    /// Something that a reader could not read from sled.
    unreadable: Option<Unreadable>,
    /// Who waits for a snapshot of their own.
    copies: Vec<SnapshotCopy>,
    stopped: bool,
}

/// A snapshot for a backup: where to, and who is told the position its log begins at and its bytes.
pub(crate) struct SnapshotCopy {
    pub(crate) dir: PathBuf,
    pub(crate) done: SyncSender<io::Result<(Position, u64)>>,
}

/// Columns that a reader could not read from sled.
pub(crate) struct Unreadable {
    pub(crate) queue: u64,
    pub(crate) number: u64,
    pub(crate) reason: String,
}

/// What the housekeeping thread has to do.
pub(crate) enum Wake {
    Checkpoint,
    /// The checkpoint that says that the stop was clean.
    LastCheckpoint,
    /// Nothing has changed for one interval.
    Quiet,
    /// A reader could not read from sled.
    Unreadable(Unreadable),
    /// The store stops.
    Stop,
}

impl Schedule {
    /// Says that sled lacks something; costs one swap when it was said before.
    pub(crate) fn dirty(&self) {
        if !self.said.swap(true, Ordering::AcqRel) {
            self.state.lock().dirty = true;
            self.changed.notify_all();
        }
    }

    /// Says that a segment is full. Under heavy load the segments come back to the pool by this, as fast as they are used.
    pub(crate) fn segment_full(&self) {
        self.state.lock().urgent = true;
        self.changed.notify_all();
    }

    /// Says that the index takes more memory than it should: what a checkpoint has written can leave it. Costs one swap until
    /// one has.
    pub(crate) fn swollen(&self) {
        if !self.swollen.swap(true, Ordering::AcqRel) {
            let mut state = self.state.lock();
            state.dirty = true;
            state.urgent = true;
            self.changed.notify_all();
        }
    }

    /// A checkpoint has helped against [`Schedule::swollen`] as far as it can.
    pub(crate) fn relieved(&self) {
        self.swollen.store(false, Ordering::Release);
    }

    /// Asks for the last checkpoint, the one that says that the stop was clean.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_all();
    }

    /// Says that sled could not be read.
    pub(crate) fn unreadable(&self, what: Unreadable) {
        self.state.lock().unreadable = Some(what);
        self.changed.notify_all();
    }

    /// Asks for a checkpoint now, and then for a snapshot in `dir`. `done` is dropped when the store stops before that.
    pub(crate) fn snapshot_to(&self, dir: PathBuf, done: SyncSender<io::Result<(Position, u64)>>) {
        let mut state = self.state.lock();
        if !state.stopped {
            state.copies.push(SnapshotCopy { dir, done });
            state.dirty = true;
            state.urgent = true;
            self.changed.notify_all();
        }
    }

    /// The snapshots that are waited for.
    pub(crate) fn take_copies(&self) -> Vec<SnapshotCopy> {
        std::mem::take(&mut self.state.lock().copies)
    }

    /// Makes the thread see that the store stops, and lets those go who wait for it.
    pub(crate) fn wake(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.copies.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that a checkpoint is in sled and waits for its mark in the log, or that it does no longer.
    pub(crate) fn set_mark(&self, mark: Option<Lsn>) {
        self.mark.store(mark.map_or(0, |lsn| lsn.0), Ordering::Release);
    }

    /// Whether a checkpoint waits for a mark that is `next` or comes after it.
    pub(crate) fn waits_for_mark(&self, next: u64) -> bool {
        let mark = self.mark.load(Ordering::Acquire);
        mark > 0 && next <= mark
    }

    /// Waits for something to do. With `quiet` one interval without a change is something.
    pub(crate) fn wait(&self, interval: Duration, quiet: bool, stopping: impl Fn() -> bool) -> Wake {
        let mut state = self.state.lock();
        let until = Instant::now() + interval;
        while !state.dirty && !state.closing && state.unreadable.is_none() && !stopping() {
            if !quiet {
                self.changed.wait(&mut state);
            } else if self.changed.wait_until(&mut state, until).timed_out() {
                return Wake::Quiet;
            }
        }
        // The interval runs from the first change: what is idle does nothing, what is busy does it at this rate.
        let until = Instant::now() + interval;
        while !state.closing && !state.urgent && state.unreadable.is_none() && !stopping() {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if stopping() {
            return Wake::Stop;
        }
        if let Some(what) = state.unreadable.take() {
            return Wake::Unreadable(what);
        }
        state.dirty = false;
        state.urgent = false;
        self.said.store(false, Ordering::Release);
        if state.closing { Wake::LastCheckpoint } else { Wake::Checkpoint }
    }
}
