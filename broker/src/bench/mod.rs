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
//! - `disk`: how fast the disk syncs

mod clock;
mod confirms;
mod consumer;
mod disk;
mod options;
mod plan;
mod process;
mod producer;
mod report;
mod run;
mod shared;

pub use options::{ExchangeType, Options};

/// Runs what the options ask for and prints the figures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    options.check()?;
    let disk = match &options.disk {
        Some(directory) => Some(disk::measure(directory)?),
        None => None,
    };
    let load = match options.target()? {
        Some(uri) => Some(run::run(options, &uri)?),
        None => None,
    };
    report::print(options, load.as_ref(), disk.as_deref())?;
    Ok(())
}
