//! Transactions: publishes and settlements that take effect together at tx.commit, also over a crash.

use std::sync::Arc;

use protocol::amqp::{AMQPClass, tx};
use protocol::{AmqpError, ReplyCode};
use smallvec::SmallVec;
use storage::{Lsn, Seq, TxOp};

use super::Session;
use super::channel::{Channel, Mode};
use super::confirm::Confirms;
use super::dispatch::unimplemented;
use crate::model::clock::Clock;
use crate::model::death::Reason;
use crate::model::memory::{Memory, Owner, Share};
use crate::model::message::Message;
use crate::queue::delivery_limit::Return;
use crate::queue::settle::{Acked, Rejected, Requeue};
use crate::queue::unacked::Unacked;
use crate::queue::window::{Locked, Windows};
use crate::queue::{NotReserved, Queue};
use crate::vhost::{Beside, Claims, Passage};

/// What a channel has done since the last commit.
pub(super) struct Transaction {
    publishes: Vec<TxPublish>,
    pub settled: Vec<TxSettle>,
    /// A commit is on its way to the disk.
    pub committing: bool,
    /// Octets of `publishes`.
    bytes: usize,
    share: Share,
}

/// A publish, routed when it was made.
struct TxPublish {
    message: Message,
    queues: SmallVec<[Arc<Queue>; 1]>,
    beside: Option<Box<Beside>>,
    mandatory: bool,
    /// What makes it known to those who do not take duplicates.
    claims: Option<Box<Claims>>,
    /// When it was made, if it can expire: its time runs from the commit.
    made_ms: Option<u64>,
}

impl Transaction {
    fn new(memory: Arc<Memory>) -> Self {
        let share = Share::new(memory, Owner::Transactions);
        Self { publishes: Vec::new(), settled: Vec::new(), committing: false, bytes: 0, share }
    }

    /// Keeps a publish for the commit.
    ///
    /// # Errors
    ///
    /// 506 when open transactions take too much memory. Holding the publisher would not do: its commit would wait behind.
    pub(super) fn add(
        &mut self,
        message: Message,
        queues: &[Arc<Queue>],
        beside: Beside,
        mandatory: bool,
        claims: Option<Box<Claims>>,
        clock: &Clock,
    ) -> Result<(), AmqpError> {
        let made_ms = message.deadline_ms().map(|_| clock.now_ms());
        self.bytes += std::mem::size_of::<TxPublish>() + message.resident_bytes() + beside.bytes();
        self.share.set(self.bytes);
        let beside = (!beside.is_empty()).then(|| Box::new(beside));
        self.publishes.push(TxPublish { message, queues: queues.into(), beside, mandatory, claims, made_ms });
        if self.share.memory().transactions_are_full() {
            return Err(AmqpError::new(ReplyCode::ResourceError, "too many octets in open transactions"));
        }
        Ok(())
    }

    /// Publishes and settlements that wait for the commit.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.publishes.len() as u64, self.settled.len() as u64)
    }

    /// What it had published is committed or rolled back.
    fn clear_bytes(&mut self) {
        self.bytes = 0;
        self.share.set(0);
    }
}

/// A settlement of a delivery; its tag is no longer outstanding.
pub(super) struct TxSettle {
    pub unacked: Unacked,
    /// It goes back to its queue.
    pub requeue: Option<Return>,
    /// Not an acknowledgement: it is dead-lettered where its queue does that.
    pub is_rejected: bool,
    /// It must not be lost and nobody takes it now: its queue tries again after the commit.
    pub tried_later: bool,
}

/// A commit whose log entries are written but not yet durable.
pub(super) struct PendingCommit {
    pub lsn: Lsn,
    channel: u16,
    channel_slot: u32,
    publishes: Vec<(Arc<Queue>, Seq, Arc<Message>)>,
    beside: Vec<(Box<Beside>, Arc<Message>)>,
    returns: Vec<Arc<Message>>,
    settled: Vec<TxSettle>,
    /// A queue had no room for one of its messages.
    is_partial: bool,
}

