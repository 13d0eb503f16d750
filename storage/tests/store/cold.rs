//! Queues whose index is not in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::common::{body, cold, payload, put, range, read, read_all, seqs, wait};
use crate::hooked::{Call, Hooked};
use storage::{Meta, Options, SeqRange, Stats, Store};

/// A queue that only keeps the store busy.
const BUSY: u64 = 99;

/// Lets checkpoints happen until something is reached.
fn until(store: &Store, reached: impl Fn(&Stats) -> bool) {
    for seq in store.durable().0.. {
        if reached(&store.stats()) {
            return;
        }
        put(store, BUSY, seq, 10);
        let last = store.settle(BUSY, SeqRange::one(seq));
        wait(store, last);
    }
}

/// Fills a queue with messages from 1 on and waits until so many chunks are in sled alone.
fn fill(store: &Store, queue: u64, count: u64, chunks: usize) {
    let mut last = Default::default();
    for seq in 1..=count {
        last = store.enqueue(queue, seq, meta(seq), payload(body(queue, seq, 30)));
    }
    wait(store, last);
    until(store, |stats| stats.cold_chunks >= chunks);
}

fn meta(seq: u64) -> Meta {
    Meta {
        deadline_ms: seq.is_multiple_of(5).then_some(1_000_000 + seq * 10),
        priority: (seq % 3) as u8,
        delivery_count: u32::from(seq.is_multiple_of(7)),
    }
}

/// Every message of a queue is as it was put there.
fn check(store: &Store, queue: u64, expected: impl Iterator<Item = u64>) {
    let found = read_all(store, queue);
    assert_eq!(found.iter().map(|message| message.seq).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for message in found {
        assert_eq!(message.payload, body(queue, message.seq, 30));
        assert_eq!(message.meta, meta(message.seq));
    }
}

#[test]
fn a_cold_queue_is_read_settled_and_purged() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    fill(&store, 1, 5000, 5);
    check(&store, 1, 1..=5000);
    until(&store, |stats| stats.cold_chunks >= 5);
    // All of a chunk, parts of two, single ones.
    store.settle(1, range(900, 2100));
    store.settle(1, SeqRange::one(4000));
    let last = store.settle(1, SeqRange::one(4000));
    wait(&store, last);
    let left = |seq: &u64| !(900..=2100).contains(seq) && *seq != 4000;
    check(&store, 1, (1..=5000).filter(left));
    until(&store, |stats| stats.cold_chunks >= 4);
    let last = store.purge(1, 4500, &[range(10, 12), range(3000, 3000), range(4000, 4001)]);
    wait(&store, last);
    let left = |seq: &u64| *seq >= 4500 || [10, 11, 12, 3000, 4001].contains(seq);
    check(&store, 1, (1..=5000).filter(left));
    until(&store, |stats| stats.cold_chunks >= 4);
    drop(store);
    let (store, recovered) = Store::open(cold(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    let queue = recovered.queues.iter().find(|queue| queue.id == 1).expect("it is there");
    // Exact again, though most of it was settled while nobody knew how long it was.
    assert_eq!((queue.first, queue.messages, queue.bytes), (10, 506, 506 * 30));
    check(&store, 1, (1..=5000).filter(left));
}

#[test]
fn messages_come_late_to_a_cold_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    let mut last = Default::default();
    for seq in (1..=3000).filter(|seq| seq % 100 != 0) {
        last = store.enqueue(1, seq, meta(seq), payload(body(1, seq, 30)));
    }
    wait(&store, last);
    until(&store, |stats| stats.cold_chunks >= 3);
    for seq in (1..=3000).filter(|seq| seq % 100 == 0) {
        last = store.enqueue(1, seq, meta(seq), payload(body(1, seq, 30)));
        if seq % 200 == 0 {
            last = store.settle(1, SeqRange::one(seq));
        }
        if seq == 1500 {
            wait(&store, last);
            until(&store, |stats| stats.cold_chunks >= 3);
        }
    }
    wait(&store, last);
    let alive = |seq: &u64| !seq.is_multiple_of(200);
    check(&store, 1, (1..=3000).filter(alive));
    until(&store, |stats| stats.cold_chunks >= 3);
    check(&store, 1, (1..=3000).filter(alive));
    drop(store);
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    check(&store, 1, (1..=3000).filter(alive));
}

#[test]
fn what_was_delivered_of_a_cold_queue_is_known_after_a_clean_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    fill(&store, 1, 3000, 3);
    store.close(vec![(1, vec![range(5, 9), range(1020, 1030)])]).expect("it closes");
    let (store, recovered) = Store::open(cold(dir.path())).expect("it opens");
    assert!(recovered.clean);
    let delivered = |seq: u64| (5..=9).contains(&seq) || (1020..=1030).contains(&seq);
    for message in read_all(&store, 1) {
        assert_eq!(message.redelivered, delivered(message.seq), "{}", message.seq);
    }
}

