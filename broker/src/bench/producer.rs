//! A publishing connection: one thread writes, one reads confirms and errors.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use protocol::amqp::confirm;
use protocol::{
    AMQPClass, Content, Decoded, FrameKind, ServerMethod, address, decode_frame, decode_server_method,
    encode_properties, put_publish,
};

use super::clock::{STAMP_BYTES, now_ns};
use super::confirms::{Confirms, Window};
use super::options::Options;
use super::plan;
use super::shared::{Counters, Latencies, Shared};
use crate::client::{CHANNEL, Connection, Incoming, check_not_closed};

/// What one write carries, as long as a message is smaller.
const WRITE_BYTES: usize = 64 * 1024;
/// How long a stopped producer waits for its last confirms.
const LAST_CONFIRMS: Duration = Duration::from_secs(10);
/// A parked producer looks at the stop flag this often.
const PARK: Duration = Duration::from_millis(50);

/// A running producer.
pub(super) struct Producer {
    pub(super) counters: Arc<Counters>,
    pub(super) stream: TcpStream,
    pub(super) writer: JoinHandle<()>,
    pub(super) reader: JoinHandle<Option<Latencies>>,
}

impl Producer {
    pub(super) fn start(
        mut connection: Connection,
        options: &Options,
        index: usize,
        shared: &Arc<Shared>,
    ) -> anyhow::Result<Self> {
        let window = match options.confirm {
            0 => None,
            limit => {
                let select = confirm::Select { nowait: false };
                let method = AMQPClass::Confirm(confirm::AMQPMethod::Select(select));
                connection.call(CHANNEL, method)?;
                Some(Arc::new(Window::new(limit)))
            }
        };
        let queues = plan::share(index, options.producers, options.queues);
        let counters = Arc::new(Counters::default());
        let writer = Writer {
            batch: Batch::new(options, &queues, connection.frame_max)?,
            window: window.clone(),
            rate: options.rate,
            most: if options.pmessages == 0 { u64::MAX } else { options.pmessages },
            shared: shared.clone(),
            counters: counters.clone(),
            stream: connection.stream.try_clone()?,
        };
        let writer = thread::Builder::new().name(format!("producer-{index}")).spawn(move || writer.run())?;
        let reader = Reader {
            confirms: window.map(Confirms::new).transpose()?,
            writer: writer.thread().clone(),
            shared: shared.clone(),
            counters: counters.clone(),
            incoming: connection.incoming,
        };
        let reader = thread::Builder::new().name(format!("confirms-{index}")).spawn(move || reader.run())?;
        Ok(Self { counters, stream: connection.stream, writer, reader })
    }
}

/// Encoded messages, as many as a write carries, used round and round; only their timestamps change.
struct Batch {
    bytes: Vec<u8>,
    message_bytes: usize,
    /// Where in a message its timestamp is; none in bodies that are too short.
    stamp_at: Option<usize>,
    /// The message the next write starts with.
    next: usize,
}

impl Batch {
    fn new(options: &Options, queues: &[usize], frame_max: u32) -> anyhow::Result<Self> {
        let body = vec![b'w'; options.size];
        let mut round = Vec::new();
        let mut message_bytes = 0;
        let mut routes = Vec::new();
        for queue in queues {
            routes.append(&mut plan::routes(options, *queue)?);
        }
        for route in &routes {
            let content = Content {
                address: &address(&route.exchange, &route.routing_key),
                properties: &encode_properties(&route.properties),
                body: &body,
            };
            let start = round.len();
            put_publish(&mut round, CHANNEL, &content, false, frame_max);
            let len = round.len() - start;
            if message_bytes != 0 && len != message_bytes {
                bail!("messages to different queues differ in size");
            }
            message_bytes = len;
        }
        let rounds = (WRITE_BYTES / round.len().max(1)).max(1);
        let bytes = round.repeat(rounds);
        let stamp_at = match options.size {
            0..STAMP_BYTES => None,
            _ => Some(body_offset(&bytes)?),
        };
        Ok(Self { bytes, message_bytes, stamp_at, next: 0 })
    }

    /// Messages to the end of the buffer.
    fn left(&self) -> usize {
        self.bytes.len() / self.message_bytes - self.next
    }

