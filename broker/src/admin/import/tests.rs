//! A broker on a disk that loses power at every call of the store while definitions are imported.

use std::sync::{Arc, mpsc};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use storage::fs::faulty::{Disk, FaultyFs, When};
use storage::{Durable, Lsn, Store};
use tempfile::TempDir;

use super::{Options, at_start, run};
use crate::auth::AuthStore;
use crate::broker::Broker;
use crate::config::Settings;
use crate::model::clock::Clock;
use crate::queue::Services;
use crate::vhost;

struct Node {
    broker: Broker,
    fs: FaultyFs,
    _directory: TempDir,
}

struct Told(mpsc::Sender<bool>);

impl Durable for Told {
    fn durable(&self) {
        // Nobody waits any more when the test has ended.
        let _ = self.0.send(true);
    }
}

impl Node {
    /// As a start does it.
    fn open(disk: Disk) -> Self {
        let directory = TempDir::new().unwrap();
        let fs = FaultyFs::mount(disk, directory.path(), "sled", 7).unwrap();
        let mut options = storage::Options::new(directory.path());
        options.segment_bytes = 64 << 10;
        options.fs = Arc::new(fs.clone());
        let (store, found) = Store::open(options).unwrap();
        let services = Services::new(Arc::clone(&store), Clock::system());
        let recovery = vhost::recover(&services, found.topology, found.queues);
        assert_eq!(recovery.damage, Vec::<String>::new());
        let settings = Settings::defaults().unwrap();
        let pairs = recovery.other.iter().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let auth = AuthStore::open(store as _, &settings.auth, pairs).unwrap();
        let broker = Broker::new(settings, services, Arc::new(auth), recovery.vhosts);
        let node = Self { broker, fs, _directory: directory };
        let lsn = at_start(&node.broker, &recovery.other).unwrap();
        assert!(node.wait(lsn));
        node
    }

    /// False when the store fails before.
    fn wait(&self, lsn: Lsn) -> bool {
        let (told, wait) = mpsc::channel();
        let failed = told.clone();
        self.broker.store.on_failure(Box::new(move |_| {
            // As above.
            let _ = failed.send(false);
        }));
        self.broker.store.notify_at(lsn, Arc::new(Told(told)));
        wait.recv().unwrap()
    }

    fn queues(&self) -> usize {
        self.broker.vhosts().iter().map(|vhost| vhost.queue_count()).sum()
    }

    fn lose_power(self, seed: u64) -> Disk {
        self.fs.switch_off();
        let Self { broker, fs, .. } = self;
        drop(broker);
        fs.cut().after_power_loss(&mut StdRng::seed_from_u64(seed))
    }
}

const QUEUES: usize = 400;

/// Larger than several segments of the log, so that it is written in many groups.
fn document() -> String {
    let queue = |number: usize| {
        let key = "k".repeat(200);
        json!({"vhost": "v", "name": format!("q{number}"), "arguments": {"x-dead-letter-exchange": key}})
    };
    let bind = |number: usize| {
        json!({
            "vhost": "v", "source": "x", "destination_type": "queue", "destination": format!("q{number}"),
            "routing_key": "k", "arguments": {}
        })
    };
    json!({
        "vhosts": [{"name": "v", "metadata": {"description": "d"}}],
        "users": [{"name": "ann", "password_hash": "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR", "tags": []}],
        "permissions": [{"user": "ann", "vhost": "v", "configure": ".*", "write": ".*", "read": ".*"}],
        "exchanges": [{"vhost": "v", "name": "x", "type": "direct"}],
        "queues": (0..QUEUES).map(queue).collect::<Vec<_>>(),
        "bindings": (0..QUEUES).map(bind).collect::<Vec<_>>(),
        "topic_permissions": [{"user": "ann", "vhost": "v", "exchange": "x", "write": ".*", "read": ".*"}],
    })
    .to_string()
}

#[test]
fn power_loss_leaves_all_of_an_import_or_nothing() {
    let document = document();
    let (mut nothing, mut all, mut refused) = (0, 0, 0);
    for call in 1..40 {
        let node = Node::open(Disk::default());
        node.fs.lose_power(When::Nth(call), |_, _| true);
        let imported = run(&node.broker, document.as_bytes(), &Options::default()).unwrap();
        let confirmed = node.wait(imported.lsn);
        let node = Node::open(node.lose_power(call));
        let is_there = node.queues() > 0;
        if is_there {
            assert_eq!(node.queues(), QUEUES, "power failed at call {call}");
            assert_eq!(node.broker.auth.topic_permissions(Some("ann")).len(), 1, "power failed at call {call}");
            all += 1;
        } else {
            assert!(node.broker.vhosts().is_empty() && node.broker.auth.is_empty(), "power failed at call {call}");
            nothing += 1;
        }
        assert!(is_there || !confirmed, "power failed at call {call}");
        refused += usize::from(!confirmed);
        // Nothing is left over that another start would do again.
        node.broker.delete_vhost("v").ok();
        let lsn = node.broker.auth.put_user("after", crate::auth::Credentials::None, &[]).unwrap();
        assert!(node.wait(lsn));
        let node = Node::open(node.lose_power(call));
        assert_eq!(node.queues(), 0, "power failed at call {call}");
        assert!(node.broker.auth.user("after").is_some());
    }
    assert!(nothing > 0 && all > 0 && refused > 0, "nothing {nothing}, all {all}, refused {refused}");
}
