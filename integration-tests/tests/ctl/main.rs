//! `warren ctl`, and the same binary under the name `rabbitmqctl`: outputs, exit codes, and what they do.

mod bench;
mod drain;
mod facts;
mod vhosts;

use integration_tests::DEADLINE;
use integration_tests::id;
use integration_tests::process::{Broker, Launch};
use integration_tests::raw::Raw;
use std::os::unix::fs::symlink;
use std::process::Command;

const BINARY: &str = env!("CARGO_BIN_EXE_warren-under-test");

pub(crate) struct Rabbitmqctl<'b> {
    broker: &'b Broker,
    tool: &'static str,
}

impl<'b> Rabbitmqctl<'b> {
    pub(crate) fn of(broker: &'b Broker) -> Self {
        Self::named(broker, "rabbitmqctl")
    }

    /// The binary under another name.
    pub(crate) fn named(broker: &'b Broker, tool: &'static str) -> Self {
        symlink(BINARY, broker.launch().home().join(tool)).expect("a link");
        Self { broker, tool }
    }

    /// Standard output, and the exit code.
    #[track_caller]
    fn run(&self, arguments: &[&str]) -> (String, i32) {
        let (stdout, _, code) = self.told(arguments);
        (stdout, code)
    }

    /// Standard output, standard error, and the exit code.
    #[track_caller]
    pub(crate) fn told(&self, arguments: &[&str]) -> (String, String, i32) {
        let home = self.broker.launch().home();
        let mut command = Command::new(home.join(self.tool));
        command.current_dir(home).env("WARREN__STORAGE__DATA_DIR", home.join("data"));
        let output = command.args(["-n", "rabbit@anywhere"]).args(arguments).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr), output.status.code().expect("an exit code"))
    }

    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (shown, code) = self.run(arguments);
        assert_eq!(code, 0, "{arguments:?}: {shown}");
        shown
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) {
        assert_eq!(self.run(arguments).1, code, "{arguments:?}");
    }
}

pub(crate) fn start() -> Broker {
    Launch::new(BINARY).start()
}

pub(crate) fn connect(broker: &Broker) -> Raw {
    let mut raw = Raw::connect(broker.address());
    raw.login("guest", "guest");
    raw.open("/");
    raw
}

