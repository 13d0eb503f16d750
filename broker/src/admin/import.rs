//! Importing definitions: everything is read and checked first, so that a mistake anywhere changes nothing, and is named.

use std::collections::HashSet;

use axum::http::StatusCode;
use serde_json::{Map, Value};
use storage::Lsn;

use super::answer::{Answer, Refusal};
use super::request::Ask;
use super::{bindings, exchanges, policies, queues, users, vhosts};
use crate::auth::{Credentials, Patterns, TopicPermission};
use crate::model::ConnectionId;
use crate::model::access::Unrestricted;
use crate::model::arguments::Arguments;
use crate::model::limits::{UserLimits, VhostLimits};
use crate::model::operation::check_name;
use crate::model::queue_arguments;
use crate::policy::{Policy, PolicyKind};
use crate::vhost::Metadata;

type Object = Map<String, Value>;

/// Where it is, its ends (source, kind, destination), its key and arguments.
type Binding<'a> = (&'a str, (&'a str, &'a str, &'a str), &'a str, Arguments);

/// What a document says, checked.
#[derive(Default)]
struct Plan<'a> {
    vhosts: Vec<(&'a str, Metadata, Option<&'a Object>)>,
    users: Vec<(&'a str, &'a Object, Vec<String>)>,
    permissions: Vec<(&'a str, &'a str, [&'a str; 3])>,
    topics: Vec<(&'a str, &'a str, &'a str, [&'a str; 2])>,
    policies: Vec<(&'a str, Policy)>,
    parameters: Vec<(&'a str, &'a str, &'a str, &'a Value)>,
    globals: Vec<(&'a str, &'a Value)>,
    exchanges: Vec<(&'a str, &'a str, &'a Object)>,
    queues: Vec<(&'a str, &'a str, &'a Object)>,
    bindings: Vec<Binding<'a>>,
}

/// What there is, or will be once the document is applied.
struct Known<'a, 'b> {
    ask: &'b Ask,
    vhosts: HashSet<&'a str>,
    users: HashSet<&'a str>,
    exchanges: HashSet<(&'a str, &'a str)>,
    queues: HashSet<(&'a str, &'a str)>,
}

/// Imports all, or what belongs to one virtual host and does not name it.
pub(super) fn import(ask: &Ask, only: Option<&str>) -> Answer {
    let document = ask.object()?;
    let plan = check(ask, &document, only)?;
    match apply(ask, plan) {
        Ok(lsn) => ask.done(lsn),
        // Somebody deleted meanwhile what had been there, or a limit was reached.
        Err(refusal) => Err(refusal),
    }
}

/// Names the entry in front of what is wrong with it.
fn named<T, E: Into<Refusal>>(part: &str, at: usize, outcome: Result<T, E>) -> Result<T, Refusal> {
    outcome.map_err(|error| error.into().within(&format!("{part}[{at}]")))
}

fn check<'a>(ask: &Ask, document: &'a Object, only: Option<&'a str>) -> Result<Plan<'a>, Refusal> {
    let mut plan = Plan::default();
    let mut known = Known {
        ask,
        vhosts: only.into_iter().collect(),
        users: HashSet::new(),
        exchanges: HashSet::new(),
        queues: HashSet::new(),
    };
    if only.is_none() {
        each(document, "vhosts", |entry| known.vhost(entry, &mut plan))?;
        each(document, "users", |entry| known.user(entry, &mut plan))?;
        each(document, "permissions", |entry| known.permission(entry, &mut plan))?;
        each(document, "global_parameters", |entry| {
            let name = text(entry, "name")?;
            check_name("name", name)?;
            plan.globals.push((name, value(entry)?));
            Ok(())
        })?;
    }
    each(document, "policies", |entry| {
        let vhost = known.vhost_of(entry, only)?;
        plan.policies.push((vhost, policies::read(PolicyKind::Policy, text(entry, "name")?, entry)?));
        Ok(())
    })?;
    each(document, "parameters", |entry| known.parameter(entry, only, &mut plan))?;
    each(document, "exchanges", |entry| {
        let (vhost, name) = (known.vhost_of(entry, only)?, text(entry, "name")?);
        check_name("exchange", name)?;
        exchanges::request(name, entry)?;
        known.exchanges.insert((vhost, name));
        plan.exchanges.push((vhost, name, entry));
        Ok(())
    })?;
    each(document, "queues", |entry| {
        let (vhost, name) = (known.vhost_of(entry, only)?, text(entry, "name")?);
        check_name("queue", name)?;
        let request = queues::request(name, entry, ConnectionId(0))?;
        queue_arguments::validate(&request.arguments, name, vhost)?;
        known.queues.insert((vhost, name));
        plan.queues.push((vhost, name, entry));
        Ok(())
    })?;
    each(document, "bindings", |entry| known.binding(entry, only, &mut plan))?;
    if only.is_none() {
        each(document, "topic_permissions", |entry| known.topic(entry, &mut plan))?;
    }
    Ok(plan)
}

fn each<'a>(
    document: &'a Object,
    part: &str,
    mut read: impl FnMut(&'a Object) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let entries = match document.get(part) {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(Refusal::bad_request(format!("{part} is not a list"))),
    };
    for (at, entry) in entries.iter().enumerate() {
        let object = entry.as_object().ok_or_else(|| Refusal::bad_request("not an object"));
        named(part, at, object.and_then(&mut read))?;
    }
    Ok(())
}

fn text<'a>(entry: &'a Object, name: &str) -> Result<&'a str, Refusal> {
    entry.get(name).and_then(Value::as_str).ok_or_else(|| Refusal::bad_request(format!("{name} is missing or no text")))
}

