//! One broker process: how it is started, what it printed, and how it ends.

use crate::DEADLINE;
use crate::output::Output;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// How to start a broker. Cloning keeps the directory, so a clone started later finds the same data.
#[derive(Clone)]
pub struct Launch {
    binary: PathBuf,
    home: Arc<TempDir>,
    config: Option<String>,
    env: Vec<(String, String)>,
    flags: Vec<String>,
    listen: Option<String>,
    data_dir: Option<PathBuf>,
}

impl Launch {
    /// A broker on an ephemeral port of the IPv4 loopback with a fresh data directory.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let home = TempDir::new().expect("no temporary directory");
        let data_dir = home.path().join("data");
        Self {
            binary: binary.into(),
            home: Arc::new(home),
            config: None,
            env: Vec::new(),
            flags: Vec::new(),
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(data_dir),
        }
    }

    /// The text of the configuration file. Several texts are put one after the other.
    pub fn config(mut self, toml: &str) -> Self {
        let config = self.config.get_or_insert_with(String::new);
        config.push_str(toml);
        config.push('\n');
        self
    }

    /// Replaces the text of the configuration file.
    pub fn other_config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// One environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One more command-line argument.
    pub fn flag(mut self, flag: impl Into<String>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// What is passed as `--listen`; `None` leaves the flag out.
    pub fn listen(mut self, address: Option<&str>) -> Self {
        self.listen = address.map(str::to_owned);
        self
    }

    /// What is passed as `--data-dir`; `None` leaves the flag out.
    pub fn data_dir(mut self, directory: Option<&Path>) -> Self {
        self.data_dir = directory.map(Path::to_owned);
        self
    }

    /// The directory that belongs to this launch: the working directory of the process, and where its files are.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts the broker and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Broker {
        let process = Process::spawn(&self);
        let Some(line) = process.stdout.wait_for(DEADLINE, is_ready_line) else {
            panic!(
                "the broker did not become ready\nstdout:\n{}stderr:\n{}",
                process.stdout.text(),
                process.stderr.text()
            );
        };
        let addresses = addresses(&line);
        assert!(!addresses.is_empty(), "no address in the ready line {line:?}");
        Broker { process, launch: self, ready_line: line, addresses }
    }

    /// Runs the process to its end, for commands and for starts that must fail.
    #[track_caller]
    pub fn run(self) -> Finished {
        let mut process = Process::spawn(&self);
        let status = process.wait();
        Finished { status, stdout: process.stdout.text(), stderr: process.stderr.text() }
    }
}

/// What a process that ended left behind.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it wrote to standard output.
    pub stdout: String,
    /// All it wrote to standard error.
    pub stderr: String,
}

/// A running broker. Dropping it kills the process.
pub struct Broker {
    // Before the launch: the process has to be gone before its directory is.
    process: Process,
    launch: Launch,
    ready_line: String,
    addresses: Vec<SocketAddr>,
}

impl Broker {
    /// The first address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses the ready line names.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The line it printed when it was ready.
    pub fn ready_line(&self) -> &str {
        &self.ready_line
    }

    /// Waits for a line of its log that has all these texts.
    #[track_caller]
    pub fn wait_for_log(&self, texts: &[&str]) -> String {
        let stderr = &self.process.stderr;
        let line = stderr.wait_for(DEADLINE, |line| texts.iter().all(|text| line.contains(text)));
        line.unwrap_or_else(|| panic!("no line with {texts:?} in the log:\n{}", stderr.text()))
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.stderr.text()
    }

    /// How it was started.
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// The most memory it ever had resident, in bytes, as the kernel counts it.
    #[track_caller]
    pub fn peak_resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.child.id());
        let status = std::fs::read_to_string(&path).expect("the broker is gone");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("no VmHWM in the status file");
        let kib: u64 =
            line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("no number after VmHWM");
        kib * 1024
    }

    /// Ends it as a crash would, and returns how to start it again on the same data.
    #[track_caller]
    pub fn kill9(mut self) -> Launch {
        self.process.signal(Signal::KILL);
        self.process.wait();
        self.launch.clone()
    }

    /// Asks it to end, as an operator would, and waits until it has.
    #[track_caller]
    pub fn terminate(self) -> Finished {
        self.end_with(Signal::TERM)
    }

    /// As [`Broker::terminate`], with Ctrl-C.
    #[track_caller]
    pub fn interrupt(self) -> Finished {
        self.end_with(Signal::INT)
    }

    /// Sends SIGTERM and returns at once.
    pub fn begin_terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Sends SIGHUP: the configuration is read again.
    pub fn hangup(&self) {
        self.process.signal(Signal::HUP);
    }

    #[track_caller]
    fn end_with(self, signal: Signal) -> Finished {
        self.process.signal(signal);
        self.wait()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(mut self) -> Finished {
        let status = self.process.wait();
        Finished { status, stdout: self.process.stdout.text(), stderr: self.process.stderr.text() }
    }

    /// Stops it cleanly and starts it again on the same data.
    #[track_caller]
    pub fn restart(self) -> Self {
        let launch = self.launch.clone();
        let finished = self.terminate();
        assert!(finished.status.success(), "it did not stop cleanly: {finished:?}");
        launch.start()
    }
}

/// A child process and its output.
struct Process {
    child: Child,
    stdout: Arc<Output>,
    stderr: Arc<Output>,
    status: Option<ExitStatus>,
}

impl Process {
    #[track_caller]
    fn spawn(launch: &Launch) -> Self {
        let mut command = Command::new(&launch.binary);
        // What the person running the tests has set must not change what is tested.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("WARREN") || name.starts_with("RABBITMQ") {
                command.env_remove(name.as_ref());
            }
        }
        if let Some(config) = &launch.config {
            let path = launch.home.path().join("warren.toml");
            std::fs::write(&path, config).expect("cannot write the configuration");
            command.arg("--config").arg(path);
        }
        if let Some(listen) = &launch.listen {
            command.arg("--listen").arg(listen);
        }
        if let Some(data_dir) = &launch.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        command
            .args(&launch.flags)
            .envs(launch.env.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .current_dir(launch.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot run {}: {error}", launch.binary.display()),
        };
        let stdout = Output::collect(child.stdout.take().expect("stdout is piped"));
        let stderr = Output::collect(child.stderr.take().expect("stderr is piped"));
        Self { child, stdout, stderr, status: None }
    }

    fn signal(&self, signal: Signal) {
        if self.status.is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself; until it is waited for, the id stays its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// Its pipes end with it, so waiting for them is waiting for it, with a deadline.
    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let ended = self.stdout.wait_for_end(DEADLINE) && self.stderr.wait_for_end(DEADLINE);
        assert!(ended, "the process did not end\nstdout:\n{}stderr:\n{}", self.stdout.text(), self.stderr.text());
        let status = self.child.wait().expect("cannot wait for the process");
        self.status = Some(status);
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("broker's stdout:\n{}broker's stderr:\n{}", self.stdout.text(), self.stderr.text());
        }
    }
}

fn is_ready_line(line: &str) -> bool {
    line.contains("ready") && line.contains("amqp://")
}

fn addresses(line: &str) -> Vec<SocketAddr> {
    line.split("amqp://")
        .skip(1)
        .filter_map(|rest| {
            let end = rest.find([',', ';', ' ', '/']).unwrap_or(rest.len());
            rest[..end].parse().ok()
        })
        .collect()
}
