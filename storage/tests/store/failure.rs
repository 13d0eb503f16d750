//! Errors of the file system end the store, once and for good.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, Weak};

use crate::common::{body, payload, put, read, seqs, small, wait};
use crate::hooked::{Call, Hooked};
use storage::fs::OpenMode;
use storage::{CloseError, Durable, Meta, Options, Seq, SeqRange, Store};

/// Options whose file system fails with `errno` (0: some other error) as long as `broken` says so, where `fails` does.
fn failing(
    dir: &std::path::Path,
    broken: &Arc<AtomicBool>,
    errno: i32,
    fails: impl Fn(Call, &std::path::Path) -> bool + Send + Sync + 'static,
) -> Options {
    let broken = Arc::clone(broken);
    let mut options = small(dir);
    options.fs = Hooked::new(move |call, path| match broken.load(Ordering::SeqCst) && fails(call, path) {
        true if errno == 0 => Err(io::Error::other("the disk is on fire")),
        true => Err(io::Error::from_raw_os_error(errno)),
        false => Ok(()),
    });
    options
}

struct Never;

impl Durable for Never {
    fn durable(&self) {
        panic!("nothing becomes durable after a failure");
    }
}

#[test]
fn an_error_of_the_log_ends_the_store() {
    for fault in [Call::Write, Call::Sync] {
        let dir = tempfile::tempdir().expect("a directory");
        let broken = Arc::new(AtomicBool::new(false));
        let options = failing(dir.path(), &broken, 0, move |call, _| call == fault);
        let (store, _) = Store::open(options).expect("it opens");
        let last = put(&store, 1, 1, 100);
        wait(&store, last);
        let (sender, receiver) = mpsc::channel();
        store.on_failure(Box::new(move |reason| drop(sender.send(reason.to_owned()))));
        broken.store(true, Ordering::SeqCst);
        let durable = store.durable();
        let lost = put(&store, 1, 2, 100);
        store.notify_at(lost, Arc::new(Never));
        let reason = receiver.recv().expect("the failure is reported");
        assert!(reason.contains("the disk is on fire"), "{reason}");
        assert!(receiver.try_recv().is_err(), "once");
        // The disk is well again, and the store must not care.
        broken.store(false, Ordering::SeqCst);
        let late = put(&store, 1, 3, 100);
        store.notify_at(late, Arc::new(Never));
        store.kick();
        assert!(matches!(store.close(Vec::new()), Err(CloseError::Failed(_))));
        assert!(store.durable() < lost && store.durable() >= durable);
        drop(store);
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert!(!recovered.clean);
        let found = seqs(&store, 1);
        assert!(found == [1] || found == [1, 2], "{found:?}");
    }
}

