//! From connection.start to connection.open.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::amqp::{AMQPClass, AMQPValue, FieldTable, connection};
use protocol::names::{long, short_cut};
use protocol::{AmqpError, ReplyCode, parse_amqplain, parse_plain};

use super::{Phase, Session};
use crate::auth::{AuthFailure, Grants, UserInfo};
use crate::broker::ConnectionLimit;
use crate::model::arguments::Arguments;
use crate::model::log_limit::LogLine;

/// Announced in this order, as RabbitMQ does.
const MECHANISMS: &str = "PLAIN AMQPLAIN ANONYMOUS";
const MECHANISMS_WITH_EXTERNAL: &str = "PLAIN AMQPLAIN ANONYMOUS EXTERNAL";
/// What a RabbitMQ of this series announces; clients look for these before they use an extension.
const CAPABILITIES: [&str; 9] = [
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "consumer_priorities",
    "direct_reply_to",
    "exchange_exchange_bindings",
    "per_consumer_qos",
    "publisher_confirms",
];

impl Session {
    pub(super) fn send_start(&mut self) {
        let text = |text: &str| AMQPValue::LongString(long(text));
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES {
            capabilities.insert(short_cut(name), AMQPValue::Boolean(true));
        }
        let compatibility = &self.broker.settings.compatibility;
        let mut properties = FieldTable::default();
        properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        properties.insert("cluster_name".into(), text(&self.broker.cluster_name()));
        properties.insert("copyright".into(), text("Copyright (c) 2026 the Warren authors"));
        properties.insert(
            "information".into(),
            text(concat!("Warren ", env!("CARGO_PKG_VERSION"), ". Licensed under the Apache License 2.0.")),
        );
        properties.insert("platform".into(), text("Rust"));
        properties.insert("product".into(), text(&compatibility.product));
        properties.insert("version".into(), text(&compatibility.version));
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: long(self.mechanisms()),
            locales: long("en_US"),
        };
        self.reply(0, &AMQPClass::Connection(connection::AMQPMethod::Start(start)));
    }

    /// EXTERNAL where clients are asked for a certificate, also to those that have shown none: as in RabbitMQ, they then learn
    /// in the log why.
    fn mechanisms(&self) -> &'static str {
        match &self.peer.tls {
            Some(tls) if tls.offers_external => MECHANISMS_WITH_EXTERNAL,
            _ => MECHANISMS,
        }
    }

    pub(super) fn on_start_ok(&mut self, start_ok: &connection::StartOk) {
        let properties = &start_ok.client_properties;
        if let Some(AMQPValue::FieldTable(capabilities)) = properties.inner().get("capabilities") {
            let has = |name: &str| matches!(capabilities.inner().get(name), Some(AMQPValue::Boolean(true)));
            self.client.failure_close = has("authentication_failure_close");
            self.client.cancel_notify = has("consumer_cancel_notify");
            self.client.blocked_notify = has("connection.blocked");
        }
        if let Some(AMQPValue::LongString(name)) = properties.inner().get("connection_name") {
            self.client.name = Some(String::from_utf8_lossy(name.as_bytes()).into_owned());
        }
        let mechanism = start_ok.mechanism.as_str();
        self.broker.note_connection(self.id, |facts| {
            facts.client_properties = Arguments::from(properties.clone());
            facts.mechanism = mechanism.to_owned();
        });
        let outcome = self.log_in(mechanism, start_ok.response.as_bytes());
        self.broker.services.statistics.attempts.amqp.count(outcome.is_ok());
        match outcome {
            Ok(user) => {
                tracing::debug!(connection = self.id.0, user = %user.name, "logged in");
                self.authenticated(&user.name, mechanism, None);
                self.user = Some(Arc::new(user));
                self.phase = Phase::Tuning;
                let offered = self.limits;
                let tune = connection::Tune {
                    channel_max: offered.channel_max,
                    frame_max: offered.frame_max,
                    heartbeat: offered.heartbeat_s,
                };
                self.reply(0, &AMQPClass::Connection(connection::AMQPMethod::Tune(tune)));
            }
            Err(LoginError::Malformed) => {
                self.log_refusal(mechanism, &"malformed login");
                self.finish();
                self.phase = Phase::Refused;
            }
            Err(LoginError::Refused(failure)) => {
                self.log_refusal(mechanism, &failure);
                self.authenticated(
                    &claimed_user(mechanism, start_ok.response.as_bytes()),
                    mechanism,
                    Some(&failure.to_string()),
                );
                if self.client.failure_close {
                    self.refusal = Some(AmqpError::new(
                        ReplyCode::AccessRefused,
                        format_args!(
                            "Login was refused using authentication mechanism {mechanism}. \
                             For details see the broker logfile."
                        ),
                    ));
                } else {
                    self.finish();
                }
                // Told or not, nobody learns it at once: guessing takes its time.
                self.phase = Phase::Refused;
            }
        }
    }

    /// The time of a refused client is over: says goodbye if the client asked for that. False when there is nothing to say.
    pub fn end_refusal(&mut self) -> bool {
        let Some(error) = self.refusal.take() else {
            return false;
        };
        self.close_with(&error);
        true
    }

    fn log_refusal(&self, mechanism: &str, failure: &dyn std::fmt::Display) {
        let line = self.broker.auth.note_refusal();
        if let LogLine::Write { silent } = line
            && silent > 0
        {
            tracing::warn!(logins = silent, "more logins were refused, and not written down one by one");
        }
        if line != LogLine::Skip {
            tracing::warn!(connection = self.id.0, peer = %self.peer.ip, mechanism, %failure, "login refused");
        }
        if line == LogLine::Last {
            tracing::warn!("many logins are refused: the next ones are only counted");
        }
    }

    fn log_in(&self, mechanism: &str, response: &[u8]) -> Result<UserInfo, LoginError> {
        let auth = &self.broker.auth;
        let peer: IpAddr = self.peer.ip;
        match mechanism {
            "PLAIN" => {
                let (user, password) = parse_plain(response).ok_or(LoginError::Malformed)?;
                Ok(auth.authenticate(user, password, peer)?)
            }
            "AMQPLAIN" => {
                let (user, password) = parse_amqplain(response).ok_or(LoginError::Malformed)?;
                Ok(auth.authenticate(&user, &password, peer)?)
            }
            "EXTERNAL" => {
                let tls = self.peer.tls.as_ref().filter(|tls| tls.offers_external).ok_or(LoginError::Malformed)?;
                let certificate = tls.certificate.as_ref().ok_or(AuthFailure::NoCertificate)?;
                let user = certificate.user.as_deref().ok_or(AuthFailure::NoNameInCertificate)?;
                Ok(auth.authenticate_external(user, peer)?)
            }
            "ANONYMOUS" => Ok(auth.authenticate_anonymous(peer)?),
            _ => Err(LoginError::Malformed),
        }
    }

    /// The client may only lower what was offered.
    pub(super) fn on_tune_ok(&mut self, tune_ok: &connection::TuneOk) -> Result<(), AmqpError> {
        let offered = self.limits;
        let refuse = |text: std::fmt::Arguments<'_>| Err(AmqpError::new(ReplyCode::NotAllowed, text).at(10, 31));
        let (frame_max, channel_max) = (tune_ok.frame_max, tune_ok.channel_max);
        let least = self.broker.settings.compatibility.frame_max_min;
        if frame_max != 0 && frame_max < least {
            return refuse(format_args!(
                "negotiated frame_max = {frame_max} is lower than the minimum allowed value ({least})"
            ));
        }
        if let Some(text) = too_high("frame_max", frame_max, offered.frame_max) {
            return refuse(format_args!("{text}"));
        }
        if let Some(text) = too_high("channel_max", channel_max.into(), offered.channel_max.into()) {
            return refuse(format_args!("{text}"));
        }
        self.limits.frame_max = frame_max;
        self.limits.channel_max = channel_max;
        self.limits.heartbeat_s = tune_ok.heartbeat;
        self.phase = Phase::Opening;
        Ok(())
    }

    pub(super) fn on_open(&mut self, open: &connection::Open) -> Result<(), AmqpError> {
        let refuse = |text: std::fmt::Arguments<'_>| Err(AmqpError::new(ReplyCode::NotAllowed, text).at(10, 40));
        let name = open.virtual_host.as_str();
        let user = Arc::clone(self.user()?);
        if let Some(limit) = self.broker.node_connection_limit() {
            return refuse(format_args!("{}", connection_limit(ConnectionLimit::Node(limit), name, &user.name)));
        }
        let Some(vhost) = self.broker.vhost(name) else {
            return refuse(format_args!("vhost {name} not found"));
        };
        match self.broker.open_connection(self.id, &vhost, &user.name) {
            Ok(usage) => self.usage = Some(usage),
            Err(limit) => return refuse(format_args!("{}", connection_limit(limit, name, &user.name))),
        }
        // Deleted after it was found: whoever deletes it may have looked for its connections before we were one.
        if vhost.is_deleted() {
            return refuse(format_args!("vhost {name} not found"));
        }
        if !self.broker.auth.vhost_access(&user.name, name) {
            return refuse(format_args!("access to vhost '{name}' refused for user '{}'", user.name));
        }
        self.grants =
            Some(Grants::new(Arc::clone(&self.broker.auth), Arc::clone(&user.name), Arc::clone(vhost.name())));
        self.limits.max_message_bytes = vhost.rules().max_message_bytes;
        self.log_opened(vhost.name());
        self.vhost = Some(vhost);
        self.open.frame_max.store(self.limits.frame_max, Ordering::Relaxed);
        self.open.channel_max.store(self.limits.channel_max, Ordering::Relaxed);
        self.open.heartbeat_s.store(self.limits.heartbeat_s, Ordering::Relaxed);
        self.phase = Phase::Running;
        self.connection_created();
        self.reply(0, &AMQPClass::Connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})));
        Ok(())
    }
}

