//! Counters with rates, for statistics.
//!
//! A counter is a plain number next to what it counts, under a lock that is held anyway or once per batch. Its rate is how much
//! it grew in the last whole second, and nobody has to look at every counter each second for that: whoever counts first in a
//! new second ([`Ticks`]) notes where the counters stand.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The seconds of a broker, as its counters see them.
#[derive(Debug, Default)]
pub struct Ticks {
    now: AtomicU32,
    /// How long the last whole one took, in microseconds: the one who counts them may be late.
    last_us: AtomicU64,
}

impl Ticks {
    /// The one that is under way.
    pub fn now(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// It is over, and took that long.
    pub fn advance(&self, took: Duration) {
        self.last_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.now.fetch_add(1, Ordering::Relaxed);
    }

    fn last_s(&self) -> f64 {
        Duration::from_micros(self.last_us.load(Ordering::Relaxed)).as_secs_f64()
    }
}

/// Numbers that are counted, and where they stood when this second and the one before it began.
#[derive(Clone, Debug)]
pub struct Counters<const N: usize> {
    counts: [u64; N],
    tick: u32,
    /// Nothing while all are zero.
    history: Option<Box<History<N>>>,
}

#[derive(Clone, Debug)]
struct History<const N: usize> {
    now: [u64; N],
    before: [u64; N],
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted<const N: usize> {
    /// How many, ever.
    pub totals: [u64; N],
    /// How many more (of a gauge: or fewer) per second, in the last whole second.
    pub rates: [f64; N],
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self { counts: [0; N], tick: 0, history: None }
    }
}

impl<const N: usize> Counters<N> {
    /// Counts some more. To be called after [`Counters::turn`] in the same second.
    pub fn add(&mut self, which: usize, more: u64) {
        if let Some(count) = self.counts.get_mut(which) {
            *count = count.wrapping_add(more);
        }
    }

    /// Sets a gauge among the counters.
    pub fn set(&mut self, which: usize, value: u64) {
        if let Some(count) = self.counts.get_mut(which) {
            *count = value;
        }
    }

    /// Whether a new second has begun since the last turn.
    pub fn is_due(&self, tick: u32) -> bool {
        self.tick != tick
    }

    /// Notes where the counters stand, if this is the first time in this second.
    pub fn turn(&mut self, tick: u32) {
        if self.is_due(tick) {
            self.begin(tick);
        }
    }

    #[cold]
    fn begin(&mut self, tick: u32) {
        let follows = self.tick.wrapping_add(1) == tick;
        self.tick = tick;
        let counts = self.counts;
        match &mut self.history {
            Some(history) => {
                // After a pause nothing was counted in the second before this one.
                history.before = if follows { history.now } else { counts };
                history.now = counts;
            }
            // What there is was counted in the second that has just ended, or long before.
            None if counts != [0; N] => {
                let before = if follows { [0; N] } else { counts };
                self.history = Some(Box::new(History { now: counts, before }));
            }
            None => {}
        }
    }

    /// Adds what others have counted, with their history.
    pub fn absorb(&mut self, others: &Self, tick: u32) {
        self.turn(tick);
        let mut others = others.clone();
        others.turn(tick);
        let at = |counters: &Self| counters.history.as_ref().map_or(([0; N], [0; N]), |h| (h.now, h.before));
        let (mine, theirs) = (at(self), at(&others));
        let sum = |a: [u64; N], b: [u64; N]| std::array::from_fn(|i| a[i].wrapping_add(b[i]));
        self.counts = sum(self.counts, others.counts);
        if self.history.is_some() || others.history.is_some() {
            self.history = Some(Box::new(History { now: sum(mine.0, theirs.0), before: sum(mine.1, theirs.1) }));
        }
    }

    /// How they stand.
    pub fn read(&self, ticks: &Ticks) -> Counted<N> {
        let mut at = self.clone();
        at.turn(ticks.now());
        let seconds = ticks.last_s();
        let rates = match at.history {
            Some(history) if seconds > 0.0 => std::array::from_fn(|i| {
                let more = history.now[i].wrapping_sub(history.before[i]) as i64;
                more as f64 / seconds
            }),
            _ => [0.0; N],
        };
        Counted { totals: self.counts, rates }
    }
}

impl<const N: usize> Counted<N> {
    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        for i in 0..N {
            self.totals[i] = self.totals[i].wrapping_add(others.totals[i]);
            self.rates[i] += others.rates[i];
        }
    }
}

impl<const N: usize> Default for Counted<N> {
    fn default() -> Self {
        Self { totals: [0; N], rates: [0.0; N] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn count(counters: &mut Counters<2>, ticks: &Ticks, more: u64) {
        counters.turn(ticks.now());
        counters.add(0, more);
    }

    fn rate(counters: &Counters<2>, ticks: &Ticks) -> f64 {
        counters.read(ticks).rates[0]
    }

    #[test]
    fn a_rate_is_that_of_the_last_whole_second() {
        let (ticks, mut counters) = (Ticks::default(), Counters::default());
        count(&mut counters, &ticks, 5);
        assert_eq!(rate(&counters, &ticks), 0.0);
        ticks.advance(SECOND);
        assert_eq!(rate(&counters, &ticks), 5.0, "also when nobody has counted since");
        count(&mut counters, &ticks, 100);
        assert_eq!(rate(&counters, &ticks), 5.0);
        ticks.advance(2 * SECOND);
        assert_eq!(rate(&counters, &ticks), 50.0, "it took two");
        ticks.advance(SECOND);
        assert_eq!(rate(&counters, &ticks), 0.0);
        count(&mut counters, &ticks, 7);
        assert_eq!(rate(&counters, &ticks), 0.0);
        ticks.advance(SECOND);
        assert_eq!(rate(&counters, &ticks), 7.0);
        assert_eq!(counters.read(&ticks).totals, [112, 0]);
    }

    #[test]
    fn a_gauge_goes_down_too() {
        let (ticks, mut counters) = (Ticks::default(), Counters::<1>::default());
        counters.set(0, 10);
        ticks.advance(SECOND);
        counters.turn(ticks.now());
        counters.set(0, 4);
        ticks.advance(SECOND);
        assert_eq!(counters.read(&ticks), Counted { totals: [4], rates: [-6.0] });
    }

    #[test]
    fn what_others_counted_is_no_growth_of_this_second() {
        let ticks = Ticks::default();
        let (mut sum, mut one, mut idle) = (Counters::default(), Counters::default(), Counters::default());
        count(&mut idle, &ticks, 1000);
        for _ in 0..3 {
            ticks.advance(SECOND);
        }
        count(&mut one, &ticks, 8);
        ticks.advance(SECOND);
        for counters in [&one, &idle] {
            sum.absorb(counters, ticks.now());
        }
        assert_eq!((sum.read(&ticks).totals[0], rate(&sum, &ticks)), (1008, 8.0));
        ticks.advance(SECOND);
        assert_eq!(rate(&sum, &ticks), 0.0);
    }

    #[test]
    fn what_was_counted_long_ago_for_the_first_time_has_no_rate() {
        let (ticks, mut counters) = (Ticks::default(), Counters::default());
        count(&mut counters, &ticks, 3);
        ticks.advance(SECOND);
        ticks.advance(SECOND);
        count(&mut counters, &ticks, 1);
        assert_eq!(rate(&counters, &ticks), 0.0);
        ticks.advance(SECOND);
        assert_eq!(rate(&counters, &ticks), 1.0);
    }
}
