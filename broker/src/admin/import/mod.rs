//! Importing definitions, in the form that RabbitMQ exports.
//!
//! A document is checked as a whole before anything of it is applied, so that a mistake anywhere changes nothing, and is named
//! with its entry. What is applied is all of it, also over a crash: the document is noted in the store first, and a start that
//! finds the note applies it again, which changes nothing where that was done already.
//!
//! # Layout
//! - `check`: from a document to a `plan`; `entry`: reading and naming an entry; `apply`: doing it; `note`: what a crash leaves
//! - `form`: the form that a browser uploads a file with; `start`: the file that the configuration names

mod apply;
mod check;
mod entry;
mod form;
mod note;
mod plan;
mod start;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use storage::Lsn;

use super::answer::{Answer, Refusal, Reply};
use super::request::{Ask, Operator};
use crate::broker::Broker;

pub use start::at_start;

/// How a document is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Options {
    /// The virtual host that all of it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    vhost: Option<String>,
    /// What this broker cannot do is left out, and named, instead of refusing the document for it.
    #[serde(default)]
    skip_unsupported: bool,
    /// Who imports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Virtual hosts that were not there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    new_vhosts: Vec<String>,
    /// Digest of the file that the configuration names, when it is that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file_digest: Option<String>,
}

/// An entry that was left out.
#[derive(Debug, PartialEq, Eq)]
struct Skipped {
    entry: String,
    reason: String,
}

/// What an import has come to.
#[derive(Debug)]
struct Imported {
    skipped: Vec<Skipped>,
    /// Where all of it is durable.
    lsn: Lsn,
}

/// Imports what a request brings: all, or what belongs to one virtual host and does not name it. When it asks to skip what this
/// broker cannot do, the answer tells what that was.
pub(super) fn import(ask: &Ask, vhost: Option<&str>) -> Answer {
    let tells = ask.query("skip_unsupported").is_some();
    let options = Options {
        vhost: vhost.map(str::to_owned),
        skip_unsupported: ask.query("skip_unsupported") == Some("true"),
        user: match &ask.operator {
            Operator::Local => None,
            Operator::User(user) => Some(user.name.to_string()),
        },
        ..Options::default()
    };
    let text = form::file(&ask.body).unwrap_or(&ask.body);
    let imported = run(ask.broker(), text, &options)?;
    ask.wait(imported.lsn);
    if !tells {
        return Ok(Reply::Done);
    }
    let shown = |skipped: &Skipped| json!({"entry": skipped.entry, "reason": skipped.reason});
    Ok(Reply::Value(json!({"skipped": imported.skipped.iter().map(shown).collect::<Value>()})))
}

/// Checks a document, and applies it.
fn run(broker: &Broker, text: &[u8], options: &Options) -> Result<Imported, Refusal> {
    let document = parse(text)?;
    let _alone = broker.imports.lock();
    let (plan, skipped) = check::check(broker, &document, options)?;
    let new = plan.vhosts.iter().map(|(name, ..)| *name).filter(|name| broker.vhost(name).is_none());
    let options = Options { new_vhosts: new.map(str::to_owned).collect(), ..options.clone() };
    let note = note::begin(broker, text, &options);
    let applied = apply::apply(broker, plan, &options);
    let lsn = note.end(broker, &options);
    // Somebody deleted meanwhile what had been there, or a limit was reached by others.
    applied
        .map_err(|refusal| refusal.within("changed while the definitions were applied, what is above it is done"))?;
    Ok(Imported { skipped, lsn })
}

fn parse(text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(text).map_err(|_| Refusal::bad_request("failed_to_parse_json"))
}
