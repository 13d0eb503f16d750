//! Deleting a virtual host with everything in it.

use std::sync::atomic::Ordering;

use protocol::error::{AmqpError, ReplyCode};
use storage::TopologyChange;

use super::topology::Topology;
use super::{Vhost, records};
use crate::model::events::OPERATOR;
use crate::model::operation::OperationError;

impl Vhost {
    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// What connections are told when it is deleted.
    pub fn deletion_reason(&self) -> String {
        format!("vhost '{}' is deleted", self.name)
    }

    /// Ends all queues, exchanges, bindings, policies and parameters, and refuses new ones from now on. Gives the changes that
    /// make this durable: nothing of it is in the log yet.
    ///
    /// # Errors
    ///
    /// When it is protected, or was deleted before.
    pub fn take_for_delete(&self) -> Result<Vec<TopologyChange>, OperationError> {
        let mut topology = self.topology.lock();
        if topology.is_deleted() {
            return Err(OperationError::NoSuchVhost(self.name.to_string()));
        }
        if self.metadata().protected_from_deletion {
            return Err(OperationError::ProtectedVhost(self.name.to_string()));
        }
        topology.delete();
        self.deleted.store(true, Ordering::Release);
        let mut changes = Vec::new();
        let exchanges = self.exchanges();
        self.remove_exchanges(&mut topology, exchanges, OPERATOR, &mut changes);
        for queue in self.queues() {
            // Closed already or not: it goes.
            let _ = queue.close(false, false);
            self.remove_queue(&mut topology, &queue, OPERATOR, &mut changes);
        }
        self.delete_policies(&mut changes);
        changes.push(records::delete_vhost(&self.name));
        Ok(changes)
    }

    /// 320 when the virtual host is gone: what would be created now would outlive it.
    pub(super) fn check_not_deleted(&self, topology: &Topology) -> Result<(), AmqpError> {
        if topology.is_deleted() {
            return Err(AmqpError::new(ReplyCode::ConnectionForced, self.deletion_reason()));
        }
        Ok(())
    }
}
