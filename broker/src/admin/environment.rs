//! `/api/warren/environment`: every setting with its value and where that comes from. Secrets are not among the values.

use axum::http::Method;
use serde_json::{Map, Value};

use super::answer::{Answer, Refusal, Reply};
use super::request::Ask;

pub(super) fn answer(ask: &Ask) -> Answer {
    ask.need_administrator()?;
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let descriptions = ask.broker().settings.descriptions();
    let described: Map<String, Value> = descriptions.map(|(key, text)| (key.to_owned(), text.into())).collect();
    Ok(Reply::Value(Value::Object(described)))
}
