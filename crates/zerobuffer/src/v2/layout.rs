//! Where everything lies in a segment (protocol v2, section 4 "Memory layout" and section 5 "Frames"). Pure
//! arithmetic: no pointer, no system call.

use crate::error::{Error, Result};

/// Offsets of the fields of an OIEB; add [`REQUEST`] or [`RESPONSE`].
pub(crate) mod oieb {
    pub(crate) const SIZE_AND_VERSION: usize = 0x00;
    pub(crate) const METADATA_SIZE: usize = 0x08;
    pub(crate) const METADATA_FREE_BYTES: usize = 0x10;
    pub(crate) const METADATA_WRITTEN_BYTES: usize = 0x18;
    pub(crate) const PAYLOAD_SIZE: usize = 0x20;
    pub(crate) const PAYLOAD_FREE_BYTES: usize = 0x28;
    pub(crate) const PAYLOAD_WRITTEN_BYTES: usize = 0x30;
    pub(crate) const PAYLOAD_WRITTEN_COUNT: usize = 0x38;
    pub(crate) const PAYLOAD_READ_COUNT: usize = 0x40;
    pub(crate) const WRITER_PID: usize = 0x48;
    pub(crate) const READER_PID: usize = 0x50;
}

/// Offset of OIEB_Request.
pub(crate) const REQUEST: usize = 0x0000;
/// Offset of OIEB_Response.
pub(crate) const RESPONSE: usize = 0x0058;
/// Offset of the first metadata block; also the length of the control part.
pub(crate) const METADATA: usize = 0x00B0;
/// Size of one OIEB.
const OIEB_SIZE: u64 = 88;
/// The payload ring starts at a multiple of this.
const PAYLOAD_ALIGNMENT: u64 = 4096;
/// Slots, and the sizes of all blocks, are multiples of this.
pub(crate) const UNIT: u64 = 64;

/// The most bytes that a metadata block takes: its reader copies them, and their writer must not
/// say how much memory that takes.
pub(crate) const MAX_METADATA: u64 = 64 << 20;

/// The byte that the server locks for life.
pub(crate) const SERVER_LOCK: u64 = 0;
/// The byte that the client locks for life.
pub(crate) const CLIENT_LOCK: u64 = 88;

/// The first word of both OIEBs: u32 size 88, then the version bytes 2, 0, 0, 0.
pub(crate) const SIZE_AND_VERSION: u64 = OIEB_SIZE | 2 << 32;

const _: () = {
    assert!(oieb::READER_PID as u64 + 8 == OIEB_SIZE);
    assert!(RESPONSE as u64 == OIEB_SIZE);
    assert!(METADATA as u64 == 2 * OIEB_SIZE);
    assert!(SIZE_AND_VERSION.to_le_bytes()[0] == 88 && SIZE_AND_VERSION.to_le_bytes()[4] == 2);
};

/// Offsets inside of a slot, and what its header words hold.
pub(crate) mod slot {
    pub(crate) const PAYLOAD_SIZE: usize = 0x00;
    pub(crate) const SEQUENCE_NUMBER: usize = 0x08;
    pub(crate) const STATE: usize = 0x10;
    pub(crate) const SHAPE: usize = 0x18;
    /// Bytes of the header; the smallest data offset.
    pub(crate) const HEADER: u64 = 32;
    /// The largest data offset, and the largest alignment that can be asked for.
    pub(crate) const MAX_DATA_OFFSET: u64 = 4096;
}

/// The largest sequence number; the state word has 56 bits for it.
pub(crate) const MAX_SEQUENCE: u64 = (1 << 56) - 1;

/// The state word of a slot that holds nothing.
pub(crate) const EMPTY: u64 = 0;

/// The low byte of a state word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Request = 1,
    Response = 2,
    Released = 3,
    Wrap = 4,
    Cancelled = 5,
}

impl Phase {
    /// The state word of this phase for `sequence`.
    #[inline]
    pub(crate) const fn of(self, sequence: u64) -> u64 {
        sequence << 8 | self as u64
    }
}

/// The last header word: u32 stride, u16 data_offset, u16 status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotShape {
    /// Slot length in units of 64 bytes.
    pub(crate) stride: u32,
    /// From the slot's start to its data.
    pub(crate) data_offset: u16,
    /// 0, or the handler's failure code.
    pub(crate) status: u16,
}

