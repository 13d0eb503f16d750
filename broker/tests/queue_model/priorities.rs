//! Priorities with a backlog that is far larger than memory, with a real store and a real spill below.

use std::sync::Arc;
use std::time::Instant;

use broker::model::clock::Clock;
use broker::model::memory::Owner;
use broker::queue::lanes::owner_of;
use broker::queue::outbox::Outbox;
use broker::queue::signal::WakeList;
use broker::queue::{Get, Queue, Services};
use storage::Seq;

use crate::spilled::Client;
use crate::support::{Disk, LOST};
use crate::world::{Features, stored, with_priority};

/// Of messages that stay in memory.
const RESIDENT_MAX: usize = 20_000;
const BODY: usize = 500;
const COUNT: u64 = 6_000;

const ALL: Features = Features { max_priority: 255, single_active: false, delivery_limit: None };

fn services(disk: &Disk) -> Services {
    let mut services = Services::new(Arc::clone(&disk.store), Clock::system());
    services.resident_max_bytes = RESIDENT_MAX;
    services
}

/// Every level in no order, so that each is spread over the whole backlog.
fn level(id: u64) -> u8 {
    (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The ids in the order in which they must come.
fn order(ids: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut ids: Vec<u64> = ids.collect();
    ids.sort_by_key(|id| (255 - level(*id), *id));
    ids
}

fn publish(queue: &Arc<Queue>, ids: impl Iterator<Item = u64>, persistent: impl Fn(u64) -> bool) {
    for id in ids {
        let message = with_priority(level(id), id, persistent(id), BODY, None);
        queue.publish(&message, &mut WakeList::default());
    }
}

fn ids(got: &[(u64, u64)]) -> Vec<u64> {
    got.iter().map(|(_, id)| *id).collect()
}

#[test]
fn the_highest_comes_first_from_any_depth() {
    for (durable, transient_every) in [(true, u64::MAX), (true, 3), (false, 1)] {
        let disk = Disk::new();
        let services = services(&disk);
        let queue = Queue::new(disk.store.new_queue_id(), ALL.spec(durable), services.clone());
        publish(&queue, 0..COUNT, |id| transient_every == u64::MAX || !id.is_multiple_of(transient_every));
        assert_eq!(u64::from(queue.message_count()), COUNT);
        let held = services.memory.held(Owner::Queues);
        assert!(held < 20 * RESIDENT_MAX, "{held} octets in memory");
        disk.wait_durable();
        let client = Client::new(&queue, 200);
        let expected = order(0..COUNT);
        for (turn, expected) in expected.chunks(200).enumerate() {
            let got = client.next(expected.len());
            assert_eq!(ids(&got), expected, "transient every {transient_every}, batch {turn}");
            // What comes back keeps its place in its priority.
            if turn % 7 == 3 {
                client.settle(0, true);
                assert_eq!(ids(&client.next(expected.len())), expected);
            }
            client.settle(0, false);
        }
        assert_eq!((queue.message_count(), queue.unacked_count()), (0, 0));
        disk.barrier();
        assert!(stored(&disk, &queue).is_empty());
    }
}

#[test]
fn a_priority_that_comes_later_overtakes_a_backlog_on_disk() {
    let disk = Disk::new();
    let services = services(&disk);
    let queue = Queue::new(disk.store.new_queue_id(), ALL.spec(true), services);
    publish(&queue, 0..COUNT, |id| id.is_multiple_of(2));
    disk.wait_durable();
    let client = Client::new(&queue, 1);
    let mut waiting = order(0..COUNT);
    for round in 0..50 {
        let expected = waiting.remove(0);
        assert_eq!(ids(&client.next(1)), [expected], "round {round}");
        let late = [COUNT + 2 * round, COUNT + 2 * round + 1];
        publish(&queue, late.into_iter(), |id| id.is_multiple_of(2));
        waiting.extend(late);
        waiting = order(waiting.into_iter());
        client.settle(0, false);
    }
}

#[test]
fn levels_survive_a_restart() {
    let disk = Disk::new();
    let queue = Queue::new(disk.store.new_queue_id(), ALL.spec(true), services(&disk));
    publish(&queue, 0..COUNT, |id| !id.is_multiple_of(5));
    disk.wait_durable();
    let id = queue.id();
    let client = Client::new(&queue, 100);
    let first = ids(&client.next(100));
    assert_eq!(first, order(0..COUNT)[..100]);
    client.settle(50, false);
    client.next(50);
    // The persistent ones of the next hundred go back, and were seen.
    client.close();
    let redelivered = queue.redelivered();
    let seen: Vec<u64> = order(0..COUNT)[50..150].iter().copied().filter(|id| !id.is_multiple_of(5)).collect();
    let messages = |ranges: &[storage::SeqRange]| ranges.iter().map(|range| range.last - range.first + 1).sum::<u64>();
    assert_eq!(redelivered.iter().map(|(_, ranges)| messages(ranges)).sum::<u64>(), seen.len() as u64);
    drop((client, queue));
    let (disk, found) = disk.reopen(redelivered);
    assert!(found.queues.len() > 200, "{} levels", found.queues.len());
    assert!(found.queues.iter().all(|level| owner_of(level.id).0 == id));
    let queue = Queue::recovered(id, ALL.spec(true), services(&disk), &found.queues);
    let left: Vec<u64> = order(0..COUNT)[50..].iter().copied().filter(|id| !id.is_multiple_of(5)).collect();
    assert_eq!(queue.message_count() as usize, left.len());
    let client = Client::new(&queue, 0);
    assert_eq!(ids(&client.next(left.len())), left);
    // Numbers go on above those that were used, in every level.
    publish(&queue, 0..COUNT, |_| true);
    client.settle(0, false);
    assert_eq!(ids(&client.next(COUNT as usize)).len(), COUNT as usize);
}

#[test]
fn a_purge_and_a_deletion_reach_every_level() {
    let disk = Disk::new();
    let services = services(&disk);
    let queue = Queue::new(disk.store.new_queue_id(), ALL.spec(true), services.clone());
    publish(&queue, 0..COUNT, |id| id.is_multiple_of(2));
    assert_eq!(u64::from(queue.purge().0), COUNT);
    assert_eq!(queue.message_count(), 0);
    disk.barrier();
    assert!(stored(&disk, &queue).is_empty());
    publish(&queue, 0..100, |id| id.is_multiple_of(2));
    disk.wait_durable();
    let outbox = Arc::new(Outbox::new(usize::MAX, Arc::default(), Arc::default()));
    let channel = outbox.open_channel(1);
    assert_eq!(queue.get(&outbox, channel, true), Get::Answered);
    assert_eq!(queue.close(false, false), Ok(99));
    assert!(queue.store_ids().len() > 200, "a deletion must name every level that was used");
    let begun = Instant::now();
    while disk.store.spill().stats().files > 0 {
        assert!(begun.elapsed() < LOST, "the files stay");
        std::thread::yield_now();
    }
    assert_eq!(services.memory.held(Owner::Queues), 0);
}

#[test]
fn messages_of_one_level_are_numbered_without_holes() {
    let disk = Disk::new();
    let queue = Queue::new(disk.store.new_queue_id(), ALL.spec(true), services(&disk));
    publish(&queue, 0..1_000, |_| true);
    disk.barrier();
    let seqs: Vec<Seq> = stored(&disk, &queue);
    assert_eq!(seqs.len(), 1_000);
    for level_seqs in seqs.chunk_by(|a, b| owner_of(*a).1 == owner_of(*b).1) {
        let numbers: Vec<u64> = level_seqs.iter().map(|seq| owner_of(*seq).0).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    }
    // Nothing else is needed to read them in order.
    let client = Client::new(&queue, 0);
    assert_eq!(ids(&client.next(1_000)), order(0..1_000));
}
