//! Pictures: their shape, as it travels in the client's metadata, and their pixels.

pub(crate) mod file;

use std::fmt;

/// The first four bytes of the metadata that tells a picture's shape.
const MAGIC: [u8; 4] = *b"ZBI1";
/// Bytes of that metadata: the magic, then width, height and channels as little-endian u32.
const METADATA_LEN: usize = 16;
/// So that the bytes of a row can be counted in 32 bits, as the blur does.
const LONGEST_SIDE: u32 = 1 << 28;

/// Width and height in pixels, and bytes for each pixel: 1 gray, 3 RGB, 4 RGBA. Rows follow each other
/// without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) channels: u32,
}

impl Shape {
    /// The shape as a client's metadata carries it.
    pub(crate) fn to_metadata(self) -> [u8; METADATA_LEN] {
        let mut metadata = [0; METADATA_LEN];
        metadata[..4].copy_from_slice(&MAGIC);
        metadata[4..8].copy_from_slice(&self.width.to_le_bytes());
        metadata[8..12].copy_from_slice(&self.height.to_le_bytes());
        metadata[12..].copy_from_slice(&self.channels.to_le_bytes());
        metadata
    }

    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_metadata(metadata: &[u8]) -> Result<Self, String> {
        let words: [u8; METADATA_LEN] = metadata
            .try_into()
            .map_err(|_| format!("it has {} bytes, not {METADATA_LEN}", metadata.len()))?;
        if words[..4] != MAGIC {
            return Err("it does not begin with ZBI1".to_owned());
        }
        let word = |at: usize| {
            u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
        };
        let shape = Self { width: word(4), height: word(8), channels: word(12) };
        let side = 1..=LONGEST_SIDE;
        let possible = side.contains(&shape.width) && side.contains(&shape.height);
        if !possible || !matches!(shape.channels, 1 | 3 | 4) {
            return Err(format!("{shape} is not possible; channels are 1, 3 or 4"));
        }
        Ok(shape)
    }

    /// Bytes of such a picture, if they can be counted.
    pub(crate) fn bytes(self) -> Option<usize> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        pixels.checked_mul(u64::from(self.channels)).and_then(|bytes| usize::try_from(bytes).ok())
    }

    /// What the channels are.
    pub(crate) fn colours(self) -> &'static str {
        match self.channels {
            1 => "gray",
            3 => "RGB",
            _ => "RGBA",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {}", self.width, self.height, self.channels)
    }
}

/// A picture in this process's own memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) shape: Shape,
    pub(crate) data: Vec<u8>,
    /// The colour profile of its file, if it had one.
    pub(crate) profile: Option<Vec<u8>>,
}

impl Picture {
    /// Writes the picture into `to`, moved down by `rows`, what falls out at the bottom coming in at
    /// the top.
    pub(crate) fn scrolled_into(&self, rows: usize, to: &mut [u8]) {
        let row = self.shape.width as usize * self.shape.channels as usize;
        let moved = rows % self.shape.height as usize * row;
        let (top, bottom) = to.split_at_mut(moved);
        let (stays, wraps) = self.data.split_at(self.data.len() - moved);
        bottom.copy_from_slice(stays);
        top.copy_from_slice(wraps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_the_documented_one() {
        let shape = Shape { width: 1280, height: 720, channels: 3 };
        let metadata = *b"ZBI1\x00\x05\x00\x00\xd0\x02\x00\x00\x03\x00\x00\x00";
        assert_eq!(shape.to_metadata(), metadata);
        assert_eq!(Shape::from_metadata(&metadata), Ok(shape));
    }

    #[test]
    fn wrong_metadata_is_refused_with_a_reason() {
        let good = Shape { width: 1, height: 1, channels: 1 }.to_metadata();
        assert!(Shape::from_metadata(&[]).unwrap_err().contains("0 bytes"));
        assert!(Shape::from_metadata(&good[..15]).is_err());
        assert!(Shape::from_metadata(&[0; 16]).unwrap_err().contains("ZBI1"));
        for (width, height, channels) in
            [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2), (1, 1, 5), (u32::MAX, 1, 1)]
        {
            let metadata = Shape { width, height, channels }.to_metadata();
            assert!(Shape::from_metadata(&metadata).is_err());
        }
    }

    #[test]
    fn scrolling_moves_rows_down_and_around() {
        let shape = Shape { width: 1, height: 4, channels: 1 };
        let picture = Picture { shape, data: vec![1, 2, 3, 4], profile: None };
        let mut to = [0; 4];
        for (rows, expected) in [(0, [1, 2, 3, 4]), (1, [4, 1, 2, 3]), (6, [3, 4, 1, 2])] {
            picture.scrolled_into(rows, &mut to);
            assert_eq!(to, expected, "{rows} rows");
        }
    }
}
