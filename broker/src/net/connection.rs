//! One connection: a task that owns both directions of a socket.
//!
//! A turn reads once, handles every whole frame of what was read, wakes whoever that gave work to, and writes what its own
//! outbox holds. Work per turn is bounded, so that reading never starves writing or a neighbour.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use protocol::{Decoded, PROTOCOL_HEADER, check_protocol_header, decode_frame, frame_len, put_heartbeat};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::buffers;
use super::heartbeat::{Heartbeat, Tick};
use crate::broker::Broker;
use crate::model::peer::Peer;
use crate::model::statistics::traffic;
use crate::queue::signal;
use crate::session::{Phase, Session};

/// Octets encoded before they are offered to the socket.
const WRITE_BYTES: usize = 128 * 1024;
/// Turns before other tasks of the thread get theirs …
const TURNS_MAX: usize = 8;
/// … and when there are many of them: a handshake waits five times until everybody has had their turns.
const CROWDED_TURNS_MAX: usize = 2;
/// Connections from which on there are many.
const CROWD: usize = 32;
/// How long a client may take to answer connection.close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a socket is drained after the last frame, so that the client can read it before the connection is reset.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a refused client is kept waiting …
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// … and one that will be told why. Whoever guesses passwords gets no more than four answers a second from one socket.
const TOLD_REFUSAL_DELAY: Duration = Duration::from_millis(250);
/// How long the clients have when the broker stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// A client that reads nothing for this long while we leave its socket unread is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client that has closed its connection may take to close the socket; RabbitMQ's limit.
const LEFT_TIMEOUT: Duration = Duration::from_secs(30);
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a connection's task ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By the protocol.
    Orderly,
    /// The client hung up.
    Hangup,
    /// It did not speak within the handshake's time, or did not answer a close.
    Timeout,
    /// No heartbeat.
    Silence,
    /// It does not read.
    Stalled,
}

/// Serves one client until it is gone.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(broker: Arc<Broker>, socket: S, peer: Peer) {
    let mut connection = Connection::new(broker, socket, peer);
    let end = std::future::poll_fn(|context| connection.poll(context)).await;
    let Some(session) = &connection.session else {
        // A port scan or a health check is nothing to write home about.
        tracing::debug!(peer = %connection.peer, "closed before the handshake");
        return;
    };
    match end {
        // Its refusal is in the log already, or was counted.
        _ if session.phase() == Phase::Refused => {
            tracing::debug!(peer = %connection.peer, "closed after a refused login")
        }
        Ok(End::Orderly) => session.log_end(None),
        Ok(End::Hangup) => session.log_end(Some(&"client unexpectedly closed TCP connection")),
        Ok(End::Silence) => {
            let seconds = session.limits().heartbeat_s;
            session.log_end(Some(&format_args!("missed heartbeats from client, timeout: {seconds}s")));
        }
        Ok(End::Timeout) => session.log_end(Some(&"the client did not answer in time")),
        Ok(End::Stalled) => session.log_end(Some(&"the client does not read what is sent to it")),
        // rustls' word for a hangup without a close_notify, which is how most clients leave.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            session.log_end(Some(&"client unexpectedly closed TCP connection"));
        }
        Err(error) => session.log_end(Some(&error)),
    }
}

struct Connection<S> {
    broker: Arc<Broker>,
    socket: S,
    peer: Peer,
    /// There once the client has sent a protocol header that we speak.
    session: Option<Session>,
    input: Input,
    output: Vec<u8>,
    /// Octets of `output` already written.
    written: usize,
    heartbeat: Heartbeat,
    timer: Pin<Box<Sleep>>,
    /// The next heartbeat tick.
    tick_at: Option<Instant>,
    /// When the phase we are in has lasted too long.
    give_up_at: Option<Instant>,
    phase: Phase,
    shutting_down: bool,
    write_closed: bool,
    /// The socket was left unread in this turn.
    read_refused: bool,
}

