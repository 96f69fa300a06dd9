//! Which servers of a service a pool has a connection to: each one once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The servers that are taken, by identity; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<Vec<u64>>>);

/// A server that is taken, until this is dropped or released.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    server: u64,
    is_released: AtomicBool,
}

impl Seats {
    fn servers(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_taken(&self, server: u64) -> bool {
        self.servers().contains(&server)
    }

    /// `None` if another connection has taken the server.
    pub(crate) fn take(&self, server: u64) -> Option<Seat> {
        let mut servers = self.servers();
        if servers.contains(&server) {
            return None;
        }
        servers.push(server);
        Some(Seat { seats: self.clone(), server, is_released: AtomicBool::new(false) })
    }
}

impl Seat {
    /// The server may be taken again.
    pub(crate) fn release(&self) {
        // Once: after that it may be another connection's.
        if !self.is_released.swap(true, Ordering::Relaxed) {
            self.seats.servers().retain(|server| *server != self.server);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_once_until_its_seat_is_released() {
        let seats = Seats::default();
        let seat = seats.take(7).unwrap();
        assert!(seats.is_taken(7) && seats.take(7).is_none() && seats.take(8).is_some());
        seat.release();
        let again = seats.take(7).unwrap();
        drop(seat);
        assert!(seats.is_taken(7), "it is the next one's");
        drop(again);
        assert!(!seats.is_taken(7));
    }
}
