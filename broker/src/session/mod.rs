//! AMQP semantics of one connection and its channels, without a socket: frames in, items for the outbox out.

mod channel;
mod confirm;
mod connection;
mod consume;
mod declare;
mod direct_reply;
mod dispatch;
mod end;
mod events;
mod handshake;
mod hold;
mod logs;
mod publish;
mod settle;
mod statistics;
mod trace;
mod tx;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use protocol::amqp::AMQPClass;
use protocol::{AmqpError, put_method};
use storage::Lsn;

use self::channel::{Channel, Mode};
use self::consume::SlotInfo;
use self::statistics::ExchangeRun;
use self::tx::PendingCommit;
use crate::auth::{Grants, UserInfo};
use crate::broker::{Broker, OpenConnection, Usage};
use crate::model::ConnectionId;
use crate::model::peer::Peer;
use crate::model::received::Batch;
use crate::queue::credit::Resume;
use crate::queue::item::OutItem;
use crate::queue::outbox::Outbox;
use crate::queue::settle::Acked;
use crate::queue::signal::{self, Signal, WakeList};
use crate::vhost::Vhost;

/// Own replies that may wait for a client that does not read before its socket is no longer read either.
const REPLIES_MAX_BYTES: usize = 1 << 20;

/// Where a connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// connection.start is sent.
    Starting,
    /// connection.tune is sent.
    Tuning,
    /// Tuned; connection.open is awaited.
    Opening,
    /// Open.
    Running,
    /// connection.close is sent: what still comes is ignored until close-ok.
    Closing,
    /// The same, but frames can no longer be told apart: whatever comes is thrown away.
    Deaf,
    /// Login failed. After a while a client that asked for it is told ([`Session::end_refusal`]), and any other's socket closes
    /// without a word.
    Refused,
    /// The client has closed the connection: the socket is its to close too. A client may send its close several times, from
    /// several threads, and takes a socket that goes before it has seen the first answer for a broken connection.
    Left,
    /// The last frame is in the outbox; once it is written the socket can go.
    Closed,
}

/// What was negotiated.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest frame in octets; 0 = unlimited.
    pub frame_max: u32,
    /// Open channels; 0 = unlimited.
    pub channel_max: u16,
    /// Heartbeat interval in seconds; 0 = none.
    pub heartbeat_s: u16,
    /// Largest body.
    pub max_message_bytes: u64,
}

impl Limits {
    /// What connection.tune offers.
    fn offered(broker: &Broker) -> Self {
        let configured = &broker.settings.limits;
        Self {
            frame_max: configured.frame_max,
            channel_max: broker.channel_max(),
            heartbeat_s: configured.heartbeat_s,
            max_message_bytes: configured.max_message_bytes,
        }
    }
}

/// What the client said about itself.
#[derive(Default, Debug)]
struct Client {
    /// Wants connection.close when its login fails.
    failure_close: bool,
    /// Wants basic.cancel when its queue goes.
    cancel_notify: bool,
    /// Wants connection.blocked and connection.unblocked.
    blocked_notify: bool,
    /// Its own name for the connection.
    name: Option<String>,
}

/// See the module's documentation.
pub struct Session {
    broker: Arc<Broker>,
    id: ConnectionId,
    peer: Peer,
    phase: Phase,
    limits: Limits,
    client: Client,
    user: Option<Arc<UserInfo>>,
    vhost: Option<Arc<Vhost>>,
    grants: Option<Grants>,
    /// What the user has open, once the connection counts.
    usage: Option<Arc<Usage>>,
    /// Channels of this connection that count.
    open_channels: usize,
    /// What the client of a refused login is told once its time is over.
    refusal: Option<AmqpError>,
    /// The channel that was used last; all others are in `channels`. Most connections use one.
    current: Option<Box<Channel>>,
    channels: HashMap<u16, Box<Channel>>,
    outbox: Arc<Outbox>,
    /// What operators see of it.
    open: Arc<OpenConnection>,
    run: ExchangeRun,
    /// Messages received and not yet counted for the node.
    received: Batch,
    /// For the log, once it is open.
    opened: Option<logs::Opened>,
    /// Channels that have counted something.
    uncounted: Vec<u16>,
    /// Consumers by their slot in the outbox.
    slots: Vec<Option<SlotInfo>>,
    /// Connections that this batch gave work to.
    wakes: WakeList,
    acked: Acked,
    resumable: Vec<Resume>,
    commits: VecDeque<PendingCommit>,
    /// Channels with publishes to confirm.
    unconfirmed: Vec<u16>,
    hold: hold::Hold,
    /// It has asked for messages, so that it may have some to settle.
    consumes: bool,
    /// Something was published in this batch.
    published: bool,
    /// Octets of bodies that have not come whole.
    partial_bytes: usize,
    /// The store will raise [`crate::queue::signal::DURABLE`].
    awaits_store: bool,
    /// The spill will raise [`crate::queue::signal::ROOM`].
    awaits_room: bool,
    writer: write::WriterState,
    ended: bool,
}

