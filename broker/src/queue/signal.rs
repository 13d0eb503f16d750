//! How other threads get a connection's task to run: one waker, and flags that say what to look at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

/// Something was put into the outbox.
pub const OUTBOX: u8 = 1;
/// A log position that the connection waits for is durable.
pub const DURABLE: u8 = 2;
/// The broker is stopping, or an operator closes the connection.
pub const CLOSE: u8 = 4;
/// The last alarm of the node has gone off.
pub const ALARM: u8 = 8;
/// The spill has room again.
pub const ROOM: u8 = 16;
/// Somebody wants this one connection closed; the broker knows why.
pub const FORCED: u8 = 64;

/// Wakes one connection's task.
#[derive(Default)]
pub struct Signal {
    flags: AtomicU8,
    waker: AtomicWaker,
}

impl Signal {
    /// Sets `flag` and wakes the task if the flag was not already set.
    pub fn raise(&self, flag: u8) {
        if self.flags.fetch_or(flag, Ordering::AcqRel) & flag == 0 {
            self.waker.wake();
        }
    }

    /// Takes every flag raised since the last call.
    pub fn take(&self) -> u8 {
        if self.flags.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.flags.swap(0, Ordering::AcqRel)
    }

    /// Registers the task to wake; the caller looks at [`Signal::is_raised`] afterwards, so that nothing is missed.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Whether any flag is set.
    pub fn is_raised(&self) -> bool {
        self.flags.load(Ordering::Acquire) != 0
    }
}

impl storage::Durable for Signal {
    fn durable(&self) {
        self.raise(DURABLE);
    }
}

/// Connections to wake once a batch has been handled: one wake-up per batch and connection, not per message.
#[derive(Default)]
pub struct WakeList(Vec<Arc<Signal>>);

impl WakeList {
    /// Remembers a connection whose outbox became non-empty.
    pub fn push(&mut self, signal: &Arc<Signal>) {
        self.0.push(Arc::clone(signal));
    }

    /// Wakes them all.
    pub fn wake(&mut self) {
        for signal in self.0.drain(..) {
            signal.raise(OUTBOX);
        }
    }
}

/// A batch that ends early, also by a panic, still wakes those it gave work to.
impl Drop for WakeList {
    fn drop(&mut self) {
        self.wake();
    }
}
