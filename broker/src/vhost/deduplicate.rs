//! Publishing where duplicates are not taken: by exchanges that a message comes through, and by queues that it comes to.
//!
//! Only what clients publish is looked at, and what has been kept back on its way from them, by the queues. Dead letters and
//! histories are not: a message that comes back to its queue is no duplicate of itself.
//!
//! A key is remembered when somebody has taken the message and nobody has refused it, so that a publisher can try again what
//! led nowhere or was refused.

use std::sync::Arc;

use protocol::Properties;
use smallvec::SmallVec;
use storage::{Lsn, QueueId, TxOp};

use super::Vhost;
use super::beside::Beside;
use super::exchange::Exchange;
use super::route::Targets;
use crate::model::deduplication::Key;
use crate::model::message::Message;
use crate::queue::signal::WakeList;
use crate::queue::window::{Locked, Stored, Window, Windows, add};
use crate::queue::{NotReserved, Published, Queue, Services};

/// A key that a message has in a window.
struct Claim {
    window: Arc<Window>,
    key: Key,
    ttl_ms: Option<u64>,
}

impl Claim {
    fn new(window: &Arc<Window>, headers: &[u8]) -> Option<Self> {
        let key = window.asked().key(headers)?;
        Some(Self { window: Arc::clone(window), key, ttl_ms: window.asked().ttl_ms(headers) })
    }

    fn find(&self, locked: &Locked<'_>) -> Option<Lsn> {
        locked.find(&self.window, &self.key)
    }

    fn remember(&self, stored: bool, locked: &mut Locked<'_>, ops: &mut Vec<TxOp>) {
        locked.remember(&self.window, self.key, self.ttl_ms, stored, ops);
    }
}

/// The keys that a message has in the windows on its way.
#[derive(Default)]
pub struct Claims {
    /// Those of exchanges.
    exchanges: SmallVec<[Claim; 1]>,
    /// The first of them is of the exchange that it was published to.
    is_first_own: bool,
    queues: SmallVec<[(QueueId, Claim); 1]>,
    /// Some of those that it would have come to had it before: where that is durable.
    original: Option<Lsn>,
    /// Among them were queues.
    had_by_queue: bool,
}

impl Claims {
    /// The keys in windows that have not seen them; queues that have are no targets any more.
    fn new(exchange: &Exchange, targets: &mut Targets, headers: &[u8], locked: &Locked<'_>) -> Self {
        let mut claims = Self { original: targets.original, ..Self::default() };
        let claimed = targets.windows.iter().filter_map(|window| Claim::new(window, headers));
        claims.exchanges = claimed.filter(|claim| claim.find(locked).is_none()).collect();
        claims.is_first_own = exchange
            .window()
            .zip(claims.exchanges.first())
            .is_some_and(|(window, first)| Arc::ptr_eq(window, &first.window));
        claims.leave_out(&mut targets.queues, headers, locked);
        claims
    }

    fn leave_out(&mut self, queues: &mut Vec<Arc<Queue>>, headers: &[u8], locked: &Locked<'_>) {
        queues.retain(|queue| {
            let Some(claim) = queue.window().and_then(|window| Claim::new(window, headers)) else {
                return true;
            };
            if let Some(lsn) = claim.find(locked) {
                self.had(lsn);
                return false;
            }
            self.queues.push((queue.id(), claim));
            true
        });
    }

    fn had(&mut self, lsn: Lsn) {
        self.original = self.original.max(Some(lsn));
        self.had_by_queue = true;
    }

    /// Where the message is durable that this one is a duplicate of; `None` when nobody has had it.
    pub fn original(&self) -> Option<Lsn> {
        self.original
    }

    /// The windows, to be locked.
    pub fn add_windows(&self, windows: &mut Windows) {
        for claim in self.exchanges.iter().chain(self.queues.iter().map(|(_, claim)| claim)) {
            add(windows, &claim.window);
        }
    }

    /// Whether the exchange that it was published to has had it by now. The message goes nowhere then.
    pub fn is_late(&mut self, locked: &Locked<'_>) -> bool {
        let own = self.exchanges.first().filter(|_| self.is_first_own);
        let found = own.and_then(|claim| claim.find(locked));
        self.original = self.original.max(found);
        found.is_some()
    }

