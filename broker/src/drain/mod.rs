//! Moving messages from a queue of any AMQP 0-9-1 broker into another broker, without loss: a message is taken with a manual
//! acknowledgement, published with a confirm, and acknowledged once that confirm is there. Whenever this is interrupted, what
//! was not acknowledged is in its old queue again; of the last batch some may be in both then, and come from there as redelivered.
//!
//! # Layout
//! - `source`: where messages come from; `target`: where they go to

mod source;
mod target;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use amq_protocol::uri::{AMQPScheme, AMQPUri};
use anyhow::{Context, anyhow, bail};

use source::Source;
use target::Target;

/// What is moved. No `Debug`: URIs have passwords in them.
pub struct Options {
    /// The broker that has the messages.
    pub from: String,
    /// Its queue.
    pub queue: String,
    /// The broker that gets them.
    pub to: String,
    /// Its queue; `None` publishes to the exchange and with the key that a message came with.
    pub to_queue: Option<String>,
    /// Messages that are under way at once.
    pub batch: u16,
    /// Goes on when the queue is empty, until it is interrupted.
    pub follow: bool,
}

/// One message, as it is on the wire.
struct Message {
    delivery_tag: u64,
    /// Exchange and routing key.
    address: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
}

/// How often somebody who watches is told how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Moves messages until there are none; tells how many.
///
/// # Errors
///
/// Whatever either broker refuses. What was not confirmed is in its old queue then.
pub fn run(options: &Options) -> anyhow::Result<u64> {
    let mut target =
        Target::open(&uri(&options.to)?, options.to_queue.as_deref()).context("the broker that gets them")?;
    let from = uri(&options.from)?;
    let mut source = Source::open(&from, &options.queue, options.batch, options.follow)
        .with_context(|| format!("queue {:?} of the broker that has them", options.queue))?;
    let mut watched = Watched::new();
    let mut moved = 0;
    loop {
        let batch = source.batch(|message| target.publish(&message))?;
        // Confirmed before it is acknowledged, and never the other way round.
        target.confirmed()?;
        if let Some(last) = batch.last_tag {
            source.acknowledge(last)?;
        }
        moved += batch.count;
        watched.tell(moved);
        if batch.count == 0 && !options.follow {
            return Ok(moved);
        }
    }
}

fn uri(text: &str) -> anyhow::Result<AMQPUri> {
    let uri: AMQPUri = text.parse().map_err(|error| anyhow!("not an AMQP URI: {error}"))?;
    if uri.scheme != AMQPScheme::AMQP {
        bail!("only amqp:// can be drained, not amqps://");
    }
    Ok(uri)
}

/// Whoever looks at standard error.
struct Watched {
    told: Option<Instant>,
}

impl Watched {
    fn new() -> Self {
        Self { told: std::io::stderr().is_terminal().then(Instant::now) }
    }

    fn tell(&mut self, moved: u64) {
        if self.told.is_some_and(|told| told.elapsed() >= PROGRESS) {
            self.told = Some(Instant::now());
            // Nobody is there to tell that nobody can be told.
            let _ = writeln!(std::io::stderr(), "{moved} messages so far");
        }
    }
}
