//! The options of the commands for version 1 buffers: writer, reader and relay.

use super::parse::parse_bytes;
use crate::filters::Key;
use crate::pattern::{Pattern, Verify};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer writer camera
  zerobuffer writer camera --frames 100 --size 1MiB --pattern random --json
  zerobuffer writer camera -n 50 -s 6220800 -m 'rgb24 1920x1080' --delay-ms 40
  zerobuffer writer camera -n 50 --drain

The buffer belongs to its reader: start `zerobuffer reader camera` or any other version 1 reader
before, or within --timeout-ms.")]
pub(crate) struct WriterArgs {
    /// The buffer's name: 1 to 245 bytes without /
    pub(crate) name: String,
    /// How many frames to write
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1000)]
    pub(crate) frames: u64,
    /// Size of each frame
    #[arg(short, long, value_name = "BYTES", default_value = "1024", value_parser = parse_frame_size)]
    pub(crate) size: usize,
    /// Text to set as the buffer's metadata before the first frame
    #[arg(short, long, value_name = "TEXT", conflicts_with = "metadata_file")]
    pub(crate) metadata: Option<String>,
    /// A file whose bytes to set as the metadata
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// What the frames hold
    #[arg(long, value_enum, default_value = "sequential")]
    pub(crate) pattern: Pattern,
    /// Pause between two batches
    #[arg(long, value_name = "MS", default_value = "0", value_parser = parse_millis)]
    pub(crate) delay_ms: Duration,
    /// Frames to write without a pause
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_size: u64,
    /// Stay until the reader has taken every frame: existing C++ readers drop what is unread when their writer leaves
    #[arg(long)]
    pub(crate) drain: bool,
    /// How long to wait for the reader, for room, and with --drain for the last frame to be taken, each time; 0 is for ever
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = parse_limit)]
    pub(crate) timeout_ms: Limit,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer reader camera
  zerobuffer reader camera --frames 100 --size 1MiB --verify random --json
  zerobuffer reader camera -n 0 --checksum --timeout-ms 60000

It makes the buffer, so it starts before the writer. Ends after --frames, or when the writer has
left; with --frames 0 that is no error.")]
pub(crate) struct ReaderArgs {
    /// The buffer's name: 1 to 245 bytes without /
    pub(crate) name: String,
    /// How many frames to read; 0 or less for all that come
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 1000,
        allow_negative_numbers = true
    )]
    pub(crate) frames: i64,
    /// Size that each frame must have [default: any]
    #[arg(short, long, value_name = "BYTES", value_parser = parse_frame_size)]
    pub(crate) size: Option<usize>,
    /// How long to wait for each frame, and for the writer; 0 is for ever
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = parse_limit)]
    pub(crate) timeout_ms: Limit,
    /// What the frames must hold
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) verify: Verify,
    /// Tell the MD5 of each of the first 100 frames
    #[arg(long)]
    pub(crate) checksum: bool,
    /// Frames to hold before their space is released, if so many have come
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_batch)]
    pub(crate) batch_size: usize,
    /// Size of the ring; a frame takes its size and 16 bytes
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    pub(crate) buffer_size: usize,
    /// Size of the metadata block; metadata takes its size and 8 bytes
    #[arg(long, value_name = "BYTES", default_value = "4KiB", value_parser = parse_bytes)]
    pub(crate) metadata_size: usize,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zerobuffer relay camera screen
  zerobuffer relay camera screen --transform xor --xor-key 5a1f --frames 1000
  zerobuffer relay camera end --create-output --json

It makes INPUT, which a writer fills, and writes to OUTPUT, which a reader has made. Ends after
--frames, or when the writer of INPUT has left.")]
pub(crate) struct RelayArgs {
    /// The buffer to read: made by this command
    pub(crate) input: String,
    /// The buffer to write: made by its reader
    pub(crate) output: String,
    /// How many frames to relay; 0 or less for all that come
    #[arg(short = 'n', long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) frames: i64,
    /// How long to wait for OUTPUT, for each frame, and for room; 0 is for ever
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = parse_limit)]
    pub(crate) timeout_ms: Limit,
    /// What to do with each frame's bytes
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) transform: Transform,
    /// Key of --transform xor, in hexadecimal; it repeats over the frame [default: ff]
    #[arg(long, value_name = "HEX")]
    pub(crate) xor_key: Option<Key>,
    /// Create OUTPUT if it does not exist, and read back what is written to it
    #[arg(long)]
    pub(crate) create_output: bool,
    /// Size of the ring of each buffer that this command makes
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = parse_bytes)]
    pub(crate) buffer_size: usize,
    /// Size of the metadata block of each buffer that this command makes
    #[arg(long, value_name = "BYTES", default_value = "4KiB", value_parser = parse_bytes)]
    pub(crate) metadata_size: usize,
}

/// What `relay` does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transform {
    /// The bytes as they are
    None,
    /// Each byte combined with the key's
    Xor,
    /// 255 - b for each byte b
    Invert,
}

/// How long to wait; `None` for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

fn parse_millis(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(millis @ 0..=31_536_000_000) => Ok(Duration::from_millis(millis)),
        _ => Err("write milliseconds, as in 250; a year is the most".to_owned()),
    }
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    parse_millis(text).map(|limit| Limit((!limit.is_zero()).then_some(limit)))
}

fn parse_frame_size(text: &str) -> Result<usize, String> {
    match parse_bytes(text)? {
        0 => Err("a frame has at least one byte".to_owned()),
        size => Ok(size),
    }
}

fn parse_batch(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(frames @ 1..=1_000_000) => Ok(frames),
        _ => Err("from 1 to 1000000 frames".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_0_is_none() {
        assert_eq!(parse_limit("0"), Ok(Limit(None)));
        assert_eq!(parse_limit("250"), Ok(Limit(Some(Duration::from_millis(250)))));
        for text in ["", "-1", "1.5", "5s", "99999999999999999999"] {
            assert!(parse_limit(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn frames_have_a_byte_at_least() {
        assert_eq!(parse_frame_size("1KiB"), Ok(1024));
        assert!(parse_frame_size("0").is_err());
    }
}
