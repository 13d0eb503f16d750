//! Publishers and consumers that go on until their connection breaks, and then say what they know.

use crate::topology::{self, ConsumerSpec};
use integration_tests::id;
use integration_tests::raw::{Frame, Raw};
use integration_tests::wire::{self, Bytes, PERSISTENT, Reader};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// Publishes of one publisher that may be unconfirmed at once.
const IN_FLIGHT: usize = 300;
/// Deliveries of one consumer that may be unacknowledged at once.
const PREFETCH: u16 = 50;
const FRAME_MAX: usize = 131_072;

/// Counts the events of a round, so that two of them can be told to have come one after the other.
#[derive(Default)]
pub(crate) struct Clock {
    now: AtomicU64,
    confirmed_at: AtomicU64,
}

impl Clock {
    pub(crate) fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// When the last of the publishes that were confirmed was sent: what the broker had done before that is on disk.
    pub(crate) fn confirmed_at(&self) -> u64 {
        self.confirmed_at.load(Ordering::SeqCst)
    }
}

/// What a publisher knows at the end.
#[derive(Clone)]
pub(crate) struct Sent {
    /// It sent the messages 1 to here, or began to.
    pub(crate) last: u64,
    /// With the moment at which it learned of it.
    pub(crate) confirmed: BTreeMap<u64, u64>,
}

/// Publishes with confirms.
pub(crate) struct Publisher {
    raw: Raw,
    round: u64,
    number: u64,
    clock: Arc<Clock>,
    report: Sender<u64>,
}

impl Publisher {
    pub(crate) fn new(mut raw: Raw, (round, number): (u64, u64), clock: &Arc<Clock>, report: Sender<u64>) -> Self {
        raw.call(1, id::CONFIRM_SELECT, [0], id::CONFIRM_SELECT_OK);
        Self { raw, round, number, clock: Arc::clone(clock), report }
    }

    pub(crate) fn run(mut self) -> Sent {
        let mut writer = self.raw.writer();
        // Unconfirmed, and when they were sent.
        let mut open: BTreeMap<u64, u64> = BTreeMap::new();
        let mut sent = Sent { last: 0, confirmed: BTreeMap::new() };
        loop {
            let mut batch = Vec::new();
            let now = self.clock.tick();
            while open.len() < IN_FLIGHT {
                sent.last += 1;
                open.insert(sent.last, now);
                put_publish(&mut batch, sent.last, &topology::body(self.round, self.number, sent.last));
            }
            if writer.write_all(&batch).is_err() {
                return sent;
            }
            let Some(frame) = self.raw.next_frame() else {
                return sent;
            };
            assert_eq!(frame.id(), Some(id::BASIC_ACK), "{frame:?}");
            let mut reader = Reader::new(frame.arguments());
            let (tag, multiple) = (reader.longlong(), reader.octet() != 0);
            let settled = if multiple {
                let later = open.split_off(&(tag + 1));
                std::mem::replace(&mut open, later)
            } else {
                open.remove_entry(&tag).into_iter().collect()
            };
            assert!(settled.contains_key(&tag), "{tag} is not outstanding");
            let count = settled.len() as u64;
            let now = self.clock.tick();
            for (number, sent_at) in settled {
                self.clock.confirmed_at.fetch_max(sent_at, Ordering::SeqCst);
                sent.confirmed.insert(number, now);
            }
            // Nobody listens any more once the broker was killed.
            let _ = self.report.send(count);
        }
    }
}

fn put_publish(out: &mut Vec<u8>, number: u64, body: &[u8]) {
    let (exchange, key) = topology::address(number);
    let arguments = Bytes::new().short(0).shortstr(exchange).shortstr(key).octet(0);
    out.extend(wire::method(1, id::BASIC_PUBLISH, arguments));
    out.extend(wire::frame(wire::HEADER, 1, &wire::header(body.len() as u64, PERSISTENT)));
    for piece in body.chunks(FRAME_MAX - 8) {
        out.extend(wire::frame(wire::BODY, 1, piece));
    }
}

/// One delivery.
#[derive(Clone, Copy)]
pub(crate) struct Got {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    /// Round, publisher, number.
    pub(crate) message: (u64, u64, u64),
}

/// What a consumer knows at the end.
#[derive(Clone)]
pub(crate) struct Consumed {
    pub(crate) queue: usize,
    /// What it got, in order; the delivery tags count up from one.
    pub(crate) deliveries: Vec<Got>,
    /// It sent acknowledgements for so many of them, at these moments.
    pub(crate) acked_at: Vec<u64>,
    /// When it learned that the broker had handled the acknowledgement of each, as far as it did.
    pub(crate) handled_at: Vec<u64>,
}

/// Consumes with manual acknowledgements.
pub(crate) struct Consumer {
    raw: Raw,
    queue: usize,
    ack_every: u64,
    clock: Arc<Clock>,
}

impl Consumer {
    pub(crate) fn new(mut raw: Raw, spec: &ConsumerSpec, clock: &Arc<Clock>) -> Self {
        raw.call(1, id::BASIC_QOS, Bytes::new().long(0).short(PREFETCH).octet(0), id::BASIC_QOS_OK);
        raw.consume(1, topology::QUEUES[spec.queue], "consumer", 0);
        Self { raw, queue: spec.queue, ack_every: spec.ack_every, clock: Arc::clone(clock) }
    }

    pub(crate) fn run(mut self) -> Consumed {
        let mut known =
            Consumed { queue: self.queue, deliveries: Vec::new(), acked_at: Vec::new(), handled_at: Vec::new() };
        while let Some(got) = next_delivery(&mut self.raw) {
            let tag = got.tag;
            known.deliveries.push(got);
            assert_eq!(tag, known.deliveries.len() as u64, "delivery tags");
            // This one could only come because that many acknowledgements had been handled.
            if tag > u64::from(PREFETCH) {
                known.handled_at.push(self.clock.tick());
            }
            if tag.is_multiple_of(self.ack_every) {
                let ack = Bytes::new().longlong(tag).octet(u8::from(self.ack_every > 1));
                let now = self.clock.tick();
                if !self.raw.try_send(wire::method(1, id::BASIC_ACK, ack)) {
                    break;
                }
                known.acked_at.resize(known.deliveries.len(), now);
            }
        }
        known
    }
}

/// The next delivery, whole, or `None` when the connection broke before its end.
pub(crate) fn next_delivery(raw: &mut Raw) -> Option<Got> {
    let frame = raw.next_frame()?;
    assert_eq!(frame.id(), Some(id::BASIC_DELIVER), "{frame:?}");
    let mut reader = Reader::new(frame.arguments());
    reader.shortstr();
    let (tag, redelivered) = (reader.longlong(), reader.octet() != 0);
    let Frame { kind: wire::HEADER, payload, .. } = raw.next_frame()? else {
        panic!("no content header");
    };
    let mut reader = Reader::new(&payload);
    reader.long();
    let size = reader.longlong() as usize;
    let mut body = Vec::new();
    while body.len() < size {
        body.extend(raw.next_frame()?.payload);
    }
    let text = std::str::from_utf8(&body).expect("the body is not text");
    let numbers: Vec<u64> = text.split(' ').take(3).map(|number| number.parse().expect("a number")).collect();
    let [round, publisher, number] = numbers[..] else { panic!("a strange body") };
    assert_eq!(body, topology::body(round, publisher, number), "the body is not what was sent");
    Some(Got { tag, redelivered, message: (round, publisher, number) })
}
