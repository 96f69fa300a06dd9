//! What the frames of `writer` hold, and `reader --verify` expects.

use clap::ValueEnum;
use std::fmt;

/// How a frame's bytes follow from the frame's number, which counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// Byte i of frame f is (f + i) mod 256
    Sequential,
    /// Noise that follows from the frame's number alone
    Random,
    /// All bytes 0
    Zero,
    /// All bytes 255
    Ones,
}

/// What `reader --verify` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Any bytes are right
    None,
    /// Byte i of frame f is (f + i) mod 256
    Sequential,
    /// The noise of `writer --pattern random`
    Random,
    /// All bytes 0
    Zero,
    /// All bytes 255
    Ones,
}

impl Verify {
    pub(crate) fn pattern(self) -> Option<Pattern> {
        match self {
            Self::None => None,
            Self::Sequential => Some(Pattern::Sequential),
            Self::Random => Some(Pattern::Random),
            Self::Zero => Some(Pattern::Zero),
            Self::Ones => Some(Pattern::Ones),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// A byte that is not what its pattern says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) at: usize,
    pub(crate) found: u8,
    pub(crate) expected: u8,
}

impl Pattern {
    /// Fills frame `number`.
    pub(crate) fn fill(self, number: u64, data: &mut [u8]) {
        match self {
            Self::Sequential => {
                for (byte, at) in data.iter_mut().zip(0_u8..=255) {
                    *byte = (number as u8).wrapping_add(at);
                }
                // What follows repeats the first 256 bytes.
                let mut done = data.len().min(256);
                while done < data.len() {
                    let more = done.min(data.len() - done);
                    data.copy_within(..more, done);
                    done += more;
                }
            }
            Self::Random => {
                for (part, word) in data.chunks_mut(8).zip(Noise::of(number)) {
                    part.copy_from_slice(&word[..part.len()]);
                }
            }
            Self::Zero => data.fill(0),
            Self::Ones => data.fill(0xff),
        }
    }

    /// The first byte of frame `number` that is not what it should be.
    pub(crate) fn check(self, number: u64, data: &[u8]) -> Option<Difference> {
        let mut parts = data.chunks(8).enumerate();
        match self {
            Self::Random => parts
                .zip(Noise::of(number))
                .find_map(|((index, part), word)| differs(index * 8, part, &word)),
            _ => parts.find_map(|(index, part)| {
                let first = index * 8;
                let word: [u8; 8] = std::array::from_fn(|at| match self {
                    Self::Sequential => (number as u8).wrapping_add((first + at) as u8),
                    Self::Ones => 0xff,
                    _ => 0,
                });
                differs(first, part, &word)
            }),
        }
    }
}

/// Where `part`, whose first byte is byte `first` of the frame, is not like the beginning of `word`.
fn differs(first: usize, part: &[u8], word: &[u8; 8]) -> Option<Difference> {
    if part == &word[..part.len()] {
        return None;
    }
    let at = part.iter().zip(word).position(|(found, expected)| found != expected)?;
    Some(Difference { at: first + at, found: part[at], expected: word[at] })
}

/// SplitMix64, started with the frame's number: each word's bytes, the lowest one first.
struct Noise(u64);

impl Noise {
    fn of(frame: u64) -> Self {
        Self(frame)
    }
}

impl Iterator for Noise {
    type Item = [u8; 8];

    fn next(&mut self) -> Option<[u8; 8]> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some((word ^ (word >> 31)).to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 4] = [Pattern::Sequential, Pattern::Random, Pattern::Zero, Pattern::Ones];

    fn frame(pattern: Pattern, number: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0x55; len];
        pattern.fill(number, &mut data);
        data
    }

    #[test]
    fn patterns_are_the_documented_ones() {
        for (number, len) in [(0, 1), (3, 255), (254, 256), (1000, 257), (7, 2000)] {
            for (at, byte) in frame(Pattern::Sequential, number, len).into_iter().enumerate() {
                assert_eq!(u64::from(byte), (number + at as u64) % 256, "{number} {at}");
            }
        }
        assert_eq!(frame(Pattern::Zero, 9, 5), [0; 5]);
        assert_eq!(frame(Pattern::Ones, 9, 5), [255; 5]);
        // The first word of SplitMix64 with the seed 0 is 0xe220a8397b1dcdaf.
        let first = [0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2];
        assert_eq!(frame(Pattern::Random, 0, 8), first);
        assert_eq!(frame(Pattern::Random, 0, 3), first[..3]);
    }

    #[test]
    fn every_pattern_knows_its_own_frames_and_finds_each_wrong_byte() {
        for pattern in ALL {
            for len in [0, 1, 7, 8, 9, 255, 1000] {
                let mut data = frame(pattern, 300, len);
                assert_eq!(pattern.check(300, &data), None, "{pattern} {len}");
                for at in [0, len / 2, len.saturating_sub(1)].into_iter().filter(|_| len > 0) {
                    let expected = data[at];
                    data[at] ^= 1;
                    let found = data[at];
                    assert_eq!(
                        pattern.check(300, &data),
                        Some(Difference { at, found, expected }),
                        "{pattern} {len}"
                    );
                    data[at] ^= 1;
                }
            }
        }
    }

    #[test]
    fn frames_that_follow_each_other_differ() {
        for pattern in [Pattern::Sequential, Pattern::Random] {
            assert!(pattern.check(1, &frame(pattern, 0, 100)).is_some());
        }
    }
}
