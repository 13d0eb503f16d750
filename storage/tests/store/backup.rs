//! Backups of a store that goes on, and stores that are opened on them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use storage::fs::OpenMode;
use storage::{BackupError, BackupReport, Lsn, OpenError, Options, Seq, SeqRange, Store};

use crate::common::{body, put, range, read_all, seqs, small, wait};
use crate::crash::segments;
use crate::hooked::{Call, Hooked};

const LARGE: usize = 8 * 1024;

fn options(dir: &Path) -> Options {
    let mut options = small(dir);
    options.large_bytes = LARGE;
    options
}

fn backup(store: &Store, dest: &Path) -> BackupReport {
    store.backup(dest, &|| true).expect("a backup")
}

/// Opens a directory that must be whole, and checks the bytes of all its messages.
fn open_whole(dir: &Path) -> Arc<Store> {
    let (store, recovered) = Store::open(options(dir)).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    for queue in recovered.queues {
        for message in read_all(&store, queue.id) {
            assert_eq!(message.payload, body(queue.id, message.seq, message.payload.len()));
        }
    }
    store
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("the directory");
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
}

/// Publishers and consumers go on while backups are made; each backup has what was durable when it was asked for, and
/// nothing that was settled then.
#[test]
fn backups_under_load_hold_what_was_promised() {
    const QUEUES: u64 = 3;
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let (store, _) = Store::open(options(&data)).expect("it opens");
    let stop = AtomicBool::new(false);
    let durable: [AtomicU64; QUEUES as usize] = Default::default();
    let settling: [AtomicU64; QUEUES as usize] = Default::default();
    let settled: [AtomicU64; QUEUES as usize] = Default::default();
    let mut restored = Vec::new();
    thread::scope(|scope| {
        for queue in 0..QUEUES {
            let (store, stop, at) = (&store, &stop, queue as usize);
            let (durable, settling, settled) = (&durable[at], &settling[at], &settled[at]);
            scope.spawn(move || {
                let mut seq = 0;
                while !stop.load(Ordering::SeqCst) {
                    let mut last = Lsn(0);
                    for _ in 0..20 {
                        seq += 1;
                        let len = if seq % 50 == 0 { LARGE + 5 } else { 20 + (seq * 37 % 700) as usize };
                        last = put(store, queue, seq, len);
                    }
                    wait(store, last);
                    durable.store(seq, Ordering::SeqCst);
                    // All but every hundredth message go, so that segments stay pinned for a while.
                    let to = seq.saturating_sub(200 + 100 * queue);
                    settling.store(to, Ordering::SeqCst);
                    let from = settled.load(Ordering::SeqCst) + 1;
                    for seq in (from..=to).filter(|seq| seq % 100 != 0) {
                        last = store.settle(queue, SeqRange::one(seq));
                    }
                    wait(store, last);
                    settled.store(to, Ordering::SeqCst);
                }
            });
        }
        for number in 0..4 {
            // Some load in between.
            let recycled = store.stats().checkpoints + 5;
            while store.stats().checkpoints < recycled {
                thread::yield_now();
            }
            let before: Vec<_> = (0..QUEUES as usize)
                .map(|at| (durable[at].load(Ordering::SeqCst), settled[at].load(Ordering::SeqCst)))
                .collect();
            let dest = home.path().join(format!("backup-{number}"));
            let report = backup(&store, &dest);
            assert!(report.segments > 0 && report.copied_bytes > 0, "{report:?}");
            let settling: Vec<_> = settling.iter().map(|settling| settling.load(Ordering::SeqCst)).collect();
            restored.push((dest, before, settling));
        }
        stop.store(true, Ordering::SeqCst);
    });
    for (dest, before, settling) in restored {
        let copy = open_whole(&dest);
        for queue in 0..QUEUES {
            let (durable, settled) = before[queue as usize];
            let there: BTreeSet<Seq> = seqs(&copy, queue).into_iter().collect();
            for seq in 1..=durable {
                let stays = seq % 100 == 0 || seq > settling[queue as usize];
                assert!(!stays || there.contains(&seq), "{}: {queue}/{seq} is missing", dest.display());
                let gone = seq % 100 != 0 && seq <= settled;
                assert!(!gone || !there.contains(&seq), "{}: {queue}/{seq} is back", dest.display());
            }
            // What came later is there without gaps.
            let newest = there.last().copied().unwrap_or_default();
            assert!((durable..=newest).all(|seq| seq == 0 || there.contains(&seq)), "{}: {queue}", dest.display());
            // The copy is a store as any other.
            let last = put(&copy, queue, newest + 100_000, 30);
            wait(&copy, last);
        }
        copy.close(Vec::new()).expect("it closes");
        drop(open_whole(&dest));
        assert!(!dest.join("backup").exists(), "after the first start it is a data directory");
    }
    drop(store);
    drop(open_whole(&data));
}

