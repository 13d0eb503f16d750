//! Messages from another broker.

use super::{Command, Outcome, command, exactly, number};
use crate::ctl::failure::{Failure, UNAVAILABLE};
use crate::ctl::{Session, print};
use crate::drain::{self, Options};

pub(super) const COMMANDS: &[Command] = &[command(
    "drain",
    "--from URI --queue QUEUE [--to URI] [--to-queue QUEUE | --original-address] [--batch N] [--follow]",
    "Moves the messages of a queue from any AMQP 0-9-1 broker to this one, or to any",
    run,
)];

const HERE: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";
const BATCH: u16 = 200;

fn run(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let words = &session.words;
    let needed = |name: &str| words.get(name).ok_or_else(|| Failure::usage(format!("--{name} is needed")));
    let queue = needed("queue")?.to_owned();
    if words.has("original-address") && words.has("to-queue") {
        return Err(Failure::usage("either --to-queue or --original-address"));
    }
    let to_queue = words.get("to-queue").unwrap_or(&queue).to_owned();
    let batch = words.get("batch").map_or(Ok(BATCH), number)?;
    if batch == 0 {
        return Err(Failure::usage("--batch is 1 at least"));
    }
    let options = Options {
        from: needed("from")?.to_owned(),
        queue: queue.clone(),
        to: words.get("to").unwrap_or(HERE).to_owned(),
        to_queue: (!words.has("original-address")).then_some(to_queue),
        batch,
        follow: words.has("follow"),
    };
    let moved = drain::run(&options).map_err(|error| Failure::new(UNAVAILABLE, format!("{error:#}")))?;
    print(&format!("{moved} messages were moved from queue \"{queue}\"\n"))
}
