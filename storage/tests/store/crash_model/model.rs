//! What a store has to hold, as a function of what was appended to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::{Lsn, Meta, QueueId, ReadMessage, Seq, SeqRange};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) body: Arc<Vec<u8>>,
    pub(crate) meta: Meta,
    pub(crate) redelivered: bool,
}

/// One thing that was appended.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Enqueue(QueueId, Seq, Message),
    Settle(QueueId, SeqRange),
    Purge(QueueId, Seq, Vec<SeqRange>),
    /// With the delivery count.
    Requeue(QueueId, SeqRange, u32),
    Topology(Vec<(Vec<u8>, Option<Vec<u8>>)>, Option<QueueId>),
    Transaction(Vec<Op>),
    /// The marks of a clean stop.
    Redelivered(Vec<(QueueId, Vec<SeqRange>)>),
}

/// Everything a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) queues: BTreeMap<QueueId, BTreeMap<Seq, Message>>,
    pub(crate) topology: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl State {
    fn apply(&mut self, op: &Op, beside: &mut Beside) {
        match op {
            Op::Enqueue(queue, seq, message) => {
                let next = beside.next.entry(*queue).or_insert(1);
                *next = (*next).max(*seq + 1);
                if !beside.dropped.contains(queue) {
                    self.queues.entry(*queue).or_default().insert(*seq, message.clone());
                }
            }
            Op::Settle(queue, range) => self.remove(*queue, |seq| within(range, seq)),
            Op::Purge(queue, below, except) => {
                self.remove(*queue, |seq| seq < *below && !except.iter().any(|range| within(range, seq)));
            }
            Op::Requeue(queue, range, count) => {
                for (seq, message) in self.queues.entry(*queue).or_default() {
                    if within(range, *seq) {
                        message.redelivered = true;
                        message.meta.delivery_count = message.meta.delivery_count.max(*count);
                    }
                }
            }
            Op::Topology(changes, queue) => {
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(self.topology.insert(key.clone(), value.clone())),
                        None => drop(self.topology.remove(key)),
                    }
                }
                if let Some(queue) = queue {
                    beside.dropped.insert(*queue);
                    self.queues.remove(queue);
                }
            }
            Op::Transaction(ops) => ops.iter().for_each(|op| self.apply(op, beside)),
            Op::Redelivered(marks) => {
                for (queue, ranges) in marks {
                    for (seq, message) in self.queues.entry(*queue).or_default() {
                        message.redelivered |= ranges.iter().any(|range| within(range, *seq));
                    }
                }
            }
        }
        self.queues.retain(|_, messages| !messages.is_empty());
    }

    fn remove(&mut self, queue: QueueId, gone: impl Fn(Seq) -> bool) {
        if let Some(messages) = self.queues.get_mut(&queue) {
            messages.retain(|seq, _| !gone(*seq));
        }
    }

    pub(crate) fn messages(&self, queue: QueueId) -> impl Iterator<Item = (&Seq, &Message)> {
        self.queues.get(&queue).into_iter().flatten()
    }
}

pub(crate) fn within(range: &SeqRange, seq: Seq) -> bool {
    (range.first..=range.last).contains(&seq)
}

/// A message as it was read.
pub(crate) fn read(message: ReadMessage) -> (Seq, Message) {
    let ReadMessage { seq, meta, redelivered, payload, .. } = message;
    (seq, Message { body: Arc::new(payload.to_vec()), meta, redelivered })
}

/// What is known of one store over several openings.
#[derive(Default)]
pub(crate) struct Model {
    /// What was there when it was opened last, and is durable.
    base: State,
    /// What was appended since.
    ops: Vec<Appended>,
    /// How many of them were confirmed.
    confirmed: usize,
    /// Everything that was appended, in force.
    pub(crate) now: State,
    /// What belongs to `base`, and to `now`.
    beside: Beside,
    beside_now: Beside,
}

struct Appended {
    lsn: Lsn,
    op: Op,
    /// How many of those before were confirmed by then.
    confirmed: usize,
}

/// What a history leaves that nobody can read.
#[derive(Clone, Debug, Default)]
struct Beside {
    dropped: BTreeSet<QueueId>,
    /// Above every sequence number that was used.
    next: BTreeMap<QueueId, Seq>,
}

impl Model {
    pub(crate) fn append(&mut self, lsn: Lsn, op: Op) {
        self.now.apply(&op, &mut self.beside_now);
        self.ops.push(Appended { lsn, op, confirmed: self.confirmed });
    }

