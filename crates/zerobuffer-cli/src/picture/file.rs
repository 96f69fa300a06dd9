//! Pictures in PNG and JPEG files, as their viewers show them.

use super::{Picture, Shape};
use crate::failure::Failure;
use crate::output;
use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::codecs::png::{PngDecoder, PngEncoder};
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageError,
    ImageFormat, ImageResult, Limits,
};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// The most bytes that a picture may have in its file, and as pixels.
const LARGEST: u64 = 2 << 30;
/// Enough of a file to tell its format.
const SIGNATURE: u64 = 16;

/// A picture's file of which the header has been read.
pub(crate) struct PictureFile {
    path: PathBuf,
    decoder: Box<dyn ImageDecoder>,
    orientation: Orientation,
    profile: Option<Vec<u8>>,
    shape: Shape,
    /// What will not be as in the file, for people.
    pub(crate) notes: Vec<String>,
}

impl PictureFile {
    /// Opens a PNG or JPEG file. Gray stays gray, an alpha channel is kept, all else becomes RGB of 8 bits.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let (format, bytes) = read(path)?;
        let refused = |error| refusal(path, error);
        let mut notes = vec![];
        let mut decoder: Box<dyn ImageDecoder> = match format {
            ImageFormat::Jpeg => {
                if !is_whole_jpeg(&bytes) {
                    return Err(Failure::file(
                        "decode",
                        path,
                        "the file ends before the picture does",
                    ));
                }
                Box::new(JpegDecoder::new(Cursor::new(bytes)).map_err(refused)?)
            }
            _ => {
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(LARGEST);
                let decoder =
                    PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(refused)?;
                if decoder.is_apng().map_err(refused)? {
                    notes.push("only the first picture of the animation is used".to_owned());
                }
                Box::new(decoder)
            }
        };
        if decoder.total_bytes() > LARGEST {
            let (width, height) = decoder.dimensions();
            let size = decoder.total_bytes();
            let reason =
                format!("{width} x {height} pixels take {size} bytes; the most is {LARGEST}");
            return Err(Failure::file("decode", path, reason));
        }
        let orientation = decoder.orientation().map_err(refused)?;
        let shape = upright(&*decoder, orientation);
        notes.extend(conversion(decoder.color_type()));
        let mut profile = decoder.icc_profile().map_err(refused)?;
        if profile.as_ref().is_some_and(|profile| !fits(profile, shape)) {
            profile = None;
            notes.push(format!(
                "its colour profile is not one for {} and is left out",
                shape.colours()
            ));
        }
        for note in &mut notes {
            *note = format!("{}: {note}", path.display());
        }
        Ok(Self { path: path.to_owned(), decoder, orientation, profile, shape, notes })
    }

    /// What the picture will be.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The pixels, upright, scaled to `size` if one is given.
    pub(crate) fn decode(self, size: Option<(u32, u32)>) -> Result<Picture, Failure> {
        let mut image =
            DynamicImage::from_decoder(self.decoder).map_err(|error| refusal(&self.path, error))?;
        image.apply_orientation(self.orientation);
        let image = match size {
            Some((width, height)) if (image.width(), image.height()) != (width, height) => {
                image.resize_exact(width, height, FilterType::Triangle)
            }
            _ => image,
        };
        let channels = channels_of(image.color());
        let shape = Shape { width: image.width(), height: image.height(), channels };
        let data = match channels {
            1 => image.into_luma8().into_raw(),
            3 => image.into_rgb8().into_raw(),
            _ => image.into_rgba8().into_raw(),
        };
        Ok(Picture { shape, data, profile: self.profile })
    }
}

/// The format and the whole of the file. Nothing but PNG and JPEG is read beyond its first bytes.
fn read(path: &Path) -> Result<(ImageFormat, Vec<u8>), Failure> {
    let unreadable = |error| Failure::file("read", path, error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(SIGNATURE).read_to_end(&mut bytes).map_err(unreadable)?;
    let format = match image::guess_format(&bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => {
            let reason = "it is neither a PNG nor a JPEG file";
            return Err(Failure::file("decode", path, reason).hint("--raw takes any bytes"));
        }
    };
    file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("the file has more than {LARGEST} bytes");
        return Err(Failure::file("read", path, reason));
    }
    Ok((format, bytes))
}

