//! Limits of the queue: what has no room, what leaves for it, and when the queue has been unused for too long.

use broker::model::death::Reason;
use broker::model::limit_arguments::Overflow;
use broker::queue::dead_letter::{DeadLetterTo, Taken};
use broker::queue::settings::QueueSettings;

use super::*;

/// What the model knows of limits.
#[derive(Default)]
pub(crate) struct Limits {
    settings: QueueSettings,
    used_ms: u64,
    /// The time without use runs.
    runs: bool,
    /// Messages and octets whose time was over in this step.
    pub(super) due: (u64, u64),
    /// They left for lack of room, and where dead letters go has not seen them.
    dropped: BTreeSet<u64>,
    has_dead_letters: bool,
}

fn bytes_of<'a>(known: impl Iterator<Item = &'a Known>) -> u64 {
    known.map(|known| known.len as u64).sum()
}

impl World<'_> {
    /// Other limits hold from now on.
    pub(crate) fn limit(&mut self, settings: QueueSettings) {
        self.queue.set_settings(settings);
        let old = std::mem::replace(&mut self.limits.settings, settings);
        if old.expires_ms != settings.expires_ms {
            self.limits.runs = false;
            self.note_use();
        }
        self.observe();
    }

    /// Dead letters are looked at from now on.
    pub(crate) fn look_at_dead_letters(&mut self) {
        self.limits.has_dead_letters = true;
        let to = DeadLetterTo { exchange: "dead".into(), routing_key: None, at_least_once: false };
        self.queue.set_dead_letter_to(Some(Arc::new(to)));
    }

    /// The time that a message with this expiration has here.
    pub(super) fn own_ttl(&self, ttl_ms: Option<u64>) -> Option<u64> {
        [ttl_ms, self.limits.settings.message_ttl_ms].into_iter().flatten().min()
    }

    /// Whether a message of this length is refused.
    pub(super) fn has_no_room(&self, len: usize) -> bool {
        let settings = &self.limits.settings;
        let reserved = self.reserved.iter().map(|reserved| &reserved.known);
        let messages = self.ready.len() + self.reserved.len() + 1;
        let bytes = bytes_of(self.ready.values()) + bytes_of(reserved) + len as u64;
        settings.overflow != Overflow::DropHead && Self::is_too_much(settings, messages as u64, bytes)
    }

    pub(super) fn note_refused(&mut self, id: u64) {
        assert!(self.settled.insert(id));
        if self.limits.settings.overflow == Overflow::RejectPublishDlx && self.limits.has_dead_letters {
            self.limits.dropped.insert(id);
        }
    }

    fn is_too_much(settings: &QueueSettings, messages: u64, bytes: u64) -> bool {
        settings.max_length.is_some_and(|max| messages > max)
            || settings.max_length_bytes.is_some_and(|max| bytes > max)
    }

    /// What is gone without having been delivered left for lack of room: whatever the order, it is what was first.
    pub(super) fn observe_dropped(&mut self, delivered: &BTreeMap<Seq, usize>) -> BTreeSet<Seq> {
        let count = self.queue.message_count() as usize;
        let missing = self.ready.len().saturating_sub(count);
        let mut rest: Vec<Seq> = self.ready.keys().copied().collect();
        rest.sort_by_key(|seq| turn_of(*seq));
        let dropped: BTreeSet<Seq> = rest.into_iter().take(missing).collect();
        let mut last = 0;
        for seq in &dropped {
            let known = self.ready.remove(seq).expect("it was ready");
            assert!(self.settled.insert(known.id));
            last = last.max(known.len as u64);
            if self.limits.has_dead_letters {
                self.limits.dropped.insert(known.id);
            }
        }
        let (due, due_bytes) = std::mem::take(&mut self.limits.due);
        if !dropped.is_empty() {
            let settings = &self.limits.settings;
            assert_eq!(settings.overflow, Overflow::DropHead, "{dropped:?} are gone");
            // As it was before the last one left.
            let messages = (self.ready.len() + delivered.len() + 1) as u64 + due;
            let bytes = bytes_of(self.ready.values()) + delivered.values().sum::<usize>() as u64 + due_bytes + last;
            assert!(Self::is_too_much(settings, messages, bytes), "{dropped:?} are gone without need");
        }
        if !self.cold {
            self.check_room();
        }
        dropped
    }

    /// Nothing is left that there is no room for, unless it has to be found on disk first.
    pub(crate) fn check_room(&self) {
        let settings = &self.limits.settings;
        let (messages, bytes) = (self.ready.len() as u64, bytes_of(self.ready.values()));
        let is_full = settings.overflow == Overflow::DropHead && Self::is_too_much(settings, messages, bytes);
        assert!(self.closed || !is_full, "{messages} messages of {bytes} octets are left");
    }

    /// Takes what waits to be dead-lettered. True when there was something.
    pub(super) fn bury(&mut self) -> bool {
        let mut any = false;
        while let Some(queue) = self.services.dead_letters.pop() {
            any = true;
            let Taken::Messages(messages) = queue.take_dead(100) else {
                continue;
            };
            for dead in messages {
                let id = id_of(&dead.message);
                assert!(self.settled.contains(&id), "{id} is dead-lettered and not gone");
                if !self.limits.dropped.remove(&id) {
                    let is_timed = dead.message.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= self.now_ms());
                    assert!(is_timed || self.closed, "{id} is dead-lettered for {:?}", dead.reason);
                } else {
                    assert_eq!(dead.reason, Reason::MaxLen);
                }
                if let Some(seq) = dead.stored {
                    queue.store_settled(&[SeqRange::one(seq)]);
                }
            }
            queue.moved_dead(Vec::new());
        }
        any
    }

    /// Nothing is left that should have been dead-lettered.
    pub(super) fn check_buried(&self) {
        assert!(self.limits.dropped.is_empty(), "{:?} left without being dead-lettered", self.limits.dropped);
    }

    /// A get, a declare, or the last consumer leaves.
    pub(super) fn note_use(&mut self) {
        if self.limits.settings.expires_ms.is_some() {
            self.limits.used_ms = self.now_ms();
            self.limits.runs |= self.consumers.iter().all(|consumer| !consumer.attached);
        }
    }

    /// It is declared again.
    pub(crate) fn declare(&mut self) {
        self.queue.touch();
        self.note_use();
    }

    /// The timers were called: who was unused for too long is named, once.
    pub(super) fn observe_unused(&mut self) {
        let Limits { settings, used_ms, runs, .. } = &self.limits;
        let is_over = settings.expires_ms.is_some_and(|expires_ms| used_ms + expires_ms <= self.now_ms());
        let is_used = self.consumers.iter().any(|consumer| consumer.attached);
        let expected = *runs && is_over && !is_used && !self.closed;
        let ended = self.services.unused.take();
        assert_eq!(ended.len(), usize::from(expected), "unused");
        self.limits.runs &= !expected;
    }
}