    pub(crate) fn last(&self) -> Lsn {
        self.ops.last().map_or(Lsn(0), |last| last.lsn)
    }

    /// Above every sequence number that is known to have been used in a queue.
    pub(crate) fn next(&self, queue: QueueId) -> Seq {
        self.beside_now.next.get(&queue).copied().unwrap_or(1)
    }

    /// The last thing was an attempt to close.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.ops.last(), Some(Appended { op: Op::Redelivered(_), .. }))
    }

    /// Everything up to here was said to be durable.
    pub(crate) fn confirm(&mut self, durable: Lsn) {
        self.confirmed = self.confirmed.max(self.ops.iter().filter(|appended| appended.lsn <= durable).count());
    }

    /// The store was opened again and holds `found`: that must be what some point of the history left, not before what was
    /// confirmed. Messages of `large` bytes and more wait for their files while the log goes on, so of what was not confirmed
    /// they may be missing. `exact`: it was a clean stop, so it is the last point, and who was delivered before is known.
    pub(crate) fn recovered(&mut self, found: State, exact: bool, large: usize) -> Result<(), String> {
        let from = if exact { self.ops.len() } else { self.confirmed };
        let mut near: Option<String> = None;
        for at in from..=self.ops.len() {
            let ops: Vec<&Op> = self.ops[..at].iter().map(|appended| &appended.op).collect();
            let (waits, missing) = late(&self.ops[..at], &ops, self.confirmed, &found, large);
            // Whether a transaction has happened whose messages are all gone again can't be seen in the messages alone.
            for doubt in doubts(&waits) {
                let (mut state, mut beside) = (self.base.clone(), self.beside.clone());
                for (index, op) in ops.iter().enumerate() {
                    if missing[index] == doubt.contains(&index) {
                        state.apply(op, &mut beside);
                    }
                }
                // A message that went while it waited for a file never came into the log: its number may be given out again.
                beside.next.clear();
                for (queue, messages) in &found.queues {
                    beside.next.extend(messages.keys().next_back().map(|last| (*queue, last + 1)));
                }
                let expected = if exact { state } else { all_redelivered(&state) };
                if expected == found {
                    self.base = found.clone();
                    self.now = found;
                    self.beside_now = beside.clone();
                    self.beside = beside;
                    self.ops.clear();
                    self.confirmed = 0;
                    return Ok(());
                }
                let difference = format!("as of {at}: {}", differences(&expected, &found));
                if near.as_ref().is_none_or(|near| near.len() > difference.len()) {
                    near = Some(difference);
                }
            }
        }
        let (confirmed, asked) = (self.confirmed, self.ops.len());
        for (queue, messages) in &found.queues {
            eprintln!("found {queue:x}: {:?}", messages.keys().collect::<Vec<_>>());
        }
        for (at, appended) in self.ops.iter().enumerate() {
            eprintln!("{at:4} {}", describe(&appended.op));
        }
        Err(format!("{confirmed} of {asked} were confirmed, exact: {exact}; {}", near.unwrap_or_default()))
    }
}

/// Which ops may have waited, and which were still waiting for a large file when the store ended: those that could, and whose
/// effects are not there. What comes into the same queue before a large message is confirmed waits too, and a transaction
/// for what it takes away. Nothing of a queue comes before what is still waiting there.
fn late(history: &[Appended], ops: &[&Op], confirmed: usize, found: &State, large: usize) -> (Vec<bool>, Vec<bool>) {
    let mut waiting: BTreeMap<(QueueId, Seq), usize> = BTreeMap::new();
    let mut may_wait = vec![false; ops.len()];
    for (at, Appended { op, confirmed, .. }) in history.iter().enumerate() {
        let in_tx = matches!(op, Op::Transaction(_));
        let behind = || waiting.iter().filter(|(_, since)| *since >= confirmed).map(|(message, _)| message);
        may_wait[at] = parts(op).iter().any(|part| match part {
            Op::Enqueue(queue, _, message) => message.body.len() >= large || behind().any(|(waits, _)| waits == queue),
            other => in_tx && behind().any(|(queue, seq)| takes(other, *queue, *seq)),
        });
        if may_wait[at] {
            waiting.extend(enqueued(op).map(|message| (message, at)));
        }
    }
    may_wait[..confirmed].fill(false);
    let has = |queue: QueueId, seq: Seq| found.queues.get(&queue).is_some_and(|messages| messages.contains_key(&seq));
    let mut missing = vec![false; ops.len()];
    let mut came: BTreeSet<QueueId> = BTreeSet::new();
    for at in (confirmed..ops.len()).rev() {
        let taken_later = |queue: QueueId, seq: Seq| {
            (at + 1..ops.len()).any(|later| !missing[later] && parts(ops[later]).iter().any(|op| takes(op, queue, seq)))
        };
        missing[at] = may_wait[at]
            && enqueued(ops[at]).all(|(queue, seq)| !came.contains(&queue) || taken_later(queue, seq))
            && parts(ops[at]).iter().any(|part| match part {
                Op::Enqueue(queue, seq, _) => !has(*queue, *seq) && !taken_later(*queue, *seq),
                Op::Settle(queue, range) => found.messages(*queue).any(|(seq, _)| within(range, *seq)),
                _ => false,
            });
        came.extend(enqueued(ops[at]).filter(|&(queue, seq)| has(queue, seq)).map(|(queue, _)| queue));
    }
    (may_wait, missing)
}

