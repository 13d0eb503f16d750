//! Every kind of binding table against a list of bindings and the rules written down plainly.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use amq_protocol::types::{AMQPValue, DecimalValue, FieldArray};
use broker::model::arguments::Arguments;
use broker::routing::fingerprint::Fingerprint;
use broker::routing::kind::ExchangeKind;
use broker::routing::table::Table;
use broker::routing::target::{Identity, Target, TargetKind};
use proptest::prelude::*;
use proptest::sample::select;

thread_local! {
    /// How often queues were compared or hashed.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// A queue with a number for a name.
#[derive(Clone, Debug, Eq, PartialOrd, Ord)]
struct Queue(String);

impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        LOOKS.set(LOOKS.get() + 1);
        self.0 == other.0
    }
}

impl Hash for Queue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        LOOKS.set(LOOKS.get() + 1);
        self.0.hash(state);
    }
}

impl Queue {
    fn new(number: u32) -> Self {
        Self(number.to_string())
    }
}

impl Target for Queue {
    fn identity(&self) -> Identity<'_> {
        Identity { kind: TargetKind::Queue, name: &self.0 }
    }
}

/// A list of bindings, searched from the start each time.
#[derive(Default)]
struct Model {
    bindings: Vec<(Queue, String, Arguments)>,
}

impl Model {
    fn position(&self, destination: &Queue, key: &str, arguments: &Arguments) -> Option<usize> {
        self.bindings.iter().position(|(d, k, a)| d == destination && k == key && a == arguments)
    }

    fn bind(&mut self, destination: &Queue, key: &str, arguments: &Arguments) -> bool {
        let new = self.position(destination, key, arguments).is_none();
        if new {
            self.bindings.push((destination.clone(), key.to_owned(), arguments.clone()));
        }
        new
    }

    fn unbind(&mut self, destination: &Queue, key: &str, arguments: &Arguments) -> bool {
        match self.position(destination, key, arguments) {
            Some(at) => {
                self.bindings.remove(at);
                true
            }
            None => false,
        }
    }

    fn remove_destination(&mut self, destination: &Queue) -> usize {
        let before = self.bindings.len();
        self.bindings.retain(|(d, _, _)| d != destination);
        before - self.bindings.len()
    }

    fn route(&self, kind: ExchangeKind, key: &str, headers: &Arguments) -> BTreeSet<Queue> {
        let leads = |binding_key: &str, arguments: &Arguments| match kind {
            ExchangeKind::Direct => binding_key == key,
            ExchangeKind::Fanout => true,
            ExchangeKind::Topic => topic_matches(&words(binding_key), &words(key)),
            ExchangeKind::Headers => headers_match(arguments, headers),
            _ => false,
        };
        self.bindings
            .iter()
            .filter(|(_, binding_key, arguments)| leads(binding_key, arguments))
            .map(|(destination, _, _)| destination.clone())
            .collect()
    }
}

fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

fn topic_matches(pattern: &[&str], key: &[&str]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((&"#", rest)) => (0..=key.len()).any(|skipped| topic_matches(rest, &key[skipped..])),
        Some((&word, rest)) => {
            key.split_first().is_some_and(|(first, key)| (word == "*" || word == *first) && topic_matches(rest, key))
        }
    }
}

fn headers_match(binding: &Arguments, headers: &Arguments) -> bool {
    let mode = match binding.get("x-match") {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => "all".to_owned(),
    };
    let with_x = mode.ends_with("-with-x");
    let mut conditions = binding
        .iter()
        .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with("x-")))
        .map(|(name, wanted)| match (wanted, headers.get(name)) {
            (_, None) => false,
            (AMQPValue::Void, Some(_)) => true,
            (wanted, Some(given)) => same_value(wanted, given),
        });
    if mode.starts_with("all") { conditions.all(|holds| holds) } else { conditions.any(|holds| holds) }
}

