//! Segments are used again, and nothing of their earlier life shows.

use crate::common::{Mode, body, cold, payload, put, range, read_all, seqs, small, wait};
use crate::crash::segments;
use crate::hooked::{Call, Hooked};
use storage::{Meta, SeqRange, Store};

#[test]
fn a_steady_queue_goes_round_in_the_pool() {
    check_a_steady_queue_goes_round_in_the_pool(small);
}

#[test]
fn a_steady_queue_goes_round_in_the_pool_with_a_cold_index() {
    check_a_steady_queue_goes_round_in_the_pool(cold);
}

fn check_a_steady_queue_goes_round_in_the_pool(small: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let mut seq = 0;
    // The oldest message stays, and pins its segment.
    let last = put(&store, 2, 1, 100);
    wait(&store, last);
    for _ in 0..400 {
        let first = seq + 1;
        for _ in 0..20 {
            seq += 1;
            put(&store, 1, seq, 500);
        }
        let last = store.settle(1, range(first, seq));
        wait(&store, last);
    }
    put(&store, 1, seq + 1, 500);
    let last = put(&store, 1, seq + 2, 500);
    wait(&store, last);
    let written = store.stats().log_bytes;
    assert!(written > 60 * 64 * 1024, "{written}");
    assert_eq!(seqs(&store, 1), [seq + 1, seq + 2]);
    assert_eq!(seqs(&store, 2), [1]);
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), [seq + 1, seq + 2]);
    assert_eq!(seqs(&store, 2), [1]);
    // Most of those 60 and more segments were used again.
    let count = segments(dir.path()).len();
    assert!(count < 40, "{count} segments");
}

#[test]
fn a_crash_in_recycled_segments() {
    check_a_crash_in_recycled_segments(small);
}

#[test]
fn a_crash_in_recycled_segments_with_a_cold_index() {
    check_a_crash_in_recycled_segments(cold);
}

fn check_a_crash_in_recycled_segments(small: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut seq = 0u64;
    let mut alive = std::collections::VecDeque::new();
    for round in 0..8 {
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert_eq!(recovered.damage, Vec::<String>::new(), "round {round}");
        assert_eq!(seqs(&store, 1), alive.iter().copied().collect::<Vec<_>>(), "round {round}");
        seq = recovered.queues.first().map_or(seq, |queue| queue.next_seq);
        for _ in 0..60 {
            for _ in 0..20 {
                put(&store, 1, seq, 600);
                alive.push_back(seq);
                seq += 1;
            }
            while alive.len() > 50 {
                let one = alive.pop_front().expect("there are more than 50");
                store.settle(1, SeqRange::one(one));
            }
            let last = put(&store, 9, seq, 1);
            let last = last.max(store.settle(9, SeqRange::one(seq)));
            wait(&store, last);
        }
        for message in read_all(&store, 1) {
            assert_eq!(message.payload, body(1, message.seq, 600));
        }
    }
}

#[test]
fn a_publish_to_many_queues_is_stored_once() {
    check_a_publish_to_many_queues_is_stored_once(small);
}

#[test]
fn a_publish_to_many_queues_is_stored_once_with_a_cold_index() {
    check_a_publish_to_many_queues_is_stored_once(cold);
}

fn check_a_publish_to_many_queues_is_stored_once(small: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    options.segment_bytes = 1024 * 1024;
    let (store, _) = Store::open(options.clone()).expect("it opens");
    let mut last = Default::default();
    for seq in 1..=20u64 {
        let shared = payload(body(0, seq, 2000));
        for queue in 1..=50 {
            last = store.enqueue(queue, seq, Meta { priority: queue as u8, ..Meta::default() }, shared.clone());
        }
    }
    wait(&store, last);
    let written = store.stats().log_bytes;
    assert!(written < 20 * (2000 + 50 * 64) * 2, "{written}");
    let check = |store: &Store, from: u64| {
        for queue in 1..=50 {
            let messages = read_all(store, queue);
            assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), (from..=20).collect::<Vec<_>>());
            for message in messages {
                assert_eq!(message.payload, body(0, message.seq, 2000));
                assert_eq!(message.meta.priority, queue as u8);
            }
        }
    };
    check(&store, 1);
    // The queue that carried the bodies is emptied; the others still need them.
    let last = store.settle(1, range(1, 20));
    wait(&store, last);
    for queue in 2..=50 {
        store.settle(queue, range(1, 4));
    }
    for seq in 5..=20u64 {
        store.enqueue(1, 100 + seq, Meta::default(), payload(body(0, seq, 2000)));
    }
    let last = store.settle(1, range(0, 1000));
    wait(&store, last);
    drop(store);
    let (store, _) = Store::open(options).expect("it opens");
    for queue in 2..=50 {
        let messages = read_all(&store, queue);
        assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), (5..=20).collect::<Vec<_>>());
        assert!(messages.iter().all(|message| message.payload == body(0, message.seq, 2000)));
    }
    assert!(seqs(&store, 1).is_empty());
}

#[test]
fn a_message_read_back_goes_to_another_queue() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    struct Again(storage::ReadMessage);
    impl storage::Payload for Again {
        fn encoded_len(&self) -> usize {
            self.0.payload.len()
        }
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(&self.0.payload);
        }
        fn place(&self) -> &storage::Place {
            &self.0.place
        }
    }
    for round in 0..100u64 {
        let last = put(&store, 1, round, 1500);
        wait(&store, last);
        let message = read_all(&store, 1).pop().expect("it is there");
        store.settle(1, SeqRange::one(round));
        let last = store.enqueue(2, round, Meta::default(), std::sync::Arc::new(Again(message)));
        wait(&store, last);
    }
    drop(store);
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let messages = read_all(&store, 2);
    assert_eq!(messages.len(), 100);
    assert!(messages.iter().all(|message| message.payload == body(1, message.seq, 1500)));
}

#[test]
fn an_idle_store_writes_next_to_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(storage::Options::new(dir.path())).expect("it opens");
    let last = put(&store, 1, 1, 100);
    wait(&store, last);
    store.close(Vec::new()).expect("it closes");
    assert!(store.stats().log_bytes <= 16 * 1024);
}

/// The space of an unlinked segment comes back when the last handle goes.
#[test]
fn an_idle_reader_holds_no_segment_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let segment = dir.path().join("log/0000000000000001.log");
    options.fs = Hooked::new(move |call, path| {
        if path == segment && matches!(call, Call::Open(_) | Call::Close) {
            sender.lock().expect("not poisoned").send(call).unwrap_or_default();
        }
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    for seq in 1..=50 {
        let last = put(&store, 1, seq, 3000);
        wait(&store, last);
    }
    assert_eq!(seqs(&store, 1).len(), 50);
    let mut open = 1;
    assert!(matches!(receiver.recv(), Ok(Call::Open(_))));
    while open > 0 {
        match receiver.recv().expect("it is closed") {
            Call::Close => open -= 1,
            _ => open += 1,
        }
    }
}