/// A store and its copy share files; neither may write to what the other reads.
#[test]
fn a_store_and_its_copy_do_not_disturb_each_other() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, dest) = (home.path().join("data"), home.path().join("copy"));
    let (store, _) = Store::open(options(&data)).expect("it opens");
    let fill = |store: &Store, seqs: std::ops::RangeInclusive<Seq>| {
        let mut last = Lsn(0);
        for seq in seqs {
            last = put(store, 1, seq, if seq % 40 == 0 { LARGE } else { 900 });
        }
        wait(store, last);
    };
    fill(&store, 1..=400);
    let report = backup(&store, &dest);
    assert!(report.linked_bytes > 0 && report.large_files == 10, "{report:?}");
    let shared = |dir: &Path| {
        let all = [files(&dir.join("log")), files(&dir.join("large"))].concat();
        all.iter().filter(|path| fs::metadata(path).expect("metadata").nlink() > 1).count()
    };
    assert_eq!(shared(&dest), report.segments - 1 + report.large_files, "all but the segment that was being written");
    let copy = open_whole(&dest);
    // Both go on, and recycle what they can.
    for (store, from) in [(&store, 1000), (&copy, 2000)] {
        wait(store, store.settle(1, range(1, 200)));
        fill(store, from..=from + 400);
    }
    let expect =
        |store: &Store, from| assert_eq!(seqs(store, 1), (201..=400).chain(from..=from + 400).collect::<Vec<_>>());
    expect(&store, 1000);
    expect(&copy, 2000);
    for (store, dir, from) in [(store, &data, 1000), (copy, &dest, 2000)] {
        drop(store);
        let store = open_whole(dir);
        expect(&store, from);
    }
    // A free file is written to again.
    for free in files(&data.join("log")).iter().chain(&files(&dest.join("log"))) {
        let is_free = free.file_name().is_some_and(|name| name.to_string_lossy().starts_with("free-"));
        assert!(!is_free || fs::metadata(free).expect("metadata").nlink() == 1, "{}", free.display());
    }
}

/// Recovery cuts the log where it ends. When the segment that was copied is gone, that is in one that is shared.
#[test]
fn recovery_does_not_cut_a_shared_segment() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, dest) = (home.path().join("data"), home.path().join("copy"));
    let mut options = options(&data);
    options.checkpoint_interval = std::time::Duration::from_secs(3600);
    options.large_bytes = 2 * LARGE;
    let (store, _) = Store::open(options).expect("it opens");
    // Between the snapshot and the end of the backup several segments are filled, the last of them not to its end.
    let filled = AtomicBool::new(false);
    let outcome = store.backup(&dest, &|| {
        let mut seq = 0;
        while dest.join("snapshot").exists() && !filled.load(Ordering::SeqCst) {
            seq += 1;
            wait(&store, put(&store, 1, seq, if seq % 3 == 0 { 15_000 } else { 16_300 }));
            let all = segments(&data);
            let last = all.len().checked_sub(2).map(|at| fs::read(&all[at]).expect("a segment"));
            let has_room = last.is_some_and(|bytes| bytes.iter().rev().take(4096).all(|&byte| byte == 0));
            filled.store(all.len() > 3 && has_room, Ordering::SeqCst);
        }
        true
    });
    outcome.expect("a backup");
    let mut copied = segments(&dest);
    let active = copied.pop().expect("a segment");
    let last = copied.pop().expect("two segments");
    let original = data.join("log").join(last.file_name().expect("a name"));
    let before = fs::read(&original).expect("the segment");
    assert_eq!(fs::metadata(&last).expect("metadata").ino(), fs::metadata(&original).expect("metadata").ino());
    fs::remove_file(active).expect("removed");
    let (copy, _) = Store::open(self::options(&dest)).expect("it opens");
    assert!(fs::metadata(&last).expect("metadata").len() < before.len() as u64, "it was cut");
    drop(copy);
    assert!(fs::read(&original).expect("the segment") == before, "but not for both");
}

