//! Many idle connections, channels or durable queues: how long they take to open, and how much memory each holds.

use std::time::{Duration, Instant};

use amq_protocol::uri::AMQPUri;
use anyhow::bail;
use protocol::amqp::{FieldTable, channel, queue};
use protocol::{AMQPClass, put_method};
use serde_json::json;

use std::io::Write;

use super::options::{Kind, Options};
use super::plan;
use super::process;
use super::report::{Section, grouped};
use crate::client::{CHANNEL, Connection, short};

/// Seconds; what RabbitMQ suggests, and most clients take.
const HEARTBEAT: u16 = 60;
/// What is sent before any answer is read; more could fill both sockets' buffers.
const PIPELINED: usize = 1000;
/// The broker may have work left from the opening, and memory it is about to give back.
const SETTLE: Duration = Duration::from_secs(1);

/// What holding many of a kind came to.
pub(super) struct Hold {
    kind: Kind,
    count: usize,
    seconds: f64,
    /// The broker's resident bytes before and after.
    rss_bytes: Option<(u64, u64)>,
}

/// Opens as many as the options say, measures, and closes them.
pub(super) fn run(options: &Options, uri: &AMQPUri, kind: Kind) -> anyhow::Result<Hold> {
    let broker = options.broker_pid.map(|pid| pid.to_string());
    let rss = || broker.as_deref().map(process::rss_bytes).transpose();
    let mut admin = Connection::open(uri)?;
    let before = rss()?;
    let start = Instant::now();
    let mut connections = Vec::new();
    match kind {
        Kind::Connection => {
            for _ in 0..options.count {
                connections.push(Connection::open_with(uri, HEARTBEAT)?);
            }
        }
        Kind::Channel => open_channels(&mut admin, options.count)?,
        Kind::Queue => in_parts(&mut admin, options.count, |index| declare(options, index))?,
    }
    let seconds = start.elapsed().as_secs_f64();
    std::thread::sleep(SETTLE);
    let after = rss()?;
    if kind == Kind::Queue && !options.keep_queues {
        in_parts(&mut admin, options.count, |index| delete(options, index))?;
    }
    Ok(Hold { kind, count: options.count, seconds, rss_bytes: before.zip(after) })
}

fn open_channels(connection: &mut Connection, count: usize) -> anyhow::Result<()> {
    let last = usize::from(CHANNEL) + count;
    let max = usize::from(connection.channel_max);
    if last > max {
        bail!("the broker allows {max} channels on a connection");
    }
    let numbers: Vec<u16> = (CHANNEL + 1..=u16::try_from(last)?).collect();
    for part in numbers.chunks(PIPELINED) {
        let mut out = Vec::new();
        for number in part {
            put_method(&mut out, *number, &AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        }
        connection.stream.write_all(&out)?;
        for number in part {
            connection.receive(*number)?;
        }
    }
    Ok(())
}

/// Calls a method for each number, many at once.
fn in_parts(
    connection: &mut Connection,
    count: usize,
    method: impl Fn(usize) -> anyhow::Result<AMQPClass>,
) -> anyhow::Result<()> {
    let mut done = 0;
    while done < count {
        let part = done..count.min(done + PIPELINED);
        let mut out = Vec::new();
        for index in part.clone() {
            put_method(&mut out, CHANNEL, &method(index)?);
        }
        connection.stream.write_all(&out)?;
        for _ in part.clone() {
            connection.receive(CHANNEL)?;
        }
        done = part.end;
    }
    Ok(())
}

fn declare(options: &Options, index: usize) -> anyhow::Result<AMQPClass> {
    Ok(AMQPClass::Queue(queue::AMQPMethod::Declare(queue::Declare {
        queue: short(&plan::queue_name(options, index))?,
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    })))
}

fn delete(options: &Options, index: usize) -> anyhow::Result<AMQPClass> {
    Ok(AMQPClass::Queue(queue::AMQPMethod::Delete(queue::Delete {
        queue: short(&plan::queue_name(options, index))?,
        if_unused: false,
        if_empty: false,
        nowait: false,
    })))
}

impl Hold {
    fn bytes_each(&self) -> Option<f64> {
        self.rss_bytes.map(|(before, after)| after.saturating_sub(before) as f64 / self.count as f64)
    }

    /// The figures to print.
    pub(super) fn section(&self) -> Section {
        let kind = self.kind.name();
        let memory = match (self.bytes_each(), self.rss_bytes) {
            (Some(each), Some((before, _))) => {
                format!("  {:.1} KiB each, on top of {:.1} MiB", each / 1024.0, before as f64 / (1024.0 * 1024.0))
            }
            _ => String::new(),
        };
        Section {
            lines: vec![format!("{} of {kind} in {:.2} s{memory}", grouped(self.count as u64), self.seconds)],
            name: "hold",
            json: json!({
                "kind": kind,
                "count": self.count,
                "seconds": self.seconds,
                "broker_rss_bytes_before": self.rss_bytes.map(|(before, _)| before),
                "broker_rss_bytes_after": self.rss_bytes.map(|(_, after)| after),
                "broker_bytes_each": self.bytes_each(),
            }),
        }
    }
}
