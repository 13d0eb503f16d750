//! Connections, channels or queues that come and go, one after the other: how many a second, and what each costs the broker.

use std::io::Write;
use std::time::{Duration, Instant};

use amq_protocol::uri::AMQPUri;
use protocol::amqp::{FieldTable, channel, queue};
use protocol::{AMQPClass, put_method};
use serde_json::json;

use super::options::{Kind, Options};
use super::process;
use super::report::{Section, grouped, percentiles_json, percentiles_text};
use super::shared::Latencies;
use crate::client::{CHANNEL, Connection, short};

/// The channel that comes and goes; the other one of its connection stays.
const COMING: u16 = CHANNEL + 1;
const SUCCESS: u16 = 200;

/// What opening and closing one after the other came to.
pub(super) struct Churn {
    kind: Kind,
    pipeline: usize,
    seconds: f64,
    latency_us: Latencies,
    broker_cpu_seconds: Option<f64>,
}

/// Opens and closes for the time that the options say, after the warm-up.
pub(super) fn run(options: &Options, uri: &AMQPUri, kind: Kind) -> anyhow::Result<Churn> {
    let broker = options.broker_pid.map(|pid| pid.to_string());
    let mut client = Client { uri, options, kind, stays: Connection::open(uri)? };
    let warmup = Instant::now();
    while warmup.elapsed() < Duration::from_secs_f64(options.warmup) {
        client.once()?;
    }
    let mut latency_us = Latencies::new()?;
    let cpu_before = broker.as_deref().map(process::cpu_seconds).transpose()?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs_f64(options.duration) {
        let before = Instant::now();
        client.once()?;
        latency_us.0.saturating_record(u64::try_from(before.elapsed().as_micros())?);
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_after = broker.as_deref().map(process::cpu_seconds).transpose()?;
    let broker_cpu_seconds = cpu_before.zip(cpu_after).map(|(before, after)| after - before);
    Ok(Churn {
        kind,
        pipeline: if kind == Kind::Connection { 1 } else { options.pipeline },
        seconds,
        latency_us,
        broker_cpu_seconds,
    })
}

struct Client<'a> {
    uri: &'a AMQPUri,
    options: &'a Options,
    kind: Kind,
    stays: Connection,
}

impl Client<'_> {
    /// Opens and closes as many as go together.
    fn once(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Connection if self.options.pipeline > 1 => Connection::open_and_close(self.uri),
            Kind::Connection => Connection::open(self.uri)?.close(),
            Kind::Channel => self.pairs(COMING, channel_pair()?),
            Kind::Queue => self.pairs(CHANNEL, queue_pair(&self.options.name)?),
        }
    }

    /// Calls two methods in turn, again and again; each has one answer.
    fn pairs(&mut self, channel: u16, pair: [AMQPClass; 2]) -> anyhow::Result<()> {
        if self.options.pipeline == 1 {
            for method in pair {
                self.stays.call(channel, method)?;
            }
            return Ok(());
        }
        let mut out = Vec::new();
        for _ in 0..self.options.pipeline {
            pair.iter().for_each(|method| put_method(&mut out, channel, method));
        }
        self.stays.stream.write_all(&out)?;
        for _ in 0..2 * self.options.pipeline {
            self.stays.receive(channel)?;
        }
        Ok(())
    }
}

fn channel_pair() -> anyhow::Result<[AMQPClass; 2]> {
    let close = channel::Close { reply_code: SUCCESS, reply_text: short("bye")?, class_id: 0, method_id: 0 };
    Ok([channel::AMQPMethod::Open(channel::Open {}), channel::AMQPMethod::Close(close)].map(AMQPClass::Channel))
}

fn queue_pair(name: &str) -> anyhow::Result<[AMQPClass; 2]> {
    let name = short(name)?;
    let declare = queue::Declare {
        queue: name.clone(),
        passive: false,
        durable: false,
        exclusive: true,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    };
    let delete = queue::Delete { queue: name, if_unused: false, if_empty: false, nowait: false };
    Ok([queue::AMQPMethod::Declare(declare), queue::AMQPMethod::Delete(delete)].map(AMQPClass::Queue))
}

impl Churn {
    fn count(&self) -> u64 {
        self.latency_us.0.len() * self.pipeline as u64
    }

    fn rate(&self) -> f64 {
        self.count() as f64 / self.seconds
    }

    fn cpu_us_each(&self) -> Option<f64> {
        self.broker_cpu_seconds.map(|seconds| seconds * 1e6 / (self.count().max(1) as f64))
    }

    /// The figures to print.
    pub(super) fn section(&self) -> Section {
        let kind = self.kind.name();
        let cpu = self.cpu_us_each().map(|us| format!("  {us:.1} µs of the broker's CPU each")).unwrap_or_default();
        let rate = grouped(self.rate() as u64);
        Section {
            lines: vec![format!("{kind} churn  {rate}/s  {}{cpu}", percentiles_text(&self.latency_us))],
            name: "churn",
            json: json!({
                "kind": kind,
                "pipeline": self.pipeline,
                "count": self.count(),
                "seconds": self.seconds,
                "rate": self.rate(),
                "latency_us": percentiles_json(&self.latency_us),
                "broker_cpu_seconds": self.broker_cpu_seconds,
                "broker_cpu_us_each": self.cpu_us_each(),
            }),
        }
    }
}
