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
}

/// Round robin: the consumer at the front is next; one without credit steps aside until its outbox calls it back.
#[derive(Default)]
pub struct Consumers {
    turn: VecDeque<Arc<Consumer>>,
    parked: Vec<Arc<Consumer>>,
}

impl Consumers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.turn.len() + self.parked.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one of them wants to be the only one.
    pub fn has_exclusive(&self) -> bool {
        self.turn.iter().chain(&self.parked).any(|consumer| consumer.exclusive)
    }

    /// Adds one at the end of the turn.
    pub fn add(&mut self, consumer: Arc<Consumer>) {
        self.turn.push_back(consumer);
    }

    /// Removes one.
    pub fn remove(&mut self, id: ConsumerId) -> Option<Arc<Consumer>> {
        if let Some(at) = self.turn.iter().position(|consumer| consumer.id == id) {
            return self.turn.remove(at);
        }
        let at = self.parked.iter().position(|consumer| consumer.id == id)?;
        Some(self.parked.swap_remove(at))
    }

    /// Whose turn it is.
    pub fn next(&self) -> Option<&Arc<Consumer>> {
        self.turn.front()
    }

    /// How many may get something.
    pub fn ready(&self) -> usize {
        self.turn.len()
    }

    /// The one whose turn it was has got a message.
    pub fn rotate(&mut self) {
        if self.turn.len() > 1 {
            self.turn.rotate_left(1);
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
            self.turn.push_back(self.parked.swap_remove(at));
        }
    }

    /// Takes them all.
    pub fn take(&mut self) -> Vec<Arc<Consumer>> {
        self.turn.drain(..).chain(self.parked.drain(..)).collect()
    }
}
