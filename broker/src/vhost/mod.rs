//! One virtual host: its exchanges, bindings and queues, and the operations that change them.
//!
//! Changes are serialised by one lock, are applied in memory, and go to the log while the lock is
//! held; each operation tells the log position at which it is durable. Publishing takes no part in
//! that lock: it reads the maps and the exchanges' tables.
//!
//! Lock order: topology, then one exchange's table or one queue, never two of those at once. The
//! store only appends to its buffer, so it may be called under the topology lock.

mod beside;
mod bindings;
mod dead_letter;
mod deduplicate;
mod delay;
mod delete;
mod describe;
mod direct_reply;
mod events;
mod exchange;
mod exchanges;
mod forward;
mod history;
mod internal;
mod names;
mod policies;
mod queue_settings;
mod queues;
mod records;
mod recover;
mod route;
mod settings;
mod shards;
#[cfg(test)]
mod tests;
mod topology;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use storage::Lsn;

pub use beside::{Beside, Delayed, Replies};
pub use bindings::{ExchangeBinding, QueueBinding, check_new_binding};
pub use dead_letter::Passage;
pub use deduplicate::{Claims, Fresh, Outcome};
pub use delay::Delay;
pub use describe::{Described, describe};
pub use direct_reply::{DIRECT_REPLY, is_reply_address};
pub use events::EVENT_EXCHANGE;
pub use exchange::{ALTERNATE_EXCHANGE, DELAYED_TYPE, Destination, Exchange, ExchangeSpec};
pub use exchanges::{ExchangeRequest, check_exchange};
pub use history::History;
pub use internal::TRACE_EXCHANGE;
pub use policies::PolicyObserver;
pub use queues::{Declared, QueueRequest, check_queue};
pub use recover::{Recovery, name_losses, recover};
pub use route::{RouteInfo, Targets};
pub use settings::{Metadata, MetadataChange, NodeQueues};

use crate::config::VhostRules;
use crate::model::arguments::Arguments;
use crate::queue::direct_reply::ReplyConsumer;
use crate::queue::{Queue, Services};
use crate::routing::binding::BindingKey;
use crate::routing::hash_on::HashOn;
use crate::routing::kind::ExchangeKind;
use delay::Handle;
use events::EVENT_VHOST;
use exchange::Kept;
use policies::PolicyState;
use settings::Settings;
use shards::Shards;
use topology::Topology;

/// Exchanges that every vhost has from the start.
const PREDECLARED: [(&str, ExchangeKind, bool); 6] = [
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    (TRACE_EXCHANGE, ExchangeKind::Topic, true),
];

/// The kind of an exchange that a virtual host has from the start.
pub fn predeclared_kind(vhost: &str, exchange: &str) -> Option<ExchangeKind> {
    if exchange == EVENT_EXCHANGE && vhost == EVENT_VHOST {
        return Some(ExchangeKind::Topic);
    }
    let kind = PREDECLARED.iter().find(|(name, ..)| *name == exchange).map(|(_, kind, _)| *kind);
    if exchange.is_empty() { Some(ExchangeKind::Direct) } else { kind }
}

/// A virtual host.
pub struct Vhost {
    name: Arc<str>,
    handle: Handle,
    services: Services,
    queues: Shards<Queue>,
    exchanges: Shards<Exchange>,
    reply_consumers: Shards<ReplyConsumer>,
    default_exchange: Arc<Exchange>,
    topology: Mutex<Topology>,
    settings: RwLock<Settings>,
    policy_state: RwLock<PolicyState>,
    node_queues: OnceLock<Arc<NodeQueues>>,
    rules: OnceLock<VhostRules>,
    deleted: AtomicBool,
    traced: AtomicBool,
    version: AtomicU64,
    logged: AtomicU64,
}

impl Vhost {
    /// A new vhost, written to the log, and where it is durable.
    pub fn create(name: &str, services: Services) -> (Arc<Self>, Lsn) {
        Self::create_with(name, Metadata::default(), services)
    }

