//! Declaring and deleting exchanges.

use std::borrow::Cow;
use std::sync::Arc;

use amq_protocol::types::AMQPValue;
use protocol::error::{AmqpError, ReplyCode};
use storage::Lsn;

use super::Vhost;
use super::delay::Delay;
use super::exchange::{ALTERNATE_EXCHANGE, DELAYED_EXCHANGE, DELAYED_TYPE, Exchange, ExchangeSpec, INNER_TYPE, Kept};
use super::history::History;
use super::names::{Named, check_not_default, is_reserved, strip_line_breaks};
use super::records;
use crate::config::Redeclare;
use crate::model::access::{Access, Permission, Resource};
use crate::model::arguments::{Arguments, inequivalent, string, type_name};
use crate::model::deduplication;
use crate::queue::window::Window;
use crate::routing::hash_on::HashOn;
use crate::routing::kind::ExchangeKind;

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
        let is_delayed_type = request.kind == DELAYED_TYPE;
        let type_name = if is_delayed_type { DELAYED_TYPE } else { parse_kind(request.kind)?.name() };
        check_not_default(&name)?;
        access.check(Permission::Configure, Resource::Exchange(&name))?;
        let mut topology = self.topology.lock();
        self.check_not_deleted(&topology)?;
        if let Some(existing) = self.exchange(&name) {
            self.check_exchange_equivalence(&existing, type_name, &request)?;
            return Ok(if existing.durable() { self.logged() } else { Lsn(0) });
        }
        Named::exchange(&name, &self.name).check_reserved()?;
        self.check_alternate(access, &name, &request.arguments)?;
        let (spec, hash_on) = new_spec(&self.name, &name, request)?;
        let kept = self.kept(&spec, spec.history_length()?);
        let exchange = Arc::new(Exchange::new(topology.new_exchange_id(), spec, hash_on, kept));
        let mut lsn = Lsn(0);
        if exchange.durable() {
            lsn = self.log(vec![records::put_exchange(&self.name, &exchange)]);
        }
        self.add_exchange(Arc::clone(&exchange));
        self.exchange_created(&exchange, access.user());
        Ok(lsn)
    }

    /// What a new exchange keeps, with room for that in the store.
    fn kept(&self, spec: &ExchangeSpec, history_length: Option<usize>) -> Kept {
        let stored = || self.new_stored(spec.durable);
        let services = || self.services.clone();
        Kept {
            delay: spec
                .delays()
                .then(|| Delay::new(Arc::clone(&spec.name), stored(), Arc::clone(&self.handle), services())),
            history: history_length.map(|length| History::new(length, stored(), services())),
            window: spec.deduplication().map(|asked| Window::new(asked, stored(), &self.services)),
        }
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
        self.remove_exchanges(&mut topology, vec![exchange], access.user(), &mut changes);
        Ok(self.log(changes))
    }

    fn check_exchange_equivalence(
        &self,
        existing: &Exchange,
        type_name: &str,
        request: &ExchangeRequest<'_>,
    ) -> Result<(), AmqpError> {
        let named = Named::exchange(existing.name(), &self.name);
        let current = existing.spec().type_name();
        if type_name != current {
            return Err(inequivalent("type", &named, &quoted_kind(type_name), &quoted_kind(current)));
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
        let inner = existing.spec().is_delayed_type.then_some(INNER_TYPE);
        let compared = [ALTERNATE_EXCHANGE, DELAYED_EXCHANGE, deduplication::ENABLED].into_iter().chain(inner);
        // To the others their arguments mean nothing.
        let of_window = existing.window().map(|_| deduplication::ARGUMENTS).into_iter().flatten();
        request.arguments.check_equivalence(current, compared.chain(of_window), &named)
    }

    /// Messages will go from here to the alternate.
    fn check_alternate(&self, access: &dyn Access, name: &str, arguments: &Arguments) -> Result<(), AmqpError> {
        let Some(alternate) = alternate(&self.name, name, arguments)? else {
            return Ok(());
        };
        access.check(Permission::Read, Resource::Exchange(name))?;
        access.check(Permission::Write, Resource::Exchange(&alternate))
    }
}

