//! How often messages were delivered and came back.

use std::path::Path;

use crate::common::{Mode, body, cold, payload, put, range, read_all, small, wait};
use storage::{Meta, SeqRange, Store};

/// Messages in a queue, over several chunks of the index.
const MESSAGES: u64 = 2500;

/// What a queue has to say of each message: the position, the count, and whether it was delivered before.
fn counts(store: &Store, queue: u64) -> Vec<(u64, u32, bool)> {
    read_all(store, queue).iter().map(|read| (read.seq, read.meta.delivery_count, read.redelivered)).collect()
}

fn expected(seq: u64) -> u32 {
    match seq {
        1..=9 => 3,
        10..=1500 => 1,
        2400 => 20,
        2401 => 7,
        _ => 0,
    }
}

/// Says it in an order in which counts go up, stay, and come too late.
fn requeue(store: &Store, queue: u64) {
    store.requeue(queue, &[range(1, 1500)], 1);
    let last = store.requeue(queue, &[range(1, 5), range(2400, 2400)], 2);
    wait(store, last);
    store.requeue(queue, &[range(1, 9)], 3);
    store.requeue(queue, &[range(4, 6)], 2);
    store.requeue(queue, &[SeqRange::one(2400)], 20);
    store.requeue(queue, &[SeqRange::one(2400)], 0);
    // The message itself came with a count: it was moved here.
    store.requeue(queue, &[SeqRange::one(2401)], 6);
    // There are none.
    let last = store.requeue(queue, &[range(MESSAGES + 1, MESSAGES + 9), range(9, 1)], 9);
    wait(store, last);
}

fn fill(store: &Store, queue: u64) {
    for seq in 1..=MESSAGES {
        let meta = Meta { delivery_count: if seq == 2401 { 7 } else { 0 }, ..Meta::default() };
        store.enqueue(queue, seq, meta, payload(body(queue, seq, 20)));
    }
    let last = put(store, queue + 1, 1, 20);
    wait(store, last);
}

fn check(store: &Store, queue: u64, all_redelivered: bool) {
    let was_delivered = |seq| seq <= 1500 || seq == 2400 || seq == 2401;
    let wanted = (1..=MESSAGES).map(|seq| (seq, expected(seq), all_redelivered || was_delivered(seq)));
    assert_eq!(counts(store, queue), wanted.collect::<Vec<_>>());
}

fn survives(mode: Mode, prepare: impl Fn(&Path)) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(mode(dir.path())).expect("it opens");
    fill(&store, 1);
    requeue(&store, 1);
    check(&store, 1, false);
    drop(store);
    prepare(dir.path());
    let (store, recovered) = Store::open(mode(dir.path())).expect("it opens");
    // A crash, and nothing else: that sled is made anew from the log is said there too.
    assert!(
        !recovered.clean && recovered.damage.iter().all(|said| said.contains("was rebuilt")),
        "{:?}",
        recovered.damage
    );
    check(&store, 1, true);
    // A count goes on from where it was.
    let last = store.requeue(1, &[SeqRange::one(1)], 4);
    wait(&store, last);
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = Store::open(mode(dir.path())).expect("it opens");
    assert!(recovered.clean);
    assert_eq!(counts(&store, 1)[..2], [(1, 4, true), (2, 3, true)]);
}

#[test]
fn counts_survive_a_crash() {
    survives(small, |_| {});
}

#[test]
fn counts_of_a_cold_queue_survive_a_crash() {
    survives(cold, |_| {});
}

#[test]
fn counts_are_in_the_log() {
    survives(
        |dir| {
            let mut options = small(dir);
            // Nothing is recycled, so that the log has everything.
            options.segment_bytes = 8 << 20;
            options
        },
        |dir| std::fs::remove_dir_all(dir.join("sled")).expect("sled can go"),
    );
}

#[test]
fn more_ranges_than_one_entry_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    fill(&store, 1);
    let odd: Vec<SeqRange> = (1..=MESSAGES).step_by(2).map(SeqRange::one).collect();
    let last = store.requeue(1, &odd, 5);
    wait(&store, last);
    for (seq, count, redelivered) in counts(&store, 1) {
        let is_odd = seq % 2 == 1;
        // One came with a larger count.
        let wanted = if seq == 2401 { 7 } else { u32::from(is_odd) * 5 };
        assert_eq!((count, redelivered), (wanted, is_odd), "{seq}");
    }
}
