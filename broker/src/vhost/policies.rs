//! The policies and parameters of a virtual host, and what a change of them means for its queues and exchanges.

use std::sync::Arc;

use serde_json::Value;
use storage::{Lsn, TopologyChange};

use super::queue_settings::queue_settings;
use super::{Exchange, Vhost};
use crate::model::arguments::string;
use crate::model::operation::{OperationError, check_name};
use crate::model::queue_arguments::QUEUE_TYPE;
use crate::policy::{self, Effective, ObjectKind, Parameters, Policies, Policy, PolicyKind};
use crate::queue::Queue;

/// Who wants to know when another policy holds for something. Called in the order of the changes and before the operation
/// returns, with the topology locked: an observer may take the lock of a queue or of an outbox, and nothing above.
pub trait PolicyObserver: Send + Sync {
    /// Something else holds for a queue from now on.
    fn queue_changed(&self, queue: &Arc<Queue>, policy: &Arc<Effective>);

    /// Something else holds for an exchange from now on. It is already so.
    fn exchange_changed(&self, exchange: &Arc<Exchange>, policy: &Arc<Effective>);
}

/// What belongs to policies, behind one lock below the topology's.
#[derive(Default)]
pub(super) struct PolicyState {
    policies: Arc<Policies>,
    parameters: Parameters,
    observers: Vec<Arc<dyn PolicyObserver>>,
}

impl Vhost {
    /// Sets a policy, or replaces the one of that name; gives where that is durable. What it changes is changed when this
    /// returns.
    ///
    /// # Errors
    ///
    /// When the virtual host is gone.
    pub fn set_policy(&self, kind: PolicyKind, policy: Policy) -> Result<Lsn, OperationError> {
        let topology = self.topology.lock();
        if topology.is_deleted() {
            return Err(OperationError::NoSuchVhost(self.name.to_string()));
        }
        let lsn = self.log(vec![policy::put_policy(&self.name, kind, &policy)]);
        let policy = Arc::new(policy);
        let old = self.change_policies(|policies| policies.insert(kind, Arc::clone(&policy)));
        let (before, replaced) = old;
        self.apply_policies(&before, &[Some(Arc::clone(&policy)), replaced]);
        self.policy_event(kind, "set", policy.name());
        Ok(lsn)
    }

