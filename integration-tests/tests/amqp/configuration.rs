//! Flags, environment, configuration file and topology in it; and the one line that says what is wrong.

use crate::support::*;
use integration_tests::id;
use integration_tests::process::{Broker, Finished, Launch};
use integration_tests::raw::{Handshake, Raw, Tune};
use integration_tests::wire::NO_PROPERTIES;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

/// Asserts that the process ended with code 1 and one line on stderr that contains all of this.
#[track_caller]
pub(crate) fn assert_refused(finished: &Finished, wanted: &[&str]) {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let lines: Vec<_> = finished.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let [line] = lines[..] else {
        panic!("not one line: {finished:?}");
    };
    for part in wanted {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

fn login(address: SocketAddr, user: &str, password: &str, vhost: &str) -> Raw {
    let mut raw = Raw::connect(address);
    raw.login(user, password);
    raw.open(vhost);
    raw.open_channel(1);
    raw
}

fn guest(broker: &Broker) -> Raw {
    login(broker.address(), "guest", "guest", "/")
}

/// Asserts that these credentials are not good enough.
#[track_caller]
fn assert_no_login(address: SocketAddr, user: &str, password: &str) {
    let mut raw = Raw::connect(address);
    raw.start();
    let handshake = Handshake::plain(user, password);
    raw.method(0, id::CONNECTION_START_OK, handshake.start_ok());
    assert_eq!(raw.connection_close().code, 403);
}

const WARREN_ONLY: &str = "it is about Warren's own configuration";

#[test]
fn the_version_is_printed() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let finished = launch().listen(None).data_dir(None).flag("--version").run();
    assert!(finished.status.success());
    assert!(finished.stdout.starts_with(concat!("warren ", env!("CARGO_PKG_VERSION"), " (")), "{}", finished.stdout);
}

#[test]
fn the_ready_line_names_addresses_and_directory() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let mut launch = launch();
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if ipv6 {
        launch = launch.flag("--listen").flag("[::1]:0");
    }
    let broker = launch.start();
    let directory = broker.launch().home().join("data");
    let line = broker.ready_line();
    assert!(line.contains(&directory.display().to_string()), "{line}");
    assert_eq!(broker.addresses().len(), 1 + usize::from(ipv6));
    for address in broker.addresses() {
        assert_ne!(address.port(), 0);
        let mut raw = login(*address, "guest", "guest", "/");
        assert_works(&mut raw, 1);
    }
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch().data_dir(None);
    let home = launch.home().to_owned();
    let used = |launch: &Launch, directory: &str| {
        let broker = launch.clone().start();
        drop(broker);
        let path = home.join(directory);
        assert!(path.is_dir(), "{directory} was not used");
        std::fs::remove_dir_all(path).expect("it can be removed");
        let rest: Vec<_> = std::fs::read_dir(&home)
            .expect("the home can be read")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name != "warren.toml")
            .collect();
        assert!(rest.is_empty(), "{rest:?}");
    };
    used(&launch, "warren-data");
    let launch = launch.config("[storage]\ndata_dir = 'from-file'\n");
    used(&launch, "from-file");
    let launch = launch.env("WARREN__STORAGE__DATA_DIR", "from-env");
    used(&launch, "from-env");
    let launch = launch.data_dir(Some(Path::new("from-flag")));
    used(&launch, "from-flag");
}

#[test]
fn listeners_come_from_the_file_or_the_environment() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch().listen(None).config("[listeners]\namqp = ['127.0.0.1:0', '127.0.0.1:0']\n");
    let broker = launch.clone().start();
    assert_eq!(broker.addresses().len(), 2);
    drop(broker);
    let broker = launch.env("WARREN__LISTENERS__AMQP", "127.0.0.1:0").start();
    assert_eq!(broker.addresses().len(), 1);
    assert_works(&mut guest(&broker), 1);
}

#[test]
fn limits_are_offered_in_tune() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch().config("[limits]\nchannel_max = 5\nframe_max = 8192\nheartbeat_s = 7\n").start();
    let mut raw = Raw::connect(broker.address());
    let tune = raw.handshake(&Handshake::plain("guest", "guest"));
    let expected = Tune { channel_max: 5, frame_max: 8192, heartbeat: 7 };
    assert_eq!(tune, expected);
}

