//! Publishers, consumers and a consumer's comings and goings on threads of their own; at the end everything is accounted for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Wake;
use std::thread::{self, Thread};
use std::time::Instant;

use broker::model::clock::Clock;
use broker::queue::consumers::{Consumer, ConsumerId};
use broker::queue::credit::{Resume, Terms};
use broker::queue::delivery_limit::Return;
use broker::queue::item::{OutItem, Written};
use broker::queue::outbox::Outbox;
use broker::queue::settle::{Acked, Requeue};
use broker::queue::signal::WakeList;
use broker::queue::{Attach, Published, Queue, Services};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Disk, LOST};
use crate::world::{id_of, message, spec};

const PUBLISHERS: u64 = 3;
const CONSUMERS: usize = 3;
const QUEUES: usize = 2;
const MESSAGES: u64 = 10_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// What the threads agree on.
#[derive(Default)]
struct Ledger {
    /// How often each message of each queue was settled.
    settled: Mutex<BTreeMap<(usize, u64), u32>>,
    count: AtomicUsize,
    next_consumer: AtomicU64,
    waiting: Mutex<Vec<Thread>>,
}

impl Ledger {
    fn settle(&self, queue: usize, id: u64) {
        *self.settled.lock().entry((queue, id)).or_default() += 1;
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == Self::all() {
            for thread in &*self.waiting.lock() {
                thread.unpark();
            }
        }
    }

    fn all() -> usize {
        PUBLISHERS as usize * MESSAGES as usize * QUEUES
    }

    fn done(&self) -> bool {
        self.count.load(Ordering::SeqCst) >= Self::all()
    }
}

/// One connection: attaches to all queues, settles at random, and now and then closes its channel or itself.
struct Client<'a> {
    queues: &'a [Arc<Queue>],
    ledger: &'a Ledger,
    rng: StdRng,
    outbox: Arc<Outbox>,
    channel: u32,
    consumers: Vec<(usize, ConsumerId, u32)>,
    /// Outstanding deliveries: tag, queue, message.
    held: VecDeque<(u64, usize, u64)>,
    last_tag: u64,
}

