//! basic.publish: checks, routing and hand-over to the queues.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use protocol::{AmqpError, Assembled, Properties, Property, ReplyCode, shortstrs, without_header};
use smallvec::SmallVec;
use storage::Lsn;

use super::Session;
use super::channel::{Mode, Publisher};
use super::direct_reply::with_reply_address;
use super::trace::Traced;
use crate::model::access::{Access, Permission, Resource};
use crate::model::copies::{self, Keys};
use crate::model::message::{Message, Traits};
use crate::model::{death, delay, expiration};
use crate::queue::item::OutItem;
use crate::queue::{Published, Queue};
use crate::routing::kind::ExchangeKind;
use crate::vhost::{Beside, Delayed, Exchange, Fresh, Targets};

const BASIC: u16 = 60;
const PUBLISH: u16 = 40;
/// Slots of a channel's route cache; a power of two.
const ROUTES: usize = 64;

type Queues = SmallVec<[Arc<Queue>; 1]>;

/// A message that may be published as it is.
struct Checked<'a> {
    message: Assembled<'a>,
    exchange: &'a Exchange,
    /// Its routing keys.
    keys: &'a [&'a str],
    headers: Option<&'a [u8]>,
    /// Its properties with the address for direct replies, if it asked for one ...
    with_address: Option<&'a [u8]>,
    /// ... and without the header that nobody is to see.
    without_bcc: Option<&'a [u8]>,
    hidden_keys: &'a [u8],
    ttl_ms: Option<u64>,
    persistent: bool,
}

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

