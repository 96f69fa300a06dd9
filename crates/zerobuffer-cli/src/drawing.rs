//! The demo's own picture: a sunset over mountains and a lake, with things on it whose sharpness can be
//! judged at a glance, and a card that the redaction hides.

use crate::picture::{Picture, Shape};

/// Red, green and blue, 0 to 1.
type Colour = [f32; 3];

/// Where the lake begins, from the top, in heights of the picture.
const HORIZON: f32 = 0.58;

/// Draws the picture as RGB. Everything scales with the size.
pub(crate) fn draw(width: u32, height: u32) -> Picture {
    let shape = Shape { width, height, channels: 3 };
    let scene = Scene { aspect: width as f32 / height as f32, pixel: 1.0 / height as f32 };
    let mut data = Vec::with_capacity(width as usize * height as usize * 3);
    for row in 0..height {
        for column in 0..width {
            let x = (column as f32 + 0.5) * scene.pixel;
            let y = (row as f32 + 0.5) * scene.pixel;
            data.extend(scene.colour_at(x, y).map(|part| (part.clamp(0.0, 1.0) * 255.0) as u8));
        }
    }
    Picture { shape, data, profile: None }
}

/// The scene in units of the picture's height: x from 0 to `aspect`, y from 0 to 1.
struct Scene {
    aspect: f32,
    pixel: f32,
}

impl Scene {
    fn colour_at(&self, x: f32, y: f32) -> Colour {
        let mut colour = if y < HORIZON { self.above(x, y) } else { self.lake(x, y) };
        colour = self.star(x, y, colour);
        colour = self.test_bars(x, y, colour);
        colour = self.title(x, y, colour);
        self.card(x, y, colour)
    }

    fn above(&self, x: f32, y: f32) -> Colour {
        let mut colour = self.sky(x, y);
        let ranges: [(f32, f32, f32, Colour); 3] = [
            (0.40, 0.060, 2.3, [0.55, 0.33, 0.48]),
            (0.47, 0.050, 3.7, [0.35, 0.20, 0.38]),
            (0.53, 0.035, 6.1, [0.17, 0.10, 0.24]),
        ];
        for (level, size, frequency, rock) in ranges {
            let ridge = level - size * ridge(x * frequency + level * 40.0);
            colour = mix(colour, rock, self.edge(ridge - y));
        }
        colour
    }

    fn sky(&self, x: f32, y: f32) -> Colour {
        let stops: [(f32, Colour); 4] = [
            (0.0, [0.07, 0.07, 0.24]),
            (0.25, [0.36, 0.15, 0.45]),
            (0.45, [0.93, 0.42, 0.38]),
            (HORIZON, [1.0, 0.80, 0.42]),
        ];
        let mut colour = stops[0].1;
        for pair in stops.windows(2) {
            colour = mix(colour, pair[1].1, smooth(pair[0].0, pair[1].0, y));
        }
        let (sun_x, sun_y) = (0.70 * self.aspect, 0.36);
        let distance = (x - sun_x).hypot(y - sun_y);
        colour = mix(colour, [1.0, 0.85, 0.55], 0.55 * (-distance * 5.0).exp());
        mix(colour, [1.0, 0.96, 0.80], self.edge(distance - 0.085))
    }

    /// The mirror image of what is above, darker with the distance from the shore, in ripples.
    fn lake(&self, x: f32, y: f32) -> Colour {
        let depth = y - HORIZON;
        let ripple = (depth * 260.0 / (0.35 + depth)).sin() * 0.012 * (0.2 + depth * 3.0);
        let above = self.above(x + ripple, (HORIZON - depth * 0.9 - 0.001).max(0.0));
        let glint = 0.08 * (depth * 420.0 + (x * 9.0).sin() * 2.0).sin();
        let dark = 0.80 - depth * 0.9 + glint;
        [above[0] * dark, above[1] * dark, above[2] * (dark + 0.08)]
    }

    /// A star of 32 rays: its centre is the first to go when a picture gets blurred.
    fn star(&self, x: f32, y: f32, under: Colour) -> Colour {
        let (dx, dy) = (x - 0.16, y - 0.82);
        let (radius, angle) = (dx.hypot(dy), dy.atan2(dx));
        let width = (std::f32::consts::TAU * radius / 32.0).max(self.pixel);
        let ray = 0.5 + ((angle * 16.0).sin() * width / self.pixel).clamp(-0.5, 0.5);
        let colour = mix([0.98, 0.97, 0.93], [0.08, 0.08, 0.12], ray);
        mix(under, colour, self.edge(radius - 0.12))
    }

    /// Lines that become finer and finer, beside bars of full colours.
    fn test_bars(&self, x: f32, y: f32, under: Colour) -> Colour {
        let (left, top, size) = (self.aspect - 0.32, 0.80, 0.28);
        let (u, v) = ((x - left) / size, (y - top) / 0.15);
        if !(0.0..1.0).contains(&u) || !(0.0..1.0).contains(&v) {
            return under;
        }
        if v < 0.5 {
            let line = (u * u * 180.0).sin() > 0.0;
            return if line { [0.96; 3] } else { [0.06; 3] };
        }
        let bit = |mask: u32| if ((u * 7.0) as u32 + 1) & mask == 0 { 0.08 } else { 0.95 };
        [bit(4), bit(2), bit(1)]
    }

