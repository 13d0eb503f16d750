//! Windows over restarts and crashes of a real store.

use amq_protocol::types::AMQPValue;
use protocol::table::ValueRef;
use storage::{Options, Store};
use tempfile::TempDir;

use super::*;
use crate::model::arguments::Arguments;
use crate::model::clock::Clock;

struct Fixture {
    directory: TempDir,
    store: Arc<Store>,
    services: Services,
    stored: Stored,
    size: i64,
}

impl Fixture {
    fn new(size: i64) -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (store, _) = Store::open(Options::new(directory.path())).expect("store");
        let stored = Stored { id: store.new_queue_id(), found: None };
        Self { services: Services::new(Arc::clone(&store), Clock::system()), directory, store, stored, size }
    }

    fn asked(&self) -> Deduplication {
        let mut arguments = Arguments::default();
        arguments.insert("x-message-deduplication", AMQPValue::Boolean(true));
        arguments.insert("x-cache-size", AMQPValue::LongLongInt(self.size));
        Deduplication::from_arguments(&arguments, false).expect("it is asked for")
    }

    fn window(&self) -> Arc<Window> {
        Window::new(self.asked(), Some(self.stored), &self.services)
    }

    /// Opens the directory again, after a clean stop or without one.
    fn restart(mut self, clean: bool) -> Self {
        if clean {
            self.store.close(Vec::new()).expect("close");
        }
        let (directory, size, id) = (self.directory, self.size, self.stored.id);
        drop(self.services);
        drop(self.store);
        let (store, found) = Store::open(Options::new(directory.path())).expect("store");
        self.stored = Stored { id, found: found.queues.into_iter().find(|queue| queue.id == id) };
        Self {
            services: Services::new(Arc::clone(&store), Clock::system()),
            directory,
            store,
            stored: self.stored,
            size,
        }
    }

    /// Remembers a key and waits until that is durable; false when it was known.
    fn take(&self, window: &Arc<Window>, number: u8, ttl_ms: Option<u64>, stored: bool) -> bool {
        let key = key(number);
        let mut windows = Windows::from_iter([Arc::clone(window)]);
        let mut locked = Locked::new(&mut windows, self.services.timers.clock().now_ms());
        if locked.find(window, &key).is_some() {
            return false;
        }
        let mut ops = Vec::new();
        locked.remember(window, key, ttl_ms, stored, &mut ops);
        let lsn = self.store.transaction(ops);
        locked.appended(lsn);
        assert_eq!(locked.find(window, &key), (ttl_ms != Some(0)).then_some(lsn));
        drop(locked);
        self.wait(lsn);
        true
    }

    fn wait(&self, lsn: Lsn) {
        struct Waiter(Mutex<Option<mpsc::Sender<()>>>);
        impl storage::Durable for Waiter {
            fn durable(&self) {
                self.0.lock().take();
            }
        }
        let (sender, receiver) = mpsc::channel();
        self.store.notify_at(lsn, Arc::new(Waiter(Mutex::new(Some(sender)))));
        // It ends when the sender is dropped.
        assert!(receiver.recv().is_err());
    }
}

fn key(number: u8) -> Key {
    Key::of(&ValueRef::U8(number))
}

#[test]
fn the_newest_keys_are_there_after_a_restart() {
    let mut fixture = Fixture::new(3);
    let window = fixture.window();
    for number in 1..=5 {
        assert!(fixture.take(&window, number, None, true));
    }
    drop(window);
    for (number, clean) in (6..).zip([true, false, false, true]) {
        fixture = fixture.restart(clean);
        assert_eq!(fixture.stored.found.map(|found| found.messages), Some(3), "others are settled");
        let window = fixture.window();
        for known in number - 3..number {
            assert!(!fixture.take(&window, known, None, true), "{known}");
        }
        assert!(fixture.take(&window, number, None, true));
        assert_eq!(window.len(), 3);
    }
}

#[test]
fn keys_of_messages_that_are_not_stored_go_with_them() {
    let fixture = Fixture::new(10);
    let window = fixture.window();
    assert!(fixture.take(&window, 1, None, true));
    assert!(fixture.take(&window, 2, None, false));
    assert!(!fixture.take(&window, 2, None, false));
    drop(window);
    let fixture = fixture.restart(false);
    let window = fixture.window();
    assert!(!fixture.take(&window, 1, None, true));
    assert!(fixture.take(&window, 2, None, false));
}

#[test]
fn a_key_whose_time_is_over_is_not_read_back() {
    let fixture = Fixture::new(10);
    let window = fixture.window();
    assert!(fixture.take(&window, 1, Some(1 << 40), true));
    assert!(fixture.take(&window, 2, Some(0), true));
    assert!(fixture.take(&window, 2, Some(0), true), "nothing is remembered for no time");
    assert_eq!(window.len(), 1);
    // As if it had been written long ago.
    let record = Record { bytes: write(&key(3), Some(1)), place: Place::default() };
    let lsn = fixture.store.enqueue(fixture.stored.id, 50, Meta::default(), Arc::new(record));
    let unknown = Record { bytes: [9; RECORD_BYTES], place: Place::default() };
    let lsn = lsn.max(fixture.store.enqueue(fixture.stored.id, 51, Meta::default(), Arc::new(unknown)));
    fixture.wait(lsn);
    drop(window);
    let fixture = fixture.restart(false);
    let window = fixture.window();
    assert_eq!(window.len(), 1);
    assert!(fixture.take(&window, 3, None, true));
    assert!(!fixture.take(&window, 1, None, true));
    drop(window);
    let fixture = fixture.restart(true);
    assert_eq!(fixture.stored.found.map(|found| found.messages), Some(2), "what could not be used is settled");
}

#[test]
fn a_window_that_need_not_persist_stores_nothing() {
    let fixture = Fixture::new(10);
    let mut asked = fixture.asked();
    asked.persists = false;
    let window = Window::new(asked, Some(fixture.stored), &fixture.services);
    assert_eq!(window.id(), None);
    assert!(fixture.take(&window, 1, None, true));
    assert!(!fixture.take(&window, 1, None, true));
    drop(window);
    assert!(fixture.restart(true).stored.found.is_none());
}

#[test]
fn several_windows_are_locked_in_one_order() {
    let fixture = Fixture::new(10);
    let windows = [fixture.window(), Window::new(fixture.asked(), None, &fixture.services)];
    std::thread::scope(|scope| {
        for order in [[0, 1], [1, 0]] {
            let windows = &windows;
            scope.spawn(move || {
                for number in 0..=u8::MAX {
                    let mut both = Windows::new();
                    for at in order {
                        add(&mut both, &windows[at]);
                        add(&mut both, &windows[at]);
                    }
                    assert_eq!(both.len(), 2);
                    let mut locked = Locked::new(&mut both, 0);
                    let known = windows.iter().map(|window| locked.find(window, &key(number)).is_some());
                    let known: Vec<bool> = known.collect();
                    assert_eq!(known[0], known[1], "they are seen together");
                    for window in windows {
                        locked.remember(window, key(number), None, false, &mut Vec::new());
                    }
                }
            });
        }
    });
}
