//! How long messages may wait in a queue, and how many.
//!
//! Only ready messages count, and only their bodies. A queue whose oldest messages go takes everything and drops what is too
//! much afterwards; the others look before they take anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::Seq;

use super::classic::{Queue, State};
use super::discard::Discarded;
use super::ready::{Entry, Skipped};
use super::settings::QueueSettings;
use super::signal::WakeList;
use crate::model::death::Reason;
use crate::model::limit_arguments::Overflow;
use crate::model::message::Message;

/// Stands for no time limit.
pub(super) const NO_TTL: u64 = u64::MAX;

/// Messages that transactions are about to put into a queue.
#[derive(Default)]
pub(super) struct Reserved {
    messages: u64,
    /// Octets of their bodies.
    bytes: u64,
}

impl State {
    /// A message of a transaction gets its place.
    pub(super) fn reserve(&mut self, message: &Message) -> Seq {
        let level = self.ready.level_for(message);
        let seq = self.ready.next_seq(level);
        self.reserved.messages += 1;
        self.reserved.bytes += message.body_len() as u64;
        self.ready.reserve(seq);
        seq
    }

    /// It comes, or does not: its place is an ordinary one again.
    pub(super) fn unreserve(&mut self, seq: Seq, message: &Message) {
        self.reserved.messages = self.reserved.messages.saturating_sub(1);
        self.reserved.bytes = self.reserved.bytes.saturating_sub(message.body_len() as u64);
        self.ready.unreserve(seq);
    }
}

impl Queue {
    /// What holds from now on. A time limit is one for messages that are still to come; a length is one for those that are
    /// here too.
    pub fn set_settings(self: &Arc<Self>, settings: QueueSettings) {
        let mut wakes = WakeList::default();
        let mut state = self.lock();
        let old = std::mem::replace(&mut state.settings, settings);
        self.message_ttl_ms.store(settings.message_ttl_ms.unwrap_or(NO_TTL), Ordering::Release);
        if self.is_closed() || self.is_crashed() {
            return;
        }
        if old.expires_ms != settings.expires_ms {
            self.start_lease(&mut state);
        }
        if old != settings {
            self.measure(&mut state);
            self.pump(&mut state, &mut wakes);
        }
    }

    /// What holds now.
    pub fn settings(&self) -> QueueSettings {
        self.lock().settings
    }

    /// A message that nobody else has yet may wait here for so long.
    pub fn limit_life(&self, message: &mut Message) {
        if let Some(deadline_ms) = self.earlier_deadline(message) {
            message.expire_at(deadline_ms);
        }
    }

    /// The message as it waits here: the same, unless others may keep it longer.
    pub fn with_own_deadline(&self, message: &Arc<Message>) -> Arc<Message> {
        match self.earlier_deadline(message) {
            Some(deadline_ms) => Arc::new(Message::expiring(message, deadline_ms)),
            None => Arc::clone(message),
        }
    }

    /// The deadline that a message has here, if it is earlier than its own.
    pub(super) fn earlier_deadline(&self, message: &Message) -> Option<u64> {
        let ttl_ms = self.message_ttl_ms.load(Ordering::Acquire);
        if ttl_ms == NO_TTL {
            return None;
        }
        let deadline_ms = self.services.timers.clock().now_ms().saturating_add(ttl_ms);
        message.deadline_ms().is_none_or(|own| own > deadline_ms).then_some(deadline_ms)
    }

    /// Whether there is no room for this message, and it is not for older ones to go.
    pub(super) fn has_no_room(&self, state: &State, message: &Message) -> bool {
        let settings = &state.settings;
        settings.overflow != Overflow::DropHead
            && settings.is_too_much(
                state.ready.len() as u64 + state.reserved.messages + 1,
                state.ready.body_bytes() + state.reserved.bytes + message.body_len() as u64,
            )
    }

    /// A message for which there was no room. Called with nothing locked.
    pub(super) fn refuse(&self, message: &Arc<Message>, overflow: Overflow) {
        if overflow == Overflow::RejectPublishDlx {
            self.dead_letter_refused(message, Reason::MaxLen);
        }
    }

    /// Whether older messages have to go.
    pub(super) fn is_over_full(&self, state: &State) -> bool {
        let settings = &state.settings;
        settings.overflow == Overflow::DropHead
            && settings.is_too_much(state.ready.len() as u64, state.ready.body_bytes())
    }

    /// Whether messages on disk can be dropped without being read: they count as one each.
    pub(super) fn drops_unread(&self, state: &State) -> bool {
        state.settings.max_length_bytes.is_none() && self.is_over_full(state)
    }

    /// Drops the oldest messages until the rest is not too much. Those on disk have to be listed or read first, see
    /// `read_ahead`.
    pub(super) fn drop_head(&self, state: &mut State) {
        if !self.is_over_full(state) {
            return;
        }
        let (mut held, mut stored) = (Vec::new(), Vec::new());
        while self.is_over_full(state) {
            if let Some(entry) = state.ready.pop() {
                self.drop_unread(state, &mut stored);
                held.push(entry);
                continue;
            }
            if state.settings.max_length_bytes.is_some() {
                break;
            }
            match state.ready.skip() {
                Skipped::Stored(seq) => {
                    self.drop_held(state, &mut held);
                    stored.push(seq);
                }
                Skipped::Front => {}
                Skipped::Nothing => break,
            }
        }
        self.drop_held(state, &mut held);
        self.drop_unread(state, &mut stored);
        state.forget_read();
    }

    fn drop_held(&self, state: &mut State, held: &mut Vec<Entry>) {
        if !held.is_empty() {
            self.discard(state, Discarded::Held(std::mem::take(held)), Reason::MaxLen);
        }
    }

    fn drop_unread(&self, state: &mut State, stored: &mut Vec<Seq>) {
        if !stored.is_empty() {
            self.discard(state, Discarded::Stored(std::mem::take(stored)), Reason::MaxLen);
        }
    }
}
