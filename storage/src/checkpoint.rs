//! Placeholder while the log path is brought up.

use parking_lot::{Condvar, Mutex};

/// When the next checkpoint is due.
#[derive(Default)]
pub(crate) struct Schedule {
    state: Mutex<bool>,
    changed: Condvar,
}

impl Schedule {
    pub(crate) fn dirty(&self) {
        *self.state.lock() = true;
    }
    pub(crate) fn wake(&self) {
        self.changed.notify_all();
    }
}