impl Client<'_> {
    fn connect(&mut self) {
        self.outbox = Arc::new(Outbox::new(20_000, Arc::default(), Arc::default()));
        self.open();
    }

    fn open(&mut self) {
        self.channel = self.outbox.open_channel(1);
        self.held.clear();
        self.last_tag = 0;
        let mut wakes = WakeList::default();
        for (index, queue) in self.queues.iter().enumerate() {
            let id = ConsumerId(self.ledger.next_consumer.fetch_add(1, Ordering::Relaxed));
            let prefetch = self.rng.random_range(0..20);
            let terms = Terms { prefetch, ..Terms::default() };
            let slot = self.outbox.add_consumer(id, Arc::clone(queue), self.channel, terms);
            let consumer =
                Consumer { id, outbox: Arc::clone(&self.outbox), slot, exclusive: false, no_ack: false, priority: 0 };
            self.consumers.push((index, id, slot));
            assert_eq!(queue.attach(consumer, || {}, &mut wakes), Attach::Attached);
        }
    }

    fn resume(list: Vec<Resume>) {
        let mut wakes = WakeList::default();
        for Resume { queue, consumer } in list {
            queue.resume(consumer, &mut wakes);
        }
    }

    fn close_channel(&mut self) {
        for (queue, id, slot) in self.consumers.drain(..) {
            self.queues[queue].detach(id);
            self.outbox.remove_consumer(1, slot);
        }
        self.outbox.close_channel(self.channel).commit(&mut WakeList::default());
        self.read(false);
        self.held.clear();
    }

    fn close(&mut self) {
        let undelivered = self.outbox.close(&mut VecDeque::new());
        for resume in undelivered.consumers {
            resume.queue.detach(resume.consumer);
        }
        self.consumers.clear();
        undelivered.requeue.commit(&mut WakeList::default());
    }

    /// Takes what has come; false when there was nothing.
    fn read(&mut self, live: bool) -> bool {
        let mut items = VecDeque::new();
        let any = self.outbox.take_items(&mut items, &mut Vec::new());
        let mut written = Written::default();
        for item in items {
            written.add(&item);
            match item {
                OutItem::Deliver(delivery) if live => {
                    let (queue, _, _) =
                        self.consumers.iter().find(|(_, _, slot)| *slot == delivery.slot).expect("ours");
                    assert!(delivery.tag > self.last_tag);
                    self.last_tag = delivery.tag;
                    self.held.push_back((delivery.tag, *queue, id_of(&delivery.message)));
                }
                OutItem::ConsumerGone { slot, .. } => self.outbox.consumer_written(slot),
                _ => {}
            }
        }
        let mut resume = Vec::new();
        self.outbox.written(&written, &mut resume);
        Self::resume(resume);
        any
    }

    fn settle_one(&mut self, requeue: bool) {
        if self.held.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.held.len());
        let multiple = !requeue && self.rng.random_bool(0.3);
        let (tag, _, _) = self.held[at];
        let (mut acked, mut back, mut resume) = (Acked::default(), Requeue::default(), Vec::new());
        let mut taken = Vec::new();
        assert!(self.outbox.take_unacked(self.channel, tag, multiple, &mut resume, |queue, unacked| {
            taken.push(unacked.tag);
            if requeue { back.add(queue, unacked, Return::Unharmed) } else { acked.add(queue, &unacked) }
        }));
        acked.commit();
        back.commit(&mut WakeList::default());
        Self::resume(resume);
        for tag in taken {
            let at = self.held.iter().position(|(held, _, _)| *held == tag).expect("we hold it");
            let (_, queue, id) = self.held.remove(at).expect("found");
            if !requeue {
                self.ledger.settle(queue, id);
            }
        }
    }

    fn run(&mut self) {
        let waker = Arc::new(Unpark(thread::current())).into();
        self.ledger.waiting.lock().push(thread::current());
        self.connect();
        let mut turns = 0;
        loop {
            self.outbox.signal().take();
            let mut again = self.read(true);
            turns += 1;
            match self.rng.random_range(0..400) {
                0 => {
                    self.close_channel();
                    self.open();
                    again = true;
                }
                1 => {
                    self.close();
                    self.connect();
                    again = true;
                }
                2..100 => self.settle_one(true),
                _ => {
                    while self.held.len() > 5 {
                        self.settle_one(false);
                    }
                    self.settle_one(false);
                }
            }
            if self.ledger.done() {
                break;
            }
            self.outbox.signal().register(&waker);
            if !again && self.held.is_empty() && !self.outbox.signal().is_raised() {
                let asleep = Instant::now();
                thread::park_timeout(LOST);
                let waiting: u32 = self.queues.iter().map(|queue| queue.message_count()).sum();
                assert!(asleep.elapsed() < LOST, "nobody wakes us after {turns} turns while {waiting} messages wait");
            }
        }
        self.close();
    }
}

#[test]
fn threads_lose_nothing_and_settle_nothing_twice() {
    let disk = Disk::new();
    let services = Services::new(Arc::clone(&disk.store), Clock::system());
    let queues: Vec<Arc<Queue>> =
        (0..QUEUES).map(|index| Queue::new(disk.store.new_queue_id(), spec(index == 0), services.clone())).collect();
    let ledger = Ledger::default();
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let queues = &queues;
            scope.spawn(move || {
                let mut wakes = WakeList::default();
                for number in 0..MESSAGES {
                    let message = message(publisher * MESSAGES + number, number % 2 == 0, 8);
                    for queue in queues {
                        assert!(matches!(queue.publish(&message, &mut wakes), Published::Taken(_)));
                    }
                    if number % 16 == 15 {
                        wakes.wake();
                    }
                }
            });
        }
        for seed in 0..CONSUMERS as u64 {
            let (queues, ledger) = (&queues, &ledger);
            scope.spawn(move || {
                let mut client = Client {
                    queues,
                    ledger,
                    rng: StdRng::seed_from_u64(seed),
                    outbox: Arc::new(Outbox::new(0, Arc::default(), Arc::default())),
                    channel: 0,
                    consumers: Vec::new(),
                    held: VecDeque::new(),
                    last_tag: 0,
                };
                client.run();
            });
        }
    });
    let settled = ledger.settled.lock();
    assert_eq!(settled.len(), Ledger::all());
    assert!(settled.values().all(|times| *times == 1));
    for queue in &queues {
        assert_eq!((queue.message_count(), queue.unacked_count(), queue.consumer_count()), (0, 0, 0));
        assert!(crate::world::stored(&disk, queue).is_empty());
        assert_eq!(Arc::strong_count(queue), 1, "the queue is leaked");
    }
}