fn enqueued(op: &Op) -> impl Iterator<Item = (QueueId, Seq)> {
    parts(op).iter().filter_map(|part| match part {
        Op::Enqueue(queue, seq, _) => Some((*queue, *seq)),
        _ => None,
    })
}

/// Up to two of those that may wait, in every combination; none of them first.
fn doubts(may_wait: &[bool]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let those = || (0..may_wait.len()).filter(|at| may_wait[*at]);
    let pairs = those().flat_map(move |one| those().filter(move |two| *two >= one).map(move |two| vec![one, two]));
    std::iter::once(Vec::new()).chain(pairs)
}

fn parts(op: &Op) -> &[Op] {
    match op {
        Op::Transaction(ops) => ops,
        op => std::slice::from_ref(op),
    }
}

/// Whether an op takes a message out of its queue.
fn takes(op: &Op, queue: QueueId, seq: Seq) -> bool {
    match op {
        Op::Settle(from, range) => *from == queue && within(range, seq),
        Op::Purge(from, below, except) => {
            *from == queue && seq < *below && !except.iter().any(|range| within(range, seq))
        }
        Op::Topology(_, dropped) => *dropped == Some(queue),
        Op::Enqueue(..) | Op::Requeue(..) | Op::Transaction(_) | Op::Redelivered(_) => false,
    }
}

fn all_redelivered(state: &State) -> State {
    let mut state = state.clone();
    state.queues.values_mut().flat_map(BTreeMap::values_mut).for_each(|message| message.redelivered = true);
    state
}

fn describe(op: &Op) -> String {
    match op {
        Op::Enqueue(queue, seq, message) => format!("enqueue {queue:x}/{seq} of {}", message.body.len()),
        Op::Settle(queue, SeqRange { first, last }) => format!("settle {queue:x}/{first}..={last}"),
        Op::Purge(queue, below, except) => format!("purge {queue:x}/..{below} but {except:?}"),
        Op::Requeue(queue, SeqRange { first, last }, count) => format!("requeue {queue:x}/{first}..={last} as {count}"),
        Op::Topology(changes, dropped) => {
            let keys = changes.iter().map(|(key, value)| (String::from_utf8_lossy(key), value.as_ref().map(Vec::len)));
            format!("change {:?}, drop {dropped:x?}", keys.collect::<Vec<_>>())
        }
        Op::Transaction(ops) => format!("commit [{}]", ops.iter().map(describe).collect::<Vec<_>>().join(", ")),
        Op::Redelivered(_) => "close".to_owned(),
    }
}

/// What of `expected` is not there, and what is there beside it.
fn differences(expected: &State, found: &State) -> String {
    let list = |state: &State, other: &State| {
        let mut out = Vec::new();
        for (queue, messages) in &state.queues {
            for (seq, message) in messages {
                if other.queues.get(queue).and_then(|messages| messages.get(seq)) != Some(message) {
                    out.push(format!("{queue:x}/{seq}{}", if message.redelivered { "r" } else { "" }));
                }
            }
        }
        let keys = state.topology.iter().filter(|(key, value)| other.topology.get(*key) != Some(value));
        out.extend(keys.map(|(key, _)| String::from_utf8_lossy(key).into_owned()));
        out.join(" ")
    };
    format!("missing: [{}], too much: [{}]", list(expected, found), list(found, expected))
}
