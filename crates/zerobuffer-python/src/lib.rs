//! The extension module `zerobuffer._native`: the library's types as Python classes. What Python
//! programs import is the package around it, in `python/zerobuffer/`.
//!
//! Three rules hold everywhere:
//!
//! - A call that may wait checks once, for a few microseconds, with the interpreter lock, then waits without it
//!   in slices and checks for signals in between. One that connects has no such lock from the start (`waiting`).
//! - No Rust lock is waited for with the interpreter lock held, so the two cannot block each other; and none in
//!   a forked child (`process`). A lock that is held for a moment only is the exception: its holder runs no
//!   Python, and so makes no exception either.
//! - An object that hands out its bytes' address keeps them mapped for as long as it lives, and every
//!   Python view of them keeps the object alive (`buffer`).

mod buffer;
mod calls;
mod client;
mod errors;
mod guards;
mod handler;
mod loop_client;
mod pool;
mod private;
mod process;
mod reader;
mod request;
mod server;
mod service;
mod serving;
mod sliced;
mod stop;
mod two_buffers;
mod waiting;
mod words;
mod writer;

use pyo3::prelude::*;

#[pymodule]
#[pyo3(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    process::count_forks(module)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<client::Client>()?;
    module.add_class::<calls::Calls>()?;
    module.add_class::<loop_client::LoopClient>()?;
    module.add_class::<pool::Pool>()?;
    module.add_class::<stop::Stop>()?;
    module.add_class::<guards::RequestBuffer>()?;
    module.add_class::<guards::Response>()?;
    module.add_class::<server::BaseServer>()?;
    module.add_class::<server::Server>()?;
    module.add_class::<service::Service>()?;
    module.add_class::<request::Request>()?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<reader::Frame>()?;
    module.add_class::<writer::Writer>()?;
    module.add_class::<two_buffers::TwoBufferClient>()?;
    module.add_class::<two_buffers::PrivateRequest>()?;
    module.add_class::<two_buffers::TwoBufferServer>()?;
    module.add_function(wrap_pyfunction!(words::add_u64, module)?)?;
    module.add_function(wrap_pyfunction!(server::payload_size_for_frames, module)?)?;
    module.add_function(wrap_pyfunction!(two_buffers::is_duplex_server_running, module)?)
}
