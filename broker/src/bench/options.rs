//! The command line of `warren bench`.

use std::path::PathBuf;

use amq_protocol::uri::{AMQPScheme, AMQPUri};
use anyhow::{anyhow, bail};
use clap::{ArgAction, Args, ValueEnum};

const DEFAULT_URI: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

// No Debug: the URI holds a password.
/// Load an AMQP 0-9-1 broker and measure it; or measure the disk
#[derive(Clone, Args)]
pub struct Options {
    /// Broker to load [default: amqp://guest:guest@127.0.0.1:5672/%2f]
    #[arg(long)]
    pub uri: Option<String>,

    /// Publishing connections
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub producers: usize,

    /// Consuming connections
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub consumers: usize,

    /// Queues, shared out among producers and consumers
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub queues: usize,

    /// Body size in bytes; 8 and more carry the time for latencies
    #[arg(long, default_value_t = 16, value_name = "BYTES")]
    pub size: usize,

    /// Messages per second and producer; 0 = as many as possible
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub rate: u64,

    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    pub duration: f64,

    /// Seconds of load before that
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub warmup: f64,

    /// Each producer publishes N messages; the run ends when all are published (and confirmed), or after --duration
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub pmessages: u64,

    /// The run ends when N messages per consumer have been consumed, or after --duration
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub cmessages: u64,

    /// Publish persistent messages
    #[arg(long)]
    pub persistent: bool,

    /// Let messages expire after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub expiration: Option<u64>,

    /// Use publisher confirms with up to N messages in flight per producer
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub confirm: u64,

    /// Consume without acknowledgements
    #[arg(long)]
    pub auto_ack: bool,

    /// Acknowledge every Nth message, with `multiple`
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub ack_every: u64,

    /// Unacknowledged messages per consumer; 0 = no limit
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub prefetch: u16,

    /// Declare durable queues
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub durable: bool,

    /// Publish through an exchange of this type instead of the default exchange
    #[arg(long, value_enum, value_name = "TYPE")]
    pub exchange_type: Option<ExchangeType>,

    /// Bind each queue N times, and publish with each of those keys in turn (direct and topic: dev.NUMBER.*.status)
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub bindings: usize,

    /// Declare the queues with this argument (repeatable); numbers, true and false are taken as such
    #[arg(long = "argument", value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,

    /// Prefix of the names of queues and exchange
    #[arg(long, default_value = "warren-bench", value_name = "NAME")]
    pub name: String,

    /// Neither purge the queues before nor delete them after
    #[arg(long)]
    pub keep_queues: bool,

    /// Measure CPU time and memory of the broker with this process id
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,

    /// Print one JSON object as the last line
    #[arg(long)]
    pub json: bool,

    /// Instead of messages: open and close these one after the other, and measure how many a second
    #[arg(long, value_enum, value_name = "KIND", conflicts_with = "hold")]
    pub churn: Option<Kind>,

    /// With --churn: requests that are sent before the first answer is read (connections: a handshake without waiting if over 1)
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub pipeline: usize,

    /// Instead of messages: open --count of these, and measure the time and the memory they take
    #[arg(long, value_enum, value_name = "KIND")]
    pub hold: Option<Kind>,

    /// How many to --hold
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub count: usize,

    /// Measure the round trips of a plain TCP echo server in this process; loads a broker as well only when --uri is given
    #[arg(long)]
    pub echo: bool,

    /// Measure how fast the disk under this directory syncs; loads a broker as well only when --uri is given
    #[arg(long, value_name = "DIR")]
    pub disk: Option<PathBuf>,

    /// Run a fixed list of loads and compare with the bounds of a release; needs --broker-pid
    #[arg(long, requires = "broker_pid", conflicts_with_all = ["churn", "hold"])]
    pub check: bool,
}

/// What is opened instead of messages being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Connections, each with a channel; with heartbeats when they are held.
    Connection,
    /// Channels of one connection.
    Channel,
    /// Queues of one channel: transient and exclusive when they come and go, durable when they are held.
    Queue,
}

impl Kind {
    /// The word on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Channel => "channel",
            Self::Queue => "queue",
        }
    }
}

/// An exchange type to publish through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExchangeType {
    /// By exact routing key.
    Direct,
    /// To every queue.
    Fanout,
    /// By pattern.
    Topic,
    /// By header.
    Headers,
}

