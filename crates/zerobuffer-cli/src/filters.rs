//! What a server does with a frame, in place: no filter makes a copy of it.

use crate::args::ImageOptions;
use crate::picture::Shape;
use clap::ValueEnum;
use libblur::{AnisotropicRadius, BlurImageMut, FastBlurChannels, ThreadingPolicy, stack_blur};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One thing to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Filter {
    /// The bytes as they are
    Echo,
    /// 255 - b for each byte b
    Invert,
    /// Each byte combined with the key's
    Xor,
    /// A picture, blurred by a stack blur, which looks like a Gaussian one
    Blur,
    /// A picture in shades of gray, with as many channels as before
    Grayscale,
    /// A picture with a black box
    Redact,
}

impl Filter {
    fn needs_shape(self) -> bool {
        matches!(self, Self::Blur | Self::Grayscale | Self::Redact)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// Bytes to combine a frame with, from hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// The key that inverts each byte.
    pub(crate) fn ones() -> Self {
        Self(vec![0xff])
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| match *pair {
                [high, low] => Some(digit(high)? << 4 | digit(low)?),
                _ => None,
            })
            .collect();
        match bytes {
            Some(bytes) if !bytes.is_empty() => Ok(Self(bytes)),
            _ => Err("write two hexadecimal digits for each byte, as in 5a1f".to_owned()),
        }
    }
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}

/// A box in a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl Area {
    /// A band below the middle of the picture.
    fn default_of(shape: Shape) -> Self {
        let at = |side: u32, percent: u32| (u64::from(side) * u64::from(percent) / 100) as u32;
        let (x, y) = (at(shape.width, 30), at(shape.height, 60));
        let (right, bottom) = (at(shape.width, 70), at(shape.height, 76));
        Self { x, y, width: (right - x).max(1), height: (bottom - y).max(1) }
    }

    /// The columns and rows of it that are inside of the picture, if any are.
    fn within(self, shape: Shape) -> Option<(Range<usize>, Range<usize>)> {
        let right = self.x.saturating_add(self.width).min(shape.width);
        let bottom = self.y.saturating_add(self.height).min(shape.height);
        let inside = self.x < right && self.y < bottom;
        inside.then_some((self.x as usize..right as usize, self.y as usize..bottom as usize))
    }
}

impl FromStr for Area {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<u32> =
            text.split(',').map_while(|part| part.trim().parse().ok()).collect();
        match numbers[..] {
            [x, y, width, height] if width > 0 && height > 0 && text.split(',').count() == 4 => {
                Ok(Self { x, y, width, height })
            }
            _ => {
                Err("write left, top, width and height in pixels, as in 100,80,320,200".to_owned())
            }
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.x, self.y, self.width, self.height)
    }
}

/// Filters that apply to each frame in their order.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    filters: Vec<Filter>,
    key: Vec<u8>,
    options: ImageOptions,
}

impl Chain {
    /// # Errors
    /// If xor has no key.
    pub(crate) fn new(
        filters: &[Filter],
        key: Option<&Key>,
        options: &ImageOptions,
    ) -> Result<Self, String> {
        let key = key.map(|key| key.0.clone()).unwrap_or_default();
        if filters.contains(&Filter::Xor) && key.is_empty() {
            return Err("--filter xor needs --key HEX, for example --key 5a1f".to_owned());
        }
        Ok(Self { filters: filters.to_vec(), key, options: options.clone() })
    }

