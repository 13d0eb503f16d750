//! What goes on while the file of a large message is being written, and what stays behind it.

use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use crate::common::{body, payload, put, range, read_all, seqs, small, wait};
use crate::hooked::{Call, Hooked};
use storage::{Durable, Lsn, Meta, Options, SeqRange, Store, TopologyChange, TxOp};

const LARGE: usize = 40_000;

/// A gate in front of the writes of large files: each asks, and waits for the answer.
struct Gate {
    asked: Receiver<()>,
    answers: Sender<io::Result<()>>,
}

impl Gate {
    /// Waits until a file is about to be written.
    fn wait(&self) {
        self.asked.recv().expect("a file is written");
    }

    fn open(&self) {
        self.answers.send(Ok(())).expect("somebody waits");
    }

    fn refuse(&self) {
        self.answers.send(Err(io::ErrorKind::StorageFull.into())).expect("somebody waits");
    }
}

/// Options whose file system holds each large file at its first write.
fn gated(dir: &Path) -> (Options, Gate) {
    let (ask, asked) = mpsc::channel();
    let (answers, answer) = mpsc::channel::<io::Result<()>>();
    let gate = Mutex::new((ask, answer));
    let mut options = small(dir);
    options.large_bytes = 16 * 1024;
    options.fs = Hooked::new(move |call, path| {
        let body = path.extension().is_some_and(|extension| extension == "body");
        if body && matches!(call, Call::Open(storage::fs::OpenMode::Create)) {
            let (ask, answer) = &*gate.lock().expect("not poisoned");
            let _ = ask.send(());
            // When the test is over, nobody holds it any more.
            return answer.recv().unwrap_or(Ok(()));
        }
        Ok(())
    });
    (options, Gate { asked, answers })
}

fn large(store: &Store, queue: u64, seq: u64) -> Lsn {
    let lsn = store.enqueue(queue, seq, Meta::default(), payload(body(queue, seq, LARGE)));
    store.kick();
    lsn
}

struct Tell(Mutex<Sender<()>>);

impl Durable for Tell {
    fn durable(&self) {
        let _ = self.0.lock().expect("not poisoned").send(());
    }
}

fn told(store: &Store, lsn: Lsn) -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    store.notify_at(lsn, Arc::new(Tell(Mutex::new(sender))));
    receiver
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("large")).expect("it can be listed").count()
}

#[test]
fn the_log_goes_on_and_readers_of_others_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    put(&store, 1, 1, 100);
    let waiting = large(&store, 1, 2);
    gate.wait();
    let settled = store.settle(1, SeqRange::one(1));
    put(&store, 1, 3, 100);
    put(&store, 2, 1, 100);
    // Answered once all that is in the log and in the index.
    assert_eq!(seqs(&store, 2), [1]);
    // But nobody is told that it is durable: what was appended before is not.
    assert!(store.durable() < waiting);
    let (first, second) = (told(&store, waiting), told(&store, settled));
    assert!(first.try_recv().is_err() && second.try_recv().is_err());
    // A read of its queue does not go past it.
    let (sender, receiver) = mpsc::channel();
    store.read(1, 0, 10, usize::MAX, Box::new(move |batch| sender.send(batch).unwrap_or_default()));
    let (sender, listed) = mpsc::channel();
    store.list(1, 0, 10, Box::new(move |listed| sender.send(listed.seqs).unwrap_or_default()));
    assert_eq!(seqs(&store, 2), [1]);
    assert!(receiver.try_recv().is_err() && listed.try_recv().is_err());
    gate.open();
    first.recv().expect("it becomes durable");
    second.recv().expect("it becomes durable");
    let found: Vec<u64> = receiver.recv().expect("answered").messages.iter().map(|message| message.seq).collect();
    assert_eq!(found, [2, 3]);
    assert_eq!(listed.recv().expect("answered"), [2, 3]);
    drop(store);
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(read_all(&store, 1)[0].payload, body(1, 2, LARGE));
    assert_eq!(seqs(&store, 1), [2, 3]);
}

#[test]
fn what_passed_survives_a_crash_and_what_waited_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    let last = put(&store, 1, 1, 100);
    wait(&store, last);
    large(&store, 3, 1);
    gate.wait();
    store.settle(1, SeqRange::one(1));
    // Of one queue nothing is there without what came before it.
    put(&store, 3, 2, 100);
    put(&store, 2, 1, 100);
    assert_eq!(seqs(&store, 2), [1]);
    let copy = tempfile::tempdir().expect("a directory");
    crate::common::copy_dir(&dir.path().join("log"), &copy.path().join("log"));
    std::fs::copy(dir.path().join("key"), copy.path().join("key")).expect("copied");
    let (copied, _) = Store::open(small(copy.path())).expect("it opens");
    assert!(seqs(&copied, 1).is_empty());
    assert_eq!(seqs(&copied, 2), [1]);
    assert!(seqs(&copied, 3).is_empty());
    drop((gate, store));
}

