//! Whole sessions without sockets: frames in, octets out, one seed for everything that happens in between.
//!
//! - `wire`: what a client sends and how it reads what comes back.
//! - `client`: one client, what it knows, and what it insists on.
//! - `ledger`: what has become of every message.
//! - `simulation`: a broker with several clients, driven by a seed.
//! - `crash`: the power fails, and the broker comes again.
//! - `cases`: sequences that once went wrong, or nearly.
//! - `alarms`: publishers that are held, by an alarm or by the disk.
//!
//! `SIM_SEED=<n>` runs one seed only, `SIM_SEEDS=<n>` so many power losses.

#[path = "../support/mod.rs"]
mod support;

mod alarms;
mod cases;
mod client;
mod crash;
mod ledger;
mod simulation;
mod wire;
