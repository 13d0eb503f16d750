//! The faulty file system itself, and what the store does on it in cases that chance meets too rarely.

use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use storage::fs::faulty::{Disk, Fault, FaultyFs, Op, When};
use storage::fs::{Fs, OpenMode};
use storage::{Options, Recovered, Store};
use tempfile::TempDir;

use crate::common::{body, put, read_all, scratch, seqs, small, wait};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// A disk with a directory to put it at.
struct Mounted {
    fs: FaultyFs,
    root: TempDir,
}

impl Mounted {
    fn new(disk: Disk, seed: u64) -> Self {
        let root = scratch();
        let fs = FaultyFs::mount(disk, root.path(), "sled", seed).expect("mounted");
        Self { fs, root }
    }

    fn options(&self) -> Options {
        let mut options = small(self.root.path());
        options.checkpoint_interval = std::time::Duration::from_secs(3600);
        options.fs = Arc::new(self.fs.clone());
        options
    }

    fn open(&self) -> (Arc<Store>, Recovered) {
        Store::open(self.options()).expect("it opens")
    }

    fn file(&self, name: &str, mode: OpenMode) -> std::io::Result<Arc<dyn storage::fs::File>> {
        self.fs.open(&self.root.path().join(name), mode)
    }

    /// The contents of a file, if it is there.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.file(name, OpenMode::Read).ok()?;
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        let read = file.read_at(&mut bytes, 0).expect("it can be read");
        assert_eq!(read, bytes.len());
        Some(bytes)
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// The disks that a power loss may leave.
fn losses(fs: &FaultyFs) -> impl Iterator<Item = Mounted> {
    let disk = fs.cut();
    (0..200).map(move |seed| Mounted::new(disk.clone().after_power_loss(&mut StdRng::seed_from_u64(seed)), seed))
}

#[test]
fn a_power_loss_leaves_what_was_synced_and_any_part_of_the_rest() {
    let disk = Mounted::new(Disk::default(), 0);
    let file = disk.file("kept", OpenMode::CreateNew).expect("created");
    file.write_all_at(&[1; 3 * 4096], 0).expect("written");
    file.sync_data().expect("synced");
    disk.fs.sync_dir(disk.root.path()).expect("synced");
    file.write_all_at(&[2; 4096], 4096).expect("written");
    file.write_all_at(&[3; 8192], 4096).expect("written");
    disk.file("unnamed", OpenMode::CreateNew).expect("created").sync_data().expect("synced");
    disk.fs.rename(&disk.root.path().join("kept"), &disk.root.path().join("renamed")).expect("renamed");
    let (mut old, mut between, mut new, mut torn, mut renamed, mut unnamed) = (0, 0, 0, 0, 0, 0);
    for left in losses(&disk.fs) {
        let (kept, moved) = (left.read("kept"), left.read("renamed"));
        assert!(kept.is_some() != moved.is_some(), "a rename is done or not");
        renamed += usize::from(moved.is_some());
        unnamed += usize::from(left.read("unnamed").is_none());
        let bytes = kept.or(moved).expect("one of them");
        assert_eq!(bytes[..4096], [1; 4096], "what was synced is there");
        match &bytes[4096..8192] {
            page if page.iter().all(|byte| *byte == 1) => old += 1,
            page if page.iter().all(|byte| *byte == 2) => between += 1,
            page if page.iter().all(|byte| *byte == 3) => new += 1,
            page => {
                assert!(page.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
                torn += 1;
            }
        }
    }
    for (times, what) in [(old, "old"), (between, "between"), (new, "new"), (torn, "torn")] {
        assert!(times > 0, "no page is {what}");
    }
    assert!((1..200).contains(&renamed) && (1..200).contains(&unnamed), "{renamed} {unnamed}");
}

#[test]
fn a_failed_sync_forgets_what_it_should_have_written() {
    let mut forgotten = 0;
    for seed in 0..50 {
        let disk = Mounted::new(Disk::default(), seed);
        let file = disk.file("file", OpenMode::CreateNew).expect("created");
        disk.fs.sync_dir(disk.root.path()).expect("synced");
        file.write_all_at(&[1; 4096], 0).expect("written");
        file.sync_data().expect("synced");
        file.write_all_at(&[2; 4096], 0).expect("written");
        disk.fs.fail(When::Nth(1), Fault::Forgotten(EIO), |op, _| op == Op::Sync);
        assert_eq!(file.sync_data().expect_err("it fails").raw_os_error(), Some(EIO));
        file.sync_data().expect("as if nothing had happened");
        let left = Mounted::new(disk.fs.cut().after_power_loss(&mut StdRng::seed_from_u64(seed)), seed);
        forgotten += usize::from(left.read("file").is_some_and(|bytes| bytes == [1; 4096]));
    }
    assert!((1..50).contains(&forgotten), "{forgotten}");
}

#[test]
fn a_disk_is_full_half_way_through_a_write() {
    let disk = Mounted::new(Disk::default(), 0);
    disk.fs.set_capacity(Some(3 * 4096));
    let file = disk.file("file", OpenMode::CreateNew).expect("created");
    file.set_len(1 << 20).expect("a hole takes no room");
    file.write_all_at(&[1; 8192], 0).expect("there is room");
    let error = file.write_all_at(&[2; 3 * 4096], 4096).expect_err("two more pages do not fit");
    assert_eq!(error.raw_os_error(), Some(ENOSPC));
    assert_eq!(disk.read("file").expect("a file")[4096..8192], [2; 4096], "the part that fitted was written");
    file.write_all_at(&[3; 8192], 0).expect("what has blocks can be written");
    drop(file);
    disk.fs.remove_file(&disk.root.path().join("file")).expect("removed");
    assert_eq!(disk.fs.used(), 0);
}

#[test]
fn calls_wait_at_a_gate() {
    let disk = Mounted::new(Disk::default(), 0);
    let file = disk.file("file", OpenMode::CreateNew).expect("created");
    let hold = disk.fs.hold(|op, _| op == Op::Sync);
    std::thread::scope(|scope| {
        let syncs: Vec<_> = (0..2).map(|_| scope.spawn(|| file.sync_data())).collect();
        hold.wait_for(2);
        assert_eq!(hold.waiting(), 2);
        hold.pass(1);
        drop(hold);
        for sync in syncs {
            sync.join().expect("no panic").expect("synced");
        }
    });
}

#[test]
fn after_the_power_is_off_nothing_is_done_and_nobody_waits() {
    let disk = Mounted::new(Disk::default(), 0);
    let file = disk.file("file", OpenMode::CreateNew).expect("created");
    let hold = disk.fs.hold(|op, _| op == Op::Write);
    std::thread::scope(|scope| {
        let write = scope.spawn(|| file.write_all_at(&[1; 10], 0));
        hold.wait_for(1);
        disk.fs.switch_off();
        write.join().expect("no panic").expect_err("the power is off");
    });
    assert!(disk.fs.is_off());
    assert_eq!(disk.fs.cut().files(Path::new("")), [("file".to_owned(), 0)]);
}

/// The process dies of a failed fdatasync and comes again; what it reads may be in the cache only, and a sync would not write
/// it. What it has shown to somebody must stay.
#[test]
fn what_a_start_has_shown_stays_though_the_sync_before_it_had_failed() {
    for seed in 0..60 {
        let disk = Mounted::new(Disk::default(), seed);
        let (store, _) = disk.open();
        wait(&store, put(&store, 1, 1, 100));
        let (sender, receiver) = std::sync::mpsc::channel();
        store.on_failure(Box::new(move |reason| drop(sender.send(reason.to_owned()))));
        disk.fs.fail(When::Nth(1), Fault::Forgotten(EIO), |op, path| op == Op::Sync && is_segment(path));
        put(&store, 1, 2, 9000);
        store.kick();
        let reason = receiver.recv().expect("it stops");
        assert!(reason.starts_with("syncing segment"), "{reason}");
        drop(store);

        let again = Mounted::new(disk.fs.cut(), seed);
        let (store, recovered) = again.open();
        assert_eq!(recovered.damage, Vec::<String>::new());
        let shown = seqs(&store, 1);
        assert!(shown == [1] || shown == [1, 2], "{shown:?}");
        drop(store);

        let left = again.fs.cut().after_power_loss(&mut StdRng::seed_from_u64(seed));
        let (store, recovered) = Mounted::new(left, seed).open();
        assert_eq!(recovered.damage, Vec::<String>::new(), "seed {seed}");
        let messages = read_all(&store, 1);
        assert_eq!(messages.iter().map(|message| message.seq).collect::<Vec<_>>(), shown, "seed {seed}");
        assert!(messages.iter().all(|message| message.payload == body(1, message.seq, message.payload.len())));
    }
}

/// A start that can't read says so and changes nothing; the next one finds everything.
#[test]
fn a_start_on_a_disk_that_fails_loses_nothing() {
    let disk = Mounted::new(Disk::default(), 1);
    let (store, _) = disk.open();
    for seq in 1..=40 {
        wait(&store, put(&store, 1, seq, 2_000));
    }
    disk.fs.switch_off();
    drop(store);
    let mut disk = disk.fs.cut();
    let mut failed = 0;
    for op in [Op::Read, Op::Write, Op::Sync, Op::SyncDir, Op::Open(OpenMode::Read), Op::List, Op::Rename, Op::SetLen] {
        for nth in [1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 30] {
            let mounted = Mounted::new(disk, nth);
            mounted.fs.fail(When::Nth(nth), Fault::Partial(EIO), move |call, _| call == op);
            let outcome = Store::open(mounted.options());
            if let Err(error) = &outcome {
                assert!(error.to_string().contains("os error 5"), "{error}");
                failed += 1;
            }
            disk = mounted.fs.cut();
            drop(outcome);
            let well = Mounted::new(disk, nth);
            let (store, recovered) = well.open();
            let serious: Vec<_> = recovered.damage.iter().filter(|line| !line.contains("sled")).collect();
            assert_eq!(serious, Vec::<&String>::new(), "{op:?} {nth}");
            assert_eq!(seqs(&store, 1), (1..=40).collect::<Vec<_>>(), "{op:?} {nth}");
            disk = well.fs.cut();
            drop(store);
        }
    }
    assert!(failed > 8, "{failed}");
}

/// The group that a power loss tore may be the first of its segment: no damage either. The full segments ask for checkpoints;
/// if one had the last message, its loss would be damage. So the first of them never ends.
#[test]
fn a_torn_tail_at_the_start_of_a_segment_is_no_damage() {
    let disk = Mounted::new(Disk::default(), 0);
    let log = disk.root.path().join("log");
    let segments = || -> Vec<String> {
        let names = disk.fs.list(&log).expect("it can be listed").into_iter().map(|entry| entry.name);
        names.filter(|name| name.ends_with(".log") && !name.starts_with("free")).collect()
    };
    let sled = disk.root.path().join("sled");
    let (store, _) = disk.open();
    let hold = disk.fs.hold(move |op, path| op == Op::Sync && path.starts_with(&sled));
    let mut seq = 0;
    for wanted in [2, 3] {
        while segments().len() < wanted {
            seq += 1;
            wait(&store, put(&store, 1, seq, 6000));
        }
        hold.wait_for(1);
    }
    // The last message alone made the last segment; its group takes two pages.
    let last = format!("log/{}", segments().pop().expect("a segment"));
    let left = disk.fs.cut();
    drop(store);
    drop(hold);
    let disk = Mounted::new(left, 0);
    let bytes = disk.read(&last).expect("it is there");
    assert!(bytes[8192..].iter().all(|byte| *byte == 0), "the last group is the only one");
    disk.file(&last, OpenMode::Write).expect("it opens").write_all_at(&[0; 4096], 4096).expect("written");
    let (store, recovered) = disk.open();
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), (1..seq).collect::<Vec<_>>());
    wait(&store, put(&store, 1, 5000, 10));
    drop(store);
    let disk = Mounted::new(disk.fs.unmount().expect("unmounted"), 0);
    let (store, recovered) = disk.open();
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 1), (1..seq).chain([5000]).collect::<Vec<_>>());
}
