//! `warren bench`: an AMQP load generator on the broker's own protocol crate, and a measurement of the raw disk.
//!
//! It has to saturate a broker from one core, so it works in batches: a producer keeps a buffer of encoded publishes and
//! only renews their timestamps, a consumer answers a whole read with one write. Plain threads and blocking sockets, one
//! thread per connection and direction.
//!
//! # Layout
//! - `options`: the command line
//! - `plan`: which queues exist and who uses which
//! - `producer`, `confirms`, `consumer`: the load
//! - `clock`, `shared`, `process`: what is measured with
//! - `run`, `report`: a run and its figures
//! - `churn`, `hold`: connections, channels and queues instead of messages
//! - `disk`, `round_trips`: what the machine allows: syncs of the disk, round trips of an echo server
//! - `check`: a fixed list of loads against stored bounds

mod check;
mod churn;
mod clock;
mod confirms;
mod consumer;
mod disk;
mod hold;
mod options;
mod plan;
mod process;
mod producer;
mod report;
mod round_trips;
mod run;
mod shared;

use std::time::Duration;

pub use options::{ExchangeType, Options};

/// How long the echo server is measured.
const ECHO_TIME: Duration = Duration::from_secs(4);

/// Runs what the options ask for and prints the figures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    options.check()?;
    let target = options.target()?;
    if let (true, Some(uri)) = (options.check, &target) {
        return check::run(options, uri);
    }
    let mut sections = Vec::new();
    if let Some(directory) = &options.disk {
        sections.push(disk::section(&disk::measure(directory)?));
    }
    if options.echo {
        sections.push(round_trips::measure(ECHO_TIME)?.section());
    }
    let mut load = None;
    match (target, options.churn, options.hold) {
        (None, ..) => {}
        (Some(uri), Some(kind), _) => sections.push(churn::run(options, &uri, kind)?.section()),
        (Some(uri), _, Some(kind)) => sections.push(hold::run(options, &uri, kind)?.section()),
        (Some(uri), None, None) => load = Some(run::run(options, &uri)?),
    }
    report::print(options, load.as_ref(), sections)?;
    Ok(())
}
