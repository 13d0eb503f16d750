//! `/api/bindings`, and the bindings of one exchange or queue.

use std::sync::Arc;

use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::exchanges::{given_arguments, in_path};
use super::request::Ask;
use super::{exchanges, json as arguments, list, queues};
use crate::broker::Broker;
use crate::model::access::Access;
use crate::model::arguments::Arguments;
use crate::routing::binding::BindingKey;
use crate::vhost::{Destination, Exchange, ExchangeBinding, QueueBinding, Vhost};

/// One binding for sure.
struct Shown {
    source: Arc<str>,
    destination: String,
    kind: &'static str,
    key: Arc<str>,
    arguments: Arguments,
}

impl Shown {
    fn new(source: &Exchange, destination: &Destination, binding: &BindingKey) -> Self {
        let kind = match destination {
            Destination::Queue(_) => "queue",
            Destination::Exchange(_) => "exchange",
        };
        Self {
            source: Arc::clone(source.name()),
            destination: destination.name().to_owned(),
            kind,
            key: Arc::clone(&binding.key),
            arguments: Arguments::from_wire(&binding.arguments).unwrap_or_default(),
        }
    }

    /// What tells it apart from others between the same two, as a segment of a path.
    fn properties_key(&self) -> String {
        properties_key(&self.key, &self.arguments)
    }

    fn definition(&self, vhost: &str) -> Value {
        json!({
            "source": &*self.source,
            "vhost": vhost,
            "destination": self.destination,
            "destination_type": self.kind,
            "routing_key": &*self.key,
            "arguments": arguments::from_arguments(&self.arguments),
        })
    }

    fn json(&self, vhost: &str) -> Value {
        let mut object = self.definition(vhost);
        object["properties_key"] = self.properties_key().into();
        object
    }
}

/// The key alone; with a fingerprint where there are arguments. `~` stands for an empty key.
fn properties_key(key: &str, arguments: &Arguments) -> String {
    let mut text = quoted(key);
    if !arguments.is_empty() {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(arguments.to_wire());
        text.push('~');
        text.push_str(&URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default()));
    } else if text.is_empty() {
        text.push('~');
    }
    text
}

/// A text as a form has it. RabbitMQ writes keys so, and a tilde in full, since that stands for an empty one.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for octet in text.bytes() {
        match octet {
            b' ' => quoted.push('+'),
            b'.' | b'-' | b'_' => quoted.push(char::from(octet)),
            _ if octet.is_ascii_alphanumeric() => quoted.push(char::from(octet)),
            _ => quoted.push_str(&format!("%{octet:02X}")),
        }
    }
    quoted
}

/// Every binding of a virtual host but those of the default exchange, in a fixed order.
fn explicit(vhost: &Vhost) -> Vec<Shown> {
    let mut all = Vec::new();
    for source in exchanges::sorted(vhost) {
        let table = source.table().read();
        all.extend(table.iter().map(|(destination, binding)| Shown::new(&source, destination, binding)));
    }
    let order = |shown: &Shown| {
        (
            Arc::clone(&shown.source),
            shown.kind,
            shown.destination.clone(),
            Arc::clone(&shown.key),
            shown.properties_key(),
        )
    };
    all.sort_by_cached_key(order);
    all
}

/// Those to queues from the default exchange, which are nowhere written down.
fn implicit(vhost: &Vhost) -> Vec<Shown> {
    let source: Arc<str> = "".into();
    let bound = |name: &Arc<str>| Shown {
        source: Arc::clone(&source),
        destination: name.as_ref().to_owned(),
        kind: "queue",
        key: Arc::clone(name),
        arguments: Arguments::default(),
    };
    queues::sorted(vhost).iter().map(|queue| bound(&queue.spec().name)).collect()
}

fn all(vhost: &Vhost) -> Vec<Shown> {
    let mut all = implicit(vhost);
    all.append(&mut explicit(vhost));
    all
}

/// The bindings as definitions have them: all but those of queues that belong to a connection.
pub(super) fn definitions(vhost: &Vhost) -> Vec<Value> {
    let shared = |shown: &&Shown| {
        shown.kind != "queue" || vhost.queue(&shown.destination).is_some_and(|queue| queue.spec().exclusive.is_none())
    };
    explicit(vhost).iter().filter(shared).map(|shown| shown.definition(vhost.name())).collect()
}

fn those(ask: &Ask, vhost: &Vhost, which: impl Fn(&Shown) -> bool) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let all = all(vhost);
    list::answer(ask, all.iter().filter(|shown| which(shown)).map(|shown| shown.json(vhost.name())).collect())
}

pub(super) fn from(ask: &Ask, vhost: &str, name: &str) -> Answer {
    let vhost = ask.vhost(vhost)?;
    // As in RabbitMQ, an exchange that is not there has no bindings.
    those(ask, &vhost, |shown| *shown.source == *in_path(name))
}

pub(super) fn to_exchange(ask: &Ask, vhost: &str, name: &str) -> Answer {
    let vhost = ask.vhost(vhost)?;
    those(ask, &vhost, |shown| shown.kind == "exchange" && shown.destination == in_path(name))
}

