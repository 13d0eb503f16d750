//! Counters and their rates as RabbitMQ's `message_stats` and its relatives.

use serde_json::{Map, Value, json};

use crate::model::counters::Counted;
use crate::model::statistics::{churn, exchange, messages, traffic};

const PUBLISHED: [(&str, usize); 4] = [
    ("publish", messages::PUBLISH),
    ("confirm", messages::CONFIRM),
    ("return_unroutable", messages::RETURN_UNROUTABLE),
    ("drop_unroutable", messages::DROP_UNROUTABLE),
];
const DELIVERED: [(&str, usize); 7] = [
    ("deliver", messages::DELIVER),
    ("deliver_no_ack", messages::DELIVER_NO_ACK),
    ("get", messages::GET),
    ("get_no_ack", messages::GET_NO_ACK),
    ("get_empty", messages::GET_EMPTY),
    ("redeliver", messages::REDELIVER),
    ("ack", messages::ACK),
];
/// What is the sum of what RabbitMQ calls `deliver_get`.
const HANDED_OUT: [usize; 4] = [messages::DELIVER, messages::DELIVER_NO_ACK, messages::GET, messages::GET_NO_ACK];

/// A number with its rate beside it.
fn put(object: &mut Map<String, Value>, name: &str, total: u64, rate: f64) {
    object.insert(name.to_owned(), total.into());
    object.insert(format!("{name}_details"), json!({"rate": rate}));
}

fn put_all<const N: usize>(object: &mut Map<String, Value>, counted: &Counted<N>, names: &[(&str, usize)]) {
    for (name, which) in names {
        put(object, name, counted.totals[*which], counted.rates[*which]);
    }
}

/// What clients did with messages: as in RabbitMQ, groups of which nothing ever happened are left out.
fn message_stats(counted: &Counted<{ messages::LEN }>, published: &[(&str, usize)]) -> Map<String, Value> {
    let mut object = Map::new();
    let happened = |names: &[(&str, usize)]| names.iter().any(|(_, which)| counted.totals[*which] > 0);
    if happened(published) {
        put_all(&mut object, counted, published);
    }
    if happened(&DELIVERED) {
        put_all(&mut object, counted, &DELIVERED);
        let total = HANDED_OUT.iter().map(|which| counted.totals[*which]).sum();
        let rate = HANDED_OUT.iter().map(|which| counted.rates[*which]).sum();
        put(&mut object, "deliver_get", total, rate);
    }
    object
}

/// Those of a channel, a virtual host or the whole broker.
pub(super) fn of_clients(counted: &Counted<{ messages::LEN }>) -> Map<String, Value> {
    message_stats(counted, &PUBLISHED)
}

/// Those of a queue.
pub(super) fn of_queue(counted: &Counted<{ messages::LEN }>) -> Map<String, Value> {
    message_stats(counted, &PUBLISHED[..1])
}

/// Those of an exchange; what is zero is left out.
pub(super) fn of_exchange(counted: &Counted<{ exchange::LEN }>) -> Map<String, Value> {
    let mut object = Map::new();
    for named in [("publish_in", exchange::IN), ("publish_out", exchange::OUT)] {
        if counted.totals[named.1] > 0 {
            put_all(&mut object, counted, &[named]);
        }
    }
    object
}

/// Puts them under `message_stats`, if there are some.
pub(super) fn put_message_stats(object: &mut Value, stats: Map<String, Value>) {
    if !stats.is_empty() {
        object["message_stats"] = stats.into();
    }
}

/// How many messages there are in a queue or in several, and how that changes.
#[derive(Default)]
pub(super) struct Depth {
    ready: u64,
    unacked: u64,
    ready_rate: f64,
    unacked_rate: f64,
}

impl Depth {
    pub(super) fn add(&mut self, counted: &Counted<{ messages::LEN }>) {
        self.ready += counted.totals[messages::READY];
        self.unacked += counted.totals[messages::UNACKED];
        self.ready_rate += counted.rates[messages::READY];
        self.unacked_rate += counted.rates[messages::UNACKED];
    }

    pub(super) fn put_into(&self, object: &mut Map<String, Value>) {
        put(object, "messages", self.ready + self.unacked, self.ready_rate + self.unacked_rate);
        put(object, "messages_ready", self.ready, self.ready_rate);
        put(object, "messages_unacknowledged", self.unacked, self.unacked_rate);
    }
}

/// Octets over sockets.
pub(super) fn put_traffic(object: &mut Map<String, Value>, counted: &Counted<{ traffic::LEN }>) {
    put_all(object, counted, &[("recv_oct", traffic::RECEIVED_OCTETS), ("send_oct", traffic::SENT_OCTETS)]);
}

/// How often something was read and written.
pub(super) fn put_reads_and_writes(object: &mut Map<String, Value>, counted: &Counted<{ traffic::LEN }>) {
    object.insert("recv_cnt".to_owned(), counted.totals[traffic::RECEIVED].into());
    object.insert("send_cnt".to_owned(), counted.totals[traffic::SENT].into());
}

/// What came and went.
pub(super) fn put_churn(object: &mut Map<String, Value>, counted: &Counted<{ churn::LEN }>) {
    let names = [
        ("connection_created", churn::CONNECTION_CREATED),
        ("connection_closed", churn::CONNECTION_CLOSED),
        ("channel_created", churn::CHANNEL_CREATED),
        ("channel_closed", churn::CHANNEL_CLOSED),
        ("queue_declared", churn::QUEUE_DECLARED),
        ("queue_created", churn::QUEUE_CREATED),
        ("queue_deleted", churn::QUEUE_DELETED),
    ];
    put_all(object, counted, &names);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_events_are_left_out() {
        let mut counted = Counted::default();
        assert!(of_clients(&counted).is_empty());
        counted.totals[messages::GET_NO_ACK] = 2;
        counted.rates[messages::GET_NO_ACK] = 1.5;
        let stats = of_clients(&counted);
        assert_eq!(stats["deliver_get"], 2);
        assert_eq!(stats["deliver_get_details"], json!({"rate": 1.5}));
        assert_eq!((stats.get("publish"), stats.len()), (None, 16));
        counted.totals[messages::PUBLISH] = 1;
        assert_eq!((of_clients(&counted).len(), of_queue(&counted).len()), (24, 18));
    }
}
