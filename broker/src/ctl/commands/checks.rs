//! What monitoring asks, with an exit code for an answer.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::{Command, Outcome, command, exactly, number};
use crate::ctl::Session;
use crate::ctl::client::segment;
use crate::ctl::failure::{Failure, UNAVAILABLE};

pub(super) const COMMANDS: &[Command] = &[
    command("ping", "", "Whether the broker answers", ping),
    command("check_running", "", "Whether clients are served", running),
    command("is_running", "", "The same, as text", running),
    command("is_booting", "", "Whether the broker is still starting", booting),
    command("check_alarms", "", "Whether memory or disk are low", alarms),
    command("check_local_alarms", "", "The same", alarms),
    command("check_port_connectivity", "", "Whether every port takes connections", connectivity),
    command("check_port_listener", "PORT", "Whether something listens on a port", port),
    command("check_protocol_listener", "PROTOCOL", "Whether a protocol is served", protocol),
    command("check_virtual_hosts", "", "Whether all virtual hosts run", virtual_hosts),
    command(
        "check_certificate_expiration",
        "--within N --unit days|weeks|months|years",
        "Whether certificates expire within that time",
        certificates,
    ),
    command("check_if_node_is_quorum_critical", "", "Whether queues would lose their quorum with this node", critical),
    command("check_if_metadata_store_is_initialized", "", "Whether virtual hosts and users are loaded", metadata),
    command("check_if_any_deprecated_features_are_used", "", "Whether any is in use", deprecated),
    command("has_reached_target_cluster_size", "", "Whether all nodes are there: there is one", cluster_size),
];

/// How long a connection to a port of this machine may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One check of the API: what it says when all is well.
fn check(session: &Session, path: &str, well: &str) -> Outcome {
    match session.get(&format!("/api/health/checks/{path}")) {
        Ok(_) => session.say(well),
        Err(failure) => Err(failure.at_least(UNAVAILABLE)),
    }
}

fn ping(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.get("/api/whoami")?;
    session.say("Ping succeeded")
}

fn running(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    check(session, "is-in-service", "RabbitMQ on the node is fully booted and running")
}

/// Whoever answers has started.
fn booting(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    session.get("/api/whoami")?;
    session.say("RabbitMQ on the node is fully booted (check with is_running), stopped or has not started booting yet")
}

fn alarms(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    check(session, "alarms", "The node reported no alarms, local or clusterwide")
}

pub(super) fn listeners(session: &Session) -> Result<Vec<Value>, Failure> {
    let overview = session.get("/api/overview?columns=listeners")?;
    Ok(overview["listeners"].as_array().cloned().unwrap_or_default())
}

/// From here: a broker elsewhere may listen on addresses that mean nothing on this machine.
fn connectivity(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let mut ports = Vec::new();
    for listener in listeners(session)? {
        let (Some(port), Some(address)) = (listener["port"].as_u64(), listener["ip_address"].as_str()) else {
            continue;
        };
        let host = match session.host() {
            Some(host) => host.to_owned(),
            None if address == "0.0.0.0" => "127.0.0.1".to_owned(),
            None if address == "::" => "::1".to_owned(),
            None => address.to_owned(),
        };
        session.say(&format!("Will connect to {host}:{port}"))?;
        connect(&host, port).map_err(|error| Failure::new(UNAVAILABLE, format!("{host}:{port}: {error}")))?;
        ports.push(port.to_string());
    }
    if ports.is_empty() {
        return Err(Failure::new(UNAVAILABLE, "nothing is listened on"));
    }
    session.say(&format!("Successfully connected to ports {}", ports.join(", ")))
}

fn connect(host: &str, port: u64) -> std::io::Result<()> {
    use std::io::{Error, ErrorKind};
    use std::net::ToSocketAddrs;
    let port = u16::try_from(port).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let mut last = Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn port(session: &Session, given: &[String]) -> Outcome {
    let [port] = exactly(given)?;
    let port: u16 = number(port)?;
    let all: Vec<_> = listeners(session)?.iter().filter_map(|listener| listener["port"].as_u64()).collect();
    if all.contains(&u64::from(port)) {
        return session.say(&format!("A listener for port {port} is running on the node."));
    }
    let all = all.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let text = format!("No listener for port {port} is active. Found listeners that use the following ports: {all}");
    Err(Failure::new(UNAVAILABLE, text))
}

fn protocol(session: &Session, given: &[String]) -> Outcome {
    let [protocol] = exactly(given)?;
    // As the API knows it, which has other names for some.
    let path = format!("protocol-listener/{}", segment(protocol));
    let outcome = check(session, &path, &format!("A listener for protocol {protocol} is running on the node."));
    outcome.map_err(|failure| match listeners(session) {
        Ok(all) => {
            let mut all: Vec<_> = all.iter().filter_map(|listener| listener["protocol"].as_str()).collect();
            all.sort_unstable();
            all.dedup();
            let all = all.join(", ");
            let found = format!("Found listeners for the following protocols: {all}");
            Failure { text: format!("No listener for protocol {protocol} is active. {found}"), ..failure }
        }
        Err(_) => failure,
    })
}

fn virtual_hosts(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    check(session, "virtual-hosts", "The node reported all vhosts as running")
}

fn certificates(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let missing = |name: &str| Failure::usage(format!("--{name} is needed"));
    let within: u64 = number(session.words.get("within").ok_or_else(|| missing("within"))?)?;
    let unit = session.words.get("unit").ok_or_else(|| missing("unit"))?;
    if !["days", "weeks", "months", "years"].contains(&unit) {
        return Err(Failure::usage(format!("--unit is days, weeks, months or years, not {unit}")));
    }
    let path = format!("certificate-expiration/{within}/{unit}");
    check(session, &path, &format!("No certificates are expiring within {within} {unit}."))
}

fn critical(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let text = "The node seems to be the only one in a single node cluster, the check does not apply";
    check(session, "node-is-quorum-critical", text)
}

fn metadata(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    check(session, "metadata-store/initialized", "Metadata store on the node has completed its initialization")
}

fn deprecated(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    let used = session.get("/api/deprecated-features/used")?;
    let names: Vec<_> = used.as_array().into_iter().flatten().filter_map(|feature| feature["name"].as_str()).collect();
    if names.is_empty() {
        return session.say("No deprecated features are used");
    }
    Err(Failure::new(UNAVAILABLE, names.join("\n")))
}

fn cluster_size(session: &Session, given: &[String]) -> Outcome {
    let [] = exactly(given)?;
    check(session, "is-in-service", "Target cluster size has been reached")
}
