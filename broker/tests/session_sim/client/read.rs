//! What comes back, and what the client insists on.

use super::*;

impl Client {
    pub(super) fn read(&mut self, syncs: u64, ledger: &mut Ledger) {
        let octets = std::mem::take(&mut self.octets);
        let mut rest = octets.as_slice();
        while let Decoded::Frame { frame, consumed } =
            decode_frame(rest, 131_072).expect("frames that clients can read")
        {
            rest = &rest[consumed..];
            match (frame.channel, frame.kind) {
                (_, FrameKind::Heartbeat) => {}
                (0, _) => self.on_connection(frame.payload),
                (number, FrameKind::Method) => self.on_method(number, frame.payload, syncs, ledger),
                (number, FrameKind::Header) => {
                    let (head, properties) = frame.payload.split_at(12);
                    let size = Reader(&head[4..]).longlong() as usize;
                    let incoming = self.channel(number).incoming.as_mut().expect("a method first");
                    incoming.persistent = properties == wire::PERSISTENT;
                    assert!(incoming.persistent || properties == wire::TRANSIENT, "properties: {properties:?}");
                    self.on_content(number, Some(size), &[], ledger);
                }
                (number, FrameKind::Body) => self.on_content(number, None, frame.payload, ledger),
            }
        }
        self.octets = rest.to_vec();
    }

    fn on_connection(&mut self, payload: &[u8]) {
        match method_ids(payload).expect("a method") {
            (10, 10 | 30) => {}
            (10, 41) => self.opened = true,
            wire::CLOSE_OK => self.over = true,
            wire::CLOSE => {
                let mut reader = Reader(&payload[6..]);
                panic!("the broker closes the connection: {}", reader.text());
            }
            other => panic!("unexpected on channel 0: {other:?}"),
        }
    }

