//! Rebuilding the vhosts from what the store kept.

use std::sync::Arc;

use storage::{LostMessages, QueueId, RecoveredQueue};

use super::Vhost;
use super::delay::Delay;
use super::exchange::{DELAYED_TYPE, Destination, Exchange, ExchangeSpec, INNER_TYPE, Kept};
use super::history::History;
use super::names::Named;
use super::records::{self, BindingRecord, DestinationType, ExchangeRecord, QueueRecord};
use super::settings::Settings;
use crate::model::arguments::{Arguments, string};
use crate::model::collections::Map;
use crate::model::queue_arguments::max_priority;
use crate::policy::{self, GlobalParameters};
use crate::queue::lanes::{id_of, owner_of};
use crate::queue::window::{Stored, Window};
use crate::queue::{Queue, QueueSpec, Services};
use crate::routing::kind::ExchangeKind;

/// What was rebuilt.
pub struct Recovery {
    /// The vhosts with everything in them, sorted by name.
    pub vhosts: Vec<Arc<Vhost>>,
    /// Parameters of the whole broker.
    pub global_parameters: GlobalParameters,
    /// Records that are not topology of a vhost: users and permissions.
    pub other: Vec<(Vec<u8>, Vec<u8>)>,
    /// One line for each record that could not be used.
    pub damage: Vec<String>,
}

/// Rebuilds the vhosts from the store's records and the queues it has messages for. A record that
/// cannot be used is named and left out; nothing in the store is deleted for it.
pub fn recover(services: &Services, topology: Vec<(Vec<u8>, Vec<u8>)>, queues: Vec<RecoveredQueue>) -> Recovery {
    let mut rebuild = Rebuild {
        services,
        vhosts: Map::default(),
        messages: queues.into_iter().map(|queue| (queue.id, queue)).collect(),
        damage: Vec::new(),
        global_parameters: GlobalParameters::default(),
    };
    let mut other = Vec::new();
    let (mut vhosts, mut exchanges, mut queues, mut bindings) = (vec![], vec![], vec![], vec![]);
    let mut policies = Vec::new();
    for record in topology {
        let key = record.0.as_slice();
        if key.starts_with(records::VHOST_PREFIX) {
            vhosts.push(record);
        } else if key.starts_with(records::EXCHANGE_PREFIX) {
            exchanges.push(record);
        } else if key.starts_with(records::QUEUE_PREFIX) {
            queues.push(record);
        } else if key.starts_with(records::BINDING_PREFIX) {
            bindings.push(record);
        } else if policy::is_policy_record(key) {
            policies.push(record);
        } else {
            other.push(record);
        }
    }
    // Each kind needs those before it.
    rebuild.each(vhosts, Rebuild::vhost);
    rebuild.each(exchanges, Rebuild::exchange);
    rebuild.each(queues, Rebuild::queue);
    rebuild.each(bindings, Rebuild::binding);
    for (id, orphan) in &rebuild.messages {
        let count = orphan.messages;
        rebuild.damage.push(format!("{count} messages of queue id {id}: no queue has it"));
    }
    rebuild.policies(policies);
    let mut vhosts: Vec<_> = rebuild.vhosts.into_values().map(Vhost::shared).collect();
    vhosts.sort_by(|a, b| a.name.cmp(&b.name));
    Recovery { vhosts, global_parameters: rebuild.global_parameters, other, damage: rebuild.damage }
}

/// One line for the lost messages of each queue, with the name that operators know it by.
pub fn name_losses(vhosts: &[Arc<Vhost>], lost: &[LostMessages]) -> Vec<String> {
    if lost.is_empty() {
        return Vec::new();
    }
    let mut names: Map<QueueId, String> = Map::default();
    for vhost in vhosts {
        let of = |name: &str| format!("{name:?} in vhost {:?}", vhost.name());
        names.extend(vhost.queues().iter().map(|queue| (queue.id(), format!("queue {}", of(&queue.spec().name)))));
        for exchange in vhost.exchanges() {
            let delayed = exchange.delay().and_then(|delay| delay.id());
            let history = exchange.history().and_then(|history| history.id());
            let window = exchange.window().and_then(|window| window.id());
            let kept = delayed.into_iter().chain(history).chain(window);
            names.extend(kept.map(|id| (id, format!("exchange {}", of(exchange.name())))));
        }
    }
    let line = |LostMessages { queue, messages, why }: &LostMessages| {
        let whose = match names.get(&owner_of(*queue).0) {
            Some(name) => name.clone(),
            None => format!("queue id {queue:x}, which no queue has"),
        };
        let count =
            if *messages == 1 { "1 message is lost".to_owned() } else { format!("{messages} messages are lost") };
        format!("{whose}: {count}: {why}")
    };
    lost.iter().map(line).collect()
}

struct Rebuild<'s> {
    services: &'s Services,
    vhosts: Map<String, Vhost>,
    messages: Map<QueueId, RecoveredQueue>,
    damage: Vec<String>,
    global_parameters: GlobalParameters,
}

