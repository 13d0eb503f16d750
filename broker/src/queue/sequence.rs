//! Messages in memory by their position in the queue. They leave at the front, when their time is over also in the middle,
//! and some come back.

use std::collections::VecDeque;
use std::sync::Arc;

use storage::Seq;

use super::ready::Entry;
use crate::model::message::Message;

/// Holes that are not worth removing.
const HOLES_MAX: usize = 64;

/// Ordered by position. Taking a message out of the middle costs a search and leaves a hole, which goes when it reaches the
/// front or when holes are in the majority.
#[derive(Default)]
pub(super) struct Sequence {
    slots: VecDeque<Slot>,
    live: usize,
    bytes: usize,
    accounted_bytes: usize,
    body_bytes: u64,
}

struct Slot {
    seq: Seq,
    /// `None` is a hole. The first slot never is one.
    message: Option<Arc<Message>>,
    redelivered: bool,
}

/// What a message costs beside itself.
const SLOT_BYTES: usize = std::mem::size_of::<Slot>();

impl From<Entry> for Slot {
    fn from(Entry { seq, message, redelivered }: Entry) -> Self {
        Self { seq, message: Some(message), redelivered }
    }
}

impl Slot {
    fn into_entry(self) -> Option<Entry> {
        let Self { seq, message, redelivered } = self;
        message.map(|message| Entry { seq, message, redelivered })
    }
}

impl Sequence {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Memory of the messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they account for, which is less for messages that other queues hold too.
    pub(super) fn accounted_bytes(&self) -> usize {
        self.accounted_bytes
    }

    /// Octets of their bodies.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Position of the first message.
    pub(super) fn first(&self) -> Option<Seq> {
        self.slots.front().map(|slot| slot.seq)
    }

    /// Position of the last message, or of a hole behind it.
    pub(super) fn last(&self) -> Option<Seq> {
        self.slots.back().map(|slot| slot.seq)
    }

    /// Adds a message behind all others.
    pub(super) fn push(&mut self, entry: Entry) {
        debug_assert!(self.slots.back().is_none_or(|last| last.seq < entry.seq));
        self.count(&entry);
        self.slots.push_back(entry.into());
    }

