//! Dead letters: where a queue's go, and the way there.

use std::borrow::Cow;
use std::sync::Arc;

use protocol::Properties;
use storage::SeqRange;

use super::Vhost;
use super::beside::Beside;
use super::route::Targets;
use crate::model::arguments::string;
use crate::model::dead_letter_arguments::{DEAD_LETTER_EXCHANGE, DEAD_LETTER_ROUTING_KEY, DEAD_LETTER_STRATEGY};
use crate::model::death::{self, Death, Reason};
use crate::model::message::Message;
use crate::model::queue_kind::QueueKind;
use crate::policy::Effective;
use crate::queue::dead_letter::{DeadLetterTo, DeadMessage, Taken};
use crate::queue::signal::WakeList;
use crate::queue::{Queue, QueueSpec};

/// Messages moved before others have their turn.
const BATCH: usize = 128;

/// A message after its death and the queues it goes to.
pub struct Passage {
    /// The message.
    pub message: Arc<Message>,
    /// The queues, none of which it comes to in a circle.
    pub queues: Vec<Arc<Queue>>,
    /// Where it goes beside them.
    pub beside: Beside,
}

/// What holds for the dead letters of a queue: its arguments, and for what they leave open its policy.
fn dead_letter_to(spec: &QueueSpec, policy: &Effective) -> Option<DeadLetterTo> {
    let setting = |argument: &str, key: &str| {
        let by_argument = spec.arguments.get(argument).and_then(string).map(Cow::into_owned);
        by_argument.or_else(|| policy.definition.text(key).map(str::to_owned))
    };
    let exchange = setting(DEAD_LETTER_EXCHANGE, "dead-letter-exchange")?;
    let is_quorum = QueueKind::of(&spec.arguments) == QueueKind::Quorum;
    let refuses = setting("x-overflow", "overflow").as_deref() == Some("reject-publish");
    let strategy = setting(DEAD_LETTER_STRATEGY, "dead-letter-strategy");
    Some(DeadLetterTo {
        exchange: exchange.into(),
        routing_key: setting(DEAD_LETTER_ROUTING_KEY, "dead-letter-routing-key").map(Into::into),
        at_least_once: is_quorum && refuses && strategy.as_deref() == Some("at-least-once"),
    })
}

impl Vhost {
    /// A queue gets what holds for its dead letters.
    pub(super) fn give_dead_letters(&self, queue: &Queue, policy: &Effective) {
        let to = dead_letter_to(queue.spec(), policy).map(Arc::new);
        if queue.dead_letter_to() != to {
            queue.set_dead_letter_to(to);
        }
    }

    /// The message as it goes on when `source` gives it up, and where to. `None`: there is no such exchange.
    pub fn passage(
        &self,
        source: &Queue,
        to: &DeadLetterTo,
        message: &Arc<Message>,
        reason: Reason,
    ) -> Option<Passage> {
        let exchange = self.exchange(&to.exchange)?;
        let death = Death {
            queue: &source.spec().name,
            reason,
            time_s: self.services.timers.clock().now_ms() / 1000,
            exchange: &to.exchange,
            routing_key: to.routing_key.as_deref(),
        };
        let mut message = death::after(message, &death);
        let mut targets = Targets::default();
        {
            let keys = death::routing_keys(&message);
            let keys: Vec<&str> = keys.iter().map(|key| &*key.text).collect();
            let properties = Properties::parse(message.content().properties).ok();
            self.route_to(&exchange, &keys, properties.as_ref(), &mut targets);
        }
        if reason != Reason::Rejected {
            targets.queues.retain(|queue| {
                let cycle = death::is_cycle(&message, &queue.spec().name);
                if cycle {
                    tracing::debug!(
                        queue = %queue.spec().name, vhost = %self.name(), source = %source.spec().name,
                        "a dead letter that goes round in a circle is dropped"
                    );
                }
                !cycle
            });
        }
        message.share(targets.queues.len());
        let message = Arc::new(message);
        let beside = Beside::of(&message, &mut targets, self.services.timers.clock().now_ms());
        Some(Passage { message, queues: targets.queues, beside })
    }

    /// Moves dead letters of a queue that was taken off the list of those that wait.
    pub fn move_dead(&self, source: &Arc<Queue>, wakes: &mut WakeList) {
        // Not those of a virtual host that had this name before.
        if !Arc::ptr_eq(&source.spec().vhost, &self.name) {
            return;
        }
        if let Taken::Messages(messages) = source.take_dead(BATCH) {
            let to = source.dead_letter_to();
            let mut refused = Vec::new();
            for dead in messages {
                if let Some(dead) = self.move_one(source, to.as_deref(), dead, wakes) {
                    refused.push(dead);
                }
            }
            source.moved_dead(refused);
        }
    }

    /// Moves one message; gives it back when nobody takes it and it must not be lost.
    fn move_one(
        &self,
        source: &Queue,
        to: Option<&DeadLetterTo>,
        dead: DeadMessage,
        wakes: &mut WakeList,
    ) -> Option<DeadMessage> {
        let passage = to.and_then(|to| self.passage(source, to, &dead.message, dead.reason));
        let from = dead.stored.map(|seq| source.in_store(seq));
        if passage.is_some_and(|passage| self.hand_on(passage, from, wakes)) {
            return None;
        }
        if to.is_some_and(|to| to.at_least_once) {
            return Some(dead);
        }
        if let Some(seq) = dead.stored {
            source.store_settled(&[SeqRange::one(seq)]);
        }
        None
    }
}
