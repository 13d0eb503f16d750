//! What happens while a read of the backlog is under way, step by step.

use crate::support::Disk;
use crate::world::{Settle, World};

/// A cold queue whose first read has been chosen and waits for its octets.
fn reading(disk: &Disk, messages: u64, before: impl FnOnce(&mut World<'_>)) -> World<'_> {
    let mut world = World::cold(disk, messages, usize::MAX);
    world.stop_reader();
    before(&mut world);
    world.attach(0, 0, 0, false, false);
    world.advance(true);
    world
}

fn finish(mut world: World<'_>) {
    world.load();
    world.check_rest();
    world.drain();
    world.check_leaks();
}

#[test]
fn a_transaction_becomes_visible_during_a_read() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 3, usize::MAX);
    world.stop_reader();
    // Its place is in the middle of the backlog, and the log gets it only when the read has chosen.
    world.reserve(true, None);
    world.publish(true, 8);
    world.attach(0, 0, 0, false, false);
    world.advance(true);
    world.log_reserved();
    world.sync();
    world.publish_reserved(0);
    finish(world);
}

#[test]
fn a_transaction_becomes_visible_after_a_read_that_saw_it() {
    let disk = Disk::new();
    let mut world = reading(&disk, 3, |world| {
        world.reserve(true, None);
        world.log_reserved();
        world.publish(true, 8);
        world.sync();
    });
    world.advance(false);
    world.publish_reserved(0);
    finish(world);
}

#[test]
fn transient_messages_keep_their_place_in_a_backlog() {
    let disk = Disk::new();
    let mut world = reading(&disk, 3, |world| {
        for persistent in [false, true, false, false, true] {
            world.publish(persistent, 8);
        }
    });
    world.publish(false, 8);
    world.publish(true, 8);
    finish(world);
}

#[test]
fn a_purge_during_a_read() {
    let disk = Disk::new();
    let mut world = reading(&disk, 3, |_| {});
    world.get(1, 0, false);
    world.purge();
    world.publish(true, 8);
    world.publish(false, 8);
    world.advance(false);
    finish(world);
}

#[test]
fn a_delete_during_a_read() {
    let disk = Disk::new();
    let mut world = reading(&disk, 3, |_| {});
    world.get(1, 0, false);
    world.delete(false, false);
    world.advance(false);
    finish(world);
}

#[test]
fn a_requeue_during_a_read() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 2_060, 2_000);
    world.stop_reader();
    world.attach(0, 0, 2, false, false);
    world.advance(false);
    world.advance(true);
    world.settle_tag(0, 0, 0, true, Settle::Requeue);
    world.write(0);
    finish(world);
}

#[test]
fn gets_on_a_cold_backlog_are_answered_in_order() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 3, usize::MAX);
    world.stop_reader();
    for connection in [0, 1, 2, 0] {
        world.get(connection, 0, connection == 1);
    }
    world.attach(2, 1, 1, false, false);
    finish(world);
}

#[test]
fn a_client_that_asked_a_cold_backlog_leaves() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 3, usize::MAX);
    world.stop_reader();
    world.get(0, 0, true);
    world.get(1, 0, false);
    world.close_connection(0);
    world.close_channel(1, 0);
    finish(world);
}

#[test]
fn a_read_waits_for_what_was_published_before_it() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 3, usize::MAX);
    disk.gate.hold_syncs();
    world.publish(true, 8);
    world.attach(0, 0, 0, false, false);
    assert_eq!(world.ready_len(), 4);
    disk.gate.release_syncs();
    finish(world);
}

#[test]
fn a_restart_knows_what_was_delivered() {
    let disk = Disk::new();
    let mut world = World::new(&disk, true, usize::MAX);
    for number in 0..10 {
        world.publish(number % 3 != 2, 8);
    }
    for tag in 1..=4 {
        world.get(0, 0, false);
        if tag % 2 == 0 {
            world.settle_tag(0, 0, tag, false, Settle::Ack);
        }
    }
    let stopped = world.stop();
    let (disk, found) = disk.reopen(stopped.redelivered.clone());
    assert_eq!(found.queues.len(), 1);
    let mut world = World::restarted(&disk, &found.queues, stopped, 0);
    world.publish(true, 8);
    world.attach(1, 0, 2, false, false);
    finish(world);
}

#[test]
fn more_than_fits_into_memory_comes_back_in_order() {
    /// Past 16 MiB of bodies the rest stays on disk only.
    const BODY: usize = 900_000;
    let disk = Disk::new();
    let mut world = World::new(&disk, true, usize::MAX);
    world.cold = true;
    for number in 0..30 {
        world.publish(number % 4 != 3, BODY);
    }
    world.sync();
    world.attach(0, 0, 3, false, false);
    world.attach(1, 0, 2, false, false);
    while world.ready_len() > 0 {
        world.load();
        world.check_rest();
        for connection in 0..2 {
            world.write(connection);
            world.settle_tag(connection, 0, 0, true, Settle::Ack);
        }
    }
    finish(world);
}
