//! Declaring, finding and deleting queues.

use std::sync::Arc;

use protocol::error::{AmqpError, ReplyCode};
use storage::Lsn;

use super::Vhost;
use super::names::{Named, generated_queue_name, strip_line_breaks};
use super::records;
use super::topology::Topology;
use crate::config::{Redeclare, VhostRules};
use crate::model::ConnectionId;
use crate::model::access::{Access, Permission, Resource};
use crate::model::arguments::{Arguments, inequivalent, string};
use crate::model::dead_letter_arguments::dead_letter_exchange;
use crate::model::events::INTERNAL_USER;
use crate::model::queue_arguments;
use crate::model::queue_kind::QueueKind;
use crate::queue::{NotDeleted, Queue, QueueSpec};

/// A queue.declare that is not passive.
#[derive(Clone, Debug)]
pub struct QueueRequest<'a> {
    /// Name as the client wrote it; empty leaves the choice to the broker.
    pub name: &'a str,
    /// Whether it shall survive a restart.
    pub durable: bool,
    /// Whether it belongs to the connection and goes with it.
    pub exclusive: bool,
    /// Whether it shall go with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Arguments,
    /// Who declares it.
    pub connection: ConnectionId,
}

/// Answer to a queue.declare.
#[derive(Clone)]
pub struct Declared {
    /// The queue.
    pub queue: Arc<Queue>,
    /// Whether it is new.
    pub created: bool,
    /// Where the declaration is durable.
    pub lsn: Lsn,
    /// Messages ready for delivery.
    pub message_count: u32,
    /// Consumers.
    pub consumer_count: u32,
}

impl Declared {
    fn existing(queue: Arc<Queue>, logged: Lsn) -> Self {
        queue.touch();
        Self {
            created: false,
            lsn: if queue.spec().durable { logged } else { Lsn(0) },
            message_count: queue.message_count(),
            consumer_count: queue.consumer_count(),
            queue,
        }
    }
}

/// Checks what can be checked of a new queue before its virtual host is there, and gives its type. `default_type` is that of the
/// virtual host.
///
/// # Errors
///
/// As [`Vhost::declare_queue`] would give them.
pub fn check_queue(
    vhost: &str,
    rules: VhostRules,
    default_type: Option<&str>,
    request: QueueRequest<'_>,
) -> Result<String, AmqpError> {
    let name = strip_line_breaks(request.name);
    Named::queue(&name, vhost).check_reserved()?;
    let default_type = default_type.filter(|_| request.durable && !request.exclusive && !request.auto_delete);
    let arguments = queue_arguments::with_type(request.arguments, default_type);
    dead_letter_exchange(&arguments, &name, vhost)?;
    check_new(vhost, &name, (request.durable, request.exclusive, request.auto_delete), &arguments)?;
    check_transient(rules, request.durable || request.exclusive)?;
    Ok(arguments.get(queue_arguments::QUEUE_TYPE).and_then(string).map_or_else(|| "classic".to_owned(), Into::into))
}

/// `properties`: durable, exclusive, auto-delete.
fn check_new(vhost: &str, name: &str, properties: (bool, bool, bool), arguments: &Arguments) -> Result<(), AmqpError> {
    queue_arguments::validate(arguments, name, vhost)?;
    QueueKind::of(arguments).check_properties(properties, name, vhost)
}

/// 541 for a queue that is neither durable nor exclusive, where they are refused; RabbitMQ's words.
fn check_transient(rules: VhostRules, durable_or_exclusive: bool) -> Result<(), AmqpError> {
    if durable_or_exclusive || rules.transient_nonexclusive_queues {
        return Ok(());
    }
    Err(AmqpError::new(
        ReplyCode::InternalError,
        "Feature `transient_nonexcl_queues` is deprecated.\n\
         By default, this feature is not permitted anymore.\n\
         The feature will be removed from a future major RabbitMQ version, regardless of the configuration; \
         actual version to be determined.\n\
         To continue using this feature when it is not permitted by default, set the following parameter in your \
         configuration:\n    \"deprecated_features.permit.transient_nonexcl_queues = true\"",
    ))
}

impl Vhost {
    /// Declares a queue.
    pub fn declare_queue(&self, access: &dyn Access, request: QueueRequest<'_>) -> Result<Declared, AmqpError> {
        self.declare_queue_unplaced(access, request).map_err(|error| error.at(50, 10))
    }

