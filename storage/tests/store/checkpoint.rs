//! sled and the snapshot: used, damaged, old, gone.

use std::path::Path;

use crate::common::{Mode, body, cold, copy_dir, put, range, read_all, seqs, small, wait};
use crate::crash::segments;
use storage::{Options, Recovered, SeqRange, Store, TopologyChange};

/// Fills some queues; returns what is alive in queue 1.
fn fill(store: &Store, from: u64, count: u64) -> Vec<u64> {
    for seq in from..from + count {
        put(store, 1, seq, 200);
        put(store, 2, seq, 200);
        store.settle(2, SeqRange::one(seq));
        if seq % 3 == 0 {
            store.settle(1, SeqRange::one(seq));
        }
    }
    let key = format!("key {from}").into_bytes();
    let last = store.change_topology(vec![TopologyChange::Put { key, value: vec![7; 40_000] }]);
    wait(store, last);
    (from..from + count).filter(|seq| seq % 3 != 0).collect()
}

/// Goes on appending until `reached` says so.
fn until(store: &Store, queue: u64, reached: impl Fn(&storage::Stats) -> bool) {
    let mut seq = 1_000_000;
    while !reached(&store.stats()) {
        put(store, queue, seq, 2000);
        let last = store.settle(queue, SeqRange::one(seq));
        wait(store, last);
        seq += 1;
    }
}

fn open(dir: &Path) -> (std::sync::Arc<Store>, Recovered) {
    Store::open(small(dir)).expect("it opens")
}

fn check(store: &Store, recovered: &Recovered, alive: &[u64], keys: usize) {
    assert_eq!(seqs(store, 1), alive);
    assert_eq!(seqs(store, 2), Vec::<u64>::new());
    for message in read_all(store, 1) {
        assert_eq!(message.payload, body(1, message.seq, 200));
    }
    assert_eq!(recovered.topology.len(), keys);
    assert!(recovered.topology.iter().all(|(_, value)| *value == vec![7; 40_000]));
}

fn no_blobs(dir: &Path) {
    let blobs = std::fs::read_dir(dir.join("sled/blobs")).map_or(0, |entries| entries.count());
    assert_eq!(blobs, 0, "sled has put values into files of their own");
}

#[test]
fn a_clean_start_replays_nothing() {
    check_a_clean_start_replays_nothing(small);
}

#[test]
fn a_clean_start_replays_nothing_with_a_cold_index() {
    check_a_clean_start_replays_nothing(cold);
}

fn check_a_clean_start_replays_nothing(mode: Mode) {
    let open = |dir: &Path| Store::open(mode(dir)).expect("it opens");
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let mut alive = fill(&store, 1, 3000);
    store.close(Vec::new()).expect("it closes");
    no_blobs(dir.path());
    let (store, recovered) = open(dir.path());
    assert!(recovered.clean);
    assert!(recovered.replayed_entries <= 1, "{}", recovered.replayed_entries);
    check(&store, &recovered, &alive, 1);
    assert_eq!(recovered.queues[0].next_seq, 3001);
    alive.extend(fill(&store, 3001, 1500));
    let last = store.settle(1, range(1, 2500));
    wait(&store, last);
    alive.retain(|&seq| seq > 2500);
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered.damage, Vec::<String>::new());
    check(&store, &recovered, &alive, 2);
}

#[test]
fn a_crash_after_checkpoints_replays_little() {
    check_a_crash_after_checkpoints_replays_little(small);
}

#[test]
fn a_crash_after_checkpoints_replays_little_with_a_cold_index() {
    check_a_crash_after_checkpoints_replays_little(cold);
}

fn check_a_crash_after_checkpoints_replays_little(mode: Mode) {
    let open = |dir: &Path| Store::open(mode(dir)).expect("it opens");
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let alive = fill(&store, 1, 3000);
    let before = store.stats().checkpoints;
    until(&store, 3, |stats| stats.checkpoints >= before + 2);
    drop(store);
    let (store, recovered) = open(dir.path());
    assert!(!recovered.clean);
    assert!(recovered.replayed_entries < 9000, "{}", recovered.replayed_entries);
    check(&store, &recovered, &alive, 1);
    assert!(read_all(&store, 1).iter().all(|message| message.redelivered));
}

#[test]
fn sled_is_rebuilt() {
    check_sled_is_rebuilt(small);
}

#[test]
fn sled_is_rebuilt_with_a_cold_index() {
    check_sled_is_rebuilt(cold);
}