#[test]
fn a_read_may_take_all_of_a_cold_queue_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    fill(&store, 1, 6000, 6);
    let batch = read(&store, 1, 100, 1_000_000, usize::MAX);
    assert_eq!((batch.messages.len(), batch.end, batch.next), (5901, true, 6001));
    until(&store, |stats| stats.cold_chunks >= 6);
    // Both limits, at the very end of a chunk: seq 1023 is the last of the first.
    let batch = read(&store, 1, 1014, 10, usize::MAX);
    assert_eq!((batch.messages.len(), batch.end, batch.next), (10, false, 1024));
    let batch = read(&store, 1, 5991, 10, usize::MAX);
    assert_eq!((batch.messages.len(), batch.end, batch.next), (10, true, 6001));
}

/// Opens a store that tells of every segment that is recycled or removed.
fn telling(mut options: Options) -> (Arc<Store>, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    options.fs = Hooked::new(move |call, _| {
        if matches!(call, Call::Rename | Call::Remove) {
            let _ = sender.lock().expect("not poisoned").send(());
        }
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    (store, receiver)
}

/// Nobody does anything any more, and still the disk goes back to the pool and a few segments.
fn space_comes_back(store: &Store, told: &mpsc::Receiver<()>) {
    while store.stats().segments > 3 {
        told.recv().expect("the store goes on");
    }
    assert!(store.stats().free_segments <= 3);
}

#[test]
fn a_drained_store_gives_the_disk_back_by_itself() {
    for mode in [crate::common::small, cold] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, told) = telling(mode(dir.path()));
        let mut last = Default::default();
        for seq in 1..=4000 {
            last = put(&store, 1, seq, 1000);
        }
        wait(&store, last);
        assert!(store.stats().segments > 50);
        let mut from = 0;
        loop {
            let batch = read(&store, 1, from, 50, usize::MAX);
            if let (Some(first), Some(last)) = (batch.messages.first(), batch.messages.last()) {
                store.settle(1, range(first.seq, last.seq));
            }
            store.kick();
            if batch.end {
                break;
            }
            from = batch.next;
        }
        space_comes_back(&store, &told);
    }
}

#[test]
fn a_dropped_cold_queue_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, told) = telling(cold(dir.path()));
    fill(&store, 1, 5000, 5);
    fill(&store, 2, 5000, 10);
    store.purge(2, 5001, &[]);
    let last = store.change_topology(vec![storage::TopologyChange::DropQueue(1)]);
    wait(&store, last);
    space_comes_back(&store, &told);
    assert!(read(&store, 1, 0, 1, 1).messages.is_empty() && read(&store, 2, 0, 1, 1).messages.is_empty());
}