#[test]
fn the_first_user_comes_from_the_environment() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch()
        .env("RABBITMQ_DEFAULT_USER", "admin")
        .env("RABBITMQ_DEFAULT_PASS", "00123")
        .env("RABBITMQ_DEFAULT_VHOST", "prod")
        .start();
    let mut raw = login(broker.address(), "admin", "00123", "prod");
    assert_works(&mut raw, 1);
    assert_no_login(broker.address(), "guest", "guest");
}

#[test]
fn the_first_user_comes_from_the_file() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch()
        .config("[default_user]\nname = 'admin'\npassword = 'secret'\nvhost = 'main'\ntags = ['administrator']\n")
        .start();
    let mut raw = login(broker.address(), "admin", "secret", "main");
    assert_works(&mut raw, 1);
    assert_no_login(broker.address(), "guest", "guest");
}

#[test]
fn users_and_permissions_come_from_the_file() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch()
        .config(
            "[[vhost]]\nname = 'other'\n\
             [[user]]\nname = 'reader'\npassword = '00123'\ntags = []\n\
             [[permission]]\nuser = 'reader'\nvhost = 'other'\nconfigure = '^$'\nwrite = '^$'\nread = '.*'\n",
        )
        .start();
    let mut raw = login(broker.address(), "reader", "00123", "other");
    raw.send_declare(1, "queue", 0, &[]);
    raw.expect_channel_close(
        1,
        403,
        "ACCESS_REFUSED - configure access to queue 'queue' in vhost 'other' refused for user 'reader'",
        id::QUEUE_DECLARE,
    );
    assert_no_login(broker.address(), "reader", "123");
    assert_works(&mut guest(&broker), 1);
}

const TOPOLOGY: &str = "
[[exchange]]
name = 'orders'
type = 'topic'
durable = true

[[exchange]]
name = 'archive'
type = 'fanout'
durable = true
auto_delete = false
internal = true

[[exchange]]
name = 'guarded'
type = 'direct'
durable = true
arguments = { alternate-exchange = 'orders' }

[[queue]]
name = 'incoming'
durable = true

[[queue]]
name = 'everything'
durable = true
arguments = { x-queue-type = 'classic', x-note = 'unknown keys are kept' }

[[binding]]
source = 'orders'
destination = 'incoming'
destination_type = 'queue'
routing_key = 'order.*'

[[binding]]
source = 'orders'
destination = 'archive'
destination_type = 'exchange'
routing_key = '#'

[[binding]]
source = 'archive'
destination = 'everything'
destination_type = 'queue'
routing_key = ''

[[binding]]
source = 'amq.headers'
destination = 'incoming'
destination_type = 'queue'
routing_key = ''
arguments = { x-match = 'all', number = 5, flag = true }
";

#[test]
fn topology_from_the_file_is_there_once_over_restarts() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let mut broker = launch().config(TOPOLOGY).start();
    for round in 0..3 {
        let mut raw = guest(&broker);
        raw.exchange(1, "orders", "topic", 2);
        raw.exchange(1, "archive", "fanout", 2 | 8);
        raw.declare(1, "incoming", 2);
        raw.publish(1, ("orders", "order.1"), 0, NO_PROPERTIES, b"order");
        raw.publish(1, ("guarded", "lost"), 0, NO_PROPERTIES, b"lost");
        let headers = integration_tests::wire::Bytes::new().field("number", b'b').octet(5).field("flag", b't').octet(1);
        let properties = integration_tests::wire::Bytes::new().short(1 << 13).table(headers);
        raw.publish(1, ("amq.headers", ""), 0, properties.as_ref(), b"headers");
        let mut take = |queue: &str| {
            let mut bodies = Vec::new();
            while let Some(message) = raw.get(1, queue, true) {
                bodies.push(message.text().to_owned());
            }
            bodies
        };
        assert_eq!(take("incoming"), ["order", "headers"], "round {round}");
        assert_eq!(take("everything"), ["order", "lost"], "round {round}");
        broker = if round == 0 { broker.restart() } else { broker.kill9().start() };
    }
}

