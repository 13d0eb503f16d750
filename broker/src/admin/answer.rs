//! What the API answers with: JSON, and errors in the form that RabbitMQ's management API gives them.

use std::fmt::Display;

use axum::Json;
use axum::http::header::{LOCATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use protocol::error::{AmqpError, ReplyCode};
use serde_json::{Value, json};

use crate::model::operation::OperationError;

/// What a request comes to.
pub(super) type Answer = Result<Reply, Refusal>;

/// A success.
#[derive(Debug)]
pub(super) enum Reply {
    /// 200 with a value.
    Value(Value),
    /// 201: it is new. With its location below the request's path, if clients want to know.
    Created(Option<String>),
    /// 204: done, and nothing to say.
    Done,
}

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Option<Value>,
    /// What the command line says and ends with.
    told: Option<(String, u8)>,
}

impl Reply {
    /// 201 for what is new, 204 for what was there.
    pub(super) fn put(is_new: bool) -> Self {
        if is_new { Self::Created(None) } else { Self::Done }
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Display) -> Self {
        let error = status.canonical_reason().unwrap_or("Error").to_lowercase().replace(' ', "_");
        Self::with_body(status, json!({"error": error, "reason": reason.to_string()}))
    }

    /// With a body of its own form.
    pub(super) fn with_body(status: StatusCode, body: Value) -> Self {
        Self { status, body: Some(body), told: None }
    }

    pub(super) fn not_found() -> Self {
        let body = json!({"error": "Object Not Found", "reason": "Not Found"});
        Self::with_body(StatusCode::NOT_FOUND, body)
    }

    /// 404 with a reason of its own.
    pub(super) fn missing(reason: &str) -> Self {
        Self::with_body(StatusCode::NOT_FOUND, json!({"error": "not_found", "reason": reason}))
    }

    /// 400 with a word and the value that it is about, as RabbitMQ shows many a wrong value.
    pub(super) fn wrong(word: &str, value: &Value) -> Self {
        Self::with_body(StatusCode::BAD_REQUEST, json!({"error": "bad_request", "reason": [word, value]}))
    }

    pub(super) fn bad_request(reason: impl Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    /// Who this is may not do that.
    pub(super) fn not_authorised(reason: &str) -> Self {
        let body = json!({"error": "not_authorised", "reason": reason});
        Self::with_body(StatusCode::UNAUTHORIZED, body)
    }

    /// Nobody in particular: a browser then asks for a password.
    pub(super) fn no_credentials() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, body: None, told: None }
    }

    /// Not a user, or not the password.
    pub(super) fn login_failed() -> Self {
        let body = json!({"error": "not_authorized", "reason": "Not_Authorized"});
        Self::with_body(StatusCode::UNAUTHORIZED, body)
    }

    /// What it says.
    pub(super) fn reason(&self) -> String {
        let reason = self.body.as_ref().and_then(|body| body.get("reason"));
        reason.map(|reason| reason.as_str().map_or_else(|| reason.to_string(), str::to_owned)).unwrap_or_default()
    }

    /// The whole of what is wrong, as the command line has it where it has more words for it.
    pub(super) fn whole_reason(&self) -> String {
        self.told.as_ref().map_or_else(|| self.reason(), |(text, _)| text.clone())
    }

    /// A bad request for this reason; the command line still says what it was.
    pub(super) fn with_reason(self, reason: &str) -> Self {
        Self { told: self.told, ..Self::bad_request(reason) }
    }

    /// For the command line: its own words, and the exit code.
    pub(super) fn into_local_response(self) -> Response {
        let Some((reason, exit_code)) = &self.told else {
            return self.into_response();
        };
        let body = json!({"error": "refused", "reason": reason, "exit_code": exit_code});
        (self.status, Json(body)).into_response()
    }

    pub(super) fn method_not_allowed() -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, body: None, told: None }
    }
}

impl From<OperationError> for Refusal {
    fn from(error: OperationError) -> Self {
        let told = Some((error.to_string(), error.exit_code()));
        let refusal = match error.http_status() {
            404 => Self::not_found(),
            status => Self::new(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), error),
        };
        Self { told, ..refusal }
    }
}

impl From<AmqpError> for Refusal {
    fn from(error: AmqpError) -> Self {
        // Over HTTP RabbitMQ leaves the name of the code away.
        let text = error.text.split_once(" - ").map_or(&*error.text, |(_, text)| text).to_owned();
        match error.code {
            ReplyCode::AccessRefused => Self::not_authorised("Access refused."),
            ReplyCode::NotFound => Self::missing(&text),
            _ => Self::bad_request(text),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let is_bare = self.body.is_none();
        let mut response = match self.body {
            Some(body) => (self.status, Json(body)).into_response(),
            None => self.status.into_response(),
        };
        // Only where nobody said who they are, as RabbitMQ does it: a browser would ask again after each refusal.
        if self.status == StatusCode::UNAUTHORIZED && is_bare {
            let challenge = HeaderValue::from_static("Basic realm=\"RabbitMQ Management\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self {
            Self::Value(value) => Json(value).into_response(),
            Self::Done => StatusCode::NO_CONTENT.into_response(),
            Self::Created(location) => {
                let mut response = StatusCode::CREATED.into_response();
                // A location with octets that no header can have is left out.
                if let Some(location) = location.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    response.headers_mut().insert(LOCATION, location);
                }
                response
            }
        }
    }
}

pub(super) async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}
