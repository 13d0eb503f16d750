//! Looking into directories from outside: whole, torn and damaged ones, without changing them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use storage::inspect::{Finding, InspectError, Inspector, Item, Payload, Report};
use storage::{Meta, Options, SeqRange, Store, TopologyChange, TxOp};

use crate::common::{body, payload, put, range, small, wait};
use crate::crash::{groups, segments};

const LARGE: usize = 8 * 1024;

fn options(dir: &Path) -> Options {
    let mut options = small(dir);
    options.large_bytes = LARGE;
    options.snapshot_bytes = 64 * 1024;
    options
}

/// Forty messages in two queues, one of them large, some settled.
fn fill(dir: &Path) {
    let (store, _) = Store::open(options(dir)).expect("it opens");
    let key = b"key".to_vec();
    store.change_topology(vec![TopologyChange::Put { key, value: b"value".to_vec() }]);
    let mut last = None;
    for seq in 1..=20 {
        for queue in [1, 2] {
            last = Some(put(&store, queue, seq, if (queue, seq) == (2, 10) { LARGE } else { 3000 }));
        }
    }
    store.settle(1, range(1, 5));
    let meta = Meta { deadline_ms: Some(5), priority: 6, delivery_count: 7 };
    let part = TxOp::Enqueue { queue: 1, seq: 21, meta, payload: payload(body(1, 21, 100)) };
    last = last.max(Some(store.transaction(vec![part, TxOp::Settle { queue: 2, range: SeqRange::one(1) }])));
    wait(&store, last.expect("something was written"));
    // A third queue in any case, however soon the first snapshot is there.
    for seq in 1.. {
        wait(&store, put(&store, 3, seq, 3000));
        if store.stats().snapshots > 0 {
            break;
        }
    }
    store.close(vec![(1, vec![range(6, 7)])]).expect("it closes");
}

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

/// Verifies and makes sure that nothing was touched.
fn verify(dir: &Path) -> Report {
    let before = contents(dir);
    let report = Inspector::open(dir, false).expect("it can be read").verify().expect("it can be verified");
    assert!(contents(dir) == before, "something was touched");
    report
}

#[track_caller]
fn only(report: &Report) -> &Finding {
    let [finding] = &report.damage[..] else { panic!("{:?}", report.damage) };
    finding
}

#[test]
fn a_whole_directory_is_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let report = verify(dir.path());
    assert_eq!(report.damage, []);
    assert_eq!(report.notes, Vec::<String>::new());
    let counts = report.counts;
    assert_eq!((counts.queues, counts.large_files, counts.quarantined), (3, 1, 0));
    assert_eq!(counts.segments as usize, segments(dir.path()).len());
    let (store, recovered) = Store::open(options(dir.path())).expect("it opens");
    assert_eq!(recovered.queues.iter().map(|queue| queue.messages).sum::<u64>(), counts.messages);
    // Not while it is open, unless somebody insists; and it is open for others again afterwards.
    let Err(error) = Inspector::open(dir.path(), false) else { panic!("it is in use") };
    assert!(matches!(error, InspectError::InUse { .. }), "{error}");
    assert!(Inspector::open(dir.path(), true).is_ok());
    drop(store);
    drop(Inspector::open(dir.path(), false).expect("it is free again"));
    assert!(Store::open(options(dir.path())).is_ok());
}

#[test]
fn a_copy_that_nobody_may_write_to_will_do() {
    let home = tempfile::tempdir().expect("a directory");
    let (data, copy) = (home.path().join("data"), home.path().join("copy"));
    fill(&data);
    crate::common::copy_dir(&data, &copy);
    fs::remove_file(copy.join("lock")).expect("removed");
    assert_eq!(verify(&copy).damage, []);
    assert!(!copy.join("lock").exists());
}

#[test]
fn a_torn_end_is_a_note() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = options(dir.path());
    options.checkpoint_interval = std::time::Duration::from_secs(3600);
    let (store, _) = Store::open(options).expect("it opens");
    for seq in 1..=3 {
        wait(&store, put(&store, 1, seq, 6000));
    }
    drop(store);
    let segment = segments(dir.path()).pop().expect("a segment");
    let last = groups(&segment).pop().expect("a group");
    let mut bytes = fs::read(&segment).expect("the segment");
    bytes[last + 5000] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let report = verify(dir.path());
    assert_eq!(report.damage, []);
    assert!(report.notes.iter().any(|note| note.contains("the log ends here")), "{:?}", report.notes);
}

