//! The deliveries of one channel that its client has not settled yet, by delivery tag.

use std::collections::VecDeque;
use std::sync::Arc;

use storage::Seq;

use super::Queue;
use crate::model::message::Message;

/// Where an unacknowledged message came from.
#[derive(Clone)]
pub enum Origin {
    /// A consumer of the connection, by its slot in the outbox.
    Consumer(u32),
    /// A `basic.get` on this queue.
    Get(Arc<Queue>),
}

/// Holes that are not worth removing.
const HOLES_MAX: usize = 64;

/// One delivery that waits for its acknowledgement.
pub struct Unacked {
    /// Delivery tag.
    pub tag: u64,
    /// Position in its queue.
    pub seq: Seq,
    /// The message itself: a requeue puts it back without asking the store.
    pub message: Arc<Message>,
    /// Who got it.
    pub origin: Origin,
}

/// Ordered by tag. Settling in any order is constant time amortised: a settled entry in the middle becomes a hole that
/// goes when it reaches the front.
#[derive(Default)]
pub struct UnackedSet {
    entries: VecDeque<Slot>,
    live: usize,
}

struct Slot {
    tag: u64,
    entry: Option<Unacked>,
}

impl UnackedSet {
    /// Adds a delivery; its tag must be above all that were added before.
    pub fn push(&mut self, entry: Unacked) {
        debug_assert!(self.entries.back().is_none_or(|last| last.tag < entry.tag));
        self.live += 1;
        self.entries.push_back(Slot { tag: entry.tag, entry: Some(entry) });
    }

    /// Adds a delivery at its tag's place: what a rolled-back transaction had taken, or a tag that was set aside.
    pub fn restore(&mut self, entry: Unacked) {
        self.live += 1;
        let at = self.entries.partition_point(|slot| slot.tag < entry.tag);
        let slot = Slot { tag: entry.tag, entry: Some(entry) };
        match self.entries.get_mut(at) {
            Some(hole) if hole.tag == slot.tag => *hole = slot,
            _ => self.entries.insert(at, slot),
        }
    }

    /// How many deliveries are outstanding.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Takes the delivery with this tag.
    pub fn take(&mut self, tag: u64) -> Option<Unacked> {
        let at = self.position(tag)?;
        let taken = self.entries.get_mut(at)?.entry.take()?;
        self.live -= 1;
        self.trim();
        // The oldest delivery may stay outstanding for ever while all others are settled.
        if self.entries.len() > 2 * self.live + HOLES_MAX {
            self.entries.retain(|slot| slot.entry.is_some());
        }
        Some(taken)
    }

    /// Takes the delivery with this tag, or with `multiple` all up to it. `lapsed`: it was outstanding and has been taken
    /// back. False when the tag is not known.
    pub fn settle(&mut self, tag: u64, multiple: bool, lapsed: bool, mut each: impl FnMut(Unacked)) -> bool {
        if !multiple {
            return self.take(tag).map(&mut each).is_some() || lapsed;
        }
        if lapsed {
            self.take_through(tag, each);
            return true;
        }
        self.take_up_to(tag, each)
    }

    /// Takes every delivery up to and including `tag`, which itself must be outstanding (RabbitMQ answers 406 otherwise);
    /// tag 0 means all there are, and is never an error.
    pub fn take_up_to(&mut self, tag: u64, each: impl FnMut(Unacked)) -> bool {
        if tag != 0 {
            let outstanding =
                self.position(tag).and_then(|at| self.entries.get(at)).is_some_and(|slot| slot.entry.is_some());
            if !outstanding {
                return false;
            }
        }
        self.take_through(if tag == 0 { u64::MAX } else { tag }, each);
        true
    }

    /// Takes every delivery up to and including `tag`.
    pub fn take_through(&mut self, tag: u64, mut each: impl FnMut(Unacked)) {
        while self.entries.front().is_some_and(|front| front.tag <= tag) {
            if let Some(Slot { entry: Some(entry), .. }) = self.entries.pop_front() {
                self.live -= 1;
                each(entry);
            }
        }
        self.trim();
    }

    fn position(&self, tag: u64) -> Option<usize> {
        let front = self.entries.front()?.tag;
        // Tags are consecutive unless automatic acknowledgements came in between.
        let guess = usize::try_from(tag.checked_sub(front)?).ok()?;
        if self.entries.get(guess).is_some_and(|slot| slot.tag == tag) {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&tag, |slot| slot.tag).ok()
    }

    fn trim(&mut self) {
        while self.entries.front().is_some_and(|slot| slot.entry.is_none()) {
            self.entries.pop_front();
        }
    }
}
