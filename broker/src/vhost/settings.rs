//! What an operator sets for a virtual host as a whole: its description, its default queue type, its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use protocol::error::{AmqpError, ReplyCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::Lsn;

use super::{Vhost, records};
use crate::config::VhostRules;
use crate::model::limits::{Limit, VhostLimits, reached};
use crate::model::operation::OperationError;

/// The kinds of queues that can be a default.
const QUEUE_TYPES: [&str; 3] = ["quorum", "classic", "stream"];

/// What describes a virtual host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// For tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What a queue is whose declaration does not say it; classic without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_queue_type: Option<String>,
    /// Refuses to be deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected_from_deletion: bool,
}

impl Metadata {
    /// Checks the default queue type; `undefined` and an empty one are none.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for a type that there is not.
    pub fn checked(mut self) -> Result<Self, OperationError> {
        match self.default_queue_type.as_deref() {
            None | Some("" | "undefined") => self.default_queue_type = None,
            Some(name) if QUEUE_TYPES.contains(&name) => {}
            Some(name) => return Err(OperationError::Invalid(format!("{name} is not a valid queue type"))),
        }
        Ok(self)
    }
}

/// A change of some of the metadata.
#[derive(Clone, Debug, Default)]
pub struct MetadataChange {
    /// The new description.
    pub description: Option<String>,
    /// The new tags.
    pub tags: Option<Vec<String>>,
    /// The new default queue type.
    pub default_queue_type: Option<String>,
    /// Whether the virtual host refuses to be deleted from now on.
    pub protected_from_deletion: Option<bool>,
}

/// What a virtual host is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) metadata: Metadata,
    pub(super) limits: VhostLimits,
}

/// Queues of all virtual hosts of a node together.
#[derive(Debug, Default)]
pub struct NodeQueues {
    count: AtomicUsize,
    limit: RwLock<Limit>,
}

impl NodeQueues {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Sets how many there may be. Those beyond it stay.
    pub fn set_limit(&self, limit: Limit) {
        *self.limit.write() = limit;
    }

    pub(super) fn add(&self, count: usize) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, count: usize) {
        self.count.fetch_sub(count, Ordering::Relaxed);
    }
}

impl Vhost {
    /// What its clients may do. Everything until [`Vhost::set_rules`] was called.
    pub fn rules(&self) -> VhostRules {
        self.rules.get().copied().unwrap_or_default()
    }

    /// Sets what its clients may do, once.
    pub fn set_rules(&self, rules: VhostRules) {
        // They come from the configuration, which does not change: a second call has nothing to add.
        let _ = self.rules.set(rules);
    }

    /// What describes it.
    pub fn metadata(&self) -> Metadata {
        self.settings.read().metadata.clone()
    }

    /// Its limits.
    pub fn limits(&self) -> VhostLimits {
        self.settings.read().limits
    }

    /// Replaces all that describes it; gives where that is durable.
    ///
    /// # Errors
    ///
    /// A default queue type that there is not.
    pub fn set_metadata(&self, metadata: Metadata) -> Result<Lsn, OperationError> {
        let metadata = metadata.checked()?;
        self.change_settings(|settings| settings.metadata = metadata)
    }

    /// Replaces some of what describes it; gives where that is durable.
    ///
    /// # Errors
    ///
    /// A default queue type that there is not.
    pub fn update_metadata(&self, change: MetadataChange) -> Result<Lsn, OperationError> {
        let checked =
            Metadata { default_queue_type: change.default_queue_type.clone(), ..Metadata::default() }.checked()?;
        self.change_settings(|settings| {
            let metadata = &mut settings.metadata;
            if let Some(description) = change.description {
                metadata.description = description;
            }
            if let Some(tags) = change.tags {
                metadata.tags = tags;
            }
            if change.default_queue_type.is_some() {
                metadata.default_queue_type = checked.default_queue_type;
            }
            if let Some(protected) = change.protected_from_deletion {
                metadata.protected_from_deletion = protected;
            }
        })
    }

    /// Replaces all limits. What is there beyond them stays; gives where that is durable.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for what can't be a limit.
    pub fn set_limits(&self, limits: &Map<String, Value>) -> Result<Lsn, OperationError> {
        let limits = VhostLimits::read(limits).map_err(OperationError::NotValidated)?;
        self.change_settings(|settings| settings.limits = limits)
    }

    /// Sets one limit beside the others.
    ///
    /// # Errors
    ///
    /// RabbitMQ's text for what can't be a limit.
    pub fn set_limit(&self, name: &str, value: &Value) -> Result<Lsn, OperationError> {
        let given = Map::from_iter([(name.to_owned(), value.clone())]);
        let read = VhostLimits::read(&given).map_err(OperationError::NotValidated)?;
        self.change_settings(|settings| {
            let limits = &mut settings.limits;
            limits.max_connections = read.max_connections.or(limits.max_connections);
            limits.max_queues = read.max_queues.or(limits.max_queues);
        })
    }

    /// Takes a limit away, or all of them.
    ///
    /// # Errors
    ///
    /// When all are to go and there is none.
    pub fn clear_limits(&self, name: Option<&str>) -> Result<Lsn, OperationError> {
        if name.is_none() && self.limits().is_empty() {
            return Err(OperationError::NoSuchParameter);
        }
        self.change_settings(|settings| match name {
            Some(name) => settings.limits = settings.limits.without(name),
            None => settings.limits = VhostLimits::default(),
        })
    }

    fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<Lsn, OperationError> {
        let topology = self.topology.lock();
        if topology.is_deleted() {
            return Err(OperationError::NoSuchVhost(self.name.to_string()));
        }
        let mut settings = self.settings.read().clone();
        change(&mut settings);
        let lsn = self.log(vec![records::put_vhost(&self.name, &settings)]);
        *self.settings.write() = settings;
        Ok(lsn)
    }

    /// From now on its queues count among those of the node.
    pub fn count_queues_in(&self, node: &Arc<NodeQueues>) {
        let _topology = self.topology.lock();
        if self.node_queues.set(Arc::clone(node)).is_ok() {
            node.add(self.queue_count());
        }
    }

    /// 406 when there may not be another queue.
    pub(super) fn check_queue_limits(&self, queue: &str) -> Result<(), AmqpError> {
        let refuse = |of: std::fmt::Arguments<'_>, limit| {
            let text = format!("cannot declare queue '{queue}': queue limit in {of} ({limit}) is reached");
            Err(AmqpError::new(ReplyCode::PreconditionFailed, text))
        };
        if let Some(max) = self.limits().max_queues
            && let Some(limit) = reached(Some(max), self.queue_count())
        {
            return refuse(format_args!("vhost '{}'", self.name), limit);
        }
        if let Some(node) = self.node_queues.get()
            && let Some(limit) = reached(*node.limit.read(), node.count())
        {
            return refuse(format_args!("cluster"), limit);
        }
        Ok(())
    }

    /// What a queue is whose declaration does not say it. Queues that end with a connection or are not durable are always
    /// classic.
    pub(super) fn default_queue_type(&self, durable: bool, exclusive: bool, auto_delete: bool) -> Option<String> {
        let settings = self.settings.read();
        settings.metadata.default_queue_type.clone().filter(|_| durable && !exclusive && !auto_delete)
    }
}
