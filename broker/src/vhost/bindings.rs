//! Binding and unbinding queues and exchanges.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;

use protocol::error::{AmqpError, ReplyCode};
use storage::Lsn;

use super::Vhost;
use super::exchange::{Destination, Exchange};
use super::names::{Named, check_not_default, is_direct_reply, strip_line_breaks};
use super::queues::check_owner;
use super::records;
use super::topology::Topology;
use crate::model::ConnectionId;
use crate::model::access::{Access, Permission, Resource};
use crate::model::arguments::{Arguments, string};
use crate::model::queue_arguments::QUEUE_TYPE;
use crate::routing::kind::ExchangeKind;
use crate::routing::{consistent_hash, headers_match};

/// A queue.bind or queue.unbind.
#[derive(Clone, Copy, Debug)]
pub struct QueueBinding<'a> {
    /// Name of the queue, never the empty shorthand.
    pub queue: &'a str,
    /// Name of the exchange.
    pub exchange: &'a str,
    /// The binding key.
    pub key: &'a str,
    /// Its arguments.
    pub arguments: &'a Arguments,
    /// Who asks.
    pub connection: ConnectionId,
}

/// An exchange.bind or exchange.unbind.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeBinding<'a> {
    /// Where messages go.
    pub destination: &'a str,
    /// Where they come from.
    pub source: &'a str,
    /// The binding key.
    pub key: &'a str,
    /// Its arguments.
    pub arguments: &'a Arguments,
}

impl Vhost {
    /// Binds a queue and tells where that is durable.
    pub fn bind_queue(&self, access: &dyn Access, request: QueueBinding<'_>) -> Result<Lsn, AmqpError> {
        let bind = || {
            let queue_name = strip_line_breaks(request.queue);
            let source_name = strip_line_breaks(request.exchange);
            check_queue_binding(access, &queue_name, &source_name)?;
            self.check_topic(access, &source_name, request.key)?;
            let mut topology = self.topology.lock();
            let source = self.existing_exchange(&source_name)?;
            let queue = self
                .queue(&queue_name)
                .filter(|queue| !queue.is_closed())
                .ok_or_else(|| Named::queue(&queue_name, &self.name).not_found())?;
            let destination = Destination::Queue(queue.clone());
            check_binding(&source, &destination, request.key, request.arguments)?;
            check_owner(queue.spec(), request.connection)?;
            Ok(self.bind(&mut topology, &source, &destination, request.key, request.arguments, access.user()))
        };
        bind().map_err(|error: AmqpError| error.at(50, 20))
    }

    /// Unbinds a queue and tells where that is durable. What does not exist is no error.
    pub fn unbind_queue(&self, access: &dyn Access, request: QueueBinding<'_>) -> Result<Lsn, AmqpError> {
        let unbind = || {
            let queue_name = strip_line_breaks(request.queue);
            let source_name = strip_line_breaks(request.exchange);
            check_queue_binding(access, &queue_name, &source_name)?;
            self.check_topic(access, &source_name, request.key)?;
            let mut topology = self.topology.lock();
            let (Some(source), Some(queue)) = (self.exchange(&source_name), self.queue(&queue_name)) else {
                return Ok(self.logged());
            };
            let destination = Destination::Queue(queue.clone());
            let table = source.table().read();
            let known = table.contains(&destination, request.key, request.arguments);
            drop(table);
            if !known {
                return Ok(self.logged());
            }
            check_owner(queue.spec(), request.connection)?;
            Ok(self.unbind(&mut topology, &source, &destination, request.key, request.arguments, access.user()))
        };
        unbind().map_err(|error: AmqpError| error.at(50, 50))
    }

    /// Binds an exchange to another and tells where that is durable.
    pub fn bind_exchange(&self, access: &dyn Access, request: ExchangeBinding<'_>) -> Result<Lsn, AmqpError> {
        let bind = || {
            let destination_name = strip_line_breaks(request.destination);
            let source_name = strip_line_breaks(request.source);
            check_exchange_binding(access, &destination_name, &source_name)?;
            self.check_topic(access, &source_name, request.key)?;
            let mut topology = self.topology.lock();
            let source = self.existing_exchange(&source_name)?;
            let destination = self.existing_exchange(&destination_name)?;
            let destination = Destination::Exchange(destination);
            check_binding(&source, &destination, request.key, request.arguments)?;
            Ok(self.bind(&mut topology, &source, &destination, request.key, request.arguments, access.user()))
        };
        bind().map_err(|error: AmqpError| error.at(40, 30))
    }

    /// Unbinds an exchange from another and tells where that is durable. What does not exist is no
    /// error.
    pub fn unbind_exchange(&self, access: &dyn Access, request: ExchangeBinding<'_>) -> Result<Lsn, AmqpError> {
        let unbind = || {
            let destination_name = strip_line_breaks(request.destination);
            let source_name = strip_line_breaks(request.source);
            check_exchange_binding(access, &destination_name, &source_name)?;
            self.check_topic(access, &source_name, request.key)?;
            let mut topology = self.topology.lock();
            let (Some(source), Some(destination)) = (self.exchange(&source_name), self.exchange(&destination_name))
            else {
                return Ok(self.logged());
            };
            let destination = Destination::Exchange(destination);
            Ok(self.unbind(&mut topology, &source, &destination, request.key, request.arguments, access.user()))
        };
        unbind().map_err(|error: AmqpError| error.at(40, 40))
    }

