//! The firehose of a virtual host, on and off.

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::Context;
use super::answer::Refusal;
use crate::model::operation::OperationError;

pub(super) async fn put(State(context): State<Context>, Path(vhost): Path<String>) -> Result<StatusCode, Refusal> {
    answer(context.broker.trace_on(&vhost))
}

pub(super) async fn delete(State(context): State<Context>, Path(vhost): Path<String>) -> Result<StatusCode, Refusal> {
    answer(context.broker.trace_off(&vhost))
}

fn answer(result: Result<(), OperationError>) -> Result<StatusCode, Refusal> {
    result.map(|()| StatusCode::NO_CONTENT).map_err(|error| {
        let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
        Refusal::new(status, error)
    })
}
