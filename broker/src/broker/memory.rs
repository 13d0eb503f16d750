//! The alarm for memory: what is used, what may be used, and the task that compares the two.

use std::time::Duration;

use super::alarms::Alarm;
use super::{Broker, machine};
use crate::config::Watermark;
use crate::model::memory::Owner;

/// How often the memory of the process is looked at while something is published, or while there is an alarm.
const INTERVAL: Duration = Duration::from_millis(250);

/// Memory as it is used now, in octets.
#[derive(Clone, Copy, Debug)]
pub struct MemoryUse {
    /// What the process has resident.
    pub resident: usize,
    /// What is known to be held, by owner.
    pub owners: [(Owner, usize); 5],
    /// Appended to the log and not yet on disk.
    pub uncommitted: usize,
    /// On the way to disk because memory has no room for them.
    pub spilling: usize,
}

impl MemoryUse {
    /// The figure that counts: what is known to be held, or what the kernel says, whichever is more.
    pub fn counted(&self) -> usize {
        let held: usize = self.owners.iter().map(|(_, bytes)| bytes).sum();
        self.resident.max(held.saturating_add(self.uncommitted).saturating_add(self.spilling))
    }
}

/// Octets from which on there is an alarm.
pub(super) fn limit(watermark: Watermark) -> usize {
    let limit = match watermark {
        Watermark::Bytes(bytes) => bytes,
        Watermark::Fraction(fraction) => (machine::total_memory() as f64 * fraction) as u64,
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Whether there is to be an alarm. One that is on goes off below seven eighths of the limit, so that it does not flutter.
fn is_high(used: usize, limit: usize, on: bool) -> bool {
    used >= if on { limit - limit / 8 } else { limit }
}

impl Broker {
    /// Memory as it is used now.
    pub fn memory_use(&self) -> MemoryUse {
        let owners = [Owner::Queues, Owner::Outboxes, Owner::Partial, Owner::Parked, Owner::Transactions];
        MemoryUse {
            resident: machine::resident_memory().unwrap_or_default(),
            owners: owners.map(|owner| (owner, self.memory.held(owner))),
            uncommitted: self.store.pending_bytes(),
            spilling: self.store.spill().waiting_bytes(),
        }
    }

    /// More waits for the disk than the caps allow: publishers are held until it has caught up.
    pub fn is_disk_behind(&self) -> bool {
        self.is_log_behind() || self.store.spill().is_full()
    }

    /// As [`Broker::is_disk_behind`], of what must be durable.
    pub fn is_log_behind(&self) -> bool {
        self.store.pending_bytes() > self.settings.limits.uncommitted_bytes as usize
    }

    /// The memory that this process may use, in octets: what fractions are fractions of.
    pub fn total_memory(&self) -> u64 {
        machine::total_memory()
    }

    /// Sets another amount of memory from which on publishers are blocked, until the broker restarts.
    pub fn set_memory_watermark(&self, watermark: Watermark) {
        self.memory.set_limit(limit(watermark));
        self.check_memory();
        self.memory.crossed.notify_one();
    }

    /// Turns the alarm for memory on and off. Sleeps while nothing is published and there is no alarm.
    pub async fn watch_memory(&self) {
        loop {
            self.check_memory();
            let alarm = self.alarms().has(Alarm::Memory);
            if self.memory.look(alarm) || alarm {
                // The account crossing the limit does not wait for the next look.
                let _ = tokio::time::timeout(INTERVAL, self.memory.crossed.notified()).await;
            } else {
                tokio::select! {
                    () = self.memory.published.notified() => {}
                    () = self.memory.crossed.notified() => {}
                }
            }
        }
    }

    /// Compares the memory in use with the limit.
    pub fn check_memory(&self) {
        let used = self.memory_use();
        let (counted, limit) = (used.counted(), self.memory.limit());
        let high = is_high(counted, limit, self.alarms().has(Alarm::Memory));
        if limit > 0 && is_high(used.resident, limit, true) {
            machine::trim_memory();
        }
        if !self.set_alarm(Alarm::Memory, high) {
            return;
        }
        let MemoryUse { resident, owners, uncommitted, spilling } = used;
        if high {
            tracing::warn!(
                used_bytes = counted,
                limit_bytes = limit,
                resident,
                ?owners,
                uncommitted,
                spilling,
                "low on memory: publishers are blocked"
            );
        } else {
            tracing::info!(used_bytes = counted, limit_bytes = limit, "enough memory again: publishers go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_goes_off_well_below_where_it_goes_on() {
        assert!(!is_high(799, 800, false));
        assert!(is_high(800, 800, false));
        assert!(is_high(700, 800, true));
        assert!(!is_high(699, 800, true));
    }

    #[test]
    fn a_limit_of_zero_is_an_alarm_for_ever() {
        assert!(is_high(0, 0, false) && is_high(0, 0, true));
    }

    #[test]
    fn a_fraction_is_one_of_the_memory_there_is() {
        assert_eq!(limit(Watermark::Bytes(1234)), 1234);
        let half = limit(Watermark::Fraction(0.5)) as u64;
        assert_eq!(half, (machine::total_memory() as f64 * 0.5) as u64);
    }

    #[test]
    fn the_higher_figure_counts() {
        let owners = [
            (Owner::Queues, 10),
            (Owner::Outboxes, 5),
            (Owner::Partial, 0),
            (Owner::Parked, 0),
            (Owner::Transactions, 0),
        ];
        assert_eq!(MemoryUse { resident: 100, owners, uncommitted: 1, spilling: 2 }.counted(), 100);
        assert_eq!(MemoryUse { resident: 3, owners, uncommitted: 1, spilling: 2 }.counted(), 18);
    }
}
