//! Definitions to and from files.

use hyper::Method;
use serde_json::Value;

use super::{Command, Outcome, command, exactly};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure};
use crate::ctl::print;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "export_definitions",
        "[-p VHOST] FILE|- [--format json]",
        "Writes all that is set up, or what one virtual host has, to a file",
        export,
    ),
    command(
        "import_definitions",
        "[-p VHOST] [FILE|-] [--format json] [--skip-unsupported]",
        "Reads such a file, of RabbitMQ as well; without a file standard input",
        import,
    ),
];

fn path(session: &Session) -> String {
    session
        .words
        .get("vhost")
        .map_or_else(|| "/api/definitions".into(), |vhost| format!("/api/definitions/{}", segment(vhost)))
}

fn need_json(session: &Session) -> Outcome {
    match session.words.get("format") {
        None => Ok(()),
        Some(format) if format.eq_ignore_ascii_case("json") => Ok(()),
        Some(other) => Err(Failure::usage(format!("definitions are JSON here, not {other}"))),
    }
}

fn export(session: &Session, given: &[String]) -> Outcome {
    let [file] = exactly(given)?;
    need_json(session)?;
    let text = session.get(&path(session))?.to_string();
    if file == "-" {
        return print(&format!("{text}\n"));
    }
    session.say(&format!("Exporting definitions in JSON to a file at \"{file}\" ..."))?;
    std::fs::write(file, text).map_err(|error| Failure::new(DATA, format!("{file}: {error}")))
}

fn import(session: &Session, given: &[String]) -> Outcome {
    let file = match given {
        [] => "-",
        _ => exactly::<1>(given)?[0],
    };
    need_json(session)?;
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|error| Failure::new(DATA, format!("{file}: {error}")))?;
    let definitions: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(DATA, format!("{file}: Failed to deserialise input (format: JSON): {error}")))?;
    session.say(&format!("Importing definitions in JSON from a file at \"{file}\" ..."))?;
    let skip = session.words.has("skip-unsupported");
    let outcome = session.send(Method::POST, &format!("{}?skip_unsupported={skip}", path(session)), &definitions);
    let told = outcome.map_err(|failure| Failure { code: DATA.max(failure.code), ..failure })?;
    for skipped in told["skipped"].as_array().into_iter().flatten() {
        let text = |name: &str| skipped[name].as_str().unwrap_or_default().trim().replace('\n', " ");
        session.warn(&format!("left out: {}: {}", text("entry"), text("reason")))?;
    }
    session.say("Done.")
}