const TX: u16 = 90;
const COMMIT: u16 = 20;

impl Session {
    pub(super) fn on_tx(&mut self, channel: &mut Channel, method: &tx::AMQPMethod) -> Result<(), AmqpError> {
        match method {
            tx::AMQPMethod::Select(_) => {
                match channel.publisher.mode {
                    Mode::Plain => {
                        channel.publisher.mode = Mode::Transaction(Transaction::new(Arc::clone(&self.broker.memory)));
                        channel.publisher.show(|state| state.is_transactional = true);
                    }
                    Mode::Transaction(_) => {}
                    Mode::Confirm(_) => {
                        return Err(AmqpError::new(
                            ReplyCode::PreconditionFailed,
                            "cannot switch from confirm to tx mode",
                        )
                        .at(TX, 10));
                    }
                }
                self.reply(channel.number, &AMQPClass::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {})));
                Ok(())
            }
            tx::AMQPMethod::Commit(_) => {
                self.counting(channel.number, &mut channel.publisher);
                self.commit(channel)
            }
            tx::AMQPMethod::Rollback(_) => {
                self.counting(channel.number, &mut channel.publisher);
                self.rollback(channel)
            }
            other => Err(unimplemented(&AMQPClass::Tx(other.clone()))),
        }
    }

    pub(super) fn on_confirm_select(&mut self, channel: &mut Channel, nowait: bool) -> Result<(), AmqpError> {
        use protocol::amqp::confirm;
        match channel.publisher.mode {
            Mode::Plain => {
                channel.publisher.mode = Mode::Confirm(Confirms::new());
                channel.publisher.show(|state| state.confirms = true);
            }
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                return Err(
                    AmqpError::new(ReplyCode::PreconditionFailed, "cannot switch from tx to confirm mode").at(85, 10)
                );
            }
        }
        if !nowait {
            self.reply(channel.number, &AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {})));
        }
        Ok(())
    }

    fn commit(&mut self, channel: &mut Channel) -> Result<(), AmqpError> {
        let Mode::Transaction(transaction) = &mut channel.publisher.mode else {
            return Err(not_transactional(COMMIT));
        };
        let mut ops = Vec::new();
        let mut publishes = Vec::new();
        let mut beside = Vec::new();
        let mut returns = Vec::new();
        let mut is_partial = false;
        let mut windows = Windows::new();
        for claims in transaction.publishes.iter().filter_map(|publish| publish.claims.as_ref()) {
            claims.add_windows(&mut windows);
        }
        let mut locked = Locked::new(&mut windows, self.broker.clock().now_ms());
        // Where that is durable which others had before.
        let mut originals = Lsn(0);
        for publish in transaction.publishes.drain(..) {
            let TxPublish { mut message, queues, beside: others, mandatory, mut claims, made_ms } = publish;
            if let Some(claims) = &mut claims
                && claims.is_late(&locked)
            {
                originals = originals.max(claims.original().unwrap_or_default());
                continue;
            }
            if let Some(made_ms) = made_ms {
                message.postpone_expiry(self.broker.clock().now_ms().saturating_sub(made_ms));
            }
            let message = Arc::new(message);
            if queues.is_empty() && mandatory {
                returns.push(Arc::clone(&message));
            }
            let mut had = Had { taken: others.is_some(), ..Had::default() };
            if let Some(mut others) = others {
                let before = ops.len();
                others.commit(&message, self.broker.clock().now_ms(), &mut ops);
                had.stored = ops.len() > before;
                beside.push((others, Arc::clone(&message)));
            }
            for queue in queues {
                if let Some(claims) = &mut claims
                    && claims.is_late_for(&queue, &locked)
                {
                    had.taken = true;
                    continue;
                }
                match enter(&queue, &message, &mut ops, &mut publishes) {
                    Ok(()) => {
                        let stored = queue.stores(&message);
                        if let Some(claims) = &claims {
                            claims.taken_by(&queue, stored, &mut locked, &mut ops);
                        }
                        had.taken = true;
                        had.stored |= stored;
                    }
                    Err(reason) => had.refused |= reason == NotReserved::NoRoom,
                }
            }
            is_partial |= had.refused;
            if let Some(claims) = claims {
                originals = originals.max(claims.original().unwrap_or_default());
                if had.taken && !had.refused {
                    claims.taken(had.stored, &mut locked, &mut ops);
                }
            }
        }
        transaction.clear_bytes();
        let mut settled = std::mem::take(&mut transaction.settled);
        let mut acked = Acked::default();
        for TxSettle { unacked, is_rejected, tried_later, .. } in
            settled.iter_mut().filter(|settle| settle.requeue.is_none())
        {
            let Some(queue) = self.outbox.queue_of(unacked) else { continue };
            let to = if *is_rejected { queue.dead_letter_to() } else { None };
            if let Some(to) = to
                && let Some(vhost) = &self.vhost
            {
                let before = (publishes.len(), beside.len());
                // Its way to other queues is part of the transaction, as that of its publishes.
                if let Some(passage) = vhost.passage(&queue, &to, &unacked.message, Reason::Rejected) {
                    let Passage { message, queues, beside: mut others } = passage;
                    if !others.is_empty() {
                        others.commit(&message, self.broker.clock().now_ms(), &mut ops);
                        beside.push((Box::new(others), Arc::clone(&message)));
                    }
                    for target in queues {
                        // One without room takes nothing, as with any dead letter.
                        let _ = enter(&target, &message, &mut ops, &mut publishes);
                    }
                }
                *tried_later = to.at_least_once && (publishes.len(), beside.len()) == before;
                if *tried_later {
                    continue;
                }
            }
            acked.add(queue, unacked);
        }
        ops.extend(acked.durable_ranges().map(|(queue, range)| TxOp::Settle { queue, range }));
        let lsn = if ops.is_empty() { Lsn(0) } else { self.broker.store.transaction(ops) };
        locked.appended(lsn);
        drop(locked);
        let lsn = lsn.max(originals);
        transaction.committing = true;
        self.commits.push_back(PendingCommit {
            lsn,
            channel: channel.number,
            channel_slot: channel.slot,
            publishes,
            beside,
            returns,
            settled,
            is_partial,
        });
        if lsn <= self.broker.store.durable() {
            // Nothing to wait for: the channel is at hand, so that it is answered here.
            self.finish_commits(Some(channel));
        }
        Ok(())
    }

    /// Lets committed transactions take effect. `current` is the channel whose method is being handled: it is not in the
    /// table then.
    pub(super) fn finish_commits(&mut self, mut current: Option<&mut Channel>) {
        let durable = self.broker.store.durable();
        while self.commits.front().is_some_and(|commit| commit.lsn <= durable) {
            let Some(commit) = self.commits.pop_front() else {
                break;
            };
            let number = commit.channel;
            let alive = match current.as_deref() {
                Some(channel) if channel.number == number => Some(channel),
                _ => self.channel(number),
            };
            let alive = alive.is_some_and(|channel| channel.slot == commit.channel_slot && !channel.closing);
            let is_partial = commit.is_partial;
            let returns = self.apply(commit, alive);
            let channel = match current.as_deref_mut() {
                Some(channel) if channel.number == number => Some(channel),
                _ => self.channel_mut(number),
            };
            let Some(Channel { publisher, closing: false, .. }) = channel else {
                continue;
            };
            if let Mode::Transaction(transaction) = &mut publisher.mode {
                transaction.committing = false;
            }
            for message in returns {
                self.push_return(number, message);
            }
            if !is_partial {
                self.reply(number, &AMQPClass::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {})));
                continue;
            }
            match current.as_deref_mut() {
                Some(channel) if channel.number == number => self.close_channel(channel, &partial()),
                _ => {
                    if let Some(mut channel) = self.take_channel(number) {
                        self.close_channel(&mut channel, &partial());
                        self.put_channel(channel);
                    }
                }
            }
        }
    }

    /// The session ends: what has been committed takes effect all the same, for it is in the log.
    pub(super) fn apply_commits(&mut self) {
        while let Some(commit) = self.commits.pop_front() {
            self.apply(commit, false);
        }
    }

    fn apply(&mut self, commit: PendingCommit, alive: bool) -> Vec<Arc<Message>> {
        let channel = alive.then_some(commit.channel_slot);
        for (queue, seq, message) in commit.publishes {
            queue.publish_reserved(seq, &message, &mut self.wakes);
        }
        for (beside, message) in commit.beside {
            beside.hand_over(&message, &mut self.wakes);
        }
        let mut acked = Acked::default();
        let mut requeue = Requeue::default();
        let mut rejected = Rejected::default();
        let mut resume = Vec::new();
        let (later, settled): (Vec<_>, Vec<_>) = commit.settled.into_iter().partition(|settle| settle.tried_later);
        let (back, gone): (Vec<_>, Vec<_>) = settled.into_iter().partition(|settle| settle.requeue.is_some());
        let (in_vain, unharmed): (Vec<_>, Vec<_>) =
            back.into_iter().partition(|settle| settle.requeue == Some(Return::InVain));
        let held = channel.filter(|_| !in_vain.is_empty() || !unharmed.is_empty());
        if let Some(slot) = held {
            self.outbox.hold(slot);
        }
        let unacked = |settles: Vec<TxSettle>| settles.into_iter().map(|s| s.unacked).collect();
        self.outbox.release(channel, unacked(gone), &mut resume, |queue, unacked| acked.add(queue, &unacked));
        for (settles, how) in [(in_vain, Return::InVain), (unharmed, Return::Unharmed)] {
            self.outbox
                .release(channel, unacked(settles), &mut resume, |queue, unacked| requeue.add(queue, unacked, how));
        }
        self.outbox.release(channel, unacked(later), &mut resume, |queue, unacked| rejected.add(queue, unacked));
        // Their settlement is part of the transaction's log entries.
        acked.forget();
        rejected.commit();
        requeue.commit(&mut self.wakes);
        if let Some(slot) = held {
            self.outbox.let_go(slot, &mut resume);
        }
        self.resume(resume);
        commit.returns
    }

    fn rollback(&mut self, channel: &mut Channel) -> Result<(), AmqpError> {
        let Mode::Transaction(transaction) = &mut channel.publisher.mode else {
            return Err(not_transactional(30));
        };
        transaction.publishes = Vec::new();
        transaction.clear_bytes();
        let taken = transaction.settled.drain(..).map(|settle| settle.unacked).collect();
        self.outbox.restore(channel.slot, taken);
        self.reply(channel.number, &AMQPClass::Tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {})));
        Ok(())
    }
}

/// Who has had a message that is not to be had twice.
#[derive(Default)]
struct Had {
    taken: bool,
    stored: bool,
    refused: bool,
}

/// A message of a transaction gets its place in a queue. That one was deleted meanwhile, and so takes nothing, is no error.
fn enter(
    queue: &Arc<Queue>,
    message: &Arc<Message>,
    ops: &mut Vec<TxOp>,
    publishes: &mut Vec<(Arc<Queue>, Seq, Arc<Message>)>,
) -> Result<(), NotReserved> {
    let message = queue.with_own_deadline(message);
    let seq = queue.reserve(&message)?;
    if queue.stores(&message) {
        ops.push(queue.entry_of(seq, &message));
    }
    publishes.push((Arc::clone(queue), seq, message));
    Ok(())
}

/// As in RabbitMQ: the rest of the transaction has taken effect.
fn partial() -> AmqpError {
    AmqpError::new(ReplyCode::PreconditionFailed, "partial tx completion").at(TX, COMMIT)
}

fn not_transactional(method: u16) -> AmqpError {
    AmqpError::new(ReplyCode::PreconditionFailed, "channel is not transactional").at(TX, method)
}
