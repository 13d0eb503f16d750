//! What a supervisor is told, over a socket of its kind; and the unit file.

use integration_tests::DEADLINE;
use integration_tests::process::Launch;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_warren-under-test"))
}

/// The next message.
#[track_caller]
fn next(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(DEADLINE)).expect("a time limit");
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).expect("the supervisor was told nothing");
    String::from_utf8(buffer[..len].to_vec()).expect("text")
}

#[test]
fn the_supervisor_is_told_of_start_progress_and_end() {
    let launch = launch();
    let path = launch.home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let path = path.to_str().expect("a path in UTF-8");
    let broker = launch.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "100000").start();
    let ready = next(&socket);
    assert!(ready.starts_with("READY=1\nSTATUS=warren "), "{ready}");
    assert!(ready.contains(&broker.address().to_string()), "{ready}");
    for _ in 0..3 {
        assert_eq!(next(&socket), "WATCHDOG=1");
    }
    assert!(broker.terminate().status.success());
    let end = std::iter::repeat_with(|| next(&socket)).find(|text| text != "WATCHDOG=1");
    assert_eq!(end.as_deref(), Some("STOPPING=1\nSTATUS=stopping on SIGTERM"));
}

#[test]
fn the_supervisor_is_told_when_the_configuration_is_read_again() {
    let launch = launch().config("[log]\nlevel = 'warn'");
    let path = launch.home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let broker = launch.env("NOTIFY_SOCKET", path.to_str().expect("a path in UTF-8")).start();
    assert!(next(&socket).starts_with("READY=1\n"));
    std::fs::write(broker.launch().home().join("warren.toml"), "[log]\nlevel = 'info'\n").expect("written");
    broker.hangup();
    assert_eq!((next(&socket), next(&socket)), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    // The level holds at once.
    broker.wait_for_log(&["log.level", "holds from now on"]);
    assert!(broker.terminate().stderr.contains("stopping on SIGTERM"));
}

#[test]
fn an_abstract_socket_will_do() {
    let name = integration_tests::unique("notify");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let broker = launch().env("NOTIFY_SOCKET", &format!("@{name}")).start();
    assert!(next(&socket).starts_with("READY=1\n"));
    assert!(broker.terminate().status.success());
    // Without a watchdog there is nothing in between.
    assert_eq!(next(&socket), "STOPPING=1\nSTATUS=stopping on SIGTERM");
}

#[test]
fn the_watchdog_of_another_process_is_not_answered() {
    let name = integration_tests::unique("notify");
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let launch =
        launch().env("NOTIFY_SOCKET", &format!("@{name}")).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    let broker = launch.start();
    assert!(next(&socket).starts_with("READY=1\n"));
    assert!(broker.terminate().status.success());
    assert!(next(&socket).starts_with("STOPPING=1\n"));
}

#[test]
fn a_socket_that_is_not_there_stops_nobody() {
    for name in ["/nowhere/notify", "notify", "@nobody-listens-here"] {
        let broker = launch().env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000").start();
        assert!(broker.terminate().status.success(), "{name}");
    }
}

/// systemd's own check of the unit, where systemd is installed. It looks for the program, so that is put where the unit says.
#[test]
fn the_unit_is_one_that_systemd_takes() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/warren.service");
    let text = std::fs::read_to_string(&unit).expect("the unit");
    for line in
        ["Type=notify", "WatchdogSec=", "NoNewPrivileges=", "ProtectSystem=strict", "SystemCallFilter=", "LimitNOFILE="]
    {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}");
    }
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("systemd-analyze is not on this machine: the unit was not verified");
        return;
    }
    let home = tempfile::tempdir().expect("a directory");
    let copy = home.path().join("warren.service");
    let program = env!("CARGO_BIN_EXE_warren-under-test");
    assert!(text.contains("/usr/bin/warren "));
    std::fs::write(&copy, text.replace("/usr/bin/warren ", &format!("{program} "))).expect("written");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    // What is said of other units of the machine is not ours.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("warren")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}
