//! One run: set up, warm up, measure, stop, clean up.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use amq_protocol::uri::AMQPUri;
use anyhow::{anyhow, bail};

use super::consumer::Consumer;
use super::options::Options;
use super::plan;
use super::process;
use super::producer::Producer;
use super::shared::{Counters, Latencies, Shared};
use crate::client::Connection;

/// The figures of a run. Counts are those of the measured seconds.
pub(super) struct Load {
    pub(super) seconds: f64,
    pub(super) counts: Counts,
    pub(super) confirm_us: Latencies,
    pub(super) latency_us: Latencies,
    pub(super) generator_cpu_seconds: f64,
    pub(super) broker: Option<BrokerUse>,
}

/// What the broker's process used.
pub(super) struct BrokerUse {
    pub(super) cpu_seconds: f64,
    pub(super) rss_peak_bytes: u64,
}

/// Messages so far, or between two moments.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) confirmed: u64,
    pub(super) nacked: u64,
    pub(super) consumed: u64,
}

impl Counts {
    fn since(self, earlier: Self) -> Self {
        Self {
            published: self.published - earlier.published,
            confirmed: self.confirmed - earlier.confirmed,
            nacked: self.nacked - earlier.nacked,
            consumed: self.consumed - earlier.consumed,
        }
    }
}

/// One moment of a run.
struct Moment {
    at: Instant,
    counts: Counts,
    generator_cpu: f64,
    broker_cpu: Option<f64>,
}

struct Workers {
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
}

/// Loads a broker as the options say.
pub(super) fn run(options: &Options, uri: &AMQPUri) -> anyhow::Result<Load> {
    let broker = options.broker_pid.map(|pid| pid.to_string());
    if let Some(process) = &broker {
        process::reset_rss_peak(process);
    }
    let mut admin = Connection::open(uri)?;
    plan::set_up(&mut admin, options)?;
    let shared = Arc::new(Shared::default());
    let mut workers = Workers { producers: Vec::new(), consumers: Vec::new() };
    let measured =
        workers.start(options, uri, &shared).and_then(|()| workers.measure(options, broker.as_deref(), &shared));
    let latencies = workers.stop(&shared);
    let tidied = plan::tear_down(&mut admin, options);
    let (begin, end) = measured?;
    let (confirm_us, latency_us) = latencies?;
    if let Some(failure) = shared.failure() {
        bail!("{failure}");
    }
    tidied?;
    Ok(Load {
        seconds: (end.at - begin.at).as_secs_f64(),
        counts: end.counts.since(begin.counts),
        confirm_us,
        latency_us,
        generator_cpu_seconds: end.generator_cpu - begin.generator_cpu,
        broker: match (broker, begin.broker_cpu, end.broker_cpu) {
            (Some(process), Some(before), Some(after)) => {
                Some(BrokerUse { cpu_seconds: after - before, rss_peak_bytes: process::rss_peak_bytes(&process)? })
            }
            _ => None,
        },
    })
}

impl Workers {
    fn start(&mut self, options: &Options, uri: &AMQPUri, shared: &Arc<Shared>) -> anyhow::Result<()> {
        // All are connected before the first begins: under load that takes its time.
        let open = |count| (0..count).map(|_| Connection::open(uri)).collect::<anyhow::Result<Vec<_>>>();
        let (consumers, producers) = (open(options.consumers)?, open(options.producers)?);
        for (index, connection) in consumers.into_iter().enumerate() {
            self.consumers.push(Consumer::start(connection, options, index, shared)?);
        }
        for (index, connection) in producers.into_iter().enumerate() {
            self.producers.push(Producer::start(connection, options, index, shared)?);
        }
        Ok(())
    }

    fn measure(&self, options: &Options, broker: Option<&str>, shared: &Shared) -> anyhow::Result<(Moment, Moment)> {
        wait(Duration::from_secs_f64(options.warmup), shared, || false)?;
        shared.set_recording(true);
        let begin = self.moment(broker)?;
        let duration = Duration::from_secs_f64(options.duration);
        let mut last = (begin.at, begin.counts);
        for second in 1_u32.. {
            let until = Duration::from_secs(1) * second;
            let target = until.min(duration);
            wait(target.saturating_sub(begin.at.elapsed()), shared, || self.are_done(options))?;
            let now = (Instant::now(), self.counts());
            super::report::print_second(second, now.0 - last.0, now.1.since(last.1))?;
            last = now;
            if until >= duration || self.are_done(options) {
                break;
            }
        }
        let end = self.moment(broker)?;
        shared.set_recording(false);
        Ok((begin, end))
    }

    /// Whether everything that was ordered by number has been published or consumed.
    fn are_done(&self, options: &Options) -> bool {
        let counts = self.counts();
        let settled = if options.confirm > 0 { counts.confirmed + counts.nacked } else { counts.published };
        let published = options.pmessages == 0 || settled >= options.pmessages * options.producers as u64;
        let consumed = options.cmessages == 0 || counts.consumed >= options.cmessages * options.consumers as u64;
        (options.pmessages > 0 || options.cmessages > 0) && published && consumed
    }

    fn moment(&self, broker: Option<&str>) -> anyhow::Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            counts: self.counts(),
            generator_cpu: process::cpu_seconds("self")?,
            broker_cpu: broker.map(process::cpu_seconds).transpose()?,
        })
    }

    fn counts(&self) -> Counts {
        let producers = self.producers.iter().map(|producer| &producer.counters);
        let consumers = self.consumers.iter().map(|consumer| &consumer.counters);
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let add = |sum: Counts, counters: &Arc<Counters>| Counts {
            published: sum.published + load(&counters.published),
            confirmed: sum.confirmed + load(&counters.confirmed),
            nacked: sum.nacked + load(&counters.nacked),
            consumed: sum.consumed + load(&counters.consumed),
        };
        producers.chain(consumers).fold(Counts::default(), add)
    }

    /// Ends all threads and collects confirm latencies and end-to-end latencies.
    fn stop(self, shared: &Shared) -> anyhow::Result<(Latencies, Latencies)> {
        let panicked = |_| anyhow!("a thread of the load generator panicked");
        let mut confirm_us = Latencies::new()?;
        let mut latency_us = Latencies::new()?;
        shared.stop();
        for producer in &self.producers {
            // Without confirms there is nothing to wait for, and a broker that holds publishers back must not hold us.
            if producer.counters.confirmed.load(Ordering::Relaxed) == 0 {
                let _ = producer.stream.shutdown(Shutdown::Both);
            }
        }
        for producer in self.producers {
            producer.writer.join().map_err(panicked)?;
            // Already closed is as good.
            let _ = producer.stream.shutdown(Shutdown::Both);
            if let Some(latencies) = producer.reader.join().map_err(panicked)? {
                confirm_us.0.add(latencies.0)?;
            }
        }
        for consumer in self.consumers {
            let _ = consumer.stream.shutdown(Shutdown::Both);
            latency_us.0.add(consumer.reader.join().map_err(panicked)?.0)?;
        }
        Ok((confirm_us, latency_us))
    }
}

/// Waits, unless something fails or is done first.
fn wait(time: Duration, shared: &Shared, done: impl Fn() -> bool) -> anyhow::Result<()> {
    const STEP: Duration = Duration::from_millis(10);
    let start = Instant::now();
    loop {
        if let Some(failure) = shared.failure() {
            bail!("{failure}");
        }
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() || done() {
            return Ok(());
        }
        thread::sleep(left.min(STEP));
    }
}
