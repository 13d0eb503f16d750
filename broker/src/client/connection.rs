//! A minimal blocking AMQP client: enough to open a connection with one channel and to call methods on it.

use std::io::Write;
use std::net::TcpStream;

use amq_protocol::uri::AMQPUri;
use anyhow::{Context, anyhow, bail};
use protocol::amqp::{FieldTable, LongString, ShortString, channel, connection};
use protocol::{AMQPClass, FrameKind, PROTOCOL_HEADER, ServerMethod, decode_server_method, put_method};

use super::incoming::Incoming;

/// The one channel every connection uses.
pub(crate) const CHANNEL: u16 = 1;

/// The largest frame this side proposes.
const FRAME_MAX: u32 = 131_072;

/// An open connection with an open channel.
pub(crate) struct Connection {
    pub(crate) incoming: Incoming,
    pub(crate) stream: TcpStream,
    pub(crate) frame_max: u32,
    /// The highest channel number that the broker allows.
    pub(crate) channel_max: u16,
}

/// A text for a short string field.
pub(crate) fn short(text: &str) -> anyhow::Result<ShortString> {
    ShortString::try_new(text).map_err(|_| anyhow!("{text:?} is longer than 255 bytes"))
}

impl Connection {
    /// Connects, logs in and opens the channel, without heartbeats.
    pub(crate) fn open(uri: &AMQPUri) -> anyhow::Result<Self> {
        Self::open_with(uri, 0)
    }

    /// As [`Connection::open`], and asks for a heartbeat after so many seconds; sending them is up to the caller.
    pub(crate) fn open_with(uri: &AMQPUri, heartbeat: u16) -> anyhow::Result<Self> {
        let mut open = Self::connect(uri)?;
        open.stream.write_all(&PROTOCOL_HEADER)?;
        open.log_in(uri, heartbeat)?;
        open.call(CHANNEL, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
        Ok(open)
    }

    /// Connects, opens and closes all in one write, and reads until the broker has closed as well.
    pub(crate) fn open_and_close(uri: &AMQPUri) -> anyhow::Result<()> {
        let mut open = Self::connect(uri)?;
        let mut out = PROTOCOL_HEADER.to_vec();
        let tune_ok = connection::TuneOk { channel_max: CHANNEL, frame_max: FRAME_MAX, heartbeat: 0 };
        for (channel, method) in [
            (0, start_ok(uri)?),
            (0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok))),
            (0, open_vhost(uri)?),
            (CHANNEL, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}))),
            (0, close()?),
        ] {
            put_method(&mut out, channel, &method);
        }
        open.stream.write_all(&out)?;
        loop {
            if let AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) = open.receive(0)? {
                return Ok(());
            }
        }
    }

    /// Closes it, and waits until the broker has.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        match self.call(0, close()?)? {
            AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) => Ok(()),
            other => bail!("expected connection.close-ok, not {other:?}"),
        }
    }

    fn connect(uri: &AMQPUri) -> anyhow::Result<Self> {
        let address = (uri.authority.host.as_str(), uri.authority.port);
        let stream =
            TcpStream::connect(address).with_context(|| format!("no connection to {}:{}", address.0, address.1))?;
        stream.set_nodelay(true)?;
        let incoming = Incoming::new(stream.try_clone()?, FRAME_MAX);
        Ok(Self { incoming, stream, frame_max: FRAME_MAX, channel_max: u16::MAX })
    }

    fn log_in(&mut self, uri: &AMQPUri, heartbeat: u16) -> anyhow::Result<()> {
        use connection::AMQPMethod;

        let refused = "the broker did not let this user in (wrong password, or a user limited to localhost?)";
        match self.receive(0).context("the other side does not speak AMQP 0-9-1")? {
            AMQPClass::Connection(AMQPMethod::Start(_)) => {}
            other => bail!("expected connection.start, not {other:?}"),
        }
        self.send(0, &start_ok(uri)?)?;
        let tune = match self.receive(0).context(refused)? {
            AMQPClass::Connection(AMQPMethod::Tune(tune)) => tune,
            other => bail!("expected connection.tune, not {other:?}"),
        };
        self.frame_max = match tune.frame_max {
            0 => FRAME_MAX,
            limit => limit.min(FRAME_MAX),
        };
        self.incoming.set_frame_max(self.frame_max);
        if tune.channel_max > 0 {
            self.channel_max = tune.channel_max;
        }
        let tune_ok = connection::TuneOk { channel_max: tune.channel_max, frame_max: self.frame_max, heartbeat };
        self.send(0, &AMQPClass::Connection(AMQPMethod::TuneOk(tune_ok)))?;
        match self.call(0, open_vhost(uri)?)? {
            AMQPClass::Connection(AMQPMethod::OpenOk(_)) => Ok(()),
            other => bail!("expected connection.open-ok, not {other:?}"),
        }
    }

    /// Sends a method and waits for the answer.
    pub(crate) fn call(&mut self, channel: u16, method: AMQPClass) -> anyhow::Result<AMQPClass> {
        self.send(channel, &method)?;
        self.receive(channel)
    }

    /// Sends a method.
    pub(crate) fn send(&mut self, channel: u16, method: &AMQPClass) -> anyhow::Result<()> {
        let mut out = Vec::new();
        put_method(&mut out, channel, method);
        self.stream.write_all(&out)?;
        Ok(())
    }

    /// Waits for the next method on a channel.
    pub(crate) fn receive(&mut self, channel: u16) -> anyhow::Result<AMQPClass> {
        loop {
            while let Some(frame) = self.incoming.next()? {
                if frame.kind != FrameKind::Method {
                    continue;
                }
                let method = decode_server_method(frame.payload)
                    .map_err(|error| anyhow!("the broker sent a broken method: {}", error.text))?;
                if let ServerMethod::Other(method) = method {
                    check_not_closed(&method)?;
                    if frame.channel == channel {
                        return Ok(*method);
                    }
                }
            }
            if !self.incoming.fill()? {
                bail!("the broker closed the connection");
            }
        }
    }
}

fn start_ok(uri: &AMQPUri) -> anyhow::Result<AMQPClass> {
    let user = &uri.authority.userinfo;
    let start_ok = connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: short("PLAIN")?,
        response: LongString::from(format!("\0{}\0{}", user.username, user.password)),
        locale: short("en_US")?,
    };
    Ok(AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)))
}

fn open_vhost(uri: &AMQPUri) -> anyhow::Result<AMQPClass> {
    let open = connection::Open { virtual_host: short(&uri.vhost)? };
    Ok(AMQPClass::Connection(connection::AMQPMethod::Open(open)))
}

fn close() -> anyhow::Result<AMQPClass> {
    let close = connection::Close { reply_code: 200, reply_text: short("bye")?, class_id: 0, method_id: 0 };
    Ok(AMQPClass::Connection(connection::AMQPMethod::Close(close)))
}

/// Turns a close or a cancellation by the broker into an error.
pub(crate) fn check_not_closed(method: &AMQPClass) -> anyhow::Result<()> {
    use protocol::amqp::basic;

    match method {
        AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
            bail!("the broker closed the connection: {} {}", close.reply_code, close.reply_text)
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
            bail!("the broker closed the channel: {} {}", close.reply_code, close.reply_text)
        }
        AMQPClass::Basic(basic::AMQPMethod::Cancel(_)) => {
            bail!("the broker cancelled a consumer")
        }
        _ => Ok(()),
    }
}
