//! One exchange, and what it can lead to.

use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use amq_protocol::types::AMQPValue;
use parking_lot::{Mutex, RwLock};
use protocol::error::AmqpError;
use storage::QueueId;

use super::delay::Delay;
use super::history::History;
use crate::model::arguments::{Arguments, string};
use crate::model::counters::{Counted, Ticks};
use crate::model::deduplication::Deduplication;
use crate::model::statistics::{ExchangeCounters, exchange};
use crate::policy::Effective;
use crate::queue::Queue;
use crate::queue::window::Window;
use crate::routing::binding::BindingKey;
use crate::routing::hash_on::HashOn;
use crate::routing::kind::ExchangeKind;
use crate::routing::table::Table;
use crate::routing::target::{Identity, Target, TargetKind};

/// The argument that names where messages go that lead nowhere.
pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";

/// The type of exchanges that keep messages back, and route as the type in their argument.
pub const DELAYED_TYPE: &str = "x-delayed-message";

/// The argument that says how such an exchange routes.
pub(super) const INNER_TYPE: &str = "x-delayed-type";

/// The argument that lets an exchange of any type keep messages back.
pub(super) const DELAYED_EXCHANGE: &str = "x-delayed-exchange";

/// What an exchange is declared as.
#[derive(Clone, Debug)]
pub struct ExchangeSpec {
    /// Its name; empty for the default exchange.
    pub name: Arc<str>,
    /// How it selects destinations.
    pub kind: ExchangeKind,
    /// It was declared as [`DELAYED_TYPE`], with `kind` as an argument.
    pub is_delayed_type: bool,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it goes when the last binding from it goes.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

impl ExchangeSpec {
    /// The name of its type, as it was declared.
    pub fn type_name(&self) -> &'static str {
        if self.is_delayed_type { DELAYED_TYPE } else { self.kind.name() }
    }

    /// Whether it keeps messages back that ask for it.
    pub(super) fn delays(&self) -> bool {
        self.is_delayed_type || matches!(self.arguments.get(DELAYED_EXCHANGE), Some(AMQPValue::Boolean(true)))
    }

    /// What it remembers of messages, as its arguments say, which are good; `None` when it routes duplicates.
    pub(super) fn deduplication(&self) -> Option<Deduplication> {
        Deduplication::from_arguments(&self.arguments, self.kind == ExchangeKind::Deduplication)
    }

    /// What it hashes of a message; 406 when its arguments cannot be used. `resource` is the exchange in error texts.
    pub(super) fn hash_on(&self, resource: &dyn Display) -> Result<HashOn, AmqpError> {
        match self.kind {
            ExchangeKind::ConsistentHash => HashOn::from_arguments(&self.arguments, resource),
            _ => Ok(HashOn::default()),
        }
    }
}

/// What an exchange keeps of the messages that come by.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) delay: Option<Arc<Delay>>,
    pub(super) history: Option<Arc<History>>,
    pub(super) window: Option<Arc<Window>>,
}

/// An exchange with its bindings.
#[derive(Debug)]
pub struct Exchange {
    id: u64,
    spec: ExchangeSpec,
    alternate: Option<Arc<str>>,
    hash_on: HashOn,
    kept: Kept,
    policy: RwLock<Arc<Effective>>,
    table: RwLock<Table<Destination>>,
    version: AtomicU64,
    deleted: AtomicBool,
    counters: Mutex<ExchangeCounters>,
}

impl Exchange {
    /// `hash_on` matters to a consistent hash exchange only.
    pub(super) fn new(id: u64, spec: ExchangeSpec, hash_on: HashOn, kept: Kept) -> Self {
        let alternate = spec.arguments.get(ALTERNATE_EXCHANGE).and_then(string).map(Arc::from);
        Self {
            id,
            table: RwLock::new(Table::new(spec.kind)),
            alternate,
            hash_on,
            kept,
            policy: RwLock::default(),
            spec,
            version: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            counters: Mutex::default(),
        }
    }

    /// Clients have published that many messages to it in the given second, for so many queues.
    pub(crate) fn count(&self, published: u64, routed: u64, tick: u32) {
        let mut counters = self.counters.lock();
        counters.turn(tick);
        counters.add(exchange::IN, published);
        counters.add(exchange::OUT, routed);
    }

    /// What went through it.
    pub fn statistics(&self, ticks: &Ticks) -> Counted<{ exchange::LEN }> {
        self.counters.lock().read(ticks)
    }

    /// Its number, unique in the vhost while the broker runs.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name; empty for the default exchange.
    pub fn name(&self) -> &Arc<str> {
        &self.spec.name
    }

    /// How it selects destinations.
    pub fn kind(&self) -> ExchangeKind {
        self.spec.kind
    }

    /// Whether it survives a restart.
    pub fn durable(&self) -> bool {
        self.spec.durable
    }

