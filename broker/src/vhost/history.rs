//! The last messages of an exchange of the type `x-recent-history`, for those who are bound to it later.
//!
//! They are in memory, and those of a durable exchange in the store as well, under a queue id of its own, so that they are
//! there after a restart. The lock is above the store's pending buffer.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Arc, mpsc};

use amq_protocol::types::AMQPValue;
use parking_lot::Mutex;
use protocol::error::{AmqpError, ReplyCode};
use protocol::table::ValueRef;
use protocol::{Properties, lookup};
use storage::{Lsn, Meta, QueueId, Seq, SeqRange, TxOp};

use super::Vhost;
use super::exchange::{Destination, Exchange, ExchangeSpec};
use super::route::Targets;
use crate::model::arguments::{string, value_text};
use crate::model::death;
use crate::model::expiration;
use crate::model::memory::{Owner, Share};
use crate::model::message::Message;
use crate::queue::signal::WakeList;
use crate::queue::window::Stored;
use crate::queue::{Published, Services};
use crate::routing::kind::ExchangeKind;

const LENGTH: &str = "x-recent-history-length";
/// As many as RabbitMQ keeps when nobody says how many.
const DEFAULT_LENGTH: usize = 20;
/// A message with this header set to true is passed on and not kept.
const NO_STORE: &[u8] = b"x-recent-history-no-store";

/// Octets in one read at start.
const READ_BYTES: usize = 1 << 20;

/// See the module's documentation.
pub struct History {
    id: Option<QueueId>,
    length: usize,
    services: Services,
    state: Mutex<State>,
}

struct State {
    next_seq: Seq,
    messages: VecDeque<(Seq, Arc<Message>)>,
    bytes: usize,
    share: Share,
}

impl ExchangeSpec {
    /// How many messages it keeps for later; `None` when its type keeps none.
    pub(super) fn history_length(&self) -> Result<Option<usize>, AmqpError> {
        if self.kind != ExchangeKind::RecentHistory {
            return Ok(None);
        }
        let Some(value) = self.arguments.get(LENGTH) else {
            return Ok(Some(DEFAULT_LENGTH));
        };
        let length = match *value {
            AMQPValue::ShortShortInt(length) => length.into(),
            AMQPValue::ShortInt(length) => length.into(),
            AMQPValue::LongInt(length) => length.into(),
            AMQPValue::LongLongInt(length) => length,
            _ => 0,
        };
        match usize::try_from(length) {
            Ok(length) if length > 0 => Ok(Some(length)),
            _ => Err(invalid_length(&match string(value) {
                Some(text) => format!("<<\"{text}\">>"),
                None => value_text(value).to_string(),
            })),
        }
    }
}

fn invalid_length(value: &dyn Display) -> AmqpError {
    AmqpError::new(
        ReplyCode::PreconditionFailed,
        format_args!("Invalid argument {value}, '{LENGTH}' must be a positive integer"),
    )
}

/// Whether a message with these headers is to be kept.
pub(super) fn is_kept(properties: Option<&Properties<'_>>) -> bool {
    let header = properties.and_then(Properties::headers).and_then(|headers| lookup(headers, NO_STORE));
    !matches!(header, Some(ValueRef::Bool(true)))
}

impl History {
    /// Keeps up to `length` messages; `kept` when the exchange is durable. What the store has is read here: this is for the
    /// start of the broker, when nobody waits for it.
    pub(super) fn new(length: usize, kept: Option<Stored>, services: Services) -> Arc<Self> {
        let share = Share::new(Arc::clone(&services.memory), Owner::Queues);
        let id = kept.as_ref().map(|kept| kept.id);
        let found = kept.and_then(|kept| kept.found);
        let next_seq = found.map_or(1, |found| found.next_seq.max(1));
        let state = Mutex::new(State { next_seq, messages: VecDeque::new(), bytes: 0, share });
        let history = Arc::new(Self { id, length, services, state });
        if let (Some(id), Some(found)) = (id, found.filter(|found| found.messages > 0)) {
            history.load(id, found.first);
        }
        history
    }

    fn load(&self, id: QueueId, mut from: Seq) {
        loop {
            let (answer, answered) = mpsc::channel();
            let done = move |batch| {
                // Whoever asked waits for it.
                let _ = answer.send(batch);
            };
            self.services.store.read(id, from, usize::MAX, READ_BYTES, Box::new(done));
            self.services.store.kick();
            // Nothing comes when the store has stopped.
            let Ok(batch) = answered.recv() else { return };
            let mut state = self.state.lock();
            for read in batch.messages {
                if let Some(message) = Message::as_published(read.payload, read.place) {
                    self.keep(&mut state, read.seq, Arc::new(message), |queue, range| self.settle(queue, range));
                }
            }
            if batch.end || batch.next <= from {
                return;
            }
            from = batch.next;
        }
    }

