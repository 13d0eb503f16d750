//! Lanes against an ordered map. What a single lane does with disk is tested with [`Ready`].

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const RESIDENT_MAX: usize = 1 << 20;

fn message(deadline_ms: Option<u64>, len: usize) -> Arc<Message> {
    let mut message = Message::new(b"\0\0", &[0, 0], Cow::Owned(vec![0; len]), false);
    if let Some(deadline_ms) = deadline_ms {
        message.expire_at(deadline_ms);
    }
    Arc::new(message)
}

fn push(lanes: &mut Lanes, level: u8, deadline_ms: Option<u64>) -> Seq {
    let seq = lanes.next_seq(level);
    let entry = Entry { seq, message: message(deadline_ms, 10), redelivered: false };
    assert!(lanes.push(entry, false, RESIDENT_MAX).is_none());
    seq
}

#[test]
fn a_position_says_its_level() {
    for (queue, level, number) in [(1, 0, 1), ((7 << 32) | 9, 255, 1_000_000), (3, 128, (1 << 40) - 1)] {
        let id = id_of(queue, level);
        assert_eq!(owner_of(id), (queue, level));
        let seq = at_level(number, level);
        assert_eq!((level_of(seq), in_store(queue, seq)), (level, (id, number)));
    }
    assert_eq!(in_store(5, 77), (5, 77), "nothing changes without priorities");
}

#[test]
fn priorities_above_the_highest_count_as_the_highest() {
    let with = |priority| Message::new(b"\0\0", &[0x08, 0, priority], Cow::Borrowed(b""), false);
    let levels = |max: u8| [0, 1, 5, 6, 255].map(|priority| Lanes::new(max).level_for(&with(priority)));
    assert_eq!(levels(5), [0, 1, 5, 5, 5]);
    assert_eq!(levels(255), [0, 1, 5, 6, 255]);
    assert_eq!(levels(0), [0; 5]);
    assert_eq!(Lanes::new(9).level_for(&message(None, 1)), 0);
}

#[test]
fn what_is_urgent_has_room_when_the_memory_is_full() {
    let mut lanes = Lanes::new(255);
    let mut on_disk = 0;
    let publish = |lanes: &mut Lanes, level| {
        let entry = Entry { seq: lanes.next_seq(level), message: message(None, 1_000), redelivered: false };
        usize::from(lanes.push(entry, true, RESIDENT_MAX).is_some())
    };
    for _ in 0..2_000 {
        on_disk += publish(&mut lanes, 0);
    }
    assert_eq!(on_disk, 0, "the store has them");
    assert!(lanes.has_backlog(0));
    assert!(lanes.bytes() < RESIDENT_MAX + 2_000);
    for level in 1..=255 {
        for _ in 0..10 {
            publish(&mut lanes, level);
        }
        assert!(lanes.has_front(), "level {level} begins in memory");
        assert!(lanes.has_backlog(level), "level {level} has no more than its share");
        assert_eq!(lanes.pop().map(|entry| level_of(entry.seq)), Some(level));
    }
    assert!(lanes.bytes() < 3 * RESIDENT_MAX, "{} octets", lanes.bytes());
    assert_eq!(lanes.len(), 2_000 + 255 * 9);
}

#[test]
fn the_highest_level_is_read_first() {
    let found =
        |level, messages| RecoveredQueue { id: id_of(8, level), first: 1, next_seq: messages + 1, messages, bytes: 0 };
    let mut lanes = Lanes::recovered(200, &[found(0, 5), found(3, 10), found(200, 2)]);
    assert_eq!((lanes.len(), lanes.has_front()), (17, false));
    for (level, messages) in [(200, 2), (3, 10), (0, 5)] {
        let Some((wanted, Wanted::Stored { next, end })) = lanes.wants(100, RESIDENT_MAX) else {
            panic!("level {level} is on disk");
        };
        assert_eq!((wanted, next, end), (level, 1, messages + 1));
        // The store has lost them.
        let batch = ReadBatch { next: end, end: true, ..ReadBatch::default() };
        assert_eq!(lanes.loaded(level, batch, end), messages);
    }
    assert!(lanes.is_empty());
    assert!(lanes.wants(100, RESIDENT_MAX).is_none());
    assert_eq!(lanes.next_seq(200), at_level(3, 200), "numbers go on");
}

