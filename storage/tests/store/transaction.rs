//! Transactions are whole or nothing, wherever the log ends.

use crate::common::{Mode, body, cold, copy_dir, payload, put, range, seqs, small, wait};
use crate::crash::{groups, segments};
use storage::{Meta, Store, TxOp};

fn enqueue(queue: u64, seq: u64, len: usize) -> TxOp {
    TxOp::Enqueue { queue, seq, meta: Meta::default(), payload: payload(body(queue, seq, len)) }
}

#[test]
fn a_transaction_is_whole_or_nothing() {
    check_a_transaction_is_whole_or_nothing(small);
}

#[test]
fn a_transaction_is_whole_or_nothing_with_a_cold_index() {
    check_a_transaction_is_whole_or_nothing(cold);
}

fn check_a_transaction_is_whole_or_nothing(small: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut options = small(dir.path());
    options.snapshot_bytes = u64::MAX;
    let (store, _) = Store::open(options).expect("it opens");
    for seq in 1..=10 {
        put(&store, 1, seq, 100);
    }
    // Bigger than a segment, so that it takes several groups and segments.
    let mut ops: Vec<TxOp> = (1..=40).map(|seq| enqueue(2, seq, 5000)).collect();
    ops.push(TxOp::Settle { queue: 1, range: range(3, 8) });
    let last = store.transaction(ops);
    wait(&store, last);
    let last = put(&store, 3, 1, 10);
    wait(&store, last);
    assert_eq!(seqs(&store, 1), [1, 2, 9, 10]);
    assert_eq!(seqs(&store, 2), (1..=40).collect::<Vec<_>>());
    drop(store);

    let all = segments(dir.path());
    assert!(all.len() > 3, "the transaction spans segments");
    let (mut nothing, mut whole) = (0, 0);
    for (index, segment) in all.iter().enumerate() {
        for begin in groups(segment) {
            let copy = tempfile::tempdir().expect("a directory");
            copy_dir(dir.path(), copy.path());
            // sled may be ahead of where the log is going to be cut, which no crash can bring about.
            std::fs::remove_dir_all(copy.path().join("sled")).expect("removed");
            let copied = |path: &std::path::Path| copy.path().join("log").join(path.file_name().expect("a name"));
            for later in &all[index + 1..] {
                std::fs::remove_file(copied(later)).expect("it can be removed");
            }
            let file = std::fs::File::options().write(true).open(copied(segment)).expect("it opens");
            file.set_len(begin as u64).expect("it can be cut");
            drop(file);
            let (store, _) = Store::open(small(copy.path())).expect("it opens");
            let (first, second) = (seqs(&store, 1), seqs(&store, 2));
            if second.is_empty() {
                // The ten before it may have come in several groups: any number of them, from the first on.
                assert_eq!(first, (1..=first.len() as u64).collect::<Vec<_>>());
                nothing += 1;
            } else {
                assert_eq!(first, [1, 2, 9, 10]);
                assert_eq!(second, (1..=40).collect::<Vec<_>>());
                whole += 1;
            }
        }
    }
    assert!(nothing > 3 && whole >= 1, "{nothing} {whole}");
}

#[test]
fn an_empty_transaction_is_durable_with_what_was_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(small(dir.path())).expect("it opens");
    let before = put(&store, 1, 1, 10);
    let last = store.transaction(Vec::new());
    assert_eq!(last, before);
    wait(&store, last);
}

#[test]
fn transactions_and_checkpoints() {
    check_transactions_and_checkpoints(small);
}

#[test]
fn transactions_and_checkpoints_with_a_cold_index() {
    check_transactions_and_checkpoints(cold);
}

fn check_transactions_and_checkpoints(small: Mode) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    for round in 0..6u64 {
        let mut options = small(dir.path());
        options.checkpoint_interval = std::time::Duration::ZERO;
        let (store, recovered) = Store::open(options).expect("it opens");
        assert_eq!(recovered.damage, Vec::<String>::new());
        assert_eq!(seqs(&store, 1), expected);
        let base = (round + 1) * 100_000;
        for n in 0..20 {
            let seq = base + n * 10;
            let ops = (0..5).map(|i| enqueue(1, seq + i, 3000)).collect();
            store.transaction(ops);
            let last = store.transaction(vec![TxOp::Settle { queue: 1, range: range(seq, seq + 2) }]);
            expected.extend([seq + 3, seq + 4]);
            wait(&store, last);
        }
    }
}
