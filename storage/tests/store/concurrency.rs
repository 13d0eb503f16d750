//! Many appenders and waiters at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use crate::common::{put, seqs, small, wait};
use storage::{Durable, Store};

struct Counter(AtomicU64, mpsc::Sender<()>);

impl Durable for Counter {
    fn durable(&self) {
        assert_eq!(self.0.fetch_add(1, Ordering::SeqCst), 0, "called twice");
        let _ = self.1.send(());
    }
}

#[test]
fn no_wake_up_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let workers: Vec<_> = (1..=4u64)
        .map(|queue| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let (sender, receiver) = mpsc::channel();
                let mut expected = 0;
                for seq in 1..=2000 {
                    let lsn = put(&store, queue, seq, 50);
                    if seq % (queue * 3) == 0 {
                        store.notify_at(lsn, Arc::new(Counter(AtomicU64::new(0), sender.clone())));
                        expected += 1;
                    }
                    if seq % 500 == 0 {
                        // All that were asked for so far arrive without any further call.
                        while expected > 0 {
                            receiver.recv().expect("a wake-up");
                            expected -= 1;
                        }
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("no worker fails");
    }
    for queue in 1..=4 {
        assert_eq!(seqs(&store, queue), (1..=2000).collect::<Vec<_>>());
    }
}

#[test]
fn a_kick_alone_commits() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(storage::Options::new(dir.path())).expect("it opens");
    for seq in 1..=200 {
        let lsn = put(&store, 1, seq, 10);
        store.kick();
        while store.durable() < lsn {
            std::thread::yield_now();
        }
    }
}

#[test]
fn readers_and_recycling_side_by_side() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let writer = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || {
            for seq in 1..=3000u64 {
                let last = put(&store, 1, seq, 700);
                if seq > 100 {
                    store.settle(1, storage::SeqRange::one(seq - 100));
                }
                if seq % 20 == 0 {
                    wait(&store, last);
                }
            }
        })
    };
    while !writer.is_finished() {
        for message in crate::common::read_all(&store, 1) {
            assert_eq!(message.payload, crate::common::body(1, message.seq, 700));
        }
    }
    writer.join().expect("the writer ends");
}

#[test]
fn the_last_owner_may_let_go_in_a_callback() {
    struct Last(std::sync::Mutex<Option<Arc<Store>>>, mpsc::Sender<()>);
    impl Durable for Last {
        fn durable(&self) {
            drop(self.0.lock().expect("not poisoned").take());
            let _ = self.1.send(());
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let (sender, receiver) = mpsc::channel();
    let lsn = put(&store, 1, 1, 10);
    let weak = Arc::downgrade(&store);
    let last = Arc::new(Last(std::sync::Mutex::new(Some(Arc::clone(&store))), sender));
    drop(store);
    let store = weak.upgrade().expect("the waiter owns it");
    store.notify_at(lsn, last);
    drop(store);
    receiver.recv().expect("it was called");
    let (store, _) = Store::open(small(dir.path())).expect("it opens again");
    assert_eq!(seqs(&store, 1), [1]);
}

/// A close does not wait for those who still publish; what it confirms to them is there all the same.
#[test]
fn what_is_confirmed_during_a_close_is_kept() {
    struct Told(mpsc::Sender<()>);
    impl Durable for Told {
        fn durable(&self) {
            let _ = self.0.send(());
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let mut first = 1;
    for round in 0..10 {
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert_eq!(recovered.damage, Vec::<String>::new());
        first = recovered.queues.first().map_or(first, |queue| queue.next_seq);
        let (progress, many) = mpsc::channel();
        let publisher = {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for seq in first.. {
                    let (sender, receiver) = mpsc::channel();
                    let lsn = put(&store, 1, seq, 50);
                    store.notify_at(lsn, Arc::new(Told(sender)));
                    if receiver.recv().is_err() {
                        return seq - 1;
                    }
                    let _ = progress.send(());
                }
                first
            })
        };
        for _ in 0..20 {
            many.recv().expect("the publisher goes on");
        }
        let _ = store.close(Vec::new());
        let confirmed = publisher.join().expect("the publisher ends");
        drop(store);
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens again");
        let found = seqs(&store, 1);
        assert_eq!(recovered.damage, Vec::<String>::new());
        let lost: Vec<_> = (first..=confirmed).filter(|seq| found.binary_search(seq).is_err()).collect();
        assert!(lost.is_empty(), "round {round}: confirmed and lost: {lost:?}");
        let last = store.settle(1, storage::SeqRange { first: 0, last: u64::MAX });
        wait(&store, last);
    }
}

/// Transactions with nothing else going on, and from several threads at once: each commit is told of.
#[test]
fn every_commit_is_told_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    for threads in [1u64, 4] {
        let workers: Vec<_> = (1..=threads)
            .map(|queue| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    for seq in 1..=300 {
                        let payload = crate::common::payload(crate::common::body(queue, seq, 100));
                        let meta = storage::Meta::default();
                        let enqueue = storage::TxOp::Enqueue { queue, seq, meta, payload };
                        let settle = storage::TxOp::Settle { queue, range: storage::SeqRange::one(seq) };
                        let lsn = store.transaction(vec![enqueue, settle]);
                        wait(&store, lsn);
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no worker fails");
        }
    }
}