#[test]
fn space_comes_back_after_a_backup() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let (store, _) = Store::open(options(&data)).expect("it opens");
    let mut last = Lsn(0);
    for seq in 1..=500 {
        last = put(&store, 1, seq, if seq % 100 == 0 { LARGE } else { 1000 });
    }
    wait(&store, last);
    // The large files would go while the backup is made, but for the backup.
    let settled = AtomicBool::new(false);
    let report = store.backup(&home.path().join("copy"), &|| {
        if !settled.swap(true, Ordering::SeqCst) {
            wait(&store, store.settle(1, range(1, 500)));
            let done = store.stats().checkpoints + 2;
            while store.stats().checkpoints < done {
                wait(&store, put(&store, 2, store.stats().checkpoints, 10));
            }
        }
        true
    });
    let report = report.expect("a backup");
    assert!(settled.load(Ordering::SeqCst), "{report:?}");
    fs::remove_dir_all(home.path().join("copy")).expect("removed");
    let mut seq = 1_000_000;
    while !files(&data.join("large")).is_empty() || segments(&data).len() > 12 {
        seq += 1;
        wait(&store, put(&store, 3, seq, 2000));
        wait(&store, store.settle(3, SeqRange::one(seq)));
    }
}

const FILLED: Seq = 40;

fn filled(options: Options) -> Arc<Store> {
    let (store, _) = Store::open(options).expect("it opens");
    let mut last = Lsn(0);
    for seq in 1..=FILLED {
        last = put(&store, 1, seq, if seq % 20 == 0 { LARGE } else { 2000 });
    }
    wait(&store, last);
    store
}

/// Wherever it fails or is cancelled: nothing is left of it, and the store and the next backup are none the worse.
#[test]
fn a_backup_that_fails_leaves_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, dest) = (home.path().join("data"), home.path().join("copy"));
    let (left, inside) = (Arc::new(AtomicU64::new(u64::MAX)), dest.clone());
    let counted = Arc::clone(&left);
    let mut options = options(&data);
    options.fs = Hooked::new(move |call, path| {
        let counts =
            path.starts_with(&inside) && !matches!(call, Call::Close | Call::Remove | Call::Open(OpenMode::Read));
        let fails = counts && counted.fetch_sub(1, Ordering::SeqCst) == 0;
        if fails { Err(io::Error::other("the disk of the backup")) } else { Ok(()) }
    });
    let store = filled(options);
    let mut failures = 0;
    loop {
        left.store(failures, Ordering::SeqCst);
        match store.backup(&dest, &|| true) {
            Ok(_) => break,
            Err(BackupError::Io { source, .. }) => {
                assert_eq!(source.to_string(), "the disk of the backup");
                failures += 1;
            }
            // The name that makes it whole may be there, and whoever failed behind that has to say so too.
            Err(other) => panic!("{other}"),
        }
        assert!(!dest.exists(), "{failures}: {:?}", files(&dest));
        wait(&store, put(&store, 2, failures, 100));
    }
    assert!(failures > 20, "{failures}");
    let copy = open_whole(&dest);
    assert_eq!(seqs(&copy, 2), (1..=failures).collect::<Vec<_>>());
    fs::create_dir(home.path().join("empty")).expect("created");
    for dest in [home.path().join("new"), home.path().join("empty")] {
        let existed = dest.exists();
        let mut asked = 0;
        loop {
            let (count, limit) = (AtomicU64::new(0), asked);
            match store.backup(&dest, &|| count.fetch_add(1, Ordering::SeqCst) != limit) {
                Ok(_) => break,
                Err(BackupError::Cancelled) => asked += 1,
                Err(other) => panic!("{other}"),
            }
            assert_eq!(dest.exists(), existed);
            assert!(!existed || fs::read_dir(&dest).expect("it is there").next().is_none());
        }
        assert!(asked > 5, "{asked}");
        drop(open_whole(&dest));
    }
}

