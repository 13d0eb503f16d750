//! Segments that are mostly dead come back although something lives in them.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{Mode, body, cold, payload, put, range, read, read_all, scratch, seqs, small, wait};
use crate::crash::segments;
use rand::SeedableRng;
use rand::rngs::StdRng;
use storage::fs::faulty::{Disk, FaultyFs, When};
use storage::{Meta, Options, SeqRange, Stats, Store};

/// As [`small`], and compaction waits for nothing.
pub(crate) fn eager(dir: &Path) -> Options {
    let mut options = small(dir);
    options.compaction_delay = Duration::ZERO;
    options.compaction_rate = u64::MAX;
    options
}

/// As [`eager`], with nothing of the index in memory that sled has too.
pub(crate) fn eager_cold(dir: &Path) -> Options {
    let mut options = eager(dir);
    options.index_cache_bytes = 0;
    options
}

/// What is filled is left as it is: neither time passes, nor is there ever more dead than the pool holds.
fn no_compaction(options: &mut Options) {
    options.compaction_delay = Duration::from_secs(3600);
    options.pool_segments = 1000;
}

/// Waits for something that the store does without being asked.
fn eventually(store: &Store, reached: impl Fn(&Stats) -> bool) {
    let failed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&failed);
    store.on_failure(Box::new(move |_| flag.store(true, Ordering::SeqCst)));
    while !reached(&store.stats()) {
        assert!(!failed.load(Ordering::SeqCst), "the store has stopped");
        std::thread::yield_now();
    }
}

fn meta(seq: u64) -> Meta {
    Meta {
        deadline_ms: seq.is_multiple_of(5).then_some(u64::MAX / 2 + seq),
        priority: (seq % 7) as u8,
        delivery_count: u32::from(seq.is_multiple_of(3)),
    }
}

fn fill(store: &Store, queue: u64, count: u64, len: usize) {
    let mut last = Default::default();
    for seq in 1..=count {
        last = store.enqueue(queue, seq, meta(seq), payload(body(queue, seq, len)));
    }
    wait(store, last);
}

/// Settles all of a queue but every `kept`th message.
fn thin_out(store: &Store, queue: u64, count: u64, kept: u64) {
    let mut last = Default::default();
    for first in (0..=count).step_by(kept as usize) {
        last = store.settle(queue, range(first + 1, first + kept - 1));
    }
    wait(store, last);
}

