//! `/api/health/checks`, `/api/aliveness-test`.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, Refusal, Reply};
use super::request::Ask;
use crate::broker::Alarm;

pub(super) fn check(ask: &Ask, rest: &[&str]) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let application = &ask.broker().application;
    let listeners = application.listeners();
    match rest {
        ["alarms" | "local-alarms"] => {
            let alarms = ask.broker().alarms();
            let names = [(Alarm::Memory, "memory"), (Alarm::Disk, "disk")];
            let node = &ask.broker().node_name;
            let on = names.iter().filter(|(alarm, _)| alarms.has(*alarm));
            let on: Vec<_> = on.map(|(_, name)| json!({"node": node, "resource": name})).collect();
            if on.is_empty() { ok() } else { failed("There are alarms in effect on the node", "alarms", on.into()) }
        }
        ["virtual-hosts"] | ["metadata-store", "initialized"] | ["metadata-store", "initialized", "with-data"] => ok(),
        // Every quorum queue of a broker of one node has its leader there.
        ["quorum-queues-without-elected-leaders", "all-vhosts"] => ok(),
        ["quorum-queues-without-elected-leaders", "all-vhosts", "pattern", _] => ok(),
        ["quorum-queues-without-elected-leaders", "vhost", vhost] => {
            ask.vhost(vhost)?;
            ok()
        }
        ["quorum-queues-without-elected-leaders", "vhost", vhost, "pattern", _] => {
            ask.vhost(vhost)?;
            ok()
        }
        ["certificate-expiration", within, unit] => {
            let seconds = match *unit {
                "days" => 86_400,
                "weeks" => 7 * 86_400,
                "months" => 30 * 86_400,
                "years" => 365 * 86_400,
                _ => {
                    return Err(Refusal::bad_request(
                        "Time unit not recognised. Supported units: days, weeks, months, years.",
                    ));
                }
            };
            let within: i64 = within.parse().map_err(|_| Refusal::bad_request("Invalid number of time units"))?;
            let until = ask.broker().clock().now_ms() as i64 / 1000 + within.saturating_mul(seconds);
            let expiry = ask.broker().tls.as_ref().map(|tls| tls.expiry());
            let node = &ask.broker().node_name;
            let ending = expiry.iter().flat_map(|all| all.iter()).filter(|(_, end)| *end <= until);
            let ending: Vec<_> =
                ending.map(|(file, end)| json!({"node": node, "certfile": file, "expires_at": end})).collect();
            if ending.is_empty() { ok() } else { failed("Certificates expiring", "expired", ending.into()) }
        }
        ["node-is-quorum-critical"] => Ok(Reply::Value(json!({"status": "ok", "reason": "single node cluster"}))),
        ["below-node-connection-limit"] => match ask.broker().node_connection_limit() {
            None => ok(),
            Some(limit) => failed("node connection limit is reached", "limit", limit.into()),
        },
        ["is-in-service" | "ready-to-serve-clients"] => {
            if application.is_running() {
                return ok();
            }
            failed("the rabbit node is not serving clients", "status", "failed".into())
        }
        ["port-listener", port] => {
            let wanted: u16 = port.parse().map_err(|_| Refusal::bad_request("Invalid port"))?;
            let ports: Vec<u16> = listeners.iter().map(|(_, address)| address.port()).collect();
            if ports.contains(&wanted) {
                return Ok(Reply::Value(json!({"port": wanted, "status": "ok"})));
            }
            let body = json!({"ports": ports, "reason": "No active listener", "status": "failed", "missing": wanted});
            Err(Refusal::with_body(StatusCode::SERVICE_UNAVAILABLE, body))
        }
        ["protocol-listener", protocol] => {
            let wanted = match *protocol {
                "amqp091" | "amqp0.9.1" | "amqp" => "amqp",
                other => other,
            };
            let mut protocols: Vec<_> = listeners.iter().map(|(protocol, _)| *protocol).collect();
            protocols.dedup();
            if protocols.contains(&wanted) {
                return Ok(Reply::Value(json!({"protocols": protocols, "status": "ok"})));
            }
            let body = json!({
                "protocols": protocols, "reason": "No active listener", "status": "failed", "missing": [protocol]
            });
            Err(Refusal::with_body(StatusCode::SERVICE_UNAVAILABLE, body))
        }
        _ => Err(Refusal::not_found()),
    }
}

fn ok() -> Answer {
    Ok(Reply::Value(json!({"status": "ok"})))
}

fn failed(reason: &str, field: &str, value: Value) -> Answer {
    let mut body = json!({"status": "failed", "reason": reason});
    body[field] = value;
    Err(Refusal::with_body(StatusCode::SERVICE_UNAVAILABLE, body))
}

/// The virtual host is there and may be entered.
pub(super) fn aliveness(ask: &Ask, vhost: &str) -> Answer {
    if ask.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    ask.vhost(vhost)?;
    ok()
}
