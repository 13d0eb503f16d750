//! TLS: clients, certificates, EXTERNAL, and certificates that change while the broker runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use crate::support::*;
use integration_tests::DEADLINE;
use integration_tests::process::{Broker, Launch};
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionBuilder, ConnectionProperties};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

const WARREN_ONLY: &str = "it is about Warren's own configuration";

/// An authority and a directory for what it has signed.
struct Authority {
    dir: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(launch: &Launch, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let dir = launch.home().to_owned();
        std::fs::write(dir.join(format!("{name}.pem")), &pem).unwrap();
        Self { dir, pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key in PEM, for localhost and with that common name.
    fn sign(&self, common_name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "tests");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes what the broker shows.
    fn write_server(&self) {
        let (certificate, key) = self.sign("broker");
        std::fs::write(self.dir.join("server.pem"), certificate).unwrap();
        std::fs::write(self.dir.join("server.key"), key).unwrap();
    }

    fn trusted(&self, identity: Option<(String, String)>) -> OwnedTLSConfig {
        let identity = identity.map(|(pem, key)| OwnedIdentity::PKCS8 { pem: pem.into_bytes(), key: key.into_bytes() });
        OwnedTLSConfig { identity, cert_chain: Some(self.pem.clone()) }
    }
}

/// A broker with a TLS listener and these further lines in its configuration.
fn start(launch: Launch, listeners: &str, tls: &str, rest: &str) -> Broker {
    let dir = launch.home().display().to_string();
    let config = format!(
        "[listeners]\ntls = [\"127.0.0.1:0\"]\n{listeners}\n\
         [tls]\ncertificate = \"{dir}/server.pem\"\nkey = \"{dir}/server.key\"\nca = \"{dir}/ca.pem\"\n{tls}\n{rest}\n"
    );
    launch.config(&config).start()
}

fn tls_address(broker: &Broker) -> SocketAddr {
    let (_, rest) = broker.ready_line().split_once("amqps://").expect("a TLS listener");
    rest[..rest.find([',', ';']).unwrap()].parse().unwrap()
}

async fn connect(broker: &Broker, login: &str, query: &str, tls: OwnedTLSConfig) -> lapin::Result<Connection> {
    let uri = format!("amqps://{login}localhost:{}/%2f{query}", tls_address(broker).port());
    let builder = ConnectionBuilder::new()?.with_uri_str(uri);
    builder.with_properties(ConnectionProperties::default()).with_tls_config(tls).connect().await
}

async fn works(connection: &Connection) {
    let channel = connection.create_channel().await.unwrap();
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    let name = queue.name().clone();
    // Larger than a TLS record, and than a frame.
    let body = vec![7; 300_000];
    let properties = BasicProperties::default();
    channel.basic_publish("".into(), name.clone(), BasicPublishOptions::default(), &body, properties).await.unwrap();
    let got = channel.basic_get(name, BasicGetOptions { no_ack: true }).await.unwrap().expect("the message");
    assert!(got.data == body, "another body of {} octets", got.data.len());
}

#[test]
fn lapin_speaks_tls_and_trusts_whom_it_should() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    let (ca, stranger) = (Authority::new(&launch, "ca"), Authority::new(&launch, "stranger"));
    ca.write_server();
    let broker = start(launch, "", "", "");
    block_on(async {
        works(&connect(&broker, "guest:guest@", "", ca.trusted(None)).await.unwrap()).await;
        assert!(connect(&broker, "guest:guest@", "", stranger.trusted(None)).await.is_err());
        assert!(connect(&broker, "guest:wrong@", "", ca.trusted(None)).await.is_err());
        // Nobody is asked for a certificate, so nobody logs in with one.
        assert!(connect(&broker, "", "?auth_mechanism=external", ca.trusted(Some(ca.sign("ann")))).await.is_err());
    });
}

#[test]
fn a_certificate_logs_in_the_user_that_it_names() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    let (ca, stranger) = (Authority::new(&launch, "ca"), Authority::new(&launch, "stranger"));
    ca.write_server();
    let ann = "[[user]]\nname = \"ann\"\npassword = \"not needed\"\n\
               [[permission]]\nuser = \"ann\"\nvhost = \"/\"\nconfigure = \".*\"\nwrite = \".*\"\nread = \".*\"\n";
    let broker = start(launch, "", "verify = \"peer\"\nlogin_from = \"common_name\"", ann);
    let external = |identity| connect(&broker, "", "?auth_mechanism=external", ca.trusted(identity));
    block_on(async {
        works(&external(Some(ca.sign("ann"))).await.unwrap()).await;
        assert!(external(Some(ca.sign("bob"))).await.is_err(), "no such user");
        broker.wait_for_log(&["user 'bob' does not exist"]);
        assert!(external(None).await.is_err());
        broker.wait_for_log(&["connection peer presented no TLS (x.509) certificate"]);
        assert!(external(Some(stranger.sign("ann"))).await.is_err(), "nobody vouches for it");
        broker.wait_for_log(&["no TLS handshake"]);
        works(&connect(&broker, "guest:guest@", "", ca.trusted(None)).await.unwrap()).await;
    });
}

