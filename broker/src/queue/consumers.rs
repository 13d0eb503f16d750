//! The consumers of one queue and whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;

use super::outbox::Outbox;

/// Unique within the broker's lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// What a queue knows of a consumer: where to push.
pub struct Consumer {
    /// Identity.
    pub id: ConsumerId,
    /// Its connection's outbox.
    pub outbox: Arc<Outbox>,
    /// Its slot there.
    pub slot: u32,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Its messages are settled as they are written.
    pub no_ack: bool,
    /// Those with a lower one get something only while it has no credit.
    pub priority: i64,
}

/// Round robin among those of the highest priority that have credit: the consumer at the front is next; one without credit
/// steps aside until its outbox calls it back.
///
/// Where only a single consumer may be active, the others wait until it is gone.
#[derive(Default)]
pub struct Consumers {
    /// By descending priority; those of one priority in the order of their turns.
    turn: VecDeque<Arc<Consumer>>,
    parked: Vec<Arc<Consumer>>,
    /// In an allocation of its own: most queues have none.
    single: Option<Box<Single>>,
}

/// The consumers beside the active one.
#[derive(Default)]
struct Single {
    /// In the order in which they came.
    waiting: Vec<Arc<Consumer>>,
    /// The active one that is gone, while what it has to give back is still on its way.
    gone: Option<ConsumerId>,
}

impl Consumers {
    /// None yet. `single`: no more than one of them is active.
    pub fn new(single: bool) -> Self {
        Self { single: single.then(Box::default), ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.turn.len() + self.parked.len() + self.single.as_ref().map_or(0, |single| single.waiting.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one may get something, now or when it has credit again: where only one may be active, the others may not.
    pub fn is_active(&self, id: ConsumerId) -> bool {
        self.turn.iter().chain(&self.parked).any(|consumer| consumer.id == id)
    }

    /// Whether one more must not be added, which wants to be the only one or not.
    pub fn forbid(&self, exclusive: bool) -> bool {
        let has_exclusive = || self.turn.iter().chain(&self.parked).any(|consumer| consumer.exclusive);
        (exclusive && (self.single.is_some() || !self.is_empty())) || has_exclusive()
    }

    /// Adds one at the end of the turn.
    pub fn add(&mut self, consumer: Arc<Consumer>) {
        match &mut self.single {
            Some(single) if single.gone.is_some() || !self.turn.is_empty() || !self.parked.is_empty() => {
                single.waiting.push(consumer);
            }
            _ => self.queue_up(consumer),
        }
    }

    /// Behind those of the same priority.
    fn queue_up(&mut self, consumer: Arc<Consumer>) {
        if self.turn.back().is_none_or(|last| last.priority >= consumer.priority) {
            self.turn.push_back(consumer);
        } else {
            let at = self.turn.partition_point(|other| other.priority >= consumer.priority);
            self.turn.insert(at, consumer);
        }
    }

    /// Removes one. The place of an active one stays vacant until [`Consumers::replace`].
    pub fn remove(&mut self, id: ConsumerId) -> Option<Arc<Consumer>> {
        if let Some(single) = &mut self.single
            && let Some(at) = single.waiting.iter().position(|consumer| consumer.id == id)
        {
            return Some(single.waiting.remove(at));
        }
        let removed = if let Some(at) = self.turn.iter().position(|consumer| consumer.id == id) {
            self.turn.remove(at)
        } else {
            let at = self.parked.iter().position(|consumer| consumer.id == id)?;
            Some(self.parked.swap_remove(at))
        };
        if let Some(single) = &mut self.single {
            single.gone = Some(id);
        }
        removed
    }

    /// Puts the one of the highest priority that has waited longest in the place of the active one that was removed; false
    /// when nobody waits, or this was not the active one.
    pub fn replace(&mut self, gone: ConsumerId) -> bool {
        let Some(single) = &mut self.single else {
            return false;
        };
        if single.gone.take_if(|id| *id == gone).is_none() {
            return false;
        }
        let Some(highest) = single.waiting.iter().map(|consumer| consumer.priority).max() else {
            return false;
        };
        let Some(at) = single.waiting.iter().position(|consumer| consumer.priority == highest) else {
            return false;
        };
        let next = single.waiting.remove(at);
        self.turn.push_back(next);
        true
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<&Arc<Consumer>> {
        self.turn.front()
    }

    /// How many may get something.
    pub fn ready(&self) -> usize {
        self.turn.len()
    }

    /// Whether nobody takes turns with the next one.
    pub fn next_is_alone(&self) -> bool {
        match (self.turn.front(), self.turn.get(1)) {
            (Some(next), Some(other)) => other.priority < next.priority,
            _ => true,
        }
    }

    /// The one whose turn it was has got a message.
    pub fn rotate(&mut self) {
        let (Some(first), Some(last)) = (self.turn.front(), self.turn.back()) else {
            return;
        };
        if first.priority == last.priority {
            self.turn.rotate_left(1);
        } else if !self.next_is_alone()
            && let Some(consumer) = self.turn.pop_front()
        {
            self.queue_up(consumer);
        }
    }

    /// The one whose turn it was has no credit.
    pub fn park(&mut self) {
        if let Some(consumer) = self.turn.pop_front() {
            self.parked.push(consumer);
        }
    }

    /// Credit is back.
    pub fn resume(&mut self, id: ConsumerId) {
        if let Some(at) = self.parked.iter().position(|consumer| consumer.id == id) {
            let consumer = self.parked.swap_remove(at);
            self.queue_up(consumer);
        }
    }

    /// It has to wait until all others of its priority had their turn.
    pub fn defer(&mut self, id: ConsumerId) {
        if let Some(at) = self.turn.iter().position(|consumer| consumer.id == id)
            && let Some(consumer) = self.turn.remove(at)
        {
            self.queue_up(consumer);
        }
    }

    /// Takes them all.
    pub fn take(&mut self) -> Vec<Arc<Consumer>> {
        let waiting = self.single.iter_mut().flat_map(|single| single.waiting.drain(..));
        self.turn.drain(..).chain(self.parked.drain(..)).chain(waiting).collect()
    }
}
