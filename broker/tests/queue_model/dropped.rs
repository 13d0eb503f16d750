//! The head of a deep backlog leaves for lack of room: from memory, from the spill and from the store.

use std::sync::Arc;
use std::time::Instant;

use broker::model::death::Reason;
use broker::model::limit_arguments::Overflow;
use broker::queue::dead_letter::{DeadLetterTo, Taken};
use broker::queue::settings::QueueSettings;
use broker::queue::signal::WakeList;
use broker::queue::{Published, Queue, Services};
use storage::SeqRange;

use crate::manual_time::ManualTime;
use crate::spilled::Client;
use crate::support::{Disk, LOST};
use crate::world::{START_MS, id_of, message, message_until, spec, stored};

/// Of messages that stay in memory.
const RESIDENT_MAX: usize = 10_000;
const BODY: usize = 1_000;
const COUNT: u64 = 2_000;

fn setting(max_length: u64) -> QueueSettings {
    QueueSettings { max_length: Some(max_length), ..QueueSettings::default() }
}

fn queue(disk: &Disk, time: &Arc<ManualTime>) -> (Arc<Queue>, Services) {
    let mut services = Services::new(Arc::clone(&disk.store), time.clock());
    services.resident_max_bytes = RESIDENT_MAX;
    (Queue::new(disk.store.new_queue_id(), spec(true), services.clone()), services)
}

fn wait_for(queue: &Queue, count: u32) {
    let begun = Instant::now();
    while queue.message_count() != count {
        assert!(begun.elapsed() < LOST, "{} messages, not {count}", queue.message_count());
        std::thread::yield_now();
    }
}

/// Which messages survive, by their number.
fn kinds() -> [fn(u64) -> bool; 5] {
    [|_| true, |_| false, |id| id.is_multiple_of(2), |id| (id / 300).is_multiple_of(2), |id| id.is_multiple_of(7)]
}

#[test]
fn what_is_left_is_the_newest() {
    for (number, is_persistent) in kinds().into_iter().enumerate() {
        for bytes in [false, true] {
            let disk = Disk::new();
            let (queue, _services) = queue(&disk, &ManualTime::at(START_MS));
            for id in 0..COUNT {
                queue.publish(&message(id, is_persistent(id), BODY), &mut WakeList::default());
            }
            assert_eq!(u64::from(queue.message_count()), COUNT);
            let settings = QueueSettings { max_length_bytes: Some(100 * BODY as u64), ..QueueSettings::default() };
            queue.set_settings(if bytes { settings } else { setting(100) });
            wait_for(&queue, 100);
            // One comes and one goes.
            for id in COUNT..COUNT + 50 {
                queue.publish(&message(id, is_persistent(id), BODY), &mut WakeList::default());
            }
            wait_for(&queue, 100);
            disk.wait_durable();
            let left = COUNT - 50..COUNT + 50;
            let persistent = left.clone().filter(|id| is_persistent(*id)).count();
            assert_eq!(stored(&disk, &queue).len(), persistent, "kind {number}, bytes {bytes}");
            let client = Client::new(&queue, 0);
            let got: Vec<u64> = client.next(100).into_iter().map(|(_, id)| id).collect();
            assert!(got.iter().copied().eq(left), "kind {number}, bytes {bytes}: {got:?}");
        }
    }
}

#[test]
fn what_never_fits_leaves_as_it_comes() {
    for is_persistent in kinds() {
        let disk = Disk::new();
        let (queue, _services) = queue(&disk, &ManualTime::at(START_MS));
        queue.set_settings(setting(30));
        for id in 0..COUNT {
            queue.publish(&message(id, is_persistent(id), BODY), &mut WakeList::default());
        }
        wait_for(&queue, 30);
        let client = Client::new(&queue, 0);
        assert!(client.next(30).into_iter().map(|(_, id)| id).eq(COUNT - 30..COUNT));
    }
}

