//! What is left after the process, or a part of the log, is gone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{body, copy_dir, put, range, read, read_all, seqs, small, wait};
use storage::{Options, Store};

/// The segments of a data directory, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir.join("log"))
        .expect("the log can be listed")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| !path.file_name().expect("a name").to_string_lossy().starts_with("free"))
        .collect();
    found.sort();
    found
}

/// Where the groups of a segment begin.
pub(crate) fn groups(segment: &Path) -> Vec<usize> {
    let bytes = std::fs::read(segment).expect("the segment can be read");
    (0..bytes.len()).step_by(4096).filter(|&at| bytes[at..].starts_with(b"WARRNGRP")).collect()
}

#[test]
fn a_copy_of_a_running_directory_has_all_that_was_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let copy = tempfile::tempdir().expect("a directory");
    // Nothing is recycled, since a copy can't be of one moment.
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    let (confirmed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = {
        let (store, confirmed, stop) = (Arc::clone(&store), Arc::clone(&confirmed), Arc::clone(&stop));
        std::thread::spawn(move || {
            for seq in 1.. {
                let last = put(&store, 7, seq, 300);
                if seq % 10 == 0 {
                    wait(&store, last);
                    confirmed.store(seq, Ordering::SeqCst);
                }
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        })
    };
    for round in 0..5 {
        let before = confirmed.load(Ordering::SeqCst);
        while confirmed.load(Ordering::SeqCst) < before + 200 {
            std::thread::yield_now();
        }
        let target = copy.path().join(round.to_string());
        let promised = confirmed.load(Ordering::SeqCst);
        // sled is never ahead of the log; a copy that is not of one moment has to keep it so.
        copy_dir(&dir.path().join("sled"), &target.join("sled"));
        copy_dir(&dir.path().join("log"), &target.join("log"));
        let (copied, recovered) = Store::open(Options::new(&target)).expect("the copy opens");
        let found = seqs(&copied, 7);
        assert!(found.len() as u64 >= promised, "{} of {promised}: {:?}", found.len(), recovered.damage);
        // Of what was written during the copy, it may have something later and not what came before.
        assert!(found[..promised as usize].iter().copied().eq(1..=promised), "{found:?}");
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    }
    stop.store(true, Ordering::SeqCst);
    writer.join().expect("the writer ends");
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let last = put(&store, 1, 1, 100);
    wait(&store, last);
    for seq in 2..=9 {
        put(&store, 1, seq, 700);
    }
    let last = put(&store, 1, 10, 700);
    wait(&store, last);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("sled")).expect("without sled the log is all there is");
    let segment = segments(dir.path()).pop().expect("a segment");
    let bytes = std::fs::read(&segment).expect("it can be read");
    let begins = groups(&segment);
    // Behind the boot group and the first message; a checkpoint may have added its own group at the end.
    let begin = begins[2];
    let end = bytes[begin..].len().min(8192);
    for cut in (0..=end).step_by(512) {
        for filler in [Vec::new(), vec![0; end - cut], vec![0xA5; end - cut]] {
            let copy = tempfile::tempdir().expect("a directory");
            copy_dir(dir.path(), copy.path());
            let mut torn = bytes[..begin + cut].to_vec();
            torn.extend(&filler);
            let name = segment.file_name().expect("a name");
            std::fs::write(copy.path().join("log").join(name), torn).expect("it can be written");
            let (store, _) = Store::open(small(copy.path())).expect("it opens");
            let found = seqs(&store, 1);
            // The messages after the first may have taken more than one group.
            let count = found.len() as u64;
            assert!((1..=10).contains(&count), "cut {cut}: {found:?}");
            assert_eq!(found, (1..=count).collect::<Vec<_>>(), "cut {cut}");
            assert!(cut < end || count > 1, "the group is whole again");
            // Life goes on behind the cut, also over another crash.
            let last = put(&store, 1, 5000, 10);
            wait(&store, last);
            drop(store);
            let (store, recovered) = Store::open(small(copy.path())).expect("it opens again");
            assert_eq!(seqs(&store, 1), [found, vec![5000]].concat(), "{:?}", recovered.damage);
        }
    }
}

#[test]
fn damage_below_what_was_synced_is_named_and_the_rest_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = Options::new(dir.path());
    options.checkpoint_interval = std::time::Duration::from_secs(3600);
    let (store, _) = Store::open(options.clone()).expect("it opens");
    for seq in 1..=30 {
        let last = put(&store, 1, seq, 500);
        wait(&store, last);
    }
    drop(store);
    let segment = segments(dir.path()).pop().expect("a segment");
    let begins = groups(&segment);
    let bytes = std::fs::read(&segment).expect("it can be read");
    // The header, an entry, or all of the group of message 10; group 0 is that of the start.
    let damages: [(usize, usize, u8); 3] = [(20, 1, 0xFF), (72 + 200, 1, 0x01), (0, 4096, 0)];
    for (at, len, mask) in damages {
        let copy = tempfile::tempdir().expect("a directory");
        copy_dir(dir.path(), copy.path());
        let mut damaged = bytes.clone();
        for byte in &mut damaged[begins[10] + at..begins[10] + at + len] {
            *byte = if mask == 0 { 0 } else { *byte ^ mask };
        }
        std::fs::write(copy.path().join("log").join(segment.file_name().expect("a name")), damaged).expect("written");
        options.data_dir = copy.path().to_path_buf();
        let (store, recovered) = Store::open(options.clone()).expect("it opens");
        assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
        assert!(recovered.damage[0].contains("LSN"), "{:?}", recovered.damage);
        assert_eq!(seqs(&store, 1), (1..=9).chain(11..=30).collect::<Vec<_>>());
    }
}

#[test]
fn a_damaged_body_is_reported_by_the_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    for seq in 1..=20 {
        let last = put(&store, 1, seq, 500);
        wait(&store, last);
    }
    store.close(Vec::new()).expect("it closes");
    let segment = segments(dir.path()).pop().expect("a segment");
    let begins = groups(&segment);
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    bytes[begins[5] + 300] ^= 0x10;
    std::fs::write(&segment, bytes).expect("it can be written");
    let (store, _) = Store::open(Options::new(dir.path())).expect("it opens");
    let batch = read(&store, 1, 0, 100, usize::MAX);
    assert_eq!(batch.damaged, [5]);
    assert_eq!(batch.messages.len(), 19);
    assert!(batch.messages.iter().all(|message| message.payload == body(1, message.seq, 500)));
}

#[test]
fn many_crashes_in_a_row() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut alive: Vec<u64> = Vec::new();
    let mut next = 1;
    for round in 0..20 {
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert_eq!(recovered.damage, Vec::<String>::new(), "round {round}");
        assert_eq!(seqs(&store, 3), alive, "round {round}");
        next = recovered.queues.first().map_or(next, |queue| queue.next_seq.max(next));
        for _ in 0..30 {
            put(&store, 3, next, 400);
            alive.push(next);
            next += 1;
        }
        let gone: Vec<u64> = alive.drain(..alive.len() / 2).collect();
        let last = match (gone.first(), gone.last()) {
            (Some(&first), Some(&last)) => store.settle(3, range(first, last)),
            _ => put(&store, 4, round, 1),
        };
        wait(&store, last);
        // Never confirmed: it may be there or not, so it is of another queue.
        put(&store, 5, round + 1, 10);
        if round % 4 == 0 {
            store.close(Vec::new()).expect("it closes");
        }
    }
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    for message in read_all(&store, 3) {
        assert_eq!(message.payload, body(3, message.seq, 400));
    }
}
