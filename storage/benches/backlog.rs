//! What a deep backlog costs: `cargo bench -p warren-storage --bench backlog [-- messages [directory [deadlines]]]`.
//!
//! One queue is filled with messages of 200 bytes, held, closed, opened again, drained in batches like a consumer would, and
//! left alone. Resident memory beside each step, and the segments that are left at the end. With "deadlines" every message
//! gets one somewhere in an hour, and it is not a consumer that drains the queue but the time that passes, second by second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use storage::{Durable, Lsn, Meta, Options, Payload, Place, ReadBatch, SeqRange, Store};

const BODY: usize = 200;
const GROUP: u64 = 1024;
const READ: usize = 1024;
const HOUR_MS: u64 = 3_600_000;

struct Message(Place);

impl Payload for Message {
    fn encoded_len(&self) -> usize {
        BODY
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[b'x'; BODY]);
    }

    fn place(&self) -> &Place {
        &self.0
    }
}

struct Bell(mpsc::SyncSender<()>);

impl Durable for Bell {
    fn durable(&self) {
        let _ = self.0.try_send(());
    }
}

fn wait(store: &Store, lsn: Lsn) {
    let (sender, receiver) = mpsc::sync_channel(1);
    store.notify_at(lsn, Arc::new(Bell(sender)));
    receiver.recv().expect("it becomes durable");
}

fn read(store: &Store, from: u64) -> ReadBatch {
    let (sender, receiver) = mpsc::channel();
    store.read(1, from, READ, usize::MAX, Box::new(move |batch| drop(sender.send(batch))));
    store.kick();
    receiver.recv().expect("it is answered")
}

/// An hour passes; returns how many messages expired.
fn expire(store: &Store) -> u64 {
    let mut expired = 0;
    for now in (0..=HOUR_MS).step_by(1000) {
        loop {
            let (sender, receiver) = mpsc::channel();
            store.due(now, Box::new(move |due| drop(sender.send(due))));
            let due = receiver.recv().expect("it is answered");
            for (queue, seqs) in due.messages {
                expired += seqs.len() as u64;
                let mut last = Lsn(0);
                for seq in seqs {
                    last = store.settle(queue, SeqRange::one(seq));
                }
                wait(store, last);
            }
            if !due.more {
                break;
            }
        }
    }
    expired
}

/// Resident memory of this process without file pages, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn say(what: &str, since: Instant, store: &Store) {
    let stats = store.stats();
    println!(
        "{what:<28} {:>8.2} s   rss {:>4} MiB   index {:>3} MiB   segments {:>4} + {} free   sled {} MiB   checkpoints {}   snapshots {}",
        since.elapsed().as_secs_f64(),
        resident(),
        stats.index_bytes / (1 << 20),
        stats.segments,
        stats.free_segments,
        stats.sled_bytes / (1 << 20),
        stats.checkpoints,
        stats.snapshots,
    );
}

/// The most that is resident while something goes on.
fn watch<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let going = Arc::new(AtomicBool::new(true));
    let watcher = {
        let going = Arc::clone(&going);
        std::thread::spawn(move || {
            let mut most = 0;
            while going.load(Ordering::Relaxed) {
                most = most.max(resident());
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        })
    };
    let out = run();
    going.store(false, Ordering::Relaxed);
    println!("{what:<28} most resident: {} MiB", watcher.join().unwrap_or_default());
    out
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let count: u64 = args.next().and_then(|count| count.parse().ok()).unwrap_or(20_000_000);
    let base = args.next().unwrap_or_else(|| ".".to_owned());
    let deadlines = args.next().is_some_and(|word| word == "deadlines");
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let options = Options::new(dir.path());
    let (store, _) = Store::open(options.clone()).expect("it opens");
    println!("{count} messages of {BODY} bytes; at the start: {} MiB", resident());

    let started = Instant::now();
    watch("fill", || {
        let mut last = std::collections::VecDeque::new();
        for seq in 1..=count {
            let deadline_ms = deadlines.then(|| 1 + seq.wrapping_mul(0x9E37_79B9_7F4A_7C15) % HOUR_MS);
            let meta = Meta { deadline_ms, ..Meta::default() };
            let lsn = store.enqueue(1, seq, meta, Arc::new(Message(Place::default())));
            if seq % GROUP == 0 || seq == count {
                store.kick();
                last.push_back(lsn);
                if last.len() > 8
                    && let Some(lsn) = last.pop_front()
                {
                    wait(&store, lsn);
                }
            }
        }
        last.into_iter().for_each(|lsn| wait(&store, lsn));
    });
    say("filled", started, &store);
    std::thread::sleep(Duration::from_secs(2));
    say("held", started, &store);
    let started = Instant::now();
    store.close(Vec::new()).expect("it closes");
    drop(store);
    println!("{:<28} {:>8.2} s   rss {:>4} MiB", "closed", started.elapsed().as_secs_f64(), resident());
    let started = Instant::now();
    let (store, recovered) = Store::open(options.clone()).expect("it opens");
    assert_eq!(recovered.queues[0].messages, count);
    say("opened after a clean stop", started, &store);
    let started = Instant::now();
    store.enqueue(1, recovered.queues[0].next_seq, Meta::default(), Arc::new(Message(Place::default())));
    drop(store);
    println!("{:<28} {:>8.2} s   rss {:>4} MiB", "crashed", started.elapsed().as_secs_f64(), resident());
    let started = Instant::now();
    let (store, _) = Store::open(options).expect("it opens");
    say("opened after a crash", started, &store);

    let started = Instant::now();
    let drained = watch("drain", || {
        if deadlines {
            return expire(&store);
        }
        let (mut from, mut drained) = (0, 0u64);
        loop {
            let batch = read(&store, from);
            drained += batch.messages.len() as u64;
            if let (Some(first), Some(last)) = (batch.messages.first(), batch.messages.last()) {
                store.settle(1, SeqRange { first: first.seq, last: last.seq });
                store.kick();
            }
            if batch.end {
                return drained;
            }
            from = batch.next;
        }
    });
    println!("{drained} messages drained, {:.0} per second", drained as f64 / started.elapsed().as_secs_f64());
    say("drained", started, &store);
    std::thread::sleep(Duration::from_secs(5));
    say("left alone", started, &store);
}
