//! P18: one buffer of version 1, in rings of 3 frames and more.

use crate::plan::{Conditions, Figure, Round, plain};
use crate::systems::buffer;
use crate::work::MIB;

pub(super) fn figures() -> Vec<Figure> {
    let rate = |ring| move |round: &Round| buffer::frames_per_second(round, ring);
    [
        ("P18-4160", "version 1, writer to reader, frames of 1 KiB in a ring of 4,160 bytes", 4160),
        ("P18-10KiB", "version 1, writer to reader, frames of 1 KiB in a ring of 10 KiB", 10 << 10),
        ("P18-32KiB", "version 1, writer to reader, frames of 1 KiB in a ring of 32 KiB", 32 << 10),
        ("P18-1MiB", "version 1, writer to reader, frames of 1 KiB in a ring of 1 MiB", MIB),
        ("P18-32MiB", "version 1, writer to reader, frames of 1 KiB in a ring of 32 MiB", 32 * MIB),
    ]
    .into_iter()
    .map(|(id, name, ring)| plain(id, name, "frames/s", rate(ring)).when(Conditions::Usual))
    .collect()
}
