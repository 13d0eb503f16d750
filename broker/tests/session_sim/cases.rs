//! Sequences that once went wrong, or nearly.

use crate::client::Mode;
use crate::simulation::{Before, House, Simulation};
use crate::support::Release;

/// basic.consume's bit.
const EXCLUSIVE: u8 = 4;

/// A queue of a broker that has been restarted: its messages are on disk only.
fn cold(messages: u64) -> (House, String, Before) {
    let house = House::new(1 << 20);
    let name = "cold-durable".to_owned();
    let mut simulation = Simulation::new(&house, 0, "cold");
    for _ in 0..messages {
        let id = simulation.next_id(0, 1);
        simulation.clients[0].publish(1, &name, id, true, 100);
    }
    let before = simulation.interrupt();
    (house.restart(), name, before)
}

#[test]
fn a_channel_closes_while_its_get_waits_for_the_backlog() {
    let (house, name, before) = cold(5);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::resumed(&house, 1, before);
    simulation.stop_reader();
    simulation.clients[0].get(1, &name, false);
    simulation.clients[0].close_channel(1);
    simulation.turn(0, 2, 1 << 16);
    simulation.turn(0, 0, 1 << 16);
    assert!(simulation.clients[0].channels.is_empty(), "close-ok does not wait for the backlog");
    simulation.clients[0].open(1);
    simulation.turn(0, 1, 1 << 16);
    assert_eq!(simulation.clients[0].channels[&1].owed(), 0);
    drop(Release(&house.disk.gate));
    simulation.rest();
    assert_eq!(house.queue(&name).message_count(), 5);
}

#[test]
fn an_answer_from_the_backlog_wakes_its_client() {
    let (house, name, before) = cold(2);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::resumed(&house, 1, before);
    simulation.stop_reader();
    simulation.clients[0].get(1, &name, true);
    simulation.clients[1].get(1, &name, true);
    for client in 0..2 {
        while simulation.clients[client].is_awake() {
            simulation.turn(client, 1, 1 << 16);
        }
        assert_eq!(simulation.clients[client].channels[&1].owed(), 1);
    }
    drop(Release(&house.disk.gate));
    simulation.rest();
    simulation.check_rest();
    assert_eq!(house.queue(&name).message_count(), 0);
}

#[test]
fn a_transaction_commits_while_the_backlog_is_read() {
    let (house, name, before) = cold(3);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::resumed(&house, 1, before);
    simulation.clients[0].open(2);
    simulation.clients[0].select(2, Mode::Transaction);
    let id = simulation.next_id(0, 2);
    simulation.clients[0].publish(2, &name, id, true, 50);
    simulation.rest();
    simulation.clients[0].commit(2);
    simulation.turn(0, 1, 1 << 16);
    // Behind the transaction's place in the queue.
    let id = simulation.next_id(1, 1);
    simulation.clients[1].publish(1, &name, id, true, 50);
    simulation.clients[1].consume(1, &name, false);
    simulation.turn(1, 4, 1 << 16);
    simulation.stop_in_read();
    simulation.turn(0, 0, 1 << 16);
    assert_eq!(simulation.clients[0].channels[&2].owed(), 0, "commit-ok does not wait for the reader");
    drop(Release(&house.disk.gate));
    simulation.rest();
    assert_eq!(simulation.clients[1].channels[&1].tags(), [1, 2, 3, 4, 5]);
    simulation.check_end();
}

#[test]
fn returns_to_a_client_that_does_not_read_are_bounded() {
    let house = House::new(1 << 20);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::new(&house, 1, "returns");
    for _ in 0..2_000 {
        simulation.clients[0].publish_nowhere(1, 3_000);
    }
    simulation.turn(0, usize::MAX, 0);
    assert!(!simulation.clients[0].may_read(), "6 MB of returns wait for a client that does not read");
}

#[test]
fn a_refused_consumer_leaves_nothing_behind() {
    let house = House::new(1 << 20);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::new(&house, 1, "refused");
    simulation.clients[0].consume_as(1, "refused-transient", EXCLUSIVE);
    simulation.rest();
    const TIMES: usize = 30_000;
    simulation.clients[1].tolerant = true;
    for _ in 0..TIMES {
        simulation.clients[1].consume_as(1, "refused-transient", 0);
        simulation.turn(1, 1, 1 << 16);
        simulation.clients[1].open(1);
        simulation.turn(1, 2, 1 << 16);
    }
    simulation.rest();
    assert_eq!(simulation.clients[1].refusals.len(), TIMES);
    assert!(simulation.clients[1].may_read(), "nothing waits for the client");
}

#[test]
fn a_deleted_queue_tells_its_consumers() {
    let house = House::new(1 << 20);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::new(&house, 1, "told");
    for client in 0..3 {
        simulation.clients[client].consume(1, "told-doomed", false);
    }
    simulation.rest();
    assert_eq!(house.queue("told-doomed").consumer_count(), 3);
    simulation.clients[1].renew(1, "told-doomed");
    simulation.rest();
    simulation.check_rest();
    for client in &simulation.clients {
        assert_eq!(client.consumers_of("told-doomed"), 0);
    }
}

#[test]
fn a_connection_that_closes_gets_its_answers_first() {
    let house = House::new(1 << 20);
    let _release = Release(&house.disk.gate);
    let mut simulation = Simulation::new(&house, 1, "last");
    simulation.clients[0].declare(1, "last-words", true);
    simulation.clients[0].close();
    simulation.turn(0, 2, 1 << 16);
    simulation.turn(0, 2, 1 << 16);
    assert!(!simulation.clients[0].over, "close-ok waits for declare-ok");
    simulation.sync();
    simulation.rest();
    assert!(simulation.clients[0].over);
    assert_eq!(simulation.clients[0].channels[&1].owed(), 0);
}
