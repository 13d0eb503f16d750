//! Queues: synchronous state machines behind one lock each, and the outboxes they push to.
//!
//! Lock order: queue, then an outbox, then the store's pending buffer or the timers; never two queues.

mod ack_timeouts;
mod backlog;
mod classic;
pub mod consumers;
pub mod credit;
pub mod dead_letter;
pub mod delivery_limit;
pub mod direct_reply;
pub mod directory;
mod discard;
mod dispatch;
mod expiry;
pub mod item;
pub mod lanes;
pub mod lifetime;
mod limits;
mod moved;
pub mod outbox;
mod outcome;
mod positions;
pub mod ready;
mod sequence;
pub mod settings;
pub mod settle;
pub mod signal;
mod statistics;
pub mod stored;
pub mod tally;
pub mod timers;
pub mod unacked;
pub mod window;

use std::sync::Arc;

use storage::Store;

pub use classic::Queue;
pub use outcome::{Attach, Get, NotDeleted, NotReserved, Published};

use crate::model::ConnectionId;
use crate::model::arguments::Arguments;
use crate::model::clock::Clock;
use crate::model::events::Events;
use crate::model::memory::Memory;
use crate::model::statistics::Statistics;
use dead_letter::DeadLetters;
use directory::Directory;
use lifetime::Unused;
use timers::Timers;

/// What all queues of one broker use.
#[derive(Clone)]
pub struct Services {
    /// The durable store.
    pub store: Arc<Store>,
    /// Timers, and the clock that they run on.
    pub timers: Arc<Timers>,
    /// The durable queues by identity.
    pub directory: Arc<Directory>,
    /// The queues with dead letters to be moved.
    pub dead_letters: Arc<DeadLetters>,
    /// The queues that nobody has used for too long.
    pub unused: Arc<Unused>,
    /// Who holds how much memory.
    pub memory: Arc<Memory>,
    /// Where events go.
    pub events: Arc<Events>,
    /// What is counted of them all.
    pub statistics: Arc<Statistics>,
    /// Octets of messages that a queue keeps in memory before further ones stay on disk only.
    pub resident_max_bytes: usize,
    /// The same for messages that the store has and that nothing but a consumer can take out, while there is none.
    pub unwatched_max_bytes: usize,
}

/// The default of [`Services::resident_max_bytes`].
const RESIDENT_MAX_BYTES: usize = 16 << 20;
/// The default of [`Services::unwatched_max_bytes`].
const UNWATCHED_MAX_BYTES: usize = 256 << 10;

impl Services {
    /// Services for queues whose messages are in this store and expire by this clock.
    pub fn new(store: Arc<Store>, clock: Clock) -> Self {
        Self {
            store,
            timers: Timers::new(clock),
            directory: Arc::default(),
            dead_letters: Arc::default(),
            unused: Arc::default(),
            memory: Arc::default(),
            events: Arc::default(),
            statistics: Arc::default(),
            resident_max_bytes: RESIDENT_MAX_BYTES,
            unwatched_max_bytes: UNWATCHED_MAX_BYTES,
        }
    }
}

/// What a queue was declared as.
#[derive(Clone, Debug)]
pub struct QueueSpec {
    /// Its virtual host's name.
    pub vhost: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to this connection and ends with it.
    pub exclusive: Option<ConnectionId>,
    /// Ends with its last consumer.
    pub auto_delete: bool,
    /// Declaration arguments.
    pub arguments: Arc<Arguments>,
}
