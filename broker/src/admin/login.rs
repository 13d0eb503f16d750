//! HTTP Basic: who asks over TCP.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answer::Refusal;
use super::request::Operator;
use crate::broker::Broker;
use crate::model::log_limit::LogLine;

/// Whoever guesses passwords waits so long for each answer.
const REFUSAL_DELAY: Duration = Duration::from_millis(250);

/// The user of a request's credentials.
pub(super) async fn log_in(broker: &Broker, headers: &HeaderMap, peer: IpAddr) -> Result<Operator, Refusal> {
    let Some(header) = headers.get(AUTHORIZATION) else {
        return Err(Refusal::no_credentials());
    };
    let credentials = header.to_str().ok().and_then(basic);
    let attempts = &broker.services.statistics.attempts.http;
    let outcome = credentials.map(|(user, password)| broker.auth.authenticate(&user, &password, peer));
    let reason = match outcome {
        Some(Ok(user)) => {
            attempts.count(true);
            return Ok(Operator::User(user));
        }
        Some(Err(failure)) => failure.to_string(),
        None => "malformed credentials".to_owned(),
    };
    attempts.count(false);
    let line = broker.auth.note_refusal();
    if line != LogLine::Skip {
        tracing::warn!(%peer, failure = reason, "login to the management API refused");
    }
    tokio::time::sleep(REFUSAL_DELAY).await;
    Err(Refusal::login_failed())
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_a_name_and_whatever_follows_the_colon() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(basic("Basic Z3Vlc3Q6Z3Vlc3Q="), pair("guest", "guest"));
        assert_eq!(basic("basic dTpwOmE="), pair("u", "p:a"));
        for wrong in ["", "Basic", "Basic !", "Bearer Z3Vlc3Q6Z3Vlc3Q=", "Basic Z3Vlc3Q=", "Basic /zo="] {
            assert_eq!(basic(wrong), None, "{wrong}");
        }
    }
}
