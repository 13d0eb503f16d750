//! Waiting for the disk, for a thread that has nothing else to do.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use storage::{Durable, Lsn, Store};

/// Opens when the position is durable, or with the reason why it never will be.
#[derive(Default)]
struct Gate {
    outcome: Mutex<Option<Result<(), String>>>,
    opened: Condvar,
}

impl Gate {
    fn open(&self, outcome: Result<(), String>) {
        self.outcome.lock().get_or_insert(outcome);
        self.opened.notify_all();
    }
}

impl Durable for Gate {
    fn durable(&self) {
        self.open(Ok(()));
    }
}

/// Blocks until everything up to `lsn` is on disk.
///
/// # Errors
///
/// What the store failed of.
pub(super) fn wait(store: &Store, lsn: Lsn) -> anyhow::Result<()> {
    if lsn == Lsn(0) {
        return Ok(());
    }
    let gate = Arc::new(Gate::default());
    store.notify_at(lsn, Arc::clone(&gate) as _);
    let failed = Arc::clone(&gate);
    store.on_failure(Box::new(move |reason| failed.open(Err(reason.to_owned()))));
    let mut outcome = gate.outcome.lock();
    loop {
        match &*outcome {
            None => gate.opened.wait(&mut outcome),
            Some(Ok(())) => return Ok(()),
            Some(Err(reason)) => anyhow::bail!("the store has failed: {reason}"),
        }
    }
}