    /// Whether it goes when the last binding from it goes.
    pub fn auto_delete(&self) -> bool {
        self.spec.auto_delete
    }

    /// Whether clients may not publish to it.
    pub fn internal(&self) -> bool {
        self.spec.internal
    }

    /// What it was declared as.
    pub fn spec(&self) -> &ExchangeSpec {
        &self.spec
    }

    /// Where messages go that lead nowhere from here: by its argument, otherwise by its policy.
    pub fn alternate(&self) -> Option<Arc<str>> {
        let by_policy = || self.policy.read().definition.text(ALTERNATE_EXCHANGE).map(Arc::from);
        self.alternate.clone().or_else(by_policy)
    }

    /// The policy that holds for it.
    pub fn policy(&self) -> Arc<Effective> {
        Arc::clone(&self.policy.read())
    }

    pub(super) fn set_policy(&self, policy: Arc<Effective>) {
        *self.policy.write() = policy;
    }

    /// What it hashes of a message, if it is a consistent hash exchange.
    pub(super) fn hash_on(&self) -> &HashOn {
        &self.hash_on
    }

    /// What it keeps back, if it does that.
    pub fn delay(&self) -> Option<&Arc<Delay>> {
        self.kept.delay.as_ref()
    }

    /// Its last messages, if it keeps them for those who come later.
    pub fn history(&self) -> Option<&Arc<History>> {
        self.kept.history.as_ref()
    }

    /// Where it remembers what has come by, if it does not route duplicates.
    pub fn window(&self) -> Option<&Arc<Window>> {
        self.kept.window.as_ref()
    }

    /// Whether it is the one without a name, which routes by queue name.
    pub fn is_default(&self) -> bool {
        self.spec.name.is_empty()
    }

    /// Changes whenever what [`RouteInfo::simple`] routing through this exchange gives may change.
    /// Read it before routing; a result is good for as long as it stays.
    ///
    /// [`RouteInfo::simple`]: super::RouteInfo::simple
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The bindings from here, in no particular order.
    pub fn bindings(&self) -> Vec<(Destination, BindingKey)> {
        let table = self.table.read();
        table.iter().map(|(destination, binding)| (destination.clone(), binding.clone())).collect()
    }

    pub(crate) fn table(&self) -> &RwLock<Table<Destination>> {
        &self.table
    }

    /// Changes the bindings; `None` means that nothing changed. Both versions move while the table
    /// is still locked: who reads a new version can no longer read the old table.
    pub(super) fn change<R>(
        &self,
        vhost_version: &AtomicU64,
        change: impl FnOnce(&mut Table<Destination>) -> Option<R>,
    ) -> Option<R> {
        let mut table = self.table.write();
        let changed = change(&mut table);
        if changed.is_some() {
            self.bump(vhost_version);
        }
        changed
    }

    /// Takes all bindings out and marks the exchange deleted; `None` when it was before.
    pub(super) fn take_for_delete(&self, vhost_version: &AtomicU64) -> Option<Table<Destination>> {
        let mut table = self.table.write();
        if self.deleted.swap(true, Ordering::AcqRel) {
            return None;
        }
        let taken = std::mem::replace(&mut *table, Table::new(self.spec.kind));
        self.bump(vhost_version);
        Some(taken)
    }

    pub(super) fn bump(&self, vhost_version: &AtomicU64) {
        self.version.fetch_add(1, Ordering::Release);
        vhost_version.fetch_add(1, Ordering::Release);
    }
}

/// What a binding leads to. Compared by identity, not by name.
#[derive(Clone)]
pub enum Destination {
    /// A queue.
    Queue(Arc<Queue>),
    /// Another exchange.
    Exchange(Arc<Exchange>),
}

/// Identity of a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum DestinationId {
    Queue(QueueId),
    Exchange(u64),
}

impl Destination {
    pub(super) fn id(&self) -> DestinationId {
        match self {
            Self::Queue(queue) => DestinationId::Queue(queue.id()),
            Self::Exchange(exchange) => DestinationId::Exchange(exchange.id),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Queue(queue) => &queue.spec().name,
            Self::Exchange(exchange) => &exchange.spec.name,
        }
    }

    /// Whether it survives a restart.
    pub fn durable(&self) -> bool {
        match self {
            Self::Queue(queue) => queue.spec().durable,
            Self::Exchange(exchange) => exchange.spec.durable,
        }
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

impl Target for Destination {
    fn identity(&self) -> Identity<'_> {
        let kind = match self {
            Self::Queue(_) => TargetKind::Queue,
            Self::Exchange(_) => TargetKind::Exchange,
        };
        Identity { kind, name: self.name() }
    }
}

// Not derived: exchanges can lead to each other in circles.
impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Destination").field(&self.id()).finish()
    }
}
