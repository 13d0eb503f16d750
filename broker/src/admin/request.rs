//! One request of the management API: who asks, for what, and with which body.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value};
use storage::Lsn;

use super::Context;
use super::answer::{Answer, Refusal, Reply};
use crate::auth::{Grants, UserInfo};
use crate::broker::Broker;
use crate::model::access::{Access, Unrestricted};
use crate::vhost::Vhost;

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    /// Whoever may open the control socket: the broker's own user.
    Local,
    /// A user who has logged in.
    User(UserInfo),
}

/// See the module's documentation.
pub(super) struct Ask {
    pub(super) context: Context,
    pub(super) operator: Operator,
    pub(super) method: Method,
    pub(super) query: Vec<(String, String)>,
    pub(super) body: axum::body::Bytes,
    /// What the answer waits for.
    pub(super) lsn: Cell<Lsn>,
}

impl Operator {
    fn has(&self, tags: &[&str]) -> bool {
        match self {
            Self::Local => true,
            Self::User(user) => user.tags.iter().any(|tag| tags.contains(&tag.as_str())),
        }
    }

    /// The name that changes are made under.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Local => "warren",
            Self::User(user) => &user.name,
        }
    }
}

impl Ask {
    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.context.broker
    }

    /// For users with any of the four tags.
    pub(super) fn need_management(&self) -> Result<(), Refusal> {
        self.need(&["administrator", "monitoring", "policymaker", "management"], "Not management user")
    }

    pub(super) fn need_administrator(&self) -> Result<(), Refusal> {
        self.need(&["administrator"], "Not administrator user")
    }

    pub(super) fn need_monitoring(&self) -> Result<(), Refusal> {
        self.need(&["administrator", "monitoring"], "Not monitor user")
    }

    pub(super) fn need_policymaker(&self) -> Result<(), Refusal> {
        self.need(&["administrator", "policymaker"], "User not authorised to access object")
    }

    fn need(&self, tags: &[&str], otherwise: &str) -> Result<(), Refusal> {
        if self.operator.has(tags) { Ok(()) } else { Err(Refusal::not_authorised(otherwise)) }
    }

    /// Sees what belongs to others as well.
    pub(super) fn sees_all(&self) -> bool {
        self.operator.has(&["administrator", "monitoring"])
    }

    fn may_enter(&self, vhost: &str) -> bool {
        match &self.operator {
            Operator::Local => true,
            Operator::User(user) => self.broker().auth.vhost_access(&user.name, vhost),
        }
    }

    /// The virtual hosts that who asks may enter, by name.
    pub(super) fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let mut vhosts = self.broker().vhosts();
        vhosts.retain(|vhost| self.may_enter(vhost.name()));
        vhosts.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        vhosts
    }

    /// The virtual hosts that who asks may know about, by name.
    pub(super) fn known_vhosts(&self) -> Vec<Arc<Vhost>> {
        if !self.sees_all() {
            return self.vhosts();
        }
        let mut vhosts = self.broker().vhosts();
        vhosts.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        vhosts
    }

    /// One that who asks may know about.
    pub(super) fn known_vhost(&self, name: &str) -> Result<Arc<Vhost>, Refusal> {
        if self.sees_all() { self.broker().vhost(name).ok_or_else(Refusal::not_found) } else { self.vhost(name) }
    }

    /// Those virtual hosts, or the one that is named.
    pub(super) fn vhosts_at(&self, name: Option<&str>) -> Result<Vec<Arc<Vhost>>, Refusal> {
        match name {
            None => Ok(self.vhosts()),
            Some(name) => Ok(vec![self.vhost(name)?]),
        }
    }

    /// A virtual host that who asks may enter.
    pub(super) fn vhost(&self, name: &str) -> Result<Arc<Vhost>, Refusal> {
        let vhost = self.broker().vhost(name).ok_or_else(Refusal::not_found)?;
        if self.may_enter(name) {
            return Ok(vhost);
        }
        // As if it were not there.
        Err(Refusal::missing("Not Found"))
    }

    /// The rights of who asks in a virtual host.
    pub(super) fn access(&self, vhost: &Vhost) -> Box<dyn Access> {
        match &self.operator {
            Operator::Local => Box::new(Unrestricted),
            Operator::User(user) => {
                Box::new(Grants::new(Arc::clone(&self.broker().auth), Arc::clone(&user.name), Arc::clone(vhost.name())))
            }
        }
    }

    /// The body as a JSON object; an empty one is an object without anything in it.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Refusal> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            _ => Err(Refusal::bad_request("not_json")),
        }
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The answer waits until this change is on disk.
    pub(super) fn wait(&self, lsn: Lsn) {
        self.lsn.set(self.lsn.get().max(lsn));
    }

    /// A change that is done once it is on disk.
    pub(super) fn done(&self, lsn: Lsn) -> Answer {
        self.wait(lsn);
        Ok(Reply::Done)
    }

    /// As [`Ask::done`], with 201 for what is new.
    pub(super) fn put(&self, is_new: bool, lsn: Lsn) -> Answer {
        self.wait(lsn);
        Ok(Reply::put(is_new))
    }
}

/// Takes %XX apart; `None` for what is not UTF-8 then, or has an escape that is none.
pub(super) fn decode(text: &str) -> Option<String> {
    let octets = text.as_bytes();
    let mut decoded = Vec::with_capacity(octets.len());
    let mut at = 0;
    while let Some(octet) = octets.get(at) {
        if *octet == b'%' {
            let digit = |at: usize| char::from(*octets.get(at)?).to_digit(16);
            let value = digit(at + 1)? * 16 + digit(at + 2)?;
            decoded.push(u8::try_from(value).ok()?);
            at += 3;
        } else {
            decoded.push(*octet);
            at += 1;
        }
    }
    String::from_utf8(decoded).ok()
}

/// The parameters behind the question mark. Those that are not UTF-8 are left out.
pub(super) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = |text: &str| decode(&text.replace('+', " "));
            Some((plus(name)?, plus(value)?))
        })
        .collect()
}

/// A field that must be text.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<Cow<'a, str>> {
    match object.get(name)? {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Null => None,
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// A field that is true or false; scripts write both as text as well.
pub(super) fn flag(object: &Map<String, Value>, name: &str) -> Result<bool, Refusal> {
    match object.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(other) => {
            let body = serde_json::json!({"error": "bad_request", "reason": ["not_boolean", other]});
            Err(Refusal::with_body(StatusCode::BAD_REQUEST, body))
        }
    }
}

/// What RabbitMQ prints without a break.
const LINE_MAX: usize = 76;

/// 400 for fields that are missing, in RabbitMQ's words.
pub(super) fn need_keys(object: &Map<String, Value>, names: &[&str]) -> Result<(), Refusal> {
    let missing = names.iter().filter(|name| !object.contains_key(**name));
    let missing: Vec<_> = missing.map(|name| format!("{{key_missing,{name}}}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // Erlang prints a list on one line as long as it fits.
    let line = missing.join(",");
    let shown = if line.len() < LINE_MAX { line } else { missing.join(",\n ") };
    Err(Refusal::bad_request(format!("[{shown}]")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_apart_once() {
        assert_eq!(decode("%2F").as_deref(), Some("/"));
        assert_eq!(decode("a%252Fb").as_deref(), Some("a%2Fb"));
        assert_eq!(decode("%e2%82%ac").as_deref(), Some("\u{20ac}"));
        for wrong in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn queries_are_pairs() {
        let pairs = parse_query("page=2&name=a+b%26&&flag");
        let expected = [("page", "2"), ("name", "a b&"), ("flag", "")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
