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
    /// The broker vouched for them: they survive.
    pub(crate) confirmed: BTreeSet<Id>,
    /// Settled, and that is durable.
    pub(crate) gone: BTreeSet<Id>,
    /// A purge or a deletion may have taken them.
    pub(crate) doubtful: BTreeSet<Id>,
    /// They were in the queue when it was deleted.
    deleted: BTreeSet<Id>,
    /// How often it was deleted.
    pub(crate) deletions: u64,
    /// Persistent, and the queue is durable.
    pub(crate) persistent: BTreeSet<Id>,
    /// The last first delivery of a publisher's messages on a receiving channel.
    order: BTreeMap<(u64, u64), u64>,
}

impl Account {
    /// What a power loss may leave: everything persistent but what is settled for good.
    pub(crate) fn after_power_loss(&self) -> Self {
        let persistent = self.persistent.clone();
        Self { published: persistent.clone(), persistent, settled: self.gone.clone(), ..Self::default() }
    }

    /// Messages that were found are the ones that survive from here on.
    pub(crate) fn holding(found: &[Id]) -> Self {
        let found: BTreeSet<Id> = found.iter().copied().collect();
        Self { published: found.clone(), persistent: found.clone(), confirmed: found, ..Self::default() }
    }

    /// What must be there after a power loss.
    pub(crate) fn owed(&self) -> BTreeSet<Id> {
        let gone = &self.settled | &self.doubtful;
        &self.confirmed - &gone
    }

    /// Some message was delivered as new.
    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<String, Account>,
    /// Durable queues that the broker vouched for.
    pub(crate) declared: BTreeSet<String>,
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

    pub(crate) fn publish(&mut self, queue: &str, id: Id, persistent: bool) {
        let account = self.account(queue);
        account.published.insert(id);
        if persistent {
            account.persistent.insert(id);
        }
    }

    pub(crate) fn empty(&mut self, queue: &str) {
        let account = self.account(queue);
        account.doubtful.clone_from(&account.published);
    }

    pub(crate) fn delete(&mut self, queue: &str) {
        self.empty(queue);
        self.declared.remove(queue);
        let account = self.account(queue);
        account.deleted.clone_from(&account.published);
        account.deletions += 1;
    }

    pub(crate) fn check_persistent(&mut self, queue: &str, id: Id, persistent: bool) {
        if queue.ends_with("-durable") {
            assert_eq!(self.account(queue).persistent.contains(&id), persistent, "{queue}: properties of {id:?}");
        }
    }

    /// Persistent messages that the broker vouches for.
    pub(crate) fn confirm(&mut self, messages: impl IntoIterator<Item = (String, Id)>) {
        for (queue, id) in messages {
            self.account(&queue).confirmed.insert(id);
        }
    }

    /// All that was done so far has become durable.
    pub(crate) fn sync(&mut self) {
        for account in self.accounts.values_mut() {
            account.gone = &account.settled | &account.deleted;
        }
    }

    pub(crate) fn settle(&mut self, queue: &str, id: Id) {
        assert!(self.account(queue).settled.insert(id), "{queue}: {id:?} is settled twice");
    }
}