#[test]
fn settling_alone_never_grows_the_disk() {
    for mode in [crate::common::small, cold] {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, _) = Store::open(mode(dir.path())).expect("it opens");
        // The first message stays, so that its segment does.
        let mut last = Default::default();
        for seq in 1..=6000 {
            last = put(&store, 1, seq, 20);
        }
        wait(&store, last);
        let before = store.stats();
        let mut most = 0;
        // One group each, which takes a page.
        for seq in 2..=3000 {
            let last = store.settle(1, SeqRange::one(seq));
            wait(&store, last);
            most = most.max(store.stats().segments);
        }
        let written = store.stats().log_bytes - before.log_bytes;
        assert!(written > 160 * 64 * 1024, "{written}");
        // What a snapshot waits for, and what fills up while it is written by a thread that hardly gets a turn.
        assert!(most < before.segments + 80, "{most} segments, {} before", before.segments);
        assert_eq!(seqs(&store, 1).len(), 3001);
    }
}

#[test]
fn reads_race_with_settling_and_eviction() {
    for index_cache_bytes in [0, 20_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = cold(dir.path());
        options.index_cache_bytes = index_cache_bytes;
        options.checkpoint_interval = std::time::Duration::ZERO;
        let (store, _) = Store::open(options.clone()).expect("it opens");
        fill(&store, 1, 5000, 3);
        let settled = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let consumer = {
            let (store, settled) = (Arc::clone(&store), Arc::clone(&settled));
            std::thread::spawn(move || {
                for seq in (1..=4000).step_by(10) {
                    let last = store.settle(1, range(seq, seq + 9));
                    if seq % 50 == 1 {
                        wait(&store, last);
                        settled.store(seq + 9, Ordering::SeqCst);
                    }
                }
            })
        };
        let publisher = {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut seq = 5000;
                while !stop.load(Ordering::SeqCst) {
                    seq += 1;
                    let last = store.enqueue(1, seq, meta(seq), payload(body(1, seq, 30)));
                    wait(&store, last);
                }
                seq
            })
        };
        while !consumer.is_finished() {
            let gone = settled.load(Ordering::SeqCst);
            let messages = read_all(&store, 1);
            let mut expected = messages.first().expect("some stay").seq;
            assert!(expected > gone, "{expected} was settled up to {gone}");
            for message in messages {
                assert_eq!(message.payload, body(1, message.seq, 30));
                assert_eq!(message.meta, meta(message.seq));
                // Between two batches some may be settled, but none of those that stay is left out.
                assert!(message.seq == expected || message.seq <= 4001, "{} instead of {expected}", message.seq);
                expected = message.seq + 1;
            }
        }
        consumer.join().expect("it ends");
        stop.store(true, Ordering::SeqCst);
        let newest = publisher.join().expect("it ends");
        check(&store, 1, 4001..=newest);
        store.close(Vec::new()).expect("it closes");
        let (store, recovered) = Store::open(options).expect("it opens");
        assert!(recovered.clean);
        check(&store, 1, 4001..=newest);
    }
}

#[test]
fn sled_is_lost_while_the_store_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = cold(dir.path());
    options.snapshot_bytes = 1024 * 1024;
    let (store, _) = Store::open(options.clone()).expect("it opens");
    // So many chunks that they are not looked at when the store is opened.
    for queue in 1000..2100 {
        put(&store, queue, 1, 10);
    }
    fill(&store, 1, 30_000, 1129);
    let last = store.settle(1, range(1, 1500));
    wait(&store, last);
    store.close(Vec::new()).expect("it closes");
    let (store, _) = Store::open(options.clone()).expect("it opens");
    let (sender, failed) = mpsc::channel();
    store.on_failure(Box::new(move |reason| drop(sender.send(reason.to_owned()))));
    damage(&dir.path().join("sled/db"));
    let (sender, receiver) = mpsc::channel();
    store.read(1, 0, 100_000, usize::MAX, Box::new(move |batch| drop(sender.send(batch))));
    store.kick();
    let reason = failed.recv().expect("it says why");
    assert!(receiver.recv().is_err(), "a store that fails lets go of the read");
    assert!(reason.contains("sled") && reason.contains("quarantine"), "{reason}");
    assert!(store.close(Vec::new()).is_err());
    drop(store);
    let (store, recovered) = Store::open(options.clone()).expect("it opens");
    assert!(recovered.damage.iter().any(|line| line.contains("sled database")), "{:?}", recovered.damage);
    check(&store, 1, 1501..=30_000);
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = Store::open(options).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    check(&store, 1, 1501..=30_000);
}

