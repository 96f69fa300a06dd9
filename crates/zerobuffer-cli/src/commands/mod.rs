//! One module for each command.

pub(crate) mod call;
mod child;
pub(crate) mod completions;
mod connect;
pub(crate) mod demo;
mod runtime;
pub(crate) mod serve;
mod serving;
pub(crate) mod stream;