#[test]
fn a_destination_must_be_free() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let store = filled(options(&data));
    let full = home.path().join("full");
    fs::create_dir(&full).expect("created");
    fs::write(full.join("mine"), "mine").expect("written");
    let refused = |dest: &Path, reason: &str| match store.backup(dest, &|| true) {
        Err(error @ BackupError::Destination { .. }) => {
            let line = error.to_string();
            assert!(line.contains(reason) && line.contains(&dest.display().to_string()), "{line}");
        }
        other => panic!("{other:?}"),
    };
    refused(&full, "is not empty");
    refused(&home.path().join("no/such"), "the directory above it is missing");
    refused(&data.join("inside"), "is inside the data directory");
    assert!(!data.join("inside").exists());
    assert!(matches!(store.backup(&full.join("mine"), &|| true), Err(BackupError::Io { .. })));
    assert_eq!(fs::read_to_string(full.join("mine")).expect("it is there"), "mine");
}

#[test]
fn one_backup_at_a_time() {
    let home = tempfile::tempdir().expect("a directory");
    let store = filled(options(&home.path().join("data")));
    let busy = AtomicBool::new(false);
    let outcome = store.backup(&home.path().join("first"), &|| {
        let second = store.backup(&home.path().join("second"), &|| true);
        busy.store(matches!(second, Err(BackupError::Busy)), Ordering::SeqCst);
        true
    });
    assert!(outcome.is_ok() && busy.load(Ordering::SeqCst), "{outcome:?}");
}

/// A store that is closed in the middle of a backup ends it, and closes.
#[test]
fn closing_ends_a_backup() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, dest) = (home.path().join("data"), home.path().join("copy"));
    let store = filled(options(&data));
    let closed = AtomicBool::new(false);
    let outcome = store.backup(&dest, &|| {
        if !closed.swap(true, Ordering::SeqCst) {
            store.close(Vec::new()).expect("it closes");
        }
        true
    });
    assert!(matches!(outcome, Err(BackupError::Stopped)), "{outcome:?}");
    assert!(!dest.exists());
    let outcome = store.backup(&dest, &|| true);
    assert!(matches!(outcome, Err(BackupError::Stopped)), "{outcome:?}");
    drop(store);
    drop(open_whole(&data));
}

/// A backup without its manifest is refused, and left as it is.
#[test]
fn an_incomplete_backup_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let dest = home.path().join("copy");
    let store = filled(options(&home.path().join("data")));
    // A copy of the copy, from the moment before it is complete.
    let torn = home.path().join("torn");
    let outcome = store.backup(&dest, &|| {
        if dest.join("log/key").exists() {
            crate::common::copy_dir(&dest, &torn);
        }
        true
    });
    outcome.expect("a backup");
    let before = files(&torn);
    let Err(error) = Store::open(options(&torn)) else { panic!("it opened") };
    assert!(matches!(error, OpenError::IncompleteBackup { .. }), "{error}");
    assert!(error.to_string().contains(&torn.display().to_string()), "{error}");
    assert_eq!(files(&torn).len(), before.len() + usize::from(!before.iter().any(|path| path.ends_with("lock"))));
    drop(open_whole(&dest));
}

/// The first start on a backup is cut off before sled has anything: the next one does it again.
#[test]
fn a_restore_can_be_cut_off() {
    let home = tempfile::tempdir().expect("a directory");
    let dest = home.path().join("copy");
    let store = filled(options(&home.path().join("data")));
    backup(&store, &dest);
    let mut options = options(&dest);
    options.checkpoint_interval = std::time::Duration::from_secs(3600);
    for _ in 0..2 {
        let (copy, recovered) = Store::open(options.clone()).expect("it opens");
        assert_eq!(recovered.damage, Vec::<String>::new());
        assert_eq!(seqs(&copy, 1), (1..=FILLED).collect::<Vec<_>>());
    }
}
