//! The commands, by subject, and `help`.
//!
//! # Layout
//! - `users`, `vhosts`, `policies`, `queues`, `definitions`: one kind of resource each; `drain`: messages of another broker
//! - `node`: the broker as a whole; `checks`: what monitoring asks; `facts`: what is known of the broker, as text

mod checks;
mod definitions;
mod drain;
mod facts;
mod node;
mod policies;
mod queues;
mod users;
mod vhosts;

use hyper::Method;
use serde_json::Value;

pub(super) use facts::first_node;

use super::failure::{Failure, UNAVAILABLE, USAGE};
use super::{Session, lists, print};

/// What a command comes to.
type Outcome = Result<(), Failure>;

/// One command.
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Arguments and options, as `help` shows them. An option that is not here is a mistake.
    pub(super) usage: &'static str,
    pub(super) about: &'static str,
    run: fn(&Session, &[String]) -> Outcome,
}

const fn command(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&Session, &[String]) -> Outcome,
) -> Command {
    Command { name, usage, about, run }
}

/// Subjects with their commands.
const SUBJECTS: [(&str, &[Command]); 9] = [
    ("Node", node::COMMANDS),
    ("Health checks", checks::COMMANDS),
    ("Facts", facts::COMMANDS),
    ("Users and permissions", users::COMMANDS),
    ("Virtual hosts", vhosts::COMMANDS),
    ("Policies and parameters", policies::COMMANDS),
    ("Queues", queues::COMMANDS),
    ("Definitions", definitions::COMMANDS),
    ("Migration", drain::COMMANDS),
];

/// Options of every command.
const GENERAL: [&str; 15] = [
    "quiet",
    "silent",
    "node",
    "longnames",
    "vhost",
    "timeout",
    "formatter",
    "no-table-headers",
    "json",
    "help",
    "config",
    "data-dir",
    "uri",
    "cacert",
    "color",
];

/// One that lists something or does something else.
#[derive(Clone, Copy)]
pub(super) enum Known {
    Command(&'static Command),
    List(&'static lists::List),
}

impl Known {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Command(command) => command.name,
            Self::List(list) => list.command,
        }
    }

    pub(super) fn usage(self) -> String {
        match self {
            Self::Command(command) => command.usage.to_owned(),
            Self::List(list) => list.usage(),
        }
    }

    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Command(command) => command.about,
            Self::List(list) => list.about,
        }
    }

    /// Options of its own.
    fn takes(self, option: &str) -> bool {
        GENERAL.contains(&option) || self.options().iter().any(|known| known == option)
    }

    /// The options that its usage names.
    pub(super) fn options(self) -> Vec<String> {
        let usage = self.usage();
        let words = usage.split(|c: char| c.is_whitespace() || "[]=|".contains(c));
        words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect()
    }

    pub(super) fn run(self, session: &Session) -> Outcome {
        if let Some(option) = session.words.given().find(|option| !self.takes(option)) {
            return Err(Failure::usage(format!("Invalid options for this command: --{option}")));
        }
        match self {
            Self::Command(command) => (command.run)(session, session.words.words.get(1..).unwrap_or_default()),
            Self::List(list) => lists::run(session, list),
        }
    }
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Known> {
    let commands = SUBJECTS.iter().flat_map(|(_, commands)| commands.iter()).map(Known::Command);
    commands.chain(lists::LISTS.iter().map(Known::List))
}

pub(super) fn find(name: &str) -> Option<Known> {
    all().find(|known| known.name() == name)
}

pub(super) fn not_found(name: &str) -> Failure {
    Failure::new(USAGE, format!("Command '{name}' not found; `help` lists the commands"))
}

/// What there is, or how one command is used.
pub(super) fn help(command: Option<&str>) -> Outcome {
    let Some(name) = command else {
        let mut text = String::from(
            "Usage: warren ctl [--data-dir DIR | --config FILE | --uri URI [--cacert FILE]]\n\
             \x20                 [-q] [-s] [-p VHOST] [-t SECONDS] [--formatter table|pretty_table|csv|tsv|json] COMMAND\n",
        );
        for (subject, commands) in SUBJECTS {
            text.push_str(&format!("\n{subject}:\n"));
            for command in commands {
                text.push_str(&format!("  {:<40} {}\n", command.name, command.about));
            }
        }
        text.push_str("\nLists:\n");
        for list in &lists::LISTS {
            text.push_str(&format!("  {:<40} {}\n", list.command, list.about));
        }
        text.push_str(
            "\nA broker elsewhere is named by --uri, the address of its management API with user and password; over TLS --cacert \
             has the\ncertificates that are trusted. `help COMMAND` tells a command's arguments.\n",
        );
        return print(&text);
    };
    let known = find(name).ok_or_else(|| not_found(name))?;
    let usage = format!("{name} {}", known.usage());
    let mut text = format!("Usage: warren ctl {}\n\n{}.\n", usage.trim_end(), known.about());
    if let Known::List(list) = known {
        text.push_str(&format!("\nColumns: {}\n", list.columns.join(", ")));
    }
    print(&text)
}

/// Exactly as many arguments as wanted.
fn exactly<const N: usize>(given: &[String]) -> Result<[&str; N], Failure> {
    let texts: Vec<&str> = given.iter().map(String::as_str).collect();
    let count = texts.len();
    texts
        .try_into()
        .map_err(|_| Failure::usage(if count < N { "not enough arguments." } else { "too many arguments." }))
}

/// A JSON argument; `rabbitmqctl` counts one that is none as refused by the broker.
fn parsed(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(UNAVAILABLE, format!("Could not parse JSON document: {text}: {error}")))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::usage(format!("{text} is not a number")))
}

fn done(outcome: Result<Value, Failure>) -> Outcome {
    outcome.map(|_| ())
}

fn put(session: &Session, path: &str, body: &Value) -> Outcome {
    done(session.send(Method::PUT, path, body))
}

/// What is not there any more is as it was to be.
fn gone(outcome: Result<Value, Failure>) -> Outcome {
    match outcome {
        Err(failure) if failure.is_missing() => Ok(()),
        outcome => done(outcome),
    }
}

/// With another exit code where `rabbitmqctl` has another one for the same refusal.
fn recoded(outcome: Outcome, from: u8, to: u8) -> Outcome {
    outcome.map_err(|failure| if failure.code == from { Failure { code: to, ..failure } } else { failure })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ctl::words;

    #[test]
    fn commands_have_one_place() {
        let mut names = HashSet::new();
        for known in all() {
            assert!(names.insert(known.name()), "{}", known.name());
            assert!(!known.about().is_empty() && !known.about().ends_with('.'), "{}", known.name());
        }
        assert!(find("list_queues").is_some() && find("nosuch_command").is_none());
    }

    #[test]
    fn every_option_that_is_shown_can_be_given() {
        for known in all() {
            for option in known.options() {
                assert!(words::option(&option).is_some(), "{} --{option}", known.name());
            }
        }
        for option in GENERAL {
            assert!(words::option(option).is_some(), "--{option}");
        }
    }
}
