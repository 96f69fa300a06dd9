//! What values may look like.

use crate::picture::Shape;
use std::time::Duration;

pub(super) fn parse_size(text: &str) -> Result<(u32, u32), String> {
    const LARGEST: u32 = 32_768;
    let sides = text.split_once(['x', 'X']).and_then(|(w, h)| w.parse().ok().zip(h.parse().ok()));
    match sides {
        Some((w @ 1..=LARGEST, h @ 1..=LARGEST)) => Ok((w, h)),
        Some(_) => Err(format!("each side is from 1 to {LARGEST} pixels")),
        None => Err("write the width, an x and the height, as in 1280x720".to_owned()),
    }
}

pub(super) fn parse_shape(text: &str) -> Result<Shape, String> {
    let shape = text.rsplit_once(['x', 'X']).and_then(|(sides, channels)| {
        let (width, height) = parse_size(sides).ok()?;
        Some(Shape { width, height, channels: channels.parse().ok()? })
    });
    match shape {
        Some(shape @ Shape { channels: 1 | 3 | 4, .. }) => Ok(shape),
        _ => Err("write width, height and channels (1, 3 or 4), as in 1280x720x3".to_owned()),
    }
}

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0o600..=0o777) => Ok(mode),
        _ => Err("write three octal digits of which the first is 6 or 7, as in 660".to_owned()),
    }
}

pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let bytes: bytesize::ByteSize = text
        .parse()
        .map_err(|_| "write a number of bytes, or one with a unit as in 64MiB or 2GB".to_owned())?;
    usize::try_from(bytes.as_u64()).map_err(|error| error.to_string())
}

pub(super) fn parse_workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers @ 1..=1024) => Ok(workers),
        _ => Err("from 1 to 1024 workers".to_owned()),
    }
}

pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write seconds, as in 2 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_two_numbers_from_1_to_32768() {
        assert_eq!(parse_size("1280x720"), Ok((1280, 720)));
        assert_eq!(parse_size("1X1"), Ok((1, 1)));
        for text in ["", "1280", "x", "0x5", "5x0", "32769x1", "-1x1", "1x1x1", "ax2"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn shapes_are_a_size_and_channels() {
        assert_eq!(parse_shape("1280x720x3"), Ok(Shape { width: 1280, height: 720, channels: 3 }));
        for text in ["", "1280x720", "1x1x2", "1x1x0", "0x1x3", "1x1x3x1", "1x1x"] {
            assert!(parse_shape(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn modes_are_octal_and_let_their_owner_in() {
        assert_eq!(parse_mode("660"), Ok(0o660));
        assert_eq!(parse_mode("0666"), Ok(0o666));
        for text in ["", "8", "066", "1777", "rw", "-600"] {
            assert!(parse_mode(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn byte_counts_take_binary_and_decimal_units() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("2GB"), Ok(2_000_000_000));
        for text in ["", "MiB", "-1", "1 zebra", "0x10"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn seconds_are_finite_and_not_negative() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["", "-1", "nan", "inf", "1e30", "1s"] {
            assert!(parse_seconds(text).is_err(), "{text:?}");
        }
    }
}