    /// Whether a queue has had it by now. The message does not go there then.
    pub fn is_late_for(&mut self, queue: &Queue, locked: &Locked<'_>) -> bool {
        let found = self.claim_of(queue).and_then(|claim| claim.find(locked));
        if let Some(lsn) = found {
            self.had(lsn);
        }
        found.is_some()
    }

    fn claim_of(&self, queue: &Queue) -> Option<&Claim> {
        self.queues.iter().find(|(id, _)| *id == queue.id()).map(|(_, claim)| claim)
    }

    /// A queue takes it. What belongs into the same transaction is added to `ops` if it is `stored` there.
    pub fn taken_by(&self, queue: &Queue, stored: bool, locked: &mut Locked<'_>, ops: &mut Vec<TxOp>) {
        if let Some(claim) = self.claim_of(queue) {
            claim.remember(stored, locked, ops);
        }
    }

    /// Everybody takes it who is to get it, so that it is not routed again; `stored` is whether somebody stores it.
    pub fn taken(&self, stored: bool, locked: &mut Locked<'_>, ops: &mut Vec<TxOp>) {
        for claim in &self.exchanges {
            claim.remember(stored, locked, ops);
        }
    }
}

/// A message that is being published, and its windows, locked.
pub struct Fresh<'l, 'w> {
    claims: Claims,
    locked: &'l mut Locked<'w>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Where it is durable, or what it is a duplicate of.
    pub lsn: Lsn,
    /// Somebody took it, or had it before.
    pub taken: bool,
    /// A queue refused it.
    pub refused: bool,
}

impl Outcome {
    fn add(&mut self, published: Published) -> bool {
        match published {
            Published::Taken(lsn) => {
                self.lsn = self.lsn.max(lsn);
                self.taken = true;
                return true;
            }
            Published::Refused => self.refused = true,
            Published::Gone => {}
        }
        false
    }
}

impl Fresh<'_, '_> {
    /// Where the message is durable that this one is a duplicate of; `None` when nobody has had it.
    pub fn original(&self) -> Option<Lsn> {
        self.claims.original
    }

    /// The keys, for a transaction that is still open.
    pub fn into_claims(self) -> Claims {
        self.claims
    }

    /// Hands the message to those who have not had it: all that is stored, the keys included, in one transaction, to which
    /// `ops` belong as well.
    pub fn publish(
        self,
        services: &Services,
        message: &Arc<Message>,
        queues: &[Arc<Queue>],
        mut beside: Beside,
        mut ops: Vec<TxOp>,
        wakes: &mut WakeList,
    ) -> Outcome {
        let Self { claims, locked } = self;
        let mut outcome = Outcome {
            lsn: claims.original.unwrap_or_default(),
            taken: !beside.is_empty() || claims.had_by_queue,
            refused: false,
        };
        let (storing, other): (Vec<_>, Vec<_>) = queues.iter().partition(|queue| queue.stores(message));
        // Those that do not survive a crash first: what is lost then is lost with them.
        for queue in other {
            if outcome.add(queue.publish(message, wakes)) {
                claims.taken_by(queue, false, locked, &mut ops);
            }
        }
        let before = ops.len();
        beside.commit(message, services.timers.clock().now_ms(), &mut ops);
        let mut stored = ops.len() > before;
        let mut places = Vec::new();
        if let [queue] = storing[..] {
            let refused = outcome.refused;
            let mut append = |entry| {
                ops.push(entry);
                claims.taken_by(queue, true, locked, &mut ops);
                if !refused {
                    claims.taken(true, locked, &mut ops);
                }
                let lsn = services.store.transaction(std::mem::take(&mut ops));
                locked.appended(lsn);
                lsn
            };
            if outcome.add(queue.publish_together(message, &mut append, wakes)) {
                beside.hand_over(message, wakes);
                return outcome;
            }
        } else {
            for queue in storing {
                let message = queue.with_own_deadline(message);
                match queue.reserve(&message) {
                    Ok(seq) => {
                        ops.push(queue.entry_of(seq, &message));
                        claims.taken_by(queue, true, locked, &mut ops);
                        places.push((queue, seq, message));
                        stored = true;
                    }
                    Err(reason) => outcome.refused |= reason == NotReserved::NoRoom,
                }
            }
        }
        outcome.taken |= stored;
        if outcome.taken && !outcome.refused {
            claims.taken(stored, locked, &mut ops);
        }
        if !ops.is_empty() {
            outcome.lsn = outcome.lsn.max(services.store.transaction(ops));
        }
        locked.appended(outcome.lsn);
        for (queue, seq, message) in places {
            queue.publish_placed(seq, &message, wakes);
        }
        beside.hand_over(message, wakes);
        outcome
    }
}

