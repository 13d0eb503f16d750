//! A broker with several clients, driven by a seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use broker::auth::{self, AuthStore};
use broker::broker::Broker;
use broker::config::Settings;
use broker::model::clock::Clock;
use broker::queue::{Queue, Services};
use broker::vhost::{self, Vhost};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use storage::Recovered;

use crate::client::{Client, Mode};
use crate::ledger::{Id, Ledger};
use crate::support::{Disk, Release};

const CLIENTS: usize = 3;
const STEPS: usize = 300;

/// A broker on a disk of its own.
pub(crate) struct House {
    pub(crate) disk: Disk,
    pub(crate) broker: Arc<Broker>,
}

impl House {
    pub(crate) fn new(outbox_bytes: usize) -> Self {
        Self::with(|settings| settings.limits.outbox_bytes = outbox_bytes)
    }

    /// A broker with other settings than the defaults.
    pub(crate) fn with(set: impl FnOnce(&mut Settings)) -> Self {
        Self::on(Disk::new(), Recovered::default(), set)
    }

    pub(crate) fn on(disk: Disk, found: Recovered, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::defaults().expect("defaults");
        set(&mut settings);
        let services = Services::new(Arc::clone(&disk.store), Clock::system());
        let recovery = vhost::recover(&services, found.topology, found.queues);
        let pairs = recovery.other.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let auth = AuthStore::open(Arc::clone(&disk.store) as _, &settings.auth, pairs).expect("users");
        let broker = Arc::new(Broker::new(settings, services, Arc::new(auth), recovery.vhosts));
        broker.create_vhost("/");
        let settings = &broker.settings;
        auth::prepare(&broker.auth, &settings.default_user, &settings.topology, |_| true).expect("a user");
        disk.barrier();
        Self { disk, broker }
    }

    /// The same broker after a clean stop: what its queues hold is on disk only.
    pub(crate) fn restart(self) -> Self {
        let Self { disk, broker } = self;
        let limits = broker.settings.limits.clone();
        disk.gate.release_syncs();
        disk.barrier();
        drop(broker);
        let (disk, found) = disk.reopen(Vec::new());
        Self::on(disk, found, |settings| settings.limits = limits)
    }

    pub(crate) fn vhost(&self) -> Arc<Vhost> {
        self.broker.vhost("/").expect("the default vhost")
    }

    pub(crate) fn queue(&self, name: &str) -> Arc<Queue> {
        self.vhost().queue(name).expect("a queue")
    }
}

/// What outlives a restart.
pub(crate) struct Before {
    pub(crate) ledger: Ledger,
    next_client: u64,
    next_number: u64,
    queues: Vec<String>,
    pub(crate) doomed: String,
}

pub(crate) struct Simulation<'h> {
    house: &'h House,
    rng: StdRng,
    pub(crate) clients: Vec<Client>,
    pub(crate) ledger: Ledger,
    /// How often everything has become durable.
    pub(crate) syncs: u64,
    next_client: u64,
    next_number: u64,
    /// Queues with an account, then one that comes and goes.
    queues: Vec<String>,
    doomed: String,
    /// There is a backlog on disk only.
    cold: bool,
    /// The power is going to fail: nothing is delivered that nobody acknowledges, since nobody would know whether it was.
    pub(crate) doomed_to_crash: bool,
}

impl<'h> Simulation<'h> {
    /// Clients with a channel each, and queues named after `name`.
    pub(crate) fn new(house: &'h House, seed: u64, name: &str) -> Self {
        let mut simulation = Self {
            house,
            rng: StdRng::seed_from_u64(seed),
            clients: Vec::new(),
            ledger: Ledger::default(),
            syncs: 0,
            next_client: 1,
            next_number: 0,
            queues: vec![format!("{name}-durable"), format!("{name}-transient")],
            doomed: if name.starts_with("crash") { format!("{name}-doomed-durable") } else { format!("{name}-doomed") },
            cold: false,
            doomed_to_crash: false,
        };
        simulation.begin(true);
        simulation
    }

