//! Who a client is.

use crate::sys::PeerProcess;

/// Who a client of a service is, by the system's word and by its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    number: u64,
    pid: u32,
    uid: u32,
    gid: u32,
    label: String,
}

impl ClientIdentity {
    pub(super) fn new(number: u64, peer: PeerProcess, label: String) -> Self {
        Self { number, pid: peer.pid, uid: peer.uid, gid: peer.gid, label }
    }

    /// The number of its connection on this server, from 1; never used again.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The process that connected; 0 if it is not visible from this one's pid namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its effective user when it connected.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its effective group when it connected.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// What it says of itself; control characters are replaced.
    pub fn label(&self) -> &str {
        &self.label
    }
}