#[test]
fn certificates_change_while_connections_stay() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    let (ca, next) = (Authority::new(&launch, "ca"), Authority::new(&launch, "next"));
    ca.write_server();
    let broker = start(launch, "", "", "");
    block_on(async {
        let before = connect(&broker, "guest:guest@", "", ca.trusted(None)).await.unwrap();
        std::fs::write(next.dir.join("server.key"), "nonsense").unwrap();
        broker.hangup();
        broker.wait_for_log(&["the configuration could not be read again", "server.key"]);
        works(&connect(&broker, "guest:guest@", "", ca.trusted(None)).await.unwrap()).await;
        next.write_server();
        broker.hangup();
        broker.wait_for_log(&["the configuration was read again"]);
        assert!(connect(&broker, "guest:guest@", "", ca.trusted(None)).await.is_err());
        works(&connect(&broker, "guest:guest@", "", next.trusted(None)).await.unwrap()).await;
        works(&before).await;
    });
}

/// Reads until the broker hangs up, which must not take longer than the deadline.
fn read_to_the_end(socket: &mut TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut octets = Vec::new();
    match socket.read_to_end(&mut octets) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    octets
}

#[test]
fn who_does_not_speak_tls_is_shown_out() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    let ca = Authority::new(&launch, "ca");
    ca.write_server();
    let broker = start(launch, "handshake_timeout_ms = 300", "versions = [\"1.3\"]", "");
    let connect = || TcpStream::connect(tls_address(&broker)).unwrap();
    // Plain AMQP, garbage, and a hello of TLS 1.2 that is cut off.
    for opening in [&b"AMQP\0\0\x09\x01"[..], &[0xff; 64], b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"] {
        let mut socket = connect();
        socket.write_all(opening).unwrap();
        let answer = read_to_the_end(&mut socket);
        assert!(!answer.starts_with(b"AMQP"), "{answer:?}");
    }
    // Somebody who says nothing, and somebody who says nothing at the other door.
    assert!(read_to_the_end(&mut connect()).is_empty());
    assert!(read_to_the_end(&mut TcpStream::connect(broker.address()).unwrap()).is_empty());
    block_on(async { works(&self::connect(&broker, "guest:guest@", "", ca.trusted(None)).await.unwrap()).await });
}

#[test]
fn what_is_wrong_with_a_certificate_is_one_line() {
    let launch = launch();
    let ca = Authority::new(&launch, "ca");
    ca.write_server();
    std::fs::write(ca.dir.join("server.key"), ca.sign("other").1).unwrap();
    let dir = launch.home().display().to_string();
    let config = format!(
        "[listeners]\ntls = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"{dir}/server.pem\"\nkey = \"{dir}/server.key\"\n"
    );
    let finished = launch.config(&config).run();
    crate::configuration::assert_refused(&finished, &["server.key: not the key of ", "server.pem"]);
    let finished = self::launch().config("[listeners]\ntls = [\"127.0.0.1:0\"]\n").run();
    crate::configuration::assert_refused(&finished, &["listeners.tls", "needs tls.certificate and tls.key"]);
}
