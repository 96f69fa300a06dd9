//! The command as its users meet it: real processes, real files, real shared memory.

mod call;
mod demo;
mod documents;
mod operation;
mod options;
mod pictures;
mod raw;
#[path = "../../src/filters/reference.rs"]
mod reference;
mod serve;
mod servers;
mod signals;
mod stream;
mod support;
mod two_buffers;