#[test]
fn a_panic_in_a_callback_ends_the_store() {
    struct Panics;
    impl Durable for Panics {
        fn durable(&self) {
            panic!("on purpose");
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let (sender, receiver) = mpsc::channel();
    store.on_failure(Box::new(move |reason| drop(sender.send(reason.to_owned()))));
    let lsn = put(&store, 1, 1, 10);
    store.notify_at(lsn, Arc::new(Panics));
    assert!(receiver.recv().expect("the failure is reported").contains("panicked"));
}

/// Errors of the machine, not of the bytes: the messages are as good as before.
#[test]
fn a_read_that_fails_says_nothing_about_the_messages() {
    const EIO: i32 = 5;
    for large in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let broken = Arc::new(AtomicBool::new(false));
        let options = failing(dir.path(), &broken, EIO, |call, _| call == Call::Read);
        let (store, _) = Store::open(options).expect("it opens");
        let len = if large { 20_000 } else { 300 };
        for seq in 1..=5 {
            let last = put(&store, 1, seq, len);
            wait(&store, last);
        }
        broken.store(true, Ordering::SeqCst);
        let batch = read(&store, 1, 0, 100, usize::MAX);
        assert_eq!(batch.damaged, Vec::<Seq>::new(), "whoever trusts this settles what could be read tomorrow");
        assert!(batch.messages.is_empty() && batch.end && batch.next == 6, "{batch:?}");
        broken.store(false, Ordering::SeqCst);
        assert_eq!(seqs(&store, 1), [1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_read_waits_for_a_free_file_descriptor() {
    const EMFILE: i32 = 24;
    for large in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let broken = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU64::new(0));
        let options = {
            let (broken, refused) = (Arc::clone(&broken), Arc::clone(&refused));
            failing(dir.path(), &Arc::clone(&broken), EMFILE, move |call, _| {
                let refuse = call == Call::Open(OpenMode::Read);
                // The second that is refused is the last.
                if refuse && refused.fetch_add(1, Ordering::SeqCst) == 1 {
                    broken.store(false, Ordering::SeqCst);
                }
                refuse
            })
        };
        let (store, _) = Store::open(options).expect("it opens");
        let last = put(&store, 1, 1, if large { 20_000 } else { 300 });
        wait(&store, last);
        broken.store(true, Ordering::SeqCst);
        let batch = read(&store, 1, 0, 100, usize::MAX);
        assert_eq!(batch.damaged, Vec::<Seq>::new());
        assert_eq!(batch.messages.iter().map(|message| message.seq).collect::<Vec<_>>(), [1]);
        assert!(refused.load(Ordering::SeqCst) >= 2);
    }
}

#[test]
fn reads_of_a_store_that_has_stopped_are_let_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(false));
    let options = failing(dir.path(), &broken, 0, |call, _| call == Call::Sync);
    let (store, _) = Store::open(options).expect("it opens");
    let last = put(&store, 1, 1, 10);
    wait(&store, last);
    let (failed, failure) = mpsc::channel();
    store.on_failure(Box::new(move |_| failed.send(()).unwrap_or_default()));
    broken.store(true, Ordering::SeqCst);
    let ask = || {
        let (sender, receiver) = mpsc::channel();
        store.read(1, 0, 10, 1000, Box::new(move |batch| sender.send(batch.messages.len()).unwrap_or_default()));
        receiver
    };
    put(&store, 1, 2, 10);
    let before = ask();
    failure.recv().expect("the store fails");
    // Whether they are answered or not: nobody waits for them for ever.
    assert!(before.recv().is_err());
    let after = ask();
    assert!(after.recv().is_err());
    assert!(store.close(Vec::new()).is_err());
    assert!(ask().recv().is_err());
}

#[test]
fn a_failure_handler_may_close_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(false));
    let options = failing(dir.path(), &broken, 0, |call, _| call == Call::Sync);
    let (store, _) = Store::open(options).expect("it opens");
    let (sender, receiver) = mpsc::channel();
    let weak: Weak<Store> = Arc::downgrade(&store);
    store.on_failure(Box::new(move |_| {
        let closed = weak.upgrade().map(|store| store.close(Vec::new()));
        let _ = sender.send(matches!(closed, Some(Err(CloseError::Failed(_)))));
    }));
    broken.store(true, Ordering::SeqCst);
    put(&store, 1, 1, 10);
    store.kick();
    assert!(receiver.recv().expect("the handler comes to its end"));
}

#[test]
fn a_full_disk_is_asked_for_a_spare_segment_once_per_segment() {
    const ENOSPC: i32 = 28;
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(true));
    let tries = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&tries);
    let mut options = failing(dir.path(), &broken, ENOSPC, move |call, path| {
        let zeroing = call == Call::Write && path.extension().is_some_and(|extension| extension == "tmp");
        let zeroing = zeroing && path.file_stem().is_some_and(|stem| stem.len() == 16);
        count.fetch_add(u64::from(zeroing), Ordering::SeqCst);
        zeroing
    });
    options.segment_bytes = 4 * 1024 * 1024;
    let (store, _) = Store::open(options).expect("it opens");
    // More than half a segment, in groups of two pages.
    for seq in 1..=400 {
        let last = put(&store, 1, seq, 6000);
        wait(&store, last);
    }
    assert_eq!(store.stats().segments, 1);
    // What eats up the last of the space over and over makes the log itself fail.
    assert!(tries.load(Ordering::SeqCst) <= 1, "{tries:?}");
}

