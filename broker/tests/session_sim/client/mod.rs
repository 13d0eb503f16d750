//! One client: what it sends, what it knows, and what it insists on.

mod read;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use broker::broker::Broker;
use broker::model::ConnectionId;
use broker::queue::signal;
use broker::session::Session;
use protocol::{Decoded, FrameKind, decode_frame, method_ids};

use crate::ledger::{Id, Ledger};
use crate::wire::{self, Args, Reader};

/// What a frame means once the broker has handled it.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A message is in a queue, or in a transaction.
    Published {
        channel: u16,
        queue: String,
        id: Id,
        persistent: bool,
    },
    /// A message is nowhere.
    Returned {
        channel: u16,
    },
    /// Deliveries are settled, or will be by a transaction.
    Settled {
        channel: u16,
        tags: Vec<(String, Id)>,
    },
    Committed {
        channel: u16,
    },
    RolledBack {
        channel: u16,
    },
    /// A queue is declared.
    Declared {
        channel: u16,
        queue: String,
        durable: bool,
    },
    /// What a queue holds is thrown away, but for what somebody has.
    Emptied {
        queue: String,
    },
    /// A queue goes with all that it holds.
    Deleted {
        queue: String,
    },
    Closed {
        channel: u16,
    },
}

struct Outgoing {
    frame: Vec<u8>,
    effect: Option<Effect>,
    /// The next frame is handled in the same batch.
    glued: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm,
    Transaction,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Asked,
    Live,
    Cancelling,
}

#[derive(Debug)]
pub(crate) struct ConsumerView {
    pub(crate) queue: String,
    pub(crate) no_ack: bool,
    pub(crate) prefetch: usize,
    life: Life,
    outstanding: usize,
}

impl ConsumerView {
    pub(crate) fn has_credit(&self) -> bool {
        self.life == Life::Live && (self.no_ack || self.prefetch == 0 || self.outstanding < self.prefetch)
    }
}

#[derive(Clone, Debug)]
struct Outstanding {
    queue: String,
    id: Id,
    consumer: Option<String>,
}

/// A message on its way in.
struct Incoming {
    consumer: Option<String>,
    queue: String,
    tag: u64,
    redelivered: bool,
    no_ack: bool,
    returned: bool,
    persistent: bool,
    left: Option<usize>,
    body: Vec<u8>,
}

/// A reply that vouches for something.
struct Vouched {
    reply: wire::Id,
    sync: u64,
    /// Messages that a commit put into durable queues.
    messages: Vec<(String, Id)>,
    /// A durable queue that was declared.
    queue: Option<String>,
}

pub(crate) struct Channel {
    /// Names this opening of the channel.
    pub(crate) key: u64,
    pub(crate) mode: Mode,
    pub(crate) prefetch: usize,
    pub(crate) closing: bool,
    pub(crate) waiting: bool,
    pub(crate) consumers: BTreeMap<String, ConsumerView>,
    expected: VecDeque<wire::Id>,
    gets: VecDeque<(String, bool)>,
    outstanding: BTreeMap<u64, Outstanding>,
    last_tag: u64,
    incoming: Option<Incoming>,
    /// Publishes that the broker has handled, and when a persistent one of them can be durable.
    published: Vec<u64>,
    confirmed: u64,
    /// Of each publish the message that its confirm vouches for.
    vouched: Vec<Option<(String, Id)>>,
    /// Replies that vouch for something, and the sync that makes it durable.
    durable: VecDeque<Vouched>,
    /// With how often the queue had been deleted when it was published to.
    tx_published: Vec<(String, Id, bool, u64)>,
    tx_settled: Vec<(String, Id)>,
    /// Settled since the last commit, by tag.
    tx_taken: Vec<(u64, Outstanding)>,
    next_consumer: u32,
}

