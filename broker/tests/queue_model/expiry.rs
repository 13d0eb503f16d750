//! Messages whose time is over, in memory, on disk and on the way between them.

use std::sync::Arc;

use broker::queue::signal::WakeList;

use crate::support::Disk;
use crate::world::{START_MS, Settle, World, message_until};

const HOUR_MS: u64 = 3_600_000;
/// Past 16 MiB of bodies the rest stays on disk only.
const LARGE: usize = 900_000;

fn finish(mut world: World<'_>) {
    world.load();
    world.check_rest();
    world.drain();
    world.check_leaks();
}

#[test]
fn the_timer_lets_go_of_a_message_without_any_operation() {
    let disk = Disk::new();
    let world = World::new(&disk, false, usize::MAX);
    let mut kept = Vec::new();
    for (id, ttl_ms) in [(1, 50), (2, 20), (3, 30)] {
        let message = message_until(id, false, 300, Some(START_MS + ttl_ms));
        world.queue.publish(&message, &mut WakeList::default());
        kept.push(Arc::downgrade(&message));
    }
    for (passes_ms, left) in
        [(19, [true, true, true]), (1, [true, false, true]), (10, [true, false, false]), (20, [false; 3])]
    {
        world.time.pass(passes_ms);
        world.fire();
        assert_eq!(kept.iter().map(|message| message.strong_count() > 0).collect::<Vec<_>>(), left);
    }
    assert_eq!(world.services.timers.fire(), None, "nothing is left to wait for");
}

#[test]
fn the_middle_leaves_and_the_order_stays() {
    let disk = Disk::new();
    for persistent in [false, true] {
        let mut world = World::new(&disk, true, usize::MAX);
        world.publish(persistent, 8);
        for ttl_ms in 0..300u64 {
            world.publish_for(persistent, 8, (ttl_ms % 3 != 0).then_some(1 + ttl_ms * 7 % 100));
        }
        world.publish(persistent, 8);
        for _ in 0..5 {
            world.pass(15, true);
        }
        world.check_store();
        finish(world);
    }
}

#[test]
fn whoever_sets_the_wall_clock_moves_no_deadline() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 30, usize::MAX);
    for ttl_ms in [100, HOUR_MS, 100] {
        world.publish_for(false, 8, Some(ttl_ms));
        world.publish_for(true, 8, Some(ttl_ms));
    }
    for wall_ms in [START_MS + 5 * HOUR_MS, START_MS - 5 * HOUR_MS, 0] {
        let before = world.ready_len();
        world.time.set_wall(wall_ms);
        world.pass(0, false);
        assert_eq!(world.ready_len(), before);
    }
    world.pass(100, false);
    assert!(world.ready_len() >= 2);
    world.time.set_wall(START_MS - 5 * HOUR_MS);
    world.pass(HOUR_MS, false);
    assert_eq!(world.ready_len(), 20, "those without a deadline");
    finish(world);
}

#[test]
fn a_deadline_is_wall_time_over_a_restart() {
    let disk = Disk::new();
    let mut world = World::new(&disk, true, usize::MAX);
    for hours in [1, 3, 1, 3] {
        world.publish_for(true, 8, Some(hours * HOUR_MS));
    }
    world.publish(true, 8);
    let stopped = world.stop();
    let (disk, found) = disk.reopen(stopped.redelivered.clone());
    let mut world = World::restarted(&disk, &found.queues, stopped, 2 * HOUR_MS);
    assert_eq!(world.ready_len(), 5);
    world.pass(0, true);
    assert_eq!(world.ready_len(), 3);
    world.check_store();
    world.pass(HOUR_MS, true);
    assert_eq!(world.ready_len(), 1);
    finish(world);
}

#[test]
fn what_expires_during_a_read_does_not_come_back_with_it() {
    let disk = Disk::new();
    let mut world = World::cold_for(&disk, 9, usize::MAX, |seq| (seq % 2 == 0).then_some(seq));
    world.stop_reader();
    world.attach(0, 0, 0, false, false);
    world.advance(true);
    world.pass(6, true);
    assert_eq!(world.ready_len(), 6);
    finish(world);
}

#[test]
fn what_is_read_after_its_time_is_not_delivered() {
    let disk = Disk::new();
    let mut world = World::cold_for(&disk, 9, usize::MAX, |seq| (seq != 5).then_some(seq));
    world.stop_reader();
    world.attach(0, 0, 0, false, false);
    // The store is late: the read brings them first.
    world.time.pass(7);
    world.fire();
    world.forget_due();
    world.advance(false);
    world.name_due();
    assert_eq!(world.ready_len(), 0, "5, 8 and 9 are delivered");
    world.settle_tag(0, 0, 0, true, Settle::Ack);
    finish(world);
}

#[test]
fn a_get_that_waits_for_what_has_expired_finds_nothing() {
    let disk = Disk::new();
    let mut world = World::cold_for(&disk, 5, usize::MAX, Some);
    world.stop_reader();
    world.get(0, 0, true);
    world.get(1, 0, false);
    world.advance(true);
    world.pass(4, true);
    assert_eq!(world.ready_len(), 1);
    world.pass(1, true);
    world.check_rest();
    finish(world);
}

#[test]
fn an_answer_about_a_backlog_that_expired_says_nothing_about_the_next_one() {
    let disk = Disk::new();
    let mut world = World::cold_for(&disk, 3, usize::MAX, Some);
    world.stop_reader();
    world.attach(0, 0, 1, false, false);
    world.advance(true);
    world.pass(3, true);
    assert_eq!(world.ready_len(), 0);
    // One is delivered, the others fill the memory and more.
    for _ in 0..25 {
        world.publish(true, LARGE);
    }
    world.sync();
    world.load();
    while world.ready_len() > 0 {
        world.write(0);
        world.settle_tag(0, 0, 0, true, Settle::Ack);
        world.load();
        world.check_rest();
    }
    finish(world);
}

#[test]
fn an_expired_message_that_comes_back_leaves_at_once() {
    let disk = Disk::new();
    let mut world = World::new(&disk, true, usize::MAX);
    for number in 0..6 {
        world.publish_for(number % 2 == 0, 8, Some(10));
    }
    for _ in 0..4 {
        world.get(0, 0, false);
    }
    world.pass(10, false);
    assert_eq!(world.ready_len(), 0);
    world.check_store();
    for tag in [2, 3, 1] {
        world.settle_tag(0, 0, tag, false, Settle::Requeue);
        assert_eq!(world.ready_len(), 0);
    }
    world.check_store();
    finish(world);
}

#[test]
fn a_transaction_that_becomes_visible_after_its_time() {
    let disk = Disk::new();
    let mut world = World::cold(&disk, 3, usize::MAX);
    world.stop_reader();
    for persistent in [true, false, true] {
        world.reserve(persistent, Some(5));
    }
    world.log_reserved();
    world.publish_reserved(0);
    world.pass(5, true);
    world.publish_reserved(0);
    world.publish_reserved(0);
    world.attach(0, 0, 0, false, false);
    finish(world);
}

#[test]
fn a_delete_disarms_the_timer() {
    let disk = Disk::new();
    let mut world = World::new(&disk, true, usize::MAX);
    world.publish_for(true, 8, Some(10));
    assert_eq!(world.services.timers.fire(), Some(START_MS + 10));
    world.delete(false, false);
    assert_eq!(world.services.timers.fire(), None);
    finish(world);
}
