//! A store whose disk does only what a test lets it do, so that a test decides what is durable and what has been read.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use storage::fs::{DirEntry, File, Fs, OpenMode};
use storage::{Durable, Lsn, OpenError, Options, QueueId, Recovered, SeqRange, Store};
use tempfile::TempDir;

/// Nothing in these tests takes that long: who waits longer waits for an event that was lost.
pub(crate) const LOST: Duration = Duration::from_secs(30);

/// What is held back, and who waits for it.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    syncs_held: bool,
    reads_held: bool,
    reads_waiting: usize,
    /// Stops made so far; the reader has come to this one …
    stops: u64,
    stopped_at: u64,
    /// … and may pass stops up to this one.
    passed: u64,
}

impl Gate {
    /// From now on nothing more becomes durable.
    pub(crate) fn hold_syncs(&self) {
        self.state.lock().syncs_held = true;
    }

    pub(crate) fn release_syncs(&self) {
        self.state.lock().syncs_held = false;
        self.changed.notify_all();
    }

    /// From now on a read of the backlog stops between the choice of its messages and their octets.
    pub(crate) fn hold_reads(&self) {
        self.state.lock().reads_held = true;
    }

    pub(crate) fn release_reads(&self) {
        self.state.lock().reads_held = false;
        self.changed.notify_all();
    }

    /// The reader goes on to stop number `stop`; returns when it is there, or held in a read.
    pub(crate) fn run_to(&self, stop: u64) {
        let mut state = self.state.lock();
        state.passed = stop - 1;
        self.changed.notify_all();
        while state.stopped_at < stop && !(state.reads_held && state.reads_waiting > 0) {
            assert!(!self.changed.wait_for(&mut state, LOST).timed_out(), "the reader is stuck");
        }
    }

    fn stop(&self, stop: u64) {
        let mut state = self.state.lock();
        state.stopped_at = stop;
        self.changed.notify_all();
        while state.passed < stop {
            self.changed.wait(&mut state);
        }
    }

    fn sync(&self) {
        let mut state = self.state.lock();
        while state.syncs_held {
            self.changed.wait(&mut state);
        }
    }

    fn read(&self) {
        let mut state = self.state.lock();
        state.reads_waiting += 1;
        self.changed.notify_all();
        while state.reads_held {
            self.changed.wait(&mut state);
        }
        state.reads_waiting -= 1;
    }
}

struct GatedFs {
    gate: Arc<Gate>,
    inner: Arc<dyn Fs>,
    /// Syncs are passed on. On a real disk they are not: nothing here pulls its plug.
    syncs: bool,
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
    syncs: bool,
    log: bool,
    reader: bool,
}

impl Fs for GatedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let log = path.parent().and_then(Path::file_name).is_some_and(|name| name == "log");
        Ok(Arc::new(GatedFile {
            file: self.inner.open(path, mode)?,
            gate: Arc::clone(&self.gate),
            syncs: self.syncs,
            log,
            reader: log && mode == OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.reader {
            self.gate.read();
        }
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.log {
            self.gate.sync();
        }
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}

/// A store in a directory of its own.
pub(crate) struct Disk {
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    directory: TempDir,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let (disk, _) = Self::open(tempfile::tempdir().expect("temporary directory"));
        disk
    }

    fn open(directory: TempDir) -> (Self, Recovered) {
        let mut options = Options::new(directory.path());
        options.segment_bytes = 8 << 20;
        Self::open_with(options, directory, false).expect("store")
    }

    /// A store with these options; `syncs` says whether their file system is one to be synced.
    pub(crate) fn open_with(
        mut options: Options,
        directory: TempDir,
        syncs: bool,
    ) -> Result<(Self, Recovered), OpenError> {
        let gate = Arc::new(Gate::default());
        options.fs = Arc::new(GatedFs { gate: Arc::clone(&gate), inner: Arc::clone(&options.fs), syncs });
        let (store, recovered) = Store::open(options)?;
        Ok((Self { store, gate, directory }, recovered))
    }

    /// Closes the store, which nobody else must hold any more, and opens it again. `redelivered`: what has been delivered.
    pub(crate) fn reopen(self, redelivered: Vec<(QueueId, Vec<SeqRange>)>) -> (Self, Recovered) {
        let Self { store, gate, directory } = self;
        gate.release_syncs();
        gate.release_reads();
        store.close(redelivered).expect("clean close");
        drop(store);
        Self::open(directory)
    }

    /// Waits until everything appended so far is durable, whatever the reader does.
    pub(crate) fn wait_durable(&self) {
        let waiter = Arc::new(Waiter::default());
        let lsn = self.append();
        self.store.notify_at(lsn, Arc::clone(&waiter) as _);
        let mut done = waiter.done.lock();
        while !*done {
            assert!(!waiter.changed.wait_for(&mut done, LOST).timed_out(), "{lsn:?} never became durable");
        }
    }

    /// Something is appended that becomes durable only after whoever waited for an earlier position has been told.
    fn append(&self) -> Lsn {
        self.store.settle(0, SeqRange::one(1))
    }

    /// Puts a stop behind all that the reader has been asked for so far: see [`Gate::run_to`].
    pub(crate) fn stop_reader(&self) -> u64 {
        self.append();
        let gate = Arc::clone(&self.gate);
        let stop = {
            let mut state = gate.state.lock();
            state.stops += 1;
            state.stops
        };
        self.store.read(0, 0, 1, 1, Box::new(move |_| gate.stop(stop)));
        stop
    }

    /// Waits until everything appended so far is durable and the reader has come to what was asked for after it.
    pub(crate) fn barrier(&self) {
        self.wait_durable();
        let (done, wait) = mpsc::channel();
        let answer = move |_| {
            // The receiver is there until it has got an answer.
            let _ = done.send(());
        };
        self.store.read(0, 0, 1, 1, Box::new(answer));
        wait.recv_timeout(LOST).expect("the store answers a read");
    }
}

/// Opens once a position is durable.
#[derive(Default)]
struct Waiter {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Durable for Waiter {
    fn durable(&self) {
        *self.done.lock() = true;
        self.changed.notify_all();
    }
}

/// The threads of a store must not be joined while they are held.
pub(crate) struct Release<'a>(pub(crate) &'a Gate);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.release_syncs();
        self.0.release_reads();
        let mut state = self.0.state.lock();
        state.passed = state.stops;
        self.0.changed.notify_all();
    }
}
