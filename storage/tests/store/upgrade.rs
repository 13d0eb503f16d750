//! Data directories of every format version there was open, and hold what was written; one of a newer version is left alone.
//!
//! The directories are in `tests/fixtures`, with a list of what is in them. A change of the format adds those of its version:
//! `WARREN_FIXTURE=v2 cargo test -p warren-storage --test store upgrade`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use storage::{Lsn, Meta, OpenError, Options, QueueId, Recovered, Seq, SeqRange, Store, TopologyChange, TxOp};

use crate::archive;
use crate::common::{payload, range, read_all, small, wait};
use crate::hooked::{Call, Hooked};

/// Payloads from here on have files of their own.
const LARGE: usize = 8 * 1024;

/// What was written, as the list beside a fixture has it.
#[derive(Default)]
struct Model {
    topology: BTreeMap<String, String>,
    messages: BTreeMap<(QueueId, Seq), Message>,
}

struct Message {
    len: usize,
    meta: Meta,
    redelivered: bool,
}

impl Model {
    fn settle(&mut self, queue: QueueId, range: SeqRange) {
        self.messages.retain(|&(id, seq), _| id != queue || !range.contains(seq));
    }

    fn all_redelivered(&mut self) {
        self.messages.values_mut().for_each(|message| message.redelivered = true);
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for (key, value) in &self.topology {
            writeln!(out, "topology {key} {} octets: {}", value.len(), head(value)).expect("a text takes anything");
        }
        for ((queue, seq), Message { len, meta, redelivered }) in &self.messages {
            write!(out, "message {queue:x} {seq}: {len} octets").expect("a text takes anything");
            let Meta { deadline_ms, priority, delivery_count } = meta;
            let deadline = deadline_ms.unwrap_or_default();
            writeln!(
                out,
                ", deadline {deadline}, priority {priority}, deliveries {delivery_count}, redelivered {redelivered}"
            )
            .expect("a text takes anything");
        }
        out
    }
}

fn head(value: &str) -> &str {
    value.get(..20).unwrap_or(value)
}

/// The bytes of every message follow from where it is.
fn body(queue: QueueId, seq: Seq, len: usize) -> Vec<u8> {
    let mut out = format!("{queue:x}/{seq} ").into_bytes();
    out.resize(len, b'.');
    out
}

/// What a store has, in the same form; the bytes of the messages are checked here.
fn text_of(store: &Store, recovered: &Recovered) -> String {
    let mut model = Model::default();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    for (key, value) in &recovered.topology {
        model.topology.insert(text(key), text(value));
    }
    for queue in &recovered.queues {
        let messages = read_all(store, queue.id);
        assert_eq!(messages.len() as u64, queue.messages, "queue {:x}", queue.id);
        assert_eq!(messages.iter().map(|message| message.payload.len() as u64).sum::<u64>(), queue.bytes);
        assert!(messages.iter().all(|message| message.seq < queue.next_seq));
        for message in messages {
            let len = message.payload.len();
            assert_eq!(message.payload, body(queue.id, message.seq, len), "queue {:x} seq {}", queue.id, message.seq);
            let known = Message { len, meta: message.meta, redelivered: message.redelivered };
            model.messages.insert((queue.id, message.seq), known);
        }
    }
    model.text()
}

/// A store that is being filled, and what should be in it.
struct Filling {
    store: Arc<Store>,
    model: Model,
    last: Lsn,
}

impl Filling {
    fn put(&mut self, queue: QueueId, seqs: std::ops::RangeInclusive<Seq>, len: usize, meta: Meta) {
        for seq in seqs {
            self.last = self.store.enqueue(queue, seq, meta, payload(body(queue, seq, len)));
            self.model.messages.insert((queue, seq), Message { len, meta, redelivered: false });
        }
    }

    fn settle(&mut self, queue: QueueId, range: SeqRange) {
        self.last = self.store.settle(queue, range);
        self.model.settle(queue, range);
    }

    fn topology(&mut self, key: &str, value: Option<String>) {
        let bytes = key.as_bytes().to_vec();
        let change = match &value {
            Some(value) => TopologyChange::Put { key: bytes, value: value.clone().into_bytes() },
            None => TopologyChange::Delete { key: bytes },
        };
        self.last = self.store.change_topology(vec![change]);
        match value {
            Some(value) => self.model.topology.insert(key.to_owned(), value),
            None => self.model.topology.remove(key),
        };
    }

