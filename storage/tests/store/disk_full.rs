//! A full disk: nobody loses anything, the store does not stop, and it goes on by itself when there is room again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use crate::common::{body, payload, put, range, read, read_all, seqs, small, wait};
use crate::small_disk::{Kind, SmallDisk, news, until};
use storage::{CloseError, Durable, Lsn, Meta, Options, Store, TopologyChange};

const SEGMENT: u64 = 64 * 1024;

fn options(dir: &Path, disk: &SmallDisk) -> Options {
    let mut options = small(dir);
    options.fs = Arc::new(disk.clone());
    options.disk_free_limit = SEGMENT;
    options.snapshot_bytes = 4 * SEGMENT;
    options.large_bytes = 16 * 1024;
    options
}

/// Keeps the store busy until something is so: its threads work beside that.
fn busy_until(store: &Store, is_so: impl Fn(&Store) -> bool) {
    let mut seq = 1_000_000;
    while !is_so(store) {
        seq += 1;
        put(store, 99, seq, 10);
        let last = store.settle(99, range(seq, seq));
        wait(store, last);
    }
}

/// Waits until so many files of the reserve are made, and there is room again for what that itself has logged.
fn wait_for_reserve(store: &Store, files: usize) {
    busy_until(store, |store| store.stats().reserve_segments >= files && !store.is_disk_low());
}

#[test]
fn a_disk_that_fills_up_holds_publishers_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(20 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    let news = news(&store);
    wait_for_reserve(&store, 4);
    let mut seq = 0;
    while !store.is_disk_low() {
        seq += 1;
        let last = put(&store, 1, seq, 3000);
        wait(&store, last);
    }
    until(&news, true);
    // Not what is free now: the store may have given back segments since.
    assert!(disk.peak() > 17 * SEGMENT, "{}", disk.peak());
    assert_eq!(store.disk_free().1, SEGMENT);
    // What was already appended is taken, and settlements go on.
    for _ in 0..10 {
        seq += 1;
        put(&store, 1, seq, 3000);
    }
    let mut settled = 0;
    while settled < seq {
        settled += 1;
        let last = store.settle(1, range(settled, settled));
        wait(&store, last);
    }
    until(&news, false);
    // The segments of the settlements themselves may make it low again for a moment.
    busy_until(&store, |store| !store.is_disk_low() && store.stats().reserve_segments == 4);
    let last = put(&store, 1, seq + 1, 3000);
    wait(&store, last);
    drop(store);
    let (store, recovered) = Store::open(options(dir.path(), &disk)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), [seq + 1]);
}

