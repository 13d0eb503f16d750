//! When the housekeeping thread has something to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// When the next checkpoint is due.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<Pending>,
    changed: Condvar,
    said: AtomicBool,
    marking: AtomicBool,
}

#[derive(Default)]
struct Pending {
    dirty: bool,
    /// A segment is full: the interval is over.
    urgent: bool,
    closing: bool,
    /// Something that a reader could not read from sled.
    unreadable: Option<Unreadable>,
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

    /// Makes the thread look whether the store stops.
    pub(crate) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Notes whether a checkpoint is in sled and waits for its mark in the log.
    pub(crate) fn set_marking(&self, marking: bool) {
        self.marking.store(marking, Ordering::Release);
    }

    /// See [`Schedule::set_marking`].
    pub(crate) fn waits_for_mark(&self) -> bool {
        self.marking.load(Ordering::Acquire)
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