    /// Goes on with the queues of `before`, which the house has been restarted with.
    pub(crate) fn resumed(house: &'h House, seed: u64, before: Before) -> Self {
        let Before { ledger, next_client, next_number, queues, doomed } = before;
        let rng = StdRng::seed_from_u64(seed);
        let clients = Vec::new();
        let mut simulation = Self {
            house,
            rng,
            clients,
            ledger,
            syncs: 0,
            next_client,
            next_number,
            queues,
            doomed,
            cold: true,
            doomed_to_crash: false,
        };
        simulation.begin(false);
        simulation
    }

    /// Ends it without looking; only what is durable is to be found again.
    pub(crate) fn interrupt(mut self) -> Before {
        self.rest();
        self.leave()
    }

    /// Ends it where it stands.
    pub(crate) fn leave(self) -> Before {
        let Self { ledger, next_client, next_number, queues, doomed, .. } = self;
        Before { ledger, next_client, next_number, queues, doomed }
    }

    /// Clients come, and the queues are declared.
    fn begin(&mut self, fresh: bool) {
        for _ in 0..CLIENTS {
            self.connect();
        }
        let queues = self.queues.clone();
        let doomed = self.doomed.clone();
        for (index, queue) in queues.iter().enumerate() {
            if index > 0 || fresh {
                self.clients[0].declare(1, queue, index == 0);
            }
        }
        if self.house.vhost().queue(&doomed).is_none() {
            self.clients[0].declare(1, &doomed, doomed.ends_with("-durable"));
        }
        self.rest();
        assert!(self.clients.iter().all(|client| client.opened));
    }

    pub(crate) fn connect(&mut self) -> usize {
        let mut client = Client::new(&self.house.broker, self.next_client);
        client.open(1);
        self.next_client += 1;
        self.clients.push(client);
        self.clients.len() - 1
    }

    pub(crate) fn next_id(&mut self, client: usize, channel: u16) -> Id {
        self.next_number += 1;
        Id { publisher: self.clients[client].channels[&channel].key, number: self.next_number }
    }

    /// Everything appended so far becomes durable.
    pub(crate) fn sync(&mut self) {
        // Counted first: what is asked for from here on waits for the next one.
        self.syncs += 1;
        self.house.disk.gate.release_syncs();
        self.house.disk.wait_durable();
        self.house.disk.gate.hold_syncs();
        self.ledger.sync();
    }

    /// A read of the backlog that has been asked for stops after the choice of its messages, until the gate is released.
    pub(crate) fn stop_in_read(&mut self) {
        self.syncs += 1;
        let Disk { gate, .. } = &self.house.disk;
        gate.hold_reads();
        gate.release_syncs();
        gate.run_to(self.house.disk.stop_reader());
        // Readers are told before those who wait for a position.
        self.house.disk.wait_durable();
        gate.hold_syncs();
    }

    /// The backlog is not read until the gate is released.
    pub(crate) fn stop_reader(&mut self) {
        self.syncs += 1;
        let Disk { gate, .. } = &self.house.disk;
        gate.release_syncs();
        gate.run_to(self.house.disk.stop_reader());
        gate.hold_syncs();
    }

    pub(crate) fn turn(&mut self, client: usize, frames: usize, limit: usize) {
        self.clients[client].turn(frames, limit, self.syncs, &mut self.ledger);
    }

    /// Runs everybody who is awake until nobody is.
    pub(crate) fn rest(&mut self) {
        let mut quiet = 0;
        let mut turns = 0;
        while quiet < 2 {
            self.sync();
            if self.cold {
                self.house.disk.gate.release_syncs();
                self.house.disk.barrier();
                self.house.disk.gate.hold_syncs();
            }
            quiet += 1;
            while let Some(client) = (0..self.clients.len()).find(|at| self.is_runnable(*at)) {
                self.turn(client, 64, 1 << 16);
                quiet = 0;
                turns += 1;
                assert!(turns < 100_000, "nobody comes to rest");
            }
        }
    }

