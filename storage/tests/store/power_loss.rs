//! Power fails at any call of the store into the file system, and what was not synced is lost, or some of it is.

use std::sync::{Arc, Mutex};

use crate::common::{Mode, body, cold, copy_dir, payload, put, range, read_all, small, wait};
use crate::disk::{Disk, Image};
use storage::{Meta, Options, Store, TopologyChange, TxOp};

const ROUNDS: u64 = 60;

/// What was asked for and what was promised of one queue whose messages come and go in order, of the topology, and of a
/// queue of transactions, each of which adds one message and takes away the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    put: u64,
    settled: u64,
    topology: u64,
    transaction: u64,
}

#[derive(Default)]
struct Loss {
    asked: Known,
    promised: Known,
    calls_left: u64,
    /// The disk at the moment of the loss, and what was promised until then.
    lost: Option<(Image, Known)>,
}

fn random(seed: &mut u64) -> impl FnMut(u64) -> u64 {
    move |end| {
        *seed ^= *seed >> 12;
        *seed ^= *seed << 25;
        *seed ^= *seed >> 27;
        (seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end
    }
}

fn options(mut options: Options, disk: Disk) -> Options {
    options.fs = Arc::new(disk);
    options
}

#[test]
fn a_power_loss_takes_nothing_that_was_promised() {
    for seed in 1..=4u64 {
        let mode = if seed % 2 == 0 { cold } else { small };
        let mut seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        run(mode, &mut random(&mut seed));
    }
}

fn run(mode: Mode, random: &mut impl FnMut(u64) -> u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let (sled, copy) = (dir.path().join("data/sled"), dir.path().join("copy"));
    let mut image = Image::default();
    let (mut asked, mut promised) = (Known::default(), Known::default());
    for round in 0..ROUNDS {
        let most = 10 * (1 + random(60));
        let calls_left = random(most);
        let loss = Arc::new(Mutex::new(Loss { asked, promised, calls_left, lost: None }));
        let disk = {
            let (loss, sled, copy) = (Arc::clone(&loss), sled.clone(), copy.clone());
            Disk::new(image, move |image| {
                let mut loss = loss.lock().expect("not poisoned");
                if loss.lost.is_none() && loss.calls_left == 0 {
                    // What sled has written may all have reached the disk.
                    if sled.exists() {
                        copy_dir(&sled, &copy);
                    }
                    loss.lost = Some((image.clone(), loss.promised));
                }
                loss.calls_left = loss.calls_left.saturating_sub(1);
            })
        };
        let known = |change: &dyn Fn(&mut Loss)| {
            let mut loss = loss.lock().expect("not poisoned");
            change(&mut loss);
            loss.lost.is_some()
        };
        // The power may fail during the start too: it goes on, but what it does to the disk is not seen.
        let (store, recovered) = Store::open(options(mode(&dir.path().join("data")), disk)).expect("it opens");
        // That sled is gone is damage; the large files that nobody names are kept for it.
        let harmless = ["sled database", "no message names it"];
        let serious: Vec<_> =
            recovered.damage.iter().filter(|line| !harmless.iter().any(|text| line.contains(text))).collect();
        assert!(serious.is_empty(), "round {round}: {serious:?}");
        check(&store, &recovered.topology, asked, promised, round);
        let next = recovered.queues.iter().find(|queue| queue.id == 1).map_or(1, |queue| queue.next_seq);
        let mut seq = next.max(asked.put + 1);
        let mut tx = asked.transaction;
        let mut topology = asked.topology;
        // What was asked for and did not survive must not count as promised later on: the first step of a round does
        // everything anew.
        known(&|loss| loss.asked.settled = seq - 1);
        let mut last = store.settle(1, range(0, seq - 1));
        for first in std::iter::once(true).chain(std::iter::repeat(false)) {
            for _ in 0..1 + random(8) {
                let len = if random(30) == 0 { 20_000 } else { 1 + random(3000) as usize };
                known(&|loss| loss.asked.put = seq);
                last = put(&store, 1, seq, len);
                seq += 1;
            }
            if first || random(3) == 0 {
                tx += 1;
                known(&|loss| loss.asked.transaction = tx);
                let enqueue = TxOp::Enqueue {
                    queue: 2,
                    seq: tx,
                    meta: Meta::default(),
                    payload: payload(body(2, tx, 10 + random(9000) as usize)),
                };
                last = store.transaction(vec![enqueue, TxOp::Settle { queue: 2, range: range(0, tx - 1) }]);
            }
            if first || random(5) == 0 {
                topology += 1;
                known(&|loss| loss.asked.topology = topology);
                let value = topology.to_le_bytes().to_vec();
                last = store.change_topology(vec![TopologyChange::Put { key: b"key".to_vec(), value }]);
            }
            let settled = seq - 1 - random(20).min(seq - 1);
            if random(2) == 0 {
                known(&|loss| loss.asked.settled = loss.asked.settled.max(settled));
                last = store.settle(1, range(0, settled));
            }
            if random(2) == 0 {
                wait(&store, last);
                if known(&|loss| loss.promised = loss.asked) {
                    break;
                }
            }
        }
        drop(store);
        let mut loss = loss.lock().expect("not poisoned");
        let (left, kept) = loss.lost.take().expect("the power failed");
        image = left.after_power_loss(random);
        (asked, promised) = (loss.asked, kept);
        std::fs::remove_dir_all(&sled).expect("sled was there");
        if copy.exists() {
            // Its last writes may also be lost. Then it is best seen as gone.
            if random(2) == 0 {
                std::fs::rename(&copy, &sled).expect("moved");
            } else {
                std::fs::remove_dir_all(&copy).expect("removed");
            }
        }
    }
}

fn check(store: &Store, topology: &[(Vec<u8>, Vec<u8>)], asked: Known, promised: Known, round: u64) {
    let messages = read_all(store, 1);
    for message in &messages {
        assert_eq!(message.payload, body(1, message.seq, message.payload.len()), "round {round}");
        assert!((promised.settled + 1..=asked.put).contains(&message.seq), "round {round}: {} is back", message.seq);
    }
    let found: Vec<u64> = messages.iter().map(|message| message.seq).collect();
    for seq in asked.settled + 1..=promised.put {
        assert!(found.binary_search(&seq).is_ok(), "round {round}: {seq} is lost, {asked:?} {promised:?} {found:?}");
    }
    let transactions: Vec<u64> = read_all(store, 2).iter().map(|message| message.seq).collect();
    assert!(transactions.len() <= 1, "round {round}: {transactions:?}");
    let transaction = transactions.first().copied().unwrap_or_default();
    assert!(
        (promised.transaction..=asked.transaction).contains(&transaction),
        "round {round}: {transaction} {promised:?}"
    );
    let value =
        topology.first().and_then(|(_, value)| value.first_chunk()).map_or(0, |value| u64::from_le_bytes(*value));
    assert!((promised.topology..=asked.topology).contains(&value), "round {round}: {value} {promised:?}");
}
