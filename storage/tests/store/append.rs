//! Appending, reading back, and opening again.

use crate::common::{body, payload, put, range, read, read_all, seqs, wait};
use storage::{Lsn, Meta, OpenError, Options, SeqRange, Store, TopologyChange};

#[test]
fn messages_come_back_as_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens");
    assert!(recovered.clean);
    assert_eq!(recovered.damage, Vec::<String>::new());
    let queue = store.new_queue_id();
    let meta = Meta { deadline_ms: Some(77), priority: 3, delivery_count: 9 };
    store.enqueue(queue, 5, meta, payload(body(queue, 5, 100)));
    put(&store, queue, 6, 1);
    let last = put(&store, queue, 9, 3000);
    wait(&store, last);
    let check = |store: &Store, redelivered: bool| {
        let messages = read_all(store, queue);
        assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [5, 6, 9]);
        assert_eq!(messages[0].meta, meta);
        assert_eq!(messages[1].meta, Meta::default());
        for (message, len) in messages.iter().zip([100, 1, 3000]) {
            assert_eq!(message.payload, body(queue, message.seq, len));
            assert_eq!(message.redelivered, redelivered);
        }
    };
    check(&store, false);
    drop(store);
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens again");
    assert!(!recovered.clean);
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(recovered.queues.len(), 1);
    assert_eq!((recovered.queues[0].id, recovered.queues[0].first, recovered.queues[0].messages), (queue, 5, 3));
    assert_eq!(recovered.queues[0].bytes, 3101);
    assert!(recovered.queues[0].next_seq >= 10);
    assert!(store.new_queue_id() > queue);
    check(&store, true);
}

#[test]
fn settled_messages_stay_away() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    for seq in 1..=20 {
        put(&store, 1, seq, 10);
        put(&store, 2, seq, 10);
    }
    store.settle(1, range(3, 7));
    store.settle(1, SeqRange::one(20));
    let last = store.purge(2, 15, &[range(4, 5)]);
    wait(&store, last);
    let expected = [(1..=2).chain(8..=19).collect::<Vec<_>>(), vec![4, 5, 15, 16, 17, 18, 19, 20]];
    assert_eq!([seqs(&store, 1), seqs(&store, 2)], expected);
    drop(store);
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens again");
    assert_eq!([seqs(&store, 1), seqs(&store, 2)], expected);
}

#[test]
fn reads_stop_at_their_limits() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    for seq in 0..10 {
        put(&store, 1, seq, 1000);
    }
    let batch = read(&store, 1, 0, 4, usize::MAX);
    assert_eq!((batch.messages.len(), batch.next, batch.end), (4, 4, false));
    let batch = read(&store, 1, batch.next, 100, 2100);
    assert_eq!((batch.messages.len(), batch.next, batch.end), (2, 6, false));
    let batch = read(&store, 1, batch.next, 100, 1);
    assert_eq!((batch.messages.len(), batch.next, batch.end), (1, 7, false));
    let batch = read(&store, 1, batch.next, 3, usize::MAX);
    assert_eq!((batch.messages.len(), batch.next, batch.end), (3, 10, true));
    assert!(read(&store, 99, 0, 3, usize::MAX).end);
}

#[test]
fn topology_survives() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    let put_key = |key: &str, value: &str| TopologyChange::Put { key: key.into(), value: value.into() };
    store.change_topology(vec![put_key("a", "1"), put_key("b", "2"), put_key("c", "")]);
    let last = store.change_topology(vec![put_key("a", "3"), TopologyChange::Delete { key: b"b".to_vec() }]);
    wait(&store, last);
    drop(store);
    let (_store, recovered) = Store::open(Options::new(dir.path())).expect("it opens again");
    let expected = [(b"a".to_vec(), b"3".to_vec()), (b"c".to_vec(), Vec::new())];
    assert_eq!(recovered.topology, expected);
}

#[test]
fn a_dropped_queue_stays_dropped() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    put(&store, 1, 1, 10);
    put(&store, 2, 1, 10);
    store.change_topology(vec![TopologyChange::DropQueue(1)]);
    // An entry that was on its way when the queue was dropped.
    let last = put(&store, 1, 2, 10);
    wait(&store, last);
    assert!(seqs(&store, 1).is_empty());
    drop(store);
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens again");
    assert_eq!(recovered.queues.iter().map(|queue| queue.id).collect::<Vec<_>>(), [2]);
    assert!(seqs(&store, 1).is_empty());
}

#[test]
fn a_clean_stop_keeps_exact_flags() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    for seq in 1..=5 {
        put(&store, 1, seq, 10);
    }
    store.close(vec![(1, vec![range(2, 3), range(5, 900)])]).expect("it closes");
    assert!(store.close(Vec::new()).is_err());
    let flags = |store: &Store| read_all(store, 1).iter().map(|m| m.redelivered).collect::<Vec<_>>();
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens again");
    assert!(recovered.clean);
    assert_eq!(recovered.queues[0].next_seq, 6);
    assert_eq!(flags(&store), [false, true, true, false, true]);
    store.close(Vec::new()).expect("it closes again");
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens a third time");
    assert!(recovered.clean);
    assert_eq!(flags(&store), [false, true, true, false, true]);
    drop(store);
    let (store, recovered) = Store::open(Options::new(dir.path())).expect("it opens after a crash");
    assert!(!recovered.clean);
    assert_eq!(flags(&store), [true; 5]);
}

#[test]
fn a_purge_keeps_what_it_is_told_to_in_any_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    for seq in 1..=3000 {
        put(&store, 1, seq, 10);
    }
    // Not in order, one inside another, touching, empty, beyond the purge.
    let kept =
        [range(2000, 2003), range(5, 9), range(6, 7), range(10, 10), range(40, 30), range(9, 12), range(2999, 4000)];
    let last = store.purge(1, 2999, &kept);
    wait(&store, last);
    let expected: Vec<_> = (5..=12).chain(2000..=2003).chain(2999..=3000).collect();
    assert_eq!(seqs(&store, 1), expected);
    drop(store);
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens again");
    assert_eq!(seqs(&store, 1), expected);
}

#[test]
fn a_second_store_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    let Err(error) = Store::open(Options::new(dir.path())) else { panic!("it must not open twice") };
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    drop(store);
    assert!(Store::open(Options::new(dir.path())).is_ok());
}

#[test]
fn a_directory_that_cannot_be_used_is_one_clear_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("file");
    std::fs::write(&path, "").expect("a file");
    let Err(error) = Store::open(Options::new(&path)) else { panic!("a file is no data directory") };
    let line = error.to_string();
    assert!(line.contains("file") && !line.contains('\n'), "{line}");
}

#[test]
fn lsn_zero_is_always_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    assert!(store.durable() >= Lsn(0));
    wait(&store, Lsn(0));
    assert_eq!(store.pending_bytes(), 0);
}