    fn is_runnable(&self, client: usize) -> bool {
        self.clients[client].is_awake()
    }

    pub(crate) fn steps(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn step(&mut self) {
        let client = self.rng.random_range(0..self.clients.len());
        match self.rng.random_range(0..100) {
            0..45 => {
                if self.is_runnable(client) {
                    let frames = self.rng.random_range(0..6);
                    let limit = [0, 1, 300, 1 << 16][self.rng.random_range(0..4)];
                    self.turn(client, frames, limit);
                }
            }
            45..50 => self.sync(),
            50..51 => self.lose(client),
            _ => self.act(client),
        }
    }

    /// The client's socket breaks.
    fn lose(&mut self, client: usize) {
        if self.clients[client].indispensable {
            return;
        }
        drop(self.clients.swap_remove(client));
        self.connect();
    }

    fn act(&mut self, at: usize) {
        let number = self.rng.random_range(1..3);
        let queue = self.rng.random_range(0..self.queues.len() + 1);
        let queue = self.queues.get(queue).unwrap_or(&self.doomed).clone();
        let no_ack = self.rng.random_bool(0.15) && !self.doomed_to_crash;
        let Some(channel) = self.clients[at].channels.get(&number) else {
            self.clients[at].open(number);
            let mode = [Mode::Plain, Mode::Confirm, Mode::Transaction][self.rng.random_range(0..3)];
            self.clients[at].select(number, mode);
            return;
        };
        if !channel.is_free() {
            return;
        }
        let transactional = channel.mode == Mode::Transaction;
        let tags = channel.tags();
        let consumers = channel.consumers.len();
        match self.rng.random_range(0..100) {
            0..35 => {
                for _ in 0..self.rng.random_range(1..5) {
                    let id = self.next_id(at, number);
                    let (persistent, len) = (self.rng.random_bool(0.5), [16, 200][self.rng.random_range(0..2)]);
                    self.clients[at].publish(number, &queue, id, persistent, len);
                }
            }
            35..43 if consumers < 3 => self.clients[at].consume(number, &queue, no_ack),
            43..46 => {
                let pick = self.rng.random_range(0..consumers.max(1));
                self.clients[at].cancel(number, pick);
            }
            46..50 => {
                let prefetch = self.rng.random_range(0..5);
                self.clients[at].qos(number, prefetch);
            }
            50..60 => self.clients[at].get(number, &queue, no_ack),
            60..80 if !tags.is_empty() => {
                let tag = tags[self.rng.random_range(0..tags.len())];
                let (multiple, requeue) = (self.rng.random_bool(0.4), self.rng.random_bool(0.3));
                self.clients[at].settle(number, tag, multiple, requeue);
            }
            80..82 if !transactional => self.clients[at].recover(number),
            82..90 if transactional => self.clients[at].commit(number),
            90..92 if transactional => self.clients[at].rollback(number),
            92..93 => self.clients[at].close_channel(number),
            93..94 => {
                let doomed = self.doomed.clone();
                self.clients[at].renew(number, &doomed);
            }
            94..95 => {
                let durable = self.queues[0].clone();
                self.clients[at].purge(number, &durable);
            }
            95..97 => {
                // A name of its own: what exists is answered at once.
                self.next_number += 1;
                let name = format!("{}-{}", self.queues[0], self.next_number);
                self.clients[at].declare(number, &name, true);
            }
            97..98 => self.clients[at].publish_nowhere(number, 100),
            _ => {}
        }
    }

    /// Everybody has what they are owed, and nobody waits for a message that is there.
    pub(crate) fn check_rest(&self) {
        for client in &self.clients {
            for channel in client.channels.values() {
                assert_eq!(channel.owed(), 0, "answers that never came, in mode {:?}", channel.mode);
            }
            assert!(client.refusals.is_empty(), "{:?}", client.refusals);
            for queue in client.hungry() {
                assert_eq!(self.house.queue(queue).message_count(), 0, "{queue}: a consumer with credit waits");
            }
        }
        for queue in self.queues.iter().chain([&self.doomed]) {
            let known: usize = self.clients.iter().map(|client| client.consumers_of(queue)).sum();
            assert_eq!(self.house.queue(queue).consumer_count() as usize, known, "{queue}: consumers");
        }
    }

    /// Everybody leaves, one way or the other; what was published and not settled is still there.
    pub(crate) fn check_end(mut self) {
        self.rest();
        self.check_rest();
        for at in 0..self.clients.len() {
            if self.rng.random_bool(0.5) {
                self.clients[at].close();
                self.rest();
                assert!(self.clients[at].over, "close-ok never came");
            }
        }
        self.clients.clear();
        self.rest();
        let reader = self.connect();
        self.rest();
        for name in self.queues.clone() {
            let queue = self.house.queue(&name);
            assert_eq!((queue.unacked_count(), queue.consumer_count()), (0, 0), "{name}");
            let account = self.ledger.account(&name);
            let left = account.published.len() - account.settled.len() - account.purged;
            assert_eq!(queue.message_count() as usize, left, "{name}: messages left");
            for _ in 0..left {
                self.clients[reader].get(1, &name, true);
            }
            self.clients[reader].get(1, &name, true);
            self.rest();
            let account = self.ledger.account(&name);
            assert_eq!(account.published.len(), account.settled.len() + account.purged, "{name}: all accounted for");
            assert_eq!(queue.message_count(), 0, "{name}");
        }
        self.check_rest();
        self.clients.clear();
        for name in &self.queues {
            let queue = self.house.queue(name);
            let outboxes = Arc::strong_count(&queue);
            assert_eq!(outboxes, 2, "{name} is leaked");
        }
    }
}

/// Runs one seed and names it when it fails.
pub(crate) fn named(seed: u64, run: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        eprintln!("SIM_SEED={seed} fails");
        resume_unwind(panic);
    }
}