/// Where one message goes.
struct Destination<'a> {
    queues: &'a [Arc<Queue>],
    beside: Beside,
    /// It comes back when there is nobody.
    mandatory: bool,
    /// The address whose cached route was used: a queue that has gone since is looked up again, for another may have taken
    /// its name.
    cached: Option<&'a [u8]>,
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
        self.counting(number, publisher).published += 1;
        self.received.add(message.body_size, matches!(publisher.mode, Mode::Confirm(_)));
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
        let plain = !special && !self.is_traced();
        if plain && let Some(queues) = self.cached_route(publisher, message.address)? {
            let cached = Some(message.address);
            let mandatory = message.mandatory;
            let message = Message::new(message.address, message.properties, message.body, persistent);
            let to = Destination { queues: &queues, beside: Beside::default(), mandatory, cached };
            return self.enqueue(number, publisher, message, to);
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
        let mut keys: Keys<'_> = SmallVec::from_slice(&[key]);
        let mut with_address = None;
        let mut without_bcc = None;
        let mut hidden = Vec::new();
        let mut ttl_ms = None;
        let headers = properties.headers();
        if special {
            with_address = with_reply_address(properties, message.properties, publisher.replies.as_deref())?;
            ttl_ms = properties.expiration().map(expiration::parse).transpose()?;
            if let Some(headers) = headers {
                let shown = copies::add(headers, &mut keys)?;
                hidden = death::hidden_keys(keys.iter().skip(shown).copied());
                without_bcc = without_header(with_address.as_deref().unwrap_or(message.properties), b"BCC");
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
        let mut targets = Targets::default();
        let info = vhost.route_to(&exchange, &keys, Some(properties), &mut targets);
        self.run.count(&exchange, targets.queues.len(), &self.broker.services.statistics);
        if !special && !targets.queues.is_empty() && !info.by_message {
            publisher.routes.put(Route {
                address: message.address.into(),
                exchange: Arc::clone(&exchange),
                exchange_version,
                vhost_version: (!info.simple).then_some(vhost_version),
                queues: targets.queues.iter().cloned().collect(),
            });
        }
        let checked = Checked {
            message,
            exchange: &exchange,
            keys: &keys,
            headers,
            with_address: with_address.as_deref(),
            without_bcc: without_bcc.as_deref(),
            hidden_keys: &hidden,
            ttl_ms,
            persistent,
        };
        if headers.is_some_and(|headers| targets.are_watched(headers)) {
            return vhost.route_fresh(&exchange, &keys, properties, &mut targets, |targets, fresh| {
                self.publish_routed(number, publisher, checked, std::mem::take(targets), Some(fresh))
            });
        }
        self.publish_routed(number, publisher, checked, targets, None)
    }

    /// Handles a message whose targets are known. `fresh`: some of these have windows, which are locked.
    fn publish_routed(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        checked: Checked<'_>,
        targets: Targets,
        fresh: Option<Fresh<'_, '_>>,
    ) -> Result<(), AmqpError> {
        let Checked { message, exchange, keys, headers, with_address, without_bcc, hidden_keys, ttl_ms, persistent } =
            checked;
        let queues: Queues = targets.queues.into();
        let raw = without_bcc.or(with_address).unwrap_or(message.properties);
        let traits = Traits { hidden_keys, ..Traits::default() };
        let mut beside = Beside { histories: targets.histories, ..Beside::default() };
        // That somebody has had it before is no reason to return it.
        let mut mandatory = message.mandatory && fresh.as_ref().is_none_or(|fresh| fresh.original().is_none());
        if exchange.is_default() {
            let addressed = self.addressed(keys)?;
            mandatory &= !addressed.any;
            beside.replies = addressed.consumers;
        }
        if self.is_traced() {
            let properties = &Properties::parse(with_address.unwrap_or(message.properties))?;
            let traced = Traced { exchange: exchange.name(), keys, properties, body: &message.body };
            self.trace_publish(number, &traced, &queues);
        }
        if !targets.delays.is_empty() {
            mandatory = false;
            beside.delayed = headers.and_then(delay::wanted_ms).map(|delay_ms| {
                let properties = delay::mark_delayed(raw, headers.unwrap_or_default());
                let body = Cow::Borrowed(&*message.body);
                let message = Message::with_traits(traits, message.address, &properties, body, persistent);
                Delayed::new(message, targets.delays, delay_ms, self.broker.clock().now_ms())
            });
        }
        let mut message = Message::with_traits(traits, message.address, raw, message.body, persistent);
        if let Some(ttl_ms) = ttl_ms {
            message.expire_at(self.broker.clock().now_ms().saturating_add(ttl_ms));
        }
        let to = Destination { queues: &queues, beside, mandatory, cached: None };
        match fresh {
            Some(fresh) => self.enqueue_fresh(number, publisher, message, to, fresh),
            None => self.enqueue(number, publisher, message, to),
        }
    }

    /// Queues of a cached route that still holds, if the user may still publish there.
    fn cached_route(&mut self, publisher: &Publisher, address: &[u8]) -> Result<Option<Queues>, AmqpError> {
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
        self.run.count(&route.exchange, route.queues.len(), &self.broker.services.statistics);
        Ok(Some(route.queues.clone()))
    }

    /// Hands the message to its queues, or keeps it for the transaction.
    fn enqueue(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        mut message: Message,
        to: Destination<'_>,
    ) -> Result<(), AmqpError> {
        let Destination { queues, beside, mandatory, cached } = to;
        message.share(queues.len());
        if let Mode::Transaction(transaction) = &mut publisher.mode {
            if !queues.is_empty() || !beside.is_empty() || mandatory {
                transaction.add(message, queues, beside, mandatory, None, self.broker.clock())?;
            }
            return Ok(());
        }
        if queues.is_empty() && beside.is_empty() && !mandatory {
            publisher.uncounted.dropped += 1;
        }
        // A message that nobody else has yet; otherwise each queue sees to its own.
        if let [queue] = queues
            && beside.is_empty()
        {
            queue.limit_life(&mut message);
        }
        let message = Arc::new(message);
        let lsn = beside.hand_over(&message, &mut self.wakes);
        self.hand_over(
            number,
            publisher,
            message,
            Destination { queues, beside: Beside::default(), mandatory, cached },
            lsn,
        )
    }

    /// As [`Session::enqueue`], where duplicates are not taken.
    fn enqueue_fresh(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        mut message: Message,
        to: Destination<'_>,
        fresh: Fresh<'_, '_>,
    ) -> Result<(), AmqpError> {
        let Destination { queues, beside, mandatory, .. } = to;
        message.share(queues.len());
        if let Mode::Transaction(transaction) = &mut publisher.mode {
            let claims = Some(Box::new(fresh.into_claims()));
            return transaction.add(message, queues, beside, mandatory, claims, self.broker.clock());
        }
        let message = Arc::new(message);
        if queues.is_empty() && mandatory {
            publisher.uncounted.returned += 1;
            self.push_return(number, Arc::clone(&message));
        }
        let published = fresh.publish(&self.broker.services, &message, queues, beside, Vec::new(), &mut self.wakes);
        self.confirm(number, publisher, published.lsn, published.refused);
        Ok(())
    }

    fn hand_over(
        &mut self,
        number: u16,
        publisher: &mut Publisher,
        message: Arc<Message>,
        to: Destination<'_>,
        mut lsn: Lsn,
    ) -> Result<(), AmqpError> {
        let Destination { queues, mandatory, cached, .. } = to;
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
                let to = Destination { queues: &queues, beside: Beside::default(), mandatory, cached: None };
                return self.hand_over(number, publisher, message, to, lsn);
            }
        }
        if queues.is_empty() && mandatory {
            publisher.uncounted.returned += 1;
            self.push_return(number, message);
        }
        self.confirm(number, publisher, lsn, refused);
        Ok(())
    }

    /// What was published is safe at `lsn`, or a queue refused it.
    fn confirm(&mut self, number: u16, publisher: &mut Publisher, lsn: Lsn, refused: bool) {
        if let Mode::Confirm(confirms) = &mut publisher.mode {
            confirms.published(lsn, refused);
            if !std::mem::replace(&mut confirms.listed, true) {
                self.unconfirmed.push(number);
            }
        }
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
        let mut found = Targets::default();
        vhost.route_to(&exchange, &[&key], None, &mut found);
        Ok(Some(found.queues.into()))
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
