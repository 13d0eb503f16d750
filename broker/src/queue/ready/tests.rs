//! Ready messages against a model, with a store and a spill that answer when the test says so.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use storage::{Listed, Meta, Payload, Place, ReadMessage};

use super::*;

/// So little that almost everything goes to disk.
const RESIDENT_MAX: usize = 1_000;
const PERSISTENT: &[u8] = &[0x10, 0, 2];

#[derive(Clone, Debug)]
enum Op {
    Push { persistent: bool, ttl_ms: Option<u64> },
    Reserve { persistent: bool },
    Publish(prop::sample::Index),
    Pop(usize),
    Requeue(prop::sample::Index),
    Drop(usize),
    Ask,
    List,
    Answer { most: usize },
    Pass(u64),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>();
    prop_oneof![
        12 => (any::<bool>(), prop_oneof![3 => Just(None), 1 => (1..200u64).prop_map(Some)])
            .prop_map(|(persistent, ttl_ms)| Op::Push { persistent, ttl_ms }),
        2 => any::<bool>().prop_map(|persistent| Op::Reserve { persistent }),
        2 => index.clone().prop_map(Op::Publish),
        6 => (1..6usize).prop_map(Op::Pop),
        3 => index.prop_map(Op::Requeue),
        4 => (1..9usize).prop_map(Op::Drop),
        6 => Just(Op::Ask),
        4 => Just(Op::List),
        6 => (1..9usize).prop_map(|most| Op::Answer { most }),
        2 => (1..100u64).prop_map(Op::Pass),
        1 => Just(Op::Clear),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    persistent: bool,
    deadline_ms: Option<u64>,
}

/// A read under way, with what it has found.
enum Asked {
    Stored { batch: Option<ReadBatch>, next: Seq, end: Seq },
    Listed { listed: Option<Listed>, next: Seq, end: Seq },
    Spilled { messages: u64 },
}

#[derive(Default)]
struct World {
    ready: Ready,
    /// What must be ready, by position.
    model: BTreeMap<Seq, Known>,
    /// Live in the store, with those of transactions.
    stored: BTreeMap<Seq, Known>,
    spill: VecDeque<(Seq, Known)>,
    reserved: BTreeMap<Seq, Known>,
    out: BTreeMap<Seq, Known>,
    asked: Option<Asked>,
    next_seq: Seq,
    now_ms: u64,
}

fn message(seq: Seq, known: Known) -> Message {
    let properties: &[u8] = if known.persistent { PERSISTENT } else { &[0, 0] };
    let mut message = Message::new(b"\0\0", properties, Cow::Owned(seq.to_le_bytes().to_vec()), known.persistent);
    if let Some(deadline_ms) = known.deadline_ms {
        message.expire_at(deadline_ms);
    }
    message
}

fn entry(seq: Seq, known: Known) -> Entry {
    Entry::new(seq, Arc::new(message(seq, known)))
}

fn read(seq: Seq, known: Known) -> ReadMessage {
    let mut payload = Vec::new();
    message(seq, known).encode(&mut payload);
    let meta = Meta { deadline_ms: known.deadline_ms, ..Meta::default() };
    ReadMessage { seq, meta, redelivered: false, place: Place::default(), payload: Bytes::from(payload) }
}

impl World {
    fn apply(&mut self, op: Op) {
        match op {
            Op::Push { persistent, ttl_ms } => {
                let seq = self.take_seq();
                let known = Known { persistent, deadline_ms: ttl_ms.map(|ttl_ms| self.now_ms + ttl_ms) };
                self.model.insert(seq, known);
                if persistent {
                    self.stored.insert(seq, known);
                }
                if let Some(Entry { seq: spilled, .. }) = self.ready.push(entry(seq, known), persistent, RESIDENT_MAX) {
                    assert!(spilled == seq && !persistent);
                    self.spill.push_back((seq, known));
                }
            }
            Op::Reserve { persistent } => {
                let seq = self.take_seq();
                self.ready.reserve(seq);
                self.reserved.insert(seq, Known { persistent, deadline_ms: None });
                if persistent {
                    self.stored.insert(seq, Known { persistent, deadline_ms: None });
                }
            }
            Op::Publish(index) => {
                if let Some((seq, known)) = pick(&mut self.reserved, index) {
                    self.ready.unreserve(seq);
                    self.ready.insert(entry(seq, known));
                    self.model.insert(seq, known);
                }
            }
            Op::Pop(count) => {
                for _ in 0..count {
                    self.pop();
                }
            }
            Op::Requeue(index) => {
                if let Some((seq, known)) = pick(&mut self.out, index) {
                    self.ready.insert_all(vec![entry(seq, known)]);
                    self.model.insert(seq, known);
                }
            }
            Op::Drop(count) => {
                self.expire();
                for _ in 0..count {
                    self.drop_head();
                }
                self.forget_read();
            }
            Op::Ask => self.ask(),
            Op::List => self.list(),
            Op::Answer { most } => self.answer(most),
            Op::Pass(ms) => self.pass(ms),
            Op::Clear => self.clear(),
        }
        assert_eq!(self.ready.len(), self.model.len());
        assert!(self.model.is_empty() || !self.ready.is_empty());
        assert_eq!(self.ready.body_bytes(), 8 * self.model.len() as u64, "each has as many");
    }

