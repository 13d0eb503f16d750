//! A consuming connection: one thread reads, and answers each read with one write of acknowledgements.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow, bail};
use protocol::amqp::{FieldTable, basic};
use protocol::{AMQPClass, FrameKind, ServerMethod, decode_server_method, put_ack};

use super::clock::{now_ns, read_stamp};
use super::options::Options;
use super::plan;
use super::shared::{Counters, Latencies, Shared};
use crate::client::{CHANNEL, Connection, Incoming, check_not_closed, short};

/// A running consumer.
pub(super) struct Consumer {
    pub(super) counters: Arc<Counters>,
    pub(super) stream: TcpStream,
    pub(super) reader: JoinHandle<Latencies>,
}

impl Consumer {
    pub(super) fn start(
        mut connection: Connection,
        options: &Options,
        index: usize,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let mut reader = Reader {
            assembly: Assembly::default(),
            acks: (!options.auto_ack).then(|| Acks::new(options.ack_every)),
            latencies: Latencies::new()?,
            stream: connection.stream.try_clone()?,
            shared: shared.clone(),
            counters: counters.clone(),
        };
        subscribe(&mut connection, options, index)?;
        let incoming = connection.incoming;
        let reader = thread::Builder::new().name(format!("consumer-{index}")).spawn(move || {
            if let Err(error) = reader.read(incoming) {
                reader.shared.fail(&error);
            }
            reader.latencies
        })?;
        Ok(Self { counters, stream: connection.stream, reader })
    }
}

/// Consumes from this consumer's queues. The answers are left to the reader, because deliveries may come before them.
fn subscribe(connection: &mut Connection, options: &Options, index: usize) -> anyhow::Result<()> {
    if options.prefetch > 0 && !options.auto_ack {
        let qos = basic::Qos { prefetch_count: options.prefetch, global: false };
        connection.call(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Qos(qos)))?;
    }
    let mut out = Vec::new();
    for queue in plan::share(index, options.consumers, options.queues) {
        let consume = basic::Consume {
            queue: short(&plan::queue_name(options, queue))?,
            consumer_tag: short(&format!("c{queue}"))?,
            no_local: false,
            no_ack: options.auto_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let method = AMQPClass::Basic(basic::AMQPMethod::Consume(consume));
        protocol::put_method(&mut out, CHANNEL, &method);
    }
    connection.stream.write_all(&out)?;
    Ok(())
}

/// The message that is being received.
#[derive(Default)]
struct Assembly {
    delivery_tag: u64,
    body_left: u64,
    stamp: Option<u64>,
    is_first_part: bool,
}

/// A whole message.
struct Received {
    delivery_tag: u64,
    stamp: Option<u64>,
}

impl Assembly {
    fn begin(&mut self, delivery_tag: u64) {
        *self = Self { delivery_tag, is_first_part: true, ..Self::default() };
    }

    fn on_header(&mut self, payload: &[u8]) -> anyhow::Result<Option<Received>> {
        // Class and weight come first; the properties do not matter here.
        let size = payload
            .get(4..)
            .and_then(|rest| rest.first_chunk::<8>())
            .context("the broker sent a content header that is too short")?;
        self.body_left = u64::from_be_bytes(*size);
        Ok((self.body_left == 0).then(|| self.received()))
    }

    fn on_body(&mut self, payload: &[u8]) -> anyhow::Result<Option<Received>> {
        if std::mem::take(&mut self.is_first_part) {
            self.stamp = read_stamp(payload);
        }
        self.body_left =
            self.body_left.checked_sub(payload.len() as u64).context("the broker sent more body than it announced")?;
        Ok((self.body_left == 0).then(|| self.received()))
    }

    fn received(&self) -> Received {
        Received { delivery_tag: self.delivery_tag, stamp: self.stamp }
    }
}

/// Acknowledgements that are due.
struct Acks {
    every: u64,
    unacked: u64,
    out: Vec<u8>,
}

impl Acks {
    fn new(every: u64) -> Self {
        Self { every, unacked: 0, out: Vec::new() }
    }

    fn on_message(&mut self, delivery_tag: u64) {
        self.unacked += 1;
        if self.unacked >= self.every {
            put_ack(&mut self.out, CHANNEL, delivery_tag, self.every > 1);
            self.unacked = 0;
        }
    }
}

