//! What is counted of messages, exchanges, connections and the broker itself. Each group is one [`Counters`] with these places.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::attempts::AllAttempts;
use super::collections::Map;
use super::counters::{Counters, Ticks};
use super::received::Received;

/// What happens to messages, as RabbitMQ's `message_stats` have it.
pub mod messages {
    /// Published.
    pub const PUBLISH: usize = 0;
    /// Confirmed to their publishers.
    pub const CONFIRM: usize = 1;
    /// Came back because they were mandatory and nobody took them.
    pub const RETURN_UNROUTABLE: usize = 2;
    /// Dropped, because nobody took them.
    pub const DROP_UNROUTABLE: usize = 3;
    /// Delivered to consumers that acknowledge.
    pub const DELIVER: usize = 4;
    /// Delivered to consumers that do not.
    pub const DELIVER_NO_ACK: usize = 5;
    /// Got by `basic.get`, to be acknowledged.
    pub const GET: usize = 6;
    /// Got by `basic.get` without acknowledgement.
    pub const GET_NO_ACK: usize = 7;
    /// Answers to `basic.get` that there is no message.
    pub const GET_EMPTY: usize = 8;
    /// Of the deliveries and gets, those that had gone out before.
    pub const REDELIVER: usize = 9;
    /// Acknowledged.
    pub const ACK: usize = 10;
    /// A gauge: ready messages of a queue.
    pub const READY: usize = 11;
    /// A gauge: messages of a queue that wait for an acknowledgement.
    pub const UNACKED: usize = 12;
    /// How many there are.
    pub const LEN: usize = 13;
}

/// What goes through an exchange.
pub mod exchange {
    /// Published to it by clients.
    pub const IN: usize = 0;
    /// Handed to queues, one for each queue.
    pub const OUT: usize = 1;
    /// How many there are.
    pub const LEN: usize = 2;
}

/// What goes over a connection's socket.
pub mod traffic {
    /// Octets read.
    pub const RECEIVED_OCTETS: usize = 0;
    /// Octets written.
    pub const SENT_OCTETS: usize = 1;
    /// Times something was read.
    pub const RECEIVED: usize = 2;
    /// Times something was written.
    pub const SENT: usize = 3;
    /// How many there are.
    pub const LEN: usize = 4;
}

/// What comes and goes, as RabbitMQ's `churn_rates` have it.
pub mod churn {
    /// Connections that were accepted and spoke AMQP.
    pub const CONNECTION_CREATED: usize = 0;
    /// Those of them that are over.
    pub const CONNECTION_CLOSED: usize = 1;
    /// Channels opened.
    pub const CHANNEL_CREATED: usize = 2;
    /// Channels that are over.
    pub const CHANNEL_CLOSED: usize = 3;
    /// Answers to `queue.declare`, those for existing queues included.
    pub const QUEUE_DECLARED: usize = 4;
    /// Queues that came into being.
    pub const QUEUE_CREATED: usize = 5;
    /// Queues that were deleted.
    pub const QUEUE_DELETED: usize = 6;
    /// How many there are.
    pub const LEN: usize = 7;
}

/// See [`messages`].
pub type MessageCounters = Counters<{ messages::LEN }>;
/// See [`exchange`].
pub type ExchangeCounters = Counters<{ exchange::LEN }>;
/// See [`traffic`].
pub type TrafficCounters = Counters<{ traffic::LEN }>;
/// See [`churn`].
pub type ChurnCounters = Counters<{ churn::LEN }>;

/// What a broker counts of itself, and of channels that are over.
#[derive(Default)]
pub struct Statistics {
    /// The seconds that all counters go by.
    pub ticks: Ticks,
    /// Logins.
    pub attempts: AllAttempts,
    /// Messages as they were received.
    pub received: Received,
    churn: Mutex<ChurnCounters>,
    retired: Mutex<Retired>,
    queues: Mutex<QueueTotals>,
    full_outboxes: AtomicU64,
    lag_us: AtomicU64,
}