    fn take_seq(&mut self) -> Seq {
        self.next_seq += 1;
        self.next_seq
    }

    /// What comes is what is first.
    fn pop(&mut self) {
        self.expire();
        let Some(entry) = self.ready.pop() else {
            assert!(self.model.is_empty() || self.ready.wants(1, 1).is_some(), "it can be read");
            return;
        };
        let (seq, known) = self.model.pop_first().expect("it was ready");
        assert_eq!(entry.seq, seq, "nothing overtakes");
        assert_eq!(entry.message.content().body, seq.to_le_bytes());
        assert_eq!((entry.message.is_persistent(), entry.message.deadline_ms()), (known.persistent, known.deadline_ms));
        self.out.insert(seq, known);
        // Settled now and then, as far as the store is concerned.
        if seq.is_multiple_of(3) {
            self.out.remove(&seq);
            self.stored.remove(&seq);
        }
    }

    /// What goes is what is first, also when it has not been read.
    fn drop_head(&mut self) {
        let seq = match self.ready.pop() {
            Some(entry) => entry.seq,
            None => match self.ready.skip() {
                Skipped::Stored(seq) => seq,
                Skipped::Front => return assert!(self.ready.has_front()),
                Skipped::Nothing => {
                    return assert!(self.model.is_empty() || self.ready.wants(1, 1).is_some(), "it can be listed");
                }
            },
        };
        assert_eq!(self.model.pop_first().map(|(seq, _)| seq), Some(seq), "nothing is passed over");
        self.stored.remove(&seq);
    }

    fn list(&mut self) {
        if self.asked.is_none()
            && let Some(Wanted::Stored { next, end }) = self.ready.wants(1, 1)
        {
            self.asked = Some(Asked::Listed { listed: None, next, end });
        }
    }

    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        self.asked = match self.ready.wants(1_000, usize::MAX) {
            Some(Wanted::Stored { next, end }) => Some(Asked::Stored { batch: None, next, end }),
            Some(Wanted::Spilled { messages }) => Some(Asked::Spilled { messages }),
            None => None,
        };
    }

