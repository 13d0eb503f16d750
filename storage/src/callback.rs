//! Calling the store's user from a thread of the store.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a callback. A panic in it is a fault of one user's, who has been told of it by the unwinding; the thread serves all of
/// them, so it goes on.
pub(crate) fn run(callback: impl FnOnce()) {
    // The panic hook has written where it was.
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("whoever was waiting for messages of the store has panicked");
    }
}