impl ExchangeType {
    /// The name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

impl Options {
    /// Refuses what can only hang or divide by zero.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        const SIZE_MAX: usize = 512 * 1024 * 1024;
        const SECONDS_MAX: f64 = 1e9;
        const COUNT_MAX: usize = 100_000;
        if self.producers + self.consumers == 0 {
            bail!("--producers and --consumers can't both be 0");
        }
        for (flag, count) in [("--count", self.count), ("--pipeline", self.pipeline), ("--queues", self.queues)] {
            if count == 0 {
                bail!("{flag} must be at least 1");
            }
        }
        for (flag, count) in [
            ("--producers", self.producers),
            ("--consumers", self.consumers),
            ("--queues", self.queues),
            ("--bindings", self.bindings),
            ("--count", self.count),
            ("--pipeline", self.pipeline),
        ] {
            if count > COUNT_MAX {
                bail!("{flag} must be at most {COUNT_MAX}");
            }
        }
        if self.size > SIZE_MAX {
            bail!("--size must be at most {SIZE_MAX}");
        }
        if !(self.duration > 0.0 && self.duration < SECONDS_MAX) {
            bail!("--duration must be more than 0");
        }
        if !(self.warmup >= 0.0 && self.warmup < SECONDS_MAX) {
            bail!("--warmup must not be negative");
        }
        if self.confirm > 1 << 24 {
            bail!("--confirm must be at most {}", 1 << 24);
        }
        if self.ack_every == 0 {
            bail!("--ack-every must be at least 1");
        }
        if !self.auto_ack && self.prefetch > 0 && self.ack_every > u64::from(self.prefetch) {
            bail!("--ack-every {} would wait for ever with --prefetch {}", self.ack_every, self.prefetch);
        }
        if self.bindings > 0 && !matches!(self.exchange_type, Some(ExchangeType::Direct | ExchangeType::Topic)) {
            bail!("--bindings needs --exchange-type direct or topic");
        }
        if let Some(argument) = self.arguments.iter().find(|argument| !argument.contains('=')) {
            bail!("--argument {argument}: must be NAME=VALUE");
        }
        if self.name.len() > 200 {
            bail!("--name must have at most 200 bytes");
        }
        Ok(())
    }

    /// The broker to load; none when only this machine is to be measured.
    pub(super) fn target(&self) -> anyhow::Result<Option<AMQPUri>> {
        let text = match &self.uri {
            Some(uri) => uri,
            None if self.echo || self.disk.is_some() => return Ok(None),
            None => DEFAULT_URI,
        };
        let uri: AMQPUri = text.parse().map_err(|problem| anyhow!("--uri: {problem}"))?;
        if uri.scheme != AMQPScheme::AMQP {
            bail!("--uri: only amqp:// is supported");
        }
        Ok(Some(uri))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    pub(in crate::bench) fn parse(flags: &[&str]) -> Options {
        Command::try_parse_from([&["bench"], flags].concat()).unwrap_or_else(|error| panic!("{error}")).options
    }

    #[test]
    fn defaults_are_usable() {
        let options = parse(&[]);
        options.check().unwrap();
        let uri = options.target().unwrap().unwrap();
        assert_eq!(uri.authority.port, 5672);
        assert_eq!(uri.vhost, "/");
        assert!(options.durable && !options.persistent);
    }

    #[test]
    fn the_disk_alone_needs_no_broker() {
        assert!(parse(&["--disk", "d"]).target().unwrap().is_none());
        assert!(parse(&["--echo"]).target().unwrap().is_none());
        let both = parse(&["--disk", "d", "--uri", "amqp://u:p@h:1/v"]);
        let uri = both.target().unwrap().unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.vhost.as_str()), ("h", "v"));
        assert!(parse(&["--uri", "amqps://h"]).target().is_err());
        assert!(parse(&["--uri", "nonsense"]).target().is_err());
    }

    #[test]
    fn what_can_not_work_is_refused() {
        for flags in [
            ["--queues", "0"].as_slice(),
            &["--producers", "0", "--consumers", "0"],
            &["--duration", "0"],
            &["--duration", "NaN"],
            &["--warmup", "inf"],
            &["--ack-every", "0"],
            &["--ack-every", "11", "--prefetch", "10"],
            &["--confirm", "99999999999"],
            &["--bindings", "2"],
            &["--bindings", "2", "--exchange-type", "fanout"],
            &["--argument", "x-queue-type"],
            &["--hold", "queue", "--count", "0"],
        ] {
            assert!(parse(flags).check().is_err(), "{flags:?}");
        }
        parse(&["--bindings", "2", "--exchange-type", "topic"]).check().unwrap();
        parse(&["--argument", "x-queue-type=quorum"]).check().unwrap();
        parse(&["--ack-every", "11", "--prefetch", "0"]).check().unwrap();
        parse(&["--ack-every", "11", "--prefetch", "10", "--auto-ack"]).check().unwrap();
    }
}
