//! The cases of the report, in the order in which they are run.

use crate::Channel;

/// Round trips of one byte, of one that fills its line with the header and one more, of a page of
/// pages, and of a picture of 1920 × 1080 in three colours.
pub(crate) const ROUNDTRIPS: [(&str, u32); 4] = [
    ("roundtrips 1", 1),
    ("roundtrips 33", 33),
    ("roundtrips 65536", 65_536),
    ("roundtrips 6220800", 6_220_800),
];
pub(crate) const FAILURE: &str = "failure";
pub(crate) const METADATA: &str = "metadata";
pub(crate) const OUT_OF_ORDER: &str = "out-of-order";
pub(crate) const CLIENT_KILLED: &str = "client killed";
pub(crate) const RESTART: &str = "restart";
pub(crate) const SERVER_KILLED: &str = "server killed";
pub(crate) const LEFTOVERS: &str = "leftovers";
pub(crate) const AT_ONCE: &str = "clients at once";

/// Not with two buffers: version 1 has one worker, and no metadata of the server's.
const NOT_WITH_TWO_BUFFERS: [&str; 2] = [METADATA, OUT_OF_ORDER];

/// The cases on a kind of channel.
pub(crate) fn names(channel: Channel) -> impl Iterator<Item = &'static str> {
    let others = [
        FAILURE,
        METADATA,
        OUT_OF_ORDER,
        AT_ONCE,
        CLIENT_KILLED,
        RESTART,
        SERVER_KILLED,
        LEFTOVERS,
    ];
    let sizes = ROUNDTRIPS.iter().map(|(name, _)| *name);
    sizes
        .chain(others)
        .filter(move |case| channel != Channel::TwoBuffers || !NOT_WITH_TWO_BUFFERS.contains(case))
        .filter(move |case| channel == Channel::Service || *case != AT_ONCE)
}