impl Channel {
    fn new(key: u64) -> Self {
        Self {
            key,
            mode: Mode::Plain,
            prefetch: 0,
            closing: false,
            waiting: false,
            consumers: BTreeMap::new(),
            expected: VecDeque::from([wire::CHANNEL_OPEN_OK]),
            gets: VecDeque::new(),
            outstanding: BTreeMap::new(),
            last_tag: 0,
            incoming: None,
            published: Vec::new(),
            confirmed: 0,
            vouched: Vec::new(),
            durable: VecDeque::new(),
            tx_published: Vec::new(),
            tx_settled: Vec::new(),
            tx_taken: Vec::new(),
            next_consumer: 0,
        }
    }

    pub(crate) fn is_free(&self) -> bool {
        !self.closing && !self.waiting
    }

    pub(crate) fn tags(&self) -> Vec<u64> {
        self.outstanding.keys().copied().collect()
    }

    /// What it has and has not settled, in the order it came.
    pub(crate) fn held(&self) -> Vec<Id> {
        self.outstanding.values().map(|held| held.id).collect()
    }

    /// Answers that have not come.
    pub(crate) fn owed(&self) -> usize {
        self.expected.len() + self.published.len() - self.confirmed as usize
    }
}

pub(crate) struct Client {
    session: Session,
    outgoing: VecDeque<Outgoing>,
    pub(crate) channels: BTreeMap<u16, Channel>,
    octets: Vec<u8>,
    /// The socket was full.
    full: bool,
    progress: bool,
    pub(crate) opened: bool,
    /// Without it the books do not balance: it was sent deliveries that settle themselves, which come back as new behind
    /// what others have got, or only it knows how many messages its purge took.
    pub(crate) indispensable: bool,
    /// The broker's last word.
    pub(crate) over: bool,
    /// The broker may close its channels.
    pub(crate) tolerant: bool,
    /// Errors the broker has closed channels with.
    pub(crate) refusals: Vec<String>,
    keys: u64,
}

impl Client {
    /// `key` names the client; its channels' keys follow from it.
    pub(crate) fn new(broker: &Arc<Broker>, key: u64) -> Self {
        let peer: std::net::IpAddr = [127, 0, 0, 1].into();
        let mut client = Self {
            session: Session::new(Arc::clone(broker), ConnectionId(key), peer),
            outgoing: VecDeque::new(),
            channels: BTreeMap::new(),
            octets: Vec::new(),
            full: false,
            progress: true,
            opened: false,
            indispensable: false,
            over: false,
            tolerant: false,
            refusals: Vec::new(),
            keys: key << 16,
        };
        client.send(wire::start_ok(), None);
        client.send(Args::new(wire::TUNE_OK).short(2047).long(131_072).short(0).frame(0), None);
        client.send(Args::new(wire::OPEN).text("/").text("").octet(0).frame(0), None);
        client
    }

    fn send(&mut self, frame: Vec<u8>, effect: Option<Effect>) {
        self.outgoing.push_back(Outgoing { frame, effect, glued: false });
    }

    fn call(&mut self, channel: u16, args: Args, reply: wire::Id, effect: Option<Effect>) {
        self.send(args.frame(channel), effect);
        self.channel(channel).expected.push_back(reply);
    }

