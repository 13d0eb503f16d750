//! Queues.

use super::{Command, Outcome, command, done, exactly};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure, USAGE};

pub(super) const COMMANDS: &[Command] = &[
    command("delete_queue", "[-p VHOST] QUEUE [--if-empty] [--if-unused]", "Deletes a queue", delete),
    command("purge_queue", "[-p VHOST] QUEUE", "Deletes the ready messages of a queue", purge),
];

fn path(session: &Session, queue: &str) -> String {
    format!("/api/queues/{}/{}", segment(session.words.vhost()), segment(queue))
}

fn delete(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    let conditions = ["if-unused", "if-empty"].map(|name| format!("{name}={}", session.words.has(name)));
    session.say(&format!("Deleting queue '{name}' on vhost '{}' ...", session.words.vhost()))?;
    let outcome = session.delete(&format!("{}?{}", path(session, name), conditions.join("&")));
    // `rabbitmqctl` counts one that is not there as a mistake of the command line.
    done(outcome.map_err(|failure| missing(failure, USAGE, "No such queue was found")))
}

fn purge(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Purging queue '{name}' in vhost '{}' ...", session.words.vhost()))?;
    let outcome = session.delete(&format!("{}/contents", path(session, name)));
    done(outcome.map_err(|failure| missing(failure, DATA, "Object (queue, stream, exchange, etc) was not found")))
}

fn missing(failure: Failure, code: u8, text: &str) -> Failure {
    if failure.is_missing() { Failure::new(code, text) } else { failure }
}
