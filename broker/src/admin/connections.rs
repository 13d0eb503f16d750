//! `/api/connections`.

use std::sync::atomic::Ordering;

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::{Ask, Operator};
use super::{channels, json as arguments, list, statistics};
use crate::broker::{ConnectionFacts, ConnectionInfo};
use crate::model::arguments::string;

/// What is told of a connection over TLS, and of its client's certificate.
const TLS_FACTS: [&str; 8] = [
    "ssl_protocol",
    "ssl_cipher",
    "ssl_key_exchange",
    "ssl_hash",
    "peer_cert_subject",
    "peer_cert_issuer",
    "peer_cert_validity",
    "peer_cert_serial_number",
];

/// What a closed connection is told when nobody gives another reason.
const REASON: &str = "Closed via management plugin";

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, visible(ask).iter().map(|info| shown(ask, info)).collect()),
        (["username", user], &Method::GET) => {
            let all = visible(ask);
            list::answer(ask, all.iter().filter(|info| &*info.user == *user).map(|info| shown(ask, info)).collect())
        }
        (["username", user], &Method::DELETE) => {
            for info in visible(ask).iter().filter(|info| &*info.user == *user) {
                ask.broker().close_connection(info.id, REASON);
            }
            Ok(Reply::Done)
        }
        ([name, "channels"], &Method::GET) => list::answer(ask, channels::of(ask, &find(ask, name)?)),
        ([name], &Method::GET) => list::one(ask, shown(ask, &find(ask, name)?)),
        ([name], &Method::DELETE) => {
            ask.broker().close_connection(find(ask, name)?.id, ask.query("reason").unwrap_or(REASON));
            Ok(Reply::Done)
        }
        ([] | [_] | ["username", _] | [_, "channels"], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

pub(super) fn in_vhost(ask: &Ask, vhost: &str) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let vhost = ask.vhost(vhost)?;
    let all = visible(ask);
    list::answer(ask, all.iter().filter(|info| info.vhost == *vhost.name()).map(|info| shown(ask, info)).collect())
}

/// Users without further tags see their own connections only.
pub(super) fn visible(ask: &Ask) -> Vec<ConnectionInfo> {
    let mut all = ask.broker().connections();
    if let Operator::User(user) = &ask.operator
        && !ask.sees_all()
    {
        all.retain(|info| info.user == user.name);
    }
    all
}

fn find(ask: &Ask, name: &str) -> Result<ConnectionInfo, Refusal> {
    visible(ask).into_iter().find(|info| connection_name(&info.facts) == name).ok_or_else(Refusal::not_found)
}

/// `client -> broker`, as RabbitMQ names connections.
pub(super) fn connection_name(facts: &ConnectionFacts) -> String {
    facts.name.clone()
}

fn shown(ask: &Ask, info: &ConnectionInfo) -> Value {
    let facts = &info.facts;
    let mut object = json!({
        "name": connection_name(facts),
        "pid": format!("<{}.{}.0>", ask.broker().node_name, info.id.0),
        "node": ask.broker().node_name,
        "user": &*info.user,
        "user_who_performed_action": &*info.user,
        "vhost": &*info.vhost,
        "protocol": "AMQP 0-9-1",
        "type": "network",
        "state": if info.open.is_blocked() { "blocked" } else { "running" },
        "channels": info.open.channel_count(),
        "frame_max": info.open.frame_max.load(Ordering::Relaxed),
        "channel_max": info.open.channel_max.load(Ordering::Relaxed),
        "timeout": info.open.heartbeat_s.load(Ordering::Relaxed),
        "send_pend": 0,
        "ssl": facts.tls.is_some(),
        "auth_mechanism": facts.mechanism,
        "connected_at": facts.connected_at_ms,
        "client_properties": arguments::from_arguments(&facts.client_properties),
    });
    if let Value::Object(object) = &mut object {
        let traffic = info.open.traffic();
        statistics::put_traffic(object, &traffic);
        statistics::put_reads_and_writes(object, &traffic);
    }
    // As RabbitMQ has them: there in any case.
    for name in TLS_FACTS {
        object[name] = Value::Null;
    }
    if let Some(tls) = &facts.tls {
        object["ssl_protocol"] = tls.protocol.clone().into();
        object["ssl_cipher"] = tls.cipher.clone().into();
        object["ssl_key_exchange"] = tls.key_exchange.clone().into();
        object["ssl_hash"] = tls.hash.clone().into();
        if let Some(certificate) = &tls.certificate {
            object["peer_cert_subject"] = certificate.subject.clone().into();
            object["peer_cert_issuer"] = certificate.issuer.clone().into();
            object["peer_cert_validity"] = certificate.validity.clone().into();
            object["peer_cert_serial_number"] = certificate.serial_number.clone().into();
        }
    }
    if let Some((client, broker)) = facts.addresses {
        object["peer_host"] = client.ip().to_string().into();
        object["peer_port"] = client.port().into();
        object["host"] = broker.ip().to_string().into();
        object["port"] = broker.port().into();
    }
    if let Some(name) = facts.client_properties.get("connection_name").and_then(string) {
        object["user_provided_name"] = name.into_owned().into();
    }
    object
}