#[derive(Clone, Debug)]
enum Op {
    Push { level: u8, ttl_ms: Option<u64> },
    Pop(usize),
    Requeue { count: usize, together: bool },
    Pass(u64),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let level = prop_oneof![Just(0u8), Just(1), Just(63), Just(64), Just(255), any::<u8>()];
    prop_oneof![
        10 => (level, prop::option::weighted(0.3, 1..100u64)).prop_map(|(level, ttl_ms)| Op::Push { level, ttl_ms }),
        5 => (1..5usize).prop_map(Op::Pop),
        3 => (1..5usize, any::<bool>()).prop_map(|(count, together)| Op::Requeue { count, together }),
        2 => (1..50u64).prop_map(Op::Pass),
        1 => Just(Op::Clear),
    ]
}

fn turn(seq: Seq) -> (Reverse<u8>, Seq) {
    (Reverse(level_of(seq)), seq)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn they_are_one_map_ordered_by_level_and_age(ops in prop::collection::vec(op(), 1..200)) {
        let mut lanes = Lanes::new(255);
        let (mut model, mut out, mut now_ms) = (BTreeMap::new(), Vec::new(), 0);
        for op in ops {
            match op {
                Op::Push { level, ttl_ms } => {
                    let deadline_ms = ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
                    let seq = push(&mut lanes, level, deadline_ms);
                    model.insert(turn(seq), deadline_ms);
                }
                Op::Pop(count) => {
                    for _ in 0..count {
                        let popped = lanes.pop();
                        let first = model.pop_first();
                        prop_assert_eq!(popped.as_ref().map(|entry| turn(entry.seq)), first.map(|(turn, _)| turn));
                        out.extend(popped);
                    }
                }
                Op::Requeue { count, together } => {
                    let mut back: Vec<Entry> = out.drain(out.len() - count.min(out.len())..).collect();
                    back.retain(|entry| entry.message.deadline_ms().is_none_or(|at_ms| at_ms > now_ms));
                    back.sort_unstable_by_key(|entry| entry.seq);
                    model.extend(back.iter().map(|entry| (turn(entry.seq), entry.message.deadline_ms())));
                    if together {
                        lanes.insert_all(back);
                    } else {
                        back.into_iter().for_each(|entry| lanes.insert(entry));
                    }
                }
                Op::Pass(ms) => {
                    now_ms += ms;
                    let due: Vec<Seq> = lanes.take_due(now_ms).into_iter().map(|entry| entry.seq).collect();
                    let is_due = |deadline_ms: Option<u64>| deadline_ms.is_some_and(|at_ms| at_ms <= now_ms);
                    let mut expected: Vec<Seq> =
                        model.iter().filter(|(_, at_ms)| is_due(**at_ms)).map(|((_, seq), _)| *seq).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(due, expected);
                    model.retain(|_, at_ms| !is_due(*at_ms));
                    // Or a timer would be called again and again.
                    prop_assert!(lanes.first_deadline().is_none_or(|at_ms| at_ms > now_ms));
                }
                Op::Clear => {
                    let (count, ranges) = lanes.clear();
                    prop_assert_eq!((count, ranges), (model.len(), Vec::new()), "the store has none of them");
                    model.clear();
                }
            }
            prop_assert_eq!(lanes.len(), model.len());
            prop_assert_eq!(lanes.is_empty(), model.is_empty());
            prop_assert_eq!(lanes.has_front(), !model.is_empty());
            let first_ms = model.values().flatten().min().copied();
            let known = lanes.first_deadline();
            prop_assert!(first_ms.is_none_or(|first_ms| known.is_some_and(|known| known <= first_ms)));
            prop_assert_eq!(lanes.bytes(), model.len() * message(None, 10).resident_bytes());
        }
    }
}
