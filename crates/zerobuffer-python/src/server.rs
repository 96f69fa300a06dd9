//! The server of an in-place channel.

use crate::buffer::{support, with_bytes};
use crate::errors::{Side, closed, duplex, exception};
use crate::handler::Handler;
use crate::process::Process;
use crate::request::{Request, Told};
use crate::waiting::{self, SLICE, not_yet};
use parking_lot::Mutex;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zerobuffer::{BufferConfig, Error, OwnedRequest, ServerConfig};

/// The pause before another try to make a segment that could not be made.
const RETRY: Duration = Duration::from_millis(100);

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

/// A server of an in-place channel: it creates the channel, and serves one client after the other.
///
/// Either give it a handler, which runs on threads of its own (start), or take the requests yourself
/// (receive, or `for request in server`). stop() ends it cleanly, and so do leaving a `with` block,
/// the end of the interpreter, and the end of the last reference to it.
#[pyclass(frozen, weakref, module = "zerobuffer")]
pub(crate) struct Server {
    service: Arc<Service>,
}

/// What the server and its threads share. The threads do not keep the server itself, so that one which nobody
/// has any more ends.
struct Service {
    name: String,
    told: Arc<Told>,
    workers: usize,
    stop_timeout: Duration,
    /// `None` after the end.
    server: Mutex<Option<zerobuffer::Server>>,
    /// The `threading.Thread`s that run the handler.
    threads: Mutex<Vec<Py<PyAny>>>,
    /// Those that still do.
    serving: AtomicUsize,
    /// Registered to run when the interpreter exits.
    at_exit: Mutex<Option<Py<PyAny>>>,
    started: AtomicBool,
    stopping: AtomicBool,
    /// Nobody has the server any more: its last thread ends it.
    forgotten: AtomicBool,
    /// Why the threads stopped.
    failure: Mutex<Option<Error>>,
    process: Process,
}

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
        if replace {
            support(py)?.call_method1("stop_previous", (name,))?;
        }
        // Reserving the memory may take a while.
        let created = py.detach(|| zerobuffer::Server::create(name, server));
        let service = Service {
            name: name.to_owned(),
            told: Told::of(name),
            workers,
            stop_timeout,
            server: Mutex::new(Some(created.map_err(duplex(py))?)),
            threads: Mutex::default(),
            serving: AtomicUsize::new(0),
            at_exit: Mutex::default(),
            started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
            failure: Mutex::default(),
            process: Process::default(),
        };
        let server = Bound::new(py, Self { service: Arc::new(service) })?;
        support(py)?.call_method1("remember", (name, &server))?;
        Ok(server)
    }

    /// The channel's name.
    #[getter]
    fn name(&self) -> &str {
        &self.service.name
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
        let (py, service) = (handler.py(), &self.service);
        service.process.check(py)?;
        let handler = Arc::new(Handler::new(&service.name, handler, on_error)?);
        if service.is_stopping() || service.started.swap(true, Ordering::Relaxed) {
            let reason = "the server was started or stopped before; create another one";
            return Err(closed(py, reason));
        }
        let stop = Arc::clone(service);
        let stop = PyCFunction::new_closure(py, None, None, move |arguments, _| {
            stop.stop(arguments.py())
        })?;
        let at_exit = support(py)?.call_method1("stop_at_exit", (&service.name, stop))?;
        *service.at_exit.lock() = Some(at_exit.unbind());
        for _ in 0..service.workers {
            let (serve, handler) = (Arc::clone(service), Arc::clone(&handler));
            let serve = PyCFunction::new_closure(py, None, None, move |arguments, _| {
                serve.serve(arguments.py(), &handler)
            })?;
            let options = PyDict::new(py);
            options.set_item("target", serve)?;
            options.set_item("name", format!("zerobuffer-{}", service.name))?;
            options.set_item("daemon", true)?;
            let thread = py.import("threading")?.call_method("Thread", (), Some(&options))?;
            service.serving.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = thread.call_method0("start") {
                service.serving.fetch_sub(1, Ordering::Relaxed);
                return Err(error);
            }
            service.threads.lock().push(thread.unbind());
        }
        Ok(())
    }

    /// Waits for the next request up to `timeout`, for a server without a handler. Call it again and
    /// again: it also makes room for the next client.
    ///
    /// Raises Timeout; ProtocolViolation if the client breaks the protocol; InvalidState if a handler was
    /// started; Closed after stop(), by another thread too.
    #[pyo3(signature = (timeout=Some(5.0)), text_signature = "($self, timeout=5.0)")]
    fn receive(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Request> {
        self.service.process.check(py)?;
        if self.service.started.load(Ordering::Relaxed) {
            return Err(closed(py, "a handler has the requests"));
        }
        let taken = self.service.take(py, waiting::timeout(timeout)?)?;
        let taken = taken.map(|request| Request::in_place(request, &self.service.told));
        taken.map_err(duplex(py))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next request, whenever it comes; the end after stop().
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Request>> {
        match self.receive(py, None) {
            Err(_) if self.service.is_stopping() => Ok(None),
            received => received.map(Some),
        }
    }

    /// Whether background threads are serving. False before start(), after stop(), and if the server
    /// had to stop for a reason of its own (stop() then says which).
    #[getter]
    fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        if self.service.is_stopping() {
            return Ok(false);
        }
        for thread in self.service.threads(py) {
            if thread.call_method0("is_alive")?.is_truthy()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a client is attached at this moment.
    #[getter]
    fn is_client_connected(&self, py: Python<'_>) -> bool {
        let service = &self.service;
        let is_connected =
            || service.server.lock().as_ref().is_some_and(|s| s.is_client_connected());
        service.process.is_this() && !service.is_stopping() && py.detach(is_connected)
    }

    /// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets it
    /// read its responses, and removes the channel's names. Called again it does nothing, or goes on if
    /// Ctrl-C had ended the wait.
    ///
    /// Raises what made the background threads stop before, if anything did.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.service.stop(py)
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

    fn __repr__(&self) -> String {
        format!("Server({:?})", self.service.name)
    }
}

impl Drop for Server {
    /// The collector may come here on any thread, so nothing waits for a handler.
    fn drop(&mut self) {
        let service = &self.service;
        if !service.process.is_this() {
            return;
        }
        service.stopping.store(true, Ordering::Relaxed);
        service.forgotten.store(true, Ordering::Relaxed);
        if service.serving.load(Ordering::Relaxed) == 0 {
            let _ = Python::try_attach(|py| service.end_forgotten(py));
        }
    }
}

impl Service {
    /// The body of a background thread.
    fn serve(&self, py: Python<'_>, handler: &Handler) -> PyResult<()> {
        let served = self.serve_all(py, handler);
        let is_last = self.serving.fetch_sub(1, Ordering::Relaxed) == 1;
        if is_last && self.forgotten.load(Ordering::Relaxed) {
            self.end_forgotten(py);
        }
        served
    }

    fn serve_all(&self, py: Python<'_>, handler: &Handler) -> PyResult<()> {
        while !self.is_stopping() {
            match self.take(py, SLICE)? {
                Ok(request) => {
                    handler.run(&Bound::new(py, Request::in_place(request, &self.told))?);
                }
                // Nothing came, or that client is not served any more; the next one is.
                Err(Error::Timeout { .. } | Error::ProtocolViolation { .. }) => {}
                Err(
                    error @ (Error::AlreadyRunning { .. }
                    | Error::ForeignObject { .. }
                    | Error::WrongProcess),
                ) => {
                    self.failure.lock().get_or_insert(error);
                    break;
                }
                Err(Error::InvalidState { .. } | Error::Closed) => break,
                // The next segment could not be made now, for want of memory or descriptors.
                Err(_) => py.detach(|| std::thread::sleep(RETRY)),
            }
        }
        Ok(())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.process.check(py)?;
        self.stopping.store(true, Ordering::Relaxed);
        if self.server.try_lock().is_some_and(|server| server.is_none()) {
            return Ok(());
        }
        self.join(py)?;
        let stopped = self.end(py)?;
        let failure = self.failure.lock().take();
        match failure {
            Some(error) => Err(exception(py, &error, Side::Duplex)),
            None => stopped.map_err(duplex(py)),
        }
    }

    /// Ends the channel, whose threads have ended or are left.
    fn end(&self, py: Python<'_>) -> PyResult<Result<(), Error>> {
        let stopped = py.detach(|| {
            // Not under the lock: a thread that takes requests waits for it, and has to end to let go of the last
            // one, for whose response the stop waits.
            let server = self.server.lock().take();
            server.map_or(Ok(()), |mut server| server.stop())
        });
        let at_exit = self.at_exit.lock().take();
        if let Some(at_exit) = at_exit {
            py.import("atexit")?.call_method1("unregister", (at_exit,))?;
        }
        Ok(stopped)
    }

    /// Ends the channel of a server that nobody has any more, who could be told what goes wrong.
    fn end_forgotten(&self, py: Python<'_>) {
        if let Err(error) = self.end(py) {
            error.write_unraisable(py, None);
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn threads<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        self.threads.lock().iter().map(|thread| thread.bind(py).clone()).collect()
    }

    /// Waits for the threads, but not for this one; one whose handler does not come back is left.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        let start = Instant::now();
        let this = py.import("threading")?.call_method0("current_thread")?;
        for thread in self.threads(py) {
            if !thread.is(&this) {
                let left = (self.stop_timeout + SLICE).saturating_sub(start.elapsed());
                thread.call_method1("join", (left.as_secs_f64(),))?;
            }
        }
        Ok(())
    }

    /// Takes the next request. Several threads take turns.
    fn take(&self, py: Python<'_>, timeout: Duration) -> PyResult<Result<OwnedRequest, Error>> {
        waiting::wait(py, timeout, not_yet, |slice| {
            let no_turn = Error::Timeout { waited: slice, what: "waiting for a request" };
            let mut server = match slice.is_zero() {
                // The interpreter is locked: the holder of this lock may wait for that one.
                true => self.server.try_lock().ok_or(no_turn)?,
                false => self.server.try_lock_for(slice).ok_or(no_turn)?,
            };
            if self.is_stopping() {
                return Err(Error::Closed);
            }
            let server = server.as_mut().ok_or(Error::Closed)?;
            server.receive(slice).map(zerobuffer::Request::into_owned)
        })
    }
}
