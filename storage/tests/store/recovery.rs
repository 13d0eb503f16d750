//! What a start makes sure of before it relies on anything, and names and keys it can't rely on.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::common::{put, seqs, small, wait};
use crate::crash::segments;
use crate::hooked::{Call, Hooked};
use storage::Store;

/// A start after kill -9 sees directories as the page cache has them. Log that the snapshot makes superfluous may only go
/// once a power loss can't bring the snapshot before it back.
#[test]
fn a_start_makes_the_snapshot_durable_before_log_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    let (store, _) = Store::open(options.clone()).expect("it opens");
    let mut seq = 0;
    while store.stats().snapshots < 2 {
        seq += 1;
        let last = put(&store, 1, seq, 3000);
        store.settle(1, storage::SeqRange::one(seq));
        wait(&store, last);
    }
    drop(store);
    let calls: Arc<Mutex<Vec<(Call, PathBuf)>>> = Arc::default();
    let seen = Arc::clone(&calls);
    options.fs = Hooked::new(move |call, path| {
        seen.lock().expect("not poisoned").push((call, path.to_path_buf()));
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    let last = put(&store, 2, 1, 10);
    wait(&store, last);
    store.close(Vec::new()).expect("it closes");
    let calls = calls.lock().expect("not poisoned");
    let synced = calls.iter().position(|(call, path)| *call == Call::SyncDir && path == dir.path());
    let written =
        calls.iter().position(|(call, path)| *call == Call::Write && path.starts_with(dir.path().join("log")));
    let (Some(synced), Some(written)) = (synced, written) else { panic!("{calls:?}") };
    assert!(synced < written, "the first group tells that recovery is over: {calls:?}");
}

#[test]
fn a_new_directory_is_durable_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(&dir.path().join("var/warren"));
    let synced: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let seen = Arc::clone(&synced);
    options.fs = Hooked::new(move |call, path| {
        if call == Call::SyncDir {
            seen.lock().expect("not poisoned").push(path.to_path_buf());
        }
        Ok(())
    });
    let (store, _) = Store::open(options).expect("it opens");
    drop(store);
    let synced = synced.lock().expect("not poisoned");
    for path in ["", "var", "var/warren", "var/warren/log"] {
        assert!(synced.contains(&dir.path().join(path)), "{path}: {synced:?}");
    }
}

#[test]
fn files_with_impossible_numbers_are_none_of_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let last = put(&store, 1, 1, 10);
    wait(&store, last);
    drop(store);
    for name in ["ffffffffffffffff.log", "0000001000000000.log", "0000000000000000.log", "free-ffffffffffffffff.log"] {
        std::fs::write(dir.path().join("log").join(name), vec![0; 8192]).expect("written");
    }
    let large = dir.path().join("large/ffffffffffffffff.body");
    std::fs::write(large, "no message").expect("written");
    for seq in 5000..5010 {
        let (store, _) = Store::open(small(dir.path())).expect("it opens");
        let last = put(&store, 1, seq, 10);
        wait(&store, last);
    }
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(seqs(&store, 1), [1].into_iter().chain(5000..5010).collect::<Vec<_>>());
    assert!(dir.path().join("log/ffffffffffffffff.log").exists());
}

#[test]
fn both_keys_gone_is_not_the_end() {
    for with_snapshot in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = small(dir.path());
        if !with_snapshot {
            options.checkpoint_interval = std::time::Duration::from_secs(3600);
        }
        let (store, _) = Store::open(options).expect("it opens");
        let mut seq = 0;
        while seq < 10 || (with_snapshot && store.stats().snapshots < 1) {
            seq += 1;
            let last = put(&store, 1, seq, 3000);
            wait(&store, last);
        }
        drop(store);
        for key in ["key", "log/key"] {
            std::fs::remove_file(dir.path().join(key)).expect("it was there");
        }
        let before = segments(dir.path()).len();
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
        assert!(recovered.damage.iter().any(|line| line.contains("key")), "{:?}", recovered.damage);
        if with_snapshot {
            // It is in the snapshot too.
            assert_eq!(seqs(&store, 1), (1..=seq).collect::<Vec<_>>(), "{:?}", recovered.damage);
        } else {
            // Nothing can be read without it, but what there was is kept for whoever finds the key.
            assert!(seqs(&store, 1).is_empty());
            let kept = std::fs::read_dir(dir.path().join("quarantine")).expect("a quarantine").count();
            assert!(kept >= before, "{kept} of {before}");
        }
        drop(store);
        let (store, recovered) = Store::open(small(dir.path())).expect("it opens again");
        assert_eq!(seqs(&store, 1).len() as u64, if with_snapshot { seq } else { 0 });
        assert!(!recovered.damage.iter().any(|line| line.contains("key")), "{:?}", recovered.damage);
    }
}
