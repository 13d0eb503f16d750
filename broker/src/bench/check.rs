//! `warren bench --check`: a fixed list of loads, compared with what the broker once did.
//!
//! Machines differ, and so does this one from hour to hour; so the bounds are not messages per second but messages for
//! each hash of a fixed block that a core computes in the same time. A figure below its bound is a broker that got slower,
//! or a machine whose memory and network are much slower than its arithmetic.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use amq_protocol::uri::AMQPUri;
use anyhow::{anyhow, bail};
use clap::{Args, Command, FromArgMatches};
use sha2::{Digest, Sha256};

use super::options::Options;
use super::report::{grouped, per_cpu_second};
use super::run::run as run_load;

/// Octets of a block; small enough for the first cache.
const BLOCK: usize = 4096;
const YARDSTICK_TIME: Duration = Duration::from_secs(1);

/// A load and the least it has to reach.
struct Bound {
    name: &'static str,
    flags: &'static str,
    /// Messages per second of the broker's CPU, for each block that one core hashes a second.
    least: f64,
}

/// Two thirds of what 0.1.0 reached on two cores of a shared machine (ARCHITECTURE.md, "Speed").
const BOUNDS: [Bound; 6] = [
    Bound { name: "a  1 to 1, 16 B, transient", flags: "--size 16 --auto-ack", least: 4.5 },
    Bound { name: "b  1 to 1, 1 KiB, transient", flags: "--size 1024 --auto-ack", least: 1.2 },
    Bound {
        name: "c  1 to 1, 16 B, persistent, confirms",
        flags: "--size 16 --persistent --confirm 1000 --ack-every 100",
        least: 2.0,
    },
    Bound {
        name: "d  10 to 10, 1 KiB, persistent, confirms",
        flags: "--size 1024 --persistent --confirm 100 --prefetch 100 --ack-every 10 \
                --producers 10 --consumers 10 --queues 10",
        least: 0.85,
    },
    Bound {
        name: "e  fanout to 10 queues, 16 B",
        flags: "--size 16 --auto-ack --exchange-type fanout --consumers 10 --queues 10",
        least: 8.0,
    },
    Bound {
        name: "f  topic, 1,000 bindings, 16 B",
        flags: "--size 16 --auto-ack --exchange-type topic --bindings 1000",
        least: 2.2,
    },
];

/// Runs the list, prints a line for each, and fails if one is below its bound.
pub(super) fn run(options: &Options, uri: &AMQPUri) -> anyhow::Result<()> {
    let mut slower = 0;
    for bound in &BOUNDS {
        let before = blocks_per_second();
        let load = run_load(&bound.options(options)?, uri)?;
        let yardstick = before.midpoint(blocks_per_second());
        let rate = per_cpu_second(&load).ok_or_else(|| anyhow!("the broker used no CPU time"))?;
        let reached = rate / yardstick;
        let verdict = if reached < bound.least { "SLOWER" } else { "ok" };
        slower += usize::from(reached < bound.least);
        writeln!(
            io::stdout(),
            "{:<42} {:>11} per CPU second  {reached:.2} per block (at least {:.2})  {verdict}",
            bound.name,
            grouped(rate as u64),
            bound.least
        )?;
    }
    if slower > 0 {
        bail!("{slower} of {} loads are slower than they were", BOUNDS.len());
    }
    Ok(())
}

impl Bound {
    /// The load's own flags, with the broker and the times of the command line.
    fn options(&self, given: &Options) -> anyhow::Result<Options> {
        let command = Options::augment_args(Command::new("bench").no_binary_name(true));
        let matches = command.try_get_matches_from(self.flags.split_ascii_whitespace())?;
        let mut options = Options::from_arg_matches(&matches)?;
        options.broker_pid = given.broker_pid;
        options.duration = given.duration;
        options.warmup = given.warmup;
        options.name.clone_from(&given.name);
        options.check()?;
        Ok(options)
    }
}

/// How many blocks one core hashes a second: the yardstick.
fn blocks_per_second() -> f64 {
    let block = [0x5a_u8; BLOCK];
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < YARDSTICK_TIME {
        for _ in 0..100 {
            black_box(Sha256::digest(black_box(block)));
        }
        count += 100;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::tests::parse;

    #[test]
    fn every_load_is_one_that_can_be_run() {
        let given = parse(&["--check", "--broker-pid", "1", "--duration", "2", "--name", "other"]);
        for bound in &BOUNDS {
            let options = bound.options(&given).unwrap();
            assert_eq!((options.broker_pid, options.name.as_str()), (Some(1), "other"));
            assert!(bound.least > 0.0);
        }
    }
}
