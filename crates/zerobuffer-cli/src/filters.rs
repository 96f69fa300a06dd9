//! What a server does with a frame, in place: no filter makes a copy of it.

mod blur;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use crate::picture::Shape;
use clap::{Args, ValueEnum};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The largest radius of a blur: its sums fit 32 bits.
pub(crate) const LARGEST_RADIUS: u32 = 1449;

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

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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
    /// A band below the middle of the picture, a twentieth of it: 40 % across and 12.5 % down.
    fn default_of(shape: Shape) -> Self {
        let at = |side: u32, permille: u32| (u64::from(side) * u64::from(permille) / 1000) as u32;
        let (x, y) = (at(shape.width, 300), at(shape.height, 615));
        let (right, bottom) = (at(shape.width, 700), at(shape.height, 740));
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

/// How much of the picture `redact` blackens, in percent.
pub(crate) fn redacted_percent(area: Option<Area>, shape: Shape) -> f64 {
    let area = area.unwrap_or_else(|| Area::default_of(shape));
    let inside = area.within(shape);
    let pixels = inside.map_or(0, |(columns, rows)| columns.len() * rows.len());
    100.0 * pixels as f64 / (f64::from(shape.width) * f64::from(shape.height))
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

/// Options of the image filters.
#[derive(Debug, Clone, Args)]
pub(crate) struct ImageOptions {
    /// Radius of the blur in pixels [default: 1/60 of the shorter side]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_RADIUS)))]
    pub(crate) radius: Option<u32>,
    /// What redact blackens, in pixels [default: a band below the middle, 5 % of the picture]
    #[arg(long = "box", value_name = "X,Y,W,H")]
    pub(crate) area: Option<Area>,
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
                (Filter::Blur, Some(shape)) => blur(data, shape, self.options.radius),
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

/// Beside the picture this needs some 64 bytes for each pixel of the radius.
fn blur(data: &mut [u8], shape: Shape, radius: Option<u32>) {
    let radius = radius.unwrap_or((shape.width.min(shape.height) / 60).clamp(1, LARGEST_RADIUS));
    blur::stack_blur(data, shape, radius as usize);
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
