//! What is due is named: once, not early, and never when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};

use proptest::prelude::*;

use crate::common::{Mode, cold, payload, range, small, wait};
use storage::{Due, Lsn, Meta, SeqRange, Store};

fn put(store: &Store, queue: u64, seq: u64, deadline_ms: Option<u64>) -> Lsn {
    store.enqueue(queue, seq, Meta { deadline_ms, ..Meta::default() }, payload("x"))
}

fn due(store: &Store, now_ms: u64) -> Due {
    let (sender, receiver) = mpsc::channel();
    store.due(now_ms, Box::new(move |due| drop(sender.send(due))));
    receiver.recv().expect("it is answered")
}

/// All that is due, each at most once.
fn all_due(store: &Store, now_ms: u64) -> (BTreeSet<(u64, u64)>, Option<u64>) {
    let mut all = BTreeSet::new();
    loop {
        let due = due(store, now_ms);
        assert!(due.messages.is_sorted_by_key(|(queue, _)| *queue));
        for (queue, seqs) in due.messages {
            assert!(seqs.is_sorted());
            for seq in seqs {
                assert!(all.insert((queue, seq)), "named twice");
            }
        }
        if !due.more {
            assert!(due.next.is_none_or(|next| next > now_ms));
            return (all, due.next);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put { queue: u8, skip: u16, count: u8, after: Option<u16>, spread: u16 },
    Settle { at: u16, count: u8 },
    Due { jump: i32 },
    Reopen { clean: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let skip = prop_oneof![4 => Just(1u16), 1 => 1u16..900];
    prop_oneof![
        8 => (0u8..3, skip, 1u8..120, any::<Option<u16>>(), 0u16..5000)
            .prop_map(|(queue, skip, count, after, spread)| Step::Put { queue, skip, count, after, spread }),
        4 => (any::<u16>(), 1u8..100).prop_map(|(at, count)| Step::Settle { at, count }),
        5 => prop_oneof![Just(0i32), 1..2000, 2000..60_000, -5000..0].prop_map(|jump| Step::Due { jump }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
    ]
}

fn run(steps: &[Step], mode: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let mut options = mode(dir.path());
        options.checkpoint_interval = std::time::Duration::from_millis(1);
        Store::open(options).expect("it opens")
    };
    let (mut store, _) = open();
    let mut next_seq = [1u64; 3];
    let mut live: BTreeMap<(u64, u64), Option<u64>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    let mut now = 1_000_000u64;
    let mut last = Lsn(0);
    for step in steps {
        match step {
            Step::Put { queue, skip, count, after, spread } => {
                for n in 0..u64::from(*count) {
                    let seq = &mut next_seq[usize::from(*queue)];
                    *seq += u64::from(*skip);
                    let offset = (n * 7919) % (u64::from(*spread) + 1);
                    // Some have expired before they come.
                    let deadline = after.map(|after| now - 500 + u64::from(after) + offset);
                    last = put(&store, 1 + u64::from(*queue), *seq, deadline);
                    live.insert((1 + u64::from(*queue), *seq), deadline);
                }
            }
            Step::Settle { at, count } => {
                let Some(&(queue, first)) = live.keys().nth(usize::from(*at) % live.len().max(1)) else {
                    continue;
                };
                let end = first + u64::from(*count) - 1;
                live.retain(|&(other, seq), _| other != queue || !(first..=end).contains(&seq));
                last = store.settle(queue, range(first, end));
            }
            Step::Due { jump } => {
                wait(&store, last);
                now = now.saturating_add_signed(i64::from(*jump));
                let next = store.next_deadline();
                let open = |named: &BTreeSet<(u64, u64)>, from: u64, to: u64| -> BTreeSet<(u64, u64)> {
                    let inside = |deadline: &Option<u64>| deadline.is_some_and(|at| (from..=to).contains(&at));
                    live.iter()
                        .filter(|(at, deadline)| inside(deadline) && !named.contains(*at))
                        .map(|(at, _)| *at)
                        .collect()
                };
                let expected = open(&named, 0, now);
                assert!(expected.is_empty() || next.is_some_and(|next| next <= now));
                let (found, next) = all_due(&store, now);
                assert_eq!(found, expected, "at {now}");
                named.extend(found);
                // What comes next is not told too late.
                let later = open(&named, 0, u64::MAX).into_iter().filter_map(|at| live[&at]).min();
                assert!(later.is_none_or(|later| next.is_some_and(|next| next <= later)), "{next:?} {later:?}");
            }
            Step::Reopen { clean } => {
                wait(&store, last);
                if *clean {
                    store.close(Vec::new()).expect("it closes");
                }
                drop(store);
                let recovered;
                (store, recovered) = open();
                for queue in recovered.queues {
                    let next = &mut next_seq[queue.id as usize - 1];
                    *next = queue.next_seq.max(*next);
                }
                named.clear();
                last = Lsn(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_due_is_named_once(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, small);
    }

    #[test]
    fn what_is_due_in_cold_queues_is_named_once(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, cold);
    }
}

#[test]
fn an_earlier_deadline_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let (sender, told) = mpsc::channel();
    store.on_deadline(Box::new(move |deadline| sender.send(deadline).unwrap_or_default()));
    assert_eq!(store.next_deadline(), None);
    for (seq, deadline) in [(1, None), (2, Some(500)), (3, Some(700)), (4, Some(300))] {
        let last = put(&store, 1, seq, deadline);
        wait(&store, last);
    }
    assert_eq!((told.recv(), told.recv()), (Ok(500), Ok(300)));
    assert_eq!(all_due(&store, 600), (BTreeSet::from([(1, 2), (1, 4)]), Some(700)));
    // Later than what the answer said: nobody needs to know.
    let last = put(&store, 1, 5, Some(900)).max(put(&store, 2, 1, Some(650)));
    wait(&store, last);
    assert_eq!(told.recv(), Ok(650));
    assert!(told.try_recv().is_err());
    let last = store.settle(1, SeqRange::one(3));
    wait(&store, last);
    assert_eq!(all_due(&store, 800), (BTreeSet::from([(2, 1)]), Some(900)));
    assert_eq!(all_due(&store, 100), (BTreeSet::new(), Some(900)));
}

#[test]
fn many_that_are_due_come_in_parts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    let mut last = Lsn(0);
    for seq in 1..=20_000 {
        last = put(&store, 1, seq, Some(5000 + seq % 100));
    }
    wait(&store, last);
    let first = due(&store, 10_000);
    assert!(first.more && first.messages[0].1.len() < 20_000);
    let (rest, next) = all_due(&store, 10_000);
    assert_eq!((first.messages[0].1.len() + rest.len(), next), (20_000, None));
    let (sender, receiver) = mpsc::channel::<Due>();
    store.close(Vec::new()).expect("it closes");
    store.due(10_000, Box::new(move |due| drop(sender.send(due))));
    assert!(receiver.recv().is_err(), "a store that has stopped lets go");
    assert_eq!(Arc::strong_count(&store), 1);
}
