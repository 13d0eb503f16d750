//! Alarms of the node: short of memory, short of disk. While one is on, connections that publish are blocked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Broker;
use crate::model::events::Fields;
use crate::queue::signal;

/// What the node can be short of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// More memory is used than `memory.high_watermark` allows.
    Memory,
    /// Less disk is free than `storage.disk_free_limit` asks for, or a write failed for lack of space.
    Disk,
}

impl Alarm {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Memory => 1,
            Self::Disk => 2,
        }
    }
}

/// The alarms that are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Active(u8);

impl Active {
    /// Whether this one is on.
    pub fn has(self, alarm: Alarm) -> bool {
        self.0 & alarm.bit() != 0
    }

    /// Whether any is on.
    pub fn any(self) -> bool {
        self.0 != 0
    }

    /// RabbitMQ's words for it, as connection.blocked carries them; empty when none is on.
    pub fn reason(self) -> &'static str {
        match (self.has(Alarm::Memory), self.has(Alarm::Disk)) {
            (true, true) => "low on disk & memory",
            (true, false) => "low on memory",
            (false, true) => "low on disk",
            (false, false) => "",
        }
    }
}

/// What is measured has the lower bits, what operators say those above.
const MEASURED: u8 = 3;
const FORCED_SHIFT: u8 = 4;

/// The state behind [`Broker::alarms`].
#[derive(Default)]
pub(super) struct Alarms(AtomicU8);

impl Alarms {
    fn active(&self) -> Active {
        Self::seen(self.0.load(Ordering::Acquire))
    }

    /// As [`Alarms::set`], for what an operator says: it holds beside what is measured.
    fn force(&self, alarm: Alarm, on: bool) -> Active {
        let bit = alarm.bit() << FORCED_SHIFT;
        Self::seen(if on { self.0.fetch_or(bit, Ordering::AcqRel) } else { self.0.fetch_and(!bit, Ordering::AcqRel) })
    }

    /// An alarm is on when it was measured or an operator wants it.
    fn seen(bits: u8) -> Active {
        Active((bits | bits >> FORCED_SHIFT) & MEASURED)
    }

    /// What was on before.
    fn set(&self, alarm: Alarm, on: bool) -> Active {
        let bit = alarm.bit();
        Self::seen(if on { self.0.fetch_or(bit, Ordering::AcqRel) } else { self.0.fetch_and(!bit, Ordering::AcqRel) })
    }
}

impl Broker {
    /// The alarms that are on now.
    pub fn alarms(&self) -> Active {
        self.alarms.active()
    }

    /// Turns an alarm on or off; true when that changes anything. When the last one goes off, every connection is told.
    pub fn set_alarm(&self, alarm: Alarm, on: bool) -> bool {
        let before = self.alarms.set(alarm, on);
        self.alarm_changed(before, alarm)
    }

    /// Turns an alarm on by order of an operator, whatever is measured, or takes that order back; true when it is on or off
    /// since.
    pub fn force_alarm(&self, alarm: Alarm, on: bool) -> bool {
        let before = self.alarms.force(alarm, on);
        self.alarm_changed(before, alarm)
    }

    fn alarm_changed(&self, before: Active, alarm: Alarm) -> bool {
        let now = self.alarms();
        if before.has(alarm) == now.has(alarm) {
            return false;
        }
        if !now.any() {
            self.connections.raise_all(signal::ALARM);
        }
        let key = if now.has(alarm) { "alarm.set" } else { "alarm.cleared" };
        self.services.events.emit(key, || Fields::default().text("source", alarm.name()).text("node", &self.node_name));
        true
    }

    /// Has the alarm for the disk follow the store.
    pub fn watch_disk(self: &Arc<Self>) {
        let broker = Arc::downgrade(self);
        let changed = move |low: bool| {
            let Some(broker) = broker.upgrade() else { return };
            // What space is left is for messages that must not be lost.
            broker.store.spill().pause(low);
            let (free, limit) = broker.store.disk_free();
            if !broker.set_alarm(Alarm::Disk, low) {
                return;
            }
            if low {
                tracing::warn!(free_bytes = free, limit_bytes = limit, "low on disk: publishers are blocked");
            } else {
                tracing::info!(free_bytes = free, limit_bytes = limit, "enough disk again: publishers go on");
            }
        };
        self.store.on_disk(Box::new(changed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_rabbitmq() {
        let alarms = Alarms::default();
        assert_eq!((alarms.active().any(), alarms.active().reason()), (false, ""));
        assert!(!alarms.set(Alarm::Disk, true).any());
        assert_eq!(alarms.active().reason(), "low on disk");
        assert!(alarms.set(Alarm::Memory, true).has(Alarm::Disk));
        assert_eq!(alarms.active().reason(), "low on disk & memory");
        alarms.set(Alarm::Disk, false);
        assert_eq!(alarms.active().reason(), "low on memory");
        alarms.set(Alarm::Memory, false);
        assert!(!alarms.active().any());
        // What an operator says stays, whatever is measured.
        alarms.force(Alarm::Memory, true);
        alarms.set(Alarm::Memory, false);
        assert_eq!(alarms.active().reason(), "low on memory");
        assert!(alarms.force(Alarm::Memory, false).any() && !alarms.active().any());
    }
}
