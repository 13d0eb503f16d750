//! The broker as a value: what all its connections share. Several can live in one process.

mod alarms;
mod application;
mod connections;
mod dead_letters;
mod machine;
mod memory;
mod open;
mod operations;
mod unused;

use std::collections::HashMap as StdMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use storage::{Slow, Store};

use crate::auth::AuthStore;
use crate::config::Settings;
use crate::model::ConnectionId;
use crate::model::clock::Clock;
use crate::model::limits::NodeLimits;
use crate::model::log_control::LogControl;
use crate::model::memory::{Memory, Owner};
use crate::model::statistics::churn;
use crate::policy::GlobalParameters;
use crate::queue::Services;
use crate::queue::consumers::ConsumerId;
use crate::queue::signal::{self, Signal};
use crate::tls::Tls;
use crate::vhost::{NodeQueues, Vhost};
use connections::Connections;

pub(crate) use connections::{ChannelLimit, ConnectionLimit, Usage};

pub use alarms::{Active, Alarm};
pub use application::{Application, Order};
pub use connections::{ConnectionFacts, ConnectionInfo};
pub use memory::MemoryUse;
pub use open::{ChannelInfo, ChannelState, OpenChannel, OpenConnection, OpenConsumer};

/// Bodies that have not come whole may hold this many messages of the largest size per connection …
const PARTIAL_MESSAGES_MAX: usize = 2;
/// … and this many octets in all.
const PARTIAL_NODE_MAX_BYTES: usize = 2 << 30;

/// The global parameter that names the broker.
pub const CLUSTER_NAME: &str = "cluster_name";

/// See the module's documentation.
pub struct Broker {
    /// How it was configured.
    pub settings: Settings,
    /// The durable store.
    pub store: Arc<Store>,
    /// What its queues use: the store as well, and the timers.
    pub services: Services,
    /// Users and permissions.
    pub auth: Arc<AuthStore>,
    /// What the broker calls itself to clients.
    pub node_name: String,
    /// What its start found; nothing until the one who starts it says so.
    pub recovery: Recovery,
    vhosts: RwLock<StdMap<Arc<str>, Arc<Vhost>>>,
    /// Queues of all virtual hosts.
    queues: Arc<NodeQueues>,
    global_parameters: RwLock<GlobalParameters>,
    next_connection: AtomicU64,
    next_consumer: AtomicU64,
    connections: Connections,
    node_limits: RwLock<NodeLimits>,
    /// What connection.tune offers from now on.
    channel_max: AtomicU16,
    /// Held while virtual hosts, or what belongs to one by its name, come and go.
    operations: Mutex<()>,
    /// Held while definitions are imported.
    pub(crate) imports: Mutex<()>,
    stopping: AtomicBool,
    /// Who holds how much memory.
    pub(crate) memory: Arc<Memory>,
    alarms: alarms::Alarms,
    /// Whether it serves clients.
    pub application: Application,
    /// Certificates, where some are configured.
    pub tls: Option<Arc<Tls>>,
    /// The configuration as it was read last: what `settings` says of it holds until a restart.
    pub described: Mutex<Settings>,
    /// What is logged; nothing to change until the one who starts it says so.
    pub log: LogControl,
    /// Methods that declare, bind or delete.
    pub(crate) slow_methods: Slow,
    /// Requests of operators.
    pub(crate) slow_requests: Slow,
}

/// What a start found in the data directory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recovery {
    /// The stop before was a clean one, or there was none.
    pub clean: bool,
    /// Durable queues.
    pub queues: usize,
    /// Messages in them.
    pub messages: u64,
    /// Entries of the log that were replayed.
    pub replayed_entries: u64,
    /// One line for everything that was lost, quarantined or rebuilt.
    pub damage: Vec<String>,
}

/// How many octets of incomplete messages may be held.
#[derive(Clone, Copy, Debug)]
pub struct PartialMax {
    /// By one connection.
    pub connection: usize,
    /// By all of them.
    pub node: usize,
}

