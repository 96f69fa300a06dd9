//! The server of an in-place channel, and what it has in common with that of a service.

use crate::buffer::{support, with_bytes};
use crate::errors::duplex;
use crate::request::Request;
use crate::serving::{Serving, Source};
use crate::waiting;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use std::sync::Arc;
use zerobuffer::{BufferConfig, Error, ServerConfig};

/// More metadata than this in a ring that is smaller still is a mistake.
const LARGE_METADATA: usize = 64 * 1024;

/// The sizes in a `zerobuffer.BufferConfig`, or in anything that has both.
///
/// # Errors
/// `TypeError` for anything else.
pub(crate) fn sizes(config: Option<&Bound<'_, PyAny>>) -> PyResult<BufferConfig> {
    let Some(config) = config else { return Ok(BufferConfig::default()) };
    let size = |name| config.getattr(name)?.extract::<usize>();
    let sizes = size("metadata_size").and_then(|metadata| Ok((metadata, size("payload_size")?)));
    let (metadata, payload) = sizes.map_err(|error| {
        let found = config.get_type();
        let refused = PyTypeError::new_err(format!(
            "the sizes come as BufferConfig(metadata_size, payload_size) or \
             BufferConfig.for_frames(size, in_flight), not as {found}"
        ));
        refused.set_cause(config.py(), Some(error));
        refused
    })?;
    Ok(BufferConfig::new(metadata, payload))
}

/// As [`sizes`], of a server, for which some are refused that no program of version 1 must do without.
pub(crate) fn server_sizes(config: Option<&Bound<'_, PyAny>>) -> PyResult<BufferConfig> {
    let sizes = sizes(config)?;
    match (config, sizes.metadata_size()) {
        (Some(config), metadata) if metadata > LARGE_METADATA.max(sizes.payload_size()) => {
            Err(duplex(config.py())(Error::BadConfig {
                what: "metadata_size",
                asked: metadata as u64,
                allowed: "up to payload_size; are they swapped? It is \
                          BufferConfig(metadata_size, payload_size)",
            }))
        }
        _ => Ok(sizes),
    }
}

/// The size of a ring for exactly so many frames, as `BufferConfig.for_frames` needs it.
#[pyfunction]
pub(crate) fn payload_size_for_frames(frame_size: usize, in_flight: usize) -> usize {
    BufferConfig::for_frames(frame_size, in_flight).payload_size()
}

/// What Server and Service have in common.
#[pyclass(frozen, weakref, subclass, module = "zerobuffer")]
pub(crate) struct BaseServer {
    pub(crate) serving: Arc<Serving>,
}

impl BaseServer {
    /// What a server that is being made is built on, as Python wants its base.
    pub(crate) fn over(serving: Serving) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Self { serving: Arc::new(serving) })
    }
}

/// Stops this process's previous server of the name, if that is to be replaced.
pub(crate) fn stop_previous(py: Python<'_>, name: &str, replace: bool) -> PyResult<()> {
    match replace {
        true => support(py)?.call_method1("stop_previous", (name,)).map(drop),
        false => Ok(()),
    }
}

/// Has this process remember its server of a name.
pub(crate) fn remember(server: &Bound<'_, BaseServer>) -> PyResult<()> {
    let name = server.get().name();
    support(server.py())?.call_method1("remember", (name, server)).map(drop)
}

#[pymethods]
impl BaseServer {
    /// The name of the channel or service.
    #[getter]
    pub(crate) fn name(&self) -> &str {
        &self.serving.name
    }

    /// Runs `handler(request)` on every request, on background threads, until stop(). What the request's
    /// bytes are when the handler returns is the response; it returns nothing, or an array that it has edited.
    ///
    /// An exception reaches the client as HandlerFailed with its type and text, and so does a result that
    /// nobody would get. Then on_error(exception) is called, if there is one; otherwise the exception is
    /// logged with its traceback to the logger "zerobuffer.server". A handler that keeps a view of a request
    /// holds up its response until the view is deleted.
    ///
    /// Raises InvalidState if it was started or stopped before; TypeError if the handler cannot be called, or
    /// is a coroutine function (see AsyncServer) or a generator function.
    #[pyo3(signature = (handler, on_error=None))]
    fn start(
        &self,
        handler: &Bound<'_, PyAny>,
        on_error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.serving.start(handler, on_error)
    }