#[test]
fn they_are_dead_lettered_in_their_order() {
    for is_persistent in kinds() {
        let disk = Disk::new();
        let (queue, services) = queue(&disk, &ManualTime::at(START_MS));
        let to = DeadLetterTo { exchange: "dead".into(), routing_key: None, at_least_once: false };
        queue.set_dead_letter_to(Some(Arc::new(to)));
        for id in 0..COUNT {
            queue.publish(&message(id, is_persistent(id), BODY), &mut WakeList::default());
        }
        queue.set_settings(setting(100));
        let begun = Instant::now();
        let mut dead = Vec::new();
        while dead.len() < COUNT as usize - 100 {
            assert!(begun.elapsed() < LOST, "only {} came", dead.len());
            let Some(source) = services.dead_letters.pop() else {
                std::thread::yield_now();
                continue;
            };
            if let Taken::Messages(messages) = source.take_dead(100) {
                for message in messages {
                    let id = id_of(&message.message);
                    assert_eq!((message.reason, message.stored.is_some()), (Reason::MaxLen, is_persistent(id)));
                    dead.push(id);
                    if let Some(seq) = message.stored {
                        source.store_settled(&[SeqRange::one(seq)]);
                    }
                }
                source.moved_dead(Vec::new());
            }
        }
        assert!(dead.into_iter().eq(0..COUNT - 100));
        disk.wait_durable();
        assert_eq!(stored(&disk, &queue).len(), (COUNT - 100..COUNT).filter(|id| is_persistent(*id)).count());
    }
}

#[test]
fn what_has_expired_in_between_takes_no_room() {
    for is_persistent in kinds() {
        let disk = Disk::new();
        let time = ManualTime::at(START_MS);
        let (queue, services) = queue(&disk, &time);
        for id in 0..500 {
            let deadline_ms = (id % 2 == 1).then_some(START_MS + 1_000);
            let message = message_until(id, is_persistent(id), BODY, deadline_ms);
            queue.publish(&message, &mut WakeList::default());
        }
        queue.set_settings(setting(300));
        wait_for(&queue, 300);
        // 200 to 499 are left, half of which have time.
        time.pass(1_000);
        services.timers.fire();
        let named: Vec<u64> = (1..=500).filter(|seq| seq % 2 == 0 && is_persistent(seq - 1)).collect();
        queue.expire_stored(0, &named);
        wait_for(&queue, 150);
        for id in 500..700 {
            queue.publish(&message(id, is_persistent(id), BODY), &mut WakeList::default());
        }
        wait_for(&queue, 300);
        let client = Client::new(&queue, 0);
        let got: Vec<u64> = client.next(300).into_iter().map(|(_, id)| id).collect();
        assert!(got.into_iter().eq((300..500).step_by(2).chain(500..700)));
        assert_eq!(queue.message_count(), 0);
    }
}

#[test]
fn a_length_in_octets_is_exact_after_a_restart() {
    let settings = QueueSettings { max_length_bytes: Some(COUNT * BODY as u64), ..QueueSettings::default() };
    for reject in [false, true] {
        let overflow = if reject { Overflow::RejectPublish } else { Overflow::DropHead };
        let settings = QueueSettings { overflow, ..settings };
        let disk = Disk::new();
        let (queue, _services) = queue(&disk, &ManualTime::at(START_MS));
        queue.set_settings(settings);
        for id in 0..COUNT {
            queue.publish(&message(id, true, BODY), &mut WakeList::default());
        }
        assert_eq!(queue.body_bytes(), COUNT * BODY as u64);
        drop(queue);
        let (disk, found) = disk.reopen(Vec::new());
        let services = Services::new(Arc::clone(&disk.store), ManualTime::at(START_MS).clock());
        let queue = Queue::recovered(found.queues[0].id, spec(true), services.clone(), &found.queues);
        queue.set_settings(settings);
        let begun = Instant::now();
        while queue.body_bytes() < COUNT * BODY as u64 {
            assert!(begun.elapsed() < LOST, "only {} octets are known", queue.body_bytes());
            std::thread::yield_now();
        }
        assert_eq!(u64::from(queue.message_count()), COUNT, "all of them fit");
        let published = queue.publish(&message(COUNT, true, BODY), &mut WakeList::default());
        assert_eq!(published == Published::Refused, reject);
        let left = if reject { 0..COUNT } else { 1..COUNT + 1 };
        wait_for(&queue, COUNT as u32);
        assert_eq!(queue.body_bytes(), COUNT * BODY as u64);
        let client = Client::new(&queue, 0);
        assert!(client.next(COUNT as usize).into_iter().map(|(_, id)| id).eq(left));
        assert_eq!(queue.body_bytes(), 0);
    }
}
