//! Deduplication windows: the keys of the messages that an exchange or a queue has taken lately.
//!
//! The window of a durable exchange or queue has a queue id of its own in the store, and each key is a small message there,
//! written in the same transaction as the message that it stands for: after a crash both are there or neither is. So a
//! duplicate of a confirmed message is recognised, and the retry of a message that was lost is not taken for one. The key of a
//! message that is not stored itself is in memory only. A duplicate is confirmed no sooner than its original: a key knows
//! where its message is durable.
//!
//! Whoever publishes locks all windows that the message comes through, and holds them until it has its place in the log
//! ([`Locked`]). They come before the locks of queues, and in the order of their addresses.

mod remembered;

use std::sync::{Arc, mpsc};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use storage::{Lsn, Meta, Payload, Place, QueueId, ReadMessage, RecoveredQueue, Seq, TxOp};

pub use remembered::{New, Remembered};

use super::ready::ranges;
use super::{Queue, Services};
use crate::model::deduplication::{Deduplication, Key};
use crate::model::memory::{Owner, Share};

/// Octets in one read at start.
const READ_BYTES: usize = 1 << 20;

/// See the module's documentation.
pub struct Window {
    asked: Deduplication,
    id: Option<QueueId>,
    state: Mutex<State>,
}

struct State {
    remembered: Remembered,
    share: Share,
}

/// What an exchange or a queue keeps something under in the store, and what was found there.
#[derive(Clone, Copy)]
pub struct Stored {
    /// The identity in the store.
    pub id: QueueId,
    /// What a start has found.
    pub found: Option<RecoveredQueue>,
}

impl Window {
    /// A window of a durable exchange or queue gets an identity in the store, unless its keys need not persist. What the store
    /// has is read here: this is for the start of the broker, when nobody waits for it.
    pub fn new(asked: Deduplication, stored: Option<Stored>, services: &Services) -> Arc<Self> {
        let stored = stored.filter(|_| asked.persists);
        let found = stored.and_then(|stored| stored.found);
        let remembered = Remembered::new(asked.size, found.map_or(1, |found| found.next_seq.max(1)));
        let share = Share::new(Arc::clone(&services.memory), Owner::Queues);
        let id = stored.map(|stored| stored.id);
        let window = Self { asked, id, state: Mutex::new(State { remembered, share }) };
        if let (Some(id), Some(found)) = (id, found.filter(|found| found.messages > 0)) {
            window.load(id, found.first, services);
        }
        Arc::new(window)
    }

    fn load(&self, id: QueueId, mut from: Seq, services: &Services) {
        let mut state = self.state.lock();
        let mut forgotten = Vec::new();
        loop {
            let (answer, answered) = mpsc::channel();
            let done = move |batch| {
                // Whoever asked waits for it.
                let _ = answer.send(batch);
            };
            services.store.read(id, from, usize::MAX, READ_BYTES, Box::new(done));
            services.store.kick();
            // Nothing comes when the store has stopped.
            let Ok(batch) = answered.recv() else { break };
            let now_ms = services.timers.clock().now_ms();
            for ReadMessage { seq, payload, .. } in batch.messages {
                match read(&payload) {
                    Some((key, until_ms)) if until_ms.is_none_or(|until_ms| until_ms > now_ms) => {
                        state.remembered.put(seq, New { key, until_ms, stored: true }, now_ms, &mut forgotten);
                    }
                    _ => forgotten.push(seq),
                }
            }
            forgotten.extend(batch.damaged);
            if batch.end || batch.next <= from {
                break;
            }
            from = batch.next;
        }
        forgotten.sort_unstable();
        for range in ranges(forgotten.into_iter()) {
            services.store.settle(id, range);
        }
        state.account();
    }

    /// What the store knows its keys by; `None` when they are in memory only.
    pub fn id(&self) -> Option<QueueId> {
        self.id
    }

    /// What it was asked for.
    pub fn asked(&self) -> &Deduplication {
        &self.asked
    }

