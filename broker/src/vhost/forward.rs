//! Sending on a message that the broker has held: a dead letter, or a delayed message whose time has come.

use std::sync::Arc;

use protocol::Properties;
use storage::{QueueId, Seq, SeqRange, TxOp};

use super::Vhost;
use super::beside::Beside;
use super::dead_letter::Passage;
use super::exchange::Exchange;
use super::route::Targets;
use crate::model::message::Message;
use crate::model::{death, expiration};
use crate::queue::signal::WakeList;
use crate::queue::{Published, Queue};

impl Vhost {
    /// Routes a message from an exchange, as if it had been published there now. `from`: where the store has had it; leaving
    /// there and entering queues are one transaction.
    pub(super) fn forward(
        &self,
        exchange: &Arc<Exchange>,
        mut message: Message,
        from: Option<(QueueId, Seq)>,
        wakes: &mut WakeList,
    ) {
        let now_ms = self.services.timers.clock().now_ms();
        let mut targets = Targets::default();
        let ttl_ms = {
            let keys = death::routing_keys(&message);
            let keys: Vec<&str> = keys.iter().map(|key| &*key.text).collect();
            // They were checked when the message came in.
            let properties = Properties::parse(message.content().properties).ok();
            self.route_to(exchange, &keys, properties.as_ref(), &mut targets);
            let expiration = properties.and_then(|properties| properties.expiration());
            expiration.and_then(|text| expiration::parse(text).ok())
        };
        message.set_deadline(ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)));
        message.share(targets.queues.len());
        let message = Arc::new(message);
        let mut beside = Beside::of(&message, &mut targets, now_ms);
        let settle = from.map(|(queue, seq)| TxOp::Settle { queue, range: SeqRange::one(seq) });
        if self.hand_on_fresh(&message, &mut targets.queues, &mut beside, settle, wakes) {
            return;
        }
        let passage = Passage { message, queues: targets.queues, beside };
        if !self.hand_on(passage, from, wakes)
            && let Some((queue, seq)) = from
        {
            self.services.store.settle(queue, SeqRange::one(seq));
        }
    }

    /// Gives a message to its queues and takes it from where it was; false when nobody took it, and it is still there.
    pub(super) fn hand_on(&self, passage: Passage, from: Option<(QueueId, Seq)>, wakes: &mut WakeList) -> bool {
        let Passage { message, queues, mut beside } = passage;
        let is_taken = |published| matches!(published, Published::Taken(_));
        if let [queue] = &queues[..]
            && beside.is_empty()
        {
            return is_taken(queue.publish_moved(&message, from, wakes));
        }
        let mut taken = usize::from(!beside.is_empty());
        let (storing, other): (Vec<_>, Vec<_>) = queues.into_iter().partition(|queue| queue.stores(&message));
        // Those that do not survive a crash first: what is lost then is lost with them.
        taken += other.iter().filter(|queue| is_taken(queue.publish(&message, wakes))).count();
        let mut ops = Vec::new();
        beside.commit(&message, self.services.timers.clock().now_ms(), &mut ops);
        let logged = !ops.is_empty();
        let stored = Queue::publish_moved_to_all(&self.services.store, &storing, &message, from, ops, wakes);
        beside.hand_over(&message, wakes);
        taken += stored;
        if taken > 0
            && stored == 0
            && !logged
            && let Some((queue, seq)) = from
        {
            self.services.store.settle(queue, SeqRange::one(seq));
        }
        taken > 0
    }
}
