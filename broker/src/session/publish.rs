//! basic.publish: checks, routing and hand-over to the queues.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use protocol::table::{ArrayIter, ValueRef};
use protocol::{AmqpError, Assembled, Properties, Property, ReplyCode, lookup, shortstrs, without_header};
use smallvec::SmallVec;
use storage::Lsn;

use super::Session;
use super::channel::{Mode, Publisher};
use crate::model::access::{Access, Permission, Resource};
use crate::model::death;
use crate::model::expiration;
use crate::model::message::{Message, Traits};
use crate::queue::item::OutItem;
use crate::queue::{Published, Queue};
use crate::routing::kind::ExchangeKind;
use crate::vhost::Exchange;

const BASIC: u16 = 60;
const PUBLISH: u16 = 40;
/// Slots of a channel's route cache; a power of two.
const ROUTES: usize = 64;

type Queues = SmallVec<[Arc<Queue>; 1]>;

/// Where recent publishes of a channel went, by exchange and routing key. An entry holds as long as the versions it was
/// made under, so that a change of the topology is seen by the very next publish.
#[derive(Default)]
pub(super) struct RouteCache {
    hasher: RandomState,
    routes: Vec<Option<Route>>,
}

struct Route {
    address: Box<[u8]>,
    exchange: Arc<Exchange>,
    exchange_version: u64,
    /// Set when other exchanges took part.
    vhost_version: Option<u64>,
    queues: Queues,
}

impl RouteCache {
    fn index(&self, address: &[u8]) -> usize {
        self.hasher.hash_one(address) as usize & (ROUTES - 1)
    }

    fn get(&self, address: &[u8]) -> Option<&Route> {
        if self.routes.is_empty() {
            return None;
        }
        let route = self.routes.get(self.index(address))?.as_ref()?;
        (*route.address == *address).then_some(route)
    }

    fn put(&mut self, route: Route) {
        if self.routes.is_empty() {
            self.routes.resize_with(ROUTES, || None);
        }
        let index = self.index(&route.address);
        if let Some(slot) = self.routes.get_mut(index) {
            *slot = Some(route);
        }
    }

    fn forget(&mut self, address: &[u8]) {
        let index = self.index(address);
        if let Some(slot) = self.routes.get_mut(index) {
            *slot = None;
        }
    }
}

impl Session {
    /// Handles a complete message.
    pub(super) fn publish(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        message: Assembled<'_>,
    ) -> Result<(), AmqpError> {
        self.published = true;
        self.publish_checked(number, publisher, message).map_err(|error| error.at(BASIC, PUBLISH))
    }

