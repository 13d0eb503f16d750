//! One entry of a document: its fields, and how it is named when it is wrong.

use axum::http::StatusCode;
use protocol::error::AmqpError;
use serde_json::{Map, Value};

use crate::admin::answer::Refusal;
use crate::model::operation::OperationError;

pub(super) type Object = Map<String, Value>;

/// What names an entry, as far as it has these.
const NAMING: [&str; 9] =
    ["component", "name", "user", "source", "destination_type", "destination", "exchange", "routing_key", "vhost"];
/// Characters of a name that are shown.
const SHOWN_MAX: usize = 100;

/// Where an entry is in the document, and what it calls itself: `queues[2] (name "q", vhost "/")`.
pub(super) fn label(part: &str, at: usize, entry: &Value) -> String {
    let fields = NAMING.iter().filter_map(|name| {
        let text: String = entry.get(*name)?.as_str()?.chars().take(SHOWN_MAX).collect();
        Some(format!("{name} {text:?}"))
    });
    let fields: Vec<_> = fields.collect();
    if fields.is_empty() { format!("{part}[{at}]") } else { format!("{part}[{at}] ({})", fields.join(", ")) }
}

/// The entries of a part of the document; none when it is not there.
pub(super) fn entries<'a>(document: &'a Object, part: &str) -> Result<&'a [Value], Refusal> {
    match document.get(part) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(entries)) => Ok(entries),
        Some(_) => Err(Refusal::bad_request(format!("{part} is not a list"))),
    }
}

pub(super) fn text<'a>(entry: &'a Object, name: &str) -> Result<&'a str, Refusal> {
    entry.get(name).and_then(Value::as_str).ok_or_else(|| Refusal::bad_request(format!("{name} is missing or no text")))
}

pub(super) fn value(entry: &Object) -> Result<&Value, Refusal> {
    entry.get("value").ok_or_else(|| Refusal::bad_request("value is missing"))
}

/// Names are part of stored keys and travel as short strings.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    Ok(crate::model::operation::check_name(what, name)?)
}

/// What clients would be told, without the name of the code: nobody's rights are in question here.
pub(super) fn told(error: &AmqpError) -> Refusal {
    Refusal::bad_request(error.text.split_once(" - ").map_or(&*error.text, |(_, text)| text))
}

/// A value that is refused, in the words of whoever refuses it.
pub(super) fn invalid(reason: String) -> Refusal {
    OperationError::Invalid(reason).into()
}

impl Refusal {
    /// A bad request that says where.
    pub(super) fn within(self, place: &str) -> Self {
        let reason = self.whole_reason();
        Self::new(StatusCode::BAD_REQUEST, format_args!("{place}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_is_named_by_what_it_is() {
        assert_eq!(
            label("queues", 2, &json!({"name": "q", "vhost": "/", "x": "y"})),
            r#"queues[2] (name "q", vhost "/")"#
        );
        assert_eq!(label("queues", 0, &json!(7)), "queues[0]");
        let long = "n".repeat(1000);
        assert!(label("users", 0, &json!({"name": long})).len() < 200);
    }
}
