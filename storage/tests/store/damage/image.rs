//! Data directories that get damaged, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use storage::{Options, QueueId, Seq, SeqRange, Store};

use crate::common::{body, copy_dir, put, scratch, small, wait};

/// Messages by queue and number.
pub(crate) type Message = (QueueId, Seq);

/// How a directory was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Killed, with no checkpoint ever: all there is is the log.
    LogOnly,
    /// Killed, with a snapshot, a checkpoint, and more log since.
    Killed,
    /// Closed.
    Closed,
}

/// A directory, an older copy of it, and what it holds.
pub(crate) struct Image {
    pub(crate) kind: Kind,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) older: tempfile::TempDir,
    /// Length of the messages that are live.
    pub(crate) live: BTreeMap<Message, usize>,
    /// Those that were settled.
    pub(crate) gone: BTreeSet<Message>,
}

/// Options under which nothing happens by itself.
pub(crate) fn quiet(dir: &Path) -> Options {
    let mut options = small(dir);
    options.checkpoint_interval = Duration::from_secs(3600);
    options.large_bytes = 12 * 1024;
    options.reserve_segments = 1;
    options
}

impl Image {
    pub(crate) fn new(kind: Kind) -> Self {
        let (dir, older) = (scratch(), scratch());
        let mut image = Self { kind, dir, older, live: BTreeMap::new(), gone: BTreeSet::new() };
        let mut options = quiet(image.dir.path());
        if kind == Kind::LogOnly {
            image.fill_segments();
            return image;
        }
        options.checkpoint_interval = Duration::from_millis(5);
        let (store, _) = Store::open(options.clone()).expect("it opens");
        image.fill(&store, 1, 120);
        while store.stats().snapshots == 0 {
            let from = image.live.keys().map(|&(_, seq)| seq).max().unwrap_or_default() + 1;
            image.fill(&store, from, 40);
        }
        drop(store);
        copy_dir(image.dir.path(), image.older.path());
        let (store, recovered) = Store::open(options.clone()).expect("it opens again");
        assert_eq!(recovered.damage, Vec::<String>::new());
        let from = recovered.queues.iter().map(|queue| queue.next_seq).max().unwrap_or(1);
        let checkpoints = store.stats().checkpoints;
        image.fill(&store, from, 60);
        if kind == Kind::Closed {
            store.close(Vec::new()).expect("it closes");
            return image;
        }
        while store.stats().checkpoints == checkpoints {
            std::thread::yield_now();
        }
        drop(store);
        // The log goes on behind the last checkpoint.
        let (store, recovered) = Store::open(quiet(image.dir.path())).expect("it opens again");
        let from = recovered.queues.iter().map(|queue| queue.next_seq).max().unwrap_or(1);
        image.fill(&store, from, 60);
        drop(store);
        image
    }

    /// Several segments without a checkpoint: a full segment would make one, so each is that of an opening.
    fn fill_segments(&mut self) {
        for opening in 0..5 {
            let mut options = quiet(self.dir.path());
            options.segment_bytes = 1024 * 1024;
            let (store, recovered) = Store::open(options).expect("it opens");
            assert_eq!(recovered.damage, Vec::<String>::new());
            let from = recovered.queues.iter().map(|queue| queue.next_seq).max().unwrap_or(1);
            self.fill(&store, from, 40);
            assert_eq!(store.stats().checkpoints, 0, "the log is all there is");
            drop(store);
            if opening == 2 {
                copy_dir(self.dir.path(), self.older.path());
            }
        }
    }

    /// So many messages, in groups of different sizes; some large, some settled.
    fn fill(&mut self, store: &Store, from: Seq, count: u64) {
        for seq in from..from + count {
            let queue = 1 + seq % 2;
            let len = match seq % 20 {
                0 => 14_000,
                7 => 6000,
                n => 100 + 90 * n as usize,
            };
            let mut last = put(store, queue, seq, len);
            self.live.insert((queue, seq), len);
            if seq % 3 == 0 && self.live.remove(&(queue, seq - 2)).is_some() {
                last = store.settle(queue, SeqRange::one(seq - 2));
                self.gone.insert((queue, seq - 2));
            }
            if seq % 4 != 1 || seq + 1 == from + count {
                wait(store, last);
            }
        }
    }

    /// A copy to be damaged.
    pub(crate) fn copy(&self) -> tempfile::TempDir {
        let copy = scratch();
        copy_dir(self.dir.path(), copy.path());
        copy
    }

    /// The files below a directory of the image, by their path in it.
    pub(crate) fn files(&self, below: &str) -> Vec<PathBuf> {
        let dir = self.dir.path().join(below);
        let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(self.dir.path()).expect("it is inside").to_path_buf())
            .collect();
        found.sort();
        found
    }

    /// The live messages with a place outside all damage: where the bytes are that must be there.
    pub(crate) fn bytes_of(&self, message: Message) -> Vec<u8> {
        body(message.0, message.1, self.live[&message])
    }
}