    fn title(&self, x: f32, y: f32, under: Colour) -> Colour {
        let size = 0.0135_f32.min(self.aspect / 90.0);
        let (left, top) = (0.06, 0.07);
        let shadow =
            text_at("ZEROBUFFER", (x - left - size * 0.45) / size, (y - top - size * 0.45) / size);
        let colour = if shadow { mix(under, [0.03, 0.02, 0.10], 0.7) } else { under };
        let letters = text_at("ZEROBUFFER", (x - left) / size, (y - top) / size);
        let small = size * 0.34;
        let below =
            text_at("EDITED IN PLACE BY A SECOND PROCESS", (x - left) / small, (y - 0.20) / small);
        if letters || below { [1.0, 0.97, 0.90] } else { colour }
    }

    /// A card with a text to hide, inside of the band that `redact` blackens by default.
    fn card(&self, x: f32, y: f32, under: Colour) -> Colour {
        let (left, right, top, bottom) = (0.33 * self.aspect, 0.67 * self.aspect, 0.63, 0.73);
        let (half_x, half_y, round) = ((right - left) / 2.0, (bottom - top) / 2.0, 0.015);
        let dx = ((x - left - half_x).abs() - half_x + round).max(0.0);
        let dy = ((y - top - half_y).abs() - half_y + round).max(0.0);
        let inside = self.edge(dx.hypot(dy) - round);
        if inside == 0.0 {
            return under;
        }
        let size = (half_x * 2.0 / 140.0).min(0.0062);
        let (u, v) = ((x - left - 0.02) / size, (y - top - 0.016) / size);
        let printed =
            text_at("4821 7753 0946 1187", u, v) || text_at("A. PERSON  12/31", u, v - 9.5);
        let paper = mix([0.95, 0.93, 0.86], [0.80, 0.86, 0.93], (x - left) / (right - left));
        mix(under, if printed { [0.12, 0.12, 0.30] } else { paper }, inside)
    }

    /// 1 where `distance` is negative, 0 where it is positive, in between within a pixel.
    fn edge(&self, distance: f32) -> f32 {
        (0.5 - distance / self.pixel).clamp(0.0, 1.0)
    }
}

/// A line of hills, about -1 to 1.
fn ridge(x: f32) -> f32 {
    x.sin() * 0.5
        + (x * 2.17 + 1.3).sin() * 0.28
        + (x * 4.9).sin().abs() * 0.3
        + (x * 13.0).sin() * 0.06
}

fn mix(from: Colour, to: Colour, part: f32) -> Colour {
    let part = part.clamp(0.0, 1.0);
    std::array::from_fn(|n| from[n] + (to[n] - from[n]) * part)
}

fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Whether the dot at (`x`, `y`) of a line of text is set; a letter takes 6 by 8 dots.
fn text_at(text: &str, x: f32, y: f32) -> bool {
    if x < 0.0 || !(0.0..7.0).contains(&y) {
        return false;
    }
    let (column, row) = (x as usize, y as usize);
    let letter = text.as_bytes().get(column / 6).copied().unwrap_or(b' ');
    let dot = column % 6;
    dot < 5 && glyph(letter)[row] >> (4 - dot) & 1 == 1
}

/// Seven rows of five dots.
fn glyph(letter: u8) -> [u8; 7] {
    match letter {
        b'0' => [14, 17, 19, 21, 25, 17, 14],
        b'1' => [4, 12, 4, 4, 4, 4, 14],
        b'2' => [14, 17, 1, 2, 4, 8, 31],
        b'3' => [31, 2, 4, 2, 1, 17, 14],
        b'4' => [2, 6, 10, 18, 31, 2, 2],
        b'5' => [31, 16, 30, 1, 1, 17, 14],
        b'6' => [6, 8, 16, 30, 17, 17, 14],
        b'7' => [31, 1, 2, 4, 8, 8, 8],
        b'8' => [14, 17, 17, 14, 17, 17, 14],
        b'9' => [14, 17, 17, 15, 1, 2, 12],
        b'A' => [14, 17, 17, 17, 31, 17, 17],
        b'B' => [30, 17, 17, 30, 17, 17, 30],
        b'C' => [14, 17, 16, 16, 16, 17, 14],
        b'D' => [28, 18, 17, 17, 17, 18, 28],
        b'E' => [31, 16, 16, 30, 16, 16, 31],
        b'F' => [31, 16, 16, 30, 16, 16, 16],
        b'I' => [14, 4, 4, 4, 4, 4, 14],
        b'L' => [16, 16, 16, 16, 16, 16, 31],
        b'N' => [17, 17, 25, 21, 19, 17, 17],
        b'O' => [14, 17, 17, 17, 17, 17, 14],
        b'P' => [30, 17, 17, 30, 16, 16, 16],
        b'R' => [30, 17, 17, 30, 20, 18, 17],
        b'S' => [15, 16, 16, 14, 1, 1, 30],
        b'T' => [31, 4, 4, 4, 4, 4, 4],
        b'U' => [17, 17, 17, 17, 17, 17, 14],
        b'V' => [17, 17, 17, 17, 17, 10, 4],
        b'Y' => [17, 17, 17, 10, 4, 4, 4],
        b'Z' => [31, 1, 2, 4, 8, 16, 31],
        b'.' => [0, 0, 0, 0, 0, 12, 12],
        b'/' => [0, 1, 2, 4, 8, 16, 0],
        _ => [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_its_pixels() {
        for (width, height) in [(1, 1), (1, 50), (50, 1), (64, 36)] {
            let picture = draw(width, height);
            assert_eq!(Some(picture.data.len()), picture.shape.bytes());
        }
    }

    #[test]
    fn the_picture_has_light_dark_and_colour() {
        let picture = draw(160, 90);
        assert!(picture.data.iter().any(|&byte| byte > 230));
        assert!(picture.data.iter().any(|&byte| byte < 30));
        assert!(picture.data.chunks(3).any(|pixel| pixel[0].abs_diff(pixel[2]) > 100));
    }
}