/// A flipped bit of a message that was confirmed: the place, the positions and the message are named.
#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let wanted = body(2, 7, 3000);
    let (segment, at) = segments(dir.path())
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).expect("the segment");
            Some((path, bytes.windows(40).position(|window| window == &wanted[..40])?))
        })
        .expect("the message is in the log");
    let mut bytes = fs::read(&segment).expect("the segment");
    bytes[at + 100] ^= 1;
    fs::write(&segment, bytes).expect("written");
    let report = verify(dir.path());
    let about_messages: Vec<_> = report.damage.iter().filter_map(|finding| finding.messages).collect();
    assert_eq!(about_messages, [(2, 7, 7)], "{:?}", report.damage);
    assert!(report.damage.iter().all(|finding| finding.path == segment), "{:?}", report.damage);
    assert!(report.damage.iter().any(|finding| finding.lsns.is_some()), "{:?}", report.damage);
    let mut damaged = 0;
    let dumped = Inspector::open(dir.path(), false).expect("it opens").dump(None, |dumped| {
        damaged += usize::from(matches!(dumped.item, Item::Damaged(_)));
        ControlFlow::Continue(())
    });
    assert!(dumped.is_ok() && damaged == 1, "{dumped:?} {damaged}");
}

#[test]
fn every_kind_of_file_is_looked_at() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    fill(&data);
    let mut number = 0;
    let mut damaged = |damage: &dyn Fn(&Path)| {
        number += 1;
        let copy = home.path().join(number.to_string());
        crate::common::copy_dir(&data, &copy);
        damage(&copy);
        (verify(&copy), copy)
    };
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).expect("the file");
        bytes[at] ^= 1;
        fs::write(path, bytes).expect("written");
    };
    let large = |dir: &Path| fs::read_dir(dir.join("large")).expect("it").next().expect("a file").expect("it").path();

    let (report, copy) = damaged(&|dir| flip(&dir.join("snapshot"), 200));
    assert_eq!((&only(&report).path, only(&report).what.as_str()), (&copy.join("snapshot"), "it is damaged"));
    let (report, copy) = damaged(&|dir| fs::write(dir.join("sled/db"), "no database").expect("written"));
    assert_eq!(only(&report).path, copy.join("sled"));
    let (report, copy) = damaged(&|dir| flip(&large(dir), 5000));
    assert_eq!((only(&report).path.clone(), only(&report).messages), (large(&copy), Some((2, 10, 10))));
    let (report, _) = damaged(&|dir| fs::remove_file(large(dir)).expect("removed"));
    assert_eq!(only(&report).messages, Some((2, 10, 10)));
    let (report, copy) = damaged(&|dir| flip(&dir.join("key"), 20));
    assert!(only(&report).what.contains(&copy.join("key").display().to_string()), "{report:?}");
    let (report, _) = damaged(&|dir| fs::remove_file(dir.join("log/key")).expect("removed"));
    assert_eq!((report.damage.len(), report.notes), (0, vec!["log/key: missing; the other copy serves".to_owned()]));
    let (report, _) = damaged(&|dir| fs::write(dir.join("large/00000000000000aa.body"), "nobody's").expect("written"));
    assert!(report.damage.is_empty() && report.notes[0].contains("no message names it"), "{report:?}");
    let (report, _) = damaged(&|dir| fs::create_dir_all(dir.join("quarantine/sled.1")).expect("created"));
    assert!(report.damage.is_empty() && report.counts.quarantined == 1, "{report:?}");
    // A whole segment in the middle, and the newest one.
    let (report, copy) = damaged(&|dir| fs::remove_file(&segments(dir)[0]).expect("removed"));
    assert!(!report.damage.is_empty() && report.damage.iter().all(|found| found.messages.is_some()), "{report:?}");
    assert!(report.damage.iter().any(|found| found.path.starts_with(copy.join("log"))), "{report:?}");
    // One may have been begun and have nothing in it yet.
    let newest = segments(&data).iter().rposition(|path| !groups(path).is_empty()).expect("a segment");
    let (report, _) = damaged(&|dir| {
        for path in &segments(dir)[newest..] {
            fs::remove_file(path).expect("removed");
        }
    });
    assert!(report.damage.iter().any(|found| found.what.contains("the log ends before")), "{report:?}");
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Inspector::open(dir.path(), false), Err(InspectError::NoStore { .. })));
    assert!(matches!(Inspector::open(&dir.path().join("no"), false), Err(InspectError::NoStore { .. })));
    fill(dir.path());
    for key in ["key", "log/key"] {
        fs::remove_file(dir.path().join(key)).expect("removed");
    }
    assert!(matches!(Inspector::open(dir.path(), false), Err(InspectError::NoKey { .. })));
}