fn check(store: &Store, queue: u64, len: usize, expected: impl Iterator<Item = u64>) {
    let found = read_all(store, queue);
    assert_eq!(found.iter().map(|message| message.seq).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for message in found {
        assert_eq!(message.payload, body(queue, message.seq, len));
        assert_eq!(message.meta, meta(message.seq));
    }
}

#[test]
fn a_few_old_messages_pin_no_segments() {
    check_a_few_old_messages_pin_no_segments(eager);
}

#[test]
fn a_few_old_messages_pin_no_segments_with_a_cold_index() {
    check_a_few_old_messages_pin_no_segments(eager_cold);
}

fn check_a_few_old_messages_pin_no_segments(mode: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(mode(dir.path())).expect("it opens");
    fill(&store, 1, 5000, 500);
    assert!(store.stats().segments > 40);
    thin_out(&store, 1, 5000, 100);
    // What is left is less than one segment.
    eventually(&store, |stats| stats.segments <= 5);
    let stats = store.stats();
    assert!(stats.relocated_messages >= 40, "{stats:?}");
    check(&store, 1, 500, (100..=5000).step_by(100));
    drop(store);
    let (store, recovered) = Store::open(mode(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    let queue = recovered.queues.iter().find(|queue| queue.id == 1).expect("it is there");
    assert_eq!((queue.first, queue.messages, queue.bytes), (100, 50, 50 * 500));
    check(&store, 1, 500, (100..=5000).step_by(100));
    // Drained, the store goes back to the pool and the reserve.
    let last = store.settle(1, range(0, 5000));
    wait(&store, last);
    eventually(&store, |stats| stats.segments <= 3 && stats.reserve_segments == 4);
    assert!(store.stats().free_segments <= 3, "{:?}", store.stats());
}

/// Neither sled nor the snapshot is needed to find what was moved.
#[test]
fn the_log_alone_knows_what_was_moved() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(eager(dir.path())).expect("it opens");
    fill(&store, 1, 2000, 500);
    thin_out(&store, 1, 2000, 100);
    eventually(&store, |stats| stats.segments <= 5);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("sled")).expect("it was there");
    std::fs::remove_file(dir.path().join("snapshot")).expect("it was there");
    let (store, _) = Store::open(eager(dir.path())).expect("it opens");
    let found = seqs(&store, 1);
    assert!((100..=2000).step_by(100).all(|seq| found.contains(&seq)), "{found:?}");
    for message in read_all(&store, 1) {
        assert_eq!((message.payload, message.meta), (body(1, message.seq, 500).into(), meta(message.seq)));
    }
}

#[test]
fn moved_messages_are_settled_requeued_and_dropped() {
    check_moved_messages_are_settled_requeued_and_dropped(eager);
}

#[test]
fn moved_messages_are_settled_requeued_and_dropped_with_a_cold_index() {
    check_moved_messages_are_settled_requeued_and_dropped(eager_cold);
}

/// With one interval between the checkpoints after another, so that what comes after the move meets it before, in and after
/// the checkpoint that covers it.
fn check_moved_messages_are_settled_requeued_and_dropped(mode: Mode) {
    for round in 0..4u64 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = mode(dir.path());
        options.checkpoint_interval = Duration::from_millis(1 + 10 * round);
        let (store, _) = Store::open(options.clone()).expect("it opens");
        for queue in 1..=3 {
            fill(&store, queue, 1500, 300);
        }
        let queue = store.new_queue_id();
        fill(&store, queue, 1500, 300);
        for queue in [1, 2, 3, queue] {
            thin_out(&store, queue, 1500, 50);
        }
        eventually(&store, |stats| stats.relocated_messages >= 60);
        store.settle(1, SeqRange::one(100));
        store.purge(2, 1000, &[SeqRange::one(150)]);
        store.change_topology(vec![storage::TopologyChange::DropQueue(queue)]);
        let last = store.settle(3, range(0, 1499));
        wait(&store, last);
        let all = |store: &Store| {
            check(store, 1, 300, (50..=1500).step_by(50).filter(|seq| *seq != 100));
            check(store, 2, 300, [150].into_iter().chain((1000..=1500).step_by(50)));
            check(store, 3, 300, [1500].into_iter());
            assert!(seqs(store, queue).is_empty());
        };
        all(&store);
        if round % 2 == 0 {
            store.close(vec![(1, vec![SeqRange::one(1000)])]).expect("it closes");
        }
        drop(store);
        let (store, recovered) = Store::open(options).expect("it opens");
        assert_eq!((recovered.clean, recovered.damage), (round % 2 == 0, Vec::new()));
        all(&store);
        let redelivered: Vec<u64> =
            read_all(&store, 1).into_iter().filter(|message| message.redelivered).map(|message| message.seq).collect();
        assert!(if round % 2 == 0 { redelivered == [1000] } else { redelivered.len() == 29 }, "{redelivered:?}");
        let bytes: u64 = recovered.queues.iter().map(|queue| queue.bytes).sum();
        let exact = (29 + 12 + 1) * 300;
        // After a crash what was settled in cold chunks since the last checkpoint still counts.
        assert!(if round % 2 == 0 { bytes == exact } else { bytes >= exact }, "{bytes}");
        for queue in 1..=3 {
            let last = store.settle(queue, range(0, 1500));
            wait(&store, last);
        }
        eventually(&store, |stats| stats.segments <= 3);
    }
}

#[test]
fn what_many_queues_share_is_moved_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = eager(dir.path());
    options.segment_bytes = 1024 * 1024;
    options.large_bytes = 128 * 1024;
    let (store, _) = Store::open(options.clone()).expect("it opens");
    let shared = payload(body(0, 1, 15_000));
    for queue in 1..=10 {
        store.enqueue(queue, 1, Meta::default(), Arc::clone(&shared));
    }
    fill(&store, 20, 1500, 1000);
    let before = store.stats().log_bytes;
    let last = store.settle(20, range(0, 1500));
    wait(&store, last);
    eventually(&store, |stats| stats.relocated_messages == 10);
    // A few groups of settlements and checkpoints beside it.
    let written = store.stats().log_bytes - before;
    assert!(written < 5 * 15_000, "{written}");
    drop(store);
    let (store, _) = Store::open(options).expect("it opens");
    for queue in 1..=10 {
        let messages = read_all(&store, queue);
        assert_eq!(messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1]);
        assert_eq!(messages[0].payload, body(0, 1, 15_000));
    }
}

