//! Sending on a message that the broker has held: a delayed one whose time has come.

use std::sync::Arc;

use protocol::{Properties, shortstrs, without_header};
use smallvec::SmallVec;
use storage::TxOp;

use super::Vhost;
use super::exchange::Exchange;
use super::route::Targets;
use crate::model::copies::{self, Keys};
use crate::model::expiration;
use crate::model::message::Message;
use crate::queue::signal::WakeList;
use crate::queue::{Published, Queue};

impl Vhost {
    /// Routes a message from an exchange, as if it had been published there now. `settle` takes it out of the store where it
    /// has been; that and its way into queues are one transaction.
    pub(super) fn forward(
        &self,
        exchange: &Arc<Exchange>,
        message: Message,
        settle: Option<TxOp>,
        wakes: &mut WakeList,
    ) {
        let mut targets = Targets::default();
        let mut rewritten = None;
        let mut deadline_ms = None;
        {
            let content = message.content();
            let (_, key) = shortstrs(content.address);
            let mut keys: Keys<'_> = SmallVec::from_slice(&[key.as_ref()]);
            // All of it was checked when the message came in.
            if let Ok(properties) = Properties::parse(content.properties) {
                if let Some(headers) = properties.headers()
                    && copies::add(headers, &mut keys).is_ok()
                    && let Some(without_bcc) = without_header(content.properties, b"BCC")
                {
                    let (body, persistent) = (content.body.to_vec().into(), message.is_persistent());
                    rewritten = Some(Message::new(content.address, &without_bcc, body, persistent));
                }
                self.route_to(exchange, &keys, Some(&properties), &mut targets);
                let ttl_ms = properties.expiration().and_then(|text| expiration::parse(text).ok());
                deadline_ms = ttl_ms.map(|ttl_ms| self.services.timers.clock().now_ms().saturating_add(ttl_ms));
            }
        }
        let mut message = rewritten.unwrap_or(message);
        message.set_deadline(deadline_ms);
        message.share(targets.queues.len());
        let message = Arc::new(message);
        for history in &targets.histories {
            history.add(&message);
        }
        self.enter(&message, &targets.queues, settle, wakes);
    }

    /// Puts a message into queues, and takes it out of where it was.
    fn enter(&self, message: &Arc<Message>, queues: &[Arc<Queue>], settle: Option<TxOp>, wakes: &mut WakeList) {
        let (stored, transient): (Vec<_>, Vec<_>) =
            queues.iter().partition(|queue| settle.is_some() && queue.stores(message));
        for queue in transient {
            queue.publish(message, wakes);
        }
        let Some(settle) = settle else { return };
        let store = &self.services.store;
        match stored[..] {
            [] => {
                store.transaction(vec![settle]);
            }
            // In the usual case the queue puts it where new messages go.
            [queue] => {
                let mut settle = Some(settle);
                let published = queue.publish_by(message, wakes, |seq| {
                    let enqueue = enqueue(queue, seq, message);
                    store.transaction(settle.take().into_iter().chain([enqueue]).collect())
                });
                // Gone, or it takes no more: the message ends here, as one that is published then.
                if let (Published::Gone | Published::Refused, Some(settle)) = (published, settle.take()) {
                    store.transaction(vec![settle]);
                }
            }
            _ => {
                let reserved = stored.iter().filter_map(|queue| Some((*queue, queue.reserve()?)));
                let reserved: Vec<_> = reserved.collect();
                let entries = reserved.iter().map(|(queue, seq)| enqueue(queue, *seq, message));
                store.transaction(entries.chain([settle]).collect());
                for (queue, seq) in reserved {
                    queue.publish_reserved(seq, message, wakes);
                }
            }
        }
    }
}

fn enqueue(queue: &Queue, seq: u64, message: &Arc<Message>) -> TxOp {
    TxOp::Enqueue { queue: queue.id(), seq, meta: message.meta(), payload: Arc::clone(message) as _ }
}
