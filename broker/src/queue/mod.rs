//! Queues: synchronous state machines behind one lock each, and the outboxes they push to.
//!
//! Lock order: queue, then either an outbox or the store's pending buffer; never two queues.

mod classic;
pub mod consumers;
pub mod credit;
pub mod item;
pub mod outbox;
mod outcome;
pub mod ready;
pub mod settle;
pub mod signal;
pub mod unacked;

use std::sync::Arc;

pub use classic::Queue;
pub use outcome::{Attach, Get, NotDeleted, Published};

use crate::model::ConnectionId;
use crate::model::arguments::Arguments;

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
