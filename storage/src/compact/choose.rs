//! Which segments are worth it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A segment is a candidate when less than one part in so many of it is live.
const SHARE: u64 = 4;
/// So many messages are moved at once, unless one segment alone has more. It bounds the memory for what is known of them.
const PORTION: u64 = 256 * 1024;

/// A segment that nothing is written to any more and in which something lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) id: u64,
    pub(super) len: u64,
    /// Live messages.
    pub(super) live: u64,
    /// Bytes of their entries; what several queues share counts for each of them.
    pub(super) live_bytes: u64,
}

impl Sealed {
    fn dead_bytes(&self) -> u64 {
        self.len.saturating_sub(self.live_bytes)
    }
}

/// When a candidate is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// So long nothing may have been settled in it: what is just being drained comes back by itself.
    pub(super) delay: Duration,
    pub(super) segment_bytes: u64,
    /// Bytes of the pool.
    pub(super) pool_bytes: u64,
}

/// What is known of the candidates.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<u64, Watch>);

#[derive(Clone, Copy, Debug)]
struct Watch {
    live: u64,
    since: Instant,
    /// It was compacted; what is left in it could not be moved.
    done: bool,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Segments to be compacted, those with the least in them first.
    pub(super) ready: Vec<Sealed>,
    /// When to look again if nothing changes.
    pub(super) next: Option<Instant>,
}

impl Watches {
    /// Looks at all sealed segments.
    pub(super) fn look(&mut self, sealed: &[Sealed], now: Instant, rules: &Rules) -> Choice {
        let live: u64 = sealed.iter().map(|segment| segment.live_bytes.min(segment.len)).sum();
        let dead: u64 = sealed.iter().map(Sealed::dead_bytes).sum();
        // Then the disk matters more than the work that waiting would save.
        let pressing = dead > live.saturating_add(rules.pool_bytes);
        let mut known = std::mem::take(&mut self.0);
        let mut choice = Choice::default();
        for &segment in sealed.iter().filter(|segment| segment.live_bytes.saturating_mul(SHARE) < segment.len) {
            let Sealed { id, live, .. } = segment;
            let watch = known.remove(&id).filter(|watch| watch.live == live);
            let watch = watch.unwrap_or(Watch { live, since: now, done: false });
            self.0.insert(id, watch);
            if watch.done {
                continue;
            }
            let due = watch.since + rules.delay;
            if pressing || due <= now {
                choice.ready.push(segment);
            } else {
                choice.next = Some(choice.next.map_or(due, |next| next.min(due)));
            }
        }
        // Short segments, as restarts leave them, are left alone until there are enough of them.
        let gain: u64 = choice.ready.iter().map(Sealed::dead_bytes).sum();
        if gain < rules.segment_bytes / 2 {
            choice.ready.clear();
        }
        choice.ready.sort_unstable_by_key(|segment| (segment.live_bytes, segment.id));
        choice
    }

    /// These are being compacted: they are not tried again before something was settled in them.
    pub(super) fn done(&mut self, segments: &[Sealed]) {
        for segment in segments {
            if let Some(watch) = self.0.get_mut(&segment.id) {
                watch.done = true;
            }
        }
    }
}

/// The first of some segments, as many as are compacted at once.
pub(super) fn portion(ready: &[Sealed], most: usize) -> &[Sealed] {
    let mut messages = 0u64;
    let fits = |segment: &&Sealed| {
        messages = messages.saturating_add(segment.live);
        messages <= PORTION
    };
    let count = ready.iter().take_while(fits).count().clamp(1, most);
    ready.get(..count).unwrap_or(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { delay: Duration::from_secs(10), segment_bytes: 1000, pool_bytes: 3000 };

    fn segment(id: u64, live_bytes: u64) -> Sealed {
        Sealed { id, len: 1000, live: live_bytes.div_ceil(10), live_bytes }
    }

    fn ids(choice: &Choice) -> Vec<u64> {
        choice.ready.iter().map(|segment| segment.id).collect()
    }

    #[test]
    fn what_stays_as_it_is_is_compacted_once() {
        let mut watches = Watches::default();
        let start = Instant::now();
        let sealed = [segment(1, 200), segment(2, 250), segment(3, 900), segment(4, 10)];
        let choice = watches.look(&sealed, start, &RULES);
        assert_eq!(choice, Choice { ready: Vec::new(), next: Some(start + RULES.delay) });
        let choice = watches.look(&sealed, start + RULES.delay, &RULES);
        assert_eq!((ids(&choice), choice.next), (vec![4, 1], None));
        watches.done(&choice.ready);
        // What is still in them could not be moved.
        assert_eq!(watches.look(&sealed, start + 10 * RULES.delay, &RULES), Choice::default());
        let sealed = [segment(1, 190), segment(4, 10)];
        let later = start + 11 * RULES.delay;
        assert_eq!(watches.look(&sealed, later, &RULES).next, Some(later + RULES.delay));
    }

    #[test]
    fn what_is_being_drained_is_left_alone() {
        let mut watches = Watches::default();
        let start = Instant::now();
        let mut live = 1000;
        for step in 0..100 {
            let sealed = [segment(1, live), segment(2, 1000), segment(3, 1000)];
            let choice = watches.look(&sealed, start + step * RULES.delay.mul_f32(0.9), &RULES);
            assert!(choice.ready.is_empty(), "step {step}");
            live = live.saturating_sub(10);
        }
    }

    #[test]
    fn much_dead_space_does_not_wait() {
        let mut watches = Watches::default();
        let sealed: Vec<Sealed> = (1..=5).map(|id| segment(id, 100)).chain([segment(6, 400)]).collect();
        let choice = watches.look(&sealed, Instant::now(), &RULES);
        assert_eq!(ids(&choice), [1, 2, 3, 4, 5]);
        assert_eq!(ids(&watches.look(&sealed[..3], Instant::now(), &RULES)), Vec::<u64>::new());
    }

    #[test]
    fn short_segments_wait_until_it_pays() {
        let mut watches = Watches::default();
        let short = |id| Sealed { id, len: 100, live: 1, live_bytes: 10 };
        let rules = Rules { delay: Duration::ZERO, ..RULES };
        let sealed: Vec<Sealed> = (1..=6).map(short).collect();
        assert!(watches.look(&sealed[..5], Instant::now(), &rules).ready.is_empty());
        assert_eq!(watches.look(&sealed, Instant::now(), &rules).ready.len(), 6);
    }

    #[test]
    fn a_portion_is_never_empty() {
        let big = |id| Sealed { id, len: 1 << 30, live: PORTION / 2 + 1, live_bytes: 1 };
        assert_eq!(portion(&[big(1), big(2)], usize::MAX), [big(1)]);
        assert_eq!(portion(&[Sealed { live: PORTION + 1, ..big(1) }], usize::MAX).len(), 1);
        assert_eq!(portion(&[segment(1, 10), segment(2, 10), segment(3, 10)], usize::MAX).len(), 3);
        assert_eq!(portion(&[segment(1, 10), segment(2, 10)], 1).len(), 1);
    }
}
