//! Declaring and deleting exchanges.

use std::sync::Arc;

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};
use storage::Lsn;

use super::Vhost;
use super::exchange::{ALTERNATE_EXCHANGE, Exchange, ExchangeSpec};
use super::names::{Named, check_not_default, is_reserved, strip_line_breaks};
use super::records;
use crate::config::Redeclare;
use crate::model::access::{Access, Permission, Resource};
use crate::model::argument_errors::not_implemented;
use crate::model::arguments::{Arguments, inequivalent, string, type_name};
use crate::routing::kind::ExchangeKind;

/// Types that other brokers have and this one does not yet.
const PENDING_TYPES: &[&str] =
    &["x-consistent-hash", "x-delayed-message", "x-recent-history", "x-message-deduplication"];

/// Arguments that give an exchange of any type an ability it does not have here yet.
const PENDING_ARGUMENTS: &[&str] =
    &["x-delayed-exchange", "x-message-deduplication", "x-deduplication-header", "x-cache-size", "x-cache-ttl"];

/// An exchange.declare that is not passive.
#[derive(Clone, Debug)]
pub struct ExchangeRequest<'a> {
    /// Name as the client wrote it.
    pub name: &'a str,
    /// Name of the type.
    pub kind: &'a str,
    /// Whether it shall survive a restart.
    pub durable: bool,
    /// Whether it shall go when the last binding from it goes.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

impl Vhost {
    /// Declares an exchange and tells where that is durable.
    pub fn declare_exchange(&self, access: &dyn Access, request: ExchangeRequest<'_>) -> Result<Lsn, AmqpError> {
        self.declare_exchange_unplaced(access, request).map_err(|error| error.at(40, 10))
    }

    fn declare_exchange_unplaced(&self, access: &dyn Access, request: ExchangeRequest<'_>) -> Result<Lsn, AmqpError> {
        let name = strip_line_breaks(request.name);
        let kind = parse_kind(request.kind)?;
        check_not_default(&name)?;
        access.check(Permission::Configure, Resource::Exchange(&name))?;
        let mut topology = self.topology.lock();
        self.check_not_deleted(&topology)?;
        if let Some(existing) = self.exchange(&name) {
            self.check_exchange_equivalence(&existing, kind, &request)?;
            return Ok(if existing.durable() { self.logged() } else { Lsn(0) });
        }
        let named = Named::exchange(&name, &self.name);
        named.check_reserved()?;
        self.check_alternate(access, &name, &request.arguments)?;
        check_pending_arguments(&request.arguments)?;
        let spec = ExchangeSpec {
            name: name.as_ref().into(),
            kind,
            durable: request.durable,
            auto_delete: request.auto_delete,
            internal: request.internal,
            arguments: request.arguments,
        };
        let hash_on = spec.hash_on(&named)?;
        let exchange = Arc::new(Exchange::new(topology.new_exchange_id(), spec, hash_on));
        let mut lsn = Lsn(0);
        if exchange.durable() {
            lsn = self.log(vec![records::put_exchange(&self.name, &exchange)]);
        }
        self.add_exchange(exchange);
        Ok(lsn)
    }

    /// Makes an exchange known.
    pub(super) fn add_exchange(&self, exchange: Arc<Exchange>) {
        self.give_policy(&exchange);
        self.exchanges.insert(exchange.name().clone(), exchange.clone());
        // After it can be found: it may be an alternate that others have been waiting for.
        exchange.bump(&self.version);
    }

    /// Checks that an exchange exists; tells where its declaration is durable.
    pub fn declare_exchange_passive(&self, access: &dyn Access, name: &str) -> Result<Lsn, AmqpError> {
        let name = strip_line_breaks(name);
        let check = || {
            check_not_default(&name)?;
            access.check_any(Resource::Exchange(&name))?;
            self.exchange(&name).ok_or_else(|| Named::exchange(&name, &self.name).not_found())
        };
        let exchange = check().map_err(|error: AmqpError| error.at(40, 10))?;
        Ok(if exchange.durable() { self.logged() } else { Lsn(0) })
    }

