//! Applying what was checked. Doing it twice changes nothing.

use serde_json::Value;

use super::Options;
use super::entry::told;
use super::plan::Plan;
use crate::admin::answer::Refusal;
use crate::admin::{bindings, exchanges, queues, users};
use crate::broker::Broker;
use crate::model::access::Unrestricted;
use crate::policy::PolicyKind;

/// What is appended to the log is durable when what is appended behind it is.
pub(super) fn apply(broker: &Broker, plan: Plan<'_>, options: &Options) -> Result<(), Refusal> {
    for (name, metadata, limits) in plan.vhosts {
        broker.put_vhost(name, metadata)?;
        if let Some(limits) = limits {
            broker.find_vhost(name)?.set_limits(limits)?;
        }
    }
    for (name, entry, tags) in plan.users {
        broker.auth.put_user(name, users::credentials(entry)?, &tags)?;
        if let Some(limits) = entry.get("limits").and_then(Value::as_object) {
            broker.auth.set_limits(name, limits)?;
        }
    }
    // Whoever creates a virtual host may do everything in it, unless the document says otherwise.
    if let Some(user) = options.user.as_deref().filter(|user| broker.auth.user(user).is_some()) {
        for vhost in &options.new_vhosts {
            broker.set_permissions(user, vhost, [".*"; 3])?;
        }
    }
    for (user, vhost, patterns) in plan.permissions {
        broker.set_permissions(user, vhost, patterns)?;
    }
    for (vhost, policy) in plan.policies {
        broker.find_vhost(vhost)?.set_policy(PolicyKind::Policy, policy)?;
    }
    for (vhost, component, name, value) in plan.parameters {
        broker.set_parameter(vhost, component, name, value)?;
    }
    for (name, value) in plan.globals {
        broker.set_global_parameter(name, value)?;
    }
    for (vhost, name, entry) in plan.exchanges {
        let vhost = broker.find_vhost(vhost)?;
        // One that is there stays as it is, whatever the document says of it: so does RabbitMQ.
        if vhost.exchange(name).is_none() {
            let request = exchanges::request(name, entry)?;
            vhost.declare_exchange(&Unrestricted, request).map_err(|error| told(&error))?;
        }
    }
    for (vhost, name, entry) in plan.queues {
        let vhost = broker.find_vhost(vhost)?;
        if vhost.queue(name).is_none() {
            let request = queues::request(name, entry, broker.new_connection_id())?;
            vhost.declare_queue(&Unrestricted, request).map_err(|error| told(&error))?;
        }
    }
    for binding in plan.bindings {
        let vhost = broker.find_vhost(binding.vhost)?;
        let ends = (binding.source, binding.kind, binding.destination);
        bindings::apply_as(broker, &Unrestricted, &vhost, ends, binding.key, &binding.arguments)?;
    }
    for (user, vhost, exchange, patterns) in plan.topics {
        broker.set_topic_permissions(user, vhost, exchange, patterns)?;
    }
    Ok(())
}
