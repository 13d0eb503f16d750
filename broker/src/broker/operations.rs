//! What operators do to a running broker. Each operation checks, changes what is in memory, appends to the log and tells where
//! the change is durable; whoever confirms it waits for that position. What concerns users alone is in
//! [`AuthStore`](crate::auth::AuthStore), what concerns one virtual host in [`Vhost`]; here is what needs both, or the whole
//! node.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value};
use storage::{Lsn, TopologyChange};

use super::Broker;
use super::connections::{ChannelLimit, ConnectionFacts, ConnectionInfo, ConnectionLimit, ConnectionLimits, Usage};
use crate::auth::{Patterns, TopicPermission};
use crate::model::ConnectionId;
use crate::model::events::Fields;
use crate::model::limits::{NodeLimits, reached};
use crate::model::operation::{OperationError, check_name};
use crate::policy::{self, GlobalParameters, Policy, PolicyKind, PolicyRequest};
use crate::vhost::{Metadata, Vhost};

/// Components whose parameters are something else with a name of its own.
const POLICY: &str = "policy";
const OPERATOR_POLICY: &str = "operator_policy";
const VHOST_LIMITS: &str = "vhost-limits";
/// The only name that the limits of a virtual host have as a parameter.
const LIMITS: &str = "limits";

impl Broker {
    /// A virtual host by name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn find_vhost(&self, name: &str) -> Result<Arc<Vhost>, OperationError> {
        self.vhost(name).ok_or_else(|| OperationError::NoSuchVhost(name.to_owned()))
    }

    /// Creates a virtual host that does not exist yet; returns where it is durable.
    pub fn create_vhost(&self, name: &str) -> Lsn {
        let _operations = self.operations.lock();
        let description = if name == "/" { "Default virtual host" } else { "" };
        self.create(name, Metadata { description: description.to_owned(), ..Metadata::default() }).unwrap_or_default()
    }

    /// Creates a virtual host; one that exists stays as it is. Tells whether it is new, and where it is durable.
    ///
    /// # Errors
    ///
    /// A name that can be none, a default queue type that there is not.
    pub fn add_vhost(&self, name: &str, metadata: Metadata) -> Result<(bool, Lsn), OperationError> {
        check_name("vhost", name)?;
        let metadata = metadata.checked()?;
        let _operations = self.operations.lock();
        let created = self.create(name, metadata);
        Ok((created.is_some(), created.unwrap_or_default()))
    }

    /// Creates a virtual host, or replaces all that describes it. Tells whether it is new, and where that is durable.
    ///
    /// # Errors
    ///
    /// A name that can be none, a default queue type that there is not.
    pub fn put_vhost(&self, name: &str, metadata: Metadata) -> Result<(bool, Lsn), OperationError> {
        check_name("vhost", name)?;
        let metadata = metadata.checked()?;
        let _operations = self.operations.lock();
        match self.vhost(name) {
            Some(vhost) => Ok((false, vhost.set_metadata(metadata)?)),
            None => Ok((true, self.create(name, metadata).unwrap_or_default())),
        }
    }

    /// `None` when it exists.
    fn create(&self, name: &str, metadata: Metadata) -> Option<Lsn> {
        let mut vhosts = self.vhosts.write();
        if vhosts.contains_key(name) {
            return None;
        }
        let (vhost, lsn) = Vhost::create_with(name, metadata, self.services.clone());
        vhost.count_queues_in(&self.queues);
        vhost.set_rules(self.settings.rules_of(name));
        vhosts.insert(Arc::clone(vhost.name()), vhost);
        drop(vhosts);
        self.services.events.emit("vhost.created", || Fields::by_operator().text("name", name));
        Some(lsn)
    }

    /// Deletes a virtual host with its queues, exchanges, policies, parameters and permissions, all or, after a crash, nothing
    /// of it. Its connections are closed with 320.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or it is protected.
    pub fn delete_vhost(&self, name: &str) -> Result<Lsn, OperationError> {
        let _operations = self.operations.lock();
        let vhost = self.find_vhost(name)?;
        let changes = vhost.take_for_delete()?;
        self.vhosts.write().remove(name);
        self.services.statistics.retired().forget(name);
        let lsn = self.auth.delete_vhost(name, changes);
        self.connections.close_vhost(name, &vhost.deletion_reason());
        self.services.events.emit("vhost.deleted", || Fields::by_operator().text("name", name));
        self.store.kick();
        Ok(lsn)
    }

    /// Copies every message that is published or delivered in a virtual host to its exchange `amq.rabbitmq.trace`.
    ///
    /// # Errors
    ///
    /// When there is no such virtual host.
    pub fn trace_on(&self, vhost: &str) -> Result<(), OperationError> {
        self.find_vhost(vhost)?.set_traced(true);
        Ok(())
    }

    /// Ends that.
    ///
    /// # Errors
    ///
    /// When there is no such virtual host.
    pub fn trace_off(&self, vhost: &str) -> Result<(), OperationError> {
        self.find_vhost(vhost)?.set_traced(false);
        Ok(())
    }

    /// Sets what a user may do in a virtual host.
    ///
    /// # Errors
    ///
    /// When there is no such virtual host or user, or with what is wrong with a pattern.
    pub fn set_permissions(
        &self,
        user: &str,
        vhost: &str,
        [configure, write, read]: [&str; 3],
    ) -> Result<Lsn, OperationError> {
        let _operations = self.operations.lock();
        self.find_vhost(vhost)?;
        self.auth.user(user).ok_or_else(|| OperationError::NoSuchUser(user.to_owned()))?;
        self.auth.put_permission(user, vhost, Patterns::new(configure, write, read)?)
    }

    /// Sets which keys a user may publish to an exchange and bind to it.
    ///
    /// # Errors
    ///
    /// When there is no such virtual host, user or exchange, or with what is wrong with a pattern.
    pub fn set_topic_permissions(
        &self,
        user: &str,
        vhost: &str,
        exchange: &str,
        [write, read]: [&str; 2],
    ) -> Result<Lsn, OperationError> {
        let _operations = self.operations.lock();
        let known = self.find_vhost(vhost)?;
        self.auth.user(user).ok_or_else(|| OperationError::NoSuchUser(user.to_owned()))?;
        known.exchange(exchange).ok_or_else(|| OperationError::NoSuchExchange(exchange.to_owned()))?;
        self.auth.put_topic_permission(user, vhost, exchange, TopicPermission::new(write, read)?)
    }

    /// Sets a policy, or an operator policy.
    ///
    /// # Errors
    ///
    /// When there is no such virtual host, or with RabbitMQ's words for what is wrong with the policy.
    pub fn set_policy(
        &self,
        vhost: &str,
        kind: PolicyKind,
        request: &PolicyRequest<'_>,
    ) -> Result<Lsn, OperationError> {
        let vhost = self.find_vhost(vhost)?;
        vhost.set_policy(kind, Policy::new(kind, request)?)
    }

    /// Takes a policy or an operator policy away.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn clear_policy(&self, vhost: &str, kind: PolicyKind, name: &str) -> Result<Lsn, OperationError> {
        self.vhost(vhost).ok_or(OperationError::NoSuchParameter)?.clear_policy(kind, name)
    }

    /// Sets the parameter of a component: a policy, an operator policy, the limits of the virtual host.
    ///
    /// # Errors
    ///
    /// A component that there is not: nothing would ever read the value. And all that the component refuses.
    pub fn set_parameter(
        &self,
        vhost: &str,
        component: &str,
        name: &str,
        value: &Value,
    ) -> Result<Lsn, OperationError> {
        let empty = Map::new();
        let map = value.as_object().unwrap_or(&empty);
        let kind = match component {
            POLICY => PolicyKind::Policy,
            OPERATOR_POLICY => PolicyKind::OperatorPolicy,
            VHOST_LIMITS if name == LIMITS => return self.find_vhost(vhost)?.set_limits(map),
            _ => return Err(OperationError::NotValidated(format!("component {component} not found"))),
        };
        let text = |field| map.get(field).and_then(Value::as_str);
        let missing = |field| OperationError::NotValidated(format!("Key \"{field}\" not found in {name}"));
        let request = PolicyRequest {
            name,
            pattern: text("pattern").ok_or_else(|| missing("pattern"))?,
            definition: map.get("definition").and_then(Value::as_object).ok_or_else(|| missing("definition"))?,
            priority: map.get("priority"),
            apply_to: text("apply-to"),
        };
        self.set_policy(vhost, kind, &request)
    }

    /// Takes the parameter of a component away.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn clear_parameter(&self, vhost: &str, component: &str, name: &str) -> Result<Lsn, OperationError> {
        let vhost = self.vhost(vhost).ok_or(OperationError::NoSuchParameter)?;
        match component {
            POLICY => vhost.clear_policy(PolicyKind::Policy, name),
            OPERATOR_POLICY => vhost.clear_policy(PolicyKind::OperatorPolicy, name),
            VHOST_LIMITS if name == LIMITS => vhost.clear_limits(None),
            _ => vhost.clear_parameter(component, name),
        }
    }

    /// Sets a parameter of the whole broker.
    ///
    /// # Errors
    ///
    /// A name that can be none.
    pub fn set_global_parameter(&self, name: &str, value: &Value) -> Result<Lsn, OperationError> {
        check_name("name", name)?;
        let mut parameters = self.global_parameters.write();
        let lsn = self.record(policy::put_global(name, value));
        parameters.set(name, value.clone());
        Ok(lsn)
    }

    /// Takes a parameter of the whole broker away.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn clear_global_parameter(&self, name: &str) -> Result<Lsn, OperationError> {
        let mut parameters = self.global_parameters.write();
        parameters.remove(name).ok_or(OperationError::NoSuchParameter)?;
        Ok(self.record(policy::delete_global(name)))
    }

    /// The parameters of the whole broker, as they are now.
    pub fn global_parameters(&self) -> GlobalParameters {
        self.global_parameters.read().clone()
    }

    fn record(&self, change: TopologyChange) -> Lsn {
        self.store.change_topology(vec![change])
    }

    /// Sets the limits of the node. What is open beyond them stays open.
    pub fn set_node_limits(&self, limits: NodeLimits) {
        *self.node_limits.write() = limits;
        self.queues.set_limit(limits.max_queues);
    }

    /// The limits of the node.
    pub fn node_limits(&self) -> NodeLimits {
        *self.node_limits.read()
    }

    /// Closes one connection with 320; false when there is none of that id.
    pub fn close_connection(&self, id: ConnectionId, reason: &str) -> bool {
        self.connections.close_one(id, reason)
    }

    /// The connections that have a virtual host, by number.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.connections.list()
    }

    /// Notes something about a connection, for operators.
    pub(crate) fn note_connection(&self, id: ConnectionId, note: impl FnOnce(&mut ConnectionFacts)) {
        self.connections.note(id, note);
    }

    /// What is known of a connection that is open.
    pub(crate) fn connection_facts(&self, id: ConnectionId) -> Option<ConnectionFacts> {
        self.connections.facts(id)
    }

    /// Connections that are open in a virtual host.
    pub fn connections_in(&self, vhost: &str) -> usize {
        self.connections.in_vhost(vhost)
    }

    /// Open channels of all connections.
    pub fn channel_count(&self) -> usize {
        self.connections.channel_count()
    }

    /// Connections and channels that a user has open.
    pub fn usage_of(&self, user: &str) -> (usize, usize) {
        self.connections.of_user(user)
    }

    /// The node's limit of connections, when there is no room for another.
    pub(crate) fn node_connection_limit(&self) -> Option<i64> {
        reached(self.node_limits().max_connections, self.connections.open_count())
    }

    /// A connection opens a virtual host, if all limits allow it.
    pub(crate) fn open_connection(
        &self,
        id: ConnectionId,
        vhost: &Vhost,
        user: &Arc<str>,
    ) -> Result<Arc<Usage>, ConnectionLimit> {
        let limits = ConnectionLimits {
            node: self.node_limits().max_connections,
            vhost: vhost.limits().max_connections,
            user: self.auth.limits(user).and_then(|limits| limits.max_connections),
        };
        self.connections.open(id, vhost.name(), user, limits)
    }

    /// What a connection had opened is free again.
    pub(crate) fn release_connection(&self, id: ConnectionId) {
        self.connections.close(id);
    }

    /// A channel opens, if the limits of node and user allow it.
    pub(crate) fn open_channel(&self, user: &str, usage: &Usage) -> Result<(), ChannelLimit> {
        let limit = self.auth.limits(user).and_then(|limits| limits.max_channels);
        self.connections.open_channel(usage, self.node_limits().max_channels, limit)
    }

    /// Channels that connection.tune offers; 0 is no limit.
    pub fn channel_max(&self) -> u16 {
        self.channel_max.load(Ordering::Relaxed)
    }

    /// From the next connection on; until the broker stops.
    pub fn set_channel_max(&self, channels: u16) {
        self.channel_max.store(channels, Ordering::Relaxed);
    }

    /// Channels have ended.
    pub(crate) fn close_channels(&self, usage: &Usage, count: usize) {
        self.connections.close_channels(usage, count);
    }

    /// Why an operator wants a connection closed.
    pub(crate) fn close_reason(&self, id: ConnectionId) -> Option<Arc<str>> {
        self.connections.reason(id)
    }
}