    /// Waits for the next request up to `timeout`, for a server without a handler. Call it again and
    /// again: it also makes room for the next client.
    ///
    /// Raises Timeout; ProtocolViolation if the client breaks the protocol; InvalidState if a handler was
    /// started; Closed after stop(), by another thread too.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Request> {
        self.serving.receive(py, timeout)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next request, whenever it comes; the end after stop().
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        match self.receive(py, None) {
            Err(_) if self.serving.is_stopping() => Ok(None),
            received => received.map(Some),
        }
    }

    /// Whether background threads are serving. False before start(), after stop(), and if the server
    /// had to stop for a reason of its own (stop() then says which).
    #[getter]
    fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        self.serving.is_running(py)
    }

    /// Whether a client is attached at this moment.
    #[getter]
    fn is_client_connected(&self) -> bool {
        self.serving.clients() > 0
    }

    /// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets it
    /// read its responses, and removes the channel's names. Called again it does nothing, or goes on if
    /// Ctrl-C had ended the wait.
    ///
    /// Raises what made the background threads stop before, if anything did.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.serving.stop(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.stop(py)
    }
}

impl Drop for BaseServer {
    fn drop(&mut self) {
        self.serving.forget();
    }
}

/// A server of an in-place channel: it creates the channel, and serves one client after the other.
///
/// Either give it a handler, which runs on threads of its own (start), or take the requests yourself
/// (receive, or `for request in server`). stop() ends it cleanly, and so do leaving a `with` block,
/// the end of the interpreter, and the end of the last reference to it.
#[pyclass(frozen, extends = BaseServer, module = "zerobuffer")]
pub(crate) struct Server;

#[pymethods]
impl Server {
    /// Creates the channel `name`; clients can attach as soon as this returns.
    ///
    /// config: a BufferConfig with the sizes.
    /// workers: how many threads start() runs the handler on; with more than one, answers may overtake
    /// each other.
    /// metadata: what each client finds in its `server_metadata`.
    /// wait: "default", "park" (least CPU time) or "spin" (least latency).
    /// mode: permission bits; by default only programs of the same user can attach.
    /// stop_timeout: how long stop() waits for running handlers, and then for the client to read.
    /// replace: stop the server of this channel first that this process has, if it has one: for a cell of a
    /// notebook that is run again.
    ///
    /// Raises AlreadyRunning, NoSpace, ForeignObject, BadName, BadConfig, TooLarge or PermissionDenied;
    /// TypeError if config is no BufferConfig.
    #[new]
    #[pyo3(signature = (name, config=None, *, workers=1, metadata=None, wait="default", mode=0o600,
        stop_timeout=2.0, replace=false))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new<'py>(
        py: Python<'py>,
        name: &str,
        config: Option<&Bound<'_, PyAny>>,
        workers: usize,
        metadata: Option<&Bound<'_, PyAny>>,
        wait: &str,
        mode: u32,
        stop_timeout: f64,
        replace: bool,
    ) -> PyResult<Bound<'py, Self>> {
        let stop_timeout = waiting::timeout(Some(stop_timeout))?;
        let mut server = ServerConfig::new(server_sizes(config)?)
            .workers(workers)
            .wait(waiting::strategy(wait)?)
            .mode(mode)
            .stop_timeout(stop_timeout);
        if let Some(metadata) = metadata {
            server = with_bytes(metadata, |bytes| Ok(server.metadata(bytes)))?;
        }
        stop_previous(py, name, replace)?;
        // Reserving the memory may take a while.
        let created = py.detach(|| zerobuffer::Server::create(name, server));
        let source = Source::Channel(created.map_err(duplex(py))?);
        let serving = Serving::new(name, source, workers, stop_timeout);
        let server = Bound::new(py, BaseServer::over(serving).add_subclass(Self))?;
        remember(server.as_super())?;
        Ok(server)
    }

    fn __repr__(slf: PyRef<'_, Self>) -> String {
        format!("Server({:?})", slf.as_super().name())
    }
}