#[test]
fn nothing_is_moved_that_comes_and_goes_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    no_compaction(&mut options);
    let (store, _) = Store::open(options).expect("it opens");
    let mut seq = 0;
    for _ in 0..400 {
        for _ in 0..20 {
            seq += 1;
            put(&store, 1, seq, 500);
        }
        let last = store.settle(1, range(0, seq.saturating_sub(50)));
        wait(&store, last);
    }
    let stats = store.stats();
    assert!(stats.log_bytes > 60 * 64 * 1024, "{stats:?}");
    assert!(stats.segments < 40, "{stats:?}");
    assert_eq!((stats.relocated_messages, stats.relocated_bytes), (0, 0));
}

/// The newest segment is not sealed, so there is nothing to do however long one waits.
#[test]
fn an_idle_store_moves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(eager(dir.path())).expect("it opens");
    let last = put(&store, 1, 1, 100);
    wait(&store, last);
    eventually(&store, |stats| stats.checkpoints > 0);
    store.close(Vec::new()).expect("it closes");
    for _ in 0..3 {
        let (store, _) = Store::open(eager(dir.path())).expect("it opens");
        assert_eq!(seqs(&store, 1), [1]);
        store.close(Vec::new()).expect("it closes");
        assert_eq!(store.stats().relocated_messages, 0);
    }
}

#[test]
fn settlements_alone_never_grow_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(eager(dir.path())).expect("it opens");
    fill(&store, 1, 3000, 500);
    let full = store.stats().segments;
    let mut most = 0;
    for seq in 0..3000u64 {
        // All numbers from 1 to 3000, in no order: 7 and 3001 have no common divisor.
        let last = store.settle(1, SeqRange::one((seq + 1) * 7 % 3001));
        wait(&store, last);
        most = most.max(store.stats().segments);
    }
    // Every one of them has taken a group, which is 180 segments.
    assert!(store.stats().log_bytes > 200 * 64 * 1024);
    assert!(most < full + 30, "{most} of {full}");
    assert!(seqs(&store, 1).is_empty());
    eventually(&store, |stats| stats.segments <= 3);
    assert!(store.stats().free_segments <= 3);
}

/// Neither lost silently nor in the way of the others.
#[test]
fn a_damaged_message_stays_where_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = eager(dir.path());
    no_compaction(&mut options);
    let (store, _) = Store::open(options).expect("it opens");
    fill(&store, 1, 500, 500);
    thin_out(&store, 1, 500, 50);
    store.close(Vec::new()).expect("it closes");
    let wanted = body(1, 100, 500);
    let flipped = segments(dir.path()).iter().filter(|path| flip(path, &wanted)).count();
    assert_eq!(flipped, 1);
    let (store, _) = Store::open(eager(dir.path())).expect("it opens");
    eventually(&store, |stats| stats.relocated_messages >= 8 && stats.segments <= 4);
    let batch = read(&store, 1, 0, 100, usize::MAX);
    assert_eq!(batch.damaged, [100]);
    let found: Vec<u64> = batch.messages.iter().map(|message| message.seq).collect();
    assert_eq!(found, (50..=500).step_by(50).filter(|seq| *seq != 100).collect::<Vec<_>>());
    assert!(batch.messages.iter().all(|message| message.payload == body(1, message.seq, 500)));
}

/// Changes one bit of a message, if it stands in this segment.
fn flip(path: &Path, wanted: &[u8]) -> bool {
    let mut file = std::fs::File::options().read(true).write(true).open(path).expect("it opens");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("it can be read");
    let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) else {
        return false;
    };
    file.seek(SeekFrom::Start(at as u64)).expect("it is there");
    file.write_all(&[bytes[at] ^ 1]).expect("it can be written");
    true
}

