//! `/api/exchanges`.

use std::sync::Arc;

use axum::http::Method;
use protocol::amqp::BasicProperties;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::{Ask, Operator, flag, need_keys};
use super::{json as arguments, list, statistics};
use crate::model::access::{Permission, Resource};
use crate::model::arguments::Arguments;
use crate::model::message::Message;
use crate::queue::Published;
use crate::queue::signal::WakeList;
use crate::routing::kind::ExchangeKind;
use crate::vhost::{Beside, DELAYED_TYPE, Exchange, ExchangeRequest, Fresh, Targets, Vhost};

/// What stands for the default exchange in a path.
const DEFAULT: &str = "amq.default";

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([] | [_], &Method::GET) => {
            let mut all = Vec::new();
            for vhost in ask.vhosts_at(rest.first().copied())? {
                all.extend(sorted(&vhost).iter().map(|exchange| shown(ask, &vhost, exchange)));
            }
            list::answer(ask, all)
        }
        ([vhost, name], &Method::GET) => {
            let vhost = ask.vhost(vhost)?;
            let exchange = vhost.exchange(in_path(name)).ok_or_else(Refusal::not_found)?;
            let mut object = shown(ask, &vhost, &exchange);
            // Not counted for each pair: rates_mode is basic.
            object["incoming"] = json!([]);
            object["outgoing"] = json!([]);
            list::one(ask, object)
        }
        ([vhost, name], &Method::PUT) => {
            let vhost = ask.vhost(vhost)?;
            let body = ask.object()?;
            let is_new = vhost.exchange(name).is_none();
            let access = ask.access(&vhost);
            ask.put(is_new, vhost.declare_exchange(&*access, request(name, &body)?)?)
        }
        ([vhost, name], &Method::DELETE) => {
            let vhost = ask.vhost(vhost)?;
            let name = in_path(name);
            vhost.exchange(name).ok_or_else(Refusal::not_found)?;
            let if_unused = ask.query("if-unused") == Some("true");
            ask.done(vhost.delete_exchange(&*ask.access(&vhost), name, if_unused)?)
        }
        ([vhost, name, "publish"], &Method::POST) => publish(ask, &*ask.vhost(vhost)?, name),
        ([] | [_] | [_, _] | [_, _, "publish"], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// The name of an exchange that a path has.
pub(super) fn in_path(name: &str) -> &str {
    if name == DEFAULT { "" } else { name }
}

/// By name.
pub(super) fn sorted(vhost: &Vhost) -> Vec<Arc<Exchange>> {
    let mut exchanges = vhost.exchanges();
    exchanges.sort_unstable_by(|a, b| a.name().cmp(b.name()));
    exchanges
}

/// A declaration of a request or of definitions.
pub(super) fn request<'a>(name: &'a str, object: &'a Map<String, Value>) -> Result<ExchangeRequest<'a>, Refusal> {
    let kind = object.get("type").and_then(Value::as_str).unwrap_or("direct");
    if !is_type(kind) {
        return Err(Refusal::bad_request(format!("invalid exchange type '{kind}'")));
    }
    Ok(ExchangeRequest {
        name,
        kind,
        durable: !object.contains_key("durable") || flag(object, "durable")?,
        auto_delete: flag(object, "auto_delete")?,
        internal: flag(object, "internal")?,
        arguments: given_arguments(object),
    })
}

/// Whether there are exchanges of that type.
pub(super) fn is_type(name: &str) -> bool {
    name == DELAYED_TYPE || ExchangeKind::from_name(name).is_some()
}

/// The arguments of a request or of definitions.
pub(super) fn given_arguments(object: &Map<String, Value>) -> Arguments {
    object.get("arguments").and_then(Value::as_object).map(arguments::to_arguments).unwrap_or_default()
}

/// An exchange as definitions have it.
pub(super) fn definition(vhost: &str, exchange: &Exchange) -> Value {
    json!({
        "arguments": arguments::from_arguments(&exchange.spec().arguments),
        "auto_delete": exchange.auto_delete(),
        "durable": exchange.durable(),
        "internal": exchange.internal(),
        "name": &**exchange.name(),
        "type": exchange.spec().type_name(),
        "vhost": vhost,
    })
}

fn shown(ask: &Ask, vhost: &Vhost, exchange: &Exchange) -> Value {
    let mut object = definition(vhost.name(), exchange);
    let counted = exchange.statistics(&ask.broker().services.statistics.ticks);
    statistics::put_message_stats(&mut object, statistics::of_exchange(&counted));
    object["user_who_performed_action"] = "rmq-internal".into();
    let effective = exchange.policy();
    if let Some(policy) = &effective.policy {
        object["policy"] = (**policy).into();
    }
    object
}

fn publish(ask: &Ask, vhost: &Vhost, name: &str) -> Answer {
    use base64::Engine;
    let body = ask.object()?;
    need_keys(&body, &["properties", "routing_key", "payload", "payload_encoding"])?;
    let field = |name: &str| body[name].as_str().ok_or_else(|| Refusal::bad_request(format!("{name} is no text")));
    let (key, payload) = (field("routing_key")?, field("payload")?);
    let payload = match field("payload_encoding")? {
        "string" => payload.as_bytes().to_vec(),
        "base64" => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(payload);
            decoded.map_err(|_| Refusal::wrong("not_base64", &body["payload"]))?
        }
        _ => return Err(Refusal::wrong("unsupported_encoding", &body["payload_encoding"])),
    };
    let name = in_path(name);
    let exchange = vhost.exchange(name).ok_or_else(|| Refusal::missing("exchange_not_found"))?;
    let access = ask.access(vhost);
    access.check(Permission::Write, Resource::Exchange(name))?;
    if exchange.internal() {
        return Err(Refusal::not_authorised("Access refused."));
    }
    if exchange.kind() == ExchangeKind::Topic {
        access.check_topic(Permission::Write, name, key)?;
    }
    if payload.len() as u64 > vhost.rules().max_message_bytes {
        return Err(Refusal::bad_request("the payload is larger than configured max size"));
    }
    let (Ok(name_len), Ok(key_len)) = (u8::try_from(name.len()), u8::try_from(key.len())) else {
        return Err(Refusal::bad_request("a name or routing key has more than 255 bytes"));
    };
    let properties = properties(&body["properties"])?;
    if let (Some(claimed), Operator::User(user)) = (properties.user_id(), &ask.operator)
        && claimed.as_str() != &*user.name
        && !user.tags.iter().any(|tag| tag == "impersonator")
    {
        let name = &user.name;
        return Err(Refusal::bad_request(format!(
            "406 PRECONDITION_FAILED - user_id property set to '{claimed}' but authenticated user was '{name}'"
        )));
    }
    let raw = protocol::encode_properties(&properties);
    let parsed = protocol::Properties::parse(&raw)?;
    let address = [&[name_len], name.as_bytes(), &[key_len], key.as_bytes()].concat();
    let persistent = parsed.delivery_mode() == Some(2);
    let mut message = Message::new(&address, &raw, payload.into(), persistent);
    if let Some(ttl_ms) = parsed.expiration().map(crate::model::expiration::parse).transpose().map_err(in_full)? {
        message.expire_at(ask.broker().clock().now_ms().saturating_add(ttl_ms));
    }
    let mut targets = Targets::default();
    vhost.route_to(&exchange, &[key], Some(&parsed), &mut targets);
    if parsed.headers().is_some_and(|headers| targets.are_watched(headers)) {
        return vhost.route_fresh(&exchange, &[key], &parsed, &mut targets, |targets, fresh| {
            hand_over_fresh(ask, message, targets, fresh)
        });
    }
    message.share(targets.queues.len());
    let message = Arc::new(message);
    let mut wakes = WakeList::default();
    // As over AMQP, what an exchange keeps back counts as taken.
    let mut routed = !targets.delays.is_empty();
    let beside = Beside::of(&message, &mut targets, ask.broker().clock().now_ms());
    ask.wait(beside.hand_over(&message, &mut wakes));
    for queue in &targets.queues {
        if let Published::Taken(lsn) = queue.publish(&message, &mut wakes) {
            routed = true;
            ask.wait(lsn);
        }
    }
    wakes.wake();
    ask.broker().memory.touch();
    ask.broker().store.kick();
    Ok(Reply::Value(json!({"routed": routed})))
}

