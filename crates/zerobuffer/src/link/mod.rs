//! How the two ends of one segment of version 2 find, wake and watch each other.

pub(crate) mod named;