impl Rebuild<'_> {
    fn each(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>, apply: fn(&mut Self, &[u8]) -> Result<(), String>) {
        for (key, value) in entries {
            if let Err(reason) = apply(self, &value) {
                let key = key.escape_ascii();
                self.damage.push(format!("record {key}: {reason}"));
            }
        }
    }

    /// Policies and parameters, once everything that a policy can hold for is there.
    fn policies(&mut self, entries: Vec<(Vec<u8>, Vec<u8>)>) {
        for (key, value) in entries {
            if let Err(reason) = policy::read(&key, &value).and_then(|stored| self.policy(stored)) {
                let key = key.escape_ascii();
                self.damage.push(format!("record {key}: {reason}"));
            }
        }
        for vhost in self.vhosts.values() {
            vhost.give_policies();
        }
    }

    fn policy(&mut self, stored: policy::Stored) -> Result<(), String> {
        match stored {
            policy::Stored::Policy { vhost, kind, policy } => self.known_vhost(&vhost)?.recover_policy(kind, policy),
            policy::Stored::Parameter { vhost, component, name, value } => {
                self.known_vhost(&vhost)?.recover_parameter(&component, &name, value);
            }
            policy::Stored::Global { name, value } => self.global_parameters.set(&name, value),
        }
        Ok(())
    }

    fn vhost(&mut self, value: &[u8]) -> Result<(), String> {
        let record: records::VhostRecord = records::parse(value)?;
        let vhost = Vhost::empty(&record.name, self.services.clone());
        *vhost.settings.write() = Settings { metadata: record.metadata, limits: record.limits };
        self.vhosts.insert(record.name, vhost);
        Ok(())
    }

    fn exchange(&mut self, value: &[u8]) -> Result<(), String> {
        let record: ExchangeRecord = records::parse(value)?;
        let vhost = self.known_vhost(&record.vhost)?;
        let arguments = records::parse_arguments(&record.arguments)?;
        let is_delayed_type = record.kind == DELAYED_TYPE;
        let inner = arguments.get(INNER_TYPE).and_then(string);
        let kind = if is_delayed_type { inner.as_deref().unwrap_or_default() } else { &record.kind };
        let kind = ExchangeKind::from_name(kind).ok_or_else(|| format!("no exchange type '{kind}'"))?;
        let spec = ExchangeSpec {
            name: record.name.into(),
            kind,
            is_delayed_type,
            durable: true,
            auto_delete: record.auto_delete,
            internal: record.internal,
            arguments,
        };
        let named = Named::exchange(&spec.name, &vhost.name);
        let hash_on = spec.hash_on(&named).map_err(|error| error.text)?;
        let stored = |id| Stored { id, found: self.messages.get(&id).copied() };
        let delay = record.delayed.map(|id| {
            let (name, handle) = (Arc::clone(&spec.name), Arc::clone(&vhost.handle));
            Delay::new(name, Some(stored(id)), handle, self.services.clone())
        });
        let length = spec.history_length().map_err(|error| error.text)?;
        let history = record.history.zip(length);
        let history = history.map(|(id, length)| History::new(length, Some(stored(id)), self.services.clone()));
        // One that persists only in memory has nothing in the store.
        let window = spec.deduplication().map(|asked| Window::new(asked, record.window.map(stored), self.services));
        let kept = Kept { delay, history, window };
        let exchange = Exchange::new(vhost.topology.lock().new_exchange_id(), spec, hash_on, kept);
        vhost.add_exchange(Arc::new(exchange));
        for id in record.delayed.iter().chain(&record.history).chain(&record.window) {
            self.messages.remove(id);
        }
        Ok(())
    }

    fn queue(&mut self, value: &[u8]) -> Result<(), String> {
        let record: QueueRecord = records::parse(value)?;
        let vhost = self.known_vhost(&record.vhost)?;
        let arguments = Arc::new(records::parse_arguments(&record.arguments)?);
        let arguments = vhost.topology.lock().share_arguments(&arguments);
        let spec = QueueSpec {
            vhost: vhost.name.clone(),
            name: record.name.into(),
            durable: true,
            exclusive: None,
            auto_delete: record.auto_delete,
            arguments,
        };
        let ids = (0..=max_priority(&spec.arguments)).map(|level| id_of(record.id, level));
        let ids: Vec<QueueId> = ids.filter(|id| self.messages.contains_key(id)).collect();
        let found: Vec<RecoveredQueue> = ids.iter().filter_map(|id| self.messages.get(id).copied()).collect();
        let queue = Queue::recovered(record.id, spec, self.services.clone(), &found);
        queue.open_window(|| record.window.map(|id| Stored { id, found: self.messages.get(&id).copied() }));
        vhost.add_queue(&mut vhost.topology.lock(), &queue);
        for id in ids.into_iter().chain(record.window) {
            self.messages.remove(&id);
        }
        Ok(())
    }

    fn binding(&mut self, value: &[u8]) -> Result<(), String> {
        let record: BindingRecord = records::parse(value)?;
        let vhost = self.known_vhost(&record.vhost)?;
        let arguments: Arguments = records::parse_arguments(&record.arguments)?;
        let source = vhost.exchange(&record.source).ok_or_else(|| format!("no exchange '{}'", record.source))?;
        let name = &record.destination;
        let destination = match record.destination_type {
            DestinationType::Queue => vhost.queue(name).map(Destination::Queue),
            DestinationType::Exchange => vhost.exchange(name).map(Destination::Exchange),
        }
        .ok_or_else(|| format!("nothing named '{name}' to bind"))?;
        let added = source.change(&vhost.version, |table| table.bind(&destination, &record.routing_key, &arguments));
        if added.is_some() {
            let mut topology = vhost.topology.lock();
            topology.note_source(&destination, &source);
        }
        Ok(())
    }

    fn known_vhost(&self, name: &str) -> Result<&Vhost, String> {
        self.vhosts.get(name).ok_or_else(|| format!("no vhost '{name}'"))
    }
}
