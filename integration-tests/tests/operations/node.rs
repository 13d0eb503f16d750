//! A broker inside the test.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use broker::auth::{self, AuthStore, Credentials};
use broker::broker::Broker;
use broker::config::Settings;
use broker::model::clock::Clock;
use broker::net::door::Door;
use broker::net::listener;
use broker::queue::Services;
use broker::vhost;
use integration_tests::DEADLINE;
use integration_tests::raw::Raw;
use serde_json::{Map, Value};
use storage::{Durable, Lsn, Options, Store};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The password of every user but guest.
pub(crate) const PASSWORD: &str = "sesame";

pub(crate) struct Node {
    pub(crate) broker: Arc<Broker>,
    pub(crate) address: SocketAddr,
    runtime: Runtime,
    directory: TempDir,
}

/// Tells a thread that waits.
struct Waiter(SyncSender<()>);

impl Durable for Waiter {
    fn durable(&self) {
        // There is room for the one message, and nobody waits any more otherwise.
        let _ = self.0.try_send(());
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::on(tempfile::tempdir().expect("no temporary directory"))
    }

    fn on(directory: TempDir) -> Self {
        let settings = Settings::defaults().expect("defaults");
        let mut options = Options::new(directory.path());
        options.segment_bytes = 8 << 20;
        let (store, found) = Store::open(options).expect("store");
        assert_eq!(found.damage, Vec::<String>::new());
        let services = Services::new(Arc::clone(&store), Clock::system());
        let recovery = vhost::recover(&services, found.topology, found.queues);
        assert_eq!(recovery.damage, Vec::<String>::new());
        let pairs = recovery.other.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let users = AuthStore::open(Arc::clone(&store) as _, &settings.auth, pairs).expect("users");
        let broker = Broker::new(settings, services, Arc::new(users), recovery.vhosts);
        let broker = Arc::new(broker.with_global_parameters(recovery.global_parameters));
        if broker.vhosts().is_empty() {
            broker.create_vhost("/");
        }
        let settings = &broker.settings;
        auth::prepare(&broker.auth, &settings.default_user, &settings.topology, |_| true).expect("the first user");
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        socket.set_nonblocking(true).expect("a socket that does not block");
        let address = socket.local_addr().expect("an address");
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.spawn(listener::accept(Arc::clone(&broker), socket, Door::Plain));
        Self { broker, address, runtime, directory }
    }

    /// A clean stop and a new start.
    pub(crate) fn restart(self) -> Self {
        let Self { broker, runtime, directory, .. } = self;
        runtime.block_on(broker.close_connections());
        drop(runtime);
        broker.store.close(Vec::new()).expect("a clean close");
        drop(broker);
        Self::on(directory)
    }

    /// Waits until an operation is durable.
    #[track_caller]
    pub(crate) fn wait(&self, lsn: Lsn) {
        let (done, wait) = sync_channel(1);
        self.broker.store.notify_at(lsn, Arc::new(Waiter(done)));
        wait.recv_timeout(DEADLINE).expect("it never became durable");
    }

    /// A user who may do everything in `/`.
    pub(crate) fn add_user(&self, name: &str) {
        self.broker.auth.add_user(name, Credentials::Password(PASSWORD), &[]).expect("a user");
        self.broker.set_permissions(name, "/", [".*", ".*", ".*"]).expect("permissions");
    }

    /// A raw connection on which a user has logged in and asked to open a virtual host.
    #[track_caller]
    pub(crate) fn knock(&self, user: &str, vhost: &str) -> Raw {
        let mut raw = Raw::connect(self.address);
        raw.login(user, if user == "guest" { "guest" } else { PASSWORD });
        raw.send_open(vhost);
        raw
    }

    /// A raw connection that is open.
    #[track_caller]
    pub(crate) fn open(&self, user: &str, vhost: &str) -> Raw {
        let mut raw = self.knock(user, vhost);
        raw.expect(0, integration_tests::id::CONNECTION_OPEN_OK);
        raw
    }

    /// A raw connection with channel 1 open.
    #[track_caller]
    pub(crate) fn channel(&self, user: &str, vhost: &str) -> Raw {
        let mut raw = self.open(user, vhost);
        raw.open_channel(1);
        raw
    }

    pub(crate) fn uri(&self, vhost: &str) -> String {
        format!("amqp://guest:guest@{}/{}", self.address, vhost.replace('/', "%2f"))
    }

    /// Runs a client that needs a runtime; no await in it can take longer than the deadline allows.
    #[track_caller]
    pub(crate) fn block_on<T>(&self, client: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { tokio::time::timeout(DEADLINE, client).await.expect("it did not happen in time") })
    }
}

/// A JSON object.
pub(crate) fn map(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}
