//! What the clients of a round know against what the broker still has.

use crate::clients::{Consumed, Got, Sent, next_delivery};
use crate::topology::{self, QUEUES};
use integration_tests::id;
use integration_tests::raw::Raw;
use integration_tests::wire::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Publisher and number of a message.
type Message = (u64, u64);

/// Everything known of one round.
pub(crate) struct Ledger {
    round: u64,
    sent: Vec<Sent>,
    got: Vec<Consumed>,
    confirmed_at: u64,
    drained: Vec<Vec<Got>>,
}

impl Ledger {
    pub(crate) fn new(round: u64, sent: Vec<Sent>, got: Vec<Consumed>, confirmed_at: u64) -> Self {
        Self { round, sent, got, confirmed_at, drained: Vec::new() }
    }

    /// What this says about a backup that was begun after the moment `begun` and was finished before `finished`: what was
    /// confirmed before it is in it, what was acknowledged while it was made may be, and what had been handled before is not.
    pub(crate) fn of_backup(&self, begun: u64, finished: u64) -> Self {
        let mut sent = self.sent.clone();
        for sent in &mut sent {
            sent.confirmed.retain(|_, at| *at < begun);
        }
        let mut got = self.got.clone();
        for got in &mut got {
            got.acked_at.retain(|at| *at < finished);
        }
        Self { round: self.round, sent, got, confirmed_at: begun, drained: Vec::new() }
    }

    /// Takes everything out of the queues.
    pub(crate) fn drain(&mut self, raw: &mut Raw) {
        for (channel, queue) in (2..).zip(QUEUES) {
            raw.open_channel(channel);
            let (_, count, _) = raw.declare(channel, queue, 2);
            raw.consume(channel, queue, queue, 0);
            let drained: Vec<_> =
                (0..count).map(|_| next_delivery(raw).expect("as many deliveries as there are messages")).collect();
            raw.method(channel, id::BASIC_ACK, Bytes::new().longlong(0).octet(1));
            // Everything is acknowledged, and there was no more of it.
            raw.fence(channel);
            assert_eq!(raw.declare(channel, queue, 2).1, 0);
            let cancel = Bytes::new().shortstr(queue).octet(0);
            raw.call(channel, id::BASIC_CANCEL, cancel, id::BASIC_CANCEL_OK);
            self.drained.push(drained);
        }
    }

    /// Compares, and fails on anything that was promised otherwise.
    pub(crate) fn compare(&self) -> Totals {
        let mut totals = Totals {
            published: self.sent.iter().map(|sent| sent.last).sum(),
            confirmed: self.sent.iter().map(|sent| sent.confirmed.len() as u64).sum(),
            delivered: self.got.iter().map(|got| got.deliveries.len() as u64).sum(),
            acked: self.got.iter().map(|got| got.acked_at.len() as u64).sum(),
            ..Totals::default()
        };
        let mut broken = Vec::new();
        for (queue, drained) in self.drained.iter().enumerate() {
            self.compare_queue(queue, drained, &mut totals, &mut broken);
        }
        assert!(broken.is_empty(), "round {}: {totals}\n{}", self.round, broken.join("\n"));
        totals
    }

    fn compare_queue(&self, queue: usize, drained: &[Got], totals: &mut Totals, broken: &mut Vec<String>) {
        let name = QUEUES[queue];
        let mut before: BTreeMap<Message, u64> = BTreeMap::new();
        let (mut acked, mut handled) = (BTreeSet::new(), BTreeSet::new());
        for consumed in self.got.iter().filter(|consumed| consumed.queue == queue) {
            totals.out_of_order += self.check_order(name, &consumed.deliveries, broken);
            for (at, got) in consumed.deliveries.iter().enumerate() {
                let message = self.message(got);
                if before.insert(message, got.tag).is_some() && !got.redelivered {
                    totals.duplicated += 1;
                    broken.push(format!("{name}: {message:?} came twice before the crash"));
                }
                if at < consumed.acked_at.len() {
                    acked.insert(message);
                }
                // What the broker had handled before a publish was sent is on disk when that is confirmed.
                if consumed.handled_at.get(at).is_some_and(|&handled| handled < self.confirmed_at) {
                    handled.insert(message);
                }
            }
        }
        totals.out_of_order += self.check_order(name, drained, broken);
        let mut after = BTreeSet::new();
        for got in drained {
            let message = self.message(got);
            if !after.insert(message) {
                totals.duplicated += 1;
                broken.push(format!("{name}: {message:?} is there twice after the crash"));
            }
            if before.contains_key(&message) && !got.redelivered {
                totals.duplicated += 1;
                broken.push(format!("{name}: {message:?} was delivered before and does not say so"));
            }
            if handled.contains(&message) {
                broken.push(format!("{name}: {message:?} comes back; its acknowledgement was on disk"));
            }
            if !topology::goes_to(message.1, queue) || message.1 > self.sent[message.0 as usize].last {
                broken.push(format!("{name}: {message:?} was never sent there"));
            }
        }
        totals.came_back += acked.intersection(&after).count() as u64;
        for (publisher, sent) in (0..).zip(&self.sent) {
            let is_there = |number: u64| {
                let message = (publisher, number);
                acked.contains(&message) || after.contains(&message)
            };
            // A publisher's messages reach the disk in order: behind the last that did there is nothing, before it everything.
            let reached = after.range((publisher, 0)..=(publisher, u64::MAX)).last().map_or(0, |message| message.1);
            for number in (1..=sent.last).filter(|&number| topology::goes_to(number, queue) && !is_there(number)) {
                if sent.confirmed.contains_key(&number) {
                    totals.lost += 1;
                    broken.push(format!("{name}: {:?} was confirmed and is lost", (publisher, number)));
                } else if number < reached {
                    broken.push(format!("{name}: {:?} is missing, but not those after it", (publisher, number)));
                }
            }
        }
    }

    /// Counts the messages that come before one of the same publisher that was sent earlier.
    fn check_order(&self, name: &str, deliveries: &[Got], broken: &mut Vec<String>) -> u64 {
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        let mut count = 0;
        for got in deliveries {
            let (publisher, number) = self.message(got);
            if last.insert(publisher, number).is_some_and(|last| last >= number) {
                count += 1;
                broken.push(format!("{name}: {:?} is out of order", (publisher, number)));
            }
        }
        count
    }

    fn message(&self, got: &Got) -> Message {
        let (round, publisher, number) = got.message;
        assert_eq!(round, self.round, "a message of an earlier round");
        assert!(publisher < self.sent.len() as u64);
        (publisher, number)
    }
}

/// The figures of one round, or of all.
#[derive(Default)]
pub(crate) struct Totals {
    published: u64,
    confirmed: u64,
    delivered: u64,
    acked: u64,
    /// Acknowledged shortly before the crash, and there again.
    came_back: u64,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.confirmed += other.confirmed;
        self.delivered += other.delivered;
        self.acked += other.acked;
        self.came_back += other.came_back;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, confirmed, delivered, acked, came_back, lost, duplicated, out_of_order } = self;
        write!(f, "published {published}, confirmed {confirmed}, delivered {delivered}, acked {acked}, ")?;
        write!(f, "acked and back {came_back}, lost {lost}, duplicated {duplicated}, out of order {out_of_order}")
    }
}
