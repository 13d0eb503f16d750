//! Random histories against a model that is nothing but maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use crate::common::{body, payload, range, read_all, small, wait};
use storage::{Lsn, Meta, SeqRange, Store, TopologyChange, TxOp};

#[derive(Clone, Debug)]
enum Step {
    Publish { queues: Vec<u8>, len: usize, priority: u8 },
    Settle { queue: u8, at: u8, count: u8 },
    Purge { queue: u8, keep: u8 },
    Topology { key: u8, value: Option<u8> },
    Drop { queue: u8 },
    Transaction { publish: Vec<u8>, settle: u8, len: usize },
    Wait,
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![8 => 1usize..600, 3 => 600usize..9000, 1 => 16_000usize..40_000];
    prop_oneof![
        10 => (prop::collection::vec(0u8..4, 1..4), len.clone(), 0u8..5)
            .prop_map(|(queues, len, priority)| Step::Publish { queues, len, priority }),
        6 => (0u8..4, any::<u8>(), 1u8..10).prop_map(|(queue, at, count)| Step::Settle { queue, at, count }),
        1 => (0u8..4, any::<u8>()).prop_map(|(queue, keep)| Step::Purge { queue, keep }),
        2 => (0u8..6, any::<Option<u8>>()).prop_map(|(key, value)| Step::Topology { key, value }),
        1 => (0u8..4).prop_map(|queue| Step::Drop { queue }),
        3 => (prop::collection::vec(0u8..4, 0..4), 0u8..4, len)
            .prop_map(|(publish, settle, len)| Step::Transaction { publish, settle, len }),
        3 => Just(Step::Wait),
        2 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

#[derive(Default)]
struct Model {
    ids: [u64; 4],
    queues: BTreeMap<u64, BTreeMap<u64, (Vec<u8>, Meta)>>,
    next: BTreeMap<u64, u64>,
    topology: BTreeMap<Vec<u8>, Vec<u8>>,
    used: BTreeSet<u64>,
}

impl Model {
    fn id(&mut self, store: &Store, queue: u8) -> u64 {
        let id = &mut self.ids[usize::from(queue)];
        if *id == 0 {
            *id = store.new_queue_id();
            assert!(self.used.insert(*id), "an id was given out twice");
        }
        *id
    }

    fn next(&mut self, id: u64) -> u64 {
        let next = self.next.entry(id).or_insert(1);
        *next += 1;
        *next - 1
    }

    fn apply(&mut self, store: &Store, step: &Step) -> Lsn {
        match step {
            Step::Publish { queues, len, priority } => {
                let unique: BTreeSet<u8> = queues.iter().copied().collect();
                let mut shared = None;
                let mut last = Lsn(0);
                for queue in unique {
                    let id = self.id(store, queue);
                    let seq = self.next(id);
                    let bytes =
                        shared.get_or_insert_with(|| (body(id, seq, *len), payload(body(id, seq, *len)))).clone();
                    let meta = Meta {
                        deadline_ms: (priority % 2 == 1).then_some(seq * 1000),
                        priority: *priority,
                        delivery_count: u32::from(priority / 2),
                    };
                    last = store.enqueue(id, seq, meta, bytes.1);
                    self.queues.entry(id).or_default().insert(seq, (bytes.0, meta));
                }
                last
            }
            Step::Settle { queue, at, count } => {
                let id = self.id(store, *queue);
                let messages = self.queues.entry(id).or_default();
                let Some(&first) = messages.keys().nth(usize::from(*at) % messages.len().max(1)) else {
                    return Lsn(0);
                };
                let last = first + u64::from(*count) - 1;
                messages.retain(|seq, _| !(first..=last).contains(seq));
                store.settle(id, range(first, last))
            }
            Step::Purge { queue, keep } => {
                let id = self.id(store, *queue);
                let below = self.next.get(&id).copied().unwrap_or(1);
                let messages = self.queues.entry(id).or_default();
                let kept = messages.keys().nth(usize::from(*keep) % messages.len().max(1)).copied();
                messages.retain(|&seq, _| Some(seq) == kept);
                store.purge(id, below, &kept.map(SeqRange::one).into_iter().collect::<Vec<_>>())
            }
            Step::Topology { key, value } => {
                let key = format!("key/{key}").into_bytes();
                let change = match value {
                    Some(value) => {
                        let value = vec![*value; usize::from(*value) * 300];
                        self.topology.insert(key.clone(), value.clone());
                        TopologyChange::Put { key, value }
                    }
                    None => {
                        self.topology.remove(&key);
                        TopologyChange::Delete { key }
                    }
                };
                store.change_topology(vec![change])
            }
            Step::Drop { queue } => {
                let id = std::mem::take(&mut self.ids[usize::from(*queue)]);
                self.queues.remove(&id);
                if id == 0 { Lsn(0) } else { store.change_topology(vec![TopologyChange::DropQueue(id)]) }
            }
            Step::Transaction { publish, settle, len } => {
                let mut ops = Vec::new();
                for queue in publish {
                    let id = self.id(store, *queue);
                    let seq = self.next(id);
                    let bytes = body(id, seq, *len);
                    self.queues.entry(id).or_default().insert(seq, (bytes.clone(), Meta::default()));
                    ops.push(TxOp::Enqueue { queue: id, seq, meta: Meta::default(), payload: payload(bytes) });
                }
                let id = self.id(store, *settle);
                let messages = self.queues.entry(id).or_default();
                if let Some((seq, _)) = messages.pop_first() {
                    ops.push(TxOp::Settle { queue: id, range: SeqRange::one(seq) });
                }
                store.transaction(ops)
            }
            Step::Wait | Step::Reopen { .. } => Lsn(0),
        }
    }

    fn check(&self, store: &Store, topology: Option<Vec<(Vec<u8>, Vec<u8>)>>) {
        for (&id, expected) in &self.queues {
            let found = read_all(store, id);
            let seqs: Vec<u64> = found.iter().map(|message| message.seq).collect();
            assert_eq!(seqs, expected.keys().copied().collect::<Vec<_>>(), "queue {id}");
            for message in found {
                let (bytes, meta) = &expected[&message.seq];
                assert_eq!(message.payload, bytes);
                assert_eq!(message.meta, *meta);
            }
        }
        if let Some(topology) = topology {
            assert_eq!(topology.into_iter().collect::<BTreeMap<_, _>>(), self.topology);
        }
    }
}

fn run(steps: &[Step], index_cache_bytes: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let mut options = small(dir.path());
        options.checkpoint_interval = std::time::Duration::from_millis(1);
        options.index_cache_bytes = index_cache_bytes;
        options.compaction_delay = std::time::Duration::ZERO;
        Store::open(options).expect("it opens")
    };
    let (mut store, _) = open();
    let mut model = Model::default();
    let mut last = Lsn(0);
    for step in steps {
        last = last.max(model.apply(&store, step));
        match step {
            Step::Wait => {
                wait(&store, last);
                model.check(&store, None);
            }
            Step::Reopen { clean } => {
                // What is durable must survive; what is not may, so everything is made durable first.
                wait(&store, last);
                if *clean {
                    store.close(Vec::new()).expect("it closes");
                }
                drop(store);
                let recovered;
                (store, recovered) = open();
                assert_eq!((recovered.clean, &recovered.damage), (*clean, &Vec::new()));
                for queue in &recovered.queues {
                    let next = model.next.entry(queue.id).or_insert(1);
                    assert!(queue.next_seq >= *next || !model.queues.contains_key(&queue.id));
                    *next = queue.next_seq.max(*next);
                    let expected = model.queues.get(&queue.id).map_or(0, BTreeMap::len);
                    assert_eq!(queue.messages, expected as u64);
                }
                model.check(&store, Some(recovered.topology));
                last = Lsn(0);
            }
            _ => {}
        }
    }
    assert_eq!(Arc::strong_count(&store), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps, 1 << 20);
    }

    #[test]
    fn random_histories_of_cold_queues(steps in prop::collection::vec(step(), 1..120), cache in prop_oneof![Just(0u64), Just(2048)]) {
        run(&steps, cache);
    }
}
