//! Messages that were appended and are not in the log yet, because their large payloads are still being written.

use std::collections::BTreeMap;

use crate::types::{Lsn, QueueId, Seq};

/// Which messages wait, each with the position at which it is durable.
#[derive(Debug, Default)]
pub(crate) struct HeldMessages(BTreeMap<(QueueId, Seq), u64>);

impl HeldMessages {
    pub(crate) fn add(&mut self, queue: QueueId, seq: Seq, lsn: u64) {
        self.0.insert((queue, seq), lsn);
    }

    pub(crate) fn remove(&mut self, queue: QueueId, seq: Seq) {
        if !self.0.is_empty() {
            self.0.remove(&(queue, seq));
        }
    }

    /// The first message of a queue that waits, from `from` on: no reader may go past it, or it would miss it.
    pub(crate) fn first(&self, queue: QueueId, from: Seq) -> Option<(Seq, Lsn)> {
        self.0.range((queue, from)..=(queue, Seq::MAX)).next().map(|(&(_, seq), &lsn)| (seq, Lsn(lsn)))
    }
}
