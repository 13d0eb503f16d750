//! `POST /api/warren/backup`: a copy of the data while the broker goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use storage::BackupError;

use super::Context;
use super::answer::Refusal;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Where to; absolute, since the broker's working directory is nobody else's.
    directory: PathBuf,
}

/// What the backup holds.
#[derive(Serialize)]
pub(super) struct Done {
    directory: PathBuf,
    lsn: u64,
    segments: usize,
    large_files: usize,
    linked_bytes: u64,
    copied_bytes: u64,
}

/// Answers when the backup is whole, or has failed. A client that goes away meanwhile cancels it.
pub(super) async fn post(
    State(context): State<Context>,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<Json<Done>, Refusal> {
    let Json(Request { directory }) =
        request.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    if !directory.is_absolute() {
        let reason = format!("{} is not an absolute path", directory.display());
        return Err(Refusal::new(StatusCode::BAD_REQUEST, reason));
    }
    let cancel = Cancel::default();
    let cancelled = Arc::clone(&cancel.0);
    let dest = directory.clone();
    tracing::info!(directory = %dest.display(), "backup begins");
    let store = Arc::clone(&context.broker.store);
    let outcome =
        tokio::task::spawn_blocking(move || store.backup(&dest, &|| !cancelled.load(Ordering::Acquire))).await;
    let outcome = outcome.map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    match outcome {
        Ok(report) => {
            tracing::info!(directory = %directory.display(), ?report, "backup done");
            Ok(Json(Done {
                directory,
                lsn: report.lsn,
                segments: report.segments,
                large_files: report.large_files,
                linked_bytes: report.linked_bytes,
                copied_bytes: report.copied_bytes,
            }))
        }
        Err(error) => {
            tracing::warn!(directory = %directory.display(), %error, "no backup");
            Err(Refusal::new(status_of(&error), error))
        }
    }
}

fn status_of(error: &BackupError) -> StatusCode {
    match error {
        BackupError::Busy => StatusCode::CONFLICT,
        BackupError::Destination { .. } => StatusCode::BAD_REQUEST,
        BackupError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Dropped with the handler, also when the client has gone.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
