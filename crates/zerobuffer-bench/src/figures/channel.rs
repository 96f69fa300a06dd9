//! The in-place channel against the limits of the machine, and against two buffers.

use crate::limits;
use crate::plan::{Conditions, Figure, Round, plain};
use crate::systems::in_place::{self, PageChoice, Wait};
use crate::systems::{System, shared_client, two_buffers};
use crate::work::{FRAME, MIB, Work};

/// P1 to P7: against the limits of the machine, and against two buffers.
pub(super) fn targets() -> Vec<Figure> {
    let untouched = |len| move |round: &Round| in_place::untouched_ns(round, len);
    let call = |wait| move |round: &Round| in_place::call_ns(round, wait);
    let frame = |system: System, work| move |round: &Round| system.frame_ns(round, work);
    vec![
        plain("P1", "Client::call, 8 bytes, both sides spinning", "ns", call(Wait::Spin))
            .over("one cache line back and forth (L1)", limits::line)
            .at_most(1.5)
            .far_at_most(1.6),
        plain("P2", "6.2 MB untouched, acquire to release, spinning", "ns", untouched(FRAME))
            .over("8 bytes the same way", untouched(8))
            .at_most(1.3),
        plain(
            "P3",
            "1080p RGB picture filled, inverted by the server, read",
            "ns",
            frame(System::SPINNING, Work::Invert),
        )
        .over("by one thread in one process (L3)", limits::in_process)
        .at_most(1.15),
        plain("P3b", "the round trip of P3", "ns", frame(System::SPINNING, Work::Invert))
            .same_as("P3")
            .over("by two threads in one process (L5)", limits::two_threads)
            .at_most(1.05),
        plain(
            "X13",
            "the round trip of P3, usual pages",
            "ns",
            frame(System::SPINNING, Work::Invert),
        )
        .same_as("P3")
        .over("huge pages", |round: &Round| in_place::frame_with_pages(round, PageChoice::Huge)),
        plain("P4", "as P3, through two buffers", "ns", frame(System::TwoBuffers, Work::Invert))
            .over("in place (P3)", frame(System::SPINNING, Work::Invert))
            .at_least(1.5),
        plain(
            "P5",
            "as P4, 5 % of the picture edited",
            "ns",
            frame(System::TwoBuffers, Work::Redact),
        )
        .over("in place", frame(System::SPINNING, Work::Redact))
        .at_least(2.0),
        plain(
            "P6",
            "shared memory of a channel for one 1080p RGB picture",
            "bytes",
            in_place::segment_bytes,
        )
        .when(Conditions::Idle)
        .over("of two buffers", two_buffers::segment_bytes)
        .at_most(0.505)
        .on_one_cpu(),
        plain("P7", "Client::call, 8 bytes, both sides sleeping", "ns", call(Wait::Park))
            .when(Conditions::Sleeping)
            .over("two semaphores (L2)", limits::parked)
            .at_most(1.15),
    ]
}

/// P13 and P14: a client for many threads, and its calls as futures.
pub(super) fn shared() -> Vec<Figure> {
    let awaited = |tasks| move |round: &Round| shared_client::awaited_ns(round, tasks);
    let blocking = |round: &Round| in_place::call_ns(round, Wait::Park);
    let task = |id, name, tasks| plain(id, name, "ns", awaited(tasks)).when(Conditions::Sleeping);
    vec![
        plain("P13", "SharedClient, both ends on one thread, 8 bytes", "ns", |round: &Round| {
            shared_client::alone_ns(round, true)
        })
        .when(Conditions::OneThread)
        .over("Client the same way", |round: &Round| shared_client::alone_ns(round, false))
        .at_most(2.0)
        .on_one_cpu(),
        plain(
            "P13-spin",
            "SharedClient::call, 8 bytes, both sides spinning",
            "ns",
            |round: &Round| shared_client::call_ns(round, Wait::Spin),
        )
        .over("Client::call", |round: &Round| in_place::call_ns(round, Wait::Spin))
        .at_most(1.2),
        task("P14-1", "a call awaited by 1 task, 8 bytes", 1)
            .over("a call that blocks", blocking)
            .at_most(1.2),
        task("P14-64", "a call awaited by each of 64 tasks, 8 bytes", 64)
            .over("a call that blocks, sleeping", blocking),
        task("P14-512", "a call awaited by each of 512 tasks, 8 bytes", 512)
            .over("a call awaited by a single task", awaited(1))
            .at_most(3.0),
    ]
}

/// Figures that have no target.
pub(super) fn extras() -> Vec<Figure> {
    let call = |wait| move |round: &Round| in_place::call_ns(round, wait);
    let untouched = |round: &Round| in_place::untouched_ns(round, 8);
    vec![
        plain("X1", "as P1, the server pulls with Server::receive", "ns", in_place::call_pulled)
            .over("one cache line back and forth (L1)", limits::line),
        plain("X2", "as P1, usual waiting (spin, then sleep)", "ns", call(Wait::Default))
            .when(Conditions::Usual)
            .over("one cache line back and forth (L1)", limits::line),
        plain("X3", "as P2, in a ring of 16 MiB", "ns", in_place::frame_untouched_roomy)
            .over("8 bytes the same way", untouched),
        plain("X4", "as P3, in a ring of 16 MiB", "ns", in_place::frame_inverted_roomy)
            .over("by one thread in one process (L3)", limits::in_process),
        plain("X11", "the call of P5 alone, two buffers", "ns", |round: &Round| {
            System::TwoBuffers.redaction_ns(round)
        })
        .over("in place", |round: &Round| System::SPINNING.redaction_ns(round)),
        plain("X12", "first 1080p picture of a channel", "ns", |round: &Round| {
            in_place::first_frame_ns(round, PageChoice::OnDemand)
        })
        .when(Conditions::FirstTouch)
        .over("with prefaulted pages", |round: &Round| {
            in_place::first_frame_ns(round, PageChoice::Prefaulted)
        }),
        plain("X6", "as P9, usual waiting, 2 workers", "requests/s", |round: &Round| {
            in_place::pipelined_with_workers(round, 64, 2)
        })
        .when(Conditions::Usual)
        .over("1 worker", |round: &Round| in_place::pipelined_with_workers(round, 64, 1)),
        plain("X5", "as P10-1MiB, against a channel that sleeps", "ns", |round: &Round| {
            System::UnixSocket.echo_ns(round, MIB)
        })
        .when(Conditions::Blocking)
        .over("in place, both sides sleeping", |round: &Round| {
            System::SLEEPING.echo_ns(round, MIB)
        }),
    ]
}