fn same_value(a: &AMQPValue, b: &AMQPValue) -> bool {
    fn plain(value: &AMQPValue) -> Option<String> {
        Some(match value {
            AMQPValue::Boolean(v) => format!("bool {v}"),
            AMQPValue::ShortShortInt(v) => format!("int {v}"),
            AMQPValue::ShortShortUInt(v) => format!("int {v}"),
            AMQPValue::ShortInt(v) => format!("int {v}"),
            AMQPValue::ShortUInt(v) => format!("int {v}"),
            AMQPValue::LongInt(v) => format!("int {v}"),
            AMQPValue::LongUInt(v) => format!("int {v}"),
            AMQPValue::LongLongInt(v) => format!("int {v}"),
            AMQPValue::Timestamp(v) => format!("int {v}"),
            AMQPValue::Float(v) => format!("float {:?}", f64::from(*v)),
            AMQPValue::Double(v) => format!("float {v:?}"),
            AMQPValue::DecimalValue(v) => format!("decimal {} {}", v.scale, v.value),
            AMQPValue::LongString(v) => format!("bytes {:?}", v.as_bytes()),
            AMQPValue::ByteArray(v) => format!("bytes {:?}", v.as_slice()),
            _ => return None,
        })
    }
    plain(a).is_some() && plain(a) == plain(b)
}

#[derive(Clone, Debug)]
enum Op {
    Bind(Queue, String, Arguments),
    Unbind(Queue, String, Arguments),
    RemoveDestination(Queue),
    /// Unbinds what was bound at this point, so that removals usually hit.
    UnbindKnown(usize),
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::collection::vec(select(vec!["a", "b", "", "*", "#", "**"]), 0..6)
            .prop_map(|words| words.join(".")),
        1 => Just("a.".to_owned()),
        1 => "[a-c.#*]{0,12}",
    ]
}

fn value() -> impl Strategy<Value = AMQPValue> {
    select(vec![
        AMQPValue::Void,
        AMQPValue::Boolean(true),
        AMQPValue::Boolean(false),
        AMQPValue::ShortShortInt(1),
        AMQPValue::ShortShortUInt(1),
        AMQPValue::ShortInt(-1),
        AMQPValue::ShortUInt(1),
        AMQPValue::LongInt(1),
        AMQPValue::LongUInt(2),
        AMQPValue::LongLongInt(1),
        AMQPValue::Timestamp(1),
        AMQPValue::Float(1.0),
        AMQPValue::Double(1.0),
        AMQPValue::DecimalValue(DecimalValue { scale: 0, value: 1 }),
        AMQPValue::LongString("1".into()),
        AMQPValue::LongString("".into()),
        AMQPValue::ByteArray(b"1".as_slice().into()),
        AMQPValue::FieldArray(FieldArray::default()),
    ])
}

fn table(names: Vec<&'static str>) -> impl Strategy<Value = Vec<(&'static str, AMQPValue)>> {
    prop::collection::vec((select(names), value()), 0..5)
}

fn headers() -> impl Strategy<Value = Arguments> {
    table(vec!["a", "b", "c", "x-d", "x-match"]).prop_map(collect)
}

fn arguments() -> impl Strategy<Value = Arguments> {
    let mode = select(vec!["", "all", "any", "all-with-x", "any-with-x"]);
    (mode, table(vec!["a", "b", "c", "x-d"])).prop_map(|(mode, pairs)| {
        let mut arguments = collect(pairs);
        if !mode.is_empty() {
            arguments.insert("x-match", AMQPValue::LongString(mode.into()));
        }
        arguments
    })
}

