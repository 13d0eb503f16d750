//! Names as clients write them, and as error texts show them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::error::{AmqpError, ReplyCode};

use super::direct_reply::DIRECT_REPLY;

/// Names that begin so belong to the broker.
const RESERVED_PREFIX: &str = "amq.";

/// A queue or exchange in an error text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) vhost: &'a str,
}

impl<'a> Named<'a> {
    pub(super) fn queue(name: &'a str, vhost: &'a str) -> Self {
        Self { kind: "queue", name, vhost }
    }

    pub(super) fn exchange(name: &'a str, vhost: &'a str) -> Self {
        Self { kind: "exchange", name, vhost }
    }

    pub(super) fn not_found(self) -> AmqpError {
        AmqpError::new(ReplyCode::NotFound, format_args!("no {self}"))
    }

    /// 403 for creating something under a name that belongs to the broker.
    pub(super) fn check_reserved(self) -> Result<(), AmqpError> {
        if !is_reserved(self.name) {
            return Ok(());
        }
        Err(AmqpError::new(
            ReplyCode::AccessRefused,
            format_args!("{} name '{}' contains reserved prefix 'amq.*'", self.kind, self.name),
        ))
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind, self.name, self.vhost)
    }
}

/// The name without carriage returns and line feeds.
pub(super) fn strip_line_breaks(name: &str) -> Cow<'_, str> {
    if name.contains(['\r', '\n']) { Cow::Owned(name.replace(['\r', '\n'], "")) } else { Cow::Borrowed(name) }
}

pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with(RESERVED_PREFIX)
}

pub(super) fn is_direct_reply(name: &str) -> bool {
    name.starts_with(DIRECT_REPLY)
}

/// A name nobody can guess, for a queue whose client left the choice to the broker.
pub(super) fn generated_queue_name() -> String {
    format!("amq.gen-{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()))
}

/// 403 for touching the default exchange.
pub(super) fn check_not_default(exchange: &str) -> Result<(), AmqpError> {
    if !exchange.is_empty() {
        return Ok(());
    }
    Err(AmqpError::new(ReplyCode::AccessRefused, "operation not permitted on the default exchange"))
}
