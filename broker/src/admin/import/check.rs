//! From a document to a plan: every entry is read, and checked against what there is and what the document adds.

use std::collections::{HashMap, HashSet};

use protocol::error::{AmqpError, ReplyCode};
use serde_json::{Map, Value};

use super::entry::{Object, check_name, entries, invalid, label, text, told, value};
use super::plan::{Binding, Plan};
use super::{Options, Skipped};
use crate::admin::answer::Refusal;
use crate::admin::{bindings, exchanges, policies, queues, users, vhosts};
use crate::auth::{Patterns, TopicPermission};
use crate::broker::Broker;
use crate::model::ConnectionId;
use crate::model::limits::{UserLimits, VhostLimits, reached};
use crate::policy::{self, Policy, PolicyKind};
use crate::routing::kind::ExchangeKind;
use crate::vhost::{Metadata, check_exchange, check_new_binding, check_queue, predeclared_kind};

/// RabbitMQ passes over such names as well, but without a word.
const RESERVED_PREFIX: &str = "amq.";
const RESERVED: &str = "names that begin with amq. are the broker's own";

/// Why an entry does not become part of the plan.
enum Reject {
    /// It is wrong.
    Wrong(Refusal),
    /// It is right for another broker, but not for this one.
    Unsupported(String),
    /// It names what was left out, or what every broker has of its own.
    Dropped(String),
}

impl<E: Into<Refusal>> From<E> for Reject {
    fn from(error: E) -> Self {
        Self::Wrong(error.into())
    }
}

/// What there is, or will be once the document is applied.
struct Check<'a, 'b> {
    broker: &'b Broker,
    options: &'b Options,
    plan: Plan<'a>,
    skipped: Vec<Skipped>,
    vhosts: HashMap<&'a str, Metadata>,
    limits: HashMap<&'a str, VhostLimits>,
    users: HashSet<&'a str>,
    exchanges: HashMap<(&'a str, &'a str), ExchangeKind>,
    /// With their types.
    queues: HashMap<(&'a str, &'a str), String>,
    /// Exchanges and queues that were left out.
    left_out: HashSet<(&'static str, &'a str, &'a str)>,
    /// The virtual host of entries that do not name it.
    only: Option<&'a str>,
}

/// Checks a document; nothing changes.
///
/// # Errors
///
/// The first entry that is wrong, or that this broker cannot do unless those are to be left out.
pub(super) fn check<'a>(
    broker: &Broker,
    document: &'a Object,
    options: &'a Options,
) -> Result<(Plan<'a>, Vec<Skipped>), Refusal> {
    let only = options.vhost.as_deref();
    let mut check = Check {
        broker,
        options,
        plan: Plan::default(),
        skipped: Vec::new(),
        vhosts: HashMap::new(),
        limits: HashMap::new(),
        users: HashSet::new(),
        exchanges: HashMap::new(),
        queues: HashMap::new(),
        left_out: HashSet::new(),
        only,
    };
    if only.is_none() {
        check.each(document, "vhosts", Check::vhost)?;
        check.each(document, "users", Check::user)?;
        check.each(document, "permissions", Check::permission)?;
        check.each(document, "global_parameters", Check::global)?;
    }
    check.each(document, "policies", |check, entry| check.policy(entry, PolicyKind::Policy))?;
    check.each(document, "parameters", Check::parameter)?;
    check.each(document, "exchanges", Check::exchange)?;
    check.each(document, "queues", Check::queue)?;
    check.queue_limits()?;
    check.each(document, "bindings", Check::binding)?;
    if only.is_none() {
        check.each(document, "topic_permissions", Check::topic)?;
    }
    Ok((check.plan, check.skipped))
}

/// What this broker does not do at all is not wrong in itself.
fn unsupported(error: &AmqpError) -> Reject {
    match error.code {
        ReplyCode::NotImplemented | ReplyCode::InternalError => Reject::Unsupported(told(error).reason()),
        _ => Reject::Wrong(told(error)),
    }
}