    /// Every kind of entry, in queues of their own.
    fn fill(&mut self) {
        let plain = Meta::default();
        let new = |store: &Store| store.new_queue_id();
        for number in 0..5 {
            self.topology(&format!("key {number}"), Some(format!("value {number}")));
        }
        self.topology("key 1", None);
        self.topology("key 2", Some("another value".to_owned()));
        // More than one value of sled takes.
        self.topology("long", Some(".".repeat(40_000)));

        let queue = new(&self.store);
        self.put(queue, 1..=5, 50, plain);
        for priority in 1..=3 {
            self.put(queue, u64::from(priority) * 10..=u64::from(priority) * 10 + 1, 40, Meta { priority, ..plain });
        }
        let deadline_ms = Some(4_102_444_800_000);
        self.put(queue, 100..=102, 0, Meta { deadline_ms, delivery_count: 3, priority: 255 });
        self.settle(queue, SeqRange::one(2));
        self.settle(queue, range(20, 25));

        // Over the border between two chunks.
        let queue = new(&self.store);
        self.put(queue, 1010..=1040, 30, plain);
        self.settle(queue, range(1012, 1030));

        let queue = new(&self.store);
        self.put(queue, 1..=2, LARGE, plain);
        self.put(queue, 3..=3, 3 * LARGE, Meta { delivery_count: 1, ..plain });
        self.settle(queue, SeqRange::one(1));
        // One payload for two places: the second entry refers to the first.
        let shared = payload(body(queue, 5, 60));
        for seq in [4, 5] {
            self.last = self.store.enqueue(queue, seq, plain, Arc::clone(&shared));
        }
        self.model.messages.insert((queue, 5), Message { len: 60, meta: plain, redelivered: false });
        self.settle(queue, SeqRange::one(4));

        let queue = new(&self.store);
        self.put(queue, 1..=20, 40, plain);
        self.last = self.store.purge(queue, 16, &[range(3, 4), SeqRange::one(9)]);
        self.model.messages.retain(|&(id, seq), _| id != queue || seq >= 16 || matches!(seq, 3 | 4 | 9));

        let dropped = new(&self.store);
        self.put(dropped, 1..=3, 40, plain);
        self.last = self.store.change_topology(vec![TopologyChange::DropQueue(dropped)]);
        self.model.settle(dropped, range(0, u64::MAX));

        let enqueue = |seq| TxOp::Enqueue { queue, seq, meta: plain, payload: payload(body(queue, seq, 70)) };
        let settle = TxOp::Settle { queue, range: range(16, 18) };
        self.last = self.store.transaction(vec![enqueue(30), settle, enqueue(31)]);
        self.model.settle(queue, range(16, 18));
        for seq in [30, 31] {
            self.model.messages.insert((queue, seq), Message { len: 70, meta: plain, redelivered: false });
        }
        wait(&self.store, self.last);
    }

    /// Says that some of the messages of the newest queue were delivered, and closes.
    fn close(&mut self) {
        let Some((&(queue, _), _)) = self.model.messages.last_key_value() else { panic!("no messages") };
        let delivered = range(3, 16);
        self.store.close(vec![(queue, vec![delivered])]).expect("it closes");
        for (&(id, seq), message) in &mut self.model.messages {
            message.redelivered |= id == queue && delivered.contains(seq);
        }
    }
}

fn options(dir: &Path) -> Options {
    let mut options = small(dir);
    options.large_bytes = LARGE;
    options.pool_segments = 1;
    options.snapshot_bytes = 1;
    options
}

fn without_snapshots(dir: &Path) -> Options {
    let mut options = options(dir);
    options.snapshot_bytes = u64::MAX;
    options
}

/// Killed, started again, and then stopped cleanly.
fn write_clean(dir: &Path) -> Model {
    let (store, _) = Store::open(without_snapshots(dir)).expect("it opens");
    let mut filling = Filling { store, model: Model::default(), last: Lsn(0) };
    filling.fill();
    let mut model = filling.model;
    drop(filling.store);
    model.all_redelivered();
    let (store, _) = Store::open(without_snapshots(dir)).expect("it opens");
    let mut filling = Filling { store, model, last: Lsn(0) };
    filling.fill();
    filling.close();
    filling.model
}

/// Stopped cleanly, with a snapshot; started again, filled further without a checkpoint, and killed in the middle of a
/// transaction.
fn write_killed(dir: &Path) -> Model {
    let (store, _) = Store::open(options(dir)).expect("it opens");
    let mut filling = Filling { store, model: Model::default(), last: Lsn(0) };
    filling.fill();
    while filling.store.stats().snapshots == 0 {
        filling.topology("key 9", Some("until there is a snapshot".to_owned()));
        wait(&filling.store, filling.last);
    }
    filling.close();
    let model = filling.model;

    // Counts down the writes of the log that still succeed.
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let counted = Arc::clone(&left);
    let log = dir.join("log");
    let mut options = options(dir);
    options.checkpoint_interval = Duration::from_secs(3600);
    options.fs = Hooked::new(move |call, path| {
        let fails = call == Call::Write && path.starts_with(&log) && counted.fetch_sub(1, Ordering::SeqCst) <= 0;
        if fails { Err(io::Error::other("killed")) } else { Ok(()) }
    });
    let (store, _) = Store::open(options).expect("it opens");
    let mut filling = Filling { store, model, last: Lsn(0) };
    filling.fill();
    let (sender, receiver) = mpsc::channel();
    filling.store.on_failure(Box::new(move |_| sender.send(()).expect("somebody waits")));
    // Takes several groups, since it does not fit into one segment.
    let queue = filling.store.new_queue_id();
    let part =
        |seq| TxOp::Enqueue { queue, seq, meta: Meta::default(), payload: payload(body(queue, seq, LARGE - 100)) };
    left.store(1, Ordering::SeqCst);
    filling.store.transaction((1..=15).map(part).collect());
    filling.store.kick();
    receiver.recv().expect("the second group of the transaction fails");
    filling.model.all_redelivered();
    filling.model
}

