//! basic.ack, basic.nack, basic.reject and basic.recover.

use protocol::amqp::{AMQPClass, basic};
use protocol::{AmqpError, ReplyCode};

use super::Session;
use super::channel::{Channel, Mode};
use super::tx::TxSettle;
use crate::queue::delivery_limit::Return;
use crate::queue::settle::{Rejected, Requeue};

const BASIC: u16 = 60;
const ACK: u16 = 80;
const REJECT: u16 = 90;

/// What to do with settled deliveries, and the method that asked for it.
pub(super) struct Settlement {
    pub tag: u64,
    pub multiple: bool,
    pub requeue: bool,
    pub method: u16,
}

impl Session {
    pub(super) fn settle(&mut self, channel: &mut Channel, settlement: &Settlement) -> Result<(), AmqpError> {
        let Settlement { tag, multiple, requeue, method } = *settlement;
        let is_rejected = !requeue && method != ACK;
        let how = if method == REJECT { Return::InVain } else { Return::Unharmed };
        self.counting(channel.number, &mut channel.publisher);
        let mut acks = 0;
        let found = if let Mode::Transaction(transaction) = &mut channel.publisher.mode {
            self.outbox.take_for_transaction(channel.slot, tag, multiple, |unacked| {
                transaction.settled.push(TxSettle {
                    unacked,
                    requeue: requeue.then_some(how),
                    is_rejected,
                    tried_later: false,
                });
            })
        } else {
            let mut back = Requeue::default();
            let mut rejected = Rejected::default();
            let acked = &mut self.acked;
            if requeue {
                self.outbox.hold(channel.slot);
            }
            let found = self.outbox.take_unacked(channel.slot, tag, multiple, &mut self.resumable, |queue, unacked| {
                if requeue {
                    back.add(queue, unacked, how);
                } else if is_rejected {
                    rejected.add(queue, unacked);
                } else {
                    acks += 1;
                    acked.add(queue, &unacked);
                }
            });
            self.acked.commit();
            rejected.commit();
            // Requeued messages first: a consumer that has credit again gets them before newer ones.
            back.commit(&mut self.wakes);
            if requeue {
                self.outbox.let_go(channel.slot, &mut self.resumable);
            }
            self.resume_waiting();
            channel.publisher.uncounted.acked += acks;
            found
        };
        if found {
            Ok(())
        } else {
            Err(AmqpError::new(ReplyCode::PreconditionFailed, format_args!("unknown delivery tag {tag}"))
                .at(BASIC, method))
        }
    }

    /// Requeues everything that is outstanding on the channel. `answer` tells recover from recover-async.
    pub(super) fn recover(
        &mut self,
        channel: &mut Channel,
        requeue: bool,
        method: u16,
        answer: bool,
    ) -> Result<(), AmqpError> {
        if !requeue {
            return Err(AmqpError::new(ReplyCode::NotImplemented, "requeue=false").at(BASIC, method));
        }
        let mut back = Requeue::default();
        self.outbox.hold(channel.slot);
        self.outbox.take_unacked(channel.slot, 0, true, &mut self.resumable, |queue, unacked| {
            back.add(queue, unacked, Return::Unharmed);
        });
        if answer {
            self.reply(channel.number, &AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {})));
        }
        back.commit(&mut self.wakes);
        self.outbox.let_go(channel.slot, &mut self.resumable);
        self.resume_waiting();
        Ok(())
    }
}