/// The windows that know a message with these headers.
fn windows_of(targets: &Targets, headers: &[u8]) -> Windows {
    let mut windows = Windows::new();
    let of_queues = targets.queues.iter().filter_map(|queue| queue.window());
    for window in of_queues.filter(|window| window.asked().key(headers).is_some()).chain(&targets.windows) {
        add(&mut windows, window);
    }
    windows
}

impl Targets {
    /// Whether somebody on its way does not take duplicates and knows messages with these headers.
    pub fn are_watched(&self, headers: &[u8]) -> bool {
        !self.windows.is_empty()
            || self.queues.iter().any(|queue| queue.window().is_some()) && !windows_of(self, headers).is_empty()
    }
}

impl Vhost {
    /// Room in the store for what a new exchange or queue keeps, if it is durable.
    pub(super) fn new_stored(&self, durable: bool) -> Option<Stored> {
        durable.then(|| Stored { id: self.services.store.new_queue_id(), found: None })
    }

    /// Routes a message whose targets are watched again, with all windows on its way locked, past those who have had it.
    /// `then` publishes it, or keeps it for the commit.
    pub fn route_fresh<R>(
        &self,
        exchange: &Arc<Exchange>,
        keys: &[&str],
        properties: &Properties<'_>,
        targets: &mut Targets,
        then: impl FnOnce(&mut Targets, Fresh<'_, '_>) -> R,
    ) -> R {
        let headers = properties.headers().unwrap_or_default();
        let now_ms = self.services.timers.clock().now_ms();
        let mut windows = windows_of(targets, headers);
        loop {
            let mut locked = Locked::new(&mut windows, now_ms);
            self.route_past(exchange, keys, Some(properties), targets, Some(&locked));
            let found = windows_of(targets, headers);
            if found.iter().all(|window| locked.holds(window)) {
                let claims = Claims::new(exchange, targets, headers, &locked);
                return then(targets, Fresh { claims, locked: &mut locked });
            }
            // Chance had a say in it, or a change of the topology: they are to be locked in their order.
            drop(locked);
            for window in &found {
                add(&mut windows, window);
            }
        }
    }

    /// Hands on a message that was kept back on its way to queues: these may have had another one like it. False when there
    /// was nothing to look at.
    pub(super) fn hand_on_fresh(
        &self,
        message: &Arc<Message>,
        queues: &mut Vec<Arc<Queue>>,
        beside: &mut Beside,
        settle: Option<TxOp>,
        wakes: &mut WakeList,
    ) -> bool {
        let parsed = Properties::parse(message.content().properties).ok();
        let Some(headers) = parsed.as_ref().and_then(|properties| properties.headers()) else {
            return false;
        };
        let mut windows = Windows::new();
        for queue in queues.iter() {
            if let Some(window) = queue.window().filter(|window| window.asked().key(headers).is_some()) {
                add(&mut windows, window);
            }
        }
        if windows.is_empty() {
            return false;
        }
        let mut locked = Locked::new(&mut windows, self.services.timers.clock().now_ms());
        let mut claims = Claims::default();
        claims.leave_out(queues, headers, &locked);
        let fresh = Fresh { claims, locked: &mut locked };
        fresh.publish(&self.services, message, queues, std::mem::take(beside), settle.into_iter().collect(), wakes);
        true
    }
}
