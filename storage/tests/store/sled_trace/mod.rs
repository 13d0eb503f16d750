//! A power loss in what a store and sled really wrote: `trace.bin` has every write, sync, rename and removal of
//! `examples/sled_trace.rs`, as `record` saw them. A seed picks where the power fails and what of the unsynced is left; the
//! store is opened on that, on the real file system.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::fs::faulty::{Disk, FaultyFs};
use storage::fs::{Fs, OpenMode};
use storage::{Options, Store};

use crate::common::{each_seed, put, read_all, scratch, wait};

static TRACE: &[u8] = include_bytes!("trace.bin");
const QUEUES: std::ops::RangeInclusive<u64> = 1..=3;

/// One thing that was done to a file or directory.
enum Record {
    MakeDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    Mark(String),
}

/// Reads what `pack.py` wrote.
struct Packed(&'static [u8]);

impl Packed {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk().expect("more of the trace");
        self.0 = rest;
        *taken
    }

    fn path(&mut self) -> PathBuf {
        let [len] = self.take();
        let (name, rest) = self.0.split_at(len.into());
        self.0 = rest;
        PathBuf::from(std::str::from_utf8(name).expect("a path"))
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.take())
    }

    fn octets(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let count = u32::from_be_bytes(self.take()) as usize;
            if count == 0 {
                return out;
            }
            if self.take() == [1] {
                let [octet] = self.take();
                out.resize(out.len() + count, octet);
            } else {
                let (octets, rest) = self.0.split_at(count);
                out.extend(octets);
                self.0 = rest;
            }
        }
    }

    fn record(&mut self) -> Record {
        match self.take() {
            [1] => Record::MakeDir(self.path()),
            [2] => Record::Create(self.path()),
            [3] => Record::Write(self.path(), self.number(), self.octets()),
            [4] => Record::Truncate(self.path(), self.number()),
            [5] => Record::Sync(self.path()),
            [6] => Record::Rename(self.path(), self.path()),
            [7] => Record::Remove(self.path()),
            [8] => Record::SyncDir(self.path()),
            [9] => Record::Mark(String::from_utf8(self.octets()).expect("text")),
            [other] => panic!("a record of kind {other}"),
        }
    }
}

fn records() -> Vec<Record> {
    let mut packed = Packed(TRACE);
    let mut out = Vec::new();
    while !packed.0.is_empty() {
        out.push(packed.record());
    }
    out
}

/// What was asked for and what was promised, as the marks say.
#[derive(Default)]
struct Known {
    /// All numbers that were used; the same in every queue.
    put: BTreeSet<u64>,
    settled: u64,
    promised_put: u64,
    promised_settled: u64,
}

impl Known {
    fn mark(&mut self, text: &str) {
        let mut words = text.split_whitespace();
        let what = words.next().expect("a word");
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        match (what, numbers.as_slice()) {
            ("asked", [first, last, settled]) => {
                self.put.extend(*first..=*last);
                self.settled = *settled;
            }
            ("promised", [put, settled]) => (self.promised_put, self.promised_settled) = (*put, *settled),
            _ => panic!("a mark: {text}"),
        }
    }

    fn check(&self, store: &Store, topology: &[(Vec<u8>, Vec<u8>)], damage: &[String]) {
        for queue in QUEUES {
            let mut found = BTreeSet::new();
            for message in read_all(store, queue) {
                let seq = message.seq;
                assert!(self.put.contains(&seq) && seq > self.promised_settled, "queue {queue}: {seq}, {damage:?}");
                assert_eq!(message.payload, vec![seq as u8; 40 + (seq * 97 % 900) as usize], "queue {queue}: {seq}");
                found.insert(seq);
            }
            let owed = self.put.iter().filter(|seq| (self.settled + 1..=self.promised_put).contains(seq));
            let missing: Vec<_> = owed.filter(|seq| !found.contains(seq)).collect();
            assert!(missing.is_empty(), "queue {queue}: lost {missing:?}, {damage:?}");
        }
        let settled = topology.iter().find(|(key, _)| key == b"settled");
        let settled = settled.map_or(0, |(_, value)| value.first_chunk().map_or(0, |v| u64::from_le_bytes(*v)));
        for (key, value) in topology.iter().filter(|(key, _)| key.starts_with(b"filler")) {
            assert!(value.len() == 40_000 && value.iter().all(|octet| *octet == value[0]), "{key:?}");
        }
        assert!((self.promised_settled..=self.settled).contains(&settled), "{settled}, {damage:?}");
    }
}

/// Does again what was done, up to a point.
fn replay(records: &[Record]) -> (Disk, Known) {
    let root = scratch();
    let fs = FaultyFs::mount(Disk::default(), root.path(), "nobody", 0).expect("mounted");
    let at = |path: &Path| root.path().join(path);
    let open = |path: &Path, mode| fs.open(&at(path), mode).expect("it is there");
    let mut known = Known::default();
    for record in records {
        let done = match record {
            Record::MakeDir(path) => fs.create_dir_all(&at(path)),
            Record::Create(path) => fs.open(&at(path), OpenMode::Create).map(drop),
            Record::Write(path, offset, octets) => open(path, OpenMode::Write).write_all_at(octets, *offset),
            Record::Truncate(path, len) => open(path, OpenMode::Write).set_len(*len),
            // It covers what was written before it began, and it is recorded where it began.
            Record::Sync(path) => open(path, OpenMode::Read).sync_data(),
            Record::Rename(from, to) => fs.rename(&at(from), &at(to)),
            Record::Remove(path) => fs.remove_file(&at(path)),
            Record::SyncDir(path) => fs.sync_dir(&at(path)),
            Record::Mark(text) => {
                known.mark(text);
                Ok(())
            }
        };
        done.expect("it could be done then");
    }
    (fs.cut(), known)
}

#[test]
fn a_power_loss_in_what_sled_really_wrote_takes_nothing_that_was_promised() {
    let records = records();
    assert!(records.iter().any(|record| matches!(record, Record::Sync(path) if path.ends_with("sled/db"))));
    each_seed(200, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let (disk, known) = replay(&records[..rng.random_range(0..=records.len())]);
        let root = scratch();
        disk.after_power_loss(&mut rng).copy_to(root.path()).expect("copied");
        let mut options = Options::new(root.path().join("data"));
        options.segment_bytes = 64 * 1024;
        let (store, recovered) = Store::open(options.clone()).expect("it opens");
        let harmless = ["the sled database in", "rebuilt from the log alone"];
        let serious: Vec<_> =
            recovered.damage.iter().filter(|line| !harmless.iter().any(|text| line.contains(text))).collect();
        assert_eq!(serious, Vec::<&String>::new());
        known.check(&store, &recovered.topology, &recovered.damage);
        // It goes on, and starts again.
        let next = recovered.queues.iter().map(|queue| queue.next_seq).max().unwrap_or(1);
        wait(&store, put(&store, 9, next, 100));
        store.close(Vec::new()).expect("it closes");
        drop(store);
        let (store, recovered) = Store::open(options).expect("it opens again");
        assert!(recovered.clean && recovered.damage.is_empty(), "{:?}", recovered.damage);
        known.check(&store, &recovered.topology, &recovered.damage);
    });
}