    /// How many keys it has in memory.
    pub fn len(&self) -> usize {
        self.state.lock().remembered.len()
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn account(&mut self) {
        self.share.set(self.remembered.bytes());
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("id", &self.id).field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl Queue {
    /// Where it remembers what has come, if duplicates are not taken.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.window.get()
    }

    /// From now on duplicates are not taken, if its arguments ask for that. `stored` is for a durable queue; it is called once
    /// the window turns out to be needed.
    pub fn open_window(&self, stored: impl FnOnce() -> Option<Stored>) {
        if let Some(asked) = Deduplication::from_arguments(&self.spec().arguments, false) {
            // A queue is given its window before anybody can find it.
            self.window.get_or_init(|| Window::new(asked, stored(), &self.services));
        }
    }
}

/// Windows, each once.
pub type Windows = SmallVec<[Arc<Window>; 2]>;

/// Adds a window unless it is there.
pub fn add(windows: &mut Windows, window: &Arc<Window>) {
    if !windows.iter().any(|known| Arc::ptr_eq(known, window)) {
        windows.push(Arc::clone(window));
    }
}

/// Windows that nobody else looks into.
pub struct Locked<'w> {
    held: SmallVec<[(&'w Arc<Window>, MutexGuard<'w, State>); 2]>,
    now_ms: u64,
    /// Keys whose message has no place in the log yet: which window, and which number there.
    open: SmallVec<[(usize, Seq); 2]>,
}

impl<'w> Locked<'w> {
    /// Locks windows, which are brought into order for it. `now_ms` is the wall time.
    pub fn new(windows: &'w mut Windows, now_ms: u64) -> Self {
        windows.sort_unstable_by_key(|window| Arc::as_ptr(window).addr());
        windows.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let held = windows.iter().map(|window| (window, window.state.lock())).collect();
        Self { held, now_ms, open: SmallVec::new() }
    }

    fn position(&self, window: &Arc<Window>) -> Option<usize> {
        self.held.iter().position(|(held, _)| Arc::ptr_eq(held, window))
    }

    /// Whether this window is among them.
    pub fn holds(&self, window: &Arc<Window>) -> bool {
        self.position(window).is_some()
    }

    /// Where the message with this key is durable, if the window remembers it.
    pub fn find(&self, window: &Arc<Window>, key: &Key) -> Option<Lsn> {
        self.held.get(self.position(window)?)?.1.remembered.find(key, self.now_ms)
    }

    /// Remembers a key of a message that is about to be appended, for `ttl_ms` if that is given. When the message is `stored`,
    /// what has to be appended in the same transaction is added to `ops`. [`Locked::appended`] is to follow.
    pub fn remember(&mut self, window: &Arc<Window>, key: Key, ttl_ms: Option<u64>, stored: bool, ops: &mut Vec<TxOp>) {
        // Nothing would ever find it.
        if ttl_ms == Some(0) {
            return;
        }
        let Some(at) = self.position(window) else { return };
        let (window, state) = &mut self.held[at];
        let id = window.id.filter(|_| stored);
        let until_ms = ttl_ms.map(|ttl_ms| self.now_ms.saturating_add(ttl_ms));
        let mut forgotten = Vec::new();
        let seq = state.remembered.insert(New { key, until_ms, stored: id.is_some() }, self.now_ms, &mut forgotten);
        state.account();
        self.open.push((at, seq));
        if let Some(id) = id {
            let payload = Arc::new(Record { bytes: write(&key, until_ms), place: Place::default() });
            ops.push(TxOp::Enqueue { queue: id, seq, meta: Meta::default(), payload });
        }
        if let Some(id) = window.id {
            forgotten.sort_unstable();
            ops.extend(ranges(forgotten.into_iter()).into_iter().map(|range| TxOp::Settle { queue: id, range }));
        }
    }

    /// The messages whose keys were remembered since the last call are durable at `lsn`.
    pub fn appended(&mut self, lsn: Lsn) {
        for (at, seq) in self.open.drain(..) {
            self.held[at].1.remembered.durable_at(seq, lsn);
        }
    }
}

/// Octets of a stored key: version, key, wall time until which it counts or 0.
const RECORD_BYTES: usize = 1 + Key::BYTES + 8;
const VERSION: u8 = 1;

/// A key on its way into the store.
struct Record {
    bytes: [u8; RECORD_BYTES],
    place: Place,
}

impl Payload for Record {
    fn encoded_len(&self) -> usize {
        RECORD_BYTES
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
    }

    fn place(&self) -> &Place {
        &self.place
    }
}

fn write(key: &Key, until_ms: Option<u64>) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0] = VERSION;
    bytes[1..=Key::BYTES].copy_from_slice(key.as_bytes());
    bytes[1 + Key::BYTES..].copy_from_slice(&until_ms.unwrap_or(0).to_le_bytes());
    bytes
}

fn read(bytes: &[u8]) -> Option<(Key, Option<u64>)> {
    let (&VERSION, rest) = bytes.split_first()? else { return None };
    let (key, until_ms) = rest.split_first_chunk()?;
    let until_ms = u64::from_le_bytes(until_ms.try_into().ok()?);
    Some((Key::from_bytes(*key), (until_ms != 0).then_some(until_ms)))
}

#[cfg(test)]
mod tests;
