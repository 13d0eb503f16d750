//! The sources together.

use std::ffi::OsString;
use std::path::PathBuf;

use amq_protocol::types::AMQPValue;

use super::*;

/// Settings from a file's text, the environment and the command line.
fn load(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Settings, String> {
    use clap::Parser;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.toml");
    std::fs::write(&path, file).unwrap();
    let mut flags = Flags::try_parse_from([&["warren"], flags].concat()).unwrap();
    flags.config = Some(path);
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let prefix = format!("{}/", directory.path().display());
    Settings::load(&flags, environment).map_err(|error| error.to_string().replace(&prefix, ""))
}

fn addresses(settings: &Settings) -> Vec<String> {
    settings.listeners.amqp.iter().map(ToString::to_string).collect()
}

#[test]
fn listeners_for_operators_are_there_when_they_are_wanted() {
    let environment = [("WARREN__MANAGEMENT__LISTEN", "127.0.0.1:15673")];
    let settings = load("[prometheus]\nlisten = \"127.0.0.1:15693\"", &environment, &[]).unwrap();
    assert_eq!(settings.prometheus.listen.unwrap().to_string(), "127.0.0.1:15693");
    assert!(settings.management.listen.is_some());
    let settings = load("", &[], &[]).unwrap();
    assert!(settings.prometheus.listen.is_none() && settings.management.listen.is_none());
}

#[test]
fn the_log_has_a_format_and_a_limit_for_what_is_slow() {
    let settings = load("[log]\nformat = \"json\"\nslow_ms = 0", &[], &[]).unwrap();
    assert_eq!((settings.log.format, settings.log.slow), (LogFormat::Json, Duration::ZERO));
    let settings = load("", &[], &[]).unwrap();
    assert_eq!((settings.log.format, settings.log.slow), (LogFormat::Text, Duration::from_secs(1)));
    assert!(load("[log]\nformat = \"xml\"", &[], &[]).is_err());
}

#[test]
fn the_defaults_need_no_file() {
    let settings = Settings::load(&Flags::default(), []).unwrap();
    assert_eq!(addresses(&settings), ["0.0.0.0:5672", "[::]:5672"]);
    assert!(settings.listeners.amqp.iter().all(ListenAddress::is_default));
    assert_eq!(settings.listeners.handshake_timeout, Duration::from_secs(10));
    assert_eq!(settings.storage.data_dir, PathBuf::from("./warren-data"));
    assert_eq!(settings.storage.segment_bytes, 64 * 1024 * 1024);
    assert_eq!(settings.log.level, "info");
    assert_eq!(settings.limits.channel_max, 2047);
    assert_eq!(settings.limits.frame_max, 131_072);
    assert_eq!(settings.limits.heartbeat_s, 60);
    assert_eq!(settings.limits.max_message_bytes, 134_217_728);
    assert_eq!(settings.auth.loopback_users, ["guest"]);
    assert_eq!(settings.auth.anonymous_user.as_deref(), Some("guest"));
    assert_eq!(settings.default_user.name, "guest");
    assert_eq!(settings.default_user.password.expose(), "guest");
    assert_eq!(settings.default_user.vhost, "/");
    assert_eq!(settings.default_user.tags, ["administrator"]);
    assert_eq!(settings.compatibility.product, "RabbitMQ");
    assert_eq!(settings.compatibility.version, "4.3.6");
    assert_eq!(settings.compatibility.frame_max_min, 4096);
    let rules = VhostRules { max_message_bytes: 134_217_728, ..VhostRules::default() };
    assert_eq!(settings.rules_of("/"), rules);
    assert!(settings.topology.queues.is_empty());
}

#[test]
fn a_vhost_says_what_its_clients_may_do() {
    let file = "[compatibility]\nglobal_qos = false\nredeclare = 'relaxed'\n\
                [[vhost]]\nname = 'a'\nglobal_qos = true\nmax_message_bytes = 1000\n\
                [[vhost]]\nname = 'b'\ntransient_nonexclusive_queues = false\nredeclare = 'strict'\n";
    let environment = [("WARREN__COMPATIBILITY__TRANSIENT_NONEXCLUSIVE_QUEUES", " true ")];
    let settings = load(file, &environment, &[]).unwrap();
    let general = VhostRules {
        transient_nonexclusive_queues: true,
        global_qos: false,
        redeclare: Redeclare::Relaxed,
        max_message_bytes: 134_217_728,
    };
    assert_eq!(settings.rules_of("/"), general);
    assert_eq!(settings.rules_of("a"), VhostRules { global_qos: true, max_message_bytes: 1000, ..general });
    let b = VhostRules { transient_nonexclusive_queues: false, redeclare: Redeclare::Strict, ..general };
    assert_eq!(settings.rules_of("b"), b);
}

#[test]
fn rules_that_make_no_sense_are_named() {
    let error = |text: &str| load(text, &[], &[]).unwrap_err();
    assert_eq!(
        error("[compatibility]\nredeclare = 'lax'"),
        "compatibility.redeclare = \"lax\" (file w.toml, line 2): must be \"strict\" or \"relaxed\""
    );
    assert_eq!(
        error("[compatibility]\nglobal_qos = 'true'"),
        "compatibility.global_qos = \"true\" (file w.toml, line 2): must be true or false, without quotes"
    );
    assert_eq!(
        error("[limits]\nmax_message_bytes = 5\n[[vhost]]\nname = 'v'\nmax_message_bytes = 6"),
        "[[vhost]] number 1 (name \"v\"), file w.toml, line 3: max_message_bytes must be between 1 and limits.max_message_bytes, which is 5"
    );
}

#[test]
fn file_then_environment_then_flags() {
    let file =
        "[storage]\ndata_dir = \"from-file\"\n[limits]\nheartbeat_s = 1\nchannel_max = 5\n[log]\nlevel = \"warn\"";
    let environment =
        [("WARREN__STORAGE__DATA_DIR", "from-environment"), ("WARREN__LIMITS__HEARTBEAT_S", "2"), ("PATH", "/bin")];
    let settings = load(file, &environment, &["--data-dir", "from-flag"]).unwrap();
    assert_eq!(settings.storage.data_dir, PathBuf::from("from-flag"));
    assert_eq!(settings.limits.heartbeat_s, 2);
    assert_eq!(settings.limits.channel_max, 5);
    assert_eq!(settings.log.level, "warn");
    assert_eq!(settings.limits.frame_max, 131_072);
}

#[test]
fn a_value_can_be_traced_to_its_source() {
    let environment = [("WARREN__LIMITS__HEARTBEAT_S", "2")];
    let flags = ["--listen", "127.0.0.1:0"];
    let settings = load("[log]\nlevel = \"warn\"", &environment, &flags).unwrap();
    assert_eq!(settings.describe("storage.data_dir"), "storage.data_dir = \"./warren-data\" (default)");
    assert!(settings.describe("log.level").ends_with("w.toml, line 2)"));
    assert_eq!(
        settings.describe("limits.heartbeat_s"),
        "limits.heartbeat_s = 2 (environment variable WARREN__LIMITS__HEARTBEAT_S)"
    );
    assert_eq!(settings.describe("listeners.amqp"), "listeners.amqp = [\"127.0.0.1:0\"] (flag --listen)");
    assert_eq!(settings.describe("default_user.password"), "default_user.password = <hidden> (default)");
    assert_eq!(settings.describe("listeners.tls"), "listeners.tls = [] (default)");
}

#[test]
fn listen_flags_replace_the_list_and_are_explicit() {
    let flags = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let settings = load("[listeners]\namqp = [\"10.0.0.1:1\"]", &[], &flags).unwrap();
    assert_eq!(addresses(&settings), ["127.0.0.1:0", "[::1]:0"]);
    assert!(!settings.listeners.amqp.iter().any(ListenAddress::is_default));

    let environment = [("WARREN__LISTENERS__AMQP", "127.0.0.1:1, localhost:2")];
    let settings = load("", &environment, &[]).unwrap();
    assert_eq!(addresses(&settings), ["127.0.0.1:1", "localhost:2"]);
}

#[test]
fn the_first_user_comes_from_rabbitmqs_variables_too() {
    let environment =
        [("RABBITMQ_DEFAULT_USER", "ann"), ("RABBITMQ_DEFAULT_PASS", "00123"), ("RABBITMQ_DEFAULT_VHOST", "")];
    let settings = load("[default_user]\nvhost = \"v\"", &environment, &[]).unwrap();
    assert_eq!(settings.default_user.name, "ann");
    assert_eq!(settings.default_user.password.expose(), "00123");
    assert_eq!(settings.default_user.vhost, "v");

    let stronger = [("RABBITMQ_DEFAULT_USER", "ann"), ("WARREN__DEFAULT_USER__NAME", "bob")];
    let settings = load("", &stronger, &[]).unwrap();
    assert_eq!(settings.default_user.name, "bob");
}

#[test]
fn the_node_has_a_name_of_its_own_or_none() {
    assert_eq!(load("", &[], &[]).unwrap().node_name, None);
    let named = load("", &[("RABBITMQ_NODENAME", "rabbit@orders")], &[]).unwrap();
    assert_eq!(named.node_name.as_deref(), Some("rabbit@orders"));
    let error = load("[node]\nname = \"two words\"", &[], &[]).unwrap_err();
    assert!(error.ends_with("one word of at most 255 bytes, such as rabbit@orders"), "{error}");
}

#[test]
fn mistakes_in_the_environment_name_the_variable() {
    let error = |name: &str, value: &str| load("", &[(name, value)], &[]).unwrap_err();
    assert_eq!(
        error("WARREN__LISTENERS__AMPQ", "x"),
        "unknown key \"listeners.ampq\" (environment variable WARREN__LISTENERS__AMPQ); did you mean WARREN__LISTENERS__AMQP (key listeners.amqp)?"
    );
    assert_eq!(
        error("WARREN__LIMITS__FRAME_MAX", "100"),
        "limits.frame_max = 100 (environment variable WARREN__LIMITS__FRAME_MAX): 100 must be 0 (no limit) or at least 4096"
    );
    assert_eq!(
        error("WARREN__PROMETHEUS__LISTEN", "nowhere"),
        "prometheus.listen = \"nowhere\" (environment variable WARREN__PROMETHEUS__LISTEN): must be an address with a port, such as 127.0.0.1:5672, [::1]:5672 or localhost:5672"
    );
    assert_eq!(
        error("WARREN__QUEUE__NAME", "x"),
        "environment variable WARREN__QUEUE__NAME: [[queue]] can be given in the configuration file only"
    );
    assert_eq!(
        error("WARREN__DEFAULT_USER__PASSWORD", ""),
        "default_user.password = <hidden> (environment variable WARREN__DEFAULT_USER__PASSWORD): may not be empty"
    );
}

#[cfg(unix)]
#[test]
fn a_value_that_is_not_utf8_is_an_error_only_in_our_variables() {
    use std::os::unix::ffi::OsStringExt;

    let variable = |name: &str| (OsString::from(name), OsString::from_vec(vec![0xff]));
    assert!(Settings::load(&Flags::default(), [variable("PATH")]).is_ok());
    let error = Settings::load(&Flags::default(), [variable("WARREN__LOG__LEVEL")]).unwrap_err();
    assert_eq!(error.to_string(), "environment variable WARREN__LOG__LEVEL: the value is not valid UTF-8");
}

#[test]
fn addresses_and_filters_are_checked() {
    assert_eq!(
        load("", &[], &["--listen", "5672"]).unwrap_err(),
        "listeners.amqp = [\"5672\"] (flag --listen): \"5672\" must be an address with a port, such as 127.0.0.1:5672, [::1]:5672 or localhost:5672"
    );
    assert!(load("[listeners]\namqp = []", &[], &[]).is_err());
    for good in ["DEBUG", "warn,broker::session=debug", "off,storage=trace"] {
        assert!(load("", &[], &["--log", good]).is_ok(), "{good}");
    }
    let error = load("", &[], &["--log", "inof"]).unwrap_err();
    assert!(error.starts_with("log.level = \"inof\" (flag --log): \"inof\" is neither a level"), "{error}");
    assert!(load("", &[], &["--log", "broker=loud"]).is_err());
}

#[test]
fn an_anonymous_user_can_be_turned_off() {
    let settings = load("[auth]\nanonymous_user = \"\"\nloopback_users = []", &[], &[]).unwrap();
    assert_eq!(settings.auth.anonymous_user, None);
    assert!(settings.auth.loopback_users.is_empty());
}

const TOPOLOGY: &str = r#"
[[vhost]]
name = "shop"

[[exchange]]
name = "events"
type = "topic"

[[exchange]]
vhost = "shop"
name = "raw"
type = "fanout"
durable = false
auto_delete = true
internal = true
arguments = { alternate-exchange = "events" }

[[queue]]
name = "work"
arguments = { "x-max-length" = 10, x-since = 2001-09-09T01:46:40Z }

[[binding]]
source = "events"
destination = "work"
routing_key = "a.*"

[[binding]]
source = "events"
destination = "raw"
destination_type = "exchange"

[[user]]
name = "ann"
password = "00123"
tags = ["monitoring"]

[[permission]]
user = "ann"
configure = ""
write = ".*"
read = "^work$"
"#;

#[test]
fn the_file_declares_topology() {
    let topology = load(TOPOLOGY, &[], &[]).unwrap().topology;
    assert_eq!(topology.vhosts[0].name, "shop");
    let [events, raw] = topology.exchanges.as_slice() else {
        panic!("two exchanges");
    };
    assert_eq!((events.vhost.as_str(), events.kind.as_str()), ("/", "topic"));
    assert!(events.durable && !events.auto_delete && !events.internal);
    assert!(!raw.durable && raw.auto_delete && raw.internal);
    assert_eq!(raw.vhost, "shop");
    assert!(raw.arguments.contains_key("alternate-exchange"));
    let queue = &topology.queues[0];
    assert!(queue.durable && !queue.auto_delete);
    let arguments = queue.arguments.inner();
    assert_eq!(arguments.get("x-max-length"), Some(&AMQPValue::LongLongInt(10)));
    assert_eq!(arguments.get("x-since"), Some(&AMQPValue::Timestamp(1_000_000_000)));
    let [to_queue, to_exchange] = topology.bindings.as_slice() else {
        panic!("two bindings");
    };
    assert_eq!(to_queue.destination_type, DestinationType::Queue);
    assert_eq!(to_queue.routing_key, "a.*");
    assert_eq!(to_exchange.destination_type, DestinationType::Exchange);
    assert_eq!(to_exchange.routing_key, "");
    let user = &topology.users[0];
    let UserSecret::Password(password) = &user.secret else {
        panic!("a password");
    };
    assert_eq!(password.expose(), "00123");
    assert_eq!(user.tags, ["monitoring"]);
    let permission = &topology.permissions[0];
    assert_eq!(
        (permission.configure.as_str(), permission.write.as_str(), permission.read.as_str()),
        ("", ".*", "^work$")
    );
}

#[test]
fn mistakes_in_an_entry_name_the_entry() {
    let error = |text: &str| load(text, &[], &[]).unwrap_err();
    let two = "[[queue]]\nname = \"a\"\n\n[[queue]]\nname = \"x\"\n";
    assert_eq!(
        error(&format!("{two}durable = \"yes\"")),
        "[[queue]] number 2 (name \"x\"), file w.toml, line 4: durable = \"yes\" must be true or false, without quotes"
    );
    assert_eq!(
        error(&format!("{two}autodelete = true")),
        "[[queue]] number 2 (name \"x\"), file w.toml, line 4: unknown key \"autodelete\"; did you mean auto_delete?"
    );
    assert_eq!(
        error(&format!("{two}arguments = {{ x-a = 07:00:00 }}")),
        "[[queue]] number 2 (name \"x\"), file w.toml, line 4: argument \"x-a\": 07:00:00 is a time without a date"
    );
    for (text, problem) in [
        ("[[queue]]\ndurable = true", "name is missing"),
        ("[[queue]]\nname = 5", "name must be text in quotes, not an integer"),
        ("[[queue]]\nname = \"\"", "name may not be empty"),
        ("[[exchange]]\nname = \"a\"", "type is missing"),
        (
            "[[queue]]\nname = \"a\"\narguments = 3",
            "arguments must be a table, such as { x-max-length = 10 }, not an integer",
        ),
        ("[[queue]]\nname = \"a\"\ndurable = 1", "durable must be true or false, not an integer"),
        (
            "[[binding]]\nsource = \"a\"\ndestination = \"b\"\ndestination_type = \"topic\"",
            "destination_type = \"topic\" must be \"queue\" or \"exchange\"",
        ),
        ("[[user]]\nname = \"a\"", "password or password_hash is missing"),
        ("[[user]]\nname = \"a\"\npassword = \"\"", "password may not be empty"),
        (
            "[[user]]\nname = \"a\"\npassword = \"a\"\npassword_hash = \"b\"",
            "only one of password and password_hash may be given",
        ),
        (
            "[[user]]\nname = \"a\"\npassword_hash = \"c2hvcnQ=\"",
            "password_hash must be the base64 of a 4-byte salt and a SHA-256 hash",
        ),
        (
            "[[user]]\nname = \"a\"\npassword = \"b\"\ntags = \"c\"",
            "tags must be a list of texts, such as [\"a\", \"b\"]",
        ),
        ("[[permission]]\nuser = \"a\"\nwrite = \"\"\nread = \"\"", "configure is missing"),
    ] {
        assert!(error(text).ends_with(&format!(": {problem}")), "{}", error(text));
    }
    assert!(error("[queue]\nname = \"a\"").ends_with("each written [[queue]]"));
    let long = format!("[[queue]]\nname = \"{}\"", "n".repeat(256));
    assert!(error(&long).ends_with("is longer than 255 bytes"));
}

#[test]
fn nothing_printed_for_debugging_shows_a_password() {
    let text = "[default_user]\npassword = \"4711\"\n[[user]]\nname = \"a\"\npassword = \"4712\"";
    let shown = format!("{:?}", load(text, &[], &[]).unwrap());
    assert!(!shown.contains("4711") && !shown.contains("4712"));
}

#[test]
fn storage_has_the_same_defaults() {
    let settings = Settings::defaults().unwrap().storage;
    let options = storage::Options::new(&settings.data_dir);
    assert_eq!(options.segment_bytes, settings.segment_bytes);
    assert_eq!(options.pool_segments, settings.pool_segments);
    assert_eq!(options.checkpoint_interval, settings.checkpoint_interval);
    assert_eq!(options.snapshot_bytes, settings.snapshot_bytes);
    assert_eq!(options.sled_cache_bytes, settings.sled_cache_bytes);
    assert_eq!(options.disk_free_limit, settings.disk_free_limit);
    assert_eq!(options.reserve_segments, settings.reserve_segments);
    assert_eq!(options.index_cache_bytes, settings.index_cache_bytes);
}
