//! Deliveries whose acknowledgement takes too long go back to their queues.

use std::sync::Arc;

use super::Outbox;
use crate::queue::credit::{Resume, Touched};
use crate::queue::settle::Requeue;
use crate::queue::signal::WakeList;
use crate::queue::timers::Timed;
use crate::queue::unacked::Origin;

impl Timed for Outbox {
    fn fire(self: Arc<Self>, now_ms: u64) {
        let mut requeue = Requeue::default();
        let (mut late, mut resume): (Vec<Resume>, _) = (Vec::new(), Vec::new());
        {
            let high_water_bytes = self.high_water_bytes();
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let credits = &mut state.credits;
            let mut touched = Touched::new();
            let mut shared = false;
            while let Some((slot, tag)) = credits.timeouts.take_due(now_ms) {
                let Some(channel) = credits.channels.get_mut(slot as usize) else { continue };
                let Some(unacked) = channel.unacked.take(tag) else {
                    // Its acknowledgement is part of a transaction, which may be rolled back.
                    credits.timeouts.postpone((slot, tag), now_ms);
                    continue;
                };
                channel.note_lapsed(tag);
                if let Origin::Consumer(slot) = unacked.origin
                    && let Some(consumer) = credits.consumers.get(slot as usize)
                    && late.last().is_none_or(|last| last.consumer != consumer.id)
                {
                    late.push(Resume { queue: Arc::clone(&consumer.queue), consumer: consumer.id });
                }
                shared |= channel.prefetch != 0;
                if let Some(queue) = credits.release(&unacked, Some(slot), &mut touched) {
                    requeue.add(queue, unacked);
                }
            }
            credits.timeouts.arm();
            state.account();
            let has_room = state.bytes < high_water_bytes / 2;
            state.credits.resume_touched(&touched, shared, has_room, &mut resume);
        }
        let mut wakes = WakeList::default();
        // Who did not answer in time is the last to get it again.
        for late in late {
            late.queue.defer(late.consumer);
        }
        requeue.commit(&mut wakes);
        for back in resume {
            back.queue.resume(back.consumer, &mut wakes);
        }
    }
}