impl Session {
    /// A session whose client has sent a protocol header that we speak; connection.start is put into the outbox.
    pub fn new(broker: Arc<Broker>, id: ConnectionId, peer: impl Into<Peer>) -> Self {
        let limits = Limits::offered(&broker);
        let statistics = &broker.services.statistics;
        let (high_water, memory) = (broker.settings.limits.outbox_bytes, Arc::clone(&broker.memory));
        let outbox = Arc::new(Outbox::new(high_water, memory, Arc::clone(statistics)));
        let open = Arc::new(OpenConnection::new(Arc::clone(&outbox), Arc::clone(statistics)));
        let hold = hold::Hold::new(Arc::clone(&broker.memory));
        let mut session = Self {
            broker,
            id,
            peer: peer.into(),
            phase: Phase::Starting,
            limits,
            client: Client::default(),
            user: None,
            vhost: None,
            grants: None,
            usage: None,
            open_channels: 0,
            refusal: None,
            current: None,
            channels: HashMap::new(),
            outbox,
            open,
            run: ExchangeRun::default(),
            received: Batch::default(),
            opened: None,
            uncounted: Vec::new(),
            slots: Vec::new(),
            wakes: WakeList::default(),
            acked: Acked::default(),
            resumable: Vec::new(),
            commits: VecDeque::new(),
            unconfirmed: Vec::new(),
            hold,
            consumes: false,
            published: false,
            partial_bytes: 0,
            awaits_store: false,
            awaits_room: false,
            writer: write::WriterState::default(),
            ended: false,
        };
        session.broker.remember_connection(id, session.outbox.signal(), &session.open);
        session.send_start();
        session
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What was negotiated so far.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The largest frame that may come now, in octets.
    pub fn frame_max(&self) -> u32 {
        match self.phase {
            Phase::Starting | Phase::Tuning => protocol::FRAME_MAX_BEFORE_TUNE,
            _ => self.limits.frame_max,
        }
    }

    /// What operators see of it.
    pub fn open_connection(&self) -> &Arc<OpenConnection> {
        &self.open
    }

    /// How others wake this connection.
    pub fn signal(&self) -> &Arc<Signal> {
        self.outbox.signal()
    }

    /// Whether a refused client will be told.
    pub fn tells_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether frames may be read now. Not when the client does not read its replies, and not when its publishes are held and
    /// enough of them has been parked.
    pub fn may_read(&self) -> bool {
        match self.phase {
            Phase::Closing | Phase::Deaf | Phase::Refused | Phase::Left => true,
            Phase::Closed => false,
            _ => !self.is_stuffed() && self.has_room_to_park(),
        }
    }

    /// The client does not read its replies.
    pub fn is_stuffed(&self) -> bool {
        self.outbox.reply_bytes() > REPLIES_MAX_BYTES
    }

    /// More waits for the disk than the caps allow.
    pub fn is_held(&self) -> bool {
        self.broker.is_disk_behind()
    }

    /// Ends a batch of frames: handles what was parked if it may go on, confirms what is safe, sets the committer going, wakes whoever got messages, and asks to be
    /// woken when the disk has what this connection waits for.
    pub fn finish_batch(&mut self) {
        loop {
            self.release_parked();
            if std::mem::take(&mut self.published) {
                self.broker.memory.touch();
            }
            if self.broker.services.dead_letters.is_waiting() {
                self.broker.move_dead_letters(&mut self.wakes);
            }
            self.flush_confirms();
            self.tell_counts();
            self.wakes.wake();
            self.broker.store.kick();
            // The disk may have caught up before we asked to be told.
            if self.await_disk() || !self.parks_for_disk() {
                break;
            }
        }
    }

    /// The store has made progress.
    pub fn on_durable(&mut self) {
        self.awaits_store = false;
        self.finish_commits(None);
        self.finish_batch();
    }

    /// The spill has room again.
    pub fn on_room(&mut self) {
        self.awaits_room = false;
        self.finish_batch();
    }

    fn flush_confirms(&mut self) {
        if self.unconfirmed.is_empty() {
            return;
        }
        let durable = self.broker.store.durable();
        let mut frames = Vec::new();
        let mut told = std::mem::take(&mut self.uncounted);
        let mut channels = std::mem::take(&mut self.unconfirmed);
        channels.retain(|number| {
            let Some(channel) = self.channel_mut(*number) else {
                return false;
            };
            let Mode::Confirm(confirms) = &mut channel.publisher.mode else {
                return false;
            };
            let confirmed = confirms.flush(*number, durable, &mut frames);
            let more = confirms.waits_for().is_some();
            confirms.listed = more;
            if confirmed > 0 {
                channel.publisher.uncounted.confirmed += confirmed;
                if !std::mem::replace(&mut channel.publisher.uncounted.listed, true) {
                    told.push(*number);
                }
            }
            if !frames.is_empty() {
                self.push_reply(*number, Lsn(0), std::mem::take(&mut frames));
            }
            more
        });
        self.unconfirmed = channels;
        self.uncounted = told;
    }

    /// Whether frames may be read now. If it is the disk that says no, this connection is woken when it has caught up.
    pub fn may_read_or_waits(&mut self) -> bool {
        loop {
            if self.may_read() {
                return true;
            }
            // Neither: the disk has just caught up.
            if self.await_disk() || self.phase == Phase::Closed || self.is_stuffed() || !self.reads_by_disk() {
                return false;
            }
        }
    }

    /// Asks to be woken when the disk has what this connection waits for. True when what others have written is a part of that.
    fn await_disk(&mut self) -> bool {
        let spill = self.broker.store.spill();
        let is_full = spill.is_full();
        if is_full && !self.awaits_room {
            self.awaits_room = true;
            let signal = Arc::clone(self.outbox.signal());
            spill.when_it_has_room(Box::new(move || signal.raise(signal::ROOM)));
        }
        // In this order: whatever is still pending afterwards lies beyond this position. Any progress will do.
        let durable = self.broker.store.durable();
        let is_behind = self.broker.is_log_behind();
        self.await_store(is_behind.then_some(Lsn(durable.0 + 1)));
        is_full || is_behind
    }

    fn await_store(&mut self, held_until: Option<Lsn>) {
        if self.awaits_store {
            return;
        }
        let mut first: Option<Lsn> = None;
        let mut consider = |lsn: Option<Lsn>| {
            if let Some(lsn) = lsn {
                first = Some(first.map_or(lsn, |first| first.min(lsn)));
            }
        };
        consider(self.commits.front().map(|commit| commit.lsn));
        for number in &self.unconfirmed {
            consider(self.channel(*number).and_then(|channel| match &channel.publisher.mode {
                Mode::Confirm(confirms) => confirms.waits_for(),
                _ => None,
            }));
        }
        consider(self.writer.waits_for());
        consider(held_until);
        if let Some(lsn) = first {
            self.awaits_store = true;
            self.broker.store.notify_at(lsn, Arc::clone(self.outbox.signal()) as _);
        }
    }

    fn channel(&self, number: u16) -> Option<&Channel> {
        match &self.current {
            Some(channel) if channel.number == number => Some(channel),
            _ => self.channels.get(&number).map(Box::as_ref),
        }
    }

    fn channel_mut(&mut self, number: u16) -> Option<&mut Channel> {
        match &mut self.current {
            Some(channel) if channel.number == number => Some(channel),
            _ => self.channels.get_mut(&number).map(Box::as_mut),
        }
    }

    /// Queues a method for the client.
    fn reply(&mut self, channel: u16, method: &AMQPClass) {
        self.reply_at(channel, Lsn(0), method);
    }

    /// Queues a method that must not be seen before `lsn` is durable.
    fn reply_at(&mut self, channel: u16, lsn: Lsn, method: &AMQPClass) {
        let mut frames = Vec::new();
        put_method(&mut frames, channel, method);
        self.push_reply(channel, lsn, frames);
    }

    fn push_reply(&mut self, channel: u16, lsn: Lsn, frames: Vec<u8>) {
        self.outbox.push(OutItem::Reply { channel, lsn, frames });
    }

    /// Visits the queues of consumers that have credit again.
    fn resume(&mut self, list: Vec<Resume>) {
        for Resume { queue, consumer } in list {
            queue.resume(consumer, &mut self.wakes);
        }
    }

    fn resume_waiting(&mut self) {
        for Resume { queue, consumer } in self.resumable.drain(..) {
            queue.resume(consumer, &mut self.wakes);
        }
    }

    fn vhost(&self) -> Result<&Arc<Vhost>, AmqpError> {
        self.vhost.as_ref().ok_or_else(declare::not_open)
    }

    fn grants(&self) -> Result<&Grants, AmqpError> {
        self.grants.as_ref().ok_or_else(declare::not_open)
    }

    fn user(&self) -> Result<&Arc<UserInfo>, AmqpError> {
        self.user.as_ref().ok_or_else(declare::not_open)
    }
}
