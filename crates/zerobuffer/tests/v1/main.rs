//! Version 1 from outside: one process, two processes, duplex channels. The tables of
//! `docs/testing.md` say which test shows which rule.
#![allow(clippy::disallowed_methods)]

mod buffer;
mod clients;
mod closing;
mod damage;
mod duplex;
mod ends;
mod life;
mod messages;
mod process;
mod shared;
mod support;
mod wire;

zerobuffer_test_support::entry!(support::VARIABLE, process::child);