/// Fills a directory and says with what.
type Write = fn(&Path) -> Model;

const KINDS: [(&str, Write); 2] = [("clean", write_clean), ("killed", write_killed)];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn check(archive: &[u8], list: &str, name: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    archive::unpack(archive, dir.path());
    let (store, recovered) = Store::open(options(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new(), "{name}");
    assert_eq!(recovered.clean, name.contains("clean"), "{name}");
    assert_eq!(text_of(&store, &recovered), list, "{name}");
    // It goes on from there, and still has it all when this version has written it.
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = Store::open(options(dir.path())).expect("it opens again");
    assert_eq!(recovered.damage, Vec::<String>::new(), "{name}");
    assert_eq!(text_of(&store, &recovered), list, "{name}");
}

#[test]
fn directories_of_every_version_open() {
    let mut count = 0;
    for entry in fs::read_dir(fixtures()).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "store") {
            let list = fs::read_to_string(path.with_extension("txt")).expect("the list of what is in it");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            check(&fs::read(&path).expect("the archive"), &list, &name);
            count += 1;
        }
    }
    assert!(count >= KINDS.len(), "{count} fixtures");
}

/// What this version writes, this version reads. With `WARREN_FIXTURE` it is kept, for the versions to come.
#[test]
fn a_fixture_of_this_version_can_be_made() {
    for (kind, write) in KINDS {
        let dir = tempfile::tempdir().expect("a directory");
        let model = write(dir.path());
        let (archive, list) = (archive::pack(dir.path()), model.text());
        assert!(archive.len() < 50_000, "{kind} is too big to be kept: {}", archive.len());
        check(&archive, &list, kind);
        if let Ok(version) = std::env::var("WARREN_FIXTURE") {
            let path = fixtures().join(format!("{version}-{kind}.store"));
            fs::write(&path, archive).expect("the archive can be written");
            fs::write(path.with_extension("txt"), list).expect("the list can be written");
        }
    }
}

/// A directory with what this version writes, and its key.
fn written() -> (tempfile::TempDir, Vec<u8>) {
    let dir = tempfile::tempdir().expect("a directory");
    write_killed(dir.path());
    let key = fs::read(dir.path().join("key")).expect("the key");
    (dir, key)
}

/// Every file with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("the file"));
        }
    }
    found
}

#[track_caller]
fn assert_refused(dir: &Path, file: &Path) {
    let before = contents(dir);
    let Err(error) = Store::open(options(dir)) else { panic!("it opened") };
    let OpenError::Format { path, version, .. } = &error else { panic!("{error}") };
    assert_eq!((path.as_path(), *version), (file, 7));
    let line = error.to_string();
    assert!(line.contains(&file.display().to_string()) && line.contains("version 7"), "{line}");
    assert!(contents(dir) == before, "something was touched");
}

#[test]
fn a_newer_key_file_is_refused() {
    let (dir, mut key) = written();
    key[8] = 7;
    let sum = crc32c::crc32c(&key[..36]);
    key[36..].copy_from_slice(&sum.to_le_bytes());
    for name in ["log/key", "key"] {
        fs::write(dir.path().join(name), &key).expect("the key can be written");
        assert_refused(dir.path(), &dir.path().join(name));
    }
}

#[test]
fn a_newer_snapshot_is_refused() {
    let (dir, _) = written();
    let path = dir.path().join("snapshot");
    let mut snapshot = fs::read(&path).expect("the snapshot");
    snapshot[8] = 7;
    let sum = crc32c::crc32c(&snapshot[..72]);
    snapshot[72..76].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, snapshot).expect("the snapshot can be written");
    assert_refused(dir.path(), &path);
}

/// Whoever opens a directory begins a segment, so the newest one tells which version was the last to write.
#[test]
fn a_newer_log_is_refused() {
    let (dir, key) = written();
    let log = dir.path().join("log");
    let mut segments: Vec<_> = contents(&log).into_iter().filter(|(_, bytes)| bytes.starts_with(b"WARRNGRP")).collect();
    let (newest, mut segment) = segments.pop().expect("a segment");
    segment[8] = 7;
    segment[12..16].fill(0);
    let seed = u32::from_le_bytes(key[16..20].try_into().expect("four bytes"));
    let sum = crc32c::crc32c_append(seed, &segment[..72]);
    segment[12..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(&newest, segment).expect("the segment can be written");
    assert_refused(dir.path(), &newest);
}
