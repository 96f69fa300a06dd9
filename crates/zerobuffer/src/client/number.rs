//! The numbers of requests, as callers know them.

/// A request's number: one request for the life of a client, whatever connections it has. The ring counts
/// from 1 for each connection, in plain integers; a channel alone turns one into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u64);

impl Number {
    /// As a caller has it.
    #[inline(always)]
    pub(super) fn of_caller(number: u64) -> Self {
        Self(number)
    }

    /// What a caller gets to see.
    #[inline(always)]
    pub(super) fn for_caller(self) -> u64 {
        self.0
    }

    /// Of what the ring calls `sequence`, on a connection before which `counted_before` numbers were used.
    #[inline(always)]
    pub(super) fn of_ring(sequence: u64, counted_before: u64) -> Self {
        Self(counted_before.saturating_add(sequence))
    }

    /// The ring's sequence for it; `None` if it belongs to a previous connection.
    #[inline(always)]
    pub(super) fn in_ring(self, counted_before: u64) -> Option<u64> {
        self.0.checked_sub(counted_before).filter(|sequence| *sequence > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_request_of_one_connection() {
        assert_eq!(Number::of_ring(1, 0).for_caller(), 1);
        assert_eq!(Number::of_ring(3, 40).for_caller(), 43);
        assert_eq!(Number::of_caller(43).in_ring(40), Some(3));
        assert_eq!(
            Number::of_caller(40).in_ring(40),
            None,
            "the last one of the previous connection"
        );
        assert_eq!(Number::of_caller(0).in_ring(0), None);
        assert_eq!(Number::of_caller(7).in_ring(u64::MAX), None);
        assert_eq!(Number::of_ring(2, u64::MAX - 1).for_caller(), u64::MAX);
    }
}
