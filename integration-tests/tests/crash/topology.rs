//! The queues, who consumes from which, and which message goes where.

use integration_tests::raw::Raw;

/// Queues by number.
pub(crate) const QUEUES: [&str; 5] = ["direct-0", "direct-1", "fan-0", "fan-1", "fan-2"];
/// Takes one message a round, which stays until the end.
pub(crate) const FENCE: &str = "fence";
const EXCHANGE: &str = "fan";
const DURABLE: u8 = 2;
/// Every so many messages of a publisher one is big enough for a file of its own.
const LARGE_EVERY: u64 = 401;
const LARGE_BYTES: usize = 300_000;

/// One consumer: which queue, and how many deliveries it acknowledges at once.
pub(crate) struct ConsumerSpec {
    pub(crate) queue: usize,
    pub(crate) ack_every: u64,
}

/// The consumers. direct-1 and fan-2 have none, fan-1 has two.
pub(crate) const CONSUMERS: [ConsumerSpec; 4] = [
    ConsumerSpec { queue: 0, ack_every: 1 },
    ConsumerSpec { queue: 2, ack_every: 7 },
    ConsumerSpec { queue: 3, ack_every: 1 },
    ConsumerSpec { queue: 3, ack_every: 10 },
];

/// Creates it all; it is durable.
pub(crate) fn declare(raw: &mut Raw) {
    raw.exchange(1, EXCHANGE, "fanout", DURABLE);
    for queue in QUEUES.iter().chain([&FENCE]) {
        raw.declare(1, queue, DURABLE);
    }
    for queue in &QUEUES[2..] {
        raw.bind(1, queue, EXCHANGE, "", &[]);
    }
}

/// Exchange and routing key of the `number`th message of a publisher.
pub(crate) fn address(number: u64) -> (&'static str, &'static str) {
    match number % 3 {
        0 => ("", QUEUES[0]),
        1 => ("", QUEUES[1]),
        _ => (EXCHANGE, ""),
    }
}

/// Whether that message goes to a queue.
pub(crate) fn goes_to(number: u64, queue: usize) -> bool {
    match number % 3 {
        0 => queue == 0,
        1 => queue == 1,
        _ => queue >= 2,
    }
}

/// Its body: who sent it, and padding.
pub(crate) fn body(round: u64, publisher: u64, number: u64) -> Vec<u8> {
    let mut body = format!("{round} {publisher} {number} ").into_bytes();
    let len = if number.is_multiple_of(LARGE_EVERY) {
        LARGE_BYTES
    } else {
        number.wrapping_mul(2_654_435_761) as usize % 1500
    };
    body.resize(body.len().max(len), b'.');
    body
}
