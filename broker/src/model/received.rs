//! What is counted of messages as they are received, beside what belongs to their channel.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the sizes that are counted, in octets, as RabbitMQ has them; larger ones are counted apart.
pub const SIZES: [u64; 8] = [100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 100_000_000];

/// One more than there are bounds.
const BUCKETS: usize = SIZES.len() + 1;

/// Counted by one connection since it last told: plain numbers, for they change with every message.
#[derive(Default)]
pub struct Batch {
    sizes: [u32; BUCKETS],
    octets: u64,
    to_confirm: u64,
    any: bool,
}

impl Batch {
    /// A message with a body of that many octets has come; its publisher may expect a confirm.
    pub fn add(&mut self, octets: u64, to_confirm: bool) {
        let bucket = SIZES.iter().position(|bound| octets <= *bound).unwrap_or(SIZES.len());
        if let Some(count) = self.sizes.get_mut(bucket) {
            *count += 1;
        }
        self.octets += octets;
        self.to_confirm += u64::from(to_confirm);
        self.any = true;
    }
}

/// Counted by all connections of a broker.
#[derive(Default)]
pub struct Received {
    sizes: [AtomicU64; BUCKETS],
    octets: AtomicU64,
    to_confirm: AtomicU64,
    routed: AtomicU64,
}

/// How it all stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedFigures {
    /// Messages by the bounds of [`SIZES`], each counted once; those above all bounds come last.
    pub sizes: [u64; BUCKETS],
    /// Octets of all bodies.
    pub octets: u64,
    /// Messages whose publishers expect a confirm.
    pub to_confirm: u64,
    /// Queues that messages were routed to.
    pub routed: u64,
}

impl Received {
    /// Takes over what a connection has counted. Once per batch of frames.
    pub fn take(&self, batch: &mut Batch) {
        if !batch.any {
            return;
        }
        for (count, more) in self.sizes.iter().zip(batch.sizes) {
            if more > 0 {
                count.fetch_add(more.into(), Ordering::Relaxed);
            }
        }
        self.octets.fetch_add(batch.octets, Ordering::Relaxed);
        if batch.to_confirm > 0 {
            self.to_confirm.fetch_add(batch.to_confirm, Ordering::Relaxed);
        }
        *batch = Batch::default();
    }

    /// Messages went to so many queues. Once per run of publishes to one exchange.
    pub fn routed(&self, queues: u64) {
        self.routed.fetch_add(queues, Ordering::Relaxed);
    }

    /// How it all stands.
    pub fn read(&self) -> ReceivedFigures {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReceivedFigures {
            sizes: std::array::from_fn(|i| self.sizes.get(i).map(load).unwrap_or_default()),
            octets: load(&self.octets),
            to_confirm: load(&self.to_confirm),
            routed: load(&self.routed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_counted_by_their_bounds() {
        let (received, mut batch) = (Received::default(), Batch::default());
        for (octets, to_confirm) in [(0, true), (100, false), (101, true), (100_000_000, false), (100_000_001, false)] {
            batch.add(octets, to_confirm);
        }
        received.take(&mut batch);
        received.take(&mut batch);
        received.routed(7);
        let figures = received.read();
        assert_eq!(figures.sizes, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((figures.octets, figures.to_confirm, figures.routed), (200_000_202, 2, 7));
    }
}
