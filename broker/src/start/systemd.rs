//! What systemd is told: that the broker is ready, that it stops, and at intervals that it still makes progress. Any other
//! supervisor that sets `NOTIFY_SOCKET` is told the same; without it nothing happens.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use storage::Lsn;

use crate::broker::Broker;

/// The way to the supervisor.
#[derive(Clone)]
pub(super) struct Supervisor {
    address: Option<SocketAddr>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that the environment names.
    pub(super) fn from_env() -> Self {
        let watchdog = watchdog(std::env::var("WATCHDOG_USEC").ok(), std::env::var("WATCHDOG_PID").ok());
        let address = match std::env::var_os("NOTIFY_SOCKET").map(|name| address(&name)) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(error)) => {
                tracing::warn!(%error, "NOTIFY_SOCKET names no socket: nobody is told that the broker is ready");
                None
            }
        };
        Self { address, watchdog }
    }

    /// The listeners are up.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1");
    }

    /// That is done, whatever came of it.
    pub(super) fn reloaded(&self) {
        self.tell("READY=1");
    }

    /// The broker is going down.
    pub(super) fn stopping(&self, why: &str) {
        self.tell(&format!("STOPPING=1\nSTATUS=stopping on {}", one_line(why)));
    }

    fn tell(&self, message: &str) {
        let Some(address) = &self.address else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            // A supervisor that does not read must not stop us.
            socket.set_nonblocking(true)?;
            socket.send_to_addr(message.as_bytes(), address)
        });
        if let Err(error) = sent {
            tracing::debug!(%error, "the supervisor was not told: {message}");
        }
    }

    /// Tells the supervisor's watchdog, twice as often as it asks for, that the runtime and the store make progress. Returns at
    /// once when it does not ask.
    pub(super) async fn watch(self, broker: Arc<Broker>) {
        let (Some(interval), Some(_)) = (self.watchdog, &self.address) else { return };
        let mut ticks = tokio::time::interval(interval / 2);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut progress = Progress::default();
        loop {
            // That this task runs says that the runtime does.
            ticks.tick().await;
            let store = &broker.store;
            let waits = store.pending_bytes() > 0;
            if progress.is_made(waits, store.durable(), store.is_disk_low()) {
                self.tell("WATCHDOG=1");
            } else {
                tracing::error!(waiting_bytes = store.pending_bytes(), "the store makes no progress");
            }
        }
    }
}

/// Where the store stood at the last look.
#[derive(Default)]
struct Progress {
    stuck_at: Option<Lsn>,
}

impl Progress {
    /// Whether the store has done something since the last look, had nothing to do, or waits for room on the disk: starting
    /// again would not give it any. What waits at two looks in a row at the same position is stuck.
    fn is_made(&mut self, waits: bool, durable: Lsn, disk_low: bool) -> bool {
        let stuck = waits && !disk_low;
        let before = std::mem::replace(&mut self.stuck_at, stuck.then_some(durable));
        !stuck || before != Some(durable)
    }
}

/// A path, or `@` and an abstract name.
fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

/// How often the watchdog wants to hear of us, if it is us whom it watches.
fn watchdog(interval_us: Option<String>, pid: Option<String>) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let interval_us = interval_us?.parse().ok().filter(|us| *us > 0);
    interval_us.filter(|_| ours).map(Duration::from_micros)
}

/// A message has one line for each of its fields.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_a_path_or_an_abstract_name() {
        assert_eq!(address(OsStr::new("/run/n")).unwrap().as_pathname(), Some(std::path::Path::new("/run/n")));
        assert_eq!(address(OsStr::new("@n")).unwrap().as_abstract_name(), Some(&b"n"[..]));
        assert!(address(OsStr::new("n")).is_err() && address(OsStr::new("")).is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(watchdog(some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(some("2000000"), some(&std::process::id().to_string())), Some(Duration::from_secs(2)));
        assert_eq!(watchdog(some("2000000"), some("1")), None);
        assert_eq!(watchdog(some("0"), None), None);
        assert_eq!(watchdog(some("soon"), None), None);
        assert_eq!(watchdog(None, None), None);
    }

    #[test]
    fn a_store_that_waits_at_the_same_place_twice_is_stuck() {
        let mut progress = Progress::default();
        assert!(progress.is_made(false, Lsn(1), false));
        assert!(progress.is_made(true, Lsn(1), false));
        assert!(!progress.is_made(true, Lsn(1), false));
        assert!(progress.is_made(true, Lsn(2), false));
        assert!(progress.is_made(true, Lsn(2), true));
        assert!(progress.is_made(true, Lsn(2), false));
        assert!(progress.is_made(false, Lsn(2), false));
        assert!(progress.is_made(true, Lsn(2), false));
    }
}