fn check_sled_is_rebuilt(mode: Mode) {
    let open = |dir: &Path| Store::open(mode(dir)).expect("it opens");
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let mut alive = fill(&store, 1, 500);
    store.close(Vec::new()).expect("it closes");
    let old = tempfile::tempdir().expect("a directory");
    copy_dir(&dir.path().join("sled"), old.path());
    let (store, _) = open(dir.path());
    alive.extend(fill(&store, 501, 3000));
    until(&store, 3, |stats| stats.snapshots >= 2);
    alive.extend(fill(&store, 4000, 100));
    store.close(Vec::new()).expect("it closes");

    type Damage<'a> = &'a dyn Fn(&Path);
    let damages: [(&str, Damage<'_>); 5] = [
        ("missing", &|sled| std::fs::remove_dir_all(sled).expect("removed")),
        ("older", &|sled| {
            std::fs::remove_dir_all(sled).expect("removed");
            copy_dir(old.path(), sled);
        }),
        ("empty db", &|sled| std::fs::write(sled.join("db"), "").expect("written")),
        ("garbage db", &|sled| {
            let len = std::fs::metadata(sled.join("db")).expect("it is there").len();
            std::fs::write(sled.join("db"), vec![0x5A; len as usize]).expect("written");
        }),
        ("garbage conf", &|sled| std::fs::write(sled.join("conf"), "no").expect("written")),
    ];
    for (what, damage) in damages {
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(dir.path(), copy.path());
        damage(&copy.path().join("sled"));
        let (store, recovered) = open(copy.path());
        // sled itself puts up with a damaged conf.
        let noticed = !recovered.damage.is_empty() && !recovered.clean;
        assert!(noticed || what == "garbage conf", "{what}");
        check(&store, &recovered, &alive, 3);
        // It is good again afterwards.
        store.close(Vec::new()).expect("it closes");
        let (store, recovered) = open(copy.path());
        assert_eq!((what, recovered.damage.clone(), recovered.clean), (what, Vec::new(), true));
        check(&store, &recovered, &alive, 3);
    }
}

#[test]
fn without_sled_and_snapshot_the_log_is_enough() {
    check_without_sled_and_snapshot_the_log_is_enough(small);
}

#[test]
fn without_sled_and_snapshot_the_log_is_enough_with_a_cold_index() {
    check_without_sled_and_snapshot_the_log_is_enough(cold);
}

fn check_without_sled_and_snapshot_the_log_is_enough(mode: Mode) {
    let open = |dir: &Path| Store::open(mode(dir)).expect("it opens");
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let alive = fill(&store, 1, 3000);
    until(&store, 3, |stats| stats.snapshots >= 2);
    store.close(Vec::new()).expect("it closes");
    std::fs::remove_dir_all(dir.path().join("sled")).expect("removed");
    let snapshot = dir.path().join("snapshot");
    let mut bytes = std::fs::read(&snapshot).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&snapshot, bytes).expect("written");
    let (store, recovered) = open(dir.path());
    assert!(recovered.damage.len() >= 2, "{:?}", recovered.damage);
    assert!(dir.path().join("quarantine/snapshot.1").exists());
    // At least once: what was settled in recycled segments may be back, but nothing that is alive is missing.
    let found = seqs(&store, 1);
    assert!(alive.iter().all(|seq| found.contains(seq)));
    store.close(Vec::new()).expect("it closes");
    let (_store, recovered) = open(dir.path());
    assert_eq!(recovered.damage, Vec::<String>::new());
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    fill(&store, 1, 1500);
    store.close(Vec::new()).expect("it closes");
    let all = segments(dir.path());
    assert!(all.len() > 4);
    std::fs::remove_file(&all[2]).expect("removed");
    let (store, recovered) = open(dir.path());
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    assert!(recovered.damage[0].contains("missing"));
    let batch = crate::common::read(&store, 1, 0, 10_000, usize::MAX);
    assert!(!batch.damaged.is_empty() && !batch.messages.is_empty());
}

#[test]
fn the_key_is_restored_from_its_copy() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = open(dir.path());
    let last = put(&store, 1, 1, 10);
    wait(&store, last);
    drop(store);
    for name in ["key", "log/key"] {
        std::fs::write(dir.path().join(name), "damaged").expect("written");
        let (store, recovered) = open(dir.path());
        assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
        assert_eq!(seqs(&store, 1), [1]);
    }
}

#[test]
fn no_value_of_sled_is_big() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::new(dir.path());
    options.segment_bytes = 1 << 20;
    let (store, _) = Store::open(options.clone()).expect("it opens");
    // Meta that compresses badly, locations that jump.
    let mut last = Default::default();
    for seq in 0..3000u64 {
        for queue in [1, 2] {
            let meta = storage::Meta {
                deadline_ms: Some(seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1 | 1),
                priority: seq as u8,
                delivery_count: (seq * 7919) as u32,
            };
            last = store.enqueue(queue, seq, meta, crate::common::payload(body(queue, seq, (seq % 97) as usize + 1)));
        }
    }
    let value = vec![1; 3_000_000];
    let key = vec![2; 100_000];
    last = last.max(store.change_topology(vec![TopologyChange::Put { key: key.clone(), value: value.clone() }]));
    wait(&store, last);
    let before = read_all(&store, 1).iter().map(|m| (m.seq, m.meta)).collect::<Vec<_>>();
    store.close(Vec::new()).expect("it closes");
    no_blobs(dir.path());
    let (store, recovered) = Store::open(options).expect("it opens");
    assert_eq!(recovered.topology, [(key, value)]);
    assert_eq!(read_all(&store, 1).iter().map(|m| (m.seq, m.meta)).collect::<Vec<_>>(), before);
}
