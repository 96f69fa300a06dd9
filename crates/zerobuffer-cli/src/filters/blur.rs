//! A stack blur, which looks like a Gaussian one and writes its results where it has read.
//!
//! Along a line, value p becomes the sum of (radius + 1 - |k|) · value\[p + k\] for k from -radius to radius, divided by
//! the sum of these weights, (radius + 1)², and rounded down; beyond its ends the line repeats its outermost values. From
//! p to p + 1 the sum grows by the `radius + 1` values that come next and shrinks by the last `radius + 1`: two running
//! sums, so that the radius costs no time.

use crate::picture::Shape;
use std::ops::Range;

/// Bytes of a picture's row whose columns are blurred at a time: what belongs to them stays in the nearest cache.
const COLUMNS: usize = 64;

/// Blurs each channel along all rows, then along all columns. `radius` is at most 1449, so that sums fit 32 bits.
pub(super) fn stack_blur(data: &mut [u8], shape: Shape, radius: usize) {
    let [width, height, channels] =
        [shape.width, shape.height, shape.channels].map(|side| side as usize);
    let row_len = width * channels;
    let mut blur = Blur::new(radius);
    for row in data.chunks_exact_mut(row_len) {
        // A number that is known here makes loops of one, three or four steps vanish.
        match channels {
            1 => blur.along(row, Line { values: width, step: 1, lanes: 1 }),
            3 => blur.along(row, Line { values: width, step: 3, lanes: 3 }),
            _ => blur.along(row, Line { values: width, step: channels, lanes: channels }),
        }
    }
    for first in (0..row_len).step_by(COLUMNS) {
        let lanes = COLUMNS.min(row_len - first);
        blur.along(&mut data[first..], Line { values: height, step: row_len, lanes });
    }
}

/// `lanes` lines beside each other: value p of all of them begins at byte p · step.
#[derive(Clone, Copy)]
struct Line {
    values: usize,
    step: usize,
    lanes: usize,
}

/// The radius, and memory that every line uses again.
struct Blur {
    radius: usize,
    division: Division,
    /// Of each lane: the weighted sum, and the sums of the values that enter and leave it with the next step.
    sums: [u32; COLUMNS],
    entering: [u32; COLUMNS],
    leaving: [u32; COLUMNS],
    /// The last radius + 1 values as they were, in a ring.
    past: Vec<u8>,
}

impl Blur {
    fn new(radius: usize) -> Self {
        Self {
            radius,
            division: Division::by((radius as u32 + 1).pow(2)),
            sums: [0; COLUMNS],
            entering: [0; COLUMNS],
            leaving: [0; COLUMNS],
            past: vec![0; (radius + 1) * COLUMNS],
        }
    }

    #[inline(always)]
    fn along(&mut self, data: &mut [u8], line: Line) {
        self.begin(data, line);
        let Self { radius, division, sums, entering, leaving, past } = self;
        let (sums, entering, leaving) =
            (&mut sums[..line.lanes], &mut entering[..line.lanes], &mut leaving[..line.lanes]);
        let mut oldest = 0;
        for value in 0..line.values {
            for (byte, sum) in data[line.at(value)].iter_mut().zip(&*sums) {
                *byte = division.of(*sum);
            }
            if value + 1 == line.values {
                break;
            }
            // Both lie ahead and are as they were; what lies behind is in the ring.
            let (next, last) = (&data[line.at(value + 1)], &data[line.at(value + *radius + 2)]);
            let past = &mut past[oldest * line.lanes..][..line.lanes];
            for lane in 0..line.lanes {
                let [next, last] = [next[lane], last[lane]].map(u32::from);
                sums[lane] = sums[lane] + entering[lane] - leaving[lane];
                entering[lane] = entering[lane] + last - next;
                leaving[lane] = leaving[lane] + next - u32::from(past[lane]);
                past[lane] = next as u8;
            }
            oldest = if oldest == *radius { 0 } else { oldest + 1 };
        }
    }

    /// Everything as it is at value 0, before which there is nothing but that value.
    fn begin(&mut self, data: &[u8], line: Line) {
        let (first, weight) = (&data[line.at(0)], self.radius as u32 + 1);
        for lane in 0..line.lanes {
            let first = u32::from(first[lane]);
            self.sums[lane] = first * (weight * (weight + 1) / 2);
            self.leaving[lane] = first * weight;
            self.entering[lane] = 0;
        }
        for distance in 1..=self.radius + 1 {
            for (lane, byte) in data[line.at(distance)].iter().enumerate() {
                self.sums[lane] += u32::from(*byte) * (weight - distance as u32);
                self.entering[lane] += u32::from(*byte);
            }
        }
        for past in self.past[..(self.radius + 1) * line.lanes].chunks_exact_mut(line.lanes) {
            past.copy_from_slice(first);
        }
    }
}

impl Line {
    /// Where a value lies; behind the end it is the last one.
    #[inline(always)]
    fn at(self, value: usize) -> Range<usize> {
        let start = value.min(self.values - 1) * self.step;
        start..start + self.lanes
    }
}

/// Division by a number that is known when the program runs, for 0 to 255 times that number.
struct Division(u64);

impl Division {
    /// Wide enough for exact results up to divisors of 1450²: 255 · divisor² < 2^SHIFT. And no product overflows:
    /// 255 · 2^SHIFT + 255 · divisor < 2^64.
    const SHIFT: u32 = 52;

    fn by(divisor: u32) -> Self {
        Self((1 << Self::SHIFT) / u64::from(divisor) + 1)
    }

    #[inline(always)]
    fn of(&self, sum: u32) -> u8 {
        ((u64::from(sum) * self.0) >> Self::SHIFT) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_rounds_down_at_every_border_for_every_radius() {
        for divisor in (1..=1449).map(|radius: u32| (radius + 1).pow(2)) {
            let division = Division::by(divisor);
            for quotient in 0..=255 {
                let first = quotient as u32 * divisor;
                assert_eq!(division.of(first), quotient, "{first} / {divisor}");
                if let Some(before) = first.checked_sub(1) {
                    assert_eq!(division.of(before), quotient - 1, "{before} / {divisor}");
                }
            }
        }
    }
}