#[test]
fn a_dead_segment_that_cannot_be_recycled_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let broken = Arc::new(AtomicBool::new(true));
    let (failed, failures) = mpsc::channel();
    let failed = Mutex::new(failed);
    let mut options = failing(dir.path(), &broken, 0, move |call, path| {
        let retiring = call == Call::Remove && path.extension().is_some_and(|extension| extension == "log");
        if retiring {
            let _ = failed.lock().expect("not poisoned").send(());
        }
        retiring
    });
    // No pool: what is dead is unlinked.
    options.pool_segments = 0;
    let (store, _) = Store::open(options).expect("it opens");
    let mut seq = 0;
    let mut go_on = || {
        seq += 1;
        put(&store, 1, seq, 3000);
        let last = store.settle(1, SeqRange::one(seq));
        wait(&store, last);
    };
    while failures.try_recv().is_err() {
        go_on();
    }
    broken.store(false, Ordering::SeqCst);
    // The oldest is among those that go, in the end.
    let oldest = dir.path().join("log/0000000000000001.log");
    assert!(oldest.exists());
    for _ in 0..2000 {
        if !oldest.exists() {
            return;
        }
        go_on();
    }
    panic!("the segment is forgotten");
}

/// The last owner may let go in a callback while the encoder has the next group ready. Nobody may write to the directory
/// any more once it is free for the next store.
#[test]
fn nothing_is_written_after_the_lock_is_gone() {
    struct Encoded(storage::Place, Mutex<mpsc::Sender<()>>);
    impl storage::Payload for Encoded {
        fn encoded_len(&self) -> usize {
            12_000
        }
        fn encode(&self, out: &mut Vec<u8>) {
            out.extend(body(1, 2, 12_000));
            let _ = self.1.lock().expect("not poisoned").send(());
        }
        fn place(&self) -> &storage::Place {
            &self.0
        }
    }
    struct LetGo(Mutex<Option<Arc<Store>>>, Arc<AtomicBool>, mpsc::Sender<()>);
    impl Durable for LetGo {
        fn durable(&self) {
            let store = self.0.lock().expect("not poisoned").take().expect("called once");
            let (sender, encoded) = mpsc::channel();
            // Enough for a group that waits for nothing but the sync thread.
            for seq in 2..10 {
                let payload = Arc::new(Encoded(storage::Place::default(), Mutex::new(sender.clone())));
                store.enqueue(1, seq, Meta::default(), payload);
            }
            store.kick();
            for _ in 2..10 {
                encoded.recv().expect("all are encoded");
            }
            drop(store);
            self.1.store(true, Ordering::SeqCst);
            let _ = self.2.send(());
        }
    }
    struct Ended(mpsc::Sender<()>, Arc<AtomicBool>, Arc<AtomicBool>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (gone, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (ended, end) = mpsc::channel();
    let watch = Ended(ended, Arc::clone(&gone), Arc::clone(&late));
    let mut options = small(dir.path());
    options.segment_bytes = 1024 * 1024;
    options.large_bytes = usize::MAX;
    // The hook goes when the last thread of the store does.
    options.fs = Hooked::new(move |call, _| {
        if watch.1.load(Ordering::SeqCst) && matches!(call, Call::Write) {
            watch.2.store(true, Ordering::SeqCst);
        }
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    let (sender, receiver) = mpsc::channel();
    let lsn = store.enqueue(1, 1, Meta::default(), payload("first"));
    let weak = Arc::downgrade(&store);
    let waiter = Arc::new(LetGo(Mutex::new(Some(store)), gone, sender));
    let store = weak.upgrade().expect("the waiter owns it");
    // It must not be called in this very call.
    store.notify_at(lsn, waiter);
    drop(store);
    receiver.recv().expect("the callback ends");
    end.recv().expect("the threads end");
    assert!(!late.load(Ordering::SeqCst), "a group was written to a directory that may be somebody else's");
}
