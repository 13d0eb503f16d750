//! Where a message goes beside queues: straight to those who asked a question, and to exchanges that keep it back for a while.

use std::sync::Arc;

use smallvec::SmallVec;
use storage::{Lsn, TxOp};

use super::direct_reply::Replies;
use crate::model::delay;
use crate::model::message::Message;
use crate::queue::signal::WakeList;
use crate::vhost::{Delay, History};

/// See the module's documentation. Most messages go to queues only.
#[derive(Default)]
pub(super) struct Beside {
    /// Direct replies.
    pub replies: Replies,
    /// Exchanges that keep it for others who come later.
    pub histories: SmallVec<[Arc<History>; 1]>,
    /// What is kept back.
    pub delayed: Option<Delayed>,
}

/// A message that is kept back, with its due time as its deadline, and by whom.
pub(super) struct Delayed {
    message: Arc<Message>,
    delays: SmallVec<[Arc<Delay>; 1]>,
    delay_ms: u64,
}

impl Delayed {
    /// Keeps back a message (address, properties, body, whether it is persistent) for as long as its headers say.
    pub(super) fn new(
        (address, properties, body, persistent): (&[u8], &[u8], &[u8], bool),
        headers: Option<&[u8]>,
        delays: SmallVec<[Arc<Delay>; 1]>,
        now_ms: u64,
    ) -> Option<Self> {
        let headers = headers?;
        let delay_ms = delay::wanted_ms(headers)?;
        let properties = delay::mark_delayed(properties, headers);
        let mut message = Message::new(address, &properties, body.into(), persistent);
        message.expire_at(now_ms.saturating_add(delay_ms));
        Some(Self { message: Arc::new(message), delays, delay_ms })
    }
}

impl Beside {
    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.histories.is_empty() && self.delayed.is_none()
    }

    /// Octets that a transaction keeps for it.
    pub(super) fn bytes(&self) -> usize {
        self.delayed.as_ref().map_or(0, |delayed| delayed.message.resident_bytes())
    }

    /// Hands the message over; returns where that is durable.
    pub(super) fn hand_over(&self, message: &Arc<Message>, wakes: &mut WakeList) -> Lsn {
        for consumer in &self.replies {
            consumer.deliver(message, wakes);
        }
        let delayed = self.delayed.iter();
        let lsns =
            delayed.flat_map(|delayed| delayed.delays.iter().map(|delay| delay.add(Arc::clone(&delayed.message))));
        lsns.chain(self.histories.iter().map(|history| history.add(message))).max().unwrap_or_default()
    }

    /// The transaction that it belongs to is being committed: time runs from now on. What is left afterwards is to be handed
    /// over when the transaction is durable.
    pub(super) fn commit(&mut self, message: &Arc<Message>, now_ms: u64, ops: &mut Vec<TxOp>) {
        ops.extend(self.histories.drain(..).filter_map(|history| history.part_of_transaction(message)));
        let Some(delayed) = &mut self.delayed else { return };
        // Nobody else has it yet.
        if let Some(message) = Arc::get_mut(&mut delayed.message) {
            message.expire_at(now_ms.saturating_add(delayed.delay_ms));
        }
        let message = &delayed.message;
        delayed.delays.retain(|delay| match delay.part_of_transaction(message) {
            Some(op) => {
                ops.push(op);
                false
            }
            None => true,
        });
    }
}
