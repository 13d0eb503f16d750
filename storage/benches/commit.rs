//! What a durable message costs: `cargo bench -p warren-storage --bench commit [-- directory]`.
//!
//! Messages of 1 KiB go in by groups of 128 from a few appenders, each waiting for its group like a connection for its
//! confirms. "fill" only publishes, "fifo" also settles what went in a little earlier. Beside it the raw disk: blocks written
//! over a file that exists already, one fdatasync each.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use storage::{Durable, Lsn, Meta, Options, Payload, Place, SeqRange, Stats, Store};

const BODY: usize = 1024;
const GROUP: u64 = 128;
const ROUND: Duration = Duration::from_secs(4);

struct Message(Vec<u8>, Place);

impl Payload for Message {
    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn place(&self) -> &Place {
        &self.1
    }
}

struct Wake(mpsc::SyncSender<()>);

impl Durable for Wake {
    fn durable(&self) {
        let _ = self.0.try_send(());
    }
}

fn main() -> std::io::Result<()> {
    let base = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(base)?;
    println!("messages of {BODY} B, {GROUP} per wait, {} s each", ROUND.as_secs());
    let small = raw(dir.path(), 64 * 1024)?;
    let big = raw(dir.path(), 1024 * 1024)?;
    println!("raw disk, recycled file: 64 KiB blocks {small:.0} MB/s, 1 MiB blocks {big:.0} MB/s");
    let group = raw(dir.path(), (BODY + 40) * GROUP as usize)?;
    println!("raw disk, blocks of one group ({} KiB): {group:.0} MB/s", (BODY + 40) * GROUP as usize / 1024);
    append_cost(dir.path());
    for appenders in [1, 4] {
        for fifo in [false, true] {
            round(dir.path(), appenders, fifo);
        }
    }
    Ok(())
}

/// MB/s of blocks written and synced one by one over a file that has been written before.
fn raw(dir: &Path, block: usize) -> std::io::Result<f64> {
    let path = dir.join("raw");
    let file: File = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    let size = 64 * 1024 * 1024;
    let data = vec![0xA5; block];
    for at in (0..size).step_by(block) {
        file.write_all_at(&data, at as u64)?;
    }
    file.sync_data()?;
    let started = Instant::now();
    let mut written = 0u64;
    while started.elapsed() < Duration::from_secs(2) {
        let at = (written as usize / block) % (size / block) * block;
        file.write_all_at(&data, at as u64)?;
        file.sync_data()?;
        written += block as u64;
    }
    let rate = written as f64 / started.elapsed().as_secs_f64() / 1e6;
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// What `enqueue` alone takes on the caller's side.
fn append_cost(dir: &Path) {
    let (store, _) = Store::open(Options::new(dir.join("append"))).expect("the store opens");
    let payload: Arc<dyn Payload> = Arc::new(Message(vec![1; 16], Place::default()));
    let count = 1_000_000;
    let started = Instant::now();
    for seq in 0..count {
        store.enqueue(1, seq, Meta::default(), Arc::clone(&payload));
    }
    println!("enqueue: {:.0} ns per call (committer asleep)", started.elapsed().as_nanos() as f64 / count as f64);
}

fn round(dir: &Path, appenders: u64, fifo: bool) {
    let path = dir.join(format!("store-{appenders}-{fifo}"));
    let (store, _) = Store::open(Options::new(&path)).expect("the store opens");
    // A steady state is one in which the log has come round: the pool is filled by the first snapshots.
    let warm = move |store: &Store| fifo && store.stats().snapshots < 2;
    let from = run(&store, vec![0; appenders as usize], fifo, warm);
    let (before, cpu_before) = (store.stats(), cpu());
    let started = Instant::now();
    let messages: u64 = from.iter().sum();
    let to = run(&store, from, fifo, move |_| started.elapsed() < ROUND);
    let took = started.elapsed().as_secs_f64();
    let messages = to.iter().sum::<u64>() - messages;
    let cpu = cpu().saturating_sub(cpu_before);
    report(appenders, fifo, messages, took, &before, &store.stats(), cpu);
    store.close(Vec::new()).expect("the store closes");
    let _ = std::fs::remove_dir_all(path);
}

/// Lets one appender per entry of `from` go on from there as long as `more` says so; returns where they are then.
fn run(
    store: &Arc<Store>,
    from: Vec<u64>,
    fifo: bool,
    more: impl Fn(&Store) -> bool + Copy + Send + 'static,
) -> Vec<u64> {
    let spawn = |(queue, seq): (usize, u64)| {
        let store = Arc::clone(store);
        std::thread::spawn(move || append(&store, queue as u64 + 1, seq, fifo, more))
    };
    let workers: Vec<_> = from.into_iter().enumerate().map(spawn).collect();
    workers.into_iter().map(|worker| worker.join().expect("an appender ends")).collect()
}

fn append(store: &Store, queue: u64, mut seq: u64, fifo: bool, more: impl Fn(&Store) -> bool) -> u64 {
    let body = vec![queue as u8; BODY];
    let (sender, receiver) = mpsc::sync_channel(1);
    let wake: Arc<dyn Durable> = Arc::new(Wake(sender));
    while more(store) {
        let mut last = Lsn(0);
        for _ in 0..GROUP {
            let message = Message(body.clone(), Place::default());
            last = store.enqueue(queue, seq, Meta::default(), Arc::new(message));
            seq += 1;
        }
        if fifo && seq >= 2 * GROUP {
            store.settle(queue, SeqRange { first: seq - 2 * GROUP, last: seq - GROUP - 1 });
        }
        store.notify_at(last, Arc::clone(&wake));
        receiver.recv().expect("the group becomes durable");
    }
    seq
}

fn report(appenders: u64, fifo: bool, messages: u64, took: f64, before: &Stats, stats: &Stats, cpu: u64) {
    let payload = (messages * BODY as u64) as f64;
    let of = |stats: &Stats| stats.log_bytes + stats.sled_bytes + stats.snapshot_bytes;
    let written = of(stats) - of(before);
    let syncs = stats.fdatasyncs - before.fdatasyncs;
    println!(
        "{:4} {appenders} appender(s): {:7.0} msg/s {:5.0} MB/s, store CPU {:.2} us/msg, {:.2} B written per payload B \
         (and {:.2} of zeroes ahead), {} groups, {:.0} msgs per fdatasync, sync p50 < {} us, p99 < {} us, {} snapshots",
        if fifo { "fifo" } else { "fill" },
        messages as f64 / took,
        payload / took / 1e6,
        cpu as f64 / messages as f64,
        written as f64 / payload,
        (stats.prepared_bytes - before.prepared_bytes) as f64 / payload,
        syncs,
        messages as f64 / syncs as f64,
        stats.sync_micros.quantile(0.5),
        stats.sync_micros.quantile(0.99),
        stats.snapshots - before.snapshots,
    );
}

/// CPU time in microseconds of the threads of the open store and of sled; those of a store that was closed are gone.
fn cpu() -> u64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let mut total = 0;
    for task in tasks.flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let ours = name.contains("(warren") || name.contains("(sled");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        // The kernel's clock tick has been 1/100 s on every Linux for decades.
        total += if ours { (ticks(11) + ticks(12)) * 10_000 } else { 0 };
    }
    total
}
