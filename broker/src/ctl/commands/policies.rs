//! Policies, operator policies and parameters.

use serde_json::json;

use super::{Command, Outcome, command, done, exactly, number, parsed, put};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{DATA, Failure};

pub(super) const COMMANDS: &[Command] = &[
    command(
        "set_policy",
        "[-p VHOST] NAME PATTERN DEFINITION [--priority N] [--apply-to WHAT]",
        "Sets a policy; the definition is JSON",
        |session, given| set(session, given, "policies", "policy"),
    ),
    command("clear_policy", "[-p VHOST] NAME", "Takes a policy away", |session, given| {
        clear(session, given, "policies", "policy")
    }),
    command(
        "set_operator_policy",
        "[-p VHOST] NAME PATTERN DEFINITION [--priority N] [--apply-to WHAT]",
        "Sets a policy that limits those of users",
        |session, given| set(session, given, "operator-policies", "operator policy override"),
    ),
    command("clear_operator_policy", "[-p VHOST] NAME", "Takes such a policy away", |session, given| {
        clear(session, given, "operator-policies", "operator policy override")
    }),
    command("set_parameter", "[-p VHOST] COMPONENT NAME VALUE", "Sets a parameter, as JSON", set_parameter),
    command("clear_parameter", "[-p VHOST] COMPONENT NAME", "Takes a parameter away", clear_parameter),
    command("set_global_parameter", "NAME VALUE", "Sets a parameter of the whole broker, as JSON", set_global),
    command("clear_global_parameter", "NAME", "Takes it away", clear_global),
];

fn at_vhost(session: &Session, kind: &str, name: &str) -> String {
    format!("/api/{kind}/{}/{}", segment(session.words.vhost()), segment(name))
}

fn set(session: &Session, given: &[String], kind: &str, named: &str) -> Outcome {
    let [name, pattern, definition] = exactly(given)?;
    let words = &session.words;
    let priority = words.get("priority").unwrap_or("0");
    let vhost = words.vhost();
    let priority_number: i64 = number(priority)?;
    session.say(&format!(
        "Setting {named} \"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" for \
         vhost \"{vhost}\" ..."
    ))?;
    let body = json!({
        "pattern": pattern,
        "definition": parsed(definition)?,
        "priority": priority_number,
        "apply-to": words.get("apply-to").unwrap_or("all"),
    });
    put(session, &at_vhost(session, kind, name), &body).map_err(|failure| {
        let text = || format!("Virtual host '{vhost}' does not exist");
        if failure.is_missing() { Failure::new(DATA, text()) } else { failure }
    })
}

fn clear(session: &Session, given: &[String], kind: &str, named: &str) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Clearing {named} \"{name}\" on vhost \"{}\" ...", session.words.vhost()))?;
    done(session.delete(&at_vhost(session, kind, name)))
}

fn parameter(session: &Session, component: &str, name: &str) -> String {
    format!("/api/parameters/{}/{}/{}", segment(component), segment(session.words.vhost()), segment(name))
}

fn set_parameter(session: &Session, given: &[String]) -> Outcome {
    let [component, name, value] = exactly(given)?;
    session.say(&format!("Setting runtime parameter \"{name}\" for component \"{component}\" ..."))?;
    put(session, &parameter(session, component, name), &json!({"value": parsed(value)?}))
}

fn clear_parameter(session: &Session, given: &[String]) -> Outcome {
    let [component, name] = exactly(given)?;
    session.say(&format!("Clearing runtime parameter \"{name}\" for component \"{component}\" ..."))?;
    done(session.delete(&parameter(session, component, name)))
}

fn set_global(session: &Session, given: &[String]) -> Outcome {
    let [name, value] = exactly(given)?;
    session.say(&format!("Setting global runtime parameter \"{name}\" to \"{value}\" ..."))?;
    put(session, &format!("/api/global-parameters/{}", segment(name)), &json!({"value": parsed(value)?}))
}

fn clear_global(session: &Session, given: &[String]) -> Outcome {
    let [name] = exactly(given)?;
    session.say(&format!("Clearing global runtime parameter \"{name}\" ..."))?;
    done(session.delete(&format!("/api/global-parameters/{}", segment(name))))
}