fn value(entry: &Object) -> Result<&Value, Refusal> {
    entry.get("value").ok_or_else(|| Refusal::bad_request("value is missing"))
}

impl<'a> Known<'a, '_> {
    fn has_vhost(&self, name: &'a str) -> Result<&'a str, Refusal> {
        if self.vhosts.contains(name) || self.ask.broker().vhost(name).is_some() {
            return Ok(name);
        }
        Err(Refusal::bad_request(format!("there is no virtual host {name:?}")))
    }

    fn vhost_of(&self, entry: &'a Object, only: Option<&'a str>) -> Result<&'a str, Refusal> {
        match only {
            Some(name) => Ok(name),
            None => self.has_vhost(text(entry, "vhost")?),
        }
    }

    fn has_user(&self, name: &'a str) -> Result<&'a str, Refusal> {
        if self.users.contains(name) || self.ask.broker().auth.user(name).is_some() {
            return Ok(name);
        }
        Err(Refusal::bad_request(format!("there is no user {name:?}")))
    }

    fn has_exchange(&self, vhost: &'a str, name: &'a str) -> Result<(), Refusal> {
        let is_there = || self.ask.broker().vhost(vhost).is_some_and(|vhost| vhost.exchange(name).is_some());
        // Those that every virtual host has are in one that is still to come as well.
        if self.exchanges.contains(&(vhost, name)) || name.starts_with("amq.") || is_there() {
            return Ok(());
        }
        Err(Refusal::bad_request(format!("there is no exchange {name:?} in virtual host {vhost:?}")))
    }

    fn vhost(&mut self, entry: &'a Object, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let name = text(entry, "name")?;
        check_name("vhost", name)?;
        let metadata = match entry.get("metadata").and_then(Value::as_object) {
            Some(metadata) => vhosts::metadata(metadata)?,
            None => vhosts::metadata(entry)?,
        };
        let limits = entry.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty());
        if let Some(limits) = limits {
            VhostLimits::read(limits).map_err(Refusal::bad_request)?;
        }
        self.vhosts.insert(name);
        plan.vhosts.push((name, metadata, limits));
        Ok(())
    }

    fn user(&mut self, entry: &'a Object, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let name = text(entry, "name")?;
        check_name("user", name)?;
        users::credentials(entry)?;
        if let Some(limits) = entry.get("limits").and_then(Value::as_object) {
            UserLimits::default().with(limits).map_err(Refusal::bad_request)?;
        }
        self.users.insert(name);
        plan.users.push((name, entry, users::tags(entry.get("tags"))?));
        Ok(())
    }

    fn permission(&mut self, entry: &'a Object, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let (user, vhost) = (self.has_user(text(entry, "user")?)?, self.has_vhost(text(entry, "vhost")?)?);
        let patterns = [text(entry, "configure")?, text(entry, "write")?, text(entry, "read")?];
        Patterns::new(patterns[0], patterns[1], patterns[2]).map_err(Refusal::bad_request)?;
        plan.permissions.push((user, vhost, patterns));
        Ok(())
    }

    fn topic(&mut self, entry: &'a Object, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let (user, vhost) = (self.has_user(text(entry, "user")?)?, self.has_vhost(text(entry, "vhost")?)?);
        let exchange = text(entry, "exchange")?;
        self.has_exchange(vhost, exchange)?;
        let patterns = [text(entry, "write")?, text(entry, "read")?];
        TopicPermission::new(patterns[0], patterns[1]).map_err(Refusal::bad_request)?;
        plan.topics.push((user, vhost, exchange, patterns));
        Ok(())
    }

    fn parameter(&mut self, entry: &'a Object, only: Option<&'a str>, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let vhost = self.vhost_of(entry, only)?;
        let (component, name, value) = (text(entry, "component")?, text(entry, "name")?, value(entry)?);
        let empty = Object::new();
        let object = value.as_object().unwrap_or(&empty);
        match component {
            "operator_policy" => drop(policies::read(PolicyKind::OperatorPolicy, name, object)?),
            "policy" => drop(policies::read(PolicyKind::Policy, name, object)?),
            "vhost-limits" => drop(VhostLimits::read(object).map_err(Refusal::bad_request)?),
            _ => {
                check_name("component", component)?;
                check_name("name", name)?;
            }
        }
        plan.parameters.push((vhost, component, name, value));
        Ok(())
    }

    fn binding(&mut self, entry: &'a Object, only: Option<&'a str>, plan: &mut Plan<'a>) -> Result<(), Refusal> {
        let vhost = self.vhost_of(entry, only)?;
        let (source, kind, destination, key) = bindings::fields(entry)?;
        self.has_exchange(vhost, source)?;
        if kind == "exchange" {
            self.has_exchange(vhost, destination)?;
        } else {
            let is_there = || self.ask.broker().vhost(vhost).is_some_and(|vhost| vhost.queue(destination).is_some());
            if !self.queues.contains(&(vhost, destination)) && !is_there() {
                let reason = format!("there is no queue {destination:?} in virtual host {vhost:?}");
                return Err(Refusal::bad_request(reason));
            }
        }
        if key.len() > 255 {
            return Err(Refusal::bad_request("routing_key has more than 255 bytes"));
        }
        let arguments = exchanges::given_arguments(entry);
        plan.bindings.push((vhost, (source, kind, destination), key, arguments));
        Ok(())
    }
}

