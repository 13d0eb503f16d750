//! Errors in the form that RabbitMQ's management API gives them: `{"error": …, "reason": …}`.

use std::fmt::Display;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    reason: &'a str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Display) -> Self {
        Self { status, reason: reason.to_string() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = self.status.canonical_reason().unwrap_or("Error").to_lowercase().replace(' ', "_");
        (self.status, Json(Body { error: &error, reason: &self.reason })).into_response()
    }
}

pub(super) async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

pub(super) async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}
