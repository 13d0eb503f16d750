//! What is open: connections and channels as operators see them, and what they have counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};

use parking_lot::Mutex;

use super::{Broker, ConnectionInfo};
use crate::model::arguments::Arguments;
use crate::model::counters::Counted;
use crate::model::statistics::{MessageCounters, Statistics, TrafficCounters, churn, messages, traffic};
use crate::queue::Queue;
use crate::queue::consumers::ConsumerId;
use crate::queue::outbox::Outbox;
use crate::vhost::Vhost;

/// A connection, from its first frame on.
pub struct OpenConnection {
    outbox: Arc<Outbox>,
    statistics: Arc<Statistics>,
    traffic: Mutex<TrafficCounters>,
    channels: Mutex<BTreeMap<u16, Arc<OpenChannel>>>,
    /// Largest frame, as negotiated.
    pub frame_max: AtomicU32,
    /// Most channels, as negotiated.
    pub channel_max: AtomicU16,
    /// Heartbeat interval in seconds, as negotiated.
    pub heartbeat_s: AtomicU16,
    pub(crate) is_blocked: AtomicBool,
}

/// An open channel.
pub struct OpenChannel {
    /// Its number on its connection.
    pub number: u16,
    /// Its slot in the connection's outbox.
    pub(crate) slot: u32,
    /// When it was opened, in milliseconds of the wall clock.
    pub opened_at_ms: u64,
    state: Mutex<ChannelState>,
}

/// What changes of a channel. As of the end of the last batch of frames that came on it.
#[derive(Clone, Default)]
pub struct ChannelState {
    /// What the client did; deliveries are counted by the outbox.
    pub counters: MessageCounters,
    /// Limit for each consumer that comes; 0 is none.
    pub prefetch: u32,
    /// Publishes are confirmed.
    pub confirms: bool,
    /// Publishes and settlements wait for a commit.
    pub is_transactional: bool,
    /// Publishes that are not confirmed yet.
    pub unconfirmed: u64,
    /// Publishes that wait for a commit.
    pub uncommitted: u64,
    /// Settlements that wait for a commit.
    pub uncommitted_acks: u64,
    /// By tag.
    pub consumers: BTreeMap<Arc<str>, Arc<OpenConsumer>>,
}

/// A consumer as its client asked for it.
pub struct OpenConsumer {
    /// Identity.
    pub id: ConsumerId,
    /// Where it consumes.
    pub queue: Arc<Queue>,
    /// It need not acknowledge.
    pub no_ack: bool,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// Its own limit; 0 is none.
    pub prefetch: u32,
    /// The arguments of `basic.consume`.
    pub arguments: Arguments,
}

/// A channel with what is counted and outstanding.
#[derive(Clone)]
pub struct ChannelInfo {
    /// Its number.
    pub number: u16,
    /// When it was opened, in milliseconds of the wall clock.
    pub opened_at_ms: u64,
    /// What changes.
    pub state: ChannelState,
    /// The limit that all its consumers share; 0 is none.
    pub global_prefetch: u32,
    /// Deliveries that wait for an acknowledgement.
    pub unacked: usize,
    /// All that was counted.
    pub counted: Counted<{ messages::LEN }>,
}

impl OpenConnection {
    pub(crate) fn new(outbox: Arc<Outbox>, statistics: Arc<Statistics>) -> Self {
        Self {
            outbox,
            statistics,
            traffic: Mutex::default(),
            channels: Mutex::default(),
            frame_max: AtomicU32::new(0),
            channel_max: AtomicU16::new(0),
            heartbeat_s: AtomicU16::new(0),
            is_blocked: AtomicBool::new(false),
        }
    }

    /// Whether its publishes wait for an alarm to end.
    pub fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// Something was read from its socket, or written to it.
    pub(crate) fn count(&self, octets: (usize, u64), times: (usize, u64)) {
        let mut traffic = self.traffic.lock();
        traffic.turn(self.statistics.ticks.now());
        traffic.add(octets.0, octets.1);
        traffic.add(times.0, times.1);
    }

    /// What went over its socket.
    pub fn traffic(&self) -> Counted<{ traffic::LEN }> {
        self.traffic.lock().read(&self.statistics.ticks)
    }