    /// The filters' names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.filters.iter().map(Filter::to_string).collect()
    }

    /// Edits `data` where it lies. `metadata` is the client's.
    ///
    /// # Errors
    /// For the client: what it should have sent.
    pub(crate) fn apply(&self, metadata: &[u8], data: &mut [u8]) -> Result<(), String> {
        let shape = match self.filters.iter().find(|filter| filter.needs_shape()) {
            Some(filter) => Some(shape_of(*filter, metadata, data.len())?),
            None => None,
        };
        for filter in &self.filters {
            match (filter, shape) {
                (Filter::Invert, _) => data.iter_mut().for_each(|byte| *byte = 255 - *byte),
                (Filter::Xor, _) => xor(data, &self.key),
                (Filter::Blur, Some(shape)) => blur(data, shape, self.options.radius)?,
                (Filter::Grayscale, Some(shape)) => grayscale(data, shape),
                (Filter::Redact, Some(shape)) => redact(data, shape, self.options.area)?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The frame's shape, if the metadata tells it and the frame has it.
fn shape_of(filter: Filter, metadata: &[u8], len: usize) -> Result<Shape, String> {
    let shape = Shape::from_metadata(metadata)
        .map_err(|reason| format!("{filter} needs the picture's size in the metadata: {reason}"))?;
    match shape.bytes() {
        Some(bytes) if bytes == len => Ok(shape),
        _ => Err(format!("the frame has {len} bytes, but its metadata says {shape}")),
    }
}

fn xor(data: &mut [u8], key: &[u8]) {
    for part in data.chunks_mut(key.len()) {
        part.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    }
}

/// The stack blur goes over each row and then over each column, and writes the results where it has read.
/// Beside the picture it needs some 100 bytes for each pixel of the radius.
fn blur(data: &mut [u8], shape: Shape, radius: Option<u32>) -> Result<(), String> {
    let channels = match shape.channels {
        1 => FastBlurChannels::Plane,
        3 => FastBlurChannels::Channels3,
        _ => FastBlurChannels::Channels4,
    };
    let radius = radius.unwrap_or((shape.width.min(shape.height) / 60).max(1));
    let mut image = BlurImageMut::borrow(data, shape.width, shape.height, channels);
    stack_blur(&mut image, AnisotropicRadius::new(radius), ThreadingPolicy::Single)
        .map_err(|error| error.to_string())
}

/// Red, green and blue all become the luma of Rec. 709; a picture of one channel is gray already.
fn grayscale(data: &mut [u8], shape: Shape) {
    if shape.channels < 3 {
        return;
    }
    for pixel in data.chunks_exact_mut(shape.channels as usize) {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        let luma = (2126 * red + 7152 * green + 722 * blue) / 10_000;
        pixel[..3].fill(luma as u8);
    }
}

/// Blackens the box, opaque where there is an alpha channel.
fn redact(data: &mut [u8], shape: Shape, area: Option<Area>) -> Result<(), String> {
    let area = area.unwrap_or_else(|| Area::default_of(shape));
    // A box that hides nothing must not look like success.
    let (columns, rows) =
        area.within(shape).ok_or_else(|| format!("the box {area} is outside of {shape}"))?;
    let channels = shape.channels as usize;
    let in_row = columns.start * channels..columns.end * channels;
    for row in
        data.chunks_exact_mut(shape.width as usize * channels).take(rows.end).skip(rows.start)
    {
        row[in_row.clone()].fill(0);
        if channels == 4 {
            row[in_row.clone()].iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 255);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_OPTIONS: ImageOptions = ImageOptions { radius: None, area: None };

    fn apply(
        filter: Filter,
        options: &ImageOptions,
        shape: Shape,
        data: &mut [u8],
    ) -> Result<(), String> {
        let key = Key(vec![1, 2, 3]);
        Chain::new(&[filter], Some(&key), options)?.apply(&shape.to_metadata(), data)
    }

    #[test]
    fn byte_filters_take_any_length_and_no_metadata() {
        for len in [0, 1, 2, 3, 4, 1000] {
            let data: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let chain =
                |filter| Chain::new(&[filter], Some(&Key(vec![1, 2, 3])), &NO_OPTIONS).unwrap();
            for (filter, expected) in [
                (Filter::Echo, data.clone()),
                (Filter::Invert, data.iter().map(|b| !b).collect()),
                (
                    Filter::Xor,
                    data.iter().zip([1, 2, 3].iter().cycle()).map(|(b, k)| b ^ k).collect(),
                ),
            ] {
                let mut edited = data.clone();
                chain(filter).apply(&[], &mut edited).unwrap();
                assert_eq!(edited, expected, "{filter} of {len} bytes");
            }
        }
    }

    #[test]
    fn xor_without_a_key_is_refused() {
        assert!(Chain::new(&[Filter::Xor], None, &NO_OPTIONS).is_err());
    }

    #[test]
    fn keys_are_pairs_of_hexadecimal_digits() {
        assert_eq!("5a1F".parse(), Ok(Key(vec![0x5a, 0x1f])));
        for text in ["", "5", "5a1", "zz", "+1", "é"] {
            assert!(text.parse::<Key>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_frame_that_disagrees_with_its_metadata_is_refused() {
        let shape = Shape { width: 4, height: 2, channels: 3 };
        for len in [0, 23, 25] {
            let error = apply(Filter::Blur, &NO_OPTIONS, shape, &mut vec![0; len]).unwrap_err();
            assert_eq!(
                error,
                format!("the frame has {len} bytes, but its metadata says 4 x 2 x 3")
            );
        }
        let huge = Shape { width: u32::MAX, height: u32::MAX, channels: 4 };
        assert!(apply(Filter::Grayscale, &NO_OPTIONS, huge, &mut []).is_err());
        let none = Chain::new(&[Filter::Redact], None, &NO_OPTIONS).unwrap();
        assert!(none.apply(&[], &mut [0; 12]).unwrap_err().contains("metadata"));
    }

    #[test]
    fn blur_keeps_a_plain_picture_and_spreads_a_point() {
        for channels in [1, 3, 4] {
            for (width, height) in [(1, 1), (2, 1), (1, 9), (7, 5), (64, 48)] {
                let shape = Shape { width, height, channels };
                let mut plain = vec![77; shape.bytes().unwrap()];
                let options = ImageOptions { radius: Some(9), area: None };
                apply(Filter::Blur, &options, shape, &mut plain).unwrap();
                assert!(plain.iter().all(|byte| byte.abs_diff(77) <= 1), "{shape}");
            }
        }
        let shape = Shape { width: 31, height: 31, channels: 1 };
        let mut point = vec![0; 31 * 31];
        point[15 * 31 + 15] = 255;
        apply(Filter::Blur, &ImageOptions { radius: Some(2), area: None }, shape, &mut point)
            .unwrap();
        assert!(point[15 * 31 + 15] < 100 && point[14 * 31 + 15] > 0 && point[15 * 31 + 16] > 0);
        assert_eq!(point[15 * 31 + 20], 0);
    }

    #[test]
    fn grayscale_makes_the_colours_equal_and_leaves_alpha_alone() {
        let shape = Shape { width: 2, height: 1, channels: 4 };
        let mut data = [255, 0, 0, 9, 10, 20, 30, 40];
        apply(Filter::Grayscale, &NO_OPTIONS, shape, &mut data).unwrap();
        assert_eq!(data, [54, 54, 54, 9, 18, 18, 18, 40]);
    }

    #[test]
    fn redact_blackens_the_box_and_nothing_else() {
        let shape = Shape { width: 4, height: 3, channels: 1 };
        let area = "1,1,2,9".parse().unwrap();
        let mut data = [7; 12];
        apply(Filter::Redact, &ImageOptions { radius: None, area: Some(area) }, shape, &mut data)
            .unwrap();
        assert_eq!(data, [7, 7, 7, 7, 7, 0, 0, 7, 7, 0, 0, 7]);

        let shape = Shape { width: 1, height: 1, channels: 4 };
        let mut pixel = [1, 2, 3, 4];
        apply(Filter::Redact, &NO_OPTIONS, shape, &mut pixel).unwrap();
        assert_eq!(pixel, [0, 0, 0, 255]);
    }

    #[test]
    fn a_box_outside_of_the_picture_is_an_error() {
        let shape = Shape { width: 4, height: 3, channels: 1 };
        let options = ImageOptions { radius: None, area: "4,0,1,1".parse().ok() };
        assert!(apply(Filter::Redact, &options, shape, &mut [7; 12]).is_err());
    }

    #[test]
    fn boxes_are_four_numbers_with_some_area() {
        assert_eq!("1,2,3,4".parse(), Ok(Area { x: 1, y: 2, width: 3, height: 4 }));
        for text in
            ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,3,0", "a,2,3,4", "-1,2,3,4", "1,2,3,4,x"]
        {
            assert!(text.parse::<Area>().is_err(), "{text:?}");
        }
    }
}