    /// What the store knows its messages by; `None` when they are in memory only.
    pub fn id(&self) -> Option<QueueId> {
        self.id
    }

    /// Keeps a message; tells which of the store's it has no room for any more.
    fn keep(&self, state: &mut State, seq: Seq, message: Arc<Message>, mut dropped: impl FnMut(QueueId, SeqRange)) {
        state.bytes += message.resident_bytes();
        state.messages.push_back((seq, message));
        while state.messages.len() > self.length
            && let Some((seq, old)) = state.messages.pop_front()
        {
            state.bytes = state.bytes.saturating_sub(old.resident_bytes());
            if let Some(id) = self.id {
                dropped(id, SeqRange::one(seq));
            }
        }
        let bytes = state.bytes;
        state.share.set(bytes);
    }

    /// What it has no room for any more is settled at once.
    fn settle(&self, queue: QueueId, range: SeqRange) {
        self.services.store.settle(queue, range);
    }

    /// Keeps a message; returns where that is durable.
    pub fn add(&self, message: &Arc<Message>) -> Lsn {
        let mut state = self.state.lock();
        let seq = state.next_seq;
        state.next_seq += 1;
        // Its time runs in queues, not here.
        let append = |id| self.services.store.enqueue(id, seq, Meta::default(), Arc::clone(message) as _);
        let lsn = self.id.map_or(Lsn(0), append);
        self.keep(&mut state, seq, Arc::clone(message), |queue, range| self.settle(queue, range));
        lsn
    }

    /// Keeps a message that is part of a transaction. As far as it is stored, so is that, and what has to go for it: behind it,
    /// since that may be part of the same transaction.
    pub fn part_of_transaction(&self, message: &Arc<Message>, ops: &mut Vec<TxOp>) {
        let mut state = self.state.lock();
        let seq = state.next_seq;
        state.next_seq += 1;
        let payload = Arc::clone(message) as _;
        ops.extend(self.id.map(|queue| TxOp::Enqueue { queue, seq, meta: Meta::default(), payload }));
        self.keep(&mut state, seq, Arc::clone(message), |queue, range| ops.push(TxOp::Settle { queue, range }));
    }

    /// What is kept, the oldest first, as copies whose time begins now.
    fn replay(&self) -> Vec<Arc<Message>> {
        let kept: Vec<Arc<Message>> =
            self.state.lock().messages.iter().map(|(_, message)| Arc::clone(message)).collect();
        let now_ms = self.services.timers.clock().now_ms();
        let copy = |message: Arc<Message>| {
            let content = message.content();
            let expiration = Properties::parse(content.properties).ok().and_then(|properties| properties.expiration());
            let ttl_ms = expiration.and_then(|text| expiration::parse(text).ok());
            let mut copy = Message::derived(&message, message.traits(), content.address, content.properties);
            copy.set_deadline(ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms)));
            Arc::new(copy)
        };
        kept.into_iter().map(copy).collect()
    }
}

impl Vhost {
    /// Something new is bound to an exchange: it gets the history, if the exchange keeps one. Returns where that is durable.
    pub(super) fn replay_history(&self, source: &Exchange, destination: &Destination) -> Lsn {
        let Some(history) = source.history() else {
            return Lsn(0);
        };
        let mut wakes = WakeList::default();
        let mut lsn = Lsn(0);
        for message in history.replay() {
            let queues = match destination {
                Destination::Queue(queue) => vec![Arc::clone(queue)],
                Destination::Exchange(exchange) => {
                    let content = message.content();
                    let properties = Properties::parse(content.properties).ok();
                    let keys = death::routing_keys(&message);
                    let keys: Vec<&str> = keys.iter().map(|key| &*key.text).collect();
                    let mut targets = Targets::default();
                    self.route_to(exchange, &keys, properties.as_ref(), &mut targets);
                    targets.queues
                }
            };
            for queue in queues {
                if let Published::Taken(at) = queue.publish(&message, &mut wakes) {
                    lsn = lsn.max(at);
                }
            }
        }
        lsn
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("id", &self.id).field("length", &self.length).finish_non_exhaustive()
    }
}
