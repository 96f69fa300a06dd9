//! L1 to L5: the machine.

use crate::limits;
use crate::plan::{Conditions, Figure, plain};
use crate::work::MIB;

pub(super) fn figures() -> Vec<Figure> {
    vec![
        plain("L1", "one cache line handed back and forth between two CPUs", "ns", limits::line),
        plain(
            "L2",
            "two semaphores posted back and forth, both sides asleep",
            "ns",
            limits::parked,
        )
        .when(Conditions::Sleeping),
        plain(
            "L3",
            "1080p RGB picture filled, inverted, read by one thread",
            "ns",
            limits::in_process,
        )
        .when(Conditions::OneThread)
        .on_one_cpu(),
        plain("L4-1MiB", "memcpy of 1 MiB", "GB/s", limits::memcpy::<MIB>)
            .when(Conditions::OneThread)
            .on_one_cpu(),
        plain("L4-16MiB", "memcpy of 16 MiB", "GB/s", limits::memcpy::<{ 16 * MIB }>)
            .when(Conditions::OneThread)
            .on_one_cpu(),
        plain("L4-64MiB", "memcpy of 64 MiB", "GB/s", limits::memcpy::<{ 64 * MIB }>)
            .when(Conditions::OneThread)
            .on_one_cpu(),
        plain(
            "L5",
            "1080p RGB picture filled and read by one thread, inverted by another one on the other CPU",
            "ns",
            limits::two_threads,
        ),
    ]
}
