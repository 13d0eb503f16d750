//! Messages with files of their own.

use std::path::Path;

use crate::common::{body, payload, put, range, read, read_all, seqs, small, wait};
use storage::{Meta, SeqRange, Store};

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("large")).expect("it can be listed").count()
}

#[test]
fn large_messages_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let big = payload(body(1, 2, 3_000_000));
    put(&store, 1, 1, 100);
    store.enqueue(1, 2, Meta { priority: 4, ..Meta::default() }, big.clone());
    store.enqueue(2, 2, Meta::default(), big.clone());
    for seq in 3..=20 {
        put(&store, 1, seq, 20_000);
    }
    let last = put(&store, 1, 21, 100);
    wait(&store, last);
    assert_eq!(files(dir.path()), 19);
    let check = |store: &Store| {
        let messages = read_all(store, 1);
        assert_eq!(messages.iter().map(|m| m.seq).collect::<Vec<_>>(), (1..=21).collect::<Vec<_>>());
        assert_eq!(messages[1].payload, body(1, 2, 3_000_000));
        assert_eq!(messages[1].meta.priority, 4);
        assert_eq!(messages[7].payload, body(1, 8, 20_000));
        assert_eq!(read_all(store, 2)[0].payload, body(1, 2, 3_000_000));
    };
    check(&store);
    drop(store);
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.queues.iter().map(|queue| queue.bytes).collect::<Vec<_>>(), [3_360_200, 3_000_000]);
    check(&store);
    let last = store.settle(1, range(1, 21));
    wait(&store, last);
    assert_eq!(read_all(&store, 2)[0].payload, body(1, 2, 3_000_000));
    store.close(Vec::new()).expect("it closes");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(files(dir.path()), 1);
    let last = store.settle(2, SeqRange::one(2));
    wait(&store, last);
    // The file is gone, or about to be; the same payload gets another.
    store.enqueue(3, 1, Meta::default(), big);
    let messages = read_all(&store, 3);
    assert_eq!(messages[0].payload, body(1, 2, 3_000_000));
    store.close(Vec::new()).expect("it closes");
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(seqs(&store, 3), [1]);
    assert_eq!(files(dir.path()), 1);
}

#[test]
fn orphans_are_removed_and_damage_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    put(&store, 1, 1, 30_000);
    let last = put(&store, 1, 2, 30_000);
    wait(&store, last);
    drop(store);
    let mut paths: Vec<_> =
        std::fs::read_dir(dir.path().join("large")).expect("listed").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    std::fs::write(dir.path().join("large/00000000000000ff.body"), "x").expect("written");
    let mut bytes = std::fs::read(&paths[0]).expect("read");
    bytes[9000] ^= 1;
    std::fs::write(&paths[0], bytes).expect("written");
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage, Vec::<String>::new());
    assert_eq!(files(dir.path()), 2);
    let batch = read(&store, 1, 0, 10, usize::MAX);
    assert_eq!((batch.damaged, batch.messages.len()), (vec![1], 1));
    drop(store);
    std::fs::remove_file(&paths[1]).expect("removed");
    let (store, recovered) = Store::open(small(dir.path())).expect("it opens");
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    assert_eq!(read(&store, 1, 0, 10, usize::MAX).damaged, [1, 2]);
}
