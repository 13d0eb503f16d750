//! Virtual hosts, what describes them, and their limits.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{Command, Outcome, command, done, exactly, parsed, put};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure};
use crate::ctl::print;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "add_vhost",
        "VHOST [--description TEXT] [--tags TAGS] [--default-queue-type TYPE]",
        "Creates a virtual host",
        add,
    ),
    command(
        "update_vhost_metadata",
        "VHOST [--description TEXT] [--tags TAGS] [--default-queue-type TYPE] [--protected-from-deletion true|false]",
        "Changes what describes a virtual host",
        update,
    ),
    command("set_vhost_tags", "VHOST [TAG...]", "Replaces the tags of a virtual host", set_tags),
    command("delete_vhost", "VHOST", "Deletes a virtual host and all that is in it", delete),
    command("enable_vhost_deletion_protection", "VHOST", "Refuses to delete it from now on", protect),
    command("disable_vhost_deletion_protection", "VHOST", "Lets it be deleted again", unprotect),
    command("restart_vhost", "[-p VHOST]", "Tells that a virtual host runs: none stops alone", restart),
    command("set_vhost_limits", "[-p VHOST] DEFINITION", "Sets limits of a virtual host, as JSON", set_limits),
    command("clear_vhost_limits", "[-p VHOST]", "Takes them away", clear_limits),
    command("trace_on", "[-p VHOST]", "Copies every message of a virtual host to amq.rabbitmq.trace", trace_on),
    command("trace_off", "[-p VHOST]", "Ends that", trace_off),
];

const QUEUE_TYPES: [&str; 3] = ["quorum", "stream", "classic"];

/// What the options say of a virtual host.
fn described(session: &Session) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    for (option, field) in
        [("description", "description"), ("tags", "tags"), ("default-queue-type", "default_queue_type")]
    {
        if let Some(value) = session.words.get(option) {
            body.insert(field.to_owned(), value.into());
        }
    }
    if let Some(kind) = session.words.get("default-queue-type").filter(|kind| !QUEUE_TYPES.contains(kind)) {
        let types = QUEUE_TYPES.join(", ");
        let text = format!("Bad argument: Default queue type must be one of: {types}. Provided: {kind}");
        return Err(Failure::new(DATA, text));
    }
    Ok(body)
}

fn path(vhost: &str) -> String {
    format!("/api/vhosts/{}", segment(vhost))
}

fn add(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    let body = described(session)?;
    session.say(&format!("Adding vhost \"{name}\" ..."))?;
    // One that is there stays as it is.
    if session.get("/api/vhosts?columns=name")?.as_array().is_some_and(|all| all.iter().any(|v| v["name"] == name)) {
        return session.say(&format!("Virtual host \"{name}\" already exists"));
    }
    put(session, &path(name), &Value::Object(body))
}

/// What is not given stays as it is.
fn update(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    let mut change = described(session)?;
    match session.words.get("protected-from-deletion") {
        None => {}
        Some(flag @ ("true" | "false")) => {
            change.insert("protected_from_deletion".to_owned(), (flag == "true").into());
        }
        Some(other) => return Err(Failure::usage(format!("--protected-from-deletion is true or false, not {other}"))),
    }
    if change.is_empty() {
        return Err(Failure::usage("not enough arguments."));
    }
    session.say(&format!("Updating metadata of vhost \"{name}\" ..."))?;
    replace(session, name, change)
}

fn set_tags(session: &Session, given: &[String]) -> Outcome {
    let (name, tags) = given.split_first().ok_or_else(|| Failure::usage("not enough arguments."))?;
    session.say(&format!("Setting tags for virtual host \"{name}\" to [{}] ...", tags.join(", ")))?;
    replace(session, name, Map::from_iter([("tags".to_owned(), json!(tags))]))
}

fn replace(session: &Session, name: &str, change: Map<String, Value>) -> Outcome {
    let missing = || Failure::new(DATA, format!("Virtual host '{name}' does not exist"));
    let known = session.get(&path(name)).map_err(|failure| if failure.is_missing() { missing() } else { failure })?;
    let mut body = Map::new();
    for field in ["description", "tags", "default_queue_type", "protected_from_deletion"] {
        let value = known.get(field);
        body.extend(value.map(|value| (field.to_owned(), value.clone())));
    }
    body.extend(change);
    put(session, &path(name), &Value::Object(body))
}

fn delete(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Deleting vhost \"{name}\" ..."))?;
    done(session.delete(&path(name)))
}

fn protect(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Protecting virtual host \"{name}\" from removal by updating its metadata..."))?;
    done(session.send(Method::POST, &format!("{}/deletion/protection", path(name)), &json!({})))
}

fn unprotect(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Removing deletion protection from virtual host \"{name}\" by updating its metadata..."))?;
    done(session.delete(&format!("{}/deletion/protection", path(name))))
}

fn restart(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let name = session.words.vhost();
    session.get(&path(name)).map_err(|failure| Failure { code: DATA, ..failure })?;
    print(&format!("Vhost '{name}' is already running\n"))
}

fn limits(session: &Session) -> String {
    format!("/api/vhost-limits/{}", segment(session.words.vhost()))
}

fn set_limits(session: &Session, given: &[String]) -> Outcome {
    let [definition] = exactly(given)?;
    let vhost = session.words.vhost();
    session.say(&format!("Setting vhost limits to \"{definition}\" for vhost \"{vhost}\" ..."))?;
    put(session, &limits(session), &parsed(definition)?)
}

fn clear_limits(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.say(&format!("Clearing vhost \"{}\" limits ...", session.words.vhost()))?;
    super::recoded(done(session.delete(&limits(session))), DATA, crate::ctl::failure::UNAVAILABLE)
}

fn tracing(session: &Session) -> String {
    format!("/api/warren/tracing/{}", segment(session.words.vhost()))
}

fn trace_on(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let vhost = session.words.vhost();
    session.say(&format!("Starting tracing for vhost \"{vhost}\" ..."))?;
    put(session, &tracing(session), &json!({}))?;
    print(&format!("Trace enabled for vhost {vhost}\n"))
}

fn trace_off(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let vhost = session.words.vhost();
    session.say(&format!("Stopping tracing for vhost \"{vhost}\" ..."))?;
    done(session.delete(&tracing(session)))?;
    print(&format!("Trace disabled for vhost {vhost}\n"))
}
