//! Connections, channels or queues that come and go, one after the other: how many a second, and what each costs the broker.

use std::time::{Duration, Instant};

use amq_protocol::uri::AMQPUri;
use anyhow::bail;
use protocol::AMQPClass;
use protocol::amqp::{FieldTable, channel, connection, queue};
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
    Ok(Churn { kind, seconds, latency_us, broker_cpu_seconds })
}

struct Client<'a> {
    uri: &'a AMQPUri,
    options: &'a Options,
    kind: Kind,
    stays: Connection,
}

impl Client<'_> {
    fn once(&mut self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Connection => self.connection(),
            Kind::Channel => self.channel(),
            Kind::Queue => self.queue(),
        }
    }

    fn connection(&self) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.uri)?;
        let close = connection::Close { reply_code: SUCCESS, reply_text: short("bye")?, class_id: 0, method_id: 0 };
        match connection.call(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))? {
            AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) => Ok(()),
            other => bail!("expected connection.close-ok, not {other:?}"),
        }
    }

    fn channel(&mut self) -> anyhow::Result<()> {
        let open = channel::AMQPMethod::Open(channel::Open {});
        let close = channel::AMQPMethod::Close(channel::Close {
            reply_code: SUCCESS,
            reply_text: short("bye")?,
            class_id: 0,
            method_id: 0,
        });
        for method in [open, close] {
            self.stays.call(COMING, AMQPClass::Channel(method))?;
        }
        Ok(())
    }

    fn queue(&mut self) -> anyhow::Result<()> {
        let name = short(&self.options.name)?;
        let declare = queue::AMQPMethod::Declare(queue::Declare {
            queue: name.clone(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: false,
            nowait: false,
            arguments: FieldTable::default(),
        });
        let delete =
            queue::AMQPMethod::Delete(queue::Delete { queue: name, if_unused: false, if_empty: false, nowait: false });
        for method in [declare, delete] {
            self.stays.call(CHANNEL, AMQPClass::Queue(method))?;
        }
        Ok(())
    }
}

impl Churn {
    fn rate(&self) -> f64 {
        self.latency_us.0.len() as f64 / self.seconds
    }

    fn cpu_us_each(&self) -> Option<f64> {
        self.broker_cpu_seconds.map(|seconds| seconds * 1e6 / (self.latency_us.0.len().max(1) as f64))
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
                "count": self.latency_us.0.len(),
                "seconds": self.seconds,
                "rate": self.rate(),
                "latency_us": percentiles_json(&self.latency_us),
                "broker_cpu_seconds": self.broker_cpu_seconds,
                "broker_cpu_us_each": self.cpu_us_each(),
            }),
        }
    }
}
