//! What the log says of a connection: that it is open, and how it ended. With RabbitMQ's words, since scripts look for them.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::model::log_limit::LogLine;

/// A connection that was let into a virtual host.
pub(super) struct Opened {
    vhost: Arc<str>,
    at: Instant,
}

impl Session {
    /// The client is in.
    pub(super) fn log_opened(&mut self, vhost: &Arc<str>) {
        let user = self.user.as_ref().map_or("", |user| &*user.name);
        tracing::info!(
            connection = self.id.0,
            peer = %self.peer,
            user,
            vhost = &**vhost,
            name = self.client.name.as_deref(),
            "connection {}: user '{user}' authenticated and granted access to vhost '{vhost}'",
            self.connection_name(),
        );
        self.opened = Some(Opened { vhost: Arc::clone(vhost), at: Instant::now() });
    }

    /// The virtual host that it was let into, for the log.
    pub(super) fn logged_vhost(&self) -> Option<&str> {
        self.opened.as_ref().map(|opened| &*opened.vhost)
    }

    /// The connection is over: by the protocol, or for what reason it was lost.
    pub fn log_end(&self, lost: Option<&dyn Display>) {
        let (connection, ends) = (self.id.0, self.connection_name());
        let user = self.user.as_ref().map_or("", |user| &*user.name);
        let Some(Opened { vhost, at }) = &self.opened else {
            return self.log_stranger(&ends, lost);
        };
        let seconds = at.elapsed().as_secs();
        let about =
            format!("closing AMQP connection ({ends}, vhost: '{vhost}', user: '{user}', duration: '{seconds}s')");
        let vhost = &**vhost;
        match lost {
            None => tracing::info!(connection, peer = %self.peer, user, vhost, "{about}"),
            Some(reason) => tracing::warn!(connection, peer = %self.peer, user, vhost, "{about}: {reason}"),
        }
    }

    /// It never got in. Anybody can do that as often as they like.
    fn log_stranger(&self, ends: &str, lost: Option<&dyn Display>) {
        let (connection, peer) = (self.id.0, &self.peer);
        let Some(reason) = lost else {
            tracing::debug!(connection, %peer, "closing AMQP connection ({ends})");
            return;
        };
        let line = self.broker.log.strangers.event(Instant::now());
        if let LogLine::Write { silent } = line
            && silent > 0
        {
            tracing::warn!(connections = silent, "more connections were lost before their login, and not written down");
        }
        if line != LogLine::Skip {
            tracing::warn!(connection, %peer, "closing AMQP connection ({ends}) before its login was complete: {reason}");
        }
        if line == LogLine::Last {
            tracing::warn!("many connections are lost before their login: the next ones are only counted");
        }
    }
}
