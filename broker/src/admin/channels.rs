//! `/api/channels`, and the consumers on them: `/api/consumers`.

use std::sync::Arc;

use axum::http::Method;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::connections::{connection_name, visible};
use super::request::Ask;
use super::{json as arguments, list, statistics};
use crate::broker::{ChannelInfo, ConnectionInfo, OpenConsumer};
use crate::queue::Queue;

pub(super) fn answer(ask: &Ask, rest: &[&str]) -> Answer {
    match (rest, &ask.method) {
        ([], &Method::GET) => list::answer(ask, visible(ask).iter().flat_map(|info| of(ask, info)).collect()),
        ([name], &Method::GET) => {
            // `client -> broker (number)`
            let connection = name.rsplit_once(" (").map_or(*name, |(connection, _)| connection);
            for info in visible(ask).iter().filter(|info| connection_name(&info.facts) == connection) {
                if let Some(channel) = info.open.channels().iter().find(|channel| channel_name(info, channel) == *name)
                {
                    return list::one(ask, shown_alone(ask, info, channel));
                }
            }
            Err(Refusal::not_found())
        }
        ([] | [_], _) => Err(Refusal::method_not_allowed()),
        _ => Err(Refusal::not_found()),
    }
}

pub(super) fn in_vhost(ask: &Ask, vhost: &str) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let vhost = ask.vhost(vhost)?;
    let all = visible(ask);
    let there = all.iter().filter(|info| info.vhost == *vhost.name());
    list::answer(ask, there.flat_map(|info| of(ask, info)).collect())
}

/// The channels of a connection.
pub(super) fn of(ask: &Ask, info: &ConnectionInfo) -> Vec<Value> {
    info.open.channels().iter().map(|channel| shown(ask, info, channel)).collect()
}

fn channel_name(info: &ConnectionInfo, channel: &ChannelInfo) -> String {
    format!("{} ({})", connection_name(&info.facts), channel.number)
}

fn shown(ask: &Ask, info: &ConnectionInfo, channel: &ChannelInfo) -> Value {
    let state = &channel.state;
    let mut object = json!({
        "name": channel_name(info, channel),
        "number": channel.number,
        "node": ask.broker().node_name,
        "vhost": &*info.vhost,
        "user": &*info.user,
        "user_who_performed_action": &*info.user,
        "connection_details": connection_details(info),
        "state": if info.open.is_blocked() { "blocked" } else { "running" },
        "confirm": state.confirms,
        "transactional": state.is_transactional,
        "prefetch_count": state.prefetch,
        "global_prefetch_count": channel.global_prefetch,
        "consumer_count": state.consumers.len(),
        "messages_unacknowledged": channel.unacked,
        "messages_unconfirmed": state.unconfirmed,
        "messages_uncommitted": state.uncommitted,
        "acks_uncommitted": state.uncommitted_acks,
    });
    statistics::put_message_stats(&mut object, statistics::of_clients(&channel.counted));
    object
}

/// With what only the answer about one channel has.
fn shown_alone(ask: &Ask, info: &ConnectionInfo, channel: &ChannelInfo) -> Value {
    let mut object = shown(ask, info, channel);
    let consumers = channel.state.consumers.iter();
    object["consumer_details"] =
        consumers.map(|(tag, consumer)| consumer_shown(ask, info, channel, tag, consumer)).collect();
    // Not counted for each pair of a channel and a queue or exchange: rates_mode is basic.
    object["deliveries"] = json!([]);
    object["publishes"] = json!([]);
    object
}

/// The connection of a channel.
fn connection_details(info: &ConnectionInfo) -> Value {
    let mut details = json!({"name": connection_name(&info.facts)});
    if let Some((client, _)) = info.facts.addresses {
        details["peer_host"] = client.ip().to_string().into();
        details["peer_port"] = client.port().into();
    }
    details
}

/// `/api/consumers`
pub(super) fn consumers(ask: &Ask, rest: &[&str]) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let ([] | [_]) = rest else {
        return Err(Refusal::not_found());
    };
    if ask.query("disable_stats") == Some("true") {
        return Err(Refusal::bad_request("Stats in management UI are disabled on this node"));
    }
    let vhosts = match rest.first() {
        Some(name) => vec![ask.known_vhost(name)?],
        None => ask.vhosts(),
    };
    let mut all = Vec::new();
    for info in ask.broker().connections() {
        if vhosts.iter().any(|vhost| *vhost.name() == info.vhost) {
            add_consumers(ask, &info, |_| true, &mut all);
        }
    }
    list::answer(ask, all)
}

/// The consumers of a queue.
pub(super) fn consumers_of(ask: &Ask, queue: &Arc<Queue>) -> Vec<Value> {
    let mut all = Vec::new();
    for info in ask.broker().connections().iter().filter(|info| info.vhost == queue.spec().vhost) {
        add_consumers(ask, info, |consumer| Arc::ptr_eq(&consumer.queue, queue), &mut all);
    }
    all
}

fn add_consumers(ask: &Ask, info: &ConnectionInfo, wanted: impl Fn(&OpenConsumer) -> bool, all: &mut Vec<Value>) {
    for channel in info.open.channels() {
        let consumers = channel.state.consumers.iter().filter(|(_, consumer)| wanted(consumer));
        all.extend(consumers.map(|(tag, consumer)| consumer_shown(ask, info, &channel, tag, consumer)));
    }
}

fn consumer_shown(
    ask: &Ask,
    info: &ConnectionInfo,
    channel: &ChannelInfo,
    tag: &str,
    consumer: &OpenConsumer,
) -> Value {
    let mut channel_details = connection_details(info);
    channel_details["connection_name"] = channel_details["name"].take();
    channel_details["name"] = channel_name(info, channel).into();
    channel_details["node"] = ask.broker().node_name.clone().into();
    channel_details["number"] = channel.number.into();
    channel_details["user"] = (*info.user).into();
    let spec = consumer.queue.spec();
    let is_active = consumer.queue.is_active(consumer.id);
    let mut object = json!({
        "consumer_tag": tag,
        "queue": {"name": &*spec.name, "vhost": &*spec.vhost},
        "channel_details": channel_details,
        "ack_required": !consumer.no_ack,
        "exclusive": consumer.exclusive,
        "prefetch_count": consumer.prefetch,
        "active": is_active,
        "activity_status": if is_active { "up" } else { "waiting" },
        "arguments": arguments::from_arguments(&consumer.arguments),
    });
    // Without a limit there is none to show.
    let timeout_ms = consumer.queue.ack_timeout_ms();
    if timeout_ms > 0 {
        object["consumer_timeout"] = timeout_ms.into();
    }
    object
}
