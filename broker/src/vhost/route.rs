//! From an exchange to queues: through bindings, other exchanges and alternates.

use std::sync::Arc;

use protocol::Properties;
use smallvec::SmallVec;
use storage::Lsn;

use super::Vhost;
use super::delay::Delay;
use super::exchange::{Destination, Exchange};
use super::history::{self, History};
use crate::model::delay;
use crate::queue::Queue;
use crate::queue::window::{Locked, Window};
use crate::routing::hash_on::HashOn;
use crate::routing::kind::ExchangeKind;
use crate::routing::phash2;
use crate::routing::visited::Visited;

/// How far a routing result can be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Only the exchange's own table decided: good while [`Exchange::version`] stays. Otherwise
    /// good while [`Vhost::version`] stays.
    pub simple: bool,
    /// The message's headers or properties had a say, or chance: not good for another message with the same keys.
    pub by_message: bool,
}

/// Where a message goes.
#[derive(Default)]
pub struct Targets {
    /// Queues, each once.
    pub queues: Vec<Arc<Queue>>,
    /// Those that keep it back first. It goes on from there by itself.
    pub delays: SmallVec<[Arc<Delay>; 1]>,
    /// Those that keep it for others who come later.
    pub histories: SmallVec<[Arc<History>; 1]>,
    /// Those of the exchanges that it came to, where they do not route duplicates and something makes it known.
    pub windows: SmallVec<[Arc<Window>; 1]>,
    /// Some exchange has routed it before: where the message it routed then is durable.
    pub original: Option<Lsn>,
}

/// Queues found so far, each once.
struct Found<'o> {
    queues: &'o mut Vec<Arc<Queue>>,
    seen: Option<Visited<u64>>,
}

impl Found<'_> {
    /// Adds a queue that cannot have been found before.
    fn push(&mut self, queue: &Arc<Queue>) {
        self.queues.push(queue.clone());
    }

    fn add(&mut self, queue: &Arc<Queue>) {
        let queues = &*self.queues;
        let seen = self.seen.get_or_insert_with(|| {
            let mut seen = Visited::default();
            for queue in queues {
                seen.insert(queue.id());
            }
            seen
        });
        if seen.insert(queue.id()) {
            self.queues.push(queue.clone());
        }
    }
}

impl Vhost {
    /// Finds where a message goes: `keys` is its routing key followed by those of CC and BCC. `targets` is cleared first.
    pub fn route_to(
        &self,
        exchange: &Arc<Exchange>,
        keys: &[&str],
        properties: Option<&Properties<'_>>,
        targets: &mut Targets,
    ) -> RouteInfo {
        self.route_past(exchange, keys, properties, targets, None)
    }

    /// As [`Vhost::route_to`], but not through exchanges that have routed the message before, as far as their windows are
    /// among those that are locked.
    pub(super) fn route_past(
        &self,
        exchange: &Arc<Exchange>,
        keys: &[&str],
        properties: Option<&Properties<'_>>,
        targets: &mut Targets,
        locked: Option<&Locked<'_>>,
    ) -> RouteInfo {
        *targets = Targets { queues: std::mem::take(&mut targets.queues), ..Targets::default() };
        let Targets { queues, delays, histories, windows, original } = targets;
        queues.clear();
        let mut info = RouteInfo { simple: true, by_message: false };
        let mut found = Found { queues, seen: None };
        let mut visited = Visited::default();
        let mut pending: SmallVec<[Arc<Exchange>; 4]> = SmallVec::new();
        visited.insert(exchange.id());
        let mut next = Some(exchange.clone());
        while let Some(exchange) = next {
            // Not for messages without headers, which are all whose routes are remembered.
            if let Some(window) = exchange.window()
                && let Some(key) =
                    properties.and_then(Properties::headers).and_then(|headers| window.asked().key(headers))
            {
                windows.push(Arc::clone(window));
                if let Some(lsn) = locked.and_then(|locked| locked.find(window, &key)) {
                    *original = (*original).max(Some(lsn));
                    next = pending.pop();
                    continue;
                }
            }
            // Neither.
            if let Some(delay) = exchange.delay()
                && properties.and_then(Properties::headers).and_then(delay::wanted_ms).is_some()
            {
                delays.push(Arc::clone(delay));
                next = pending.pop();
                continue;
            }
            if let Some(history) = exchange.history()
                && history::is_kept(properties)
            {
                histories.push(Arc::clone(history));
            }
            let hit = self.visit(&exchange, keys, properties, &mut found, |further| {
                if visited.insert(further.id()) {
                    pending.push(further.clone());
                }
                info.simple = false;
            });
            info.by_message |= depends_on_message(&exchange);
            if !hit && let Some(alternate) = exchange.alternate() {
                info.simple = false;
                if let Some(alternate) = self.exchange(&alternate)
                    && visited.insert(alternate.id())
                {
                    pending.push(alternate);
                }
            }
            next = pending.pop();
        }
        info
    }

    /// Follows the bindings of one exchange; false when there was no destination.
    fn visit(
        &self,
        exchange: &Exchange,
        keys: &[&str],
        properties: Option<&Properties<'_>>,
        found: &mut Found<'_>,
        mut further: impl FnMut(&Arc<Exchange>),
    ) -> bool {
        let mut hit = false;
        if exchange.is_default() {
            for queue in keys.iter().filter_map(|key| self.queue(key)) {
                hit = true;
                found.add(&queue);
            }
            return hit;
        }
        if exchange.kind().picks_one() {
            let number = number(exchange, keys, properties);
            let table = exchange.table().read();
            match table.pick(number) {
                Some(Destination::Queue(queue)) => found.add(queue),
                Some(Destination::Exchange(exchange)) => further(exchange),
                None => return false,
            }
            return true;
        }
        let first = keys.get(..1).unwrap_or_default();
        let (relevant, headers) = match exchange.kind() {
            ExchangeKind::Headers => (first, properties.and_then(Properties::headers)),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory | ExchangeKind::Deduplication => (first, None),
            _ => (keys, None),
        };
        let once = found.queues.is_empty() && relevant.len() == 1 && exchange.kind().reports_once();
        let table = exchange.table().read();
        for key in relevant {
            table.route(key, headers, &mut |destination| {
                hit = true;
                match destination {
                    Destination::Queue(queue) if once => found.push(queue),
                    Destination::Queue(queue) => found.add(queue),
                    Destination::Exchange(exchange) => further(exchange),
                }
            });
        }
        hit
    }
}

/// Whether an exchange may send two messages with the same keys to different places.
fn depends_on_message(exchange: &Exchange) -> bool {
    match exchange.kind() {
        // What is kept must come by.
        ExchangeKind::RecentHistory => true,
        ExchangeKind::Headers | ExchangeKind::Random | ExchangeKind::LocalRandom => true,
        ExchangeKind::ConsistentHash => *exchange.hash_on() != HashOn::RoutingKey,
        ExchangeKind::Direct
        | ExchangeKind::Fanout
        | ExchangeKind::Topic
        | ExchangeKind::ModulusHash
        | ExchangeKind::Deduplication => false,
    }
}

/// What an exchange that picks one destination picks it by.
fn number(exchange: &Exchange, keys: &[&str], properties: Option<&Properties<'_>>) -> u64 {
    match exchange.kind() {
        ExchangeKind::ConsistentHash => {
            let key = keys.first().copied().unwrap_or_default();
            exchange.hash_on().hash(key, properties)
        }
        ExchangeKind::ModulusHash => phash2::of_keys(keys).into(),
        _ => rand::random(),
    }
}
