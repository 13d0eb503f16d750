//! Channel 0: the connection's own methods, and how it is closed.

use protocol::amqp::{AMQPClass, connection};
use protocol::names::short_cut;
use protocol::{AmqpError, Frame, FrameKind, Method, ReplyCode, decode_method, method_ids};

use super::dispatch::blame;
use super::{Phase, Session};

const CONNECTION: u16 = 10;
const CLOSE: u16 = 50;
const CLOSE_OK: u16 = 51;

impl Session {
    pub(super) fn on_connection_frame(&mut self, frame: &Frame<'_>) -> Result<(), AmqpError> {
        match frame.kind {
            FrameKind::Heartbeat => Ok(()),
            FrameKind::Method => self
                .on_connection_method(frame.payload)
                .map_err(|error| if error.class_id == 0 { blame(error, frame.payload) } else { error }),
            FrameKind::Header | FrameKind::Body => Err(AmqpError::unexpected_frame(frame.kind.as_u8(), frame.payload)),
        }
    }

    fn on_connection_method(&mut self, payload: &[u8]) -> Result<(), AmqpError> {
        use connection::AMQPMethod as M;
        let (class, id) = method_ids(payload).unwrap_or_default();
        if class != CONNECTION && class != 0 {
            return Err(self.out_of_place(class, id));
        }
        let Method::Other(class) = decode_method(payload)? else {
            return Err(self.out_of_place(class, id));
        };
        match (*class, self.phase) {
            (AMQPClass::Connection(M::StartOk(start_ok)), Phase::Starting) => {
                self.on_start_ok(&start_ok);
                Ok(())
            }
            (AMQPClass::Connection(M::TuneOk(tune_ok)), Phase::Tuning) => self.on_tune_ok(&tune_ok),
            (AMQPClass::Connection(M::Open(open)), Phase::Opening) => self.on_open(&open),
            (AMQPClass::Connection(M::Close(_)), _) => {
                self.take_parked();
                // Unless an error of what had been parked has closed the connection, and the client's close came first.
                if !matches!(self.phase, Phase::Closing | Phase::Deaf) {
                    self.end();
                    self.phase = Phase::Left;
                }
                self.reply(0, &close_ok());
                Ok(())
            }
            (AMQPClass::Connection(M::UpdateSecret(_)), Phase::Running) => {
                // Users of our own have no credentials that expire: there is nothing to renew, and RabbitMQ agrees to any.
                let ok = connection::UpdateSecretOk {};
                self.reply(0, &AMQPClass::Connection(M::UpdateSecretOk(ok)));
                Ok(())
            }
            _ => Err(self.out_of_place(CONNECTION, id)),
        }
    }

    fn out_of_place(&self, class: u16, method: u16) -> AmqpError {
        let state = match self.phase {
            Phase::Starting => "starting",
            Phase::Tuning => "tuning",
            Phase::Opening => "opening",
            _ => "running",
        };
        AmqpError::new(ReplyCode::ChannelError, format_args!("unexpected method in connection state {state}"))
            .at(class, method)
    }

    /// The connection is closed or about to be: all that counts is what the client says to that.
    pub(super) fn on_frame_while_closing(&mut self, frame: &Frame<'_>) {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return;
        }
        match method_ids(frame.payload) {
            Some((CONNECTION, CLOSE_OK)) if self.phase == Phase::Closing => self.phase = Phase::Closed,
            // Whoever goes on closing and does not read the answers gets no more of them.
            Some((CONNECTION, CLOSE)) if !self.is_stuffed() => self.reply(0, &close_ok()),
            _ => {}
        }
    }

    /// The stream itself is broken, or a frame is: the connection is closed with what is wrong.
    pub fn on_frame_error(&mut self, error: &AmqpError) {
        if matches!(self.phase, Phase::Closing | Phase::Left) {
            if error.stream_lost {
                self.phase = Phase::Deaf;
            }
        } else {
            self.fail(error);
        }
    }

    /// Closes the connection with an error. Its consumers and messages are released at once, not when the client answers.
    pub(super) fn fail(&mut self, error: &AmqpError) {
        if matches!(self.phase, Phase::Closing | Phase::Deaf | Phase::Refused | Phase::Left | Phase::Closed) {
            return;
        }
        let (user, vhost) = (self.user.as_ref().map(|user| &*user.name), self.logged_vhost());
        tracing::info!(connection = self.id.0, peer = %self.peer, user, vhost, %error, "connection closed");
        self.close_with(error);
    }

    /// As [`Session::fail`], for what is in the log already.
    pub(super) fn close_with(&mut self, error: &AmqpError) {
        self.end();
        let close = connection::Close {
            reply_code: error.code.as_u16(),
            reply_text: short_cut(&error.text),
            class_id: error.class_id,
            method_id: error.method_id,
        };
        self.reply(0, &AMQPClass::Connection(connection::AMQPMethod::Close(close)));
        self.phase = if error.stream_lost { Phase::Deaf } else { Phase::Closing };
    }

    /// An operator closes the connection, or what it was open on is gone: the broker knows why.
    pub fn on_forced(&mut self) {
        if let Some(reason) = self.broker.close_reason(self.id) {
            self.force_close(&reason);
        }
    }

    /// The broker stops, or an operator closes the connection.
    pub fn force_close(&mut self, reason: &str) {
        if self.phase == Phase::Left {
            self.phase = Phase::Closed;
        }
        self.fail(&AmqpError::new(ReplyCode::ConnectionForced, reason));
    }
}

fn close_ok() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
}
