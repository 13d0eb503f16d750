//! The firehose of a virtual host, on and off, for `warren ctl`: it changes nothing else that `PUT /api/vhosts` would.

use axum::http::Method;

use super::answer::{Answer, Refusal};
use super::request::Ask;

pub(super) fn answer(ask: &Ask, vhost: &str) -> Answer {
    ask.need_administrator()?;
    match ask.method {
        Method::PUT => ask.broker().trace_on(vhost)?,
        Method::DELETE => ask.broker().trace_off(vhost)?,
        _ => return Err(Refusal::method_not_allowed()),
    }
    ask.done(storage::Lsn(0))
}
