//! What is behind the topology lock, and the removals that several operations share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use storage::{Lsn, QueueId, TopologyChange};

use super::Vhost;
use super::exchange::{Destination, DestinationId, Exchange};
use super::records;
use crate::model::ConnectionId;
use crate::model::arguments::Arguments;
use crate::model::collections::Map;
use crate::queue::Queue;

/// State that only changes of the topology need. Its lock serialises them.
#[derive(Default)]
pub(super) struct Topology {
    /// The exchanges with at least one binding to a destination.
    sources: Map<DestinationId, Map<u64, Arc<Exchange>>>,
    exclusive: Map<ConnectionId, Map<QueueId, Arc<Queue>>>,
    last_exchange_id: u64,
    deleted: bool,
    /// Those of the queue that came last.
    recent_arguments: Arc<Arguments>,
}

impl Topology {
    pub(super) fn new_exchange_id(&mut self) -> u64 {
        self.last_exchange_id += 1;
        self.last_exchange_id
    }

    /// The arguments of a new queue. Many queues in a row are declared with the same, and then they share them.
    pub(super) fn share_arguments(&mut self, arguments: &Arc<Arguments>) -> Arc<Arguments> {
        if *self.recent_arguments != **arguments {
            self.recent_arguments = Arc::clone(arguments);
        }
        Arc::clone(&self.recent_arguments)
    }

    /// Whether the virtual host is gone.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted
    }

    pub(super) fn delete(&mut self) {
        self.deleted = true;
    }

    pub(super) fn note_source(&mut self, destination: &Destination, source: &Arc<Exchange>) {
        let sources = self.sources.entry(destination.id()).or_default();
        sources.entry(source.id()).or_insert_with(|| source.clone());
    }

    pub(super) fn forget_source(&mut self, destination: &Destination, source: &Exchange) {
        let id = destination.id();
        if let Some(sources) = self.sources.get_mut(&id) {
            sources.remove(&source.id());
            if sources.is_empty() {
                self.sources.remove(&id);
            }
        }
    }

    /// The exchanges with bindings to a destination.
    pub(super) fn sources_of(&self, destination: &Destination) -> Vec<Arc<Exchange>> {
        self.sources.get(&destination.id()).map(|sources| sources.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn note_exclusive(&mut self, owner: ConnectionId, queue: &Arc<Queue>) {
        let owned = self.exclusive.entry(owner).or_default();
        owned.insert(queue.id(), queue.clone());
    }

    pub(super) fn exclusive_of(&self, owner: ConnectionId) -> Vec<Arc<Queue>> {
        self.exclusive.get(&owner).map(|owned| owned.values().cloned().collect()).unwrap_or_default()
    }

    fn forget_exclusive(&mut self, queue: &Queue) {
        if let Some(owner) = queue.spec().exclusive
            && let Some(owned) = self.exclusive.get_mut(&owner)
        {
            owned.remove(&queue.id());
            if owned.is_empty() {
                self.exclusive.remove(&owner);
            }
        }
    }
}

impl Vhost {
    /// Logs the changes of one operation as one entry.
    pub(super) fn log(&self, changes: Vec<TopologyChange>) -> Lsn {
        if changes.is_empty() {
            return Lsn(0);
        }
        let lsn = self.services.store.change_topology(changes);
        self.logged.store(lsn.0, Ordering::Release);
        lsn
    }

    /// Where everything that was changed so far is durable. A reply that tells of an earlier change
    /// must not overtake it: it was perhaps made by somebody else a moment ago.
    pub(super) fn logged(&self) -> Lsn {
        Lsn(self.logged.load(Ordering::Acquire))
    }

    /// Takes a closed queue out of the maps, with its bindings and the auto-delete exchanges that
    /// only it kept alive.
    pub(super) fn remove_queue(
        &self,
        topology: &mut Topology,
        queue: &Arc<Queue>,
        user: &str,
        changes: &mut Vec<TopologyChange>,
    ) {
        if self.queues.remove(&queue.spec().name, queue)
            && let Some(node) = self.node_queues.get()
        {
            node.remove(1);
        }
        self.default_exchange.bump(&self.version);
        topology.forget_exclusive(queue);
        if queue.spec().durable {
            changes.extend(records::delete_queue(queue));
        }
        let mut unused = Vec::new();
        let destination = Destination::Queue(queue.clone());
        self.detach(topology, &destination, user, &mut unused, changes);
        self.queue_deleted(queue, user);
        self.remove_exchanges(topology, unused, user, changes);
    }

    /// Deletes exchanges, and those that this leaves without a reason to be.
    pub(super) fn remove_exchanges(
        &self,
        topology: &mut Topology,
        mut doomed: Vec<Arc<Exchange>>,
        user: &str,
        changes: &mut Vec<TopologyChange>,
    ) {
        while let Some(exchange) = doomed.pop() {
            let Some(table) = exchange.take_for_delete(&self.version) else {
                continue;
            };
            self.exchanges.remove(exchange.name(), &exchange);
            if let Some(delay) = exchange.delay() {
                delay.close();
            }
            // Again, now that nobody finds it by name: it may be somebody's alternate.
            exchange.bump(&self.version);
            for (destination, binding) in table.iter() {
                topology.forget_source(destination, &exchange);
                self.binding_changed("binding.deleted", &exchange, destination, binding, user);
                if exchange.durable() && destination.durable() {
                    changes.push(records::delete_binding(&self.name, &exchange, destination, binding));
                }
            }
            if exchange.durable() {
                changes.extend(records::delete_exchange(&self.name, &exchange));
            }
            self.exchange_deleted(&exchange, user);
            let destination = Destination::Exchange(exchange);
            self.detach(topology, &destination, user, &mut doomed, changes);
        }
    }

    /// Removes all bindings to a destination; adds to `unused` the auto-delete exchanges that lost
    /// their last one.
    fn detach(
        &self,
        topology: &mut Topology,
        destination: &Destination,
        user: &str,
        unused: &mut Vec<Arc<Exchange>>,
        changes: &mut Vec<TopologyChange>,
    ) {
        let sources = topology.sources.remove(&destination.id());
        for source in sources.into_iter().flat_map(Map::into_values) {
            let removed =
                source.change(&self.version, |table| Some((table.remove_destination(destination), table.is_empty())));
            let Some((bindings, now_unused)) = removed else {
                continue;
            };
            for binding in &bindings {
                self.binding_changed("binding.deleted", &source, destination, binding, user);
            }
            if source.durable() && destination.durable() {
                changes.extend(
                    bindings.iter().map(|binding| records::delete_binding(&self.name, &source, destination, binding)),
                );
            }
            if now_unused && source.auto_delete() {
                unused.push(source);
            }
        }
    }
}
