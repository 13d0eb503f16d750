//! `/api/overview`, `/api/nodes` and what else is about the broker as a whole.

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::connections::visible;
use super::request::Ask;
use super::{list, statistics, users};
use crate::broker::Alarm;
use crate::model::counters::Counted;

const EXCHANGE_TYPES: [&str; 8] =
    ["direct", "fanout", "headers", "topic", "x-consistent-hash", "x-local-random", "x-modulus-hash", "x-random"];

pub(super) fn answer(ask: &Ask, first: &str, rest: &[&str]) -> Answer {
    match (first, rest, &ask.method) {
        ("overview", [], &Method::GET) => list::one(ask, overview(ask)),
        ("nodes", [], &Method::GET) => {
            ask.need_monitoring()?;
            list::answer(ask, vec![node(ask)])
        }
        ("nodes", [name], &Method::GET) => {
            ask.need_monitoring()?;
            if *name != ask.broker().node_name {
                return Err(Refusal::not_found());
            }
            list::one(ask, node(ask))
        }
        ("whoami", [], &Method::GET) => users::whoami(ask),
        ("version", [], &Method::GET) => Ok(Reply::Value(ask.broker().settings.compatibility.version.clone().into())),
        ("cluster-name", [], &Method::GET) => Ok(Reply::Value(json!({"name": ask.broker().node_name}))),
        ("extensions", [], &Method::GET) => Ok(Reply::Value(json!([]))),
        ("overview" | "nodes" | "whoami" | "version" | "cluster-name" | "extensions", [], _) => {
            Err(Refusal::method_not_allowed())
        }
        _ => Err(Refusal::not_found()),
    }
}

fn exchange_types() -> Value {
    EXCHANGE_TYPES.iter().map(|name| json!({"name": name, "description": "", "enabled": true})).collect()
}

fn overview(ask: &Ask) -> Value {
    let broker = ask.broker();
    let (mut queues, mut exchanges, mut consumers) = (0_usize, 0_usize, 0_u64);
    let mut depth = statistics::Depth::default();
    for vhost in ask.known_vhosts() {
        exchanges += vhost.exchanges().len();
        for queue in vhost.queues() {
            queues += 1;
            consumers += u64::from(queue.consumer_count());
            depth.add(&queue.statistics());
        }
    }
    let compatibility = &broker.settings.compatibility;
    let connections = visible(ask);
    let (mut totals, mut churn) = (Map::new(), Map::new());
    depth.put_into(&mut totals);
    statistics::put_churn(&mut churn, &broker.churn());
    // Of all, or of the virtual hosts that who asks may know about.
    let message_stats = if ask.sees_all() {
        statistics::of_clients(&broker.message_statistics(None))
    } else {
        let mut sum = Counted::default();
        for vhost in ask.known_vhosts() {
            sum.add(&broker.message_statistics(Some(vhost.name())));
        }
        statistics::of_clients(&sum)
    };
    let mut object = json!({
        "management_version": compatibility.version,
        "rates_mode": "basic",
        "exchange_types": exchange_types(),
        "product_version": compatibility.version,
        "product_name": compatibility.product,
        "rabbitmq_version": compatibility.version,
        "warren_version": env!("CARGO_PKG_VERSION"),
        "cluster_name": broker.node_name,
        "cluster_tags": {},
        "node_tags": {},
        "default_queue_type": "classic",
        "disable_stats": false,
        "enable_queue_totals": false,
        "is_op_policy_updating_enabled": true,
        "message_stats": message_stats,
        "churn_rates": churn,
        "queue_totals": totals,
        "object_totals": {
            "connections": connections.len(),
            "channels": connections.iter().map(|info| info.open.channel_count()).sum::<usize>(),
            "exchanges": exchanges,
            "queues": queues,
            "consumers": consumers,
        },
        "statistics_db_event_queue": 0,
        "node": broker.node_name,
    });
    // Where a broker listens is not for everybody.
    if ask.sees_all() {
        let shown = broker.application.listeners().into_iter().map(|(protocol, address)| {
            json!({
                "node": broker.node_name,
                "protocol": protocol,
                "ip_address": address.ip().to_string(),
                "port": address.port(),
            })
        });
        object["listeners"] = shown.collect();
    }
    object
}

fn node(ask: &Ask) -> Value {
    let broker = ask.broker();
    let (free, limit) = broker.store.disk_free();
    let alarms = broker.alarms();
    let mechanisms = ["PLAIN", "AMQPLAIN", "ANONYMOUS"].iter();
    let auth_mechanisms: Value = mechanisms.map(|name| json!({"name": name, "enabled": true})).collect();
    json!({
        "name": broker.node_name,
        "type": "disc",
        "running": true,
        "being_drained": false,
        "partitions": [],
        "os_pid": std::process::id().to_string(),
        "mem_used": broker.memory_use().counted(),
        "mem_limit": broker.memory.limit(),
        "mem_alarm": alarms.has(Alarm::Memory),
        "disk_free": free,
        "disk_free_limit": limit,
        "disk_free_alarm": alarms.has(Alarm::Disk),
        "uptime": u64::try_from(ask.context.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "rates_mode": "basic",
        "exchange_types": exchange_types(),
        "auth_mechanisms": auth_mechanisms,
        "applications": [{"name": "warren", "description": "Warren", "version": env!("CARGO_PKG_VERSION")}],
    })
}
