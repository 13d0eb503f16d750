//! Publisher confirms of one channel.

use std::collections::VecDeque;

use protocol::{put_ack, put_nack};
use storage::Lsn;

/// Publishes that are not confirmed yet, in the order of their numbers.
pub(super) struct Confirms {
    next: u64,
    /// The last number that has been confirmed.
    confirmed: u64,
    pending: VecDeque<Pending>,
    /// The session has the channel on its list of those with publishes to confirm.
    pub listed: bool,
}

/// A run of publishes that become safe together.
struct Pending {
    last: u64,
    lsn: Lsn,
    refused: bool,
}

impl Confirms {
    pub(super) fn new() -> Self {
        Self { next: 1, confirmed: 0, pending: VecDeque::new(), listed: false }
    }

    /// Numbers a publish that is safe at `lsn`, or that a queue refused.
    pub(super) fn published(&mut self, lsn: Lsn, refused: bool) {
        let last = self.next;
        self.next += 1;
        if let Some(run) = self.pending.back_mut()
            && !run.refused
            && !refused
            && lsn <= run.lsn
        {
            run.last = last;
            return;
        }
        self.pending.push_back(Pending { last, lsn, refused });
    }

    /// The position that the oldest unconfirmed publish waits for.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        self.pending.front().map(|run| run.lsn)
    }

    /// Encodes the confirms of everything that is safe, several in one frame where they follow each other. They go out
    /// in order: a message that waits for the disk holds back those behind it by one sync at most. Gives how many publishes
    /// were acknowledged.
    pub(super) fn flush(&mut self, channel: u16, durable: Lsn, out: &mut Vec<u8>) -> u64 {
        let mut confirmed = 0;
        let mut acked: Option<(u64, bool)> = None;
        while let Some(run) = self.pending.front() {
            if run.lsn > durable {
                break;
            }
            if run.refused {
                if let Some((tag, multiple)) = acked.take() {
                    put_ack(out, channel, tag, multiple);
                }
                put_nack(out, channel, run.last, false, true);
            } else {
                confirmed += run.last - self.confirmed;
                let several = run.last - self.confirmed > 1;
                acked = Some((run.last, several || acked.is_some()));
            }
            self.confirmed = run.last;
            self.pending.pop_front();
        }
        if let Some((tag, multiple)) = acked {
            put_ack(out, channel, tag, multiple);
        }
        confirmed
    }

    /// Publishes that have not been answered.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.next - 1 - self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(confirms: &mut Confirms, durable: u64) -> Vec<u8> {
        let mut out = Vec::new();
        confirms.flush(1, Lsn(durable), &mut out);
        out
    }

    fn ack(tag: u64, multiple: bool) -> Vec<u8> {
        let mut out = Vec::new();
        put_ack(&mut out, 1, tag, multiple);
        out
    }

    #[test]
    fn what_is_safe_together_goes_in_one_frame() {
        let mut confirms = Confirms::new();
        for lsn in [5, 6, 7, 0, 9] {
            confirms.published(Lsn(lsn), false);
        }
        assert_eq!(frames(&mut confirms, 4), b"");
        assert_eq!(frames(&mut confirms, 5), ack(1, false));
        assert_eq!(frames(&mut confirms, 8), ack(4, true));
        assert_eq!(confirms.waits_for(), Some(Lsn(9)));
        assert_eq!(frames(&mut confirms, 9), ack(5, false));
        assert_eq!(confirms.waits_for(), None);
    }

    #[test]
    fn a_refusal_stands_alone() {
        let mut confirms = Confirms::new();
        confirms.published(Lsn(0), false);
        confirms.published(Lsn(0), false);
        confirms.published(Lsn(0), true);
        confirms.published(Lsn(0), false);
        let mut expected = ack(2, true);
        put_nack(&mut expected, 1, 3, false, true);
        expected.extend(ack(4, false));
        assert_eq!(frames(&mut confirms, 0), expected);
    }
}
