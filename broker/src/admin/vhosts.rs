//! `/api/vhosts`, `/api/vhost-limits`.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::{Ask, flag, need_keys, text};
use super::{list, statistics};
use crate::vhost::{Metadata, Vhost};

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, ask.known_vhosts().iter().map(|vhost| shown(ask, vhost)).collect()),
        ([name], &Method::GET) => {
            ask.need_administrator()?;
            list::one(ask, shown(ask, &*ask.known_vhost(name)?))
        }
        ([name], &Method::PUT) => put(ask, name),
        ([name], &Method::DELETE) => {
            ask.need_administrator()?;
            ask.done(ask.broker().delete_vhost(name)?)
        }
        ([name, "deletion", "protection"], method) => {
            ask.need_administrator()?;
            let protected_from_deletion = match *method {
                Method::POST => true,
                Method::DELETE => false,
                _ => return Err(Refusal::method_not_allowed()),
            };
            let vhost = ask.broker().find_vhost(name)?;
            ask.done(vhost.set_metadata(Metadata { protected_from_deletion, ..vhost.metadata() })?)
        }
        ([name, "start", node], &Method::POST) => {
            ask.need_administrator()?;
            ask.broker().find_vhost(name)?;
            if *node != ask.broker().node_name {
                return Err(Refusal::bad_request(format!("Unknown node: {node}")));
            }
            // It never stops by itself.
            Ok(Reply::Done)
        }
        ([] | [_] | [_, "start", _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

fn shown(ask: &Ask, vhost: &Vhost) -> Value {
    let metadata = vhost.metadata();
    let mut depth = statistics::Depth::default();
    for queue in vhost.queues() {
        depth.add(&queue.statistics());
    }
    let node = ask.broker().node_name.clone();
    let mut described = definition(&metadata);
    described.entry("default_queue_type").or_insert_with(|| "classic".into());
    let mut object = json!({
        "name": &**vhost.name(),
        "description": metadata.description,
        "tags": metadata.tags,
        "default_queue_type": metadata.default_queue_type.as_deref().unwrap_or("classic"),
        "protected_from_deletion": metadata.protected_from_deletion,
        "metadata": described,
        "tracing": vhost.is_traced(),
        "cluster_state": Map::from_iter([(node, Value::from("running"))]),
    });
    if let Value::Object(object) = &mut object {
        depth.put_into(object);
        statistics::put_traffic(object, &ask.broker().traffic(vhost.name()));
    }
    let counted = ask.broker().message_statistics(Some(vhost.name()));
    statistics::put_message_stats(&mut object, statistics::of_clients(&counted));
    object
}

/// What describes a virtual host, as definitions have it.
pub(super) fn definition(metadata: &Metadata) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("description".to_owned(), metadata.description.clone().into());
    object.insert("tags".to_owned(), metadata.tags.clone().into());
    if let Some(kind) = &metadata.default_queue_type {
        object.insert("default_queue_type".to_owned(), kind.clone().into());
    }
    if metadata.protected_from_deletion {
        object.insert("protected_from_deletion".to_owned(), true.into());
    }
    object
}

fn put(ask: &Ask, name: &str) -> Answer {
    ask.need_administrator()?;
    let body = ask.object()?;
    let metadata = metadata(&body)?;
    let tracing = if body.contains_key("tracing") { Some(flag(&body, "tracing")?) } else { None };
    let broker = ask.broker();
    let (is_new, mut lsn) = match broker.vhost(name) {
        Some(known) if body.is_empty() => (false, known.set_metadata(known.metadata())?),
        _ => broker.put_vhost(name, metadata)?,
    };
    match tracing {
        Some(true) => broker.trace_on(name)?,
        Some(false) => broker.trace_off(name)?,
        None => {}
    }
    // Whoever creates a virtual host may do everything in it.
    if is_new && broker.auth.user(ask.operator.name()).is_some() {
        lsn = lsn.max(broker.set_permissions(ask.operator.name(), name, [".*"; 3])?);
    }
    ask.put(is_new, lsn)
}

/// Reads what describes a virtual host: tags may be a list, or text with commas.
pub(super) fn metadata(object: &Map<String, Value>) -> Result<Metadata, Refusal> {
    Ok(Metadata {
        description: text(object, "description").unwrap_or_default().into_owned(),
        tags: super::users::tags(object.get("tags"))?,
        default_queue_type: text(object, "default_queue_type").map(Into::into),
        protected_from_deletion: flag(object, "protected_from_deletion")?,
    }
    .checked()?)
}

/// `/api/vhost-limits`
pub(super) fn limits(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([] | [_], &Method::GET) => {
            let vhosts = match rest.first() {
                None => ask.known_vhosts(),
                Some(name) => vec![ask.known_vhost(name)?],
            };
            let shown = vhosts.iter().filter_map(|vhost| {
                let value = serde_json::to_value(vhost.limits()).unwrap_or_default();
                let is_set = value.as_object().is_some_and(|limits| !limits.is_empty());
                is_set.then(|| json!({"vhost": &**vhost.name(), "value": value}))
            });
            Ok(Reply::Value(shown.collect()))
        }
        ([vhost, name], &Method::PUT) => {
            ask.need_administrator()?;
            let body = ask.object()?;
            need_keys(&body, &["value"])?;
            let vhost = ask.broker().vhost(vhost).ok_or_else(|| Refusal::missing("vhost_not_found"))?;
            ask.done(vhost.set_limit(name, &body["value"])?)
        }
        ([vhost, name], &Method::DELETE) => {
            ask.need_administrator()?;
            ask.done(ask.broker().find_vhost(vhost)?.clear_limits(Some(name))?)
        }
        ([vhost], &Method::PUT) => {
            ask.need_administrator()?;
            ask.done(ask.broker().find_vhost(vhost)?.set_limits(&ask.object()?)?)
        }
        ([vhost], &Method::DELETE) => {
            ask.need_administrator()?;
            ask.done(ask.broker().find_vhost(vhost)?.clear_limits(None)?)
        }
        ([] | [_, _], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}