fn damage(file: &Path) {
    use std::os::unix::fs::FileExt;
    let db = std::fs::File::options().write(true).open(file).expect("sled is there");
    let len = db.metadata().expect("it has a length").len();
    db.write_all_at(&vec![0x5A; len as usize], 0).expect("it can be overwritten");
}

/// A rebuild moves what it reads out of memory as it goes.
#[test]
fn a_big_index_is_rebuilt() {
    for with_snapshot in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = cold(dir.path());
        options.snapshot_bytes = if with_snapshot { 512 * 1024 } else { u64::MAX };
        options.segment_bytes = 4 << 20;
        options.checkpoint_interval = std::time::Duration::from_millis(20);
        let (store, _) = Store::open(options.clone()).expect("it opens");
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut last = Default::default();
        for n in 0..40_000u64 {
            let queue = 1 + n % 4;
            let seq = next.entry(queue).or_insert(1);
            last = store.enqueue(queue, *seq, meta(*seq), payload(body(queue, *seq, 30)));
            if *seq > 2000 && (*seq).is_multiple_of(3) {
                last = store.settle(queue, SeqRange::one(*seq - 2000));
            }
            *seq += 1;
            if n % 500 == 0 {
                wait(&store, last);
            }
        }
        wait(&store, last);
        // The second begins when the log knows of the first.
        until(&store, |stats| {
            (stats.snapshots > 0 || !with_snapshot) && stats.cold_chunks > 20 && stats.checkpoints > 1
        });
        drop(store);
        std::fs::remove_dir_all(dir.path().join("sled")).expect("removed");
        for rebuilt in [true, false] {
            let (store, recovered) = Store::open(options.clone()).expect("it opens");
            assert_eq!(recovered.damage.len(), usize::from(rebuilt), "{:?}", recovered.damage);
            for queue in 1..=4 {
                let alive = |seq: &u64| !((seq + 2000).is_multiple_of(3) && *seq + 2000 <= 10_000);
                check(&store, queue, (1..=10_000).filter(alive));
            }
            store.close(Vec::new()).expect("it closes");
        }
    }
}

#[test]
fn a_list_of_a_cold_queue_reads_nothing_from_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = cold(dir.path());
    let reads = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&reads);
    options.fs = Hooked::new(move |call, _| {
        if call == Call::Read && std::thread::current().name() == Some("warren-reader") {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    fill(&store, 1, 5000, 5);
    for seq in (1..=5000).filter(|seq| seq % 3 != 0) {
        store.settle(1, SeqRange::one(seq));
    }
    let last = store.settle(1, range(2_000, 3_500));
    wait(&store, last);
    let (mut found, mut from) = (Vec::new(), 0);
    loop {
        let (sender, receiver) = mpsc::channel();
        store.list(1, from, 100, Box::new(move |listed| drop(sender.send(listed))));
        let listed = receiver.recv().expect("the list is answered");
        assert!(listed.seqs.len() <= 100);
        found.extend(listed.seqs);
        if listed.end {
            break;
        }
        from = listed.next;
    }
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    assert_eq!(found, seqs(&store, 1));
    assert!(found.into_iter().eq((1..=5000).filter(|seq| seq % 3 == 0 && !(2_000..=3_500).contains(seq))));
    assert!(reads.load(Ordering::Relaxed) > 0, "a read does");
}
