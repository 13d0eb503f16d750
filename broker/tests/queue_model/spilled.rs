//! Transient messages that memory has no room for, with a real store below.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use broker::model::clock::Clock;
use broker::model::memory::Owner;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::Terms;
use broker::queue::delivery_limit::Return;
use broker::queue::item::{OutItem, Written};
use broker::queue::outbox::Outbox;
use broker::queue::settle::Acked;
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Queue, Services};

use crate::manual_time::ManualTime;
use crate::support::{Disk, LOST};
use crate::world::{START_MS, id_of, message, message_until, spec};

/// Of messages that stay in memory.
const RESIDENT_MAX: usize = 10_000;
const BODY: usize = 1_000;

pub(crate) struct Client {
    outbox: Arc<Outbox>,
    channel: u32,
}

impl Client {
    pub(crate) fn new(queue: &Arc<Queue>, prefetch: u32) -> Self {
        let outbox = Arc::new(Outbox::new(usize::MAX, Arc::default(), Arc::default()));
        let channel = outbox.open_channel(1);
        let id = ConsumerId(1);
        let terms = Terms { prefetch, ..Terms::default() };
        let slot = outbox.add_consumer(id, Arc::clone(queue), channel, terms);
        let consumer = Consumer { id, outbox: Arc::clone(&outbox), slot, exclusive: false, no_ack: false, priority: 0 };
        assert_eq!(queue.attach(consumer, || {}, &mut WakeList::default()), Attach::Attached);
        Self { outbox, channel }
    }

    /// The next messages, as many as asked for: delivery tags and ids.
    pub(crate) fn next(&self, count: usize) -> Vec<(u64, u64)> {
        let mut got = Vec::new();
        let begun = Instant::now();
        while got.len() < count {
            let mut items = VecDeque::new();
            self.outbox.take_items(&mut items, &mut Vec::new());
            let mut written = Written::default();
            items.iter().for_each(|item| written.add(item));
            self.outbox.written(&written, &mut Vec::new());
            for item in items {
                if let OutItem::Deliver(delivery) = item {
                    got.push((delivery.tag, id_of(&delivery.message)));
                }
            }
            assert!(begun.elapsed() < LOST, "only {} of {count} came", got.len());
            std::thread::yield_now();
        }
        got
    }

    pub(crate) fn settle(&self, tag: u64, requeue: bool) {
        let mut resume = Vec::new();
        let mut back = broker::queue::settle::Requeue::default();
        let mut acked = Acked::default();
        if requeue {
            self.outbox.hold(self.channel);
        }
        assert!(self.outbox.take_unacked(self.channel, tag, true, &mut resume, |queue, unacked| {
            if requeue { back.add(queue, unacked, Return::Unharmed) } else { acked.add(queue, &unacked) }
        }));
        acked.commit();
        back.commit(&mut WakeList::default());
        if requeue {
            self.outbox.let_go(self.channel, &mut resume);
        }
        for resume in resume {
            resume.queue.resume(resume.consumer, &mut WakeList::default());
        }
    }

    /// It leaves, and what it has not settled goes back.
    pub(crate) fn close(&self) {
        let undelivered = self.outbox.close(&mut VecDeque::new());
        for resume in undelivered.consumers {
            resume.queue.detach(resume.consumer);
        }
        undelivered.requeue.commit(&mut WakeList::default());
    }
}

fn services(disk: &Disk) -> Services {
    let mut services = Services::new(Arc::clone(&disk.store), Clock::system());
    services.resident_max_bytes = RESIDENT_MAX;
    services
}

fn queue(services: &Services, durable: bool) -> Arc<Queue> {
    Queue::new(services.store.new_queue_id(), spec(durable), services.clone())
}

fn publish(queue: &Arc<Queue>, id: u64, persistent: bool) {
    queue.publish(&message(id, persistent, BODY), &mut WakeList::default());
}

fn files(disk: &Disk) -> usize {
    disk.store.spill().stats().files
}

/// Waits until everything that the spill was asked for before is done.
fn barrier(disk: &Disk) {
    let (done, wait) = std::sync::mpsc::channel();
    disk.store.spill().take(
        u64::MAX,
        1,
        1,
        Box::new(move |_| {
            let _ = done.send(());
        }),
    );
    wait.recv_timeout(LOST).expect("the spill answers");
}

