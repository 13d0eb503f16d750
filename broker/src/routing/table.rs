//! The bindings of one exchange.

use hashbrown::hash_map::Entry;

use super::binding::{BindingKey, BindingRef};
use super::consistent_hash::ConsistentHash;
use super::direct::Direct;
use super::fanout::Fanout;
use super::headers::Headers;
use super::kind::ExchangeKind;
use super::modulus::Modulus;
use super::random::Random;
use super::target::Target;
use super::topic::Topic;
use crate::model::arguments::Arguments;
use crate::model::collections::{Map, Set};

/// Bindings by destination, and the matcher built from them.
///
/// A binding is told apart by destination, key and arguments; adding it twice changes nothing.
#[derive(Debug)]
pub struct Table<D> {
    bindings: Map<D, Set<BindingKey>>,
    count: usize,
    matcher: Matcher<D>,
}

#[derive(Debug)]
enum Matcher<D> {
    Direct(Direct<D>),
    Fanout(Fanout<D>),
    Topic(Topic<D>),
    Headers(Headers<D>),
    ConsistentHash(ConsistentHash<D>),
    Modulus(Modulus<D>),
    Random(Random<D>),
}

impl<D: Target> Matcher<D> {
    fn new(kind: ExchangeKind) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(Direct::default()),
            ExchangeKind::Fanout | ExchangeKind::RecentHistory | ExchangeKind::Deduplication => {
                Self::Fanout(Fanout::default())
            }
            ExchangeKind::Topic => Self::Topic(Topic::default()),
            ExchangeKind::Headers => Self::Headers(Headers::default()),
            ExchangeKind::ConsistentHash => Self::ConsistentHash(ConsistentHash::default()),
            ExchangeKind::ModulusHash => Self::Modulus(Modulus::default()),
            ExchangeKind::Random | ExchangeKind::LocalRandom => Self::Random(Random::default()),
        }
    }

    fn unbind(&mut self, destination: &D, binding: &BindingKey) {
        match self {
            Self::Direct(direct) => direct.unbind(destination, &binding.key),
            Self::Fanout(fanout) => fanout.unbind(destination),
            Self::Topic(topic) => topic.unbind(destination, &binding.key),
            Self::Headers(headers) => headers.unbind(destination, &binding.arguments),
            Self::ConsistentHash(hash) => hash.unbind(destination, &binding.key),
            Self::Modulus(modulus) => modulus.unbind(destination),
            Self::Random(random) => random.unbind(destination),
        }
    }
}

impl<D: Target> Table<D> {
    /// An empty table for an exchange of this kind.
    pub fn new(kind: ExchangeKind) -> Self {
        Self { bindings: Map::default(), count: 0, matcher: Matcher::new(kind) }
    }

    /// Adds a binding; `None` when it is there already.
    pub fn bind(&mut self, destination: &D, key: &str, arguments: &Arguments) -> Option<BindingKey> {
        let wire = arguments.to_wire();
        let known = self.bindings.entry(destination.clone()).or_default();
        let looked_up = BindingRef { key, arguments: &wire };
        if known.contains(&looked_up) {
            return None;
        }
        let binding = BindingKey { key: key.into(), arguments: wire.into() };
        match &mut self.matcher {
            Matcher::Direct(direct) => direct.bind(destination, &binding.key),
            Matcher::Fanout(fanout) => fanout.bind(destination),
            Matcher::Topic(topic) => topic.bind(destination, key),
            Matcher::Headers(headers) => headers.bind(destination, arguments, &binding.arguments),
            Matcher::ConsistentHash(hash) => hash.bind(destination, key),
            Matcher::Modulus(modulus) => modulus.bind(destination),
            Matcher::Random(random) => random.bind(destination),
        }
        known.insert(binding.clone());
        self.count += 1;
        Some(binding)
    }

    /// Removes a binding and hands it back; `None` when it is not there.
    pub fn unbind(&mut self, destination: &D, key: &str, arguments: &Arguments) -> Option<BindingKey> {
        let wire = arguments.to_wire();
        let Entry::Occupied(mut known) = self.bindings.entry(destination.clone()) else {
            return None;
        };
        let looked_up = BindingRef { key, arguments: &wire };
        let binding = known.get_mut().take(&looked_up)?;
        if known.get().is_empty() {
            known.remove();
        }
        self.count = self.count.saturating_sub(1);
        self.matcher.unbind(destination, &binding);
        Some(binding)
    }

    /// Removes every binding to a destination.
    pub fn remove_destination(&mut self, destination: &D) -> Vec<BindingKey> {
        let Some(known) = self.bindings.remove(destination) else {
            return Vec::new();
        };
        self.count = self.count.saturating_sub(known.len());
        for binding in &known {
            self.matcher.unbind(destination, binding);
        }
        known.into_iter().collect()
    }

    /// Whether this very binding is there.
    pub fn contains(&self, destination: &D, key: &str, arguments: &Arguments) -> bool {
        let wire = arguments.to_wire();
        let looked_up = BindingRef { key, arguments: &wire };
        self.bindings.get(destination).is_some_and(|known| known.contains(&looked_up))
    }

    /// Whether any binding leads to the destination.
    pub fn has_destination(&self, destination: &D) -> bool {
        self.bindings.contains_key(destination)
    }

    /// Number of bindings.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no bindings.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All bindings, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&D, &BindingKey)> {
        self.bindings.iter().flat_map(|(destination, known)| known.iter().map(move |key| (destination, key)))
    }

    /// The bindings that lead to one destination.
    pub fn bindings_of(&self, destination: &D) -> impl Iterator<Item = &BindingKey> {
        self.bindings.get(destination).into_iter().flatten()
    }

    /// Reports where a message goes; `headers` is the body of its header table. Topic and headers
    /// tables may report a destination more than once. Tables that pick by a number report nothing.
    pub fn route<'t>(&'t self, key: &str, headers: Option<&[u8]>, visit: &mut impl FnMut(&'t D)) {
        match &self.matcher {
            Matcher::Direct(direct) => direct.route(key, visit),
            Matcher::Fanout(fanout) => fanout.route(visit),
            Matcher::Topic(topic) => topic.route(key, visit),
            Matcher::Headers(headers_table) => headers_table.route(headers, visit),
            Matcher::ConsistentHash(_) | Matcher::Modulus(_) | Matcher::Random(_) => {}
        }
    }

    /// The one destination for a number, in tables of a kind that [picks one]: a hash of what the exchange hashes, or a
    /// random number. `None` when there are no bindings.
    ///
    /// [picks one]: ExchangeKind::picks_one
    pub fn pick(&self, number: u64) -> Option<&D> {
        match &self.matcher {
            Matcher::ConsistentHash(hash) => hash.pick(number),
            Matcher::Modulus(modulus) => modulus.pick(number),
            Matcher::Random(random) => random.pick(number),
            Matcher::Direct(_) | Matcher::Fanout(_) | Matcher::Topic(_) | Matcher::Headers(_) => None,
        }
    }
}