/// What a channel would have been closed with: RabbitMQ shows it with its code here.
fn in_full(error: protocol::error::AmqpError) -> Refusal {
    Refusal::bad_request(format!("{} {}", error.code as u16, error.text))
}

/// Publishes a message to those who have not had it.
fn hand_over_fresh(ask: &Ask, mut message: Message, targets: &mut Targets, fresh: Fresh<'_, '_>) -> Answer {
    message.share(targets.queues.len());
    let message = Arc::new(message);
    let mut wakes = WakeList::default();
    let broker = ask.broker();
    let beside = Beside::of(&message, targets, broker.clock().now_ms());
    let published = fresh.publish(&broker.services, &message, &targets.queues, beside, Vec::new(), &mut wakes);
    ask.wait(published.lsn);
    wakes.wake();
    broker.memory.touch();
    broker.store.kick();
    Ok(Reply::Value(json!({"routed": published.taken})))
}

fn properties(given: &Value) -> Result<BasicProperties, Refusal> {
    use amq_protocol::types::ShortString;
    let mut properties = BasicProperties::default();
    // RabbitMQ's own tools send an empty list where there are none.
    let Some(object) = given.as_object() else { return Ok(properties) };
    for (name, value) in object {
        let wrong = || Refusal::bad_request(format!("property {name} has a value that it cannot have"));
        let integer = || value.as_u64().ok_or_else(|| Refusal::wrong("not_int", &name.as_str().into()));
        let text = || value.as_str().and_then(|text| ShortString::try_new(text).ok()).ok_or_else(wrong);
        let octet = || u8::try_from(integer()?).map_err(|_| wrong());
        properties = match name.as_str() {
            "content_type" => properties.with_content_type(text()?),
            "content_encoding" => properties.with_content_encoding(text()?),
            "delivery_mode" => properties.with_delivery_mode(octet()?),
            "priority" => properties.with_priority(octet()?),
            "correlation_id" => properties.with_correlation_id(text()?),
            "reply_to" => properties.with_reply_to(text()?),
            "expiration" => properties.with_expiration(text()?),
            "message_id" => properties.with_message_id(text()?),
            "timestamp" => properties.with_timestamp(integer()?),
            "type" => properties.with_type(text()?),
            "user_id" => properties.with_user_id(text()?),
            "app_id" => properties.with_app_id(text()?),
            "cluster_id" => properties.with_cluster_id(text()?),
            "headers" => {
                let headers = value.as_object().ok_or_else(wrong)?;
                properties.with_headers(arguments::to_arguments(headers).table().clone())
            }
            // Names that AMQP has not are passed over, as RabbitMQ does.
            _ => properties,
        };
    }
    Ok(properties)
}
