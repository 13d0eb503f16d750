//! Errors of the file system end the store, once and for good.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use crate::common::{put, seqs, small, wait};
use storage::fs::{DirEntry, File, Fs, OpenMode, RealFs};
use storage::{CloseError, Durable, Store};

/// Which call fails, when it is switched on.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Write,
    Sync,
}

struct FaultyFs(Fault, Arc<AtomicBool>);

struct FaultyFile(Arc<dyn File>, Fault, Arc<AtomicBool>);

impl FaultyFile {
    fn check(&self, fault: Fault) -> io::Result<()> {
        if self.1 == fault && self.2.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is on fire"));
        }
        Ok(())
    }
}

impl Fs for FaultyFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = RealFs.open(path, mode)?;
        Ok(Arc::new(FaultyFile(file, self.0, Arc::clone(&self.1))))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealFs.list(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealFs.remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> bool {
        RealFs.exists(path)
    }
}

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check(Fault::Write)?;
        self.0.write_all_at(buf, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check(Fault::Sync)?;
        self.0.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn links(&self) -> io::Result<u64> {
        self.0.links()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.0.try_lock()
    }
}

struct Never;

impl Durable for Never {
    fn durable(&self) {
        panic!("nothing becomes durable after a failure");
    }
}

#[test]
fn an_error_of_the_log_ends_the_store() {
    for fault in [Fault::Write, Fault::Sync] {
        let dir = tempfile::tempdir().expect("a directory");
        let broken = Arc::new(AtomicBool::new(false));
        let mut options = small(dir.path());
        options.fs = Arc::new(FaultyFs(fault, Arc::clone(&broken)));
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
