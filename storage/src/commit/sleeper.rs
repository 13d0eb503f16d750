//! Putting the encoder to sleep so that waking it costs nothing while it is awake.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// What a sleeping thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Sleep {
    /// It is awake.
    Awake = 0,
    /// Any entry.
    Idle = 1,
    /// A good amount of entries, or the sync thread, or time.
    Pacing = 2,
    /// The sync thread only: its buffer is full.
    Full = 3,
}

/// One thread's bed.
#[derive(Default)]
pub(crate) struct Sleeper {
    state: AtomicU8,
    thread: OnceLock<Thread>,
}

impl Sleeper {
    /// Makes the calling thread the one that sleeps here.
    pub(crate) fn adopt(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Sleeps, unless `ready` says after the state is visible that there is a reason not to. Whoever creates a reason does so
    /// before looking at the state, so one of the two sees the other.
    pub(crate) fn sleep(&self, state: Sleep, limit: Option<Duration>, ready: impl FnOnce() -> bool) {
        self.state.store(state as u8, Ordering::SeqCst);
        if !ready() {
            match limit {
                Some(limit) => std::thread::park_timeout(limit),
                None => std::thread::park(),
            }
        }
        self.state.store(Sleep::Awake as u8, Ordering::SeqCst);
    }

    pub(crate) fn state(&self) -> Sleep {
        match self.state.load(Ordering::SeqCst) {
            1 => Sleep::Idle,
            2 => Sleep::Pacing,
            3 => Sleep::Full,
            _ => Sleep::Awake,
        }
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn wake(&self) {
        if self.state.swap(Sleep::Awake as u8, Ordering::SeqCst) != Sleep::Awake as u8
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}