    fn declare_queue_unplaced(&self, access: &dyn Access, request: QueueRequest<'_>) -> Result<Declared, AmqpError> {
        let mut name = strip_line_breaks(request.name);
        let generated = name.is_empty();
        let default_type = self.default_queue_type(request.durable, request.exclusive, request.auto_delete);
        let arguments = queue_arguments::with_type(request.arguments, default_type.as_deref());
        if generated {
            QueueKind::check_server_named(&arguments)?;
        } else {
            Named::queue(&name, &self.name).check_reserved()?;
        }
        while generated && (name.is_empty() || self.queue(&name).is_some()) {
            name = generated_queue_name().into();
        }
        access.check(Permission::Configure, Resource::Queue(&name))?;
        let mut topology = self.topology.lock();
        self.check_not_deleted(&topology)?;
        let mut spec = QueueSpec {
            vhost: self.name.clone(),
            name: name.as_ref().into(),
            durable: request.durable && !request.exclusive,
            exclusive: request.exclusive.then_some(request.connection),
            auto_delete: request.auto_delete,
            arguments: Arc::new(arguments),
        };
        if let Some(existing) = self.queue(&name) {
            if !existing.is_closed() {
                check_queue_equivalence(existing.spec(), &spec, self.rules().redeclare)?;
                return Ok(Declared::existing(existing, self.logged()));
            }
            // It ended by itself and nobody has tidied up after it yet.
            self.delete_closed_queue(&mut topology, &existing, INTERNAL_USER);
        }
        if let Some(exchange) = dead_letter_exchange(&spec.arguments, &name, &self.name)? {
            access.check(Permission::Read, Resource::Queue(&name))?;
            access.check(Permission::Write, Resource::Exchange(&exchange))?;
        }
        check_new(&self.name, &name, (spec.durable, request.exclusive, spec.auto_delete), &spec.arguments)?;
        self.check_queue_limits(&name)?;
        check_transient(self.rules(), spec.durable || spec.exclusive.is_some())?;
        spec.arguments = topology.share_arguments(&spec.arguments);
        let queue = Queue::new(self.services.store.new_queue_id(), spec, self.services.clone());
        queue.open_window(|| self.new_stored(queue.spec().durable));
        self.give_queue_policy(&queue);
        let mut lsn = Lsn(0);
        if queue.spec().durable {
            lsn = self.log(vec![records::put_queue(&queue)]);
        }
        self.add_queue(&mut topology, &queue);
        self.queue_created(&queue, access.user());
        Ok(Declared { queue, created: true, lsn, message_count: 0, consumer_count: 0 })
    }

    /// Makes a queue known. Whoever finds it finds its declaration in the log.
    pub(super) fn add_queue(&self, topology: &mut Topology, queue: &Arc<Queue>) {
        if let Some(owner) = queue.spec().exclusive {
            topology.note_exclusive(owner, queue);
        }
        self.queues.insert(queue.spec().name.clone(), queue.clone());
        if let Some(node) = self.node_queues.get() {
            node.add(1);
        }
        self.default_exchange.bump(&self.version);
    }

    /// Checks that a queue exists and may be used by this connection.
    pub fn declare_queue_passive(
        &self,
        access: &dyn Access,
        name: &str,
        connection: ConnectionId,
    ) -> Result<Declared, AmqpError> {
        let name = strip_line_breaks(name);
        access
            .check_any(Resource::Queue(&name))
            .and_then(|()| self.queue_for(&name, connection))
            .map(|queue| Declared::existing(queue, self.logged()))
            .map_err(|error| error.at(50, 10))
    }

    /// A queue that this connection may use: 404 when there is none, 405 when it is another's. The
    /// name is taken as it is; the caller adds the ids of its method to the error.
    pub fn queue_for(&self, name: &str, connection: ConnectionId) -> Result<Arc<Queue>, AmqpError> {
        match self.queue(name) {
            Some(queue) if !queue.is_closed() => {
                check_owner(queue.spec(), connection)?;
                Ok(queue)
            }
            _ => Err(Named::queue(name, &self.name).not_found()),
        }
    }

    /// Deletes a queue; gives the number of ready messages that went with it and where the deletion
    /// is durable. One that does not exist is no error.
    pub fn delete_queue(
        &self,
        access: &dyn Access,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        connection: ConnectionId,
    ) -> Result<(u32, Lsn), AmqpError> {
        self.delete_queue_unplaced(access, &strip_line_breaks(name), if_unused, if_empty, connection)
            .map_err(|error| error.at(50, 40))
    }

    fn delete_queue_unplaced(
        &self,
        access: &dyn Access,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        connection: ConnectionId,
    ) -> Result<(u32, Lsn), AmqpError> {
        access.check(Permission::Configure, Resource::Queue(name))?;
        let mut topology = self.topology.lock();
        let Some(queue) = self.queue(name) else {
            return Ok((0, self.logged()));
        };
        check_owner(queue.spec(), connection)?;
        check_unconditional(&queue, if_unused, if_empty)?;
        let dropped = match queue.close(if_unused, if_empty) {
            Ok(dropped) => dropped,
            Err(NotDeleted::AlreadyClosed) => 0,
            Err(reason) => return Err(not_deleted(&reason, Named::queue(name, &self.name))),
        };
        Ok((dropped, self.delete_closed_queue(&mut topology, &queue, access.user())))
    }

