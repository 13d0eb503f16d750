//! Where a message goes beside queues: straight to those who asked a question, and to exchanges that keep it back for a while.

use std::sync::Arc;

use protocol::Properties;
use smallvec::SmallVec;
use storage::{Lsn, TxOp};

use super::delay::Delay;
use super::history::History;
use super::route::Targets;
use crate::model::delay;
use crate::model::message::Message;
use crate::queue::direct_reply::ReplyConsumer;
use crate::queue::signal::WakeList;

/// Consumers that a message goes straight to.
pub type Replies = SmallVec<[Arc<ReplyConsumer>; 1]>;

/// See the module's documentation. Most messages go to queues only.
#[derive(Default)]
pub struct Beside {
    /// Direct replies.
    pub replies: Replies,
    /// Exchanges that keep it for others who come later.
    pub histories: SmallVec<[Arc<History>; 1]>,
    /// What is kept back.
    pub delayed: Option<Delayed>,
}

/// A message that is kept back, with its due time as its deadline, and by whom.
pub struct Delayed {
    message: Arc<Message>,
    delays: SmallVec<[Arc<Delay>; 1]>,
    delay_ms: u64,
}

impl Delayed {
    /// Keeps a message back for so long, as those exchanges do. Its properties are marked already.
    pub fn new(mut message: Message, delays: SmallVec<[Arc<Delay>; 1]>, delay_ms: u64, now_ms: u64) -> Self {
        message.expire_at(now_ms.saturating_add(delay_ms));
        Self { message: Arc::new(message), delays, delay_ms }
    }
}

impl Beside {
    /// Where a message that the broker has goes but to queues, from what routing found.
    pub fn of(message: &Arc<Message>, targets: &mut Targets, now_ms: u64) -> Self {
        let mut beside = Self { histories: std::mem::take(&mut targets.histories), ..Self::default() };
        if !targets.delays.is_empty() {
            let content = message.content();
            let headers = Properties::parse(content.properties).ok().and_then(|properties| properties.headers());
            beside.delayed = headers.and_then(|headers| {
                let properties = delay::mark_delayed(content.properties, headers);
                let message = Message::derived(message, message.traits(), content.address, &properties);
                let delays = std::mem::take(&mut targets.delays);
                Some(Delayed::new(message, delays, delay::wanted_ms(headers)?, now_ms))
            });
        }
        beside
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.histories.is_empty() && self.delayed.is_none()
    }

    /// Octets that a transaction keeps for it.
    pub fn bytes(&self) -> usize {
        self.delayed.as_ref().map_or(0, |delayed| delayed.message.resident_bytes())
    }

    /// Hands the message over; returns where that is durable.
    pub fn hand_over(&self, message: &Arc<Message>, wakes: &mut WakeList) -> Lsn {
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
    pub fn commit(&mut self, message: &Arc<Message>, now_ms: u64, ops: &mut Vec<TxOp>) {
        self.histories.drain(..).for_each(|history| history.part_of_transaction(message, ops));
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