#[test]
fn exit_codes_are_rabbitmqctls() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    ctl.fails(64, &["nosuch_command"]);
    ctl.fails(64, &["add_user"]);
    ctl.fails(64, &["list_queues", "nosuchcolumn"]);
    ctl.fails(64, &["delete_queue", "nothing"]);
    ctl.done(&["add_user", "u", "p"]);
    ctl.fails(70, &["add_user", "u", "p"]);
    ctl.done(&["authenticate_user", "u", "p"]);
    ctl.fails(65, &["authenticate_user", "u", "wrong"]);
    ctl.done(&["set_permissions", "-p", "/", "u", ".*", "", ".*"]);
    ctl.fails(67, &["set_permissions", "-p", "/", "nobody", ".*", ".*", ".*"]);
    // What is refused, as RabbitMQ's command line counts it.
    ctl.fails(69, &["set_permissions", "-p", "nosuch", "u", ".*", ".*", ".*"]);
    ctl.fails(69, &["set_permissions", "u", "(", ".*", ".*"]);
    ctl.fails(69, &["set_topic_permissions", "-p", "nosuch", "u", "amq.topic", ".*", ".*"]);
    ctl.done(&["clear_permissions", "-p", "nosuch", "u"]);
    ctl.fails(65, &["set_policy", "-p", "nosuch", "p", "^a", r#"{"max-length":1}"#]);
    ctl.fails(69, &["set_policy", "p", "^a", "not JSON"]);
    ctl.fails(64, &["set_policy", "--priority", "x", "p", "^a", r#"{"max-length":1}"#]);
    ctl.fails(64, &["set_policy", "--description", "x", "p", "^a", r#"{"max-length":1}"#]);
    ctl.fails(69, &["set_user_limits", "nobody", r#"{"max-channels":1}"#]);
    ctl.fails(69, &["clear_password", "nobody"]);
    ctl.fails(69, &["clear_vhost_limits", "-p", "nosuch"]);
    ctl.fails(65, &["purge_queue", "nosuch"]);
    ctl.fails(65, &["import_definitions", "/nosuch"]);
    ctl.fails(65, &["set_disk_free_limit", "much"]);
    for list in ["list_queues", "list_exchanges", "list_bindings", "list_consumers"] {
        assert_eq!(ctl.done(&["-p", "nosuch", list, "--silent"]), "");
    }
    for list in ["list_policies", "list_permissions", "list_parameters", "list_vhost_limits"] {
        ctl.fails(65, &["-p", "nosuch", list]);
    }
    ctl.fails(69, &["clear_policy", "nothing"]);
    ctl.fails(65, &["delete_vhost", "nothing"]);
    ctl.fails(69, &["close_connection", "malformed", "reason"]);
    ctl.done(&["close_connection", "<rabbit@host.1.99999.0>", "reason"]);
    ctl.fails(69, &["eval", "os:cmd(\"id\")."]);
    ctl.done(&["set_policy", "--help"]);
    assert_eq!(ctl.done(&["-q", "list_permissions"]), "user\tconfigure\twrite\tread\nguest\t.*\t.*\t.*\nu\t.*\t\t.*\n");
    ctl.done(&["delete_user", "u"]);
    ctl.done(&["delete_user", "u"]);
}

#[test]
fn lists_have_rabbitmqctls_formats() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let mut raw = connect(&broker);
    raw.open_channel(1);
    raw.declare(1, "q", 2);
    let table = "Listing queues for vhost / ...\nname\tmessages\nq\t0\n";
    assert_eq!(ctl.done(&["list_queues", "name", "messages"]), table);
    let csv = ctl.done(&["list_queues", "-p", "/", "--formatter", "csv", "name", "messages"]);
    assert_eq!(csv, "\"name\",\"messages\"\n\"q\",\"0\"\n");
    let json = ctl.done(&["-q", "list_queues", "name", "messages", "--formatter", "json"]);
    assert_eq!(json, "[\n{\"messages\":0,\"name\":\"q\"}\n]\n");
    let connections = ctl.done(&["-q", "list_connections", "pid", "peer_port", "client_properties"]);
    let row = connections.lines().nth(1).expect("a connection");
    let pid = row.split('\t').next().expect("a pid");
    ctl.done(&["close_connection", pid, "Closed via rabbitmqctl"]);
    raw.expect(0, id::CONNECTION_CLOSE);
}

#[test]
fn alarms_and_the_application_go_on_and_off() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let alarms = || ctl.done(&["status"]).lines().find(|line| line.starts_with("alarms")).map(str::to_owned);
    let is = |text: &str| Some(format!("alarms       {text}"));
    assert_eq!(alarms(), is("none"));
    let set = "rabbit_alarm:set_alarm({{resource_limit, disk, node()}, []}).";
    assert_eq!(ctl.done(&["eval", set]), "ok\n");
    assert_eq!(alarms(), is("low on disk"));
    ctl.done(&["eval", "rabbit_alarm:clear_alarm({resource_limit, disk, node()})."]);
    ctl.done(&["set_vm_memory_high_watermark", "0.000000001"]);
    assert_eq!(alarms(), is("low on memory"));
    ctl.done(&["set_vm_memory_high_watermark", "0.9"]);
    assert_eq!(alarms(), is("none"));

    let mut raw = connect(&broker);
    raw.open_channel(1);
    raw.declare(1, "kept", 2);
    ctl.done(&["stop_app"]);
    raw.expect(0, id::CONNECTION_CLOSE);
    ctl.fails(69, &["check_running"]);
    assert!(std::net::TcpStream::connect_timeout(&broker.address(), DEADLINE).is_err());
    ctl.done(&["start_app"]);
    connect(&broker);
    assert_eq!(ctl.done(&["-q", "list_queues", "name"]), "name\nkept\n");
    assert!(broker.terminate().status.success());
}

#[test]
fn the_firehose_goes_on_and_off() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    ctl.done(&["add_vhost", "v"]);
    ctl.fails(64, &["trace_on", "v"]);
    ctl.fails(65, &["trace_on", "-p", "nosuch"]);
    let traced = || ctl.done(&["-q", "list_vhosts", "name", "tracing"]);
    assert_eq!(traced(), "name\ttracing\n/\tfalse\nv\tfalse\n");
    let shown = "Starting tracing for vhost \"v\" ...\nTrace enabled for vhost v\n";
    assert_eq!(ctl.done(&["trace_on", "-p", "v"]), shown);
    assert_eq!(ctl.done(&["-q", "trace_on"]), "Trace enabled for vhost /\n");
    assert_eq!(traced(), "name\ttracing\n/\ttrue\nv\ttrue\n");
    let shown = "Stopping tracing for vhost \"v\" ...\nTrace disabled for vhost v\n";
    assert_eq!(ctl.done(&["trace_off", "-p", "v"]), shown);
    assert_eq!(traced(), "name\ttracing\n/\ttrue\nv\tfalse\n");
}

#[test]
fn what_it_does_is_told_as_its_own() {
    let broker = start();
    let ctl = Rabbitmqctl::of(&broker);
    let mut raw = connect(&broker);
    raw.open_channel(1);
    for key in ["user.created", "queue.deleted", "alarm.*"] {
        raw.declare(1, "events", 2);
        raw.bind(1, "events", "amq.rabbitmq.event", key, &[]);
    }
    raw.declare(1, "q", 2);
    raw.consume(1, "events", "", 2);
    ctl.done(&["add_user", "u", "p"]);
    ctl.done(&["delete_queue", "q"]);
    ctl.done(&["set_alarm", "disk"]);
    ctl.done(&["set_alarm", "disk"]);
    ctl.done(&["clear_alarm", "disk"]);
    for (key, header) in
        [("user.created", "rmq-cli"), ("queue.deleted", "rmq-cli"), ("alarm.set", "disk"), ("alarm.cleared", "disk")]
    {
        let event = raw.delivery(1);
        assert_eq!(event.routing_key.as_str(), key);
        let properties = &event.content.properties;
        assert!(properties.windows(header.len()).any(|window| window == header.as_bytes()), "{key}: {properties:?}");
    }
}
