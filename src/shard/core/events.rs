//! What a transport says of its senders, and of the network.

use std::net::SocketAddr;

use tickcast_components::handoff::{CONNECTION_REPORTS_MAX, PATH_REPORTS_MAX};
use tickcast_components::{
    ConnectionChange, ConnectionReport, EndpointReportKind, PathError, PathReport, Slot, Timestamp,
};

use super::ShardCore;
use crate::shard::table::State;
use crate::transport::{SenderEvent, Writable};

/// The least size of datagrams that hearsay can bring about, so that a forged error costs a few more datagrams, not one per
/// message: what Linux believes by default over IPv4 (552 bytes of packet), and what every path takes over IPv6.
const HEARSAY_BYTES_MIN_V4: u32 = 552 - 28;
const HEARSAY_BYTES_MIN_V6: u32 = 1280 - 48;

impl ShardCore {
    /// Applies what a transport says of one of its senders.
    pub(crate) fn sender_event(&mut self, event: SenderEvent) {
        match event {
            SenderEvent::Connected(slot, identity) => {
                if self.table.get(slot).is_some_and(|endpoint| endpoint.state == State::Open) {
                    self.unblock(slot);
                    self.tell(slot, EndpointReportKind::Connected(identity));
                }
            }
            SenderEvent::Stopped(slot, cause) => self.stop(slot, cause, State::Stopped),
            SenderEvent::Accepted(addr, identity) => self.connection(addr, ConnectionChange::Accepted(identity)),
            SenderEvent::Ended(addr, cause) => self.connection(addr, ConnectionChange::Ended(cause)),
            SenderEvent::PathError(addr, error) => self.path_error(addr, error),
        }
    }

    /// Tells of an accepted connection that is nobody's endpoint.
    pub(super) fn connection(&mut self, addr: SocketAddr, change: ConnectionChange) {
        if self.report.connections.len() < CONNECTION_REPORTS_MAX {
            self.report.connections.push(ConnectionReport { addr, change });
        } else {
            self.report.connections_untold += 1;
        }
    }

    pub(super) fn narrow_by_hearsay(&mut self, addr: SocketAddr, datagram_bytes_max: u32) {
        let min = if addr.is_ipv4() { HEARSAY_BYTES_MIN_V4 } else { HEARSAY_BYTES_MIN_V6 };
        self.table.narrow_at(addr, datagram_bytes_max.max(min));
    }

    /// Notes what the network has said of an address. What it says of sizes is believed only of addresses in use.
    fn path_error(&mut self, addr: SocketAddr, error: PathError) {
        if let PathError::TooBig { datagram_bytes_max } = error {
            self.narrow_by_hearsay(addr, datagram_bytes_max);
        }
        self.report.path_errors += 1;
        let known = self.report.path.iter_mut().find(|report| report.addr == addr && report.error == error);
        if let Some(report) = known {
            report.count += 1;
        } else if self.report.path.len() < PATH_REPORTS_MAX {
            self.report.path.push(PathReport { addr, error, count: 1 });
        }
    }

    /// Lets blocked endpoints try again.
    pub(crate) fn writable(&mut self, writable: Writable, now: Timestamp) {
        match writable {
            // What is still connecting is let try by the news of its connection only.
            Writable::Slot(slot) if self.table.get(slot).is_some_and(|endpoint| !endpoint.is_connecting()) => {
                self.finish_begun(slot, now);
                self.unblock(slot);
            }
            Writable::Slot(_) => {}
            Writable::All => {
                let mut slots = std::mem::take(&mut self.arrays.slots);
                self.table.unblock_all(&mut slots);
                for slot in slots.drain(..) {
                    self.list(slot);
                }
                self.arrays.slots = slots;
            }
        }
    }

    fn unblock(&mut self, slot: Slot) {
        self.table.unblock(slot);
        self.list(slot);
    }
}
