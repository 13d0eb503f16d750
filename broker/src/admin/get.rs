//! `/api/queues/:vhost/:queue/get`: messages for somebody to look at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::{Properties, shortstrs};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::json::from_table;
use super::request::{Ask, need_keys};
use crate::model::access::{Permission, Resource};
use crate::model::property_table::as_table;
use crate::queue::delivery_limit::Return;
use crate::queue::item::{Got, OutItem, Written};
use crate::queue::outbox::Outbox;
use crate::queue::settle::{Acked, Rejected, Requeue};
use crate::queue::signal::WakeList;
use crate::queue::{Get, Queue};

/// Octets of payloads in one answer: with them there are fewer messages than were asked for.
const PAYLOADS_MAX_BYTES: usize = 64 << 20;

/// What becomes of the messages that were shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Ack,
    Requeue,
    Reject,
}

/// Payloads as text where they are, or all in base64.
#[derive(Clone, Copy)]
enum Encoding {
    Auto,
    Base64,
}

struct Request {
    count: usize,
    after: After,
    encoding: Encoding,
    truncate: usize,
}

impl Request {
    fn read(body: &Map<String, Value>) -> Result<Self, Refusal> {
        need_keys(body, &["ackmode", "count", "encoding"])?;
        let after = match body["ackmode"].as_str().unwrap_or_default() {
            "ack_requeue_false" => After::Ack,
            "ack_requeue_true" | "reject_requeue_true" => After::Requeue,
            "reject_requeue_false" => After::Reject,
            other => {
                return Err(Refusal::bad_request(format!(
                    "Invalid ackmode value: {other}. Valid values are: ack_requeue_true, ack_requeue_false, \
                     reject_requeue_true, reject_requeue_false"
                )));
            }
        };
        let encoding = match body["encoding"].as_str() {
            Some("auto") => Encoding::Auto,
            Some("base64") => Encoding::Base64,
            _ => return Err(Refusal::bad_request("Unsupported encoding. Please use auto or base64.")),
        };
        // RabbitMQ's own page sends numbers as text.
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        let size = |name: &str| {
            let number = number(&body[name]).ok_or_else(|| Refusal::wrong("not_integer", &body[name]))?;
            Ok::<_, Refusal>(usize::try_from(number.max(0)).unwrap_or(usize::MAX))
        };
        let truncate = if body.contains_key("truncate") { size("truncate")? } else { usize::MAX };
        Ok(Self { count: size("count")?, after, encoding, truncate })
    }
}

pub(super) fn answer(ask: &Ask, vhost: &str, name: &str) -> Answer {
    let vhost = ask.vhost(vhost)?;
    let broker = ask.broker();
    if vhost.queue(name).is_none_or(|queue| queue.is_closed()) {
        let body = json!({"error": "not_found", "reason": "queue_not_found"});
        return Err(Refusal::with_body(axum::http::StatusCode::NOT_FOUND, body));
    }
    let request = Request::read(&ask.object()?)?;
    if ask.access(&vhost).check(Permission::Read, Resource::Queue(name)).is_err() {
        let (vhost, user) = (vhost.name(), ask.operator.name());
        let reason =
            format!("ACCESS_REFUSED - read access to queue '{name}' in vhost '{vhost}' refused for user '{user}'");
        return Err(Refusal::not_authorised(&reason));
    }
    let queue = vhost.queue_for(name, broker.new_connection_id())?;
    let statistics = Arc::clone(&broker.services.statistics);
    let outbox = Arc::new(Outbox::new(broker.settings.limits.outbox_bytes, Arc::clone(&broker.memory), statistics));
    let mut client = Client { slot: outbox.open_channel(1), outbox, items: VecDeque::new() };
    let mut shown = Vec::new();
    let mut bytes = 0;
    while shown.len() < request.count
        && bytes < PAYLOADS_MAX_BYTES
        && let Some(got) = client.get(&queue)
    {
        bytes += got.shown.body_len().min(request.truncate);
        shown.push(message(&got, &request));
    }
    client.settle(request.after);
    broker.store.kick();
    Ok(Reply::Value(shown.into()))
}

/// A client of the queue for as long as the request takes; what it does not settle goes back.
struct Client {
    outbox: Arc<Outbox>,
    slot: u32,
    items: VecDeque<OutItem>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Client {
    /// The next message. Waits while it is read from disk; this is a thread that may.
    fn get(&mut self, queue: &Arc<Queue>) -> Option<Box<Got>> {
        if queue.get(&self.outbox, self.slot, false) == Get::Empty {
            return None;
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            let signal = self.outbox.signal();
            signal.register(&waker);
            signal.take();
            if self.items.is_empty() {
                self.outbox.take_items(&mut self.items, &mut Vec::new());
            }
            let answer = match self.items.pop_front() {
                Some(OutItem::Got(got)) => Some(Some(got)),
                Some(item @ OutItem::PendingGet { .. }) => {
                    let OutItem::PendingGet { id, .. } = &item else { return None };
                    let resolved = self.outbox.take_resolved(*id);
                    if resolved.is_none() {
                        self.items.push_front(item);
                    } else {
                        self.written(&item);
                    }
                    resolved
                }
                _ => None,
            };
            match answer {
                Some(Some(got)) => {
                    let item = OutItem::Got(got);
                    self.written(&item);
                    let OutItem::Got(got) = item else { return None };
                    return Some(got);
                }
                Some(None) => return None,
                None if self.outbox.signal().is_raised() => {}
                None => std::thread::park(),
            }
        }
    }

    fn written(&self, item: &OutItem) {
        let mut written = Written::default();
        written.add(item);
        self.outbox.written(&written, &mut Vec::new());
    }

    fn settle(&self, after: After) {
        let (mut acked, mut rejected, mut back) = (Acked::default(), Rejected::default(), Requeue::default());
        let mut wakes = WakeList::default();
        self.outbox.take_unacked(self.slot, 0, true, &mut Vec::new(), |queue, unacked| match after {
            After::Ack => acked.add(queue, &unacked),
            After::Reject => rejected.add(queue, unacked),
            After::Requeue => back.add(queue, unacked, Return::InVain),
        });
        acked.commit();
        rejected.commit();
        back.commit(&mut wakes);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let undelivered = self.outbox.close(&mut self.items);
        undelivered.requeue.commit(&mut WakeList::default());
    }
}

fn message(got: &Got, request: &Request) -> Value {
    let content = got.shown.content();
    let (exchange, key) = shortstrs(content.address);
    let body = content.body;
    let cut = body.get(..request.truncate).unwrap_or(body);
    let text = match request.encoding {
        Encoding::Auto => std::str::from_utf8(cut).ok(),
        Encoding::Base64 => None,
    };
    let (payload, encoding) = match text {
        Some(text) => (text.to_owned(), "string"),
        None => (STANDARD.encode(cut), "base64"),
    };
    // As RabbitMQ has it: an empty list where there are none.
    let properties = Properties::parse(content.properties).map(|properties| from_table(&as_table(&properties)));
    let properties = properties.ok().filter(|value| value.as_object().is_some_and(|object| !object.is_empty()));
    json!({
        "payload_bytes": body.len(),
        "redelivered": got.entry.redelivered,
        "exchange": exchange,
        "routing_key": key,
        "message_count": got.remaining,
        "properties": properties.unwrap_or_else(|| json!([])),
        "payload": payload,
        "payload_encoding": encoding,
    })
}
