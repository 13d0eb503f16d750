//! `/api/feature-flags`, `/api/deprecated-features`.

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::list;
use super::request::Ask;

/// Of RabbitMQ's flags those that stand for something that is here. Whatever a version can do is on.
const FLAGS: [&str; 9] = [
    "detailed_queues_endpoint",
    "direct_exchange_routing_v2",
    "quorum_queue",
    "rabbitmq_4.0.0",
    "rabbitmq_4.1.0",
    "rabbitmq_4.2.0",
    "rabbitmq_4.3.0",
    "user_limits",
    "virtual_host_metadata",
];

fn flag(name: &str) -> Value {
    json!({
        "name": name,
        "desc": "",
        "doc_url": "",
        "state": "enabled",
        "stability": "stable",
        "require_level": "none",
        "experiment_level": "supported",
        "callbacks": [],
        "provided_by": "rabbit",
    })
}

/// `/api/feature-flags`. Scripts that turn all of them on succeed.
pub(super) fn flags(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, FLAGS.iter().map(|name| flag(name)).collect()),
        ([name, "enable"], &Method::PUT) => {
            ask.need_administrator()?;
            if *name != "all" && !FLAGS.contains(name) {
                return Err(Refusal::bad_request("unsupported"));
            }
            Ok(Reply::Done)
        }
        ([] | [_, "enable"], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

/// What RabbitMQ calls deprecated and the configuration allows or not.
pub(super) fn deprecated(ask: &Ask, rest: &[&str]) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    match rest {
        [] => list::answer(ask, features(ask).into_iter().map(|(feature, _)| feature).collect()),
        ["used"] => {
            let used = features(ask).into_iter().filter(|(_, is_used)| *is_used);
            list::answer(ask, used.map(|(feature, _)| feature).collect())
        }
        _ => Err(Refusal::not_found()),
    }
}

fn features(ask: &Ask) -> [(Value, bool); 2] {
    let broker = ask.broker();
    let vhosts = broker.vhosts();
    let shown = |name: &str, is_permitted: bool| {
        json!({
            "name": name,
            "state": if is_permitted { "permitted" } else { "denied" },
            "desc": "",
            "deprecation_phase": "denied_by_default",
            "doc_url": "",
            "provided_by": "rabbit",
        })
    };
    let transient = vhosts.iter().flat_map(|vhost| vhost.queues()).any(|queue| {
        let spec = queue.spec();
        !spec.durable && spec.exclusive.is_none()
    });
    let global_qos = || {
        let connections = broker.connections();
        connections.iter().flat_map(|info| info.open.channels()).any(|channel| channel.global_prefetch > 0)
    };
    [
        (
            shown("transient_nonexcl_queues", vhosts.iter().any(|vhost| vhost.rules().transient_nonexclusive_queues)),
            transient,
        ),
        (shown("global_qos", vhosts.iter().any(|vhost| vhost.rules().global_qos)), global_qos()),
    ]
}