    fn on_method(&mut self, number: u16, payload: &[u8], syncs: u64, ledger: &mut Ledger) {
        let id = method_ids(payload).expect("a method");
        let mut reader = Reader(&payload[4..]);
        let Some(channel) = self.channels.get_mut(&number) else {
            panic!("{id:?} on channel {number}, which is closed");
        };
        assert!(channel.incoming.is_none(), "{id:?} inside a message");
        match id {
            wire::DELIVER => {
                let consumer = reader.text();
                let (tag, redelivered) = (reader.longlong(), reader.octet() != 0);
                let view = channel.consumers.get_mut(&consumer);
                let view = view.unwrap_or_else(|| panic!("a delivery for {consumer}, which is cancelled"));
                assert_ne!(view.life, Life::Asked, "a delivery before consume-ok");
                view.outstanding += usize::from(!view.no_ack);
                assert!(view.prefetch == 0 || view.outstanding <= view.prefetch, "prefetch of {consumer}");
                let (queue, no_ack) = (view.queue.clone(), view.no_ack);
                let incoming = Incoming {
                    consumer: Some(consumer),
                    queue,
                    tag,
                    redelivered,
                    no_ack,
                    returned: false,
                    persistent: false,
                    left: None,
                    body: Vec::new(),
                };
                channel.incoming = Some(incoming);
            }
            wire::GET_OK | wire::GET_EMPTY => {
                assert_eq!(channel.expected.pop_front(), Some(wire::GET_OK));
                let (queue, no_ack) = channel.gets.pop_front().expect("a get of ours");
                if id == wire::GET_OK {
                    let (tag, redelivered) = (reader.longlong(), reader.octet() != 0);
                    let incoming = Incoming {
                        consumer: None,
                        queue,
                        tag,
                        redelivered,
                        no_ack,
                        returned: false,
                        persistent: false,
                        left: None,
                        body: Vec::new(),
                    };
                    channel.incoming = Some(incoming);
                }
            }
            wire::RETURN => {
                channel.incoming = Some(Incoming {
                    consumer: None,
                    queue: String::new(),
                    tag: 0,
                    redelivered: false,
                    no_ack: true,
                    returned: true,
                    persistent: false,
                    left: None,
                    body: Vec::new(),
                });
            }
            wire::ACK => {
                let (tag, multiple) = (reader.longlong(), reader.octet() & 1 != 0);
                assert_eq!(channel.mode, Mode::Confirm);
                assert!(tag > channel.confirmed && (multiple || tag == channel.confirmed + 1), "confirm of {tag}");
                assert!(tag as usize <= channel.published.len(), "confirm of {tag}, which was not published");
                for number in channel.confirmed..tag {
                    assert!(channel.published[number as usize] <= syncs, "{number} is confirmed before it is durable");
                    ledger.confirm(channel.vouched[number as usize].take());
                }
                channel.confirmed = tag;
            }
            wire::CANCEL => {
                let tag = reader.text();
                let view = channel.consumers.get_mut(&tag);
                let view = view.unwrap_or_else(|| panic!("{tag} is cancelled twice"));
                assert_ne!(view.life, Life::Asked);
                if view.life == Life::Live {
                    channel.consumers.remove(&tag);
                }
            }
            wire::CHANNEL_CLOSE => {
                let _code = reader.octet();
                let _code = reader.octet();
                let text = reader.text();
                assert!(self.tolerant, "the broker closes channel {number}: {text}");
                self.refusals.push(text);
                self.channels.remove(&number);
                self.send(Args::new(wire::CHANNEL_CLOSE_OK).frame(number), None);
            }
            reply => {
                assert_eq!(channel.expected.pop_front(), Some(reply), "replies come in order");
                if matches!(reply, wire::DECLARE_OK | wire::COMMIT_OK) {
                    let vouched = channel.durable.pop_front().expect("it was asked for");
                    assert_eq!(vouched.reply, reply);
                    ledger.confirm(vouched.messages);
                    ledger.declared.extend(vouched.queue);
                    assert!(vouched.sync <= syncs, "{reply:?} before what it vouches for is durable");
                }
                match reply {
                    wire::CONSUME_OK => {
                        let tag = reader.text();
                        channel.consumers.get_mut(&tag).expect("a consumer of ours").life = Life::Live;
                    }
                    wire::CANCEL_OK => {
                        channel.consumers.remove(&reader.text());
                    }
                    wire::PURGE_OK => {
                        let (queue, _) = channel.gets.pop_front().expect("a purge of ours");
                        ledger.account(&queue).purged += reader.long() as usize;
                    }
                    wire::COMMIT_OK => channel.waiting = false,
                    wire::RECOVER_OK => {
                        channel.waiting = false;
                        for (_, taken) in std::mem::take(&mut channel.outstanding) {
                            channel.release(&taken);
                        }
                    }
                    wire::ROLLBACK_OK => {
                        channel.waiting = false;
                        channel.outstanding.extend(std::mem::take(&mut channel.tx_taken));
                    }
                    wire::CHANNEL_CLOSE_OK => {
                        assert!(channel.expected.is_empty(), "close-ok is the last word");
                        self.channels.remove(&number);
                    }
                    _ => {}
                }
            }
        }
    }

    fn on_content(&mut self, number: u16, size: Option<usize>, body: &[u8], ledger: &mut Ledger) {
        let channel = self.channel(number);
        let incoming = channel.incoming.as_mut().expect("a method first");
        match size {
            Some(size) => assert!(incoming.left.replace(size).is_none()),
            None => {
                incoming.body.extend(body);
                incoming.left = incoming.left.and_then(|left| left.checked_sub(body.len()));
            }
        }
        if incoming.left != Some(0) {
            return;
        }
        let incoming = channel.incoming.take().expect("complete");
        if incoming.returned {
            return;
        }
        assert!(incoming.tag > channel.last_tag, "delivery tags ascend");
        channel.last_tag = incoming.tag;
        let id = Id::of(&incoming.body);
        assert_eq!(incoming.body, id.body(incoming.body.len()), "the body of {id:?}");
        ledger.check_persistent(&incoming.queue, id, incoming.persistent);
        ledger.seen(&incoming.queue, channel.key, id, incoming.redelivered, !channel.is_free());
        if incoming.no_ack {
            ledger.settle(&incoming.queue, id);
        } else {
            let Incoming { queue, tag, consumer, .. } = incoming;
            channel.outstanding.insert(tag, Outstanding { queue, id, consumer });
        }
    }
}
