//! Consistent hash: each key has one destination, and each destination the share of the keys that its weight is of all weights.
//!
//! This is weighted rendezvous hashing. Every destination draws a number for the key, from the key and its own name, and the
//! best one takes it. A new destination takes what it is best for and nothing else moves; when one goes, only its keys move,
//! to whoever comes second. There is no state beyond the set of destinations, so neither the order of bindings nor a restart
//! makes a difference. Each destination is looked at for each key, which takes a nanosecond or two; with thousands of them a
//! channel that repeats its keys still finds the route in its cache.

use std::collections::BTreeMap;
use std::fmt::Display;

use protocol::ErlangBinary;
use protocol::error::{AmqpError, ReplyCode};

use super::fingerprint::{Fingerprint, mix};
use super::target::{Target, TargetKind};
use crate::model::collections::Map;

/// The largest weight of one binding.
const WEIGHT_MAX: u64 = 10_000;

/// The weight that a binding key gives; 406 when it gives none.
pub fn weight(key: &str) -> Result<u64, AmqpError> {
    let (negative, digits) = match key.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let refused = |reason: &dyn Display| Err(AmqpError::new(ReplyCode::PreconditionFailed, reason));
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return refused(&format_args!("The binding key must be an integer: {}", ErlangBinary(key)));
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add((digit - b'0').into());
    match digits.iter().fold(0, add) {
        0 => refused(&"The binding key must be greater than 0"),
        _ if negative => refused(&"The binding key must be greater than 0"),
        weight if weight > WEIGHT_MAX => refused(&format_args!("The binding key must not exceed {WEIGHT_MAX}")),
        weight => Ok(weight),
    }
}

/// Destinations by weight: among those of one weight integers are compared, and only the winners need logarithms.
#[derive(Debug)]
pub struct ConsistentHash<D> {
    groups: BTreeMap<u64, Group<D>>,
    places: Map<D, Place>,
}

/// Destinations of the same weight.
#[derive(Debug)]
struct Group<D> {
    /// Fingerprints of the names, apart from the destinations so that they are dense to walk.
    fingerprints: Vec<u64>,
    destinations: Vec<D>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    weight: u64,
    at: usize,
}

impl<D> Default for ConsistentHash<D> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), places: Map::default() }
    }
}

impl<D: Target> ConsistentHash<D> {
    /// Adds a binding: the weights of all bindings to a destination are added up.
    pub fn bind(&mut self, destination: &D, key: &str) {
        let weight = self.take(destination) + weight(key).unwrap_or(0);
        self.put(destination, weight);
    }

    /// Removes a binding.
    pub fn unbind(&mut self, destination: &D, key: &str) {
        let weight = self.take(destination).saturating_sub(weight(key).unwrap_or(0));
        self.put(destination, weight);
    }

    /// The destination for a hash; `None` when there is none at all.
    pub fn pick(&self, hash: u64) -> Option<&D> {
        let mut best: Option<(f64, &D)> = None;
        for (weight, group) in &self.groups {
            let draws = group.fingerprints.iter().map(|fingerprint| mix(hash ^ fingerprint));
            let Some((at, draw)) = draws.enumerate().max_by_key(|(_, draw)| *draw) else {
                continue;
            };
            // With draws uniform in (0, 1) these are exponentially distributed with the weights as rates: each is the least
            // of all with the probability that its weight is of their sum.
            let arrival = -uniform(draw).ln() / *weight as f64;
            if best.is_none_or(|(first, _)| arrival < first)
                && let Some(destination) = group.destinations.get(at)
            {
                best = Some((arrival, destination));
            }
        }
        best.map(|(_, destination)| destination)
    }

    /// Takes a destination out and tells what it weighed.
    fn take(&mut self, destination: &D) -> u64 {
        let Some(Place { weight, at }) = self.places.remove(destination) else {
            return 0;
        };
        let Some(group) = self.groups.get_mut(&weight) else {
            return 0;
        };
        group.fingerprints.swap_remove(at);
        group.destinations.swap_remove(at);
        if let Some(moved) = group.destinations.get(at).and_then(|moved| self.places.get_mut(moved)) {
            moved.at = at;
        }
        if group.destinations.is_empty() {
            self.groups.remove(&weight);
        }
        weight
    }

    fn put(&mut self, destination: &D, weight: u64) {
        if weight == 0 {
            return;
        }
        let group =
            self.groups.entry(weight).or_insert_with(|| Group { fingerprints: Vec::new(), destinations: Vec::new() });
        self.places.insert(destination.clone(), Place { weight, at: group.destinations.len() });
        group.fingerprints.push(fingerprint(destination));
        group.destinations.push(destination.clone());
    }
}

fn fingerprint(destination: &impl Target) -> u64 {
    let identity = destination.identity();
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(match identity.kind {
        TargetKind::Exchange => b"e",
        TargetKind::Queue => b"q",
    });
    fingerprint.add(identity.name.as_bytes());
    fingerprint.finish()
}