#[test]
fn a_message_that_is_taken_away_needs_no_file() {
    for way in 0..3 {
        let dir = tempfile::tempdir().expect("a directory");
        let (options, gate) = gated(dir.path());
        let (store, _) = Store::open(options).expect("it opens");
        let news = crate::small_disk::news(&store);
        put(&store, 1, 1, 100);
        large(&store, 1, 2);
        gate.wait();
        gate.refuse();
        crate::small_disk::until(&news, true);
        let gone = match way {
            0 => store.settle(1, range(1, 2)),
            1 => store.purge(1, 3, &[]),
            _ => store.change_topology(vec![TopologyChange::DropQueue(1)]),
        };
        // Nothing opens the gate: it may only be asked once more before it is seen that nobody needs the file.
        drop(gate);
        wait(&store, gone);
        crate::small_disk::until(&news, false);
        assert!(seqs(&store, 1).is_empty());
        let last = put(&store, 1, 3, 100);
        wait(&store, last);
        // At most the mark of a checkpoint.
        assert!(store.pending_bytes() < 1000, "{}", store.pending_bytes());
        store.close(Vec::new()).expect("it closes");
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert!(recovered.clean && recovered.damage.is_empty(), "{recovered:?}");
        assert_eq!(files(dir.path()), 0);
        if way < 2 {
            assert_eq!(seqs(&store, 1), [3]);
        }
    }
}

#[test]
fn numbers_of_messages_that_were_left_out_are_not_used_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    large(&store, 1, 7);
    gate.wait();
    let gone = store.settle(1, SeqRange::one(7));
    store.kick();
    gate.open();
    wait(&store, gone);
    store.close(Vec::new()).expect("it closes");
    let (_store, recovered) = Store::open(small(dir.path())).expect("it opens");
    let queue = recovered.queues.first().expect("the queue is known");
    assert!(queue.next_seq == 8 && queue.messages == 0, "{queue:?}");
}

#[test]
fn a_transaction_waits_as_a_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    let last = put(&store, 1, 1, 100);
    wait(&store, last);
    let enqueue =
        |seq, len| TxOp::Enqueue { queue: 1, seq, meta: Meta::default(), payload: payload(body(1, seq, len)) };
    let first = vec![TxOp::Settle { queue: 1, range: range(1, 1) }, enqueue(2, LARGE), enqueue(3, 100)];
    let first = store.transaction(first);
    store.kick();
    gate.wait();
    // Takes away what the first brings: it stays behind, though it needs no file.
    let second = store.transaction(vec![enqueue(4, 100), TxOp::Settle { queue: 1, range: range(3, 3) }]);
    put(&store, 2, 1, 100);
    assert_eq!(seqs(&store, 2), [1]);
    assert!(store.durable() < first);
    let (first, second) = (told(&store, first), told(&store, second));
    assert!(first.try_recv().is_err() && second.try_recv().is_err());
    gate.open();
    first.recv().expect("it becomes durable");
    second.recv().expect("it becomes durable");
    drop(store);
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), [2, 4]);
}

#[test]
fn a_requeue_is_repeated_behind_its_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    let shared = payload(body(0, 0, LARGE));
    for queue in 1..=3 {
        store.enqueue(queue, 1, Meta::default(), shared.clone());
    }
    store.kick();
    gate.wait();
    // The only public way to a requeue is the close, which does not wait for the file before it appends it.
    let closing = {
        let store = Arc::clone(&store);
        std::thread::spawn(move || store.close(vec![(2, vec![SeqRange::one(1)])]))
    };
    gate.open();
    closing.join().expect("it ends").expect("it closes");
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert!(recovered.clean);
    for queue in 1..=3 {
        let messages = read_all(&store, queue);
        assert_eq!(messages[0].payload, body(0, 0, LARGE));
        assert_eq!(messages[0].redelivered, queue == 2);
    }
    // The three share one file.
    assert_eq!(files(dir.path()), 1);
}

#[test]
fn a_delivery_count_waits_with_its_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let (options, gate) = gated(dir.path());
    let (store, _) = Store::open(options).expect("it opens");
    let message = large(&store, 1, 1);
    gate.wait();
    store.requeue(1, &[SeqRange::one(1)], 1);
    store.requeue(1, &[SeqRange::one(1)], 2);
    put(&store, 2, 1, 100);
    // Both have come by while the message waits.
    assert_eq!(seqs(&store, 2), [1]);
    gate.open();
    wait(&store, message);
    let read = read_all(&store, 1);
    assert_eq!((read.len(), read[0].meta.delivery_count, read[0].redelivered), (1, 2, true));
    drop(store);
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(read_all(&store, 1)[0].meta.delivery_count, 2);
}