    pub(crate) fn open_channel(&self, number: u16, slot: u32, now_ms: u64) -> Arc<OpenChannel> {
        let channel = Arc::new(OpenChannel { number, slot, opened_at_ms: now_ms, state: Mutex::default() });
        self.channels.lock().insert(number, Arc::clone(&channel));
        channel
    }

    /// Number of open channels.
    pub fn channel_count(&self) -> usize {
        self.channels.lock().len()
    }

    /// Its channels, by number.
    pub fn channels(&self) -> Vec<ChannelInfo> {
        let channels: Vec<_> = self.channels.lock().values().cloned().collect();
        channels.iter().map(|channel| self.info(channel)).collect()
    }

    fn info(&self, channel: &OpenChannel) -> ChannelInfo {
        let state = channel.state.lock().clone();
        let figures = self.outbox.channel_figures(channel.slot);
        let mut counters = state.counters.clone();
        counters.absorb(&figures.counters, self.statistics.ticks.now());
        ChannelInfo {
            number: channel.number,
            opened_at_ms: channel.opened_at_ms,
            state,
            global_prefetch: figures.prefetch,
            unacked: figures.unacked,
            counted: counters.read(&self.statistics.ticks),
        }
    }

    fn add_to(&self, sum: &mut MessageCounters) {
        let tick = self.statistics.ticks.now();
        for channel in self.channels.lock().values() {
            sum.absorb(&channel.state.lock().counters, tick);
            sum.absorb(&self.outbox.channel_figures(channel.slot).counters, tick);
        }
    }
}

impl OpenChannel {
    /// Changes what operators see.
    pub(crate) fn change(&self, change: impl FnOnce(&mut ChannelState)) {
        change(&mut self.state.lock());
    }
}

impl Broker {
    /// A channel is over; to be called before its outbox forgets it. What it counted goes on to count.
    pub(crate) fn retire_channel(&self, connection: &OpenConnection, vhost: &Vhost, channel: &OpenChannel) {
        let statistics = &self.services.statistics;
        let mut retired = statistics.retired();
        let known = {
            let mut channels = connection.channels.lock();
            let is_known = channels.get(&channel.number).is_some_and(|other| std::ptr::eq(&**other, channel));
            is_known && channels.remove(&channel.number).is_some()
        };
        if known {
            let tick = statistics.ticks.now();
            let mut state = channel.state.lock();
            // They keep queues alive.
            state.consumers.clear();
            let mut counters = connection.outbox.channel_figures(channel.slot).counters;
            counters.absorb(&state.counters, tick);
            // Nobody would ever ask again for those of one that is gone.
            retired.add((!vhost.is_deleted()).then(|| vhost.name()), &counters, tick);
        }
    }

    /// What went over the sockets of a virtual host's connections, of those that are open now.
    pub fn traffic(&self, vhost: &str) -> Counted<{ traffic::LEN }> {
        let statistics = &self.services.statistics;
        let mut sum = TrafficCounters::default();
        for info in self.connections.list().iter().filter(|info| *info.vhost == *vhost) {
            sum.absorb(&info.open.traffic.lock(), statistics.ticks.now());
        }
        sum.read(&statistics.ticks)
    }

    /// What came and went since the start.
    pub fn churn(&self) -> Counted<{ churn::LEN }> {
        let statistics = &self.services.statistics;
        statistics.churn().read(&statistics.ticks)
    }

    /// What clients of a virtual host, or of all, have done since the start.
    pub fn message_statistics(&self, vhost: Option<&str>) -> Counted<{ messages::LEN }> {
        let statistics = &self.services.statistics;
        let retired = statistics.retired();
        let mut sum = retired.of(vhost);
        for ConnectionInfo { open, vhost: its, .. } in self.connections.list() {
            if vhost.is_none_or(|wanted| *its == *wanted) {
                open.add_to(&mut sum);
            }
        }
        sum.read(&statistics.ticks)
    }

    /// Lets its seconds pass, from now on.
    pub async fn count_seconds(&self) -> std::convert::Infallible {
        const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = std::time::Instant::now();
        loop {
            interval.tick().await;
            let now = std::time::Instant::now();
            self.services.statistics.ticks.advance(now - last);
            self.services.statistics.note_lag((now - last).saturating_sub(SECOND));
            last = now;
        }
    }
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenConnection").field("channels", &self.channels.lock().len()).finish_non_exhaustive()
    }
}
