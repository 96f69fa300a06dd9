//! The C interface of zerobuffer: what `zerobuffer.h` declares, on the library and nothing else.
//!
//! Three kinds of values go through it:
//!
//! - **handles** (`zb_client`, `zb_server`, `zb_reader`, `zb_writer`): opaque, made by one function and
//!   freed by `..._close`;
//! - **guards** (`zb_buffer`, `zb_view`, `zb_frame`): plain structs in the caller's memory, with the
//!   address of bytes in shared memory and whose those are. Nothing is allocated for one;
//! - **plain values**: configurations that start with their size, numbers, borrowed bytes.
//!
//! What each function relies on are the rules in [`pointers`].
//!
//! No panic leaves a function ([`error::run`]).

// The names are those of the header.
#![allow(non_camel_case_types)]
// Said once for all of them, above and at the beginning of the header.
#![allow(clippy::missing_safety_doc)]

mod lender;
mod pointers;

// In the order of the header.
pub mod error;

pub mod config;

pub mod server;

pub mod frame;

pub mod service;

pub mod client;

pub mod calls;

pub mod buffer;

pub mod view;

pub mod reader;

pub mod writer;

/// The version of this binary interface. Functions, statuses, and fields at the end of structs
/// that start with their size may be added without a change of it.
pub const ZB_ABI_VERSION: u32 = 1;

/// The `ZB_ABI_VERSION` that the library in use was built with. A program compares it with that of
/// its header before anything else.
#[unsafe(no_mangle)]
pub extern "C" fn zb_abi_version() -> u32 {
    ZB_ABI_VERSION
}

/// Whether core dumps of this process hold what its channels carry. They do not, unless this is called with
/// true, for the handles that are made from then on. May be called on any thread at any time.
#[unsafe(no_mangle)]
pub extern "C" fn zb_include_in_core_dumps(include: bool) {
    zerobuffer::memory::include_in_core_dumps(include);
}
