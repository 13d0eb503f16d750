//! `/api/queues`.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal};
use super::exchanges::given_arguments;
use super::request::{Ask, flag, need_keys};
use super::{channels, json as arguments, list, statistics};
use crate::model::ConnectionId;
use crate::model::access::{Permission, Resource};
use crate::model::arguments::string;
use crate::model::queue_arguments::{QUEUE_TYPE, is_single_active_consumer};
use crate::model::queue_kind::QueueKind;
use crate::queue::Queue;
use crate::vhost::{QueueRequest, Vhost};

/// What fits into a short string of AMQP.
pub(super) const NAME_MAX_BYTES: usize = 255;

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        (["detailed"], &Method::GET) if ask.broker().vhost("detailed").is_none() => {
            let mut all = Vec::new();
            for vhost in ask.vhosts_at(None)? {
                all.extend(sorted(&vhost).iter().map(|queue| shown_alone(ask, &vhost, queue)));
            }
            list::answer(ask, all)
        }
        ([] | [_], &Method::GET) => {
            let mut all = Vec::new();
            for vhost in ask.vhosts_at(rest.first().copied())? {
                all.extend(sorted(&vhost).iter().map(|queue| shown(ask, &vhost, queue)));
            }
            list::answer(ask, all)
        }
        ([vhost, name], &Method::GET) => {
            let vhost = ask.vhost(vhost)?;
            list::one(ask, shown_alone(ask, &vhost, &find(&vhost, name)?))
        }
        ([vhost, name], &Method::PUT) => {
            let vhost = ask.vhost(vhost)?;
            let body = ask.object()?;
            let connection = ask.broker().new_connection_id();
            let declared = vhost.declare_queue(&*ask.access(&vhost), request(name, &body, connection)?)?;
            ask.put(declared.created, declared.lsn)
        }
        ([vhost, name], &Method::DELETE) => {
            let vhost = ask.vhost(vhost)?;
            let queue = find(&vhost, name)?;
            let [unused, empty] = ["if-unused", "if-empty"].map(|name| ask.query(name) == Some("true"));
            // On behalf of its owner, if it has one: RabbitMQ refuses that with the same text as to any other connection.
            let connection = ask.broker().new_connection_id();
            let (_, lsn) = vhost.delete_queue(&*ask.access(&vhost), &queue.spec().name, unused, empty, connection)?;
            ask.done(lsn)
        }
        ([vhost, name, "contents"], &Method::DELETE) => {
            let vhost = ask.vhost(vhost)?;
            find(&vhost, name)?;
            ask.access(&vhost).check(Permission::Read, Resource::Queue(name))?;
            let connection = ask.broker().new_connection_id();
            let queue = vhost.queue_for(name, connection)?;
            let (_, lsn) = queue.purge();
            ask.done(lsn)
        }
        ([vhost, name, "get"], &Method::POST) => super::get::answer(ask, vhost, name),
        ([vhost, name, "actions"], &Method::POST) => {
            find(&*ask.vhost(vhost)?, name)?;
            let body = ask.object()?;
            need_keys(&body, &["action"])?;
            // Those that RabbitMQ once had were about mirrors.
            let body = json!({"error": "bad_request", "reason": ["unknown", body["action"]]});
            Err(Refusal::with_body(StatusCode::BAD_REQUEST, body))
        }
        ([] | [_] | [_, _] | [_, _, "contents" | "get" | "actions"], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// By name.
pub(super) fn sorted(vhost: &Vhost) -> Vec<Arc<Queue>> {
    let mut queues = vhost.queues();
    queues.retain(|queue| !queue.is_closed());
    queues.sort_unstable_by(|a, b| a.spec().name.cmp(&b.spec().name));
    queues
}

fn find(vhost: &Vhost, name: &str) -> Result<Arc<Queue>, Refusal> {
    vhost.queue(name).filter(|queue| !queue.is_closed()).ok_or_else(Refusal::not_found)
}

/// A declaration of a request or of definitions.
pub(super) fn request<'a>(
    name: &'a str,
    object: &Map<String, Value>,
    connection: ConnectionId,
) -> Result<QueueRequest<'a>, Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad_request("a queue needs a name"));
    }
    if name.len() > NAME_MAX_BYTES {
        let length = name.len();
        return Err(Refusal::bad_request(format!("queue should be less than 255 bytes, actually was {length}\n")));
    }
    Ok(QueueRequest {
        name,
        durable: !object.contains_key("durable") || flag(object, "durable")?,
        exclusive: false,
        auto_delete: flag(object, "auto_delete")?,
        arguments: given_arguments(object),
        connection,
    })
}