    /// A read of the store first finds something, then brings it; a lot may happen in between.
    fn answer(&mut self, most: usize) {
        match self.asked.take() {
            Some(Asked::Stored { batch: None, next, end }) => {
                let found: Vec<_> = self.stored.range(next..).map(|(seq, known)| (*seq, *known)).collect();
                let mut batch = ReadBatch { next, end: found.len() <= most, ..ReadBatch::default() };
                for (seq, known) in found.into_iter().take(most) {
                    batch.next = seq + 1;
                    batch.messages.push(read(seq, known));
                }
                self.asked = Some(Asked::Stored { batch: Some(batch), next, end });
            }
            Some(Asked::Listed { listed: None, next, end }) => {
                let seqs: Vec<Seq> = self.stored.range(next..).map(|(seq, _)| *seq).take(most).collect();
                let listed_to = seqs.last().map_or(next, |last| last + 1);
                let is_end = self.stored.range(listed_to..).next().is_none();
                let listed = Some(Listed { seqs, next: listed_to, end: is_end });
                self.asked = Some(Asked::Listed { listed, next, end });
            }
            Some(Asked::Listed { listed: Some(listed), end, .. }) => assert_eq!(self.ready.listed(listed, end), 0),
            Some(Asked::Stored { batch: Some(batch), end, .. }) => assert_eq!(self.ready.loaded(batch, end), 0),
            Some(Asked::Spilled { messages }) => {
                let taken = self.spill.drain(..most.min(self.spill.len())).map(|(seq, known)| read(seq, known));
                let taken: Vec<_> = taken.collect();
                let next = self.spill.front().map(|(seq, _)| *seq);
                let batch = SpillBatch { messages: taken, next, lost: 0 };
                assert_eq!(self.ready.loaded_spilled(batch, messages, &mut Vec::new()), 0);
            }
            None => {}
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.expire();
        // The store names those that it has, also some that are in memory or out.
        let now_ms = self.now_ms;
        let due = |known: &Known| known.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
        let named: Vec<Seq> = self.stored.iter().filter(|(_, known)| due(known)).map(|(seq, _)| *seq).collect();
        let reading = self.asked.is_some();
        for seq in self.ready.take_stored(&named, reading) {
            assert!(self.model.remove(&seq).is_some(), "{seq} was ready");
            self.stored.remove(&seq);
        }
        self.forget_read();
        let late: Vec<Seq> = self.model.iter().filter(|(_, known)| due(known)).map(|(seq, _)| *seq).collect();
        assert_eq!(late, Vec::<Seq>::new(), "they are gone from wherever they were");
    }

    fn expire(&mut self) {
        for entry in self.ready.take_due(self.now_ms) {
            assert!(self.model.remove(&entry.seq).is_some());
            self.stored.remove(&entry.seq);
        }
        // Those that the spill has are dropped there.
        let now_ms = self.now_ms;
        let spill = &self.spill;
        self.model.retain(|seq, known| {
            let due = known.deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms);
            !(due && !known.persistent && spill.iter().any(|(spilled, _)| spilled == seq))
        });
        self.forget_read();
    }

    /// As the queue does it: see `State::forget_read`.
    fn forget_read(&mut self) {
        if !self.ready.has_backlog() {
            self.asked = None;
        }
    }

    fn clear(&mut self) {
        let (count, ranges) = self.ready.clear();
        assert_eq!(count, self.model.len());
        let settled = |seq: &Seq| ranges.iter().any(|range| range.contains(*seq));
        for (seq, known) in std::mem::take(&mut self.model) {
            assert!(!known.persistent || settled(&seq), "{seq} is settled");
        }
        for seq in self.out.keys().chain(self.reserved.keys()) {
            assert!(!settled(seq), "{seq} is not among those that are dropped");
        }
        self.stored.retain(|seq, _| !settled(seq));
        self.spill.clear();
        self.asked = None;
    }

    /// Everything that is ready comes out, in order.
    fn drain(&mut self) {
        let mut idle = 0;
        while idle < 100 {
            let before = self.model.len();
            self.ask();
            self.answer(3);
            self.pop();
            idle = if self.model.len() < before { 0 } else { idle + 1 };
        }
        assert!(self.model.is_empty(), "{:?} never came", self.model);
        assert_eq!((self.ready.accounted_bytes(), self.ready.deadlines.len()), (0, 0));
    }
}

fn pick(from: &mut BTreeMap<Seq, Known>, index: prop::sample::Index) -> Option<(Seq, Known)> {
    let keys: Vec<Seq> = from.keys().copied().collect();
    from.remove_entry((!keys.is_empty()).then(|| index.get(&keys))?)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5_000) })]

    #[test]
    fn messages_keep_their_order_over_memory_store_and_spill(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::default();
        for op in ops {
            world.apply(op);
        }
        world.drain();
    }
}