    /// Keys bound to a topic exchange are subject to topic permissions.
    fn check_topic(&self, access: &dyn Access, source: &str, key: &str) -> Result<(), AmqpError> {
        match self.exchange(source) {
            Some(exchange) if exchange.kind() == ExchangeKind::Topic => {
                access.check_topic(Permission::Read, source, key)
            }
            _ => Ok(()),
        }
    }

    fn existing_exchange(&self, name: &str) -> Result<Arc<Exchange>, AmqpError> {
        self.exchange(name).ok_or_else(|| Named::exchange(name, &self.name).not_found())
    }

    fn bind(
        &self,
        topology: &mut Topology,
        source: &Arc<Exchange>,
        destination: &Destination,
        key: &str,
        arguments: &Arguments,
        user: &str,
    ) -> Lsn {
        let durable = source.durable() && destination.durable();
        let added = source.change(&self.version, |table| table.bind(destination, key, arguments));
        match added {
            Some(binding) => {
                topology.note_source(destination, source);
                self.binding_changed("binding.created", source, destination, &binding, user);
                let replayed = self.replay_history(source, destination);
                if !durable {
                    return replayed;
                }
                self.log(vec![records::put_binding(&self.name, source, destination, &binding)]).max(replayed)
            }
            None if durable => self.logged(),
            None => Lsn(0),
        }
    }

    fn unbind(
        &self,
        topology: &mut Topology,
        source: &Arc<Exchange>,
        destination: &Destination,
        key: &str,
        arguments: &Arguments,
        user: &str,
    ) -> Lsn {
        let removed = source.change(&self.version, |table| {
            let binding = table.unbind(destination, key, arguments)?;
            Some((binding, table.has_destination(destination), table.is_empty()))
        });
        let Some((binding, still_bound, now_unused)) = removed else {
            return self.logged();
        };
        if !still_bound {
            topology.forget_source(destination, source);
        }
        self.binding_changed("binding.deleted", source, destination, &binding, user);
        let mut changes = Vec::new();
        if source.durable() && destination.durable() {
            changes.push(records::delete_binding(&self.name, source, destination, &binding));
        }
        if now_unused && source.auto_delete() {
            self.remove_exchanges(topology, vec![source.clone()], user, &mut changes);
        }
        self.log(changes)
    }
}

fn check_queue_binding(access: &dyn Access, queue: &str, exchange: &str) -> Result<(), AmqpError> {
    if is_direct_reply(queue) {
        return Err(AmqpError::new(
            ReplyCode::AccessRefused,
            "cannot bind or unbind to a volatile (direct reply-to) queue",
        ));
    }
    access.check(Permission::Write, Resource::Queue(queue))?;
    check_not_default(exchange)?;
    access.check(Permission::Read, Resource::Exchange(exchange))
}

fn check_exchange_binding(access: &dyn Access, destination: &str, source: &str) -> Result<(), AmqpError> {
    access.check(Permission::Write, Resource::Exchange(destination))?;
    check_not_default(destination)?;
    check_not_default(source)?;
    access.check(Permission::Read, Resource::Exchange(source))
}

/// What the kind of the source asks of a binding.
fn check_binding(
    source: &Exchange,
    destination: &Destination,
    key: &str,
    arguments: &Arguments,
) -> Result<(), AmqpError> {
    let queue_type = match destination {
        Destination::Queue(queue) => {
            let kind = queue.spec().arguments.get(QUEUE_TYPE).and_then(string);
            Some(kind.unwrap_or(Cow::Borrowed("classic")))
        }
        Destination::Exchange(_) => None,
    };
    check_new_binding(source.kind(), queue_type.as_deref(), key, arguments)
}

/// As [`Vhost::bind_queue`] and [`Vhost::bind_exchange`] check a binding between two that are there, by what they are:
/// `queue_type` is `None` for an exchange.
///
/// # Errors
///
/// 406 for what such a source does not take.
pub fn check_new_binding(
    source: ExchangeKind,
    queue_type: Option<&str>,
    key: &str,
    arguments: &Arguments,
) -> Result<(), AmqpError> {
    match source {
        ExchangeKind::Headers => headers_match::validate(arguments),
        ExchangeKind::ConsistentHash => consistent_hash::weight(key).map(|_| ()),
        ExchangeKind::LocalRandom => check_local_random(queue_type, key),
        ExchangeKind::Direct
        | ExchangeKind::Fanout
        | ExchangeKind::Topic
        | ExchangeKind::ModulusHash
        | ExchangeKind::RecentHistory
        | ExchangeKind::Deduplication
        | ExchangeKind::Random => Ok(()),
    }
}

/// Only to queues that are on one node as a whole, and without a key.
fn check_local_random(queue_type: Option<&str>, key: &str) -> Result<(), AmqpError> {
    let refuse = |reason: &dyn Display| Err(AmqpError::new(ReplyCode::PreconditionFailed, reason));
    if !key.is_empty() {
        return refuse(&format_args!("Non empty binding '{key}' key not permitted"));
    }
    match queue_type {
        None => refuse(&"Destination not found"),
        Some("classic") => Ok(()),
        Some(kind) => refuse(&format_args!("Queue type rabbit_{kind}_queue not valid for this exchange type")),
    }
}