/// What was read and not yet handled.
#[derive(Default)]
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Octets that the next frame needs in the buffer.
    needed: usize,
    /// Octets still to come of a frame that was refused.
    skip: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Passes over what is left of a refused frame; true once that is done.
    fn skip(&mut self) -> bool {
        let here = self.skip.min(self.end - self.start);
        self.start += here;
        self.skip -= here;
        self.skip == 0
    }

    /// Room to read into.
    fn prepare(&mut self) -> &mut [u8] {
        if self.buffer.len() < buffers::BUFFER_BYTES {
            let mut fresh = buffers::take_read();
            let rest = self.unread();
            let len = rest.len();
            if let Some(front) = fresh.get_mut(..len) {
                front.copy_from_slice(rest);
            }
            self.buffer = fresh;
            (self.start, self.end) = (0, len);
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.start + self.needed.max(buffers::BUFFER_BYTES / 2) > self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            // A frame larger than the buffer: grow with what has come, not with what was announced.
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Gives the buffer back; a started frame is kept in an allocation of its own size.
    fn rest(&mut self) {
        if self.buffer.len() < buffers::BUFFER_BYTES {
            return;
        }
        let rest = self.unread().to_vec();
        (self.start, self.end) = (0, rest.len());
        buffers::give_read(std::mem::replace(&mut self.buffer, rest));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn new(broker: Arc<Broker>, socket: S, peer: Peer) -> Self {
        let give_up_at = Instant::now() + broker.settings.listeners.handshake_timeout;
        Self {
            broker,
            socket,
            peer,
            session: None,
            input: Input::default(),
            output: Vec::new(),
            written: 0,
            heartbeat: Heartbeat::default(),
            timer: Box::pin(sleep_until(give_up_at)),
            tick_at: None,
            give_up_at: Some(give_up_at),
            phase: Phase::Starting,
            shutting_down: false,
            write_closed: false,
            read_refused: false,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<End>> {
        for turn in 0..TURNS_MAX {
            if turn == CROWDED_TURNS_MAX && self.broker.connection_count() >= CROWD {
                break;
            }
            if let Some(session) = &self.session {
                session.signal().register(context.waker());
            }
            let mut progress = self.poll_signal();
            match self.poll_read(context) {
                Poll::Ready(Ok(Some(end))) => return Poll::Ready(Ok(end)),
                Poll::Ready(Ok(None)) => progress = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            match self.poll_write(context) {
                Poll::Ready(Ok(Some(end))) => return Poll::Ready(Ok(end)),
                Poll::Ready(Ok(None)) => progress = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            self.follow_phase();
            if self.timer.as_mut().poll(context).is_ready() {
                if let Some(end) = self.on_timer() {
                    return Poll::Ready(Ok(end));
                }
                progress = true;
            }
            // What kept us from reading may be over by now, and then nobody else would tell us.
            let again = self.session.as_mut().is_some_and(|session| {
                session.signal().is_raised() || (self.read_refused && session.may_read_or_waits())
            });
            if !progress && !again {
                self.input.rest();
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// True when something was done.
    fn poll_signal(&mut self) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        let flags = session.signal().take();
        if flags & signal::CLOSE != 0 && !self.shutting_down {
            self.shutting_down = true;
            session.force_close("broker forced connection closure with reason 'shutdown'");
            session.finish_batch();
        }
        if flags & signal::FORCED != 0 {
            session.on_forced();
            session.finish_batch();
        }
        if flags & signal::DURABLE != 0 {
            session.on_durable();
        }
        if flags & signal::ALARM != 0 {
            session.on_alarm();
        }
        if flags & signal::ROOM != 0 {
            session.on_room();
        }
        flags != 0
    }

    /// Reads once and handles what came. Pending when there is nothing to read or nothing may be read.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        self.read_refused =
            self.session.as_mut().is_some_and(|session| !session.may_read_or_waits()) && !self.is_draining();
        if self.read_refused {
            return Poll::Pending;
        }
        let mut room = ReadBuf::new(self.input.prepare());
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut room))?;
        let len = room.filled().len();
        if len == 0 {
            if let Some(session) = &mut self.session {
                session.on_hangup();
            }
            let end = if self.is_draining() || self.is_left() { End::Orderly } else { End::Hangup };
            return Poll::Ready(Ok(Some(end)));
        }
        self.heartbeat.on_read();
        if let Some(session) = &self.session {
            let octets = (traffic::RECEIVED_OCTETS, len as u64);
            session.open_connection().count(octets, (traffic::RECEIVED, 1));
        }
        self.input.end += len;
        if self.is_draining() {
            self.input.start = self.input.end;
            return Poll::Ready(Ok(None));
        }
        self.handle_input();
        Poll::Ready(Ok(None))
    }

    fn is_draining(&self) -> bool {
        self.write_closed
    }

    fn is_left(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.phase() == Phase::Left)
    }

    fn handle_input(&mut self) {
        if self.session.is_none() && !self.handle_protocol_header() {
            return;
        }
        let Some(session) = &mut self.session else {
            return;
        };
        if !self.input.skip() {
            return;
        }
        session.begin_batch();
        loop {
            if matches!(session.phase(), Phase::Deaf | Phase::Refused | Phase::Closed) {
                self.input.start = self.input.end;
                break;
            }
            match decode_frame(self.input.unread(), session.frame_max()) {
                Ok(Decoded::Frame { frame, consumed }) => {
                    session.on_frame(&frame);
                    self.input.start += consumed;
                }
                Ok(Decoded::Incomplete { needed }) => {
                    self.input.needed = needed;
                    break;
                }
                Err(error) => {
                    session.on_frame_error(&error);
                    // After a refused frame the client is still listened to: it has a close to answer.
                    self.input.skip = frame_len(self.input.unread()).unwrap_or_default();
                    if !self.input.skip() {
                        break;
                    }
                }
            }
        }
        session.finish_batch();
    }

    /// True once there is a session.
    fn handle_protocol_header(&mut self) -> bool {
        let Some(header) = self.input.unread().first_chunk::<8>() else {
            // Whatever does not begin like AMQP never becomes it.
            let unread = self.input.unread();
            if !PROTOCOL_HEADER.starts_with(unread.get(..unread.len().min(4)).unwrap_or_default()) {
                self.refuse_protocol(PROTOCOL_HEADER);
            }
            return false;
        };
        match check_protocol_header(header) {
            Ok(()) => {
                self.input.start += header.len();
                let id = self.broker.new_connection_id();
                let session = Session::new(Arc::clone(&self.broker), id, self.peer.clone());
                self.broker.note_connection(id, |facts| {
                    facts.addresses = self.peer.addresses;
                    facts.tls = self.peer.tls.clone();
                    facts.name = session.connection_name();
                    facts.connected_at_ms = self.broker.clock().now_ms();
                });
                self.session = Some(session);
                true
            }
            Err(answer) => {
                self.refuse_protocol(answer);
                false
            }
        }
    }

    fn refuse_protocol(&mut self, answer: [u8; 8]) {
        self.input.start = self.input.end;
        self.output.extend_from_slice(&answer);
        self.phase = Phase::Closed;
    }

    /// Encodes once, when everything before has been written, and writes until the socket is full. Ready(None) when octets
    /// were written: there may be more, but reading comes first.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        if self.written == self.output.len() {
            self.encode();
            if self.output.is_empty() {
                buffers::give_write(std::mem::take(&mut self.output));
                return if self.is_over() { self.poll_shutdown(context) } else { Poll::Pending };
            }
        }
        let before = self.written;
        while let pending = self.output.get(self.written..).unwrap_or_default()
            && !pending.is_empty()
        {
            match Pin::new(&mut self.socket).poll_write(context, pending) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Some(End::Hangup))),
                Poll::Ready(Ok(len)) => {
                    self.written += len;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        if self.written == before {
            return Poll::Pending;
        }
        if let Some(session) = &self.session {
            let octets = (traffic::SENT_OCTETS, (self.written - before) as u64);
            session.open_connection().count(octets, (traffic::SENT, 1));
        }
        self.heartbeat.on_written();
        if self.phase == Phase::Running {
            // A client that did not read does so again.
            self.give_up_at = None;
        }
        Poll::Ready(Ok(None))
    }

    fn encode(&mut self) {
        self.output.clear();
        self.written = 0;
        if let Some(session) = &mut self.session
            && !self.write_closed
        {
            if self.output.capacity() == 0 {
                self.output = buffers::take_write();
            }
            session.write(&mut self.output, WRITE_BYTES);
            // Encoding settles and resumes: others may have work now.
            session.finish_batch();
        }
    }

    /// Whether everything that there is to say has been said.
    fn is_over(&self) -> bool {
        match &self.session {
            Some(session) => session.phase() == Phase::Closed && session.is_drained(),
            None => self.phase == Phase::Closed,
        }
    }

    /// The write side is closed and what still comes is thrown away until the client closes too: closing a socket with
    /// unread octets would reset the connection, and the last frame with it.
    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        if self.write_closed {
            return Poll::Pending;
        }
        if self.session.is_none() {
            // Not an AMQP client: RabbitMQ closes at once.
            return Poll::Ready(Ok(Some(End::Orderly)));
        }
        ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
        self.write_closed = true;
        self.give_up_at = Some(Instant::now() + DRAIN_TIMEOUT);
        self.set_timer();
        Poll::Ready(Ok(None))
    }

    /// Starts the clocks of a phase that was entered. Several phases may have passed in one batch.
    fn follow_phase(&mut self) {
        let Some(session) = &self.session else { return };
        let (phase, heartbeat_s) = (session.phase(), session.limits().heartbeat_s);
        // Replies that wait for the disk are not the client's fault.
        let is_refused = self.written < self.output.len();
        let stalled = phase == Phase::Running && is_refused && session.is_stuffed();
        if phase == self.phase && !(stalled && self.give_up_at.is_none()) {
            return;
        }
        let now = Instant::now();
        let was_tuned = matches!(self.phase, Phase::Opening | Phase::Running);
        if matches!(phase, Phase::Opening | Phase::Running) && !was_tuned {
            self.tick_at = Heartbeat::period(heartbeat_s).map(|period| now + period);
        }
        self.phase = phase;
        match phase {
            // Still on the clock of the handshake.
            Phase::Starting | Phase::Tuning | Phase::Opening => {}
            Phase::Running => self.give_up_at = stalled.then(|| now + STALL_TIMEOUT),
            Phase::Closing if self.shutting_down => self.give_up_at = Some(now + SHUTDOWN_TIMEOUT),
            Phase::Deaf => self.give_up_at = Some(now + DRAIN_TIMEOUT),
            Phase::Refused if session.tells_refusal() => self.give_up_at = Some(now + TOLD_REFUSAL_DELAY),
            Phase::Refused => self.give_up_at = Some(now + REFUSAL_DELAY),
            Phase::Left => self.give_up_at = Some(now + left_timeout(heartbeat_s)),
            Phase::Closing | Phase::Closed => self.give_up_at = Some(now + CLOSE_TIMEOUT),
        }
        self.set_timer();
    }

    fn set_timer(&mut self) {
        let next = match (self.tick_at, self.give_up_at) {
            (Some(tick), Some(give_up)) => tick.min(give_up),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => Instant::now() + NEVER,
        };
        self.timer.as_mut().reset(next);
    }

    fn on_timer(&mut self) -> Option<End> {
        let now = Instant::now();
        if self.give_up_at.is_some_and(|at| at <= now) {
            if self.phase == Phase::Refused && self.session.as_mut().is_some_and(Session::end_refusal) {
                self.follow_phase();
                return None;
            }
            return Some(match self.phase {
                Phase::Running => End::Stalled,
                Phase::Closed | Phase::Deaf | Phase::Refused | Phase::Left => End::Orderly,
                _ => End::Timeout,
            });
        }
        if let (Some(at), Some(session)) = (self.tick_at, &self.session)
            && at <= now
        {
            let limits = session.limits();
            let alive = matches!(session.phase(), Phase::Opening | Phase::Running);
            match self.heartbeat.tick(session.may_read()) {
                Tick::Dead if alive => return Some(End::Silence),
                Tick::Send if alive && self.output.is_empty() => put_heartbeat(&mut self.output),
                _ => {}
            }
            // From now, not from the tick that is due: a machine that slept must not be met by a burst of ticks.
            self.tick_at = Heartbeat::period(limits.heartbeat_s).map(|period| now + period);
        }
        self.set_timer();
        None
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            session.end();
        }
    }
}

fn left_timeout(heartbeat_s: u16) -> Duration {
    match heartbeat_s {
        0 => LEFT_TIMEOUT,
        seconds => LEFT_TIMEOUT.min(Duration::from_secs(seconds.into())),
    }
}