/// Whether the file goes on to its end marker. The decoder fills what is missing with gray and says nothing.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    // After the marker of the start.
    let mut at = 2;
    loop {
        // The pixels, up to the next marker, which may have more than one 0xff before it.
        while bytes.get(at).is_some_and(|byte| *byte != 0xff) {
            at += 1;
        }
        while bytes.get(at) == Some(&0xff) {
            at += 1;
        }
        match bytes.get(at) {
            None => return false,
            Some(&END_OF_IMAGE) => return true,
            // 0xff among the pixels, a restart between them, or another marker without a segment.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 1,
            Some(_) => {
                let Some(&[high, low]) = bytes.get(at + 1..at + 3) else { return false };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
}

fn refusal(path: &Path, error: ImageError) -> Failure {
    match error {
        ImageError::IoError(error) => Failure::file("decode", path, error),
        ImageError::Limits(error) => {
            let reason = format!("{error}; the most is {LARGEST} bytes");
            Failure::file("decode", path, reason)
        }
        error => Failure::file("decode", path, error),
    }
}

fn upright(decoder: &dyn ImageDecoder, orientation: Orientation) -> Shape {
    let (width, height) = decoder.dimensions();
    let channels = channels_of(decoder.color_type());
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => Shape { width: height, height: width, channels },
        _ => Shape { width, height, channels },
    }
}

/// How many channels such a picture is sent with.
fn channels_of(colour: ColorType) -> u32 {
    match colour {
        _ if colour.has_alpha() => 4,
        _ if colour.has_color() => 3,
        _ => 1,
    }
}

/// What is lost or added when such a picture is sent.
fn conversion(colour: ColorType) -> Option<String> {
    let sent = Shape { width: 1, height: 1, channels: channels_of(colour) }.colours();
    let deep = colour.bytes_per_pixel() > colour.channel_count();
    match (deep, colour.has_alpha() && !colour.has_color()) {
        (false, false) => None,
        (true, false) => Some(format!("16 bits for each channel become 8: sent as 8-bit {sent}")),
        (false, true) => Some(format!("gray with alpha is sent as {sent}")),
        (true, true) => Some(format!("16-bit gray with alpha is sent as 8-bit {sent}")),
    }
}

/// Whether a profile (ICC.1, 7.2: the colour space is at byte 16) says what such pixels mean.
fn fits(profile: &[u8], shape: Shape) -> bool {
    let space: &[u8] = if shape.channels == 1 { b"GRAY" } else { b"RGB " };
    profile.get(16..20) == Some(space)
}

/// Checks that [`save`] can write pictures to a file of this name.
pub(crate) fn check_format(path: &Path) -> Result<(), Failure> {
    match ImageFormat::from_path(path) {
        Ok(ImageFormat::Png | ImageFormat::Jpeg) => Ok(()),
        _ => Err(Failure::usage(format!("{} does not end in .png or .jpg", path.display()))),
    }
}

/// What a file of this name cannot hold of such a picture.
pub(crate) fn loss(path: &Path, shape: Shape) -> Option<String> {
    (is_jpeg(path) && shape.channels == 4)
        .then(|| format!("{}: JPEG has no alpha channel, so it is left out", path.display()))
}

fn is_jpeg(path: &Path) -> bool {
    ImageFormat::from_path(path).is_ok_and(|format| format == ImageFormat::Jpeg)
}

/// Writes pixels, wherever they lie, to a PNG or JPEG file, as its name says. Until they are encoded nothing happens to a
/// file that is there.
pub(crate) fn save(
    path: &Path,
    shape: Shape,
    pixels: &[u8],
    profile: Option<&[u8]>,
) -> Result<(), Failure> {
    check_format(path)?;
    let mut encoded = Vec::new();
    let written = if !is_jpeg(path) {
        encode(PngEncoder::new(&mut encoded), shape, pixels, profile)
    } else if shape.channels == 4 {
        let opaque: Vec<u8> =
            pixels.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
        encode(JpegEncoder::new(&mut encoded), Shape { channels: 3, ..shape }, &opaque, profile)
    } else {
        encode(JpegEncoder::new(&mut encoded), shape, pixels, profile)
    };
    written.map_err(|error| Failure::file("encode", path, error))?;
    output::replace(path, &encoded)
}

fn encode(
    mut encoder: impl ImageEncoder,
    shape: Shape,
    pixels: &[u8],
    profile: Option<&[u8]>,
) -> ImageResult<()> {
    if let Some(profile) = profile {
        encoder.set_icc_profile(profile.to_vec()).map_err(ImageError::Unsupported)?;
    }
    let colour = match shape.channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => ExtendedColorType::Rgba8,
    };
    encoder.write_image(pixels, shape.width, shape.height, colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_is_whole_with_its_last_byte_and_not_before() {
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new(&mut bytes);
        // Something that looks like the end, as the small picture within a picture has.
        encoder.set_icc_profile(vec![0xff, 0xd9, 0xff, 0xda, 0, 2, 0xff, 0xd9]).unwrap();
        let pixels: Vec<u8> = (0..40 * 30 * 3).map(|n| (n * n % 251) as u8).collect();
        encoder.write_image(&pixels, 40, 30, ExtendedColorType::Rgb8).unwrap();
        assert!(is_whole_jpeg(&bytes));
        for len in 0..bytes.len() {
            assert!(!is_whole_jpeg(&bytes[..len]), "{len} of {} bytes", bytes.len());
        }
    }
}
