//! All there is to know of a broker, for whoever is asked for help: text with one section of JSON per subject, without secrets.

use serde_json::Value;

use super::failure::{DATA, Failure};
use super::{Session, pretty, print};

/// Titles and where their content is. What a broker does not answer is named in its place.
const SECTIONS: [(&str, &str); 18] = [
    ("Status", "/api/warren/status"),
    ("Settings", "/api/warren/environment"),
    ("Overview", "/api/overview"),
    ("Nodes", "/api/nodes"),
    ("Alarms", "/api/health/checks/alarms"),
    ("Virtual hosts", "/api/vhosts"),
    ("Limits of virtual hosts", "/api/vhost-limits"),
    ("Users", "/api/users?columns=name,tags,limits"),
    ("Permissions", "/api/permissions"),
    ("Topic permissions", "/api/topic-permissions"),
    ("Policies", "/api/policies"),
    ("Operator policies", "/api/operator-policies"),
    ("Names of global parameters", "/api/global-parameters?columns=name"),
    ("Exchanges", "/api/exchanges"),
    ("Queues", "/api/queues"),
    ("Bindings", "/api/bindings"),
    ("Connections", "/api/connections"),
    ("Channels", "/api/channels"),
];

/// What a key of a secret has in it.
const SECRET: [&str; 6] = ["password", "passwd", "secret", "cookie", "token", "credential"];
const HIDDEN: &str = "<hidden>";

pub(super) fn run(session: &Session, given: &[String]) -> Result<(), Failure> {
    let file = match given {
        [] => None,
        [file] => Some(file),
        _ => return Err(Failure::usage("too many arguments.")),
    };
    let mut text = format!("Report of `warren ctl` {}\n", env!("CARGO_PKG_VERSION"));
    // Whether anybody answers at all.
    session.get("/api/whoami")?;
    for (title, path) in SECTIONS {
        let content = match session.get(path) {
            Ok(mut value) => {
                hide(&mut value);
                pretty(&value)
            }
            Err(failure) => format!("not available: {}\n", failure.text),
        };
        text.push_str(&format!("\n== {title}\n\n{content}"));
    }
    match file {
        None => print(&text),
        Some(file) => {
            std::fs::write(file, text).map_err(|error| Failure::new(DATA, format!("{file}: {error}")))?;
            session.say(&format!("The report is in {file}; look through it before you give it to others"))
        }
    }
}

/// Takes out what looks like a secret: by its name, or as part of an URI.
fn hide(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = name.to_ascii_lowercase();
                if SECRET.iter().any(|word| name.contains(word)) && !value.is_null() {
                    *value = HIDDEN.into();
                } else {
                    hide(value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::String(text) => {
            if let Some(hidden) = without_login(text) {
                *text = hidden;
            }
        }
        _ => {}
    }
}

/// `amqp://user:password@host` without what stands in front of the host.
fn without_login(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@')?;
    Some(format!("{scheme}://{HIDDEN}@{host}{}", &rest[authority.len()..]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_by_name_and_in_uris() {
        let mut value = json!({
            "user": "ann", "password_hash": "abc", "Secret": {"deep": 1}, "password": null,
            "list": [{"cookie": "c"}, "amqp://ann:sesame@h:5672/v?x=1", "amqp://h/p", "a@b"],
        });
        hide(&mut value);
        let expected = json!({
            "user": "ann", "password_hash": "<hidden>", "Secret": "<hidden>", "password": null,
            "list": [{"cookie": "<hidden>"}, "amqp://<hidden>@h:5672/v?x=1", "amqp://h/p", "a@b"],
        });
        assert_eq!(value, expected);
    }
}