impl<'a> Check<'a, '_> {
    fn each(
        &mut self,
        document: &'a Object,
        part: &str,
        mut read: impl FnMut(&mut Self, &'a Object) -> Result<(), Reject>,
    ) -> Result<(), Refusal> {
        for (at, entry) in entries(document, part)?.iter().enumerate() {
            let outcome = match entry.as_object() {
                Some(object) => read(self, object),
                None => Err(Reject::Wrong(Refusal::bad_request("not an object"))),
            };
            let reason = match outcome {
                Ok(()) => continue,
                Err(Reject::Dropped(reason)) => reason,
                Err(Reject::Unsupported(reason)) if self.options.skip_unsupported => reason,
                Err(Reject::Unsupported(reason)) => {
                    return Err(Refusal::bad_request(reason).within(&label(part, at, entry)));
                }
                Err(Reject::Wrong(refusal)) => return Err(refusal.within(&label(part, at, entry))),
            };
            self.skipped.push(Skipped { entry: label(part, at, entry), reason });
        }
        Ok(())
    }

    fn has_vhost(&self, name: &'a str) -> Result<&'a str, Refusal> {
        if self.only == Some(name) || self.vhosts.contains_key(name) || self.broker.vhost(name).is_some() {
            return Ok(name);
        }
        Err(Refusal::bad_request(format!("there is no virtual host {name:?}")))
    }

    fn vhost_of(&self, entry: &'a Object) -> Result<&'a str, Refusal> {
        match self.only {
            Some(name) => self.has_vhost(name),
            None => self.has_vhost(text(entry, "vhost")?),
        }
    }

    fn has_user(&self, name: &'a str) -> Result<&'a str, Refusal> {
        if self.users.contains(name) || self.broker.auth.user(name).is_some() {
            return Ok(name);
        }
        Err(Refusal::bad_request(format!("there is no user {name:?}")))
    }

    /// The kind of an exchange that is there or will be. One that is there stays what it is.
    fn exchange_kind(&self, vhost: &'a str, name: &'a str) -> Result<ExchangeKind, Reject> {
        if self.left_out.contains(&("exchange", vhost, name)) {
            return Err(Reject::Dropped(format!("the exchange {name:?} is left out")));
        }
        let known = self.broker.vhost(vhost).and_then(|vhost| vhost.exchange(name)).map(|exchange| exchange.kind());
        let kind =
            known.or_else(|| self.exchanges.get(&(vhost, name)).copied()).or_else(|| predeclared_kind(vhost, name));
        Ok(kind
            .ok_or_else(|| Refusal::bad_request(format!("there is no exchange {name:?} in virtual host {vhost:?}")))?)
    }

    /// The type of a queue that is there or will be.
    fn queue_type(&self, vhost: &'a str, name: &'a str) -> Result<String, Reject> {
        if self.left_out.contains(&("queue", vhost, name)) {
            return Err(Reject::Dropped(format!("the queue {name:?} is left out")));
        }
        let known = self.broker.vhost(vhost).and_then(|vhost| vhost.queue(name)).map(|queue| queues::kind(&queue));
        let kind = known.or_else(|| self.queues.get(&(vhost, name)).cloned());
        Ok(kind.ok_or_else(|| Refusal::bad_request(format!("there is no queue {name:?} in virtual host {vhost:?}")))?)
    }

    fn vhost(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let name = text(entry, "name")?;
        check_name("vhost", name)?;
        let metadata = match entry.get("metadata").and_then(Value::as_object) {
            Some(metadata) => vhosts::metadata(metadata)?,
            None => vhosts::metadata(entry)?,
        };
        let limits = entry.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty());
        if let Some(limits) = limits {
            self.limits.insert(name, VhostLimits::read(limits).map_err(invalid)?);
        }
        self.vhosts.insert(name, metadata.clone());
        self.plan.vhosts.push((name, metadata, limits));
        Ok(())
    }

    fn user(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let name = text(entry, "name")?;
        check_name("user", name)?;
        users::credentials(entry)?;
        if let Some(limits) = entry.get("limits").and_then(Value::as_object) {
            UserLimits::default().with(limits).map_err(invalid)?;
        }
        self.users.insert(name);
        self.plan.users.push((name, entry, users::tags(entry.get("tags"))?));
        Ok(())
    }

    fn permission(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let (user, vhost) = (self.has_user(text(entry, "user")?)?, self.has_vhost(text(entry, "vhost")?)?);
        let patterns = [text(entry, "configure")?, text(entry, "write")?, text(entry, "read")?];
        Patterns::new(patterns[0], patterns[1], patterns[2]).map_err(Refusal::bad_request)?;
        self.plan.permissions.push((user, vhost, patterns));
        Ok(())
    }

    fn global(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let name = text(entry, "name")?;
        check_name("name", name)?;
        self.plan.globals.push((name, value(entry)?));
        Ok(())
    }

    fn topic(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let (user, vhost) = (self.has_user(text(entry, "user")?)?, self.has_vhost(text(entry, "vhost")?)?);
        let exchange = text(entry, "exchange")?;
        self.exchange_kind(vhost, exchange)?;
        let patterns = [text(entry, "write")?, text(entry, "read")?];
        TopicPermission::new(patterns[0], patterns[1]).map_err(Refusal::bad_request)?;
        self.plan.topics.push((user, vhost, exchange, patterns));
        Ok(())
    }

    fn policy(&mut self, entry: &'a Object, kind: PolicyKind) -> Result<(), Reject> {
        let (vhost, name) = (self.vhost_of(entry)?, text(entry, "name")?);
        let policy = self.known_settings(kind, vhost, name, entry)?;
        self.plan.policies.push((vhost, policy));
        Ok(())
    }

    /// A policy without the settings that this broker does not have, if they are to be left out.
    fn known_settings(&mut self, kind: PolicyKind, vhost: &str, name: &str, entry: &Object) -> Result<Policy, Reject> {
        let empty = Map::new();
        let settings = entry.get("definition").and_then(Value::as_object).unwrap_or(&empty);
        let (known, unknown): (Map<_, _>, Map<_, _>) =
            settings.clone().into_iter().partition(|(setting, _)| policy::is_setting(setting));
        if unknown.is_empty() || !self.options.skip_unsupported {
            return Ok(policies::read(kind, name, entry)?);
        }
        let names = unknown.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let reason = format!("this broker has no policy settings {names}");
        if known.is_empty() {
            return Err(Reject::Unsupported(reason));
        }
        let mut rest = entry.clone();
        rest.insert("definition".to_owned(), Value::Object(known));
        let policy = policies::read(kind, name, &rest)?;
        self.skipped.push(Skipped { entry: format!("{names} of policy {name:?} in virtual host {vhost:?}"), reason });
        Ok(policy)
    }

    fn parameter(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let vhost = self.vhost_of(entry)?;
        let (component, name, value) = (text(entry, "component")?, text(entry, "name")?, value(entry)?);
        let object = || value.as_object().ok_or_else(|| Refusal::bad_request("value is not an object"));
        match component {
            "operator_policy" => drop(policies::read(PolicyKind::OperatorPolicy, name, object()?)?),
            "policy" => drop(policies::read(PolicyKind::Policy, name, object()?)?),
            "vhost-limits" => {
                self.limits.insert(vhost, VhostLimits::read(object()?).map_err(invalid)?);
            }
            // RabbitMQ's words for a plugin that is not there.
            _ => return Err(Reject::Unsupported(format!("Validation failed\n\ncomponent {component} not found\n"))),
        }
        self.plan.parameters.push((vhost, component, name, value));
        Ok(())
    }

    fn exchange(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let (vhost, name) = (self.vhost_of(entry)?, text(entry, "name")?);
        check_name("exchange", name)?;
        if predeclared_kind(vhost, name).is_some() {
            return Ok(());
        }
        if name.starts_with(RESERVED_PREFIX) {
            self.left_out.insert(("exchange", vhost, name));
            return Err(Reject::Dropped(RESERVED.to_owned()));
        }
        if let Some(kind) = entry.get("type").and_then(Value::as_str)
            && !exchanges::is_type(kind)
        {
            self.left_out.insert(("exchange", vhost, name));
            return Err(Reject::Unsupported(format!("precondition_failed: unknown exchange type '{kind}'")));
        }
        let kind = check_exchange(vhost, exchanges::request(name, entry)?).map_err(|error| told(&error))?;
        self.exchanges.insert((vhost, name), kind);
        self.plan.exchanges.push((vhost, name, entry));
        Ok(())
    }

    fn queue(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let (vhost, name) = (self.vhost_of(entry)?, text(entry, "name")?);
        check_name("queue", name)?;
        if name.starts_with(RESERVED_PREFIX) {
            self.left_out.insert(("queue", vhost, name));
            return Err(Reject::Dropped(RESERVED.to_owned()));
        }
        let known = self.broker.vhost(vhost);
        if known.as_ref().is_none_or(|known| known.queue(name).is_none()) {
            let of_document = self.vhosts.get(vhost).cloned();
            let metadata = of_document.or_else(|| Some(known?.metadata())).unwrap_or_default();
            let default_type = metadata.default_queue_type.as_deref();
            let request = queues::request(name, entry, ConnectionId(0))?;
            let rules = self.broker.settings.rules_of(vhost);
            let kind = check_queue(vhost, rules, default_type, request).map_err(|error| {
                self.left_out.insert(("queue", vhost, name));
                unsupported(&error)
            })?;
            if self.queues.insert((vhost, name), kind).is_none() {
                *self.plan.added.entry(vhost).or_default() += 1;
            }
        }
        self.plan.queues.push((vhost, name, entry));
        Ok(())
    }

    /// RabbitMQ's words, for all queues of a virtual host at once.
    fn queue_limits(&self) -> Result<(), Refusal> {
        for (name, added) in &self.plan.added {
            let known = self.broker.vhost(name);
            let there = known.as_ref().map_or(0, |vhost| vhost.queue_count());
            let limits = self.limits.get(name).copied().or_else(|| Some(known?.limits())).unwrap_or_default();
            if let Some(limit) = reached(limits.max_queues, there + added - 1) {
                return Err(Refusal::bad_request(format!(
                    "Adding {added} queue(s) to virtual host \"{name}\" would exceed the limit of {limit} queue(s).\n\n\
                     This virtual host currently has {there} queue(s) defined.\n\nImport aborted!"
                )));
            }
        }
        let all: usize = self.plan.added.values().sum();
        let there: usize = self.broker.vhosts().iter().map(|vhost| vhost.queue_count()).sum();
        match reached(self.broker.node_limits().max_queues, (there + all).saturating_sub(1)) {
            Some(limit) if all > 0 => Err(Refusal::bad_request(format!(
                "Adding {all} queue(s) to the cluster would exceed the limit of {limit} queue(s).\n\n\
                 This cluster currently has {there} queue(s) defined.\n\nImport aborted!"
            ))),
            _ => Ok(()),
        }
    }

    fn binding(&mut self, entry: &'a Object) -> Result<(), Reject> {
        let vhost = self.vhost_of(entry)?;
        let (source, kind, destination, key) = bindings::fields(entry)?;
        if source.is_empty() {
            return Err(Reject::Wrong(Refusal::bad_request("operation not permitted on the default exchange")));
        }
        let source_kind = self.exchange_kind(vhost, source)?;
        let queue_type = if kind == "exchange" {
            self.exchange_kind(vhost, destination)?;
            None
        } else {
            Some(self.queue_type(vhost, destination)?)
        };
        if key.len() > 255 {
            return Err(Reject::Wrong(Refusal::bad_request("routing_key has more than 255 bytes")));
        }
        let arguments = exchanges::given_arguments(entry);
        check_new_binding(source_kind, queue_type.as_deref(), key, &arguments).map_err(|error| told(&error))?;
        self.plan.bindings.push(Binding { vhost, source, kind, destination, key, arguments });
        Ok(())
    }
}
