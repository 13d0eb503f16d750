//! Credit and unacknowledged deliveries, case by case.

use std::collections::VecDeque;
use std::sync::Arc;

use broker::model::clock::Clock;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::Terms;
use broker::queue::delivery_limit::Return;
use broker::queue::item::{OutItem, Written};
use broker::queue::outbox::Outbox;
use broker::queue::settle::{Acked, Requeue};
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Queue, Services};

use crate::support::Disk;
use crate::world::{id_of, message, spec};

struct One {
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
    channel: u32,
}

impl One {
    /// One channel with one consumer without a limit of its own.
    fn new(disk: &Disk, channel_prefetch: u32, messages: u64) -> Self {
        let services = Services::new(Arc::clone(&disk.store), Clock::system());
        let queue = Queue::new(disk.store.new_queue_id(), spec(false), services);
        let outbox = Arc::new(Outbox::new(usize::MAX, Arc::default(), Arc::default()));
        let channel = outbox.open_channel(1);
        outbox.set_channel_prefetch(channel, channel_prefetch, &mut Vec::new());
        let id = ConsumerId(1);
        let slot = outbox.add_consumer(id, Arc::clone(&queue), channel, Terms::default());
        let consumer = Consumer { id, outbox: Arc::clone(&outbox), slot, exclusive: false, no_ack: false, priority: 0 };
        assert_eq!(queue.attach(consumer, || {}, &mut WakeList::default()), Attach::Attached);
        let one = Self { queue, outbox, channel };
        for id in 0..messages {
            one.publish(id);
        }
        one
    }

    fn publish(&self, id: u64) {
        self.queue.publish(&message(id, false, 8), &mut WakeList::default());
    }

    /// Tags of what has been sent since the last call.
    fn sent(&self) -> Vec<u64> {
        let mut items = VecDeque::new();
        self.outbox.take_items(&mut items, &mut Vec::new());
        let mut written = Written::default();
        items.iter().for_each(|item| written.add(item));
        let tag = |item: OutItem| match item {
            OutItem::Deliver(delivery) => Some(delivery.tag),
            _ => None,
        };
        let tags = items.into_iter().filter_map(tag).collect();
        let mut resume = Vec::new();
        self.outbox.written(&written, &mut resume);
        for resume in resume {
            resume.queue.resume(resume.consumer, &mut WakeList::default());
        }
        tags
    }
}

/// What another connection publishes while a delivery is on its way back must not take its place.
#[test]
fn what_goes_back_is_delivered_before_what_came_meanwhile() {
    let disk = Disk::new();
    let one = One::new(&disk, 1, 1);
    assert_eq!(one.sent(), [1]);
    let (mut back, mut resume) = (Requeue::default(), Vec::new());
    one.outbox.hold(one.channel);
    assert!(one.outbox.take_unacked(one.channel, 1, false, &mut resume, |queue, unacked| {
        back.add(queue, unacked, Return::Unharmed);
    }));
    one.publish(1);
    assert!(one.sent().is_empty());
    back.commit(&mut WakeList::default());
    assert!(one.sent().is_empty());
    one.outbox.let_go(one.channel, &mut resume);
    for resume in resume {
        resume.queue.resume(resume.consumer, &mut WakeList::default());
    }
    let mut items = VecDeque::new();
    one.outbox.take_items(&mut items, &mut Vec::new());
    let [OutItem::Deliver(delivery)] = items.make_contiguous() else { panic!("one delivery: {}", items.len()) };
    assert_eq!((id_of(&delivery.message), delivery.redelivered), (0, true));
}

#[test]
fn acknowledgements_in_a_transaction_keep_the_channels_credit_until_the_commit() {
    let disk = Disk::new();
    let one = One::new(&disk, 3, 10);
    assert_eq!(one.sent(), [1, 2, 3]);
    let mut taken = Vec::new();
    assert!(one.outbox.take_for_transaction(one.channel, 0, true, |unacked| taken.push(unacked)));
    one.publish(10);
    one.sent();
    assert!(one.sent().is_empty(), "nothing is settled before the commit");
    one.outbox.restore(one.channel, taken);
    one.publish(11);
    one.sent();
    assert_eq!(one.queue.unacked_count(), 3, "rolled back: the three are outstanding again");
}

#[test]
fn a_transactions_commit_brings_credit_back() {
    let disk = Disk::new();
    let one = One::new(&disk, 3, 10);
    assert_eq!(one.sent(), [1, 2, 3]);
    let mut taken = Vec::new();
    assert!(one.outbox.take_for_transaction(one.channel, 2, true, |unacked| taken.push(unacked)));
    assert_eq!(taken.len(), 2);
    let (mut resume, mut acked) = (Vec::new(), Acked::default());
    one.outbox.release(Some(one.channel), taken, &mut resume, |queue, unacked| acked.add(queue, &unacked));
    acked.commit();
    for resume in resume {
        resume.queue.resume(resume.consumer, &mut WakeList::default());
    }
    assert_eq!(one.sent(), [4, 5]);
    assert_eq!(one.queue.unacked_count(), 3);
}