    /// Deletes this very queue: when its last consumer left (`if_unused`, so that a consumer who
    /// came meanwhile keeps it) or when it ended in another way. Doing it again changes nothing.
    pub fn delete_queue_object(&self, queue: &Arc<Queue>, if_unused: bool) -> Lsn {
        let mut topology = self.topology.lock();
        match queue.close(if_unused, false) {
            Ok(_) | Err(NotDeleted::AlreadyClosed) => {}
            Err(NotDeleted::InUse | NotDeleted::NotEmpty) => return Lsn(0),
        }
        let known = self.queue(&queue.spec().name);
        if !known.is_some_and(|known| Arc::ptr_eq(&known, queue)) {
            return Lsn(0);
        }
        self.delete_closed_queue(&mut topology, queue, INTERNAL_USER)
    }

    /// Deletes the exclusive queues of a connection that ended.
    pub fn delete_exclusive(&self, connection: ConnectionId) -> Lsn {
        let mut topology = self.topology.lock();
        let mut changes = Vec::new();
        for queue in topology.exclusive_of(connection) {
            // Closed already or not: it goes.
            let _ = queue.close(false, false);
            self.remove_queue(&mut topology, &queue, INTERNAL_USER, &mut changes);
        }
        self.log(changes)
    }

    fn delete_closed_queue(&self, topology: &mut Topology, queue: &Arc<Queue>, user: &str) -> Lsn {
        let mut changes = Vec::new();
        self.remove_queue(topology, queue, user, &mut changes);
        self.log(changes)
    }
}

/// 405 unless the queue is shared or belongs to this connection.
pub(super) fn check_owner(spec: &QueueSpec, connection: ConnectionId) -> Result<(), AmqpError> {
    match spec.exclusive {
        Some(owner) if owner != connection => Err(locked(spec)),
        _ => Ok(()),
    }
}

fn check_queue_equivalence(existing: &QueueSpec, request: &QueueSpec, redeclare: Redeclare) -> Result<(), AmqpError> {
    if existing.exclusive != request.exclusive {
        return Err(locked(existing));
    }
    if redeclare == Redeclare::Relaxed {
        return Ok(());
    }
    let named = Named::queue(&existing.name, &existing.vhost);
    for (field, received, current) in
        [("durable", request.durable, existing.durable), ("auto_delete", request.auto_delete, existing.auto_delete)]
    {
        if received != current {
            return Err(inequivalent(field, &named, &format_args!("'{received}'"), &format_args!("'{current}'")));
        }
    }
    let compared = queue_arguments::compared(QueueKind::of(&existing.arguments));
    request.arguments.check_equivalence(&existing.arguments, compared, &named)
}

/// 540 for a condition that a delete of this kind of queue cannot have.
fn check_unconditional(queue: &Queue, if_unused: bool, if_empty: bool) -> Result<(), AmqpError> {
    let flag = match queue.kind() {
        QueueKind::Classic => return Ok(()),
        QueueKind::Quorum if if_unused => "if-unused",
        QueueKind::Quorum if if_empty => "if-empty",
        QueueKind::Quorum => return Ok(()),
    };
    let named = Named::queue(&queue.spec().name, &queue.spec().vhost);
    Err(AmqpError::new(
        ReplyCode::NotImplemented,
        format_args!(
            "cannot delete {named}. queue.delete operations with {flag} flag set are not supported by quorum queues"
        ),
    ))
}

/// 406 for a condition of a delete that does not hold.
fn not_deleted(reason: &NotDeleted, named: Named<'_>) -> AmqpError {
    let state = match reason {
        NotDeleted::NotEmpty => "not empty",
        NotDeleted::InUse | NotDeleted::AlreadyClosed => "in use",
    };
    AmqpError::new(ReplyCode::PreconditionFailed, format_args!("{named} {state}"))
}

fn locked(spec: &QueueSpec) -> AmqpError {
    let named = Named::queue(&spec.name, &spec.vhost);
    AmqpError::new(
        ReplyCode::ResourceLocked,
        format_args!(
            "cannot obtain exclusive access to locked {named}. It could be originally declared on \
             another connection or the exclusive property value does not match that of the \
             original declaration."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_conditions_that_do_not_hold() {
        let text = |reason| not_deleted(&reason, Named::queue("q", "/")).text;
        assert_eq!(text(NotDeleted::NotEmpty), "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty");
        assert_eq!(text(NotDeleted::InUse), "PRECONDITION_FAILED - queue 'q' in vhost '/' in use");
    }
}
