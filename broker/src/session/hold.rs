//! Publishers that are held: by an alarm of the node, or because more waits for the disk than the cap allows.
//!
//! Held is what publishes, not what consumes. From its next publish on (in an alarm from the body of its first), the frames of
//! a channel are parked, as they came; the other channels and the connection itself go on. What is parked is bounded: past
//! that the socket is not read either. From a client that only publishes nothing more is read, not even its goodbye: clients
//! know that of RabbitMQ, and expect a close to wait for the end of the alarm.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::amqp::{AMQPClass, connection};
use protocol::names::short_cut;
use protocol::{Decoded, Frame, FrameKind, decode_frame, method_ids, put_frame, put_method};
use smallvec::SmallVec;

use super::Session;
use crate::model::memory::{Memory, Owner, Share};
use crate::queue::item::OutItem;

/// Octets parked before the socket is not read any more.
const PARKED_MAX_BYTES: usize = 1 << 20;

const BASIC_PUBLISH: (u16, u16) = (60, 40);

/// See the module's documentation.
pub(super) struct Hold {
    /// An alarm was on when the batch began.
    alarm: bool,
    /// The client has published during an alarm: connection.blocked.
    blocked: bool,
    /// Publishes are parked from now on.
    parks: bool,
    /// The frames of `channels` since their first publish that was parked, as they came.
    frames: Vec<u8>,
    channels: SmallVec<[u16; 4]>,
    share: Share,
}

impl Hold {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            alarm: false,
            blocked: false,
            parks: false,
            frames: Vec::new(),
            channels: SmallVec::new(),
            share: Share::new(memory, Owner::Parked),
        }
    }

    /// Whether every frame of a channel must be shown to [`Session::park`].
    pub(super) fn parks(&self) -> bool {
        self.parks
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn take(&mut self) -> Vec<u8> {
        self.channels.clear();
        self.share.set(0);
        std::mem::take(&mut self.frames)
    }
}

impl Session {
    /// Before the frames that were read together: looks once for all of them whether publishers are held.
    pub fn begin_batch(&mut self) {
        self.follow_alarms();
        // Without consumers the socket is not read while the disk catches up: what was read already is let through.
        self.hold.parks = self.hold.blocked || !self.hold.is_empty() || (self.consumes && self.is_held());
    }

    /// The last alarm has gone off.
    pub fn on_alarm(&mut self) {
        self.follow_alarms();
        self.finish_batch();
    }

    fn follow_alarms(&mut self) {
        self.hold.alarm = self.broker.alarms().any();
        if self.hold.blocked && !self.hold.alarm {
            self.hold.blocked = false;
            self.open.is_blocked.store(false, Ordering::Relaxed);
            self.tell(connection::AMQPMethod::Unblocked(connection::Unblocked {}));
        }
    }

    /// A content header has come: the first one during an alarm blocks the connection. Its body waits, with all that comes
    /// after it on the channel; a message without one is whole, and taken.
    pub(super) fn on_content(&mut self, channel: u16) {
        if self.hold.alarm && !self.hold.blocked {
            self.hold.blocked = true;
            self.open.is_blocked.store(true, Ordering::Relaxed);
            self.hold.parks = true;
            self.hold.channels.push(channel);
            let reason = short_cut(self.broker.alarms().reason());
            self.tell(connection::AMQPMethod::Blocked(connection::Blocked { reason }));
        }
    }

    /// Tells a client that asked for it. Nothing else holds this back: least of all a disk that is full.
    fn tell(&mut self, method: connection::AMQPMethod) {
        if self.client.blocked_notify {
            let mut frames = Vec::new();
            put_method(&mut frames, 0, &AMQPClass::Connection(method));
            self.outbox.push(OutItem::Notice(frames));
        }
    }

    /// Keeps a frame for later when its channel is held; true when that was done.
    pub(super) fn park(&mut self, frame: &Frame<'_>) -> bool {
        if !self.hold.channels.contains(&frame.channel) {
            let publishes = frame.kind == FrameKind::Method && method_ids(frame.payload) == Some(BASIC_PUBLISH);
            // On a channel that is not open, or that we have closed, there is nothing to hold.
            if !publishes || self.channel(frame.channel).is_none_or(|channel| channel.closing) {
                return false;
            }
            self.hold.channels.push(frame.channel);
        }
        put_frame(&mut self.hold.frames, frame.kind, frame.channel, frame.payload);
        self.hold.share.set(self.hold.frames.capacity());
        true
    }

    /// Whether there is room for more of what may have to be parked, and reason to read it.
    pub(super) fn has_room_to_park(&self) -> bool {
        if self.consumes {
            let has_room = self.hold.frames.len() < PARKED_MAX_BYTES && !self.broker.memory.parked_is_full();
            return self.hold.is_empty() || has_room;
        }
        self.reads_by_disk() && !self.is_held()
    }

    /// Whether it is the disk alone that can keep this connection from reading.
    pub(super) fn reads_by_disk(&self) -> bool {
        !self.consumes && !self.hold.blocked && self.hold.is_empty()
    }

    /// Whether something is parked that only waits for the disk.
    pub(super) fn parks_for_disk(&self) -> bool {
        !self.hold.is_empty() && !self.hold.blocked
    }

    /// Handles what was parked, if it may go on.
    pub(super) fn release_parked(&mut self) {
        if self.parks_for_disk() && !self.is_held() {
            self.hold.parks = false;
            self.handle_parked();
        }
    }

    /// The client says goodbye: what it published before is taken first, for it will not come again.
    pub(super) fn take_parked(&mut self) {
        self.hold.alarm = false;
        self.hold.parks = false;
        self.handle_parked();
    }

    fn handle_parked(&mut self) {
        let frames = self.hold.take();
        let mut rest = frames.as_slice();
        // They were whole when they came.
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, 0) {
            self.on_frame(&frame);
            rest = rest.get(consumed..).unwrap_or_default();
        }
    }

    /// The client hung up without closing the connection.
    pub fn on_hangup(&mut self) {
        if !self.hold.is_empty() {
            self.take_parked();
            self.finish_batch();
        }
    }

    /// Forgets what was parked: the connection is over.
    pub(super) fn drop_parked(&mut self) {
        self.hold.take();
    }
}
