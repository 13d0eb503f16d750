//! Heartbeats in both directions, counted in ticks of a quarter of the interval.

use std::time::Duration;

/// Ticks without an octet after which the client counts as dead: RabbitMQ gives up between two and three intervals.
const SILENT_TICKS_MAX: u32 = 10;
/// Ticks without an octet of ours after which a heartbeat is due. An idle client gets one every half interval, as from
/// RabbitMQ, and any other is not left alone for longer than three quarters: some give up after one whole interval.
const OWN_SILENT_TICKS_MAX: u32 = 2;

/// What a tick asks for.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Tick {
    /// Nothing.
    Quiet,
    /// Nothing was written for a while: send a heartbeat.
    Send,
    /// The client is gone.
    Dead,
}

/// Counts traffic between ticks; any octets count, not only heartbeats.
#[derive(Default)]
pub(super) struct Heartbeat {
    written: bool,
    /// What is written next is a heartbeat, which is no traffic.
    sending: bool,
    read: bool,
    silent_ticks: u32,
    own_silent_ticks: u32,
    /// The first tick is over. What was written before that was the handshake: clients count from its beginning.
    begun: bool,
}

impl Heartbeat {
    /// Time between ticks; `None` when the client turned heartbeats off.
    pub(super) fn period(interval_s: u16) -> Option<Duration> {
        (interval_s > 0).then(|| Duration::from_millis(u64::from(interval_s) * 250))
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
            self.own_silent_ticks = 0;
            return Tick::Quiet;
        }
        self.begun = true;
        self.own_silent_ticks += 1;
        if self.own_silent_ticks < OWN_SILENT_TICKS_MAX {
            return Tick::Quiet;
        }
        self.own_silent_ticks = 0;
        self.sending = true;
        Tick::Send
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What so many ticks ask for when nothing happens but our heartbeats.
    fn alone(heartbeat: &mut Heartbeat, ticks: usize) -> Vec<Tick> {
        let tick = |_| {
            let tick = heartbeat.tick(true);
            if tick == Tick::Send {
                heartbeat.on_written();
            }
            tick
        };
        (0..ticks).map(tick).collect()
    }

    #[test]
    fn silence_is_answered_by_heartbeats_and_then_by_the_end() {
        let mut heartbeat = Heartbeat::default();
        let ticks = alone(&mut heartbeat, 10);
        let sent = ticks.iter().filter(|tick| **tick == Tick::Send).count();
        assert_eq!((sent, ticks.last()), (4, Some(&Tick::Dead)));
    }

    #[test]
    fn an_idle_client_hears_every_half_interval_also_right_after_the_handshake() {
        let mut heartbeat = Heartbeat::default();
        heartbeat.on_written();
        for _ in 0..5 {
            heartbeat.on_read();
            assert_eq!(alone(&mut heartbeat, 2), [Tick::Quiet, Tick::Send]);
        }
    }

    #[test]
    fn after_traffic_the_next_one_comes_within_three_quarters() {
        let mut heartbeat = Heartbeat::default();
        assert_eq!(alone(&mut heartbeat, 2), [Tick::Quiet, Tick::Send]);
        for _ in 0..20 {
            heartbeat.on_read();
            heartbeat.on_written();
            assert_eq!(heartbeat.tick(true), Tick::Quiet);
        }
        assert_eq!(alone(&mut heartbeat, 2), [Tick::Quiet, Tick::Send]);
    }

    #[test]
    fn a_held_client_is_not_dead() {
        let mut heartbeat = Heartbeat::default();
        assert!((0..40).all(|_| heartbeat.tick(false) != Tick::Dead));
    }
}