#[test]
fn no_columns_are_kept_in_memory_for_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(cold(dir.path())).expect("it opens");
    fill(&store, 1, 3000, 300);
    thin_out(&store, 1, 3000, 50);
    store.close(Vec::new()).expect("it closes");
    let (store, _) = Store::open(eager_cold(dir.path())).expect("it opens");
    eventually(&store, |stats| stats.relocated_messages >= 40 && stats.segments <= 4 && stats.index_bytes == 0);
    check(&store, 1, 300, (50..=3000).step_by(50));
}

/// A disk of its own, and where it is mounted.
fn mount(disk: Disk, seed: u64, mode: Mode) -> (FaultyFs, Options, tempfile::TempDir) {
    let root = scratch();
    let fs = FaultyFs::mount(disk, root.path(), "sled", seed).expect("mounted");
    let mut options = mode(root.path());
    options.fs = Arc::new(fs.clone());
    (fs, options, root)
}

#[test]
fn a_power_loss_at_any_call_of_a_compaction() {
    check_a_power_loss_at_any_call_of_a_compaction(eager);
}

#[test]
fn a_power_loss_at_any_call_of_a_compaction_with_a_cold_index() {
    check_a_power_loss_at_any_call_of_a_compaction(eager_cold);
}

fn check_a_power_loss_at_any_call_of_a_compaction(mode: Mode) {
    let (fs, mut options, _root) = mount(Disk::default(), 0, mode);
    no_compaction(&mut options);
    let (store, _) = Store::open(options).expect("it opens");
    fill(&store, 1, 1000, 400);
    thin_out(&store, 1, 1000, 50);
    store.close(Vec::new()).expect("it closes");
    let full = store.stats().segments;
    drop(store);
    let before = fs.unmount().expect("unmounted");
    for call in 1.. {
        let mut finished = false;
        let (fs, options, _root) = mount(before.clone(), call, mode);
        fs.lose_power(When::Nth(call), |_, _| true);
        if let Ok((store, recovered)) = Store::open(options) {
            assert_eq!(recovered.damage, Vec::<String>::new(), "call {call}");
            while !fs.is_off() && store.stats().segments > full / 2 {
                std::thread::yield_now();
            }
            finished = !fs.is_off() && store.stats().relocated_messages >= 15;
        }
        let mut rng = StdRng::seed_from_u64(call);
        let (_fs, options, _root) = mount(fs.cut().after_power_loss(&mut rng), call, small);
        let (store, recovered) = Store::open(options).expect("it opens");
        let serious: Vec<&String> =
            recovered.damage.iter().filter(|line| !line.contains("the sled database in")).collect();
        assert!(serious.is_empty(), "call {call}: {serious:?}");
        check(&store, 1, 400, (50..=1000).step_by(50));
        let queue = recovered.queues.iter().find(|queue| queue.id == 1).expect("it is there");
        assert_eq!((queue.messages, queue.bytes), (20, 20 * 400), "call {call}");
        if finished {
            break;
        }
    }
}

/// The reserve serves it, and what it sets free comes back to the reserve.
#[test]
fn a_full_disk_is_compacted() {
    let (fs, mut options, _first_root) = mount(Disk::default(), 0, eager);
    no_compaction(&mut options);
    options.disk_free_limit = 0;
    let (store, _) = Store::open(options).expect("it opens");
    fill(&store, 1, 2000, 500);
    eventually(&store, |stats| stats.reserve_segments == 4);
    thin_out(&store, 1, 2000, 100);
    store.close(Vec::new()).expect("it closes");
    drop(store);
    let (fs, mut options, _root) = mount(fs.unmount().expect("unmounted"), 1, eager);
    options.disk_free_limit = 1024 * 1024;
    fs.set_capacity(Some(fs.used() + 256 * 1024));
    let (store, _) = Store::open(options).expect("it opens");
    assert!(store.is_disk_low());
    let before = store.stats().segments;
    eventually(&store, |stats| stats.segments <= 6 && stats.relocated_messages >= 15);
    assert!(before > 10);
    eventually(&store, |_| !store.is_disk_low());
    check(&store, 1, 500, (100..=2000).step_by(100));
}