/// Who a refused login claims to be.
fn claimed_user(mechanism: &str, response: &[u8]) -> String {
    match mechanism {
        "PLAIN" => parse_plain(response).map(|(user, _)| user.to_owned()),
        "AMQPLAIN" => parse_amqplain(response).map(|(user, _)| user.to_string()),
        _ => None,
    }
    .unwrap_or_default()
}

/// RabbitMQ's words for a connection too many.
fn connection_limit(limit: ConnectionLimit, vhost: &str, user: &str) -> String {
    match limit {
        ConnectionLimit::Node(n) => format!("connection refused: node connection limit ({n}) is reached"),
        ConnectionLimit::Vhost(n) => {
            format!("access to vhost '{vhost}' refused for user '{user}': connection limit ({n}) is reached")
        }
        ConnectionLimit::User(n) => {
            format!("connection refused for user '{user}': user connection limit ({n}) is reached")
        }
    }
}

/// RabbitMQ's words for a value above the one offered.
fn too_high(what: &str, value: u32, offered: u32) -> Option<String> {
    if offered == 0 || (value != 0 && value <= offered) {
        return None;
    }
    let value = if value == 0 { "0 (no limit)".to_owned() } else { value.to_string() };
    Some(format!("negotiated {what} = {value} is higher than the maximum allowed value ({offered})"))
}

enum LoginError {
    /// Not a login at all: RabbitMQ closes without a word.
    Malformed,
    Refused(AuthFailure),
}

impl From<AuthFailure> for LoginError {
    fn from(failure: AuthFailure) -> Self {
        Self::Refused(failure)
    }
}