impl Broker {
    /// A broker without connections.
    pub fn new(settings: Settings, services: Services, auth: Arc<AuthStore>, vhosts: Vec<Arc<Vhost>>) -> Self {
        let host = rustix::system::uname();
        let memory = Arc::clone(&services.memory);
        auth.set_events(Arc::clone(&services.events));
        memory.set_limit(memory::limit(settings.memory.high_watermark));
        let node_name = || format!("warren@{}", host.nodename().to_string_lossy());
        let node_name = settings.node_name.clone().unwrap_or_else(node_name);
        let queues = Arc::<NodeQueues>::default();
        for vhost in &vhosts {
            vhost.count_queues_in(&queues);
            vhost.set_rules(settings.rules_of(vhost.name()));
        }
        Self {
            channel_max: AtomicU16::new(settings.limits.channel_max),
            described: Mutex::new(settings.clone()),
            tls: None,
            slow_methods: Slow::new("declaration", settings.log.slow),
            slow_requests: Slow::new("management request", settings.log.slow),
            log: LogControl::default(),
            settings,
            store: Arc::clone(&services.store),
            services,
            auth,
            node_name,
            recovery: Recovery::default(),
            vhosts: RwLock::new(vhosts.into_iter().map(|vhost| (Arc::clone(vhost.name()), vhost)).collect()),
            queues,
            global_parameters: RwLock::default(),
            next_connection: AtomicU64::new(1),
            next_consumer: AtomicU64::new(1),
            connections: Connections::new(),
            node_limits: RwLock::default(),
            operations: Mutex::default(),
            imports: Mutex::default(),
            stopping: AtomicBool::new(false),
            memory,
            alarms: alarms::Alarms::default(),
            application: Application::default(),
        }
    }

    /// What operators call it: the global parameter of that name, or what it calls itself.
    pub fn cluster_name(&self) -> String {
        let parameters = self.global_parameters.read();
        let named = parameters.get(CLUSTER_NAME).and_then(|value| value.as_str());
        named.map_or_else(|| self.node_name.clone(), str::to_owned)
    }

    /// The clock by which messages expire.
    pub fn clock(&self) -> &Clock {
        self.services.timers.clock()
    }

    /// With the parameters of the whole broker that were found at start.
    #[must_use]
    pub fn with_global_parameters(self, parameters: GlobalParameters) -> Self {
        *self.global_parameters.write() = parameters;
        self
    }

    /// A virtual host by name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.read().get(name).cloned()
    }

    /// All virtual hosts.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts.read().values().cloned().collect()
    }

    pub(crate) fn new_connection_id(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn new_consumer_id(&self) -> ConsumerId {
        ConsumerId(self.next_consumer.fetch_add(1, Ordering::Relaxed))
    }

    /// A name that nobody can guess: `prefix` and 128 random bits.
    pub(crate) fn generated_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
    }

    pub(crate) fn remember_connection(&self, id: ConnectionId, signal: &Arc<Signal>, open: &Arc<OpenConnection>) {
        self.connections.add(id, signal, open);
        self.services.statistics.count_churn(churn::CONNECTION_CREATED);
        // One that came while the broker was already telling the others.
        if self.stopping.load(Ordering::Acquire) {
            signal.raise(signal::CLOSE);
        }
    }

    pub(crate) fn forget_connection(&self, id: ConnectionId) {
        self.connections.remove(id);
        self.services.statistics.count_churn(churn::CONNECTION_CLOSED);
    }

    /// Connections that are open now, those included that have not logged in yet.
    pub fn connection_count(&self) -> usize {
        *self.connections.subscribe().borrow()
    }

    /// Closes all connections with 320 and waits until they are gone.
    pub async fn close_connections(&self) {
        self.stopping.store(true, Ordering::Release);
        self.connections.raise_all(signal::CLOSE);
        let mut count = self.connections.subscribe();
        // The sender lives as long as the broker does.
        let _ = count.wait_for(|count| *count == 0).await;
    }

    /// Connections may come again after [`Broker::close_connections`].
    pub fn admit_connections(&self) {
        self.stopping.store(false, Ordering::Release);
    }

    /// Octets of incomplete messages, all connections together.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.memory.held(Owner::Partial)
    }

    pub(crate) fn partial_bytes_change(&self, before: usize, now: usize) {
        self.memory.change(Owner::Partial, before, now);
    }

    pub(crate) fn partial_bytes_max(&self) -> PartialMax {
        let largest = usize::try_from(self.settings.limits.max_message_bytes).unwrap_or(usize::MAX);
        PartialMax {
            connection: largest.saturating_mul(PARTIAL_MESSAGES_MAX).max(16 << 20),
            node: largest.saturating_mul(PARTIAL_MESSAGES_MAX).max(PARTIAL_NODE_MAX_BYTES),
        }
    }
}
