//! Which frame goes where, and what becomes of errors.

use std::time::Instant;

use protocol::amqp::{AMQPClass, access, basic, channel};
use protocol::names::short_cut;
use protocol::{AmqpError, Frame, FrameKind, Method, ReplyCode, decode_method, method_ids};

use super::channel::{Channel, Mode};
use super::settle::Settlement;
use super::{Phase, Session};
use crate::broker::ChannelLimit;
use crate::model::statistics::churn;

const CHANNEL: u16 = 20;
const OPEN: u16 = 10;
const CLOSE: u16 = 40;
const CLOSE_OK: u16 = 41;
const BASIC: u16 = 60;
/// Of an incomplete message, address and properties up to here are not counted.
const SMALL_HEADER_BYTES: usize = 1024;

impl Session {
    /// Handles one frame.
    pub fn on_frame(&mut self, frame: &Frame<'_>) {
        let result = match self.phase {
            Phase::Deaf | Phase::Refused | Phase::Closed => Ok(()),
            Phase::Closing | Phase::Left => {
                self.on_frame_while_closing(frame);
                Ok(())
            }
            _ if frame.channel == 0 => self.on_connection_frame(frame),
            Phase::Running => {
                if !(self.hold.parks() && self.park(frame)) {
                    self.on_channel_frame(frame);
                }
                Ok(())
            }
            _ => Err(AmqpError::unexpected_frame(frame.kind.as_u8(), frame.payload)),
        };
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    fn on_channel_frame(&mut self, frame: &Frame<'_>) {
        let Some(mut channel) = self.take_channel(frame.channel) else {
            if let Err(error) = self.on_unopened(frame) {
                self.fail(&error);
            }
            return;
        };
        if channel.closing {
            match method_ids(frame.payload) {
                Some((CHANNEL, CLOSE_OK)) if frame.kind == FrameKind::Method => return,
                Some((CHANNEL, CLOSE)) if frame.kind == FrameKind::Method => {
                    self.reply(channel.number, &channel_close_ok());
                }
                _ => {}
            }
            self.put_channel(channel);
            return;
        }
        let keep = self.handle(&mut channel, frame);
        match keep {
            Ok(true) => self.put_channel(channel),
            Ok(false) => {}
            Err(error) => {
                let error = if error.class_id == 0 && frame.kind == FrameKind::Method {
                    blame(error, frame.payload)
                } else {
                    error
                };
                if error.is_connection_error() {
                    self.put_channel(channel);
                    self.fail(&error);
                } else {
                    self.close_channel(&mut channel, &error);
                    self.put_channel(channel);
                }
            }
        }
    }

    /// True to keep the channel.
    fn handle(&mut self, channel: &mut Channel, frame: &Frame<'_>) -> Result<bool, AmqpError> {
        match frame.kind {
            FrameKind::Method => {
                if let Mode::Transaction(transaction) = &channel.publisher.mode
                    && transaction.committing
                {
                    let (class, method) = method_ids(frame.payload).unwrap_or_default();
                    return Err(AmqpError::new(
                        ReplyCode::ChannelError,
                        "unexpected command while processing 'tx.commit'",
                    )
                    .at(class, method));
                }
                self.on_method(channel, frame.payload)
            }
            FrameKind::Header | FrameKind::Body => {
                let number = channel.number;
                let Channel { assembler, publisher, partial_bytes, .. } = channel;
                let assembled = if frame.kind == FrameKind::Header {
                    self.on_content(number);
                    assembler.on_header(frame.payload)?
                } else {
                    assembler.on_body(frame.payload)?
                };
                match assembled {
                    Some(message) => {
                        let counted = std::mem::take(partial_bytes);
                        self.count_partial(counted, 0);
                        self.publish(number, publisher, message)?;
                        assembler.trim();
                    }
                    None => {
                        let now = assembler.buffered();
                        // Nothing but a header yet, most likely with its body right behind it: not worth counting if it is small.
                        if frame.kind != FrameKind::Header || now > SMALL_HEADER_BYTES {
                            let counted = std::mem::replace(partial_bytes, now);
                            self.count_partial(counted, now);
                            self.check_partial_bytes()?;
                        }
                    }
                }
                Ok(true)
            }
            FrameKind::Heartbeat => Err(AmqpError::unexpected_frame(frame.kind.as_u8(), frame.payload)),
        }
    }

    /// A channel holds `now` octets of an incomplete message instead of `before`.
    pub(super) fn count_partial(&mut self, before: usize, now: usize) {
        if before != now {
            self.partial_bytes = (self.partial_bytes + now).saturating_sub(before);
            self.broker.partial_bytes_change(before, now);
        }
    }

    /// Bodies that never become whole must not fill the memory.
    fn check_partial_bytes(&self) -> Result<(), AmqpError> {
        let max = self.broker.partial_bytes_max();
        if self.partial_bytes > max.connection || self.broker.partial_bytes() > max.node {
            return Err(AmqpError::new(ReplyCode::ResourceError, "too many octets of incomplete messages"));
        }
        Ok(())
    }

    fn on_method(&mut self, channel: &mut Channel, payload: &[u8]) -> Result<bool, AmqpError> {
        let method = decode_method(payload)?;
        match method {
            Method::Publish(publish) => {
                channel.assembler.begin(&publish)?;
                return Ok(true);
            }
            _ => channel.assembler.on_method()?,
        }
        match method {
            Method::Publish(_) => {}
            Method::Ack(ack) => self.settle(
                channel,
                &Settlement { tag: ack.delivery_tag, multiple: ack.multiple, requeue: false, method: 80 },
            )?,
            Method::Nack(nack) => self.settle(
                channel,
                &Settlement { tag: nack.delivery_tag, multiple: nack.multiple, requeue: nack.requeue, method: 120 },
            )?,
            Method::Reject(reject) => self.settle(
                channel,
                &Settlement { tag: reject.delivery_tag, multiple: false, requeue: reject.requeue, method: 90 },
            )?,
            Method::Other(class) => return self.on_class(channel, *class, payload),
        }
        Ok(true)
    }

    fn on_class(&mut self, channel: &mut Channel, class: AMQPClass, payload: &[u8]) -> Result<bool, AmqpError> {
        match class {
            AMQPClass::Basic(method) => self.on_basic(channel, method, payload)?,
            AMQPClass::Exchange(method) => {
                let started = Instant::now();
                self.on_exchange(channel, method)?;
                self.note_slow(started, payload);
            }
            AMQPClass::Queue(method) => {
                let started = Instant::now();
                self.on_queue(channel, method)?;
                self.note_slow(started, payload);
            }
            AMQPClass::Tx(method) => self.on_tx(channel, &method)?,
            AMQPClass::Confirm(protocol::amqp::confirm::AMQPMethod::Select(select)) => {
                self.on_confirm_select(channel, select.nowait)?;
            }
            AMQPClass::Channel(method) => return self.on_channel_method(channel, method),
            AMQPClass::Access(access::AMQPMethod::Request(_)) => self.access_granted(channel.number),
            other => return Err(unimplemented(&other)),
        }
        Ok(true)
    }

    /// What changes the topology, or asks for it, should be quick.
    fn note_slow(&self, started: Instant, payload: &[u8]) {
        let (class, method) = method_ids(payload).unwrap_or_default();
        let detail = format_args!("method {method} of class {class} on connection {}", self.id.0);
        self.broker.slow_methods.note(started.elapsed(), detail);
    }

    fn on_basic(&mut self, channel: &mut Channel, method: basic::AMQPMethod, payload: &[u8]) -> Result<(), AmqpError> {
        use basic::AMQPMethod as M;
        match method {
            M::Qos(qos) => {
                // amq-protocol passes over the prefetch size.
                let size = payload.get(4..8).and_then(|octets| octets.try_into().ok());
                self.qos(channel, &qos, size.map_or(0, u32::from_be_bytes))
            }
            M::Consume(consume) => self.consume(channel, consume),
            M::Cancel(cancel) => {
                self.cancel(channel, cancel);
                Ok(())
            }
            M::Get(get) => self.get(channel, &get),
            M::Recover(recover) => self.recover(channel, recover.requeue, 110, true),
            M::RecoverAsync(recover) => self.recover(channel, recover.requeue, 100, false),
            other => Err(unimplemented(&AMQPClass::Basic(other))),
        }
    }

    fn on_channel_method(&mut self, channel: &mut Channel, method: channel::AMQPMethod) -> Result<bool, AmqpError> {
        use channel::AMQPMethod as M;
        match method {
            M::Open(_) => Err(AmqpError::new(ReplyCode::ChannelError, "second 'channel.open' seen").at(CHANNEL, OPEN)),
            M::Close(_) => {
                self.end_channel(channel);
                self.reply(channel.number, &channel_close_ok());
                Ok(false)
            }
            M::Flow(flow) if flow.active => {
                let ok = channel::FlowOk { active: true };
                self.reply(channel.number, &AMQPClass::Channel(M::FlowOk(ok)));
                Ok(true)
            }
            M::Flow(_) => Err(AmqpError::new(ReplyCode::NotImplemented, "active=false").at(CHANNEL, 20)),
            other => Err(unimplemented(&AMQPClass::Channel(other))),
        }
    }

    fn on_unopened(&mut self, frame: &Frame<'_>) -> Result<(), AmqpError> {
        match method_ids(frame.payload) {
            Some((CHANNEL, OPEN)) if frame.kind == FrameKind::Method => {
                decode_method(frame.payload)?;
                self.open_channel(frame.channel)
            }
            Some((10, method)) if frame.kind == FrameKind::Method => Err(AmqpError::unimplemented_method(10, method)),
            ids => {
                let (class, method) = match frame.kind {
                    FrameKind::Method => ids.unwrap_or_default(),
                    FrameKind::Heartbeat => {
                        return Err(AmqpError::unexpected_frame(frame.kind.as_u8(), frame.payload));
                    }
                    _ => (0, 0),
                };
                Err(AmqpError::new(ReplyCode::ChannelError, "expected 'channel.open'").at(class, method))
            }
        }
    }

    fn open_channel(&mut self, number: u16) -> Result<(), AmqpError> {
        let open = self.channels.len() + usize::from(self.current.is_some());
        let max = usize::from(self.limits.channel_max);
        if max != 0 && open >= max {
            return Err(AmqpError::new(
                ReplyCode::NotAllowed,
                format_args!("number of channels opened ({open}) has reached the negotiated channel_max ({max})"),
            ));
        }
        self.count_channel()?;
        let slot = self.outbox.open_channel(number);
        let now_ms = self.broker.clock().now_ms();
        let channel = Channel::new(self.open.open_channel(number, slot, now_ms), self.limits.max_message_bytes);
        self.channels.insert(number, Box::new(channel));
        self.channel_changed("channel.created", number);
        self.broker.services.statistics.count_churn(churn::CHANNEL_CREATED);
        let ok = channel::OpenOk {};
        self.reply(number, &AMQPClass::Channel(channel::AMQPMethod::OpenOk(ok)));
        Ok(())
    }

    /// The channel counts for its user and for the node, if their limits allow it.
    fn count_channel(&mut self) -> Result<(), AmqpError> {
        let (Some(usage), Some(user)) = (&self.usage, &self.user) else {
            return Ok(());
        };
        let refused = |text: std::fmt::Arguments<'_>| Err(AmqpError::new(ReplyCode::NotAllowed, text));
        match self.broker.open_channel(&user.name, usage) {
            Ok(()) => {
                self.open_channels += 1;
                Ok(())
            }
            Err(ChannelLimit::Node(n)) => refused(format_args!(
                "number of channels opened on node '{}' has reached the maximum allowed limit of {n}",
                self.broker.node_name
            )),
            Err(ChannelLimit::User(n)) => refused(format_args!(
                "number of channels opened for user '{}' has reached the maximum allowed user limit of {n}",
                user.name
            )),
        }
    }

    /// A soft error: the channel ends now, the client is told, and until it answers everything on it is ignored.
    pub(super) fn close_channel(&mut self, channel: &mut Channel, error: &AmqpError) {
        let (user, vhost) = (self.user.as_ref().map(|user| &*user.name), self.logged_vhost());
        let (connection, peer) = (self.id.0, &self.peer);
        tracing::info!(connection, %peer, user, vhost, channel = channel.number, %error, "channel closed");
        self.end_channel(channel);
        channel.closing = true;
        let close = channel::Close {
            reply_code: error.code.as_u16(),
            reply_text: short_cut(&error.text),
            class_id: error.class_id,
            method_id: error.method_id,
        };
        self.reply(channel.number, &AMQPClass::Channel(channel::AMQPMethod::Close(close)));
    }

    fn access_granted(&mut self, number: u16) {
        let ok = access::RequestOk {};
        self.reply(number, &AMQPClass::Access(access::AMQPMethod::RequestOk(ok)));
    }

    pub(super) fn take_channel(&mut self, number: u16) -> Option<Box<Channel>> {
        match &self.current {
            Some(channel) if channel.number == number => self.current.take(),
            _ => self.channels.remove(&number),
        }
    }

    pub(super) fn put_channel(&mut self, channel: Box<Channel>) {
        if let Some(previous) = self.current.replace(channel) {
            self.channels.insert(previous.number, previous);
        }
    }
}

/// Errors name the method that caused them.
pub(super) fn blame(error: AmqpError, payload: &[u8]) -> AmqpError {
    match method_ids(payload) {
        // RabbitMQ blames nobody for malformed frames.
        Some((class, method)) if error.code != ReplyCode::FrameError => error.at(class, method),
        _ => error,
    }
}

fn channel_close_ok() -> AMQPClass {
    AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
}

pub(super) fn unimplemented(class: &AMQPClass) -> AmqpError {
    let mut frame = Vec::new();
    protocol::put_method(&mut frame, 0, class);
    let (class, method) = frame.get(7..).and_then(method_ids).unwrap_or((BASIC, 0));
    AmqpError::unimplemented_method(class, method)
}