/// A number between 0 and 1, neither of them included.
fn uniform(bits: u64) -> f64 {
    ((bits >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::target::Identity;

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Queue(&'static str);

    impl Target for Queue {
        fn identity(&self) -> Identity<'_> {
            Identity { kind: TargetKind::Queue, name: self.0 }
        }
    }

    const KEYS: u64 = 100_000;

    fn table(bindings: &[(&'static str, u64)]) -> ConsistentHash<Queue> {
        let mut table = ConsistentHash::default();
        for (name, weight) in bindings {
            table.bind(&Queue(name), &weight.to_string());
        }
        table
    }

    /// Where each of many keys goes.
    fn placement(table: &ConsistentHash<Queue>) -> Vec<&'static str> {
        let hash = |number: u64| Fingerprint::of(format!("key-{number}").as_bytes());
        (0..KEYS).filter_map(|number| table.pick(hash(number))).map(|queue| queue.0).collect()
    }

    /// Asserts that as many of all keys as a share says, within three standard deviations.
    #[track_caller]
    fn assert_share(count: usize, share: f64) {
        let expected = KEYS as f64 * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        assert!((count as f64 - expected).abs() < 3.0 * deviation, "{count} instead of {expected} +- {deviation}");
    }

    fn count(placement: &[&str], name: &str) -> usize {
        placement.iter().filter(|placed| **placed == name).count()
    }

    #[test]
    fn each_has_the_share_of_its_weight() {
        let bindings = [("a", 1), ("b", 1), ("c", 2), ("d", 6), ("e", 10_000)];
        for few in [&bindings[..2], &bindings[..4], &bindings[..]] {
            let placed = placement(&table(few));
            assert_eq!(placed.len(), KEYS as usize);
            let sum: u64 = few.iter().map(|(_, weight)| weight).sum();
            for (name, weight) in few {
                assert_share(count(&placed, name), *weight as f64 / sum as f64);
            }
        }
    }

    #[test]
    fn a_new_one_takes_its_share_and_nothing_else_moves() {
        let mut table = table(&[("a", 3), ("b", 3), ("c", 1)]);
        let before = placement(&table);
        table.bind(&Queue("new"), "3");
        let after = placement(&table);
        for (old, new) in before.iter().zip(&after) {
            assert!(old == new || *new == "new");
        }
        assert_share(count(&after, "new"), 0.3);
        table.unbind(&Queue("new"), "3");
        assert_eq!(placement(&table), before);
    }

    #[test]
    fn only_the_keys_of_the_one_that_goes_move() {
        let mut table = table(&[("a", 2), ("b", 2), ("c", 2), ("d", 4)]);
        let before = placement(&table);
        table.unbind(&Queue("a"), "2");
        let after = placement(&table);
        let mut moved = Vec::new();
        for (old, new) in before.iter().zip(&after) {
            assert!(old == new || *old == "a");
            moved.extend((*old == "a").then_some(*new));
        }
        // They are shared by weight as well.
        let of_moved = count(&moved, "d") as f64 / moved.len() as f64;
        assert!((0.47..0.53).contains(&of_moved), "{of_moved}");
    }

    #[test]
    fn weights_of_one_destination_add_up() {
        let mut both = table(&[("a", 1), ("b", 3), ("a", 2)]);
        assert_eq!(placement(&both), placement(&table(&[("b", 3), ("a", 3)])));
        both.unbind(&Queue("a"), "1");
        assert_eq!(placement(&both), placement(&table(&[("a", 2), ("b", 3)])));
        both.unbind(&Queue("a"), "2");
        both.unbind(&Queue("b"), "3");
        assert_eq!(both.pick(7), None);
    }

    /// Written down once: other places would move the keys of every durable exchange.
    #[test]
    fn never_changes() {
        let table = table(&[("a", 1), ("b", 2), ("c", 3)]);
        let first: String = placement(&table).into_iter().take(24).collect();
        assert_eq!(first, "bbccccbccbaccacccbcabccb");
    }

    #[test]
    fn weights_are_positive_integers() {
        for (key, weight_of) in [("1", 1), ("007", 7), ("+5", 5), ("10000", 10_000)] {
            assert_eq!(weight(key).ok(), Some(weight_of));
        }
        let integer = |shown: &str| format!("must be an integer: {shown}");
        for (key, text) in [
            ("0", "must be greater than 0".to_owned()),
            ("-0", "must be greater than 0".to_owned()),
            ("-1", "must be greater than 0".to_owned()),
            ("-99999999999999999999", "must be greater than 0".to_owned()),
            ("10001", "must not exceed 10000".to_owned()),
            ("99999999999999999999", "must not exceed 10000".to_owned()),
            ("", integer("<<>>")),
            ("+", integer("<<\"+\">>")),
            ("--1", integer("<<\"--1\">>")),
            ("1.5", integer("<<\"1.5\">>")),
            (" 1", integer("<<\" 1\">>")),
            ("0x10", integer("<<\"0x10\">>")),
            ("1\n", integer("<<\"1\\n\">>")),
            ("\u{663}", integer("<<\"\u{663}\"/utf8>>")),
            ("a\x01b", integer("<<97,1,98>>")),
        ] {
            let refused = weight(key).map_err(|error| (error.code, error.text));
            let text = format!("PRECONDITION_FAILED - The binding key {text}");
            assert_eq!(refused, Err((ReplyCode::PreconditionFailed, text)));
        }
    }
}