    /// The next `count` messages, at most `left`, with a new timestamp.
    fn take(&mut self, count: usize, now_ns: u64) -> &[u8] {
        let start = self.next * self.message_bytes;
        let end = start + count * self.message_bytes;
        let bytes = self.bytes.get_mut(start..end).unwrap_or_default();
        if let Some(at) = self.stamp_at {
            for message in bytes.chunks_exact_mut(self.message_bytes) {
                if let Some(stamp) = message.get_mut(at..at + STAMP_BYTES) {
                    stamp.copy_from_slice(&now_ns.to_be_bytes());
                }
            }
        }
        self.next += count;
        if self.next * self.message_bytes >= self.bytes.len() {
            self.next = 0;
        }
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// Where the first body starts.
fn body_offset(bytes: &[u8]) -> anyhow::Result<usize> {
    const FRAME_HEADER_BYTES: usize = 7;
    let mut offset = 0;
    while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(bytes.get(offset..).unwrap_or_default(), 0) {
        if frame.kind == FrameKind::Body {
            return Ok(offset + FRAME_HEADER_BYTES);
        }
        offset += consumed;
    }
    bail!("an encoded message has no body frame")
}

struct Writer {
    batch: Batch,
    window: Option<Arc<Window>>,
    rate: u64,
    /// Messages to publish.
    most: u64,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    stream: TcpStream,
}

impl Writer {
    fn run(mut self) {
        if let Err(error) = self.publish() {
            self.shared.fail(&error);
        }
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut sent: u64 = 0;
        while !self.shared.is_stopped() && sent < self.most {
            let mut count = (self.batch.left() as u64).min(self.most - sent);
            if self.rate > 0 {
                let due = (start.elapsed().as_secs_f64() * self.rate as f64) as u64;
                if due <= sent {
                    let next = Duration::from_secs_f64((sent + 1) as f64 / self.rate as f64);
                    thread::sleep(next.saturating_sub(start.elapsed()).min(PARK));
                    continue;
                }
                count = count.min(due - sent);
            }
            if let Some(window) = &self.window {
                // An eighth of the window at least: waking up for every single confirm would measure this program.
                if window.free() < (window.limit() / 8).max(1).min(count) {
                    thread::park_timeout(PARK);
                    continue;
                }
                count = count.min(window.free());
            }
            let now = now_ns();
            if let Some(window) = &self.window {
                window.send(count, now);
            }
            let bytes = self.batch.take(usize::try_from(count)?, now);
            self.stream.write_all(bytes)?;
            sent += count;
            self.counters.published.fetch_add(count, Ordering::Relaxed);
        }
        self.await_confirms();
        Ok(())
    }

    fn await_confirms(&self) {
        let Some(window) = &self.window else {
            return;
        };
        let stopped = Instant::now();
        while !window.is_empty() && stopped.elapsed() < LAST_CONFIRMS {
            if self.shared.failure().is_some() {
                return;
            }
            thread::park_timeout(PARK);
        }
    }
}

struct Reader {
    confirms: Option<Confirms>,
    writer: Thread,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    incoming: Incoming,
}

impl Reader {
    fn run(mut self) -> Option<Latencies> {
        if let Err(error) = self.read() {
            self.shared.fail(&error);
            self.writer.unpark();
        }
        self.confirms.map(|confirms| confirms.latencies)
    }

    fn read(&mut self) -> anyhow::Result<()> {
        while self.incoming.fill()? {
            let now = now_ns();
            let record = self.shared.is_recording();
            let (mut confirmed, mut nacked) = (0, 0);
            while let Some(frame) = self.incoming.next()? {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                let method = decode_server_method(frame.payload)
                    .map_err(|error| anyhow!("the broker sent a broken method: {}", error.text))?;
                match (method, &mut self.confirms) {
                    (ServerMethod::Ack(ack), Some(confirms)) => {
                        confirmed += confirms.settle(ack.delivery_tag, ack.multiple, now, record);
                    }
                    (ServerMethod::Nack(nack), Some(confirms)) => {
                        nacked += confirms.settle(nack.delivery_tag, nack.multiple, now, false);
                    }
                    (ServerMethod::Other(method), _) => check_not_closed(&method)?,
                    _ => {}
                }
            }
            if confirmed + nacked > 0 {
                self.counters.confirmed.fetch_add(confirmed, Ordering::Relaxed);
                self.counters.nacked.fetch_add(nacked, Ordering::Relaxed);
                self.writer.unpark();
            }
        }
        if self.shared.is_stopped() {
            return Ok(());
        }
        bail!("the broker closed a producer's connection")
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Method, decode_method};

    use super::*;
    use crate::bench::clock::read_stamp;
    use crate::bench::options::tests::parse;

    /// Routing key, body length and timestamp of each message.
    fn decode(mut bytes: &[u8]) -> Vec<(String, usize, u64)> {
        let mut messages: Vec<(String, usize, u64)> = Vec::new();
        while let Ok(Decoded::Frame { frame, consumed }) = decode_frame(bytes, 0) {
            match frame.kind {
                FrameKind::Method => {
                    let Ok(Method::Publish(publish)) = decode_method(frame.payload) else {
                        panic!("not a publish");
                    };
                    messages.push((String::from_utf8_lossy(publish.routing_key).into_owned(), 0, 0));
                }
                FrameKind::Body => {
                    let message = messages.last_mut().unwrap();
                    if message.1 == 0 {
                        message.2 = read_stamp(frame.payload).unwrap_or_default();
                    }
                    message.1 += frame.payload.len();
                }
                _ => {}
            }
            bytes = &bytes[consumed..];
        }
        assert!(bytes.is_empty());
        messages
    }

    #[test]
    fn a_batch_visits_its_queues_in_turn_however_it_is_cut() {
        let options = parse(&["--queues", "3", "--size", "16", "--name", "b"]);
        let mut batch = Batch::new(&options, &[0, 1, 2], 4096).unwrap();
        let mut keys = Vec::new();
        for now in 1..=2000_u64 {
            let count = batch.left().min(7);
            for (key, len, stamp) in decode(batch.take(count, now)) {
                assert_eq!((len, stamp), (16, now));
                keys.push(key);
            }
        }
        for (i, key) in keys.iter().enumerate() {
            assert_eq!(*key, format!("b-{:06}", i % 3));
        }
    }

    #[test]
    fn a_large_body_is_one_message_in_many_frames() {
        let options = parse(&["--size", "100000"]);
        let mut batch = Batch::new(&options, &[0], 4096).unwrap();
        assert_eq!(batch.left(), 1);
        let messages = decode(batch.take(1, 42));
        assert_eq!((messages[0].1, messages[0].2), (100_000, 42));
        assert_eq!(batch.left(), 1);
    }

    #[test]
    fn a_body_too_short_for_a_timestamp_stays_as_it_is() {
        for size in ["0", "7"] {
            let options = parse(&["--size", size]);
            let mut batch = Batch::new(&options, &[0], 4096).unwrap();
            let messages = decode(batch.take(2, 42));
            assert_eq!(messages[1].1.to_string(), size);
            assert_eq!(messages[1].2, 0);
        }
    }
}