fn collect(pairs: Vec<(&'static str, AMQPValue)>) -> Arguments {
    let mut arguments = Arguments::default();
    for (name, value) in pairs {
        arguments.insert(name, value);
    }
    arguments
}

fn queue() -> impl Strategy<Value = Queue> {
    (0..5_u32).prop_map(Queue::new)
}

fn op() -> impl Strategy<Value = Op> {
    let arguments = || prop_oneof![1 => Just(Arguments::default()), 2 => arguments()];
    prop_oneof![
        6 => (queue(), key(), arguments()).prop_map(|(d, k, a)| Op::Bind(d, k, a)),
        1 => (queue(), key(), arguments()).prop_map(|(d, k, a)| Op::Unbind(d, k, a)),
        4 => any::<usize>().prop_map(Op::UnbindKnown),
        1 => queue().prop_map(Op::RemoveDestination),
    ]
}

fn check(kind: ExchangeKind, ops: &[Op], messages: &[(String, Arguments)]) {
    let mut table = Table::new(kind);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Bind(d, k, a) => {
                let new = model.bind(d, k, a);
                assert_eq!(table.bind(d, k, a).is_some(), new);
            }
            Op::Unbind(d, k, a) => {
                let known = model.unbind(d, k, a);
                assert_eq!(table.unbind(d, k, a).is_some(), known);
            }
            Op::UnbindKnown(at) => {
                if model.bindings.is_empty() {
                    continue;
                }
                let (d, k, a) = model.bindings.remove(at % model.bindings.len());
                assert!(table.contains(&d, &k, &a));
                assert!(table.unbind(&d, &k, &a).is_some());
            }
            Op::RemoveDestination(d) => {
                let removed = model.remove_destination(d);
                assert_eq!(table.remove_destination(d).len(), removed);
                assert!(!table.has_destination(d));
            }
        }
        assert_eq!(table.len(), model.bindings.len());
        assert_eq!(table.is_empty(), model.bindings.is_empty());
        check_picks(kind, &table, &model);
        for (key, headers) in messages {
            let mut reported = Vec::new();
            table.route(key, Some(&headers.to_wire()), &mut |d| reported.push(d.clone()));
            let routed: BTreeSet<Queue> = reported.iter().cloned().collect();
            assert_eq!(routed, model.route(kind, key, headers), "{kind:?} {key}");
            if kind.reports_once() {
                assert_eq!(reported.len(), routed.len());
            }
        }
    }
    let mut listed: Vec<_> =
        table.iter().map(|(d, binding)| (d.clone(), binding.key.to_string(), binding.arguments.to_vec())).collect();
    let mut expected: Vec<_> =
        model.bindings.iter().map(|(d, key, arguments)| (d.clone(), key.clone(), arguments.to_wire())).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

/// Every number gives what the list says; together they give each binding its share.
fn check_picks(kind: ExchangeKind, table: &Table<Queue>, model: &Model) {
    let count = model.bindings.len() as u64;
    let mut sorted: Vec<&Queue> = model.bindings.iter().map(|(queue, _, _)| queue).collect();
    sorted.sort();
    match kind {
        ExchangeKind::ModulusHash => {
            for number in 0..2 * count.max(1) {
                let expected = number.checked_rem(count).and_then(|at| sorted.get(at as usize));
                assert_eq!(table.pick(number), expected.copied());
            }
        }
        ExchangeKind::Random | ExchangeKind::LocalRandom => {
            // The middles of as many equal parts of all numbers as there are bindings.
            let part = u64::MAX.checked_div(count).unwrap_or(0);
            let mut picked: Vec<&Queue> = (0..count).filter_map(|n| table.pick(n * part + part / 2)).collect();
            picked.sort();
            assert_eq!(picked, sorted);
            assert_eq!(table.pick(u64::MAX).is_some(), count > 0);
            assert_eq!(table.pick(0).is_some(), count > 0);
        }
        ExchangeKind::ConsistentHash => {
            // Nothing but the set of bindings counts: one that was made in another order places alike.
            let mut again = Table::new(kind);
            for (queue, key, arguments) in model.bindings.iter().rev() {
                again.bind(queue, key, arguments);
            }
            for number in 0..50 {
                let picked = table.pick(hash(number));
                assert_eq!(picked.is_some(), count > 0);
                assert_eq!(picked, again.pick(hash(number)));
            }
        }
        _ => assert_eq!(table.pick(0), None),
    }
}

fn hash(number: u32) -> u64 {
    Fingerprint::of(&number.to_be_bytes())
}

fn messages() -> impl Strategy<Value = Vec<(String, Arguments)>> {
    prop::collection::vec((key(), headers()), 1..6)
}