/// Totals of queues by [`KINDS`] of them.
type Totals = [[u64; messages::LEN]; KINDS];

/// Kinds of queues that are told apart.
pub const KINDS: usize = 2;

/// What deleted queues have counted.
#[derive(Default)]
struct QueueTotals {
    gone: Totals,
    /// What was last told: a queue that is being deleted may for a moment be neither there nor gone, and sums never go back.
    told: Totals,
}

/// What was counted by channels that are over. Whoever adds those that are open to it holds the lock meanwhile, and so does a
/// channel that ends: sums never go back.
#[derive(Default)]
pub struct Retired {
    all: MessageCounters,
    vhosts: Map<Arc<str>, MessageCounters>,
}

impl Statistics {
    /// Counts one thing that came or went.
    pub fn count_churn(&self, which: usize) {
        let mut churn = self.churn.lock();
        churn.turn(self.ticks.now());
        churn.add(which, 1);
    }

    /// A queue of that kind is gone.
    pub fn retire_queue(&self, kind: usize, totals: &[u64; messages::LEN]) {
        if let Some(gone) = self.queues.lock().gone.get_mut(kind) {
            add(gone, totals);
        }
    }

    /// What queues have counted, by kind, those that are gone included; `there` is what those count that are not.
    pub fn queue_totals(&self, there: &Totals) -> Totals {
        let mut queues = self.queues.lock();
        let mut sum = queues.gone;
        for ((sum, there), told) in sum.iter_mut().zip(there).zip(&mut queues.told) {
            add(sum, there);
            for (now, told) in sum.iter_mut().zip(told) {
                *now = (*now).max(*told);
                *told = *now;
            }
        }
        sum
    }

    /// An outbox has refused a message because it was full.
    pub fn count_full_outbox(&self) {
        self.full_outboxes.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that has happened.
    pub fn full_outboxes(&self) -> u64 {
        self.full_outboxes.load(Ordering::Relaxed)
    }

    /// A timer of the runtime was that late.
    pub fn note_lag(&self, late: Duration) {
        self.lag_us.store(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How late the last one was.
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag_us.load(Ordering::Relaxed))
    }

    /// What came and went.
    pub fn churn(&self) -> ChurnCounters {
        self.churn.lock().clone()
    }

    /// Holds what channels that are over have counted.
    pub fn retired(&self) -> parking_lot::MutexGuard<'_, Retired> {
        self.retired.lock()
    }
}

fn add(sum: &mut [u64; messages::LEN], more: &[u64; messages::LEN]) {
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}

impl Retired {
    /// Adds a channel, of a virtual host that is still there.
    pub fn add(&mut self, vhost: Option<&Arc<str>>, counters: &MessageCounters, tick: u32) {
        self.all.absorb(counters, tick);
        if let Some(vhost) = vhost {
            self.vhosts.entry(Arc::clone(vhost)).or_default().absorb(counters, tick);
        }
    }

    /// Those of a virtual host, or of all there ever were.
    pub fn of(&self, vhost: Option<&str>) -> MessageCounters {
        match vhost {
            None => self.all.clone(),
            Some(name) => self.vhosts.get(name).cloned().unwrap_or_default(),
        }
    }

    /// A virtual host is gone.
    pub fn forget(&mut self, vhost: &str) {
        self.vhosts.remove(vhost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_queues_never_go_back() {
        let statistics = Statistics::default();
        let count = |published| {
            let mut totals = Totals::default();
            totals[1][messages::PUBLISH] = published;
            totals
        };
        assert_eq!(statistics.queue_totals(&count(5)), count(5));
        // The queue is taken off the list before it counts as gone.
        assert_eq!(statistics.queue_totals(&count(0)), count(5));
        statistics.retire_queue(1, &count(6)[1]);
        assert_eq!(statistics.queue_totals(&count(0)), count(6));
        assert_eq!(statistics.queue_totals(&count(2)), count(8));
    }
}
