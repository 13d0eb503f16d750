//! Heartbeats in both directions, counted in ticks of half the interval.

use std::time::Duration;

/// Ticks without an octet after which the client counts as dead: RabbitMQ gives up between two and three intervals.
const SILENT_TICKS_MAX: u32 = 5;

/// What a tick asks for.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Tick {
    /// Nothing.
    Quiet,
    /// Nothing was written since the last tick: send a heartbeat.
    Send,
    /// The client is gone.
    Dead,
}

/// Counts traffic between ticks; any octets count, not only heartbeats.
#[derive(Default)]
pub(super) struct Heartbeat {
    written: bool,
    /// What is written next is a heartbeat, which is no traffic: an idle client gets one every tick, as from RabbitMQ.
    sending: bool,
    read: bool,
    silent_ticks: u32,
    /// The first tick is over. At that one RabbitMQ sends in any case, and clients that count from the handshake rely on it.
    begun: bool,
}

impl Heartbeat {
    /// Time between ticks; `None` when the client turned heartbeats off.
    pub(super) fn period(interval_s: u16) -> Option<Duration> {
        (interval_s > 0).then(|| Duration::from_millis(u64::from(interval_s) * 500))
    }

    pub(super) fn on_written(&mut self) {
        self.written |= !std::mem::take(&mut self.sending);
    }

    pub(super) fn on_read(&mut self) {
        self.read = true;
    }

    /// `reading` is false while we leave the socket unread ourselves: then silence is no sign of death.
    pub(super) fn tick(&mut self, reading: bool) -> Tick {
        if std::mem::take(&mut self.read) || !reading {
            self.silent_ticks = 0;
        } else {
            self.silent_ticks += 1;
        }
        if self.silent_ticks >= SILENT_TICKS_MAX {
            return Tick::Dead;
        }
        if std::mem::take(&mut self.written) && std::mem::replace(&mut self.begun, true) {
            return Tick::Quiet;
        }
        self.begun = true;
        self.sending = true;
        Tick::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_answered_by_heartbeats_and_then_by_a_close() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..4 {
            assert_eq!(heartbeat.tick(true), Tick::Send);
        }
        assert_eq!(heartbeat.tick(true), Tick::Dead);
    }

    #[test]
    fn a_heartbeat_itself_is_no_traffic() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..3 {
            heartbeat.on_read();
            assert_eq!(heartbeat.tick(true), Tick::Send);
            heartbeat.on_written();
        }
        heartbeat.on_written();
        assert_eq!(heartbeat.tick(true), Tick::Quiet);
    }

    #[test]
    fn traffic_in_either_direction_counts() {
        let mut heartbeat = Heartbeat::default();
        for tick in 0..20 {
            heartbeat.on_read();
            heartbeat.on_written();
            heartbeat.on_written();
            assert_eq!(heartbeat.tick(true), if tick == 0 { Tick::Send } else { Tick::Quiet });
        }
    }

    #[test]
    fn a_held_client_is_not_dead() {
        let mut heartbeat = Heartbeat::default();
        for _ in 0..20 {
            assert_eq!(heartbeat.tick(false), Tick::Send);
        }
    }
}