proptest! {
    #[test]
    fn direct(ops in prop::collection::vec(op(), 1..40), messages in messages()) {
        check(ExchangeKind::Direct, &ops, &messages);
    }

    #[test]
    fn fanout(ops in prop::collection::vec(op(), 1..40), messages in messages()) {
        check(ExchangeKind::Fanout, &ops, &messages);
    }

    #[test]
    fn topic(ops in prop::collection::vec(op(), 1..40), messages in messages()) {
        check(ExchangeKind::Topic, &ops, &messages);
    }

    #[test]
    fn headers_exchange(ops in prop::collection::vec(op(), 1..40), messages in messages()) {
        check(ExchangeKind::Headers, &ops, &messages);
    }

    #[test]
    fn modulus_hash(ops in prop::collection::vec(op(), 1..40)) {
        check(ExchangeKind::ModulusHash, &ops, &[]);
    }

    #[test]
    fn consistent_hash(ops in prop::collection::vec(op(), 1..40)) {
        let weight = |key: &str| (key.len() % 4 + 1).to_string();
        let ops: Vec<Op> = ops
            .into_iter()
            .map(|op| match op {
                Op::Bind(queue, key, arguments) => Op::Bind(queue, weight(&key), arguments),
                Op::Unbind(queue, key, arguments) => Op::Unbind(queue, weight(&key), arguments),
                other => other,
            })
            .collect();
        check(ExchangeKind::ConsistentHash, &ops, &[]);
    }

    #[test]
    fn consistent_hash_moves_only_what_it_must(
        weights in prop::collection::vec(0..5_u32, 2..12),
        changed in any::<prop::sample::Index>(),
        weight in 0..5_u32,
    ) {
        let changed = changed.index(weights.len());
        let table = |weights: &[u32]| {
            let mut table = Table::new(ExchangeKind::ConsistentHash);
            for (number, weight) in (0..).zip(weights).filter(|(_, weight)| **weight > 0) {
                table.bind(&Queue::new(number), &weight.to_string(), &Arguments::default());
            }
            table
        };
        let before = table(&weights);
        let mut other = weights.clone();
        other[changed] = weight;
        let after = table(&other);
        let changed_queue = Queue::new(changed as u32);
        for number in 0..500 {
            let (old, new) = (before.pick(hash(number)), after.pick(hash(number)));
            if old != new {
                let gained = if weight > weights[changed] { new } else { old };
                assert_eq!(gained, Some(&changed_queue));
            }
        }
    }

    #[test]
    fn random(ops in prop::collection::vec(op(), 1..40)) {
        check(ExchangeKind::Random, &ops, &[]);
    }

    #[test]
    fn topic_with_long_keys(
        patterns in prop::collection::vec(
            prop::collection::vec(select(vec!["a", "#", "*"]), 1..10), 1..8),
        key in prop::collection::vec(select(vec!["a", "b"]), 0..9),
    ) {
        let ops: Vec<Op> = (0..)
            .zip(patterns)
            .map(|(d, words)| Op::Bind(Queue::new(d), words.join("."), Arguments::default()))
            .collect();
        check(ExchangeKind::Topic, &ops, &[(key.join("."), Arguments::default())]);
    }

    #[test]
    fn headers_that_are_not_a_table_do_no_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        arguments in arguments(),
    ) {
        let mut table = Table::new(ExchangeKind::Headers);
        table.bind(&Queue::new(1), "", &arguments);
        table.route("", Some(&bytes), &mut |_| {});
    }
}

/// With many bindings everything still works, and what is done for one of them does not depend on how many there are.
#[test]
fn a_hundred_thousand_bindings() {
    for kind in [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers] {
        let mut table = Table::new(kind);
        LOOKS.set(0);
        let arguments =
            |n: u32| collect(vec![("common", AMQPValue::Boolean(true)), ("number", AMQPValue::LongUInt(n))]);
        let key = |n: u32| format!("region{}.*.device{n}.#", n % 10);
        for n in 0..100_000 {
            let headers = if kind == ExchangeKind::Headers { arguments(n) } else { Arguments::default() };
            assert!(table.bind(&Queue::new(n), &key(n), &headers).is_some());
        }
        let mut hits = 0;
        for n in (0..100_000).step_by(100) {
            let key = match kind {
                ExchangeKind::Topic => format!("region{}.x.device{n}.y.z", n % 10),
                _ => key(n),
            };
            if kind != ExchangeKind::Fanout {
                table.route(&key, Some(&arguments(n).to_wire()), &mut |_| hits += 1);
            }
        }
        if kind == ExchangeKind::Fanout {
            table.route("", None, &mut |_| hits += 1);
            assert_eq!(hits, 100_000);
        } else {
            assert_eq!(hits, 1_000);
        }
        for n in 0..100_000 {
            assert_eq!(table.remove_destination(&Queue::new(n)).len(), 1);
        }
        assert!(table.is_empty());
        let looks = LOOKS.get();
        assert!(looks < 30 * 100_000, "{kind:?}: {looks}");
    }
}