    /// As [`Vhost::create`], described like that.
    pub fn create_with(name: &str, metadata: Metadata, services: Services) -> (Arc<Self>, Lsn) {
        let vhost = Self::empty(name, services);
        let settings = Settings { metadata, ..Settings::default() };
        let lsn = vhost.log(vec![records::put_vhost(name, &settings)]);
        *vhost.settings.write() = settings;
        (vhost.shared(), lsn)
    }

    /// Lets what belongs to it find it.
    fn shared(self) -> Arc<Self> {
        let handle = Arc::clone(&self.handle);
        let vhost = Arc::new(self);
        // Done once, right after it was made.
        let _ = handle.set(Arc::downgrade(&vhost));
        if *vhost.name == *EVENT_VHOST {
            let sink: Weak<Self> = Arc::downgrade(&vhost);
            vhost.services.events.set_sink(sink);
        }
        vhost
    }

    fn empty(name: &str, services: Services) -> Self {
        let mut topology = Topology::default();
        let mut exchange = |name: &str, kind, internal| {
            Arc::new(Exchange::new(
                topology.new_exchange_id(),
                ExchangeSpec {
                    name: name.into(),
                    kind,
                    is_delayed_type: false,
                    durable: true,
                    auto_delete: false,
                    internal,
                    arguments: Arguments::default(),
                },
                HashOn::default(),
                Kept::default(),
            ))
        };
        let default_exchange = exchange("", ExchangeKind::Direct, false);
        let exchanges = Shards::new();
        exchanges.insert(default_exchange.name().clone(), default_exchange.clone());
        let events = (name == EVENT_VHOST).then_some((EVENT_EXCHANGE, ExchangeKind::Topic, true));
        for (name, kind, internal) in PREDECLARED.into_iter().chain(events) {
            let predeclared = exchange(name, kind, internal);
            exchanges.insert(predeclared.name().clone(), predeclared);
        }
        Self {
            name: name.into(),
            handle: Handle::default(),
            services,
            queues: Shards::new(),
            exchanges,
            reply_consumers: Shards::new(),
            default_exchange,
            topology: Mutex::new(topology),
            settings: RwLock::default(),
            policy_state: RwLock::default(),
            node_queues: OnceLock::new(),
            rules: OnceLock::new(),
            deleted: AtomicBool::new(false),
            traced: AtomicBool::new(false),
            version: AtomicU64::new(0),
            logged: AtomicU64::new(0),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Changes whenever any exchange or binding does; see [`RouteInfo::simple`].
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// An exchange by its exact name; empty for the default one.
    pub fn exchange(&self, name: &str) -> Option<Arc<Exchange>> {
        self.exchanges.get(name)
    }

    /// A queue by its exact name.
    pub fn queue(&self, name: &str) -> Option<Arc<Queue>> {
        self.queues.get(name)
    }

    /// All exchanges, in no particular order.
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.exchanges.all()
    }

    /// All queues, in no particular order.
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.all()
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The bindings to a destination, with their sources, in no particular order.
    pub fn bindings_to(&self, destination: &Destination) -> Vec<(Arc<Exchange>, BindingKey)> {
        let sources = self.topology.lock().sources_of(destination);
        let mut bindings = Vec::new();
        for source in sources {
            let table = source.table().read();
            let keys = table.bindings_of(destination);
            bindings.extend(keys.map(|key| (source.clone(), key.clone())));
        }
        bindings
    }
}

impl Drop for Vhost {
    /// Exchanges bound in a circle keep each other alive, and a long chain of them would be dropped
    /// by recursion: the tables are taken apart first.
    fn drop(&mut self) {
        if let Some(node) = self.node_queues.get() {
            node.remove(self.queues.len());
        }
        let exchanges = self.exchanges.all();
        let tables: Vec<_> = exchanges.iter().map(|exchange| exchange.take_for_delete(&self.version)).collect();
        drop(tables);
    }
}
