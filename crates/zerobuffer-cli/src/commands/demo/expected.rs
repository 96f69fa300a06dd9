//! What the demo's answers must be.

use crate::failure::Failure;
use crate::filters::Chain;
use crate::interrupt::Interrupt;
use crate::picture::{Picture, Shape};
use crate::report::{Latencies, Progress, checksum};
use std::time::Instant;

/// How many different frames there are; then they repeat.
const DIFFERENT_FRAMES: u64 = 8;

/// What the responses must be, from the same filters in this process.
pub(super) struct Expected {
    /// Of each different frame's answer.
    checksums: Vec<u32>,
    /// Of the filters, called as a function.
    pub(super) latencies: Latencies,
}

impl Expected {
    pub(super) fn compute(
        picture: &Picture,
        chain: &Chain,
        frames: u64,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let different = frames.min(DIFFERENT_FRAMES);
        let mut progress = Progress::new("expected answers", different);
        let mut latencies = Latencies::new();
        let mut checksums = Vec::new();
        let metadata = picture.shape.to_metadata();
        let mut frame = vec![0; picture.data.len()];
        for number in 0..different {
            interrupt.check()?;
            picture.scrolled_into(rows_of(number, picture.shape), &mut frame);
            let start = Instant::now();
            chain.apply(&metadata, &mut frame).map_err(Failure::usage)?;
            latencies.record(start.elapsed());
            checksums.push(checksum(&frame));
            progress.step();
        }
        Ok(Self { checksums, latencies })
    }

    pub(super) fn is_right(&self, frame: u64, answer: &[u8]) -> bool {
        self.checksums[(frame % self.checksums.len() as u64) as usize] == checksum(answer)
    }
}

/// How far down frame `number` is moved: a different way for each frame in a row of
/// [`DIFFERENT_FRAMES`], and frame 0 not at all.
pub(super) fn rows_of(number: u64, shape: Shape) -> usize {
    let phase = number % DIFFERENT_FRAMES;
    (phase * u64::from(shape.height) / DIFFERENT_FRAMES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing;
    use crate::filters::{Filter, ImageOptions};

    #[test]
    fn an_answer_that_differs_in_one_bit_or_belongs_to_another_frame_is_wrong() {
        let picture = drawing::draw(40, 24);
        let options = ImageOptions { radius: None, area: None };
        let chain = Chain::new(&[Filter::Blur, Filter::Redact], None, &options).unwrap();
        let interrupt = Interrupt::never();
        let Ok(expected) = Expected::compute(&picture, &chain, 100, &interrupt) else {
            panic!("nothing interrupts this");
        };
        let mut answer = picture.data.clone();
        assert!(!expected.is_right(0, &answer), "the picture as it was sent");
        chain.apply(&picture.shape.to_metadata(), &mut answer).unwrap();
        assert!(expected.is_right(0, &answer));
        assert!(expected.is_right(DIFFERENT_FRAMES, &answer));
        for number in 1..DIFFERENT_FRAMES {
            assert!(!expected.is_right(number, &answer), "frame {number}");
        }
        answer[100] ^= 1;
        assert!(!expected.is_right(0, &answer));
    }
}
