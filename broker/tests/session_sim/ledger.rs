//! What has become of every message.

use std::collections::{BTreeMap, BTreeSet};

/// A message as its body tells: who published it, and which of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) publisher: u64,
    pub(crate) number: u64,
}

impl Id {
    pub(crate) fn body(self, len: usize) -> Vec<u8> {
        let mut body = [self.publisher.to_be_bytes(), self.number.to_be_bytes()].concat();
        body.resize(len.max(16), 0);
        body
    }

    pub(crate) fn of(body: &[u8]) -> Self {
        let (publisher, rest) = body.split_first_chunk().expect("a body of ours");
        let (number, _) = rest.split_first_chunk().expect("a body of ours");
        Self { publisher: u64::from_be_bytes(*publisher), number: u64::from_be_bytes(*number) }
    }
}

/// One queue.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) published: BTreeSet<Id>,
    pub(crate) settled: BTreeSet<Id>,
    /// Delivered as new.
    fresh: BTreeSet<Id>,
    pub(crate) purged: usize,
    /// The last first delivery of a publisher's messages on a receiving channel.
    order: BTreeMap<(u64, u64), u64>,
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<String, Account>,
}

impl Ledger {
    pub(crate) fn account(&mut self, queue: &str) -> &mut Account {
        self.accounts.entry(queue.to_owned()).or_default()
    }

    /// A client has read a delivery on the channel that `receiver` names. `stale`: the channel is being closed or recovered,
    /// so that what is still on its way to it may be somebody else's by now.
    pub(crate) fn seen(&mut self, queue: &str, receiver: u64, id: Id, redelivered: bool, stale: bool) {
        let account = self.account(queue);
        assert!(account.published.contains(&id), "{queue}: {id:?} was never published");
        assert!(stale || !account.settled.contains(&id), "{queue}: {id:?} is delivered after it was settled");
        if !redelivered {
            assert!(account.fresh.insert(id), "{queue}: {id:?} is delivered again without saying so");
            let last = account.order.insert((id.publisher, receiver), id.number);
            assert!(last < Some(id.number), "{queue}: {id:?} is delivered after {last:?} of the same publisher");
        }
    }

    pub(crate) fn settle(&mut self, queue: &str, id: Id) {
        assert!(self.account(queue).settled.insert(id), "{queue}: {id:?} is settled twice");
    }
}