#[test]
fn topology_that_conflicts_stops_the_start() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch().config(TOPOLOGY).start();
    let launch = broker.kill9();
    let cases = [
        (TOPOLOGY.replacen("type = 'topic'", "type = 'direct'", 1), ["orders", "type"]),
        (TOPOLOGY.replacen("internal = true", "internal = false", 1), ["archive", "internal"]),
        (TOPOLOGY.replacen("'incoming'\ndurable = true", "'incoming'\ndurable = false", 1), ["incoming", "durable"]),
        (TOPOLOGY.replacen("= 'orders' }", "= 'archive' }", 1), ["guarded", "alternate-exchange"]),
    ];
    for (config, wanted) in cases {
        assert_ne!(config, TOPOLOGY);
        let finished = launch.clone().other_config(&config).run();
        assert_refused(&finished, &wanted);
    }
    // The right one still starts.
    let broker = launch.start();
    guest(&broker).declare(1, "incoming", 2);
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for (config, wanted) in [
        ("[storage]\ndata_dri = 'x'\n", ["data_dri", "data_dir"]),
        ("[listener]\namqp = []\n", ["listener", "listeners"]),
        ("[limits]\nframemax = 1\n", ["framemax", "frame_max"]),
        ("[[queue]]\nnam = 'x'\n", ["nam", "name"]),
    ] {
        let finished = launch().config(config).run();
        assert_refused(&finished, &wanted);
    }
}

#[test]
fn values_that_make_no_sense_are_named() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for (config, wanted) in [
        ("[storage\n", &["warren.toml"][..]),
        ("[limits]\nframe_max = 'big'\n", &["frame_max", "big"]),
        ("[limits]\nframe_max = 100\n", &["frame_max", "100"]),
        ("[[exchange]]\nname = 'x'\ntype = 'toopic'\n", &["toopic"]),
        ("[[permission]]\nuser = 'guest'\nvhost = '/'\nconfigure = '('\nwrite = ''\nread = ''\n", &["configure", "("]),
    ] {
        let finished = launch().config(config).run();
        assert_refused(&finished, wanted);
    }
    let finished = launch().env("WARREN__LIMITS__FRAME_MAX", "big").run();
    assert_refused(&finished, &["frame_max", "big"]);
    let finished = launch().flag("--config").flag("no-such-file.toml").run();
    assert_refused(&finished, &["no-such-file.toml"]);
}

#[test]
fn a_port_in_use_is_named() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let finished = launch().listen(Some(&address)).run();
    assert_refused(&finished, &[&address]);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let launch = launch();
    // A file in the way stops even root.
    let file = launch.home().join("file");
    std::fs::write(&file, "in the way").expect("a file");
    let directory = file.join("data");
    let text = directory.display().to_string();
    let finished = launch.data_dir(Some(&directory)).run();
    assert_refused(&finished, &[&text]);
}

#[test]
fn a_directory_belongs_to_one_broker() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let broker = launch().start();
    let directory = broker.launch().home().join("data");
    let finished = broker.launch().clone().run();
    assert_refused(&finished, &[&directory.display().to_string()]);
    assert_works(&mut guest(&broker), 1);
    // A crash leaves no lock behind.
    let broker = broker.kill9().start();
    assert_works(&mut guest(&broker), 1);
}

#[test]
fn the_log_filter_is_a_flag() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    for filter in ["debug", "warn,broker=trace", "off"] {
        let broker = launch().flag("--log").flag(filter).start();
        assert_works(&mut guest(&broker), 1);
    }
}

#[test]
fn every_example_starts() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect("the examples") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("an example");
        let broker = launch().config(&text).start();
        // Twice, so that what it declares is seen to be idempotent.
        drop(broker.restart());
        count += 1;
    }
    assert!(count > 0, "there are no examples");
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    if peer_is_set(WARREN_ONLY) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/warren.toml");
    let text = std::fs::read_to_string(path).expect("the documented configuration");
    let broker = launch().config(&text).start();
    let mut raw = Raw::connect(broker.address());
    let tune = raw.handshake(&Handshake::plain("guest", "guest"));
    let expected = Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    assert_eq!(tune, expected);
}
