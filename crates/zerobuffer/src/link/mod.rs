//! How the two ends of one segment find, wake and watch each other.

pub(crate) mod named;
pub(crate) mod segment;
