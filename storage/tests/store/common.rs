//! What the tests of the store share: payloads, blocking reads, copies of directories.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use storage::{Durable, Lsn, Meta, Options, Payload, Place, QueueId, ReadBatch, ReadMessage, Seq, SeqRange, Store};

/// What takes longer does not come at all.
const DEADLINE: Duration = Duration::from_secs(120);

/// A payload of given bytes.
pub(crate) struct Bytes(Vec<u8>, Place);

impl Payload for Bytes {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn place(&self) -> &Place {
        &self.1
    }
}

/// A payload of these bytes.
pub(crate) fn payload(bytes: impl Into<Vec<u8>>) -> Arc<dyn Payload> {
    Arc::new(Bytes(bytes.into(), Place::default()))
}

/// Bytes that tell which message they belong to.
pub(crate) fn body(queue: QueueId, seq: Seq, len: usize) -> Vec<u8> {
    let mut out = format!("queue {queue} seq {seq} ").into_bytes();
    let mut x = queue.wrapping_mul(31).wrapping_add(seq);
    while out.len() < len {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len.max(1));
    out
}

/// A directory for files that need not outlive the machine, in memory where there is such a file system.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

/// Runs so many seeds on all processors, or `WARREN_SEEDS` of them, or the one that `WARREN_SEED` names, and names the one
/// that fails.
pub(crate) fn each_seed(seeds: u64, run: impl Fn(u64) + Sync) {
    if let Some(seed) = number("WARREN_SEED") {
        return run(seed);
    }
    let seeds = number("WARREN_SEEDS").unwrap_or(seeds);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failed.load(Ordering::Relaxed) {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
                failed.store(true, Ordering::Relaxed);
                eprintln!("failed with WARREN_SEED={seed}");
                resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Options with small figures, so that a test meets every boundary.
pub(crate) fn small(dir: &Path) -> Options {
    let mut options = Options::new(dir);
    options.segment_bytes = 64 * 1024;
    options.snapshot_bytes = 256 * 1024;
    options.pool_segments = 3;
    options.checkpoint_interval = Duration::from_millis(5);
    options
}

/// How a test opens its stores.
pub(crate) type Mode = fn(&Path) -> Options;

/// As [`small`], with nothing of the index in memory that sled has too.
pub(crate) fn cold(dir: &Path) -> Options {
    let mut options = small(dir);
    options.index_cache_bytes = 0;
    options
}

struct Sender(mpsc::SyncSender<()>);

impl Durable for Sender {
    fn durable(&self) {
        let _ = self.0.try_send(());
    }
}

/// Waits until a position is durable.
pub(crate) fn wait(store: &Store, lsn: Lsn) {
    let (sender, receiver) = mpsc::sync_channel(1);
    store.notify_at(lsn, Arc::new(Sender(sender)));
    receiver.recv_timeout(DEADLINE).expect("the position becomes durable");
    assert!(store.durable() >= lsn);
}

/// Enqueues a message with the usual body.
pub(crate) fn put(store: &Store, queue: QueueId, seq: Seq, len: usize) -> Lsn {
    store.enqueue(queue, seq, Meta::default(), payload(body(queue, seq, len)))
}

/// One read, waited for.
pub(crate) fn read(store: &Store, queue: QueueId, from: Seq, messages: usize, bytes: usize) -> ReadBatch {
    let (sender, receiver) = mpsc::channel();
    store.read(queue, from, messages, bytes, Box::new(move |batch| drop(sender.send(batch))));
    store.kick();
    receiver.recv().expect("the read is answered")
}

/// All messages of a queue.
pub(crate) fn read_all(store: &Store, queue: QueueId) -> Vec<ReadMessage> {
    let mut out = Vec::new();
    let mut from = 0;
    loop {
        let batch = read(store, queue, from, 100, 64 * 1024);
        assert_eq!(batch.damaged, Vec::<Seq>::new());
        out.extend(batch.messages);
        if batch.end {
            return out;
        }
        from = batch.next;
    }
}

/// The sequence numbers of all messages of a queue.
pub(crate) fn seqs(store: &Store, queue: QueueId) -> Vec<Seq> {
    read_all(store, queue).iter().map(|message| message.seq).collect()
}

/// The range of these two ends.
pub(crate) fn range(first: Seq, last: Seq) -> SeqRange {
    SeqRange { first, last }
}

/// Copies a directory with everything in it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the copy can be created");
    for entry in std::fs::read_dir(from).expect("the directory can be read") {
        let entry = entry.expect("the entry can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            // A file that is renamed or removed meanwhile is not part of the copy.
            let _ = std::fs::copy(entry.path(), target);
        }
    }
}