/// Somebody else fills the disk, and gives the space back later.
#[test]
fn a_store_that_has_used_up_its_reserve_waits_for_space() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(30 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    let news = news(&store);
    wait_for_reserve(&store, 4);
    disk.set_capacity(disk.used());
    let count = Arc::new(AtomicU64::new(0));
    struct Count(Arc<AtomicU64>);
    impl Durable for Count {
        fn durable(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    // More than fits into the reserve and the pool.
    let mut last = Lsn(0);
    for seq in 1..=600 {
        last = put(&store, 1, seq, 3000);
        store.notify_at(last, Arc::new(Count(Arc::clone(&count))));
    }
    let (done, finished) = mpsc::channel();
    struct Done(Mutex<mpsc::Sender<()>>);
    impl Durable for Done {
        fn durable(&self) {
            let _ = self.0.lock().expect("not poisoned").send(());
        }
    }
    store.notify_at(last, Arc::new(Done(Mutex::new(done))));
    until(&news, true);
    assert!(finished.try_recv().is_err(), "there is no room for it");
    // A settlement is not lost either, it waits like the rest.
    let settled = store.settle(1, range(1, 5));
    disk.set_capacity(200 * SEGMENT);
    finished.recv().expect("it becomes durable");
    wait(&store, settled);
    until(&news, false);
    assert_eq!(count.load(Ordering::SeqCst), 600);
    drop(store);
    let (store, recovered) = Store::open(options(dir.path(), &disk)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), (6..=600).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_does_not_hold_up_a_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(30 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    let news = news(&store);
    let last = put(&store, 1, 1, 3000);
    wait(&store, last);
    disk.set_capacity(0);
    for seq in 2..=600 {
        put(&store, 1, seq, 3000);
    }
    store.kick();
    until(&news, true);
    let durable = store.durable();
    assert!(matches!(store.close(Vec::new()), Err(CloseError::Failed(reason)) if reason.contains("no storage space")));
    assert!(store.durable() >= durable);
    drop(store);
    disk.set_capacity(200 * SEGMENT);
    let (store, recovered) = Store::open(options(dir.path(), &disk)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    let found = seqs(&store, 1);
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_store_opens_on_a_full_disk_and_drains() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(40 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    let mut last = Lsn(0);
    for seq in 1..=200 {
        last = put(&store, 1, seq, 3000);
    }
    wait(&store, last);
    wait_for_reserve(&store, 4);
    drop(store);
    disk.set_capacity(disk.used());
    let (store, recovered) = Store::open(options(dir.path(), &disk)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert!(store.is_disk_low());
    let news = news(&store);
    until(&news, true);
    assert_eq!(read_all(&store, 1).len(), 200);
    for seq in 1..=200 {
        let last = store.settle(1, range(seq, seq));
        wait(&store, last);
    }
    until(&news, false);
    busy_until(&store, |store| !store.is_disk_low() && store.stats().reserve_segments == 4);
    let last = put(&store, 1, 1000, 3000);
    wait(&store, last);
    assert_eq!(seqs(&store, 1), [1000]);
}

/// What the log leaves is enough for the checkpoints and snapshots that set its segments free, to the page.
#[test]
fn however_little_is_left_the_log_does_not_wait_for_its_own_dead_segments() {
    const LONG: u64 = 4 * SEGMENT;
    for pages in (0..80).step_by(4) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = SmallDisk::new(40 * SEGMENT);
        let mut options = options(dir.path(), &disk);
        options.segment_bytes = LONG;
        // As if it were in use already.
        options.reserve_segments = 0;
        options.pool_segments = 0;
        let (store, _) = Store::open(options).expect("it opens");
        for seq in 1..=300 {
            put(&store, 1, seq, 3000);
        }
        // No file is in the making then: it would take up the room that is left to others below.
        let is_prepared = |store: &Store| store.stats().free_segments > 0;
        busy_until(&store, is_prepared);
        let last = store.settle(1, range(1, 300));
        wait(&store, last);
        busy_until(&store, is_prepared);
        disk.set_capacity(disk.used() + LONG + pages * 4096);
        for seq in 1..=300 {
            put(&store, 2, seq, 1000);
            let last = store.settle(2, range(seq, seq));
            wait(&store, last);
        }
    }
}

#[test]
fn the_limit_alone_decides_when_nothing_else_is_short() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(100 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    wait_for_reserve(&store, 4);
    let news = news(&store);
    store.set_disk_free_limit(1000 * SEGMENT);
    until(&news, true);
    // Who comes late hears of it too.
    let late = self::news(&store);
    until(&late, true);
    assert_eq!(store.disk_free().1, 1000 * SEGMENT);
    disk.set_capacity(1001 * SEGMENT + disk.used());
    disk.set_capacity(1101 * SEGMENT + disk.used());
    until(&news, false);
    until(&late, false);
    assert!(!store.is_disk_low());
}

/// The pool is given up when that is what is missing.
#[test]
fn a_low_disk_gets_the_pool_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(100 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    wait_for_reserve(&store, 4);
    let mut seq = 0;
    while store.stats().free_segments < 3 {
        seq += 1;
        put(&store, 1, seq, 3000);
        let last = store.settle(1, range(0, seq));
        wait(&store, last);
    }
    disk.set_capacity(disk.used() + SEGMENT / 2);
    busy_until(&store, |store| store.stats().free_segments < 3 && !store.is_disk_low());
    assert_eq!(store.stats().reserve_segments, 4);
}

/// One refusal at every call that a full disk can refuse, one call after the other.
#[test]
fn a_refusal_anywhere_loses_nothing() {
    std::thread::scope(|scope| {
        for errno in [28, 122, 24] {
            scope.spawn(move || {
                let mut at = 0;
                while refuse_at(at, errno) {
                    at += if errno == 28 { 1 } else { 7 };
                }
                assert!(at > if errno == 24 { 10 } else { 50 }, "{at} calls, error {errno}");
            });
        }
    });
}

/// Refuses two calls in a row from the one with this number on. False when there are not so many.
fn refuse_at(number: u64, errno: i32) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let calls = Arc::new(AtomicU64::new(u64::MAX));
    let counted = Arc::clone(&calls);
    // Which calls can fail for want of space, and which for want of a file descriptor.
    let can = move |kind, scarce| match kind {
        Kind::Open | Kind::SyncDir => scarce,
        Kind::Create => true,
        Kind::Write | Kind::Allocate | Kind::Rename => !scarce,
        Kind::Sync => false,
    };
    let disk = SmallDisk::hooked(1000 * SEGMENT, move |kind, _| {
        let before = counted.load(Ordering::SeqCst);
        if before == u64::MAX || !can(kind, errno == 24) {
            return Ok(());
        }
        counted.store(before + 1, Ordering::SeqCst);
        let refused = (number..number + 2).contains(&before);
        if refused { Err(io::Error::from_raw_os_error(errno)) } else { Ok(()) }
    });
    let mut options = options(dir.path(), &disk);
    options.pool_segments = 1;
    let (store, _) = Store::open(options.clone()).expect("it opens");
    calls.store(0, Ordering::SeqCst);
    let mut live = BTreeSet::new();
    for seq in 1..=40 {
        let len = if seq % 15 == 0 { 20_000 } else { 3000 };
        put(&store, 1, seq, len);
        live.insert(seq);
        let mut last = store.settle(1, range(seq.saturating_sub(20), seq.saturating_sub(12)));
        live.retain(|&one| !(seq.saturating_sub(20)..=seq.saturating_sub(12)).contains(&one));
        if seq % 10 == 0 {
            let value = seq.to_le_bytes().to_vec();
            last = store.change_topology(vec![TopologyChange::Put { key: b"key".to_vec(), value }]);
        }
        wait(&store, last);
    }
    let reached = calls.load(Ordering::SeqCst) > number;
    drop(store);
    for left in [dir.path().to_path_buf(), dir.path().join("log")] {
        let names =
            std::fs::read_dir(left).expect("it can be listed").map(|entry| entry.expect("an entry").file_name());
        let unfinished: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".tmp")).collect();
        assert!(unfinished.is_empty(), "call {number}, error {errno}: {unfinished:?}");
    }
    calls.store(u64::MAX, Ordering::SeqCst);
    let (store, recovered) = Store::open(options).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new(), "call {number}, error {errno}");
    assert_eq!(recovered.topology, [(b"key".to_vec(), 40u64.to_le_bytes().to_vec())]);
    let messages = read_all(&store, 1);
    let found: BTreeSet<u64> = messages.iter().map(|message| message.seq).collect();
    assert_eq!(found, live, "call {number}, error {errno}");
    for message in messages {
        assert_eq!(message.payload, body(1, message.seq, message.payload.len()));
    }
    reached
}

#[test]
fn a_large_message_waits_for_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(40 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    wait_for_reserve(&store, 4);
    let news = news(&store);
    let large = store.enqueue(1, 1, Meta::default(), payload(body(1, 1, 60 * SEGMENT as usize)));
    store.kick();
    until(&news, true);
    assert!(store.durable() < large);
    disk.set_capacity(140 * SEGMENT);
    wait(&store, large);
    until(&news, false);
    assert_eq!(read_all(&store, 1)[0].payload, body(1, 1, 60 * SEGMENT as usize));
}

/// Several times the disk goes through it: the publisher stops while it is low, the consumer takes away what it finds then.
/// In the end, after a crash, exactly what was confirmed and not settled is there.
#[test]
fn a_disk_that_fills_up_again_and_again_loses_nothing() {
    const MESSAGES: u64 = 1500;
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::new(20 * SEGMENT);
    let (store, _) = Store::open(options(dir.path(), &disk)).expect("it opens");
    wait_for_reserve(&store, 4);
    let news = news(&store);
    let (published, settled, times_low) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (ask, asked) = mpsc::channel();
        let (drained, go_on) = mpsc::channel();
        let (store, published, settled, times_low) = (&store, &published, &settled, &times_low);
        scope.spawn(move || {
            while asked.recv().is_ok() {
                // Down to a few messages, of which the oldest stays.
                while store.is_disk_low() || published.load(Ordering::SeqCst) > settled.load(Ordering::SeqCst) + 20 {
                    let from = settled.load(Ordering::SeqCst) + 1;
                    let batch = read(store, 1, from, 7, usize::MAX);
                    assert_eq!(batch.damaged, Vec::<u64>::new());
                    let Some(last) = batch.messages.last().map(|message| message.seq) else { break };
                    let expected: Vec<u64> = (from..=last).collect();
                    assert_eq!(batch.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), expected);
                    let lsn = store.settle(1, range(from, last));
                    wait(store, lsn);
                    settled.store(last, Ordering::SeqCst);
                }
                drained.send(()).expect("the publisher waits");
            }
        });
        for seq in 1..=MESSAGES {
            let len = if seq % 50 == 0 { 30_000 } else { 3000 };
            let last = put(store, 1, seq, len);
            if seq % 10 != 0 {
                continue;
            }
            store.kick();
            // Confirms may have to wait for what the consumer gives back.
            let low = store.is_disk_low();
            if !low {
                wait(store, last);
            }
            published.store(seq, Ordering::SeqCst);
            if low || store.is_disk_low() {
                times_low.fetch_add(1, Ordering::SeqCst);
                ask.send(()).expect("the consumer waits");
                go_on.recv().expect("the consumer answers");
                while store.is_disk_low() && news.recv().expect("the store goes on") {}
                wait(store, last);
            }
        }
    });
    assert!(times_low.into_inner() >= 2);
    let settled = settled.into_inner();
    drop(store);
    let (store, recovered) = Store::open(options(dir.path(), &disk)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), (settled + 1..=MESSAGES).collect::<Vec<_>>());
}
