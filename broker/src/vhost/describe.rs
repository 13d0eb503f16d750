//! Stored records as tools for operators show them.

use std::fmt;

use storage::QueueId;

use super::records::{self, BindingRecord, DestinationType, ExchangeRecord, QueueRecord, VhostRecord};

/// What a stored record stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Described {
    /// A virtual host.
    Vhost {
        /// Its name.
        name: String,
    },
    /// An exchange.
    Exchange {
        /// Its virtual host.
        vhost: String,
        /// Its name.
        name: String,
        /// Its type.
        kind: String,
        /// What the store knows the messages and keys by that it keeps itself.
        kept: Vec<QueueId>,
    },
    /// A queue.
    Queue {
        /// Its virtual host.
        vhost: String,
        /// Its name.
        name: String,
        /// What the store knows it by.
        id: QueueId,
        /// What the store knows its deduplication window by.
        window: Option<QueueId>,
    },
    /// A binding.
    Binding {
        /// The virtual host.
        vhost: String,
        /// The exchange that messages come from.
        source: String,
        /// `queue` or `exchange`, and its name.
        destination: (&'static str, String),
        /// The routing key.
        key: String,
    },
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vhost { name } => write!(f, "vhost {name:?}"),
            Self::Exchange { vhost, name, kind, .. } => write!(f, "{kind} exchange {name:?} in vhost {vhost:?}"),
            Self::Queue { vhost, name, id, .. } => write!(f, "queue {name:?} (id {id:x}) in vhost {vhost:?}"),
            Self::Binding { vhost, source, destination: (kind, name), key } => {
                write!(f, "binding from {source:?} to {kind} {name:?} with key {key:?} in vhost {vhost:?}")
            }
        }
    }
}

/// Reads a stored record; `None` when it is none of the vhosts'.
///
/// # Errors
///
/// What is wrong with its value.
pub fn describe(key: &[u8], value: &[u8]) -> Option<Result<Described, String>> {
    let read = |prefix: &[u8]| key.starts_with(prefix);
    Some(if read(records::VHOST_PREFIX) {
        records::parse(value).map(|VhostRecord { name, .. }| Described::Vhost { name })
    } else if read(records::EXCHANGE_PREFIX) {
        records::parse(value).map(|record: ExchangeRecord| {
            let kept = [record.delayed, record.history, record.window].into_iter().flatten().collect();
            Described::Exchange { vhost: record.vhost, name: record.name, kind: record.kind, kept }
        })
    } else if read(records::QUEUE_PREFIX) {
        records::parse(value).map(|QueueRecord { vhost, name, id, window, .. }| Described::Queue {
            vhost,
            name,
            id,
            window,
        })
    } else if read(records::BINDING_PREFIX) {
        records::parse(value).map(|record: BindingRecord| {
            let kind = match record.destination_type {
                DestinationType::Queue => "queue",
                DestinationType::Exchange => "exchange",
            };
            let destination = (kind, record.destination);
            Described::Binding { vhost: record.vhost, source: record.source, destination, key: record.routing_key }
        })
    } else {
        return None;
    })
}
