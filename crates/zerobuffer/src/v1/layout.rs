//! Where everything lies in a version 1 segment, and where a frame may be placed. Pure arithmetic: no
//! pointer, no system call.

use crate::error::{Error, Result};

/// Offsets of the fields of the OIEB.
pub(crate) mod oieb {
    pub(crate) const SIZE_AND_VERSION: usize = 0x00;
    pub(crate) const METADATA_SIZE: usize = 0x08;
    pub(crate) const METADATA_FREE_BYTES: usize = 0x10;
    pub(crate) const METADATA_WRITTEN_BYTES: usize = 0x18;
    pub(crate) const PAYLOAD_SIZE: usize = 0x20;
    pub(crate) const PAYLOAD_FREE_BYTES: usize = 0x28;
    pub(crate) const PAYLOAD_WRITE_POS: usize = 0x30;
    pub(crate) const PAYLOAD_READ_POS: usize = 0x38;
    pub(crate) const PAYLOAD_WRITTEN_COUNT: usize = 0x40;
    pub(crate) const PAYLOAD_READ_COUNT: usize = 0x48;
    pub(crate) const WRITER_PID: usize = 0x50;
    pub(crate) const READER_PID: usize = 0x58;
    /// Four words that nobody writes; they stay 0.
    pub(crate) const RESERVED: usize = 0x60;
}

/// Size of the OIEB; the metadata block follows.
pub(crate) const OIEB: u64 = 128;
/// u32 size 128, then the version bytes 1, 0, 0, 0.
pub(crate) const SIZE_AND_VERSION: u64 = OIEB | 1 << 32;
/// Blocks start at multiples of this. Frames inside of the ring start anywhere.
const UNIT: u64 = 64;
/// u64 payload size, u64 sequence number.
pub(crate) const FRAME_HEADER: u64 = 16;
/// Peers in C# compute positions as 32-bit integers (rule R18).
const LARGEST: u64 = (1 << 31) - 1;

const _: () = {
    assert!(oieb::RESERVED + 4 * 8 == OIEB as usize);
    assert!(SIZE_AND_VERSION.to_le_bytes()[0] == 128 && SIZE_AND_VERSION.to_le_bytes()[4] == 1);
};

/// The checked sizes of one segment: a private copy that the peer cannot change (rule R17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) metadata_size: u64,
    pub(crate) payload_size: u64,
}

impl Geometry {
    /// For a new segment: both sizes are rounded up to multiples of 64.
    ///
    /// # Errors
    /// `BadConfig` for no payload, or for 2 GiB and more in total, which C# peers cannot address.
    pub(crate) fn for_request(metadata: usize, payload: usize) -> Result<Self> {
        let whole = |size: usize| (size as u64).checked_next_multiple_of(UNIT);
        let refuse = |what, asked: usize, allowed| {
            Err(Error::BadConfig { what, asked: asked as u64, allowed })
        };
        if payload == 0 {
            return refuse("payload size", 0, "64 bytes to 2 GiB in total");
        }
        match (whole(metadata), whole(payload)) {
            (Some(metadata_size), _) if metadata_size > LARGEST => {
                refuse("metadata size", metadata, "less than 2 GiB in total")
            }
            (Some(metadata_size), Some(payload_size))
                if payload_size <= LARGEST - OIEB - metadata_size.min(LARGEST - OIEB) =>
            {
                Ok(Self { metadata_size, payload_size })
            }
            _ => refuse("payload size", payload, "less than 2 GiB in total"),
        }
    }

    /// Of a segment that exists, from its header's words; `None` if they break a rule or exceed the
    /// `available` bytes.
    pub(crate) fn of_segment(metadata: u64, payload: u64, available: u64) -> Option<Self> {
        let whole = |size: u64| size.is_multiple_of(UNIT);
        let total = OIEB.checked_add(metadata)?.checked_add(payload)?;
        (whole(metadata) && whole(payload) && payload >= UNIT && total <= available)
            .then_some(Self { metadata_size: metadata, payload_size: payload })
    }

    pub(crate) fn payload_offset(&self) -> u64 {
        OIEB + self.metadata_size
    }

    /// Length of the segment in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.payload_offset() + self.payload_size
    }

    /// The longest frame that a ring of this size can ever take: an exact fit at its beginning.
    pub(crate) fn max_frame(&self) -> u64 {
        self.payload_size - FRAME_HEADER
    }

    /// The longest frame that fits at every position, whatever lies before it (rules R1 and R2).
    pub(crate) fn sure_frame(&self) -> u64 {
        (self.payload_size / 2).saturating_sub(24)
    }
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its header starts.
    pub(crate) at: u64,
    /// Bytes from the write position to the end that it leaves unused; 0 if it does not wrap.
    pub(crate) waste: u64,
    /// Bytes of the ring that must be free.
    pub(crate) required: u64,
}

/// Whether a frame that leaves `rest` bytes to the end may be written: every reader of an existing v1 program
/// breaks on a rest that is too short for a header (rule R1).
fn is_good_rest(rest: u64) -> bool {
    rest == 0 || rest >= FRAME_HEADER
}

