//! Waiting for the disk, for a thread that has nothing else to do.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use storage::{Durable, Lsn, Store};

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Durable for Gate {
    fn durable(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

/// Blocks until everything up to `lsn` is on disk.
pub(super) fn wait(store: &Store, lsn: Lsn) {
    if lsn == Lsn(0) {
        return;
    }
    let gate = Arc::new(Gate::default());
    store.notify_at(lsn, Arc::clone(&gate) as _);
    let mut open = gate.open.lock();
    while !*open {
        gate.opened.wait(&mut open);
    }
}