pub(super) fn to_queue(ask: &Ask, vhost: &str, name: &str) -> Answer {
    let vhost = ask.vhost(vhost)?;
    vhost.queue(name).ok_or_else(Refusal::not_found)?;
    those(ask, &vhost, |shown| shown.kind == "queue" && shown.destination == name)
}

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([] | [_], &Method::GET) => {
            let mut found = Vec::new();
            for vhost in ask.vhosts_at(rest.first().copied())? {
                found.extend(all(&vhost).iter().map(|shown| shown.json(vhost.name())));
            }
            list::answer(ask, found)
        }
        ([vhost, "e", source, kind @ ("q" | "e"), destination], &Method::GET) => {
            let vhost = ask.vhost(vhost)?;
            let kind = kind_name(kind);
            let source = in_path(source);
            those(ask, &vhost, |shown| {
                &*shown.source == source && shown.kind == kind && shown.destination == *destination
            })
        }
        ([vhost, "e", source, kind @ ("q" | "e"), destination], &Method::POST) => {
            bind(ask, &*ask.vhost(vhost)?, in_path(source), kind, destination)
        }
        ([vhost, "e", source, kind @ ("q" | "e"), destination, key], _) => {
            let vhost = ask.vhost(vhost)?;
            let kind = kind_name(kind);
            let source = in_path(source);
            let all = all(&vhost);
            let found = all.iter().find(|shown| {
                &*shown.source == source
                    && shown.kind == kind
                    && shown.destination == *destination
                    // With its escapes, or as they were in the path.
                    && (shown.properties_key() == *key || shown.arguments.is_empty() && &*shown.key == *key)
            });
            let found = found.ok_or_else(Refusal::not_found)?;
            match ask.method {
                Method::GET => list::one(ask, found.json(vhost.name())),
                Method::DELETE => unbind(ask, &vhost, found),
                _ => Err(Refusal::method_not_allowed()),
            }
        }
        ([] | [_], _) | ([_, "e", _, "q" | "e", _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

fn kind_name(kind: &str) -> &'static str {
    if kind == "q" { "queue" } else { "exchange" }
}

fn bind(ask: &Ask, vhost: &Vhost, source: &str, kind: &str, destination: &str) -> Answer {
    let body = ask.object()?;
    let key = match body.get("routing_key") {
        Some(Value::String(key)) => key,
        None | Some(Value::Null) => "",
        Some(_) => return Err(Refusal::bad_request("routing_key is no text")),
    };
    let given = given_arguments(&body);
    let ends = (source, kind_name(kind), destination);
    ask.wait(apply_as(ask.broker(), &*ask.access(vhost), vhost, ends, key, &given)?);
    let properties_key = properties_key(key, &given);
    // As RabbitMQ does it: what was quoted once is quoted again, but for the mark of an empty key and of arguments.
    let again = properties_key.split('~').map(quoted).collect::<Vec<_>>().join("~");
    let location = format!("{}/{again}", quoted(destination));
    Ok(Reply::Created(Some(location)))
}

/// Binds with these rights, for a request or for definitions.
pub(super) fn apply_as(
    broker: &Broker,
    access: &dyn Access,
    vhost: &Vhost,
    (source, kind, destination): (&str, &str, &str),
    key: &str,
    given: &Arguments,
) -> Result<storage::Lsn, Refusal> {
    if key.len() > 255 {
        return Err(Refusal::bad_request("a routing key has more than 255 bytes"));
    }
    Ok(if kind == "queue" {
        let connection = broker.new_connection_id();
        let request = QueueBinding { queue: destination, exchange: source, key, arguments: given, connection };
        vhost.bind_queue(access, request)?
    } else {
        let request = ExchangeBinding { destination, source, key, arguments: given };
        vhost.bind_exchange(access, request)?
    })
}

fn unbind(ask: &Ask, vhost: &Vhost, found: &Shown) -> Answer {
    let access = ask.access(vhost);
    let (source, destination, key, arguments) = (&*found.source, &*found.destination, &*found.key, &found.arguments);
    let lsn = if found.kind == "queue" {
        let connection = ask.broker().new_connection_id();
        vhost
            .unbind_queue(&*access, QueueBinding { queue: destination, exchange: source, key, arguments, connection })?
    } else {
        vhost.unbind_exchange(&*access, ExchangeBinding { destination, source, key, arguments })?
    };
    ask.done(lsn)
}

/// The fields of a binding in definitions.
pub(super) fn fields(object: &Map<String, Value>) -> Result<(&str, &str, &str, &str), Refusal> {
    let field = |name: &str| {
        let text = object.get(name).and_then(Value::as_str);
        text.ok_or_else(|| Refusal::bad_request(format!("a binding needs {name}")))
    };
    let kind = field("destination_type")?;
    if kind != "queue" && kind != "exchange" {
        return Err(Refusal::bad_request(format!("a binding cannot lead to a {kind}")));
    }
    let key = object.get("routing_key").and_then(Value::as_str).unwrap_or_default();
    Ok((field("source")?, kind, field("destination")?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_told_apart_by_key_and_arguments() {
        let none = Arguments::default();
        assert_eq!(properties_key("a.*", &none), "a.%2A");
        assert_eq!(properties_key("", &none), "~");
        assert_eq!(properties_key("a b~/", &none), "a+b%7E%2F");
        let mut one = Arguments::default();
        one.insert("x", amq_protocol::types::AMQPValue::Boolean(true));
        let with = properties_key("", &one);
        assert!(with.starts_with('~') && with.len() > 20, "{with}");
    }
}
