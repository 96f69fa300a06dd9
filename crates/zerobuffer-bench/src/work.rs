//! What client and handler do with a frame: the same compiled functions in process (L3) and through a
//! channel (P3), so that the ratio speaks of the channel alone.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bytes of a picture of 1920 x 1080 pixels in RGB.
pub(crate) const FRAME: usize = 1920 * 1080 * 3;
pub(crate) const MIB: usize = 1 << 20;
pub(crate) const GIB: usize = 1 << 30;

/// What the server does with a frame.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Nothing: the bytes are not touched.
    Nothing,
    /// Adds one to the number in the first eight bytes.
    Increment,
    /// Inverts every byte.
    Invert,
    /// Blackens a twentieth of the bytes.
    Redact,
    /// Never ends.
    Hang,
}

impl Work {
    #[inline]
    pub(crate) fn on(self, bytes: &mut [u8]) {
        match self {
            Self::Nothing => {}
            Self::Increment => {
                if let Some(number) = number(bytes) {
                    put_number(bytes, number + 1);
                }
            }
            Self::Invert => invert(bytes),
            Self::Redact => redact(bytes),
            Self::Hang => loop {
                std::thread::park();
            },
        }
    }
}

/// The number in the first eight bytes, if there are so many.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|first| u64::from_le_bytes(*first))
}

/// Writes a number into the first eight bytes, if there are so many.
#[inline]
pub(crate) fn put_number(bytes: &mut [u8], number: u64) {
    if let Some(first) = bytes.first_chunk_mut() {
        *first = number.to_le_bytes();
    }
}

/// The client's part before the call: writes every byte.
#[inline(never)]
pub(crate) fn fill(frame: &mut [u8], seed: u64) {
    let (words, rest) = frame.as_chunks_mut::<8>();
    for (word, index) in words.iter_mut().zip(0_u64..) {
        *word = (seed ^ index).to_le_bytes();
    }
    rest.fill(seed as u8);
}

/// The handler: changes every byte.
#[inline(never)]
pub(crate) fn invert(frame: &mut [u8]) {
    for byte in frame {
        *byte = !*byte;
    }
}

/// Another handler: changes a twentieth of the bytes, in the middle.
#[inline(never)]
pub(crate) fn redact(frame: &mut [u8]) {
    let part = redacted(frame.len());
    frame[part].fill(0);
}

/// Which bytes of a frame [`redact`] changes.
pub(crate) fn redacted(len: usize) -> Range<usize> {
    let start = len / 20 * 9;
    start..start + len / 20
}

/// The client's part after the call: reads every byte.
#[inline(never)]
pub(crate) fn read(frame: &[u8]) -> u64 {
    let (words, rest) = frame.as_chunks::<8>();
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// What [`read`] finds after [`fill`] and the handler's work.
pub(crate) fn expected(len: usize, seed: u64, work: Work) -> u64 {
    let mut frame = vec![0; len];
    fill(&mut frame, seed);
    work.on(&mut frame);
    read(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_depends_on_every_step() {
        let sum = expected(1003, 7, Work::Invert);
        assert_ne!(sum, expected(1003, 8, Work::Invert));
        assert_ne!(sum, expected(1003, 7, Work::Redact));
        let mut frame = vec![0; 1003];
        fill(&mut frame, 7);
        assert_ne!(sum, read(&frame));
        invert(&mut frame);
        assert_eq!(sum, read(&frame));
        frame[1002] ^= 1;
        assert_ne!(sum, read(&frame));
    }
}