impl SlotShape {
    #[inline]
    pub(crate) const fn from_word(word: u64) -> Self {
        Self { stride: word as u32, data_offset: (word >> 32) as u16, status: (word >> 48) as u16 }
    }

    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        self.stride as u64 | (self.data_offset as u64) << 32 | (self.status as u64) << 48
    }

    /// Slot length in bytes.
    #[inline]
    pub(crate) const fn len(self) -> u64 {
        self.stride as u64 * UNIT
    }

    /// Bytes of data that the slot can hold; 0 if the data offset lies outside of it.
    #[inline]
    pub(crate) const fn capacity(self) -> u64 {
        self.len().saturating_sub(self.data_offset as u64)
    }
}

/// The smallest multiple of `to` (a power of two) that is at least `value`.
#[inline]
pub(crate) const fn align_up(value: u64, to: u64) -> u64 {
    (value + to - 1) & !(to - 1)
}

/// What a claim asks for: room for `capacity` bytes of data at a multiple of `alignment`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    capacity: u64,
    /// A power of two up to 4096; 1 if any will do.
    alignment: u64,
    /// Rather in bytes that were in use lately than in those behind them.
    prefer_cached: bool,
}

impl Demand {
    /// # Errors
    /// `BadConfig` for an alignment that is no power of two up to 4096.
    #[inline]
    pub(crate) fn new(capacity: u64, alignment: u64) -> Result<Self> {
        if !alignment.is_power_of_two() || alignment > slot::MAX_DATA_OFFSET {
            return Err(Error::BadConfig {
                what: "alignment",
                asked: alignment,
                allowed: "a power of two from 1 to 4096",
            });
        }
        Ok(Self { capacity, alignment, prefer_cached: false })
    }

    /// A demand for any place.
    #[inline]
    pub(crate) const fn anywhere(capacity: u64) -> Self {
        Self { capacity, alignment: 1, prefer_cached: false }
    }

    /// A demand for any place, but rather where the caches of both sides still have the ring. For a
    /// request that is answered before the next one is made: what lies behind it is out of use until
    /// the server is there.
    #[inline]
    pub(crate) const fn prefer_cached(capacity: u64) -> Self {
        Self { capacity, alignment: 1, prefer_cached: true }
    }

    #[inline]
    pub(crate) fn prefers_cached(self) -> bool {
        self.prefer_cached
    }

    #[inline]
    pub(crate) fn capacity(self) -> u64 {
        self.capacity
    }

    pub(crate) fn alignment(self) -> u64 {
        self.alignment
    }

    /// The data offset of a slot at `position`. Header and data share a cache line if they can.
    #[inline]
    pub(crate) fn data_offset(self, position: u64) -> u64 {
        let least = if self.capacity <= slot::HEADER { slot::HEADER } else { UNIT };
        // Alignments below 32 are met by every multiple of 32.
        align_up(position + least, self.alignment.max(slot::HEADER)) - position
    }

    /// The length of a slot at `position`; `None` if it is beyond all bounds.
    #[inline]
    pub(crate) fn slot_len(self, position: u64) -> Option<u64> {
        let end = self.data_offset(position).checked_add(self.capacity)?;
        Some(end.checked_add(UNIT - 1)? & !(UNIT - 1))
    }
}

/// The checked sizes and offsets of one segment: a private copy that the peer cannot change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) metadata_request: u64,
    pub(crate) metadata_response: u64,
    pub(crate) payload_offset: u64,
    pub(crate) payload_size: u64,
}

impl Geometry {
    /// The geometry of a segment with these block sizes; `None` if one breaks a rule of
    /// section 4.3 "Geometry check".
    pub(crate) fn new(metadata_request: u64, metadata_response: u64, payload: u64) -> Option<Self> {
        let whole = |size: u64| size.is_multiple_of(UNIT);
        if !whole(metadata_request) || !whole(metadata_response) || !whole(payload) {
            return None;
        }
        // A slot may be as long as the ring, and its stride is a u32.
        if payload < UNIT || payload / UNIT > u64::from(u32::MAX) {
            return None;
        }
        let end =
            (METADATA as u64).checked_add(metadata_request)?.checked_add(metadata_response)?;
        let payload_offset = end.checked_next_multiple_of(PAYLOAD_ALIGNMENT)?;
        let total = payload_offset.checked_add(payload)?;
        isize::try_from(total).ok()?;
        Some(Self { metadata_request, metadata_response, payload_offset, payload_size: payload })
    }

