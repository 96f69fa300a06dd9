//! Events of a channel's life, through the `tracing` crate when the feature of that name is on.
//! Nothing on the way of a request emits one.

#[cfg(feature = "tracing")]
macro_rules! event {
    ($($fields:tt)*) => { ::tracing::debug!(target: "zerobuffer", $($fields)*) };
}

#[cfg(not(feature = "tracing"))]
macro_rules! event {
    ($($fields:tt)*) => {};
}

pub(crate) use event;