/// Messages with the same timestamp, which come in runs because producers write in batches.
#[derive(Default)]
struct Run {
    stamp: u64,
    count: u64,
}

struct Reader {
    assembly: Assembly,
    acks: Option<Acks>,
    latencies: Latencies,
    stream: TcpStream,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

impl Reader {
    fn read(&mut self, mut incoming: Incoming) -> anyhow::Result<()> {
        loop {
            self.handle_batch(&mut incoming)?;
            if !incoming.fill()? {
                break;
            }
        }
        if self.shared.is_stopped() {
            return Ok(());
        }
        bail!("the broker closed a consumer's connection")
    }

    fn handle_batch(&mut self, incoming: &mut Incoming) -> anyhow::Result<()> {
        let now = now_ns();
        let record = self.shared.is_recording();
        let mut run = Run::default();
        let mut consumed = 0;
        while let Some(frame) = incoming.next()? {
            let received = match frame.kind {
                FrameKind::Method => {
                    self.on_method(frame.payload)?;
                    None
                }
                FrameKind::Header => self.assembly.on_header(frame.payload)?,
                FrameKind::Body => self.assembly.on_body(frame.payload)?,
                FrameKind::Heartbeat => None,
            };
            let Some(message) = received else {
                continue;
            };
            consumed += 1;
            if let Some(acks) = &mut self.acks {
                acks.on_message(message.delivery_tag);
            }
            if let (true, Some(stamp)) = (record, message.stamp) {
                if stamp != run.stamp {
                    self.latencies.record(run.stamp, now, run.count);
                    run = Run { stamp, count: 0 };
                }
                run.count += 1;
            }
        }
        self.latencies.record(run.stamp, now, run.count);
        if let Some(acks) = &mut self.acks
            && !acks.out.is_empty()
        {
            self.stream.write_all(&acks.out)?;
            acks.out.clear();
        }
        self.counters.consumed.fetch_add(consumed, Ordering::Relaxed);
        Ok(())
    }

    fn on_method(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let method = decode_server_method(payload)
            .map_err(|error| anyhow!("the broker sent a broken method: {}", error.text))?;
        match method {
            ServerMethod::Deliver(deliver) => self.assembly.begin(deliver.delivery_tag),
            ServerMethod::Other(method) => check_not_closed(&method)?,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Decoded, Method, decode_frame, decode_method};

    use super::*;

    #[test]
    fn a_message_is_whole_with_its_last_part() {
        let mut assembly = Assembly::default();
        let header = |size: u64| [&[0, 60, 0, 0], size.to_be_bytes().as_slice(), &[0, 0]].concat();
        assembly.begin(7);
        assert!(assembly.on_header(&header(12)).unwrap().is_none());
        assert!(assembly.on_body(&[0, 0, 0, 0, 0, 0, 0, 9, 1]).unwrap().is_none());
        let message = assembly.on_body(&[1, 2, 3]).unwrap().unwrap();
        assert_eq!((message.delivery_tag, message.stamp), (7, Some(9)));

        assembly.begin(8);
        let message = assembly.on_header(&header(0)).unwrap().unwrap();
        assert_eq!((message.delivery_tag, message.stamp), (8, None));

        assembly.begin(9);
        assert!(assembly.on_header(&header(2)).unwrap().is_none());
        assert!(assembly.on_body(&[1, 2, 3]).is_err());
        assert!(assembly.on_header(&[0, 60]).is_err());
    }

    #[test]
    fn acks_are_sent_for_every_nth_message() {
        let tags = |every: u64| {
            let mut acks = Acks::new(every);
            (1..=7).for_each(|tag| acks.on_message(tag));
            let mut tags = Vec::new();
            let mut rest = acks.out.as_slice();
            while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(rest, 0) {
                let Ok(Method::Ack(ack)) = decode_method(frame.payload) else {
                    panic!("not an ack");
                };
                tags.push((ack.delivery_tag, ack.multiple));
                rest = &rest[consumed..];
            }
            tags
        };
        assert_eq!(tags(3), [(3, true), (6, true)]);
        assert_eq!(tags(1).len(), 7);
        assert_eq!(tags(1)[6], (7, false));
    }
}
