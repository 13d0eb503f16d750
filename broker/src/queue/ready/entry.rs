//! One message of a queue.

use std::sync::Arc;

use storage::Seq;

use crate::model::message::Message;
use crate::queue::tally::Tally;

/// A message at its position in a queue.
pub struct Entry {
    /// Position: assigned at enqueue, kept over requeues.
    pub seq: Seq,
    /// The message.
    pub message: Arc<Message>,
    /// Delivered before.
    pub redelivered: bool,
    /// How often, in a queue that counts.
    pub tally: Tally,
}

impl Entry {
    /// A message that nobody has seen.
    pub fn new(seq: Seq, message: Arc<Message>) -> Self {
        Self { seq, message, redelivered: false, tally: Tally::default() }
    }

    /// A message that the store gives back. In a queue that counts, the count says whether it was delivered before.
    pub(super) fn read(seq: Seq, message: Message, (redelivered, count): (bool, u32), counts: bool) -> Self {
        let tally = Tally::recovered(count);
        let redelivered = if counts { !tally.is_none() } else { redelivered };
        Self { seq, message: Arc::new(message), redelivered, tally }
    }
}