    fn publish_checked(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        message: Assembled<'_>,
    ) -> Result<(), AmqpError> {
        if message.immediate {
            return Err(AmqpError::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        let max = self.limits.max_message_bytes;
        if message.body_size > max {
            return Err(too_large(message.body_size, max));
        }
        let properties = Properties::parse(message.properties)?;
        let persistent = properties.delivery_mode() == Some(2);
        // Anything beyond the plain properties takes the long way; most messages have none of these.
        let special = properties.has(Property::Headers)
            || properties.has(Property::ReplyTo)
            || properties.has(Property::Expiration)
            || properties.has(Property::UserId);
        if !special && let Some(queues) = self.cached_route(publisher, message.address)? {
            let cached = Some(message.address);
            let mandatory = message.mandatory;
            let message = Message::new(message.address, message.properties, message.body, persistent);
            return self.enqueue(number, publisher, message, &queues, mandatory, cached);
        }
        self.publish_uncached(number, publisher, message, &properties, persistent, special)
    }

    fn publish_uncached(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        message: Assembled<'_>,
        properties: &Properties<'_>,
        persistent: bool,
        special: bool,
    ) -> Result<(), AmqpError> {
        let vhost = Arc::clone(self.vhost()?);
        let (exchange_name, key) = shortstrs(message.address);
        let (exchange_name, key) = (exchange_name.as_ref(), key.as_ref());
        self.grants()?.check(Permission::Write, Resource::Exchange(exchange_name))?;
        let vhost_version = vhost.version();
        let exchange = vhost.exchange(exchange_name).ok_or_else(|| {
            AmqpError::new(
                ReplyCode::NotFound,
                format_args!("no exchange '{exchange_name}' in vhost '{}'", vhost.name()),
            )
        })?;
        if exchange.internal() {
            return Err(AmqpError::new(
                ReplyCode::AccessRefused,
                format_args!("cannot publish to internal exchange '{exchange_name}' in vhost '{}'", vhost.name()),
            ));
        }
        let mut keys: SmallVec<[&str; 4]> = SmallVec::from_slice(&[key]);
        let mut without_bcc = None;
        let mut hidden = Vec::new();
        let mut ttl_ms = None;
        let headers = properties.headers();
        if special {
            check_reply_to(properties)?;
            ttl_ms = properties.expiration().map(expiration::parse).transpose()?;
            if let Some(headers) = headers {
                copies(headers, "CC", &mut keys)?;
                let shown = keys.len();
                copies(headers, "BCC", &mut keys)?;
                hidden = death::hidden_keys(keys.iter().skip(shown).copied());
                without_bcc = without_header(message.properties, b"BCC");
            }
        }
        if exchange.kind() == ExchangeKind::Topic && self.grants()?.limits_topics() {
            for key in &keys {
                self.grants()?.check_topic(Permission::Write, exchange_name, key)?;
            }
        }
        if special {
            self.check_user_id(properties)?;
        }
        let exchange_version = exchange.version();
        let mut found = Vec::new();
        let info = vhost.route(&exchange, &keys, Some(properties), &mut found);
        let queues: Queues = found.into();
        if !special && !queues.is_empty() && !info.by_message {
            publisher.routes.put(Route {
                address: message.address.into(),
                exchange,
                exchange_version,
                vhost_version: (!info.simple).then_some(vhost_version),
                queues: queues.clone(),
            });
        }
        let mandatory = message.mandatory;
        let mut message = Message::with_traits(
            Traits { hidden_keys: &hidden, ..Traits::default() },
            message.address,
            without_bcc.as_deref().unwrap_or(message.properties),
            message.body,
            persistent,
        );
        if let Some(ttl_ms) = ttl_ms {
            message.expire_at(self.broker.clock().now_ms().saturating_add(ttl_ms));
        }
        self.enqueue(number, publisher, message, &queues, mandatory, None)
    }

    /// Queues of a cached route that still holds, if the user may still publish there.
    fn cached_route(&self, publisher: &Publisher, address: &[u8]) -> Result<Option<Queues>, AmqpError> {
        let Some(route) = publisher.routes.get(address) else {
            return Ok(None);
        };
        let holds = route.exchange.version() == route.exchange_version
            && match route.vhost_version {
                None => true,
                Some(version) => self.vhost()?.version() == version,
            };
        if !holds {
            return Ok(None);
        }
        let grants = self.grants()?;
        grants.check(Permission::Write, Resource::Exchange(route.exchange.name()))?;
        if route.exchange.kind() == ExchangeKind::Topic && grants.limits_topics() {
            grants.check_topic(Permission::Write, route.exchange.name(), &shortstrs(address).1)?;
        }
        Ok(Some(route.queues.clone()))
    }

    /// Hands the message to its queues, or keeps it for the transaction. `cached` is the address whose cached route was
    /// used: a queue that has gone since is looked up again, for another may have taken its name.
    fn enqueue(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        mut message: Message,
        queues: &[Arc<Queue>],
        mandatory: bool,
        cached: Option<&[u8]>,
    ) -> Result<(), AmqpError> {
        message.share(queues.len());
        if let Mode::Transaction(transaction) = &mut publisher.mode {
            if !queues.is_empty() || mandatory {
                transaction.add(message, queues, self.broker.clock())?;
            }
            return Ok(());
        }
        self.hand_over(number, publisher, Arc::new(message), queues, mandatory, cached)
    }

    fn hand_over(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        message: Arc<Message>,
        queues: &[Arc<Queue>],
        mandatory: bool,
        cached: Option<&[u8]>,
    ) -> Result<(), AmqpError> {
        let mut lsn = Lsn(0);
        let mut refused = false;
        let mut gone = false;
        for queue in queues {
            match queue.publish(&message, &mut self.wakes) {
                Published::Taken(at) => lsn = lsn.max(at),
                Published::Refused => refused = true,
                Published::Gone => gone = true,
            }
        }
        if gone && let Some(address) = cached {
            publisher.routes.forget(address);
            if let Some(queues) = self.reroute(address, queues)? {
                return self.hand_over(number, publisher, message, &queues, mandatory, None);
            }
        }
        if queues.is_empty() && mandatory {
            self.push_return(number, message);
        }
        if let Mode::Confirm(confirms) = &mut publisher.mode {
            confirms.published(lsn, refused);
            if !std::mem::replace(&mut confirms.listed, true) {
                self.unconfirmed.push(number);
            }
        }
        Ok(())
    }

    /// Routes again after a cached route led to a deleted queue; only when none of its queues had taken the message.
    fn reroute(&self, address: &[u8], tried: &[Arc<Queue>]) -> Result<Option<Queues>, AmqpError> {
        if tried.len() != 1 {
            return Ok(None);
        }
        let vhost = self.vhost()?;
        let (exchange, key) = shortstrs(address);
        let Some(exchange) = vhost.exchange(&exchange) else {
            return Ok(None);
        };
        let mut found = Vec::new();
        vhost.route(&exchange, &[&key], None, &mut found);
        Ok(Some(found.into()))
    }

    /// Nobody publishes in another's name, but for impersonators.
    fn check_user_id(&self, properties: &Properties<'_>) -> Result<(), AmqpError> {
        if let Some(claimed) = properties.user_id() {
            let user = self.user()?;
            if claimed != user.name.as_bytes() && !user.tags.iter().any(|tag| tag == "impersonator") {
                return Err(AmqpError::new(
                    ReplyCode::PreconditionFailed,
                    format_args!(
                        "user_id property set to '{}' but authenticated user was '{}'",
                        String::from_utf8_lossy(claimed),
                        user.name
                    ),
                ));
            }
        }
        Ok(())
    }

    pub(super) fn push_return(&mut self, number: u16, message: Arc<Message>) {
        self.outbox.push(OutItem::Return { channel: number, message });
    }
}

fn too_large(size: u64, max: u64) -> AmqpError {
    /// What RabbitMQ's own limit can be set to at most: it has another text for that.
    const RABBITMQ_LARGEST: u64 = 512 << 20;
    let configured = if max == RABBITMQ_LARGEST { "" } else { "configured " };
    let text = format_args!("message size {size} is larger than {configured}max size {max}");
    AmqpError::new(ReplyCode::PreconditionFailed, text)
}

fn check_reply_to(properties: &Properties<'_>) -> Result<(), AmqpError> {
    if properties.reply_to() == Some(b"amq.rabbitmq.reply-to") {
        return Err(AmqpError::new(ReplyCode::PreconditionFailed, "fast reply consumer does not exist"));
    }
    Ok(())
}

/// Adds the routing keys of a CC or BCC header.
fn copies<'a>(headers: &'a [u8], name: &str, keys: &mut SmallVec<[&'a str; 4]>) -> Result<(), AmqpError> {
    match lookup(headers, name.as_bytes()) {
        None => Ok(()),
        Some(ValueRef::Array(items)) => {
            for item in ArrayIter::new(items).flatten() {
                if let ValueRef::LongString(key) = item
                    && let Ok(key) = std::str::from_utf8(key)
                    && !keys.contains(&key)
                {
                    keys.push(key);
                }
            }
            Ok(())
        }
        Some(other) => Err(AmqpError::new(
            ReplyCode::PreconditionFailed,
            format_args!("invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}", other.type_name()),
        )),
    }
}