pub(super) fn kind(queue: &Queue) -> String {
    queue.spec().arguments.get(QUEUE_TYPE).and_then(string).map_or_else(|| "classic".to_owned(), Into::into)
}

/// A queue as definitions have it.
pub(super) fn definition(vhost: &str, queue: &Queue) -> Value {
    let spec = queue.spec();
    json!({
        "arguments": arguments::from_arguments(&spec.arguments),
        "auto_delete": spec.auto_delete,
        "durable": spec.durable,
        "name": &*spec.name,
        "type": kind(queue),
        "vhost": vhost,
    })
}

fn shown(ask: &Ask, vhost: &Vhost, queue: &Queue) -> Value {
    let mut object = definition(vhost.name(), queue);
    let counted = queue.statistics();
    let can_deliver = f64::from(u8::from(queue.has_ready_consumer()));
    let effective = vhost.queue_policy(queue);
    let figures = json!({
        "exclusive": queue.spec().exclusive.is_some(),
        "node": ask.broker().node_name,
        "state": "running",
        "consumers": queue.consumer_count(),
        "consumer_capacity": can_deliver,
        "consumer_utilisation": can_deliver,
        "internal": false,
        "memory": queue.memory_bytes(),
        "message_bytes": queue.body_bytes(),
        "message_bytes_ready": queue.body_bytes(),
        "internal_owner": false,
        "effective_policy_definition": effective.definition.to_json(),
    });
    if let (Value::Object(object), Value::Object(figures)) = (&mut object, figures) {
        object.extend(figures);
        for (key, policy) in [("policy", &effective.policy), ("operator_policy", &effective.operator_policy)] {
            if let Some(name) = policy {
                object.insert(key.to_owned(), (**name).into());
            }
        }
        let mut depth = statistics::Depth::default();
        depth.add(&counted);
        depth.put_into(object);
        if queue.kind() == QueueKind::Classic {
            object.insert("storage_version".to_owned(), 2.into());
        }
        if queue.kind() == QueueKind::Quorum {
            let node = &ask.broker().node_name;
            let limit = queue.delivery_limit().map_or_else(|| "unlimited".into(), Value::from);
            object.insert("delivery_limit".to_owned(), limit);
            object.insert("leader".to_owned(), json!(node));
            object.insert("members".to_owned(), json!([node]));
            object.insert("online".to_owned(), json!([node]));
        }
    }
    statistics::put_message_stats(&mut object, statistics::of_queue(&counted));
    object
}

/// With what only the answer about one queue has.
fn shown_alone(ask: &Ask, vhost: &Vhost, queue: &Arc<Queue>) -> Value {
    let mut object = shown(ask, vhost, queue);
    let consumers = channels::consumers_of(ask, queue);
    let tag_of = |wanted: &dyn Fn(&Value) -> bool| {
        consumers.iter().find(|consumer| wanted(consumer)).map(|consumer| consumer["consumer_tag"].clone())
    };
    let is_single = is_single_active_consumer(&queue.spec().arguments);
    let single = is_single.then(|| tag_of(&|consumer| consumer["active"] == true)).flatten();
    for key in ["policy", "operator_policy"] {
        if object.get(key).is_none() {
            object[key] = Value::Null;
        }
    }
    object["exclusive_consumer_tag"] = tag_of(&|consumer| consumer["exclusive"] == true).into();
    object["single_active_consumer_tag"] = single.into();
    object["consumer_details"] = consumers.into();
    object["deliveries"] = json!([]);
    object["incoming"] = json!([]);
    object
}