#[test]
fn the_dump_has_every_entry() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = options(dir.path());
    options.snapshot_bytes = u64::MAX;
    let (store, _) = Store::open(options).expect("it opens");
    let meta = Meta { deadline_ms: Some(5), priority: 6, delivery_count: 7 };
    store.enqueue(1, 9, meta, payload(body(1, 9, 50)));
    // What follows would pass it while its file is written.
    wait(&store, store.enqueue(1, 10, Meta::default(), payload(body(1, 10, LARGE))));
    store.settle(1, range(3, 4));
    store.purge(1, 8, &[range(5, 6)]);
    let change = TopologyChange::Delete { key: b"gone".to_vec() };
    store.change_topology(vec![change.clone()]);
    store.transaction(vec![TxOp::Settle { queue: 1, range: SeqRange::one(9) }]);
    store.close(vec![(1, vec![range(10, 10)])]).expect("it closes");
    let inspector = Inspector::open(dir.path(), false).expect("it can be read");
    let (mut seen, mut lsns) = (Vec::new(), Vec::new());
    let outcome = inspector.dump(None, |dumped| {
        let said = match dumped.item {
            Item::Group { count, .. } => {
                assert!(count > 0 && dumped.offset % 4096 == 0);
                return ControlFlow::Continue(());
            }
            Item::Enqueue {
                queue: 1,
                seq: 9,
                meta: found,
                len: 50,
                payload: Payload::Here(bytes),
                tx: false,
                moved: false,
            } => {
                assert_eq!((found, bytes), (meta, &body(1, 9, 50)[..]));
                "enqueue"
            }
            Item::Enqueue { queue: 1, seq: 10, len, payload: Payload::File(_), tx: false, .. } => {
                assert_eq!(len, LARGE as u64);
                "large"
            }
            Item::Settle { queue: 1, range: found, tx: false } if found == range(3, 4) => "settle",
            Item::Settle { queue: 1, range: found, tx: true } if found == range(9, 9) => "in a transaction",
            Item::Purge { queue: 1, below: 8, except } if except == [range(5, 6)] => "purge",
            Item::Topology(changes) if changes == [change.clone()] => "topology",
            Item::TxEnd(1) => "its end",
            Item::Requeue { queue: 1, delivery_count: 0, ranges } if ranges == [range(10, 10)] => "requeue",
            Item::CheckpointDone { clean: true, .. } => "closed",
            Item::CheckpointDone { clean: false, .. } => return ControlFlow::Continue(()),
            other => panic!("{other:?}"),
        };
        seen.push(said);
        lsns.push(dumped.lsn);
        ControlFlow::Continue(())
    });
    outcome.expect("it can be read");
    let all = ["enqueue", "large", "settle", "purge", "topology", "in a transaction", "its end", "requeue", "closed"];
    assert_eq!(seen, all);
    assert!(lsns.is_sorted());
    // One segment alone, and the end when the caller has had enough.
    let mut count = 0;
    let stopped = inspector.dump(Some(1), |dumped| {
        assert_eq!(dumped.segment, 1);
        count += 1;
        if count == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(stopped.is_ok() && count == 3);
    inspector.dump(Some(77), |_| panic!("there is no such segment")).expect("nothing to read");
}