fn apply(ask: &Ask, plan: Plan<'_>) -> Result<Lsn, Refusal> {
    let broker = ask.broker();
    let mut lsn = Lsn(0);
    for (name, metadata, limits) in plan.vhosts {
        lsn = lsn.max(broker.put_vhost(name, metadata)?.1);
        if let Some(limits) = limits {
            lsn = lsn.max(broker.find_vhost(name)?.set_limits(limits)?);
        }
    }
    for (name, entry, tags) in plan.users {
        let credentials: Credentials<'_> = users::credentials(entry)?;
        lsn = lsn.max(broker.auth.put_user(name, credentials, &tags)?);
        if let Some(limits) = entry.get("limits").and_then(Value::as_object) {
            lsn = lsn.max(broker.auth.set_limits(name, limits)?);
        }
    }
    for (user, vhost, patterns) in plan.permissions {
        lsn = lsn.max(broker.set_permissions(user, vhost, patterns)?);
    }
    for (vhost, policy) in plan.policies {
        lsn = lsn.max(broker.find_vhost(vhost)?.set_policy(PolicyKind::Policy, policy)?);
    }
    for (vhost, component, name, value) in plan.parameters {
        lsn = lsn.max(broker.import_parameter(vhost, component, name, value)?);
    }
    for (name, value) in plan.globals {
        lsn = lsn.max(broker.set_global_parameter(name, value)?);
    }
    for (vhost, name, entry) in plan.exchanges {
        let vhost = broker.find_vhost(vhost)?;
        // One that is there stays as it is, whatever the document says of it: so does RabbitMQ.
        if vhost.exchange(name).is_none() {
            lsn = lsn.max(vhost.declare_exchange(&Unrestricted, exchanges::request(name, entry)?)?);
        }
    }
    for (vhost, name, entry) in plan.queues {
        let vhost = broker.find_vhost(vhost)?;
        if vhost.queue(name).is_none() {
            let request = queues::request(name, entry, broker.new_connection_id())?;
            lsn = lsn.max(vhost.declare_queue(&Unrestricted, request)?.lsn);
        }
    }
    for (vhost, ends, key, arguments) in plan.bindings {
        let vhost = broker.find_vhost(vhost)?;
        lsn = lsn.max(bindings::apply_as(ask, &Unrestricted, &vhost, ends, key, &arguments)?);
    }
    for (user, vhost, exchange, patterns) in plan.topics {
        lsn = lsn.max(broker.set_topic_permissions(user, vhost, exchange, patterns)?);
    }
    Ok(lsn)
}

impl Refusal {
    /// A bad request that says where.
    fn within(self, place: &str) -> Self {
        let reason = self.reason();
        Self::new(StatusCode::BAD_REQUEST, format_args!("{place}: {reason}"))
    }
}
