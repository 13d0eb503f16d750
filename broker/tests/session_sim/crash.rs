//! The power fails under a whole broker: sessions, queues and store, on a faulty file system, over several starts.
//!
//! The seed decides what the clients do and in which order, when the log may become durable, at which moment the power fails
//! (between two steps, or at some call of the store while a group becomes durable), and what of the unsynced is left. What
//! it does not decide is how the store's threads take turns: which calls come before the failure can differ between two
//! runs, so a seed that failed may have to be run again.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::fs::faulty::{Disk, FaultyFs, When};
use storage::{Durable, Options, SeqRange};

use crate::ledger::{Account, Id};
use crate::simulation::{Before, House, Simulation, named, seeds};
use crate::support::{self, LOST, Release};

const STARTS: usize = 3;

#[test]
fn the_power_fails_under_random_workloads() {
    let all = std::env::var("SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    for seed in seeds(3000..3000 + all) {
        named(seed, || run(seed));
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = Disk::default();
    let mut before: Option<Before> = None;
    for start in 0..=STARTS {
        let directory = scratch();
        let fs = FaultyFs::mount(disk, directory.path(), "sled", rng.random()).expect("mounted");
        let mut options = Options::new(directory.path());
        options.segment_bytes = 64 << 10;
        options.snapshot_bytes = 64 << 10;
        options.checkpoint_interval = Duration::from_micros([0, 500, 5_000][rng.random_range(0..3)]);
        options.fs = Arc::new(fs.clone());
        let (store, found) = support::Disk::open_with(options, directory, true).expect("it opens");
        let harmless = ["the sled database in", "rebuilt from the log alone", "no message names it"];
        let serious: Vec<_> =
            found.damage.iter().filter(|line| !harmless.iter().any(|text| line.contains(text))).collect();
        assert_eq!(serious, Vec::<&String>::new());
        let outbox_bytes = [3_000, 1 << 20][rng.random_range(0..2)];
        let house = House::on(store, found, |settings| settings.limits.outbox_bytes = outbox_bytes);
        let release = Release(&house.disk.gate);
        let mut simulation = match before.take() {
            None => Simulation::new(&house, seed, &format!("crash{seed}")),
            Some(before) => check(&house, seed + start as u64, before),
        };
        simulation.doomed_to_crash = true;
        simulation.steps(rng.random_range(10..250));
        if start == STARTS {
            simulation.rest();
            simulation.check_rest();
        }
        cut(&fs, &house, &mut rng);
        before = Some(simulation.leave());
        drop(release);
        disk = fs.cut().after_power_loss(&mut rng);
    }
}

fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory")
}

struct Told(mpsc::Sender<()>);

impl Durable for Told {
    fn durable(&self) {
        let _ = self.0.send(());
    }
}

/// The power fails, now or while what was done last becomes durable.
fn cut(fs: &FaultyFs, house: &House, rng: &mut StdRng) {
    if rng.random() {
        let store = &house.disk.store;
        let (told, wait) = mpsc::channel();
        let failed = told.clone();
        store.on_failure(Box::new(move |_| {
            let _ = failed.send(());
        }));
        fs.lose_power(When::Nth(rng.random_range(1..12)), |_, _| true);
        let last = store.settle(0, SeqRange::one(1));
        store.notify_at(last, Arc::new(Told(told)));
        house.disk.gate.release_syncs();
        wait.recv_timeout(LOST).expect("it becomes durable, or the store stops");
    }
    fs.switch_off();
}

/// Everything that was vouched for is there, once, in order and as redelivered; nothing that was settled for good is.
fn check<'h>(house: &'h House, seed: u64, mut before: Before) -> Simulation<'h> {
    for queue in &before.ledger.declared {
        assert!(house.vhost().queue(queue).is_some(), "{queue} is gone");
    }
    let old = std::mem::take(&mut before.ledger.accounts);
    let durable = |queue: &String| queue.ends_with("-durable");
    before.ledger.accounts = old
        .iter()
        .filter(|(queue, _)| durable(queue))
        .map(|(queue, a)| (queue.clone(), a.after_power_loss()))
        .collect();
    // The deletion may have been the last that was durable, and then the one who checks declares it again.
    before.ledger.declared.clear();
    let mut simulation = Simulation::resumed(house, seed, before);
    for (queue, account) in old.iter().filter(|(queue, _)| durable(queue)) {
        let reader = simulation.connect();
        simulation.clients[reader].consume(1, queue, false);
        simulation.rest();
        let found = simulation.clients[reader].channels[&1].held();
        let account_now = simulation.ledger.account(queue);
        assert!(!account_now.has_fresh(), "{queue}: somebody may have seen it before");
        let missing: Vec<Id> = account.owed().into_iter().filter(|id| !found.contains(id)).collect();
        assert!(missing.is_empty(), "{queue}: lost {missing:?}");
        for (at, id) in found.iter().enumerate() {
            let later = &found[at + 1..];
            let wrong = later.iter().find(|other| other.publisher == id.publisher && other.number <= id.number);
            assert_eq!(wrong, None, "{queue}: behind {id:?}");
        }
        assert_eq!((house.queue(queue).message_count(), house.queue(queue).unacked_count()), (0, found.len()));
        *account_now = Account::holding(&found);
        drop(simulation.clients.swap_remove(reader));
        simulation.rest();
    }
    simulation.ledger.declared.extend(old.keys().filter(|queue| durable(queue)).cloned());
    simulation
}