/// Checks what can be checked of a new exchange before its virtual host is there.
///
/// # Errors
///
/// As [`Vhost::declare_exchange`] would give them.
pub fn check_exchange(vhost: &str, request: ExchangeRequest<'_>) -> Result<ExchangeKind, AmqpError> {
    let name = strip_line_breaks(request.name);
    check_not_default(&name)?;
    alternate(vhost, &name, &request.arguments)?;
    let (spec, _) = new_spec(vhost, &name, request)?;
    spec.history_length()?;
    Ok(spec.kind)
}

/// What a new exchange is, once all of it was checked.
fn new_spec(vhost: &str, name: &str, request: ExchangeRequest<'_>) -> Result<(ExchangeSpec, HashOn), AmqpError> {
    let named = Named::exchange(name, vhost);
    named.check_reserved()?;
    check_delayed_argument(&request.arguments, &named)?;
    let is_delayed_type = request.kind == DELAYED_TYPE;
    let kind = if is_delayed_type { inner_kind(&request.arguments)? } else { parse_kind(request.kind)? };
    let spec = ExchangeSpec {
        name: name.into(),
        kind,
        is_delayed_type,
        durable: request.durable,
        auto_delete: request.auto_delete,
        internal: request.internal,
        arguments: request.arguments,
    };
    let hash_on = spec.hash_on(&named)?;
    check_deduplication(&spec, &named)?;
    Ok((spec, hash_on))
}

/// The alternate exchange that arguments name. It need not exist, but its name must be one.
fn alternate<'a>(vhost: &str, name: &str, arguments: &'a Arguments) -> Result<Option<Cow<'a, str>>, AmqpError> {
    let Some(value) = arguments.get(ALTERNATE_EXCHANGE) else {
        return Ok(None);
    };
    match (value, string(value)) {
        (AMQPValue::LongString(_), Some(alternate)) => Ok(Some(alternate)),
        _ => Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!(
                "invalid type '{}' for arg '{ALTERNATE_EXCHANGE}' in {}",
                type_name(value),
                Named::exchange(name, vhost)
            ),
        )),
    }
}

/// As RabbitMQ writes it: a name with a hyphen is in quotes already.
fn quoted_kind(name: &str) -> String {
    if name.contains('-') { format!("''{name}''") } else { format!("'{name}'") }
}

fn parse_kind(name: &str) -> Result<ExchangeKind, AmqpError> {
    if let Some(kind) = ExchangeKind::from_name(name) {
        return Ok(kind);
    }
    Err(AmqpError::new(ReplyCode::PreconditionFailed, format_args!("invalid exchange type '{name}'")))
}

/// How an exchange of the type that delays routes: by its argument.
fn inner_kind(arguments: &Arguments) -> Result<ExchangeKind, AmqpError> {
    let refuse = |text: &str| Err(AmqpError::new(ReplyCode::PreconditionFailed, text));
    match arguments.get(INNER_TYPE).and_then(string).as_deref() {
        Some(DELAYED_TYPE) => refuse("Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'"),
        Some(name) => parse_kind(name),
        None => refuse("Invalid argument, 'x-delayed-type' must be an existing exchange type"),
    }
}

fn check_delayed_argument(arguments: &Arguments, named: &Named<'_>) -> Result<(), AmqpError> {
    match arguments.get(DELAYED_EXCHANGE) {
        None | Some(AMQPValue::Boolean(_)) => Ok(()),
        Some(other) => Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!("invalid type '{}' for arg '{DELAYED_EXCHANGE}' in {named}", type_name(other)),
        )),
    }
}

fn check_deduplication(spec: &ExchangeSpec, named: &Named<'_>) -> Result<(), AmqpError> {
    if spec.kind == ExchangeKind::Deduplication {
        return deduplication::check_type(&spec.arguments);
    }
    deduplication::check(&spec.arguments, |name, reason| {
        AmqpError::new(ReplyCode::PreconditionFailed, format_args!("invalid arg '{name}' for {named}: {reason}"))
    })
}