#[test]
fn a_deep_transient_queue_costs_disk_and_keeps_its_order() {
    const COUNT: u64 = 3_000;
    for durable in [false, true] {
        let disk = Disk::new();
        let services = services(&disk);
        let queue = queue(&services, durable);
        for id in 0..COUNT {
            publish(&queue, id, false);
        }
        assert_eq!(u64::from(queue.message_count()), COUNT);
        let begun = Instant::now();
        while disk.store.spill().waiting_bytes() > 1 << 19 {
            assert!(begun.elapsed() < LOST, "it is not written");
            barrier(&disk);
        }
        assert!(files(&disk) > 0);
        let held = services.memory.held(Owner::Queues) + services.store.spill().waiting_bytes();
        assert!(held < 1 << 20, "{held} octets in memory");
        let client = Client::new(&queue, 0);
        let got = client.next(COUNT as usize);
        assert!(got.iter().map(|(_, id)| *id).eq(0..COUNT));
        client.settle(0, false);
        assert_eq!(queue.message_count(), 0);
        barrier(&disk);
        assert_eq!(files(&disk), 0, "the space comes back");
    }
}

#[test]
fn transient_and_persistent_messages_keep_their_order() {
    const COUNT: u64 = 2_000;
    // Runs of different length, so that one place is far ahead of the other and then the other way round.
    for run in [1, 2, 7, 300] {
        let disk = Disk::new();
        let services = services(&disk);
        let queue = queue(&services, true);
        let persistent = |id: u64| if run == 300 { id.is_multiple_of(300) } else { (id / run).is_multiple_of(2) };
        for id in 0..COUNT {
            publish(&queue, id, persistent(id));
        }
        disk.wait_durable();
        let client = Client::new(&queue, 100);
        let mut expected = 0;
        while expected < COUNT {
            let got = client.next(100);
            assert!(got.iter().map(|(_, id)| *id).eq(expected..expected + 100), "after {expected}, runs of {run}");
            let (tag, _) = got[99];
            // Everything is seen twice: what comes back keeps its place.
            client.settle(tag, true);
            let again = client.next(100);
            assert!(again.iter().map(|(_, id)| *id).eq(expected..expected + 100), "again after {expected}");
            client.settle(again[99].0, false);
            expected += 100;
        }
    }
}

#[test]
fn a_purge_and_a_deletion_remove_the_files() {
    let disk = Disk::new();
    let services = services(&disk);
    let purged = queue(&services, false);
    let deleted = queue(&services, false);
    for id in 0..2_000 {
        publish(&purged, id, false);
        publish(&deleted, id, false);
    }
    barrier(&disk);
    assert!(files(&disk) >= 2);
    assert_eq!(purged.purge().0, 2_000);
    assert_eq!(deleted.close(false, false), Ok(2_000));
    barrier(&disk);
    assert_eq!(files(&disk), 0);
    for id in 0..500 {
        publish(&purged, 10_000 + id, false);
    }
    let client = Client::new(&purged, 0);
    assert!(client.next(500).iter().map(|(_, id)| *id).eq(10_000..10_500), "and what comes later is all there is");
}

#[test]
fn a_queue_that_has_expired_on_disk_is_empty() {
    let disk = Disk::new();
    let time = ManualTime::at(START_MS);
    let mut services = Services::new(Arc::clone(&disk.store), time.clock());
    services.resident_max_bytes = RESIDENT_MAX;
    let queue = queue(&services, false);
    for id in 0..500 {
        let until = message_until(id, false, BODY, Some(START_MS + 1_000 + id % 2));
        queue.publish(&until, &mut WakeList::default());
    }
    time.pass(1_000);
    services.timers.fire();
    assert_eq!(queue.message_count(), 250);
    time.pass(1);
    services.timers.fire();
    assert_eq!(queue.message_count(), 0);
    publish(&queue, 1_000, false);
    let client = Client::new(&queue, 0);
    assert_eq!(client.next(1)[0].1, 1_000);
}