    /// Length of the segment in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.payload_offset + self.payload_size
    }

    /// Offset of Metadata_Response.
    pub(crate) fn metadata_response_offset(&self) -> u64 {
        METADATA as u64 + self.metadata_request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_memory_map() {
        assert_eq!((REQUEST, RESPONSE, METADATA), (0x0000, 0x0058, 0x00B0));
        assert_eq!(SIZE_AND_VERSION.to_le_bytes(), [88, 0, 0, 0, 2, 0, 0, 0]);
        let geometry = Geometry::new(4096, 4096, 100 << 20).unwrap();
        assert_eq!(geometry.metadata_response_offset(), 0x10B0);
        assert_eq!(geometry.payload_offset, 12288);
        assert_eq!(geometry.total(), 12288 + (100 << 20));
        assert_eq!(Geometry::new(0, 0, 64).unwrap().payload_offset, 4096);
    }

    #[test]
    fn sizes_that_break_a_rule_have_no_geometry() {
        for (request, response, payload) in [
            (1, 0, 64),
            (0, 63, 64),
            (0, 0, 0),
            (0, 0, 65),
            (0, 0, (u64::from(u32::MAX) + 1) * 64),
            (u64::MAX - 63, 0, 64),
            (u64::MAX / 2 + 1, u64::MAX / 2 + 1, 64),
            (1 << 62, 1 << 62, 64),
        ] {
            assert_eq!(
                Geometry::new(request, response, payload),
                None,
                "{request} {response} {payload}"
            );
        }
        assert!(Geometry::new(0, 0, u64::from(u32::MAX) * 64).is_some());
    }

    #[test]
    fn shape_words_follow_the_header() {
        let shape = SlotShape { stride: 0x0403_0201, data_offset: 0x0605, status: 0x0807 };
        assert_eq!(shape.to_word().to_le_bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(SlotShape::from_word(shape.to_word()), shape);
    }

    #[test]
    fn small_data_shares_the_line_with_its_header() {
        let place = |capacity, alignment, position| {
            let demand = Demand::new(capacity, alignment).unwrap();
            (demand.data_offset(position), demand.slot_len(position).unwrap())
        };
        assert_eq!(place(0, 1, 0), (32, 64));
        assert_eq!(place(32, 1, 64), (32, 64));
        assert_eq!(place(33, 1, 64), (64, 128));
        assert_eq!(place(64, 1, 0), (64, 128));
        assert_eq!(place(65, 1, 0), (64, 192));
        // Aligned: the smallest multiple of 32 that puts the data there, wherever the slot lies.
        assert_eq!(place(8, 32, 0), (32, 64));
        assert_eq!(place(8, 64, 0), (64, 128));
        assert_eq!(place(8, 4096, 0), (4096, 4160));
        assert_eq!(place(8, 4096, 4032), (64, 128));
        assert_eq!(place(8, 4096, 64), (4032, 4096));
    }

    #[test]
    fn data_offsets_stay_within_their_bounds_at_every_position() {
        for alignment in (0..=12).map(|bit| 1u64 << bit) {
            for capacity in [0, 1, 32, 33, 1000] {
                let demand = Demand::new(capacity, alignment).unwrap();
                for position in (0..16384).step_by(64) {
                    let offset = demand.data_offset(position);
                    assert!((32..=4096).contains(&offset) && offset.is_multiple_of(32));
                    assert_eq!((position + offset) % alignment, 0);
                }
            }
        }
    }

    #[test]
    fn impossible_demands_are_refused() {
        for alignment in [0, 3, 8192, u64::MAX] {
            assert!(Demand::new(1, alignment).is_err(), "{alignment}");
        }
        assert_eq!(Demand::new(u64::MAX - 64, 1).unwrap().slot_len(0), None);
        assert_eq!(Demand::new(u64::MAX, 4096).unwrap().slot_len(0), None);
    }
}
