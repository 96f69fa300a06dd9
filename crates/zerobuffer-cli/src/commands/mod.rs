//! One module for each command.

pub(crate) mod call;
mod child;
pub(crate) mod clean;
pub(crate) mod completions;
mod connect;
pub(crate) mod demo;
pub(crate) mod serve;
mod serving;
pub(crate) mod status;
pub(crate) mod stream;