    /// Takes a policy away; gives where that is durable.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn clear_policy(&self, kind: PolicyKind, name: &str) -> Result<Lsn, OperationError> {
        let _topology = self.topology.lock();
        let (before, removed) = self.change_policies(|policies| policies.remove(kind, name));
        if removed.is_none() {
            return Err(OperationError::NoSuchParameter);
        }
        let lsn = self.log(vec![policy::delete_policy(&self.name, kind, name)]);
        self.apply_policies(&before, &[removed]);
        self.policy_event(kind, "cleared", name);
        Ok(lsn)
    }

    /// All policies, as they are now.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policy_state.read().policies)
    }

    /// What holds for a queue.
    pub fn queue_policy(&self, queue: &Queue) -> Effective {
        self.policies().effective(kind_of(queue), &queue.spec().name)
    }

    /// From now on this observer is told.
    pub fn observe_policies(&self, observer: Arc<dyn PolicyObserver>) {
        self.policy_state.write().observers.push(observer);
    }

    /// Sets the parameter of a component; gives where that is durable. Nothing here reads it: it is kept for those who do,
    /// and for definitions.
    ///
    /// # Errors
    ///
    /// Names that can be none, or when the virtual host is gone.
    pub fn set_parameter(&self, component: &str, name: &str, value: Value) -> Result<Lsn, OperationError> {
        check_name("component", component)?;
        check_name("name", name)?;
        let topology = self.topology.lock();
        if topology.is_deleted() {
            return Err(OperationError::NoSuchVhost(self.name.to_string()));
        }
        let lsn = self.log(vec![policy::put_parameter(&self.name, component, name, &value)]);
        self.policy_state.write().parameters.set(component, name, value);
        self.parameter_event("parameter.set", component, name);
        Ok(lsn)
    }

    /// Takes the parameter of a component away; gives where that is durable.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn clear_parameter(&self, component: &str, name: &str) -> Result<Lsn, OperationError> {
        let _topology = self.topology.lock();
        let removed = self.policy_state.write().parameters.remove(component, name);
        removed.ok_or(OperationError::NoSuchParameter)?;
        self.parameter_event("parameter.cleared", component, name);
        Ok(self.log(vec![policy::delete_parameter(&self.name, component, name)]))
    }

    /// All parameters, as they are now.
    pub fn parameters(&self) -> Parameters {
        self.policy_state.read().parameters.clone()
    }

    /// Takes over what was stored. Nobody uses the virtual host yet.
    pub(super) fn recover_policy(&self, kind: PolicyKind, policy: Policy) {
        self.change_policies(|policies| policies.insert(kind, Arc::new(policy)));
    }

    /// Takes over what was stored. Nobody uses the virtual host yet.
    pub(super) fn recover_parameter(&self, component: &str, name: &str, value: Value) {
        self.policy_state.write().parameters.set(component, name, value);
    }

    /// All that is stored of policies and parameters goes.
    pub(super) fn delete_policies(&self, changes: &mut Vec<TopologyChange>) {
        let mut state = self.policy_state.write();
        for kind in [PolicyKind::Policy, PolicyKind::OperatorPolicy] {
            changes.extend(state.policies.list(kind).map(|one| policy::delete_policy(&self.name, kind, one.name())));
        }
        let parameters = state.parameters.iter();
        changes.extend(parameters.map(|(component, name, _)| policy::delete_parameter(&self.name, component, name)));
        *state = PolicyState::default();
    }

    /// An exchange gets what holds for its name.
    pub(super) fn give_policy(&self, exchange: &Exchange) {
        let effective = self.policies().effective(ObjectKind::Exchange, exchange.name());
        exchange.set_policy(Arc::new(effective));
    }

    /// A queue gets what holds for its name.
    pub(super) fn give_queue_policy(&self, queue: &Arc<Queue>) {
        self.apply_to_queue(queue, &self.queue_policy(queue));
    }

    /// What of a policy a queue itself acts upon.
    fn apply_to_queue(&self, queue: &Arc<Queue>, policy: &Effective) {
        self.give_dead_letters(queue, policy);
        let timeout_ms = policy.definition.integer("consumer-timeout");
        queue.limit_ack_time(timeout_ms.and_then(|timeout_ms| u64::try_from(timeout_ms).ok()));
        queue.set_settings(queue_settings(queue.spec(), policy));
    }

    /// All exchanges and queues get what holds for their names: after a start.
    pub(super) fn give_policies(&self) {
        let policies = self.policies();
        let has_any = [PolicyKind::Policy, PolicyKind::OperatorPolicy]
            .into_iter()
            .any(|kind| policies.list(kind).next().is_some());
        if has_any {
            for exchange in self.exchanges() {
                self.give_policy(&exchange);
            }
        }
        for queue in self.queues() {
            self.apply_to_queue(&queue, &policies.effective(kind_of(&queue), &queue.spec().name));
        }
    }

    /// Changes the policies; gives those of before, and what the change gave.
    fn change_policies<R>(&self, change: impl FnOnce(&mut Policies) -> R) -> (Arc<Policies>, R) {
        let mut state = self.policy_state.write();
        let before = Arc::clone(&state.policies);
        let changed = change(Arc::make_mut(&mut state.policies));
        (before, changed)
    }

    /// Compares what held before with what holds now, for everything that one of the policies touched can match.
    fn apply_policies(&self, before: &Policies, touched: &[Option<Arc<Policy>>]) {
        let (now, observers) = {
            let state = self.policy_state.read();
            (Arc::clone(&state.policies), state.observers.clone())
        };
        let changed = |kind, name: &str| {
            if !touched.iter().flatten().any(|policy| policy.matches(kind, name)) {
                return None;
            }
            let effective = now.effective(kind, name);
            (effective != before.effective(kind, name)).then(|| Arc::new(effective))
        };
        for exchange in self.exchanges() {
            let Some(effective) = changed(ObjectKind::Exchange, exchange.name()) else {
                continue;
            };
            exchange.set_policy(Arc::clone(&effective));
            exchange.bump(&self.version);
            for observer in &observers {
                observer.exchange_changed(&exchange, &effective);
            }
        }
        for queue in self.queues() {
            if let Some(effective) = changed(kind_of(&queue), &queue.spec().name) {
                self.apply_to_queue(&queue, &effective);
                for observer in &observers {
                    observer.queue_changed(&queue, &effective);
                }
            }
        }
    }
}

fn kind_of(queue: &Queue) -> ObjectKind {
    let kind = queue.spec().arguments.get(QUEUE_TYPE).and_then(string);
    ObjectKind::of_queue(kind.as_deref())
}