/// The seeds of a test, or the one that was asked for.
pub(crate) fn seeds(all: std::ops::Range<u64>) -> impl Iterator<Item = u64> + Clone {
    let only: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    all.filter(move |seed| only.is_none_or(|only| only == *seed))
}

fn run(all: std::ops::Range<u64>, outbox_bytes: usize) {
    let house = House::new(outbox_bytes);
    let _release = Release(&house.disk.gate);
    for seed in seeds(all) {
        named(seed, || {
            let mut simulation = Simulation::new(&house, seed, &format!("s{seed}"));
            simulation.steps(STEPS);
            simulation.check_end();
        });
    }
}

#[test]
fn random_workloads() {
    run(0..200, 1 << 20);
}

#[test]
fn random_workloads_with_full_outboxes() {
    run(1000..1200, 3_000);
}

/// The reader of the backlog runs on its own here: a seed may need several runs to fail again.
#[test]
fn random_workloads_on_cold_backlogs() {
    let all = seeds(2000..2100);
    let house = House::new(20_000);
    let mut interrupted = Vec::new();
    for seed in all.clone() {
        let mut simulation = Simulation::new(&house, seed, &format!("s{seed}"));
        let name = simulation.queues[0].clone();
        for _ in 0..seed % 50 {
            let id = simulation.next_id(0, 1);
            simulation.clients[0].publish(1, &name, id, true, 50);
        }
        interrupted.push(simulation.interrupt());
    }
    let house = house.restart();
    let _release = Release(&house.disk.gate);
    for (seed, before) in all.zip(interrupted) {
        named(seed, || {
            let mut simulation = Simulation::resumed(&house, seed, before);
            simulation.steps(STEPS);
            simulation.check_end();
        });
    }
}