    /// Deletes an exchange and tells where that is durable. One that does not exist is no error.
    pub fn delete_exchange(&self, access: &dyn Access, name: &str, if_unused: bool) -> Result<Lsn, AmqpError> {
        self.delete_exchange_unplaced(access, &strip_line_breaks(name), if_unused).map_err(|error| error.at(40, 20))
    }

    fn delete_exchange_unplaced(&self, access: &dyn Access, name: &str, if_unused: bool) -> Result<Lsn, AmqpError> {
        let named = Named::exchange(name, &self.name);
        check_not_default(name)?;
        if is_reserved(name) {
            return Err(AmqpError::new(
                ReplyCode::AccessRefused,
                format_args!("deletion of system {named} not allowed"),
            ));
        }
        access.check(Permission::Configure, Resource::Exchange(name))?;
        let mut topology = self.topology.lock();
        let Some(exchange) = self.exchange(name) else {
            return Ok(self.logged());
        };
        if if_unused && !exchange.table().read().is_empty() {
            return Err(AmqpError::new(ReplyCode::PreconditionFailed, format_args!("{named} in use")));
        }
        let mut changes = Vec::new();
        self.remove_exchanges(&mut topology, vec![exchange], &mut changes);
        Ok(self.log(changes))
    }

    fn check_exchange_equivalence(
        &self,
        existing: &Exchange,
        kind: ExchangeKind,
        request: &ExchangeRequest<'_>,
    ) -> Result<(), AmqpError> {
        let named = Named::exchange(existing.name(), &self.name);
        if kind != existing.kind() {
            return Err(inequivalent("type", &named, &quoted_kind(kind), &quoted_kind(existing.kind())));
        }
        if self.rules().redeclare == Redeclare::Relaxed {
            return Ok(());
        }
        for (field, received, current) in [
            ("durable", request.durable, existing.durable()),
            ("auto_delete", request.auto_delete, existing.auto_delete()),
            ("internal", request.internal, existing.internal()),
        ] {
            if received != current {
                return Err(inequivalent(field, &named, &format_args!("'{received}'"), &format_args!("'{current}'")));
            }
        }
        let current = &existing.spec().arguments;
        request.arguments.check_equivalence(current, [ALTERNATE_EXCHANGE], &named)
    }

    /// The alternate need not exist, but its name must be one, and messages will go from here to it.
    fn check_alternate(&self, access: &dyn Access, name: &str, arguments: &Arguments) -> Result<(), AmqpError> {
        let Some(value) = arguments.get(ALTERNATE_EXCHANGE) else {
            return Ok(());
        };
        let (AMQPValue::LongString(_), Some(alternate)) = (value, string(value)) else {
            return Err(AmqpError::new(
                ReplyCode::PreconditionFailed,
                format_args!(
                    "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in {}",
                    type_name(value),
                    Named::exchange(name, &self.name)
                ),
            ));
        };
        access.check(Permission::Read, Resource::Exchange(name))?;
        access.check(Permission::Write, Resource::Exchange(&alternate))
    }
}

/// As RabbitMQ writes it: a name with a hyphen is in quotes already.
fn quoted_kind(kind: ExchangeKind) -> String {
    let name = kind.name();
    if name.contains('-') { format!("''{name}''") } else { format!("'{name}'") }
}

fn parse_kind(name: &str) -> Result<ExchangeKind, AmqpError> {
    if let Some(kind) = ExchangeKind::from_name(name) {
        return Ok(kind);
    }
    if PENDING_TYPES.contains(&name) {
        return Err(not_implemented(&format_args!("exchange type '{name}'")));
    }
    Err(AmqpError::new(ReplyCode::PreconditionFailed, format_args!("invalid exchange type '{name}'")))
}

fn check_pending_arguments(arguments: &Arguments) -> Result<(), AmqpError> {
    match arguments.iter().find(|(name, _)| PENDING_ARGUMENTS.contains(name)) {
        Some((name, _)) => Err(not_implemented(&format_args!("exchange argument '{name}'"))),
        None => Ok(()),
    }
}