/// Where a frame of `len` bytes goes in a ring of `size` bytes whose write position is `position`.
///
/// # Errors
/// `EmptyFrame`; `TooLarge` if such a ring can never take it; `WouldNeverFit` if this position rules
/// it out (rule R2).
pub(crate) fn place(len: u64, position: u64, size: u64) -> Result<Place> {
    if len == 0 {
        return Err(Error::EmptyFrame);
    }
    let max = size - FRAME_HEADER;
    if len > max {
        return Err(Error::TooLarge { what: "a frame", asked: len, max });
    }
    // At the beginning of the ring the rest must be good as well.
    if !is_good_rest(max - len) {
        return Err(leaves_bad_rest(len, max));
    }
    let total = FRAME_HEADER + len;
    let to_end = size - position;
    if total <= to_end && is_good_rest(to_end - total) {
        return Ok(Place { at: position, waste: 0, required: total });
    }
    // Everything from the write position to the end and the frame itself: free at the same time only
    // if the frame ends before the write position.
    if total > position {
        let max = to_end.max(position).saturating_sub(FRAME_HEADER);
        return Err(Error::WouldNeverFit { asked: len, max });
    }
    Ok(Place { at: 0, waste: to_end, required: to_end + total })
}

/// A frame that leaves a rest of the whole ring that is too short for a header.
#[cold]
fn leaves_bad_rest(len: u64, longest: u64) -> Error {
    let rest = longest - len;
    let max = longest.saturating_sub(FRAME_HEADER);
    let message = format!(
        "a frame of {len} bytes would leave {rest} bytes at the end of the ring, too few for the header of \
         another: at most {max} bytes fit, or exactly {longest}"
    );
    Error::TooLarge { what: "a frame", asked: len, max }.explained(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn sizes_are_rounded_and_added_as_existing_programs_do() {
        let geometry = Geometry::for_request(100, 1000).unwrap();
        assert_eq!(geometry, Geometry { metadata_size: 128, payload_size: 1024 });
        assert_eq!((geometry.payload_offset(), geometry.total()), (256, 1280));
        assert_eq!(Geometry::for_request(0, 1).unwrap().total(), 192);
    }

    /// Rule R18: nothing of 2 GiB or more is made.
    #[test]
    fn segments_that_a_csharp_peer_cannot_address_are_refused() {
        let edge = (1 << 31) - 128 - 64;
        assert_eq!(Geometry::for_request(0, edge).unwrap().total(), (1 << 31) - 64);
        for (metadata, payload) in [
            (0, 0),
            (0, edge + 1),
            (64, edge),
            (1 << 31, 64),
            (usize::MAX, 64),
            (0, usize::MAX),
            (edge, edge),
        ] {
            let error = Geometry::for_request(metadata, payload).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadConfig, "{metadata} {payload}");
        }
    }

    /// Rule R17: what a header says is checked before it is believed.
    #[test]
    fn headers_that_break_a_rule_have_no_geometry() {
        assert!(Geometry::of_segment(128, 1024, 1280).is_some());
        for (metadata, payload, available) in [
            (128, 1024, 1279),
            (1, 1024, 4096),
            (128, 1000, 4096),
            (128, 0, 4096),
            (u64::MAX - 63, 64, u64::MAX),
            (0, u64::MAX - 63, u64::MAX),
        ] {
            assert_eq!(Geometry::of_segment(metadata, payload, available), None);
        }
    }

    /// Rule R1: no frame leaves 1 to 15 bytes.
    #[test]
    fn short_rests_are_avoided_by_wrapping_first() {
        // 200 bytes to the end: an exact fit, a rest of 16, and everything between.
        let at = |len| place(len, 824, 1024);
        assert_eq!(at(184).unwrap(), Place { at: 824, waste: 0, required: 200 });
        for len in 169..184 {
            let wrapped = Place { at: 0, waste: 200, required: 200 + 16 + len };
            assert_eq!(at(len).unwrap(), wrapped, "{len}");
        }
        assert_eq!(at(168).unwrap(), Place { at: 824, waste: 0, required: 184 });
        assert_eq!(at(185).unwrap().waste, 200);
        // At the beginning nothing can be wrapped first: the frame can never be placed.
        for len in 1024 - 16 - 15..1024 - 16 {
            let error = place(len, 0, 1024).unwrap_err();
            assert!(matches!(error.facts(), Error::TooLarge { max: 992, .. }), "{len}: {error}");
            assert!(
                error.to_string().ends_with("at most 992 bytes fit, or exactly 1008"),
                "{error}"
            );
        }
        assert_eq!(place(1008, 0, 1024).unwrap().required, 1024);
        assert!(matches!(place(1009, 0, 1024), Err(Error::TooLarge { max: 1008, .. })));
        assert!(matches!(place(0, 0, 1024), Err(Error::EmptyFrame)));
    }

    /// Rule R2: what can never be placed from here is said at once, with what can.
    #[test]
    fn frames_beyond_both_sides_of_the_position_are_refused() {
        let error = place(700, 616, 1024).unwrap_err();
        assert!(matches!(error, Error::WouldNeverFit { asked: 700, max: 600 }), "{error}");
        assert_eq!(place(600, 616, 1024).unwrap().at, 0);
        let error = place(500, 400, 1024).map(drop);
        assert!(error.is_ok());
    }

    /// The corollary of R1 and R2 that the documentation promises.
    #[test]
    fn frames_of_half_the_ring_minus_24_fit_at_every_position() {
        for size in (64..=1024).step_by(64) {
            let geometry = Geometry { metadata_size: 0, payload_size: size };
            for position in (0..size).filter(|position| is_good_rest(size - position)) {
                for len in 1..=geometry.sure_frame() {
                    let place = place(len, position, size).unwrap();
                    assert!(place.required <= size, "{len} at {position} of {size}");
                    let end = place.at + FRAME_HEADER + len;
                    assert!(end <= size && is_good_rest(size - end));
                }
            }
        }
        // One byte more does not always fit.
        assert!(place(512 - 23, 512 - 8, 1024).is_err());
    }
}