    /// Adds a message at its position.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.count(&entry);
        if self.slots.front().is_none_or(|first| first.seq > entry.seq) {
            self.slots.push_front(entry.into());
        } else {
            let at = self.slots.partition_point(|other| other.seq < entry.seq);
            self.slots.insert(at, entry.into());
        }
    }

    /// Adds messages that ascend. Only what lies before the last of them is moved.
    pub(super) fn insert_all(&mut self, mut entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.seq) else { return };
        let before = self.slots.partition_point(|slot| slot.seq < last);
        let mut lower: Vec<Slot> = self.slots.drain(..before).filter(|slot| slot.message.is_some()).collect();
        while let Some(entry) = entries.pop() {
            while let Some(above) = lower.pop_if(|other| other.seq > entry.seq) {
                self.slots.push_front(above);
            }
            self.count(&entry);
            self.slots.push_front(entry.into());
        }
        for slot in lower.into_iter().rev() {
            self.slots.push_front(slot);
        }
    }

    fn count(&mut self, entry: &Entry) {
        self.live += 1;
        self.bytes += entry.message.resident_bytes();
        self.accounted_bytes += SLOT_BYTES + entry.message.accounted_bytes();
        self.body_bytes += entry.message.body_len() as u64;
    }

    /// Takes the first message.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.slots.pop_front().and_then(Slot::into_entry)?;
        self.taken(&entry);
        Some(entry)
    }

    /// Takes the message at this position.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Entry> {
        let at = self.slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        let slot = self.slots.get_mut(at)?;
        let entry = Entry { seq, message: slot.message.take()?, redelivered: slot.redelivered };
        self.taken(&entry);
        Some(entry)
    }

    fn taken(&mut self, entry: &Entry) {
        self.live -= 1;
        self.bytes = self.bytes.saturating_sub(entry.message.resident_bytes());
        self.accounted_bytes = self.accounted_bytes.saturating_sub(SLOT_BYTES + entry.message.accounted_bytes());
        self.body_bytes = self.body_bytes.saturating_sub(entry.message.body_len() as u64);
        if self.slots.len() == self.live {
            return;
        }
        while self.slots.front().is_some_and(|slot| slot.message.is_none()) {
            self.slots.pop_front();
        }
        if self.slots.len() > 2 * self.live + HOLES_MAX {
            self.slots.retain(|slot| slot.message.is_some());
        }
    }

    /// Whether there is a message at this position.
    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.slots
            .binary_search_by_key(&seq, |slot| slot.seq)
            .is_ok_and(|at| self.slots.get(at).is_some_and(|slot| slot.message.is_some()))
    }

    /// Position, message and whether it was delivered before, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Seq, &Message, bool)> {
        self.slots.iter().filter_map(|slot| Some((slot.seq, &**slot.message.as_ref()?, slot.redelivered)))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(u64),
        Pop,
        Take(prop::sample::Index),
        Insert(prop::sample::Index),
        InsertAll(Vec<prop::sample::Index>),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (1..3u64).prop_map(Op::Push),
            3 => Just(Op::Pop),
            5 => any::<prop::sample::Index>().prop_map(Op::Take),
            2 => any::<prop::sample::Index>().prop_map(Op::Insert),
            1 => prop::collection::vec(any::<prop::sample::Index>(), 1..6).prop_map(Op::InsertAll),
        ]
    }

    fn entry(seq: Seq) -> Entry {
        let body = Cow::Owned(vec![0; seq as usize % 7 * 100]);
        Entry {
            seq,
            message: Arc::new(Message::new(b"\0\0", &[0, 0], body, false)),
            redelivered: seq.is_multiple_of(2),
        }
    }

    /// What is not there and may be put back.
    fn out(model: &BTreeMap<Seq, ()>, next: Seq) -> Vec<Seq> {
        (1..next).filter(|seq| !model.contains_key(seq)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn it_is_an_ordered_map(ops in prop::collection::vec(op(), 1..400)) {
            let (mut sequence, mut model, mut next) = (Sequence::default(), BTreeMap::new(), 1);
            for op in ops {
                match op {
                    Op::Push(step) => {
                        next += step;
                        sequence.push(entry(next));
                        model.insert(next, ());
                        next += 1;
                    }
                    Op::Pop => {
                        let popped = sequence.pop().map(|entry| entry.seq);
                        prop_assert_eq!(popped, model.pop_first().map(|(seq, ())| seq));
                    }
                    Op::Take(at) => {
                        let seq = at.index(next as usize) as Seq;
                        prop_assert_eq!(sequence.contains(seq), model.contains_key(&seq));
                        let taken = sequence.take(seq).map(|entry| (entry.seq, entry.redelivered));
                        prop_assert_eq!(taken, model.remove(&seq).map(|()| (seq, seq.is_multiple_of(2))));
                    }
                    Op::Insert(at) => {
                        let out = out(&model, next);
                        if !out.is_empty() {
                            let seq = out[at.index(out.len())];
                            // A position whose message was taken for good never comes back.
                            if sequence.slots.iter().all(|slot| slot.seq != seq) {
                                sequence.insert(entry(seq));
                                model.insert(seq, ());
                            }
                        }
                    }
                    Op::InsertAll(at) => {
                        let out = out(&model, next);
                        if !out.is_empty() {
                            let mut back: Vec<Seq> = at.iter().map(|at| out[at.index(out.len())]).collect();
                            back.retain(|seq| sequence.slots.iter().all(|slot| slot.seq != *seq));
                            back.sort_unstable();
                            back.dedup();
                            sequence.insert_all(back.iter().map(|seq| entry(*seq)).collect());
                            model.extend(back.iter().map(|seq| (*seq, ())));
                        }
                    }
                }
                let found: Vec<Seq> = sequence.iter().map(|(seq, _, _)| seq).collect();
                prop_assert_eq!(&found, &model.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(sequence.len(), model.len());
                prop_assert_eq!(sequence.is_empty(), model.is_empty());
                prop_assert_eq!(sequence.first(), found.first().copied());
                let bytes: usize = sequence.iter().map(|(_, message, _)| message.resident_bytes()).sum();
                prop_assert_eq!(sequence.bytes(), bytes);
                prop_assert!(sequence.slots.len() <= 2 * sequence.len() + HOLES_MAX);
            }
        }
    }
}