    pub(crate) fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.get_mut(&number).expect("a channel of ours")
    }

    pub(crate) fn open(&mut self, number: u16) {
        self.keys += 1;
        self.send(Args::new(wire::CHANNEL_OPEN).text("").frame(number), None);
        assert!(self.channels.insert(number, Channel::new(self.keys)).is_none());
    }

    pub(crate) fn close_channel(&mut self, number: u16) {
        let args = Args::new(wire::CHANNEL_CLOSE).short(200).text("").short(0).short(0);
        self.call(number, args, wire::CHANNEL_CLOSE_OK, Some(Effect::Closed { channel: number }));
        self.channel(number).closing = true;
    }

    pub(crate) fn close(&mut self) {
        self.send(Args::new(wire::CLOSE).short(200).text("").short(0).short(0).frame(0), None);
    }

    pub(crate) fn declare(&mut self, channel: u16, queue: &str, durable: bool) {
        let args = Args::new(wire::DECLARE).short(0).text(queue).octet(u8::from(durable) << 1).octets(&[]);
        self.call(
            channel,
            args,
            wire::DECLARE_OK,
            Some(Effect::Declared { channel, queue: queue.to_owned(), durable }),
        );
    }

    /// Deletes a queue and declares it again before anybody else can look.
    pub(crate) fn renew(&mut self, channel: u16, queue: &str) {
        let args = Args::new(wire::DELETE).short(0).text(queue).octet(0);
        let effect = Effect::Deleted { queue: queue.to_owned() };
        self.call(channel, args, wire::DELETE_OK, Some(effect));
        self.glue();
        self.declare(channel, queue, queue.ends_with("-durable"));
    }

    fn glue(&mut self) {
        if let Some(last) = self.outgoing.back_mut() {
            last.glued = true;
        }
    }

    pub(crate) fn purge(&mut self, channel: u16, queue: &str) {
        self.call(
            channel,
            Args::new(wire::PURGE).short(0).text(queue).octet(0),
            wire::PURGE_OK,
            Some(Effect::Emptied { queue: queue.to_owned() }),
        );
        self.channel(channel).gets.push_back((queue.to_owned(), false));
        self.indispensable = true;
    }

    pub(crate) fn select(&mut self, channel: u16, mode: Mode) {
        match mode {
            Mode::Plain => return,
            Mode::Confirm => self.call(channel, Args::new(wire::CONFIRM).octet(0), wire::CONFIRM_OK, None),
            Mode::Transaction => self.call(channel, Args::new(wire::TX), wire::TX_OK, None),
        }
        self.channel(channel).mode = mode;
    }

    pub(crate) fn publish(&mut self, channel: u16, queue: &str, id: Id, persistent: bool, len: usize) {
        let frames = wire::publish(channel, queue, false, persistent, &id.body(len));
        let last = frames.len() - 1;
        for (index, frame) in frames.into_iter().enumerate() {
            let persistent = persistent && queue.ends_with("-durable");
            let effect = Effect::Published { channel, queue: queue.to_owned(), id, persistent };
            self.send(frame, (index == last).then_some(effect));
        }
    }

    /// basic.publish, mandatory, to a queue that is not there.
    pub(crate) fn publish_nowhere(&mut self, channel: u16, len: usize) {
        let frames = wire::publish(channel, "nowhere", true, false, &vec![0; len]);
        let last = frames.len() - 1;
        for (index, frame) in frames.into_iter().enumerate() {
            self.send(frame, (index == last).then_some(Effect::Returned { channel }));
        }
    }

    pub(crate) fn qos(&mut self, channel: u16, prefetch: u16) {
        self.call(channel, Args::new(wire::QOS).long(0).short(prefetch).octet(0), wire::QOS_OK, None);
        self.channel(channel).prefetch = prefetch.into();
    }

    pub(crate) fn consume(&mut self, channel: u16, queue: &str, no_ack: bool) {
        self.consume_as(channel, queue, u8::from(no_ack) << 1);
        self.indispensable |= no_ack;
    }

    pub(crate) fn consume_as(&mut self, channel: u16, queue: &str, bits: u8) {
        let to = self.channel(channel);
        let tag = format!("c{}", to.next_consumer);
        to.next_consumer += 1;
        let view = ConsumerView {
            queue: queue.to_owned(),
            no_ack: bits & 2 != 0,
            prefetch: to.prefetch,
            life: Life::Asked,
            outstanding: 0,
        };
        to.consumers.insert(tag.clone(), view);
        let args = Args::new(wire::CONSUME).short(0).text(queue).text(&tag).octet(bits).octets(&[]);
        self.call(channel, args, wire::CONSUME_OK, None);
    }

    pub(crate) fn cancel(&mut self, channel: u16, pick: usize) {
        let live = self.channel(channel).consumers.iter_mut().filter(|(_, view)| view.life == Life::Live);
        let mut live: Vec<_> = live.collect();
        if live.is_empty() {
            return;
        }
        let at = pick % live.len();
        let (tag, view) = &mut live[at];
        view.life = Life::Cancelling;
        let args = Args::new(wire::CANCEL).text(tag).octet(0);
        self.call(channel, args, wire::CANCEL_OK, None);
    }

    pub(crate) fn get(&mut self, channel: u16, queue: &str, no_ack: bool) {
        self.call(channel, Args::new(wire::GET).short(0).text(queue).octet(no_ack.into()), wire::GET_OK, None);
        self.channel(channel).gets.push_back((queue.to_owned(), no_ack));
        self.indispensable |= no_ack;
    }

    /// basic.ack, or basic.nack that requeues.
    pub(crate) fn settle(&mut self, channel: u16, tag: u64, multiple: bool, requeue: bool) {
        let from = self.channel(channel);
        let taken: Vec<u64> =
            from.outstanding.keys().copied().filter(|other| *other == tag || (multiple && *other < tag)).collect();
        let mut tags = Vec::new();
        for tag in taken {
            let Some(taken) = from.outstanding.remove(&tag) else { continue };
            tags.push((taken.queue.clone(), taken.id));
            // Inside a transaction the credit comes back with the commit.
            if from.mode == Mode::Transaction {
                from.tx_taken.push((tag, taken));
            } else {
                from.release(&taken);
            }
        }
        let effect = Effect::Settled { channel, tags };
        if requeue {
            let bits = u8::from(multiple) | 2;
            self.send(Args::new(wire::NACK).longlong(tag).octet(bits).frame(channel), None);
        } else {
            self.send(Args::new(wire::ACK).longlong(tag).octet(multiple.into()).frame(channel), Some(effect));
        }
    }

    pub(crate) fn recover(&mut self, channel: u16) {
        self.call(channel, Args::new(wire::RECOVER).octet(1), wire::RECOVER_OK, None);
        // Tags that come before the answer are worth nothing after it.
        self.channel(channel).waiting = true;
    }

    pub(crate) fn commit(&mut self, channel: u16) {
        self.call(channel, Args::new(wire::COMMIT), wire::COMMIT_OK, Some(Effect::Committed { channel }));
        let from = self.channel(channel);
        from.waiting = true;
        // The first deliveries for the credit that comes back may be there before commit-ok.
        for (_, taken) in std::mem::take(&mut from.tx_taken) {
            from.release(&taken);
        }
    }

    pub(crate) fn rollback(&mut self, channel: u16) {
        self.call(channel, Args::new(wire::ROLLBACK), wire::ROLLBACK_OK, Some(Effect::RolledBack { channel }));
        self.channel(channel).waiting = true;
    }

    /// Whether its task would run.
    pub(crate) fn is_awake(&self) -> bool {
        self.progress || self.full || !self.outgoing.is_empty() || self.session.signal().is_raised()
    }

    pub(crate) fn may_read(&self) -> bool {
        self.session.may_read()
    }

    /// One turn of the connection's task: up to `frames` frames, then one write of about `limit` octets, unless the socket
    /// is full (0). `syncs` counts how often everything became durable.
    pub(crate) fn turn(&mut self, frames: usize, limit: usize, syncs: u64, ledger: &mut Ledger) {
        let flags = self.session.signal().take();
        if flags & signal::DURABLE != 0 {
            self.session.on_durable();
        }
        if flags & signal::ALARM != 0 {
            self.session.on_alarm();
        }
        self.progress = flags != 0;
        self.session.begin_batch();
        let mut left = frames;
        while left > 0
            && self.session.may_read()
            && let Some(outgoing) = self.outgoing.pop_front()
        {
            let Ok(Decoded::Frame { frame, .. }) = decode_frame(&outgoing.frame, 0) else {
                panic!("we sent half a frame");
            };
            self.session.on_frame(&frame);
            if let Some(effect) = outgoing.effect {
                self.apply(effect, syncs, ledger);
            }
            self.progress = true;
            left -= usize::from(!outgoing.glued);
        }
        self.session.finish_batch();
        if limit == 0 {
            self.full = true;
            return;
        }
        let mut out = Vec::new();
        self.full = false;
        self.session.write(&mut out, limit);
        self.session.finish_batch();
        self.progress |= !out.is_empty();
        self.octets.extend(out);
        self.read(syncs, ledger);
    }

    fn apply(&mut self, effect: Effect, syncs: u64, ledger: &mut Ledger) {
        match effect {
            Effect::Published { channel, queue, id, persistent } => {
                let from = self.channel(channel);
                if from.mode == Mode::Transaction {
                    let deletions = ledger.account(&queue).deletions;
                    from.tx_published.push((queue, id, persistent, deletions));
                } else {
                    if from.mode == Mode::Confirm {
                        from.published.push(if persistent { syncs + 1 } else { 0 });
                        from.vouched.push(persistent.then(|| (queue.clone(), id)));
                    }
                    ledger.publish(&queue, id, persistent);
                }
            }
            Effect::Returned { channel } => {
                let from = self.channel(channel);
                if from.mode == Mode::Confirm {
                    from.published.push(0);
                    from.vouched.push(None);
                }
            }
            Effect::Settled { channel, tags } => {
                let from = self.channel(channel);
                if from.mode == Mode::Transaction {
                    from.tx_settled.extend(tags);
                } else {
                    for (queue, id) in tags {
                        ledger.settle(&queue, id);
                    }
                }
            }
            Effect::Committed { channel } => {
                let from = self.channel(channel);
                // What was meant for a queue that is another one by now goes nowhere.
                let mut messages = Vec::new();
                for (queue, id, persistent, deletions) in std::mem::take(&mut from.tx_published) {
                    ledger.publish(&queue, id, persistent);
                    if ledger.account(&queue).deletions != deletions {
                        ledger.account(&queue).doubtful.insert(id);
                    } else if persistent {
                        messages.push((queue, id));
                    }
                }
                let sync = if messages.is_empty() { 0 } else { syncs + 1 };
                from.durable.push_back(Vouched { reply: wire::COMMIT_OK, sync, messages, queue: None });
                let settled = std::mem::take(&mut from.tx_settled);
                for (queue, id) in settled {
                    ledger.settle(&queue, id);
                }
            }
            Effect::RolledBack { channel } | Effect::Closed { channel } => {
                let from = self.channel(channel);
                from.tx_published.clear();
                from.tx_settled.clear();
            }
            Effect::Declared { channel, queue, durable } => {
                let sync = if durable { syncs + 1 } else { 0 };
                let queue = durable.then_some(queue);
                let vouched = Vouched { reply: wire::DECLARE_OK, sync, messages: Vec::new(), queue };
                self.channel(channel).durable.push_back(vouched);
            }
            Effect::Emptied { queue } => ledger.empty(&queue),
            Effect::Deleted { queue } => ledger.delete(&queue),
        }
    }

    /// Queues that it consumes from and has credit for.
    pub(crate) fn hungry(&self) -> BTreeSet<&str> {
        let views = self.channels.values().filter(|channel| channel.mode != Mode::Transaction);
        views.flat_map(|c| c.consumers.values()).filter(|v| v.has_credit()).map(|v| v.queue.as_str()).collect()
    }

    pub(crate) fn consumers_of(&self, queue: &str) -> usize {
        self.channels.values().flat_map(|c| c.consumers.values()).filter(|view| view.queue == queue).count()
    }
}

impl Channel {
    fn release(&mut self, taken: &Outstanding) {
        if let Some(view) = taken.consumer.as_ref().and_then(|tag| self.consumers.get_mut(tag)) {
            view.outstanding -= 1;
        }
    }
}
